//! Runs a statement that carries all it needs and hands its result over piece by piece.
//!
//! The library's streamed result is a sequence of documents, each with its own header and footer.
//! So only formats whose documents can be joined are streamed (rows without a header, or the
//! binary header that can be taken off); the others are built whole in the engine first.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::authentication::Role;
use crate::connection::QueryClass;
use crate::engine::Session;
use crate::exception::Exception;
use crate::guard;
use crate::parameters::Parameters;
use crate::results::{Chunk, Progress};
use crate::statement;

/// A piece of a result. `Started` comes first, unless an error does.
pub(crate) enum Piece {
    /// What the headers say; the first bytes are known to follow without an error.
    Started { format: String, progress: Progress },
    /// Some of the result.
    Data(Bytes),
    /// The end by error.
    Failed(Exception),
}

/// A statement and what it is run with.
pub(crate) struct Select {
    pub(crate) sql: String,
    pub(crate) role: Role,
    pub(crate) parameters: Parameters,
}

/// Runs the statement, blocking; ends early when nobody receives any more.
pub(crate) fn run(mut session: Session, select: &Select, pieces: &mpsc::Sender<Piece>) {
    if let Err(exception) = try_run(&mut session, select, pieces) {
        // A receiver that is gone needs no error either.
        let _ = pieces.blocking_send(Piece::Failed(exception));
    }
}

fn try_run(
    session: &mut Session,
    select: &Select,
    pieces: &mpsc::Sender<Piece>,
) -> Result<(), Exception> {
    let connection = &mut session.connection;
    guard::prepare(connection, select.role, &select.parameters, &session.tag)?;
    let class = guard::check(connection, select.role, &select.sql, &select.parameters.values)?;
    let default = select.parameters.default_format.as_deref().unwrap_or("TabSeparated");
    let format = statement::format_of(&select.sql).unwrap_or_else(|| default.to_owned());
    let values = &select.parameters.values;
    if class == QueryClass::ReadOnly
        && statement::is_select(&select.sql)
        && let Some(header) = Header::of(&format)
    {
        let mut stream = connection.stream(&select.sql, default, values)?;
        let Some(first) = stream.next()? else {
            let _ = pieces.blocking_send(Piece::Started { format, progress: Progress::default() });
            return Ok(());
        };
        let started = Piece::Started { format, progress: first.progress() };
        if pieces.blocking_send(started).is_err() || !send(pieces, first, 0) {
            return Ok(());
        }
        while let Some(chunk) = stream.next()? {
            let skipped = header.length(chunk.as_ref())?;
            if !send(pieces, chunk, skipped) {
                break;
            }
        }
        return Ok(());
    }
    let whole = connection.query(&select.sql, default, values)?;
    let started = Piece::Started { format, progress: whole.progress() };
    if pieces.blocking_send(started).is_ok() {
        send(pieces, whole, 0);
    }
    Ok(())
}

/// Whether somebody still receives.
fn send(pieces: &mpsc::Sender<Piece>, chunk: Chunk, skipped: usize) -> bool {
    let data = Bytes::from_owner(chunk).slice(skipped..);
    data.is_empty() || pieces.blocking_send(Piece::Data(data)).is_ok()
}

/// What each document of a streamed result begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    Nothing,
    BinaryNames,
    BinaryNamesAndTypes,
}

impl Header {
    /// `None` if documents in this format cannot be joined.
    fn of(format: &str) -> Option<Self> {
        match format {
            "RowBinary" | "TabSeparated" | "TSV" | "TabSeparatedRaw" | "TSVRaw" | "CSV"
            | "JSONEachRow" | "JSONCompactEachRow" | "JSONStringsEachRow" | "LineAsString"
            | "Native" => Some(Self::Nothing),
            "RowBinaryWithNames" => Some(Self::BinaryNames),
            "RowBinaryWithNamesAndTypes" => Some(Self::BinaryNamesAndTypes),
            _ => None,
        }
    }

    /// How many bytes of `document` are header: a column count, then names, then types.
    fn length(self, document: &[u8]) -> Result<usize, Exception> {
        let texts_per_column = match self {
            Self::Nothing => return Ok(0),
            Self::BinaryNames => 1,
            Self::BinaryNamesAndTypes => 2,
        };
        let cut = || Exception::internal("a streamed result has a header that ends too early");
        let (columns, mut at) = varint(document, 0).ok_or_else(cut)?;
        for _ in 0..columns * texts_per_column {
            let (length, start) = varint(document, at).ok_or_else(cut)?;
            at = start + length;
        }
        if at > document.len() { Err(cut()) } else { Ok(at) }
    }
}

/// The LEB128 number at `at`, and where it ends.
fn varint(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut value = 0usize;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_header_is_measured() {
        let document = b"\x01\x06number\x06UInt64\x00\x00\x00\x00\x00\x00\x00\x00";
        assert_eq!(Header::BinaryNamesAndTypes.length(document), Ok(15));
        assert_eq!(Header::BinaryNames.length(document), Ok(8));
        assert_eq!(Header::Nothing.length(document), Ok(0));
        assert!(Header::BinaryNamesAndTypes.length(&document[..12]).is_err());
        assert!(Header::BinaryNamesAndTypes.length(b"").is_err());
    }
}
