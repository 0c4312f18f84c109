//! A running statement as the network sees it: pieces of its result, until it ends or the client
//! goes away. A statement whose client is gone is killed, so that nobody's query runs on.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;

use crate::engine::{Engine, Session};
use crate::exception::Exception;
use crate::response;
use crate::results::Progress;
use crate::select::{self, Piece, Select};

/// How many pieces of a result wait for the network before the engine does.
const PIECES_WAITING_MAX: usize = 4;

/// A statement that runs; killed when dropped before its end.
pub(crate) struct Running {
    engine: Arc<Engine>,
    tag: String,
    pieces: mpsc::Receiver<Piece>,
    ended: bool,
}

impl Running {
    /// Starts the statement on a blocking thread.
    pub(crate) fn start(engine: &Arc<Engine>, session: Session, select: Select) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        let tag = session.tag.clone();
        tokio::task::spawn_blocking(move || select::run(session, &select, &sender));
        Self { engine: Arc::clone(engine), tag, pieces, ended: false }
    }

    /// Waits until the first bytes are known to come, or the statement has failed.
    pub(crate) async fn started(&mut self) -> Result<(String, Progress), Exception> {
        match self.next().await {
            Some(Piece::Started { format, progress }) => Ok((format, progress)),
            Some(Piece::Failed(exception)) => {
                self.ended = true;
                Err(exception)
            }
            Some(Piece::Data(_)) | None => {
                Err(Exception::internal("the statement's thread failed"))
            }
        }
    }

    /// The result's bytes. An error among them is written as ClickHouse does, marked by `tag`, and
    /// the connection is then cut, so that no client takes the result for whole.
    pub(crate) fn into_stream(
        self,
        tag: String,
    ) -> impl Stream<Item = Result<Bytes, Exception>> + Send + 'static {
        stream::unfold((self, tag, None), async |(mut running, tag, failed)| {
            if let Some(exception) = failed {
                // The bytes before this must have left when the connection is cut.
                tokio::time::sleep(CUT_AFTER).await;
                running.ended = true;
                return Some((Err(exception), (running, tag, None)));
            }
            match running.next().await? {
                Piece::Data(data) => Some((Ok(data), (running, tag, None))),
                Piece::Started { .. } => Some((Ok(Bytes::new()), (running, tag, None))),
                Piece::Failed(exception) => {
                    let text = response::exception_in_body(&tag, &exception);
                    Some((Ok(text), (running, tag, Some(exception))))
                }
            }
        })
    }

    async fn next(&mut self) -> Option<Piece> {
        let piece = self.pieces.recv().await;
        self.ended |= piece.is_none();
        piece
    }
}

const CUT_AFTER: std::time::Duration = std::time::Duration::from_millis(50);

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Without a runtime the process is ending, and the statement with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (engine, tag) = (Arc::clone(&self.engine), std::mem::take(&mut self.tag));
        runtime.spawn_blocking(move || engine.kill(&tag));
    }
}
