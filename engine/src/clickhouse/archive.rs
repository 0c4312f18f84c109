//! The table `archive`: records as Kafka delivered them, kept for a while.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{
        ArrayRef, Int32Array, Int64Array, MapBuilder, StringArray, StringBuilder,
        TimestampMillisecondArray, UInt8Array, UInt64Array,
    },
    record_batch::RecordBatch,
};
use citycell_operators::records::{CloudEventHeaders, Records};
use citycell_schemas::{Epoch, tables};

use crate::personal::{Kept, KeysError, Sealing};

use super::{
    ClickHouse, ClickHouseError,
    placement::Placement,
    rows::{arrow_stream, binary},
    tables::add_missing,
    writer::TableBatch,
};

/// The name of the table, under which the archive's marks stand in `epochs` too: the deployment is
/// their version.
pub const ARCHIVE: &str = tables::ARCHIVE.0;

/// Payload bytes from which on an insert takes no more chunks of records.
const INSERT_BYTES: usize = 16 << 20;

/// Creates the table if it is missing, and has it keep records for `keep`.
///
/// # Errors
/// ClickHouse's.
pub async fn prepare(clickhouse: &ClickHouse, keep: Duration) -> Result<(), ClickHouseError> {
    let [create, alter] = statements(clickhouse.placement(), keep);
    clickhouse.execute("create the archive", &create).await?;
    add_missing(clickhouse, ARCHIVE, &[("sealed", "String CODEC(NONE)")]).await?;
    if kept_for(clickhouse).await? != Some(keep.as_secs()) {
        clickhouse.execute("change how long the archive keeps records", &alter).await?;
    }
    Ok(())
}

/// What makes the table, and what changes how long it keeps records.
#[must_use]
pub fn statements(placement: &Placement, keep: Duration) -> [String; 2] {
    let seconds = keep.as_secs().to_string();
    let alter = "ALTER TABLE archive{on_cluster} MODIFY TTL \
                 toDateTime(intDiv(epoch, 1000), 'UTC') + toIntervalSecond({keep_seconds})";
    [tables::ARCHIVE.1, alter]
        .map(|template| placement.fill(&template.replace("{keep_seconds}", &seconds)))
}

/// For how many seconds the archive keeps records.
///
/// # Errors
/// ClickHouse's, also when there is no archive.
pub async fn kept_for(clickhouse: &ClickHouse) -> Result<Option<u64>, ClickHouseError> {
    let text = clickhouse.query("look at the archive", "SHOW CREATE TABLE archive", "Raw").await?;
    let text = String::from_utf8_lossy(&text);
    let after = text.split("toIntervalSecond(").nth(1);
    Ok(after.and_then(|after| after.split(')').next()?.parse().ok()))
}

/// The rows of one epoch's records, some chunks an insert; what is personal is sealed.
///
/// # Errors
/// When the key of a record's day cannot be had.
pub fn encode<R: AsRef<Records>>(
    epoch: Epoch,
    records: &[R],
    sealing: Option<&Sealing>,
) -> Result<Vec<TableBatch>, KeysError> {
    let mut batches = Vec::new();
    let mut rest = records;
    while !rest.is_empty() {
        let mut bytes = 0;
        let is_too_much = |chunk: &R| {
            let is_first = bytes == 0;
            bytes += chunk.as_ref().bytes() + 1;
            !is_first && bytes > INSERT_BYTES
        };
        let (batch, more) = rest.split_at(rest.iter().position(is_too_much).unwrap_or(rest.len()));
        let chunks: Vec<&Records> = batch.iter().map(AsRef::as_ref).collect();
        let data = arrow_stream(&columns(epoch, &chunks, sealing)?);
        batches.push(TableBatch { table: ARCHIVE.to_owned(), data });
        rest = more;
    }
    Ok(batches)
}

fn columns(
    epoch: Epoch,
    chunks: &[&Records],
    sealing: Option<&Sealing>,
) -> Result<RecordBatch, KeysError> {
    let rows = chunks.iter().flat_map(|chunk| (0..chunk.len()).map(move |row| (*chunk, row)));
    // Arrow wants to know beforehand how many there are.
    let all: Vec<(&Records, usize)> = rows.collect();
    let rows = || all.iter().copied();
    let times = rows().map(|(chunk, row)| chunk.broker_times_ms[row]);
    let times = TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC");
    let offsets = rows().map(|(chunk, row)| chunk.offsets[row].0);
    let nulls = rows().map(|(chunk, row)| u8::from(chunk.payload(row).is_none()));
    let mut headers = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for (chunk, row) in rows() {
        for (name, value) in chunk.headers[row].iter().flat_map(|headers| attributes(headers)) {
            headers.keys().append_value(name);
            headers.values().append_value(value);
        }
        headers.append(true).expect("a key for each value");
    }
    let mut columns = vec![
        (
            "topic",
            Arc::new(StringArray::from_iter_values(rows().map(|(chunk, _)| &*chunk.topic)))
                as ArrayRef,
        ),
        (
            "partition",
            Arc::new(Int32Array::from_iter_values(rows().map(|(chunk, _)| chunk.partition))),
        ),
        ("record_offset", Arc::new(Int64Array::from_iter_values(offsets))),
        ("epoch", Arc::new(UInt64Array::from_value(epoch.0, all.len()))),
        ("broker_time", Arc::new(times)),
        ("headers", Arc::new(headers.finish())),
        ("is_null", Arc::new(UInt8Array::from_iter_values(nulls))),
    ];
    match sealing {
        None => {
            let payloads = rows().map(|(chunk, row)| chunk.payload(row).unwrap_or_default());
            columns.push(("payload", binary(payloads)));
        }
        Some(sealing) => {
            let kept = rows().map(|(chunk, row)| sealing.record(chunk, row));
            let kept = kept.collect::<Result<Vec<Kept<'_>>, _>>()?;
            columns.push(("payload", binary(kept.iter().map(|kept| &*kept.payload))));
            columns.push(("sealed", binary(kept.iter().map(|kept| kept.sealed.as_slice()))));
        }
    }
    Ok(RecordBatch::try_from_iter(columns).expect("all columns have one value per record"))
}

/// The headers by their names in Kafka.
fn attributes(headers: &CloudEventHeaders) -> impl Iterator<Item = (&'static str, &str)> {
    let CloudEventHeaders { id, source, kind, time, recorded_time } = headers;
    [
        ("ce_id", id),
        ("ce_source", source),
        ("ce_type", kind),
        ("ce_time", time),
        ("ce_recordedtime", recorded_time),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value.as_deref()?)))
}
