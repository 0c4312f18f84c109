//! Runs an insert whose data arrives piece by piece; nothing of it is buffered whole.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::authentication::Role;
use crate::engine::Session;
use crate::exception::Exception;
use crate::guard;
use crate::parameters::Parameters;
use crate::results::Progress;

/// What comes from the client.
pub(crate) enum Incoming {
    /// Some of the data.
    Data(Bytes),
    /// The data has ended; a channel that closes without this is a client that went away.
    End,
}

/// An insert and what it is run with.
pub(crate) struct Insert {
    pub(crate) head: String,
    pub(crate) format: String,
    pub(crate) role: Role,
    pub(crate) parameters: Parameters,
}

/// Runs the insert, blocking. Nothing is kept of a client's insert that ended early, except blocks
/// that were already written (ClickHouse writes a large insert as several blocks).
pub(crate) fn run(
    mut session: Session,
    insert: &Insert,
    mut incoming: mpsc::Receiver<Incoming>,
) -> Result<Progress, Exception> {
    let connection = &mut session.connection;
    guard::prepare(connection, insert.role, &insert.parameters, &session.tag)?;
    guard::check(connection, insert.role, &insert.head, &insert.parameters.values)?;
    let mut stream = connection.insert(&insert.head, &insert.format, &insert.parameters.values)?;
    loop {
        match incoming.blocking_recv() {
            Some(Incoming::Data(data)) => stream.append(&data)?,
            Some(Incoming::End) => return stream.finish(),
            None => {
                return Err(Exception::new(
                    210,
                    "NETWORK_ERROR",
                    "The client went away during its insert",
                ));
            }
        }
    }
}
