//! Rows as Arrow streams.

use arrow::{ipc::writer::StreamWriter, record_batch::RecordBatch};
use bytes::Bytes;

/// One batch as an Arrow IPC stream, the form in which ClickHouse takes it.
///
/// # Panics
/// Never on data: writing to memory fails only for types that we do not use.
#[must_use]
pub fn arrow_stream(batch: &RecordBatch) -> Bytes {
    let mut bytes = Vec::new();
    let mut writer =
        StreamWriter::try_new(&mut bytes, &batch.schema()).expect("the schema fits Arrow IPC");
    writer.write(batch).expect("memory takes all bytes");
    writer.finish().expect("memory takes all bytes");
    drop(writer);
    Bytes::from(bytes)
}
