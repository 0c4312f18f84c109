//! What the oracle reads: every record that the broker has, and every binding, kept in ClickHouse.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BinaryArray, Int32Array, Int64Array, StringArray, UInt8Array, UInt64Array},
    record_batch::RecordBatch,
};
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinHandle};

use crate::{
    binding::Binding,
    clickhouse::{ClickHouse, ClickHouseError, rows::arrow_stream},
};

use super::feeder::Delivered;

const ROWS_MAX: usize = 20_000;

const CREATE: [(&str, &str); 2] = [
    (
        "create the table raw_events",
        "CREATE TABLE raw_events (topic LowCardinality(String), partition Int32, \
         record_offset Int64, broker_time_ms Int64, payload String, is_null UInt8, ce_id String, \
         ce_source String, ce_type String) \
         ENGINE = MergeTree ORDER BY (topic, partition, record_offset)",
    ),
    (
        "create the table bindings",
        "CREATE TABLE bindings (epoch UInt64, bound_time_ms Int64, \
         topic LowCardinality(String), partition Int32, from_offset Int64, next_offset Int64) \
         ENGINE = MergeTree ORDER BY (topic, partition, from_offset)",
    ),
];

/// Creates both tables.
///
/// # Errors
/// ClickHouse's; also when they exist, since offsets of another broker mean nothing.
pub(super) async fn create(clickhouse: &ClickHouse) -> Result<(), ClickHouseError> {
    clickhouse.create_database().await?;
    for (action, sql) in CREATE {
        clickhouse.execute(action, sql).await?;
    }
    Ok(())
}

/// Inserts all that arrives into `table`, and ends when nothing more can arrive.
pub(super) fn keep<T: Send + 'static>(
    clickhouse: ClickHouse,
    table: &'static str,
    mut arriving: UnboundedReceiver<T>,
    columns: fn(&[T]) -> RecordBatch,
) -> JoinHandle<Result<(), ClickHouseError>> {
    tokio::spawn(async move {
        let mut batch = Vec::new();
        while arriving.recv_many(&mut batch, ROWS_MAX).await > 0 {
            let data = arrow_stream(&columns(&batch));
            clickhouse.insert_arrow(table, data).await?;
            batch.clear();
            // Many small parts cost more than a short wait.
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        Ok(())
    })
}

/// The columns of `raw_events`.
pub(super) fn raw_columns(rows: &[Delivered]) -> RecordBatch {
    let header = |name: &'static str| -> ArrayRef {
        let values = rows.iter().map(|row| row.record.header(name).unwrap_or_default());
        Arc::new(StringArray::from_iter_values(values))
    };
    let records = || rows.iter().map(|row| &row.record);
    let payloads = records().map(|record| record.payload.as_deref().unwrap_or_default());
    let nulls = records().map(|record| u8::from(record.payload.is_none()));
    let topics = records().map(|record| record.topic);
    batch([
        ("topic", Arc::new(StringArray::from_iter_values(topics))),
        (
            "partition",
            Arc::new(Int32Array::from_iter_values(records().map(|record| record.partition))),
        ),
        (
            "record_offset",
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.offset))),
        ),
        (
            "broker_time_ms",
            Arc::new(Int64Array::from_iter_values(records().map(|record| record.broker_time_ms))),
        ),
        ("payload", Arc::new(BinaryArray::from_iter_values(payloads))),
        ("is_null", Arc::new(UInt8Array::from_iter_values(nulls))),
        ("ce_id", header("ce_id")),
        ("ce_source", header("ce_source")),
        ("ce_type", header("ce_type")),
    ])
}

/// A part of a binding that binds records.
pub(super) struct BoundRange {
    epoch: u64,
    bound_time_ms: i64,
    topic: String,
    partition: i32,
    from_offset: i64,
    next_offset: i64,
}

/// The parts of `binding` that bind records; `topics` are the deployment's, sorted.
pub(super) fn bound_ranges(binding: &Binding, topics: &[String]) -> Vec<BoundRange> {
    let ranges = binding.partitions.iter();
    let ranges = ranges.filter(|(_, range)| range.next_offset > range.from_offset);
    ranges
        .map(|(partition, range)| BoundRange {
            epoch: binding.epoch.0,
            bound_time_ms: binding.bound_time_ms,
            topic: topics[usize::from(partition.topic)].clone(),
            partition: partition.partition,
            from_offset: range.from_offset,
            next_offset: range.next_offset,
        })
        .collect()
}

/// The columns of `bindings`.
pub(super) fn binding_columns(rows: &[BoundRange]) -> RecordBatch {
    let integers = |value: fn(&BoundRange) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(value)))
    };
    let epochs = rows.iter().map(|row| row.epoch);
    let topics = rows.iter().map(|row| &row.topic);
    let partitions = rows.iter().map(|row| row.partition);
    batch([
        ("epoch", Arc::new(UInt64Array::from_iter_values(epochs))),
        ("bound_time_ms", integers(|row| row.bound_time_ms)),
        ("topic", Arc::new(StringArray::from_iter_values(topics))),
        ("partition", Arc::new(Int32Array::from_iter_values(partitions))),
        ("from_offset", integers(|row| row.from_offset)),
        ("next_offset", integers(|row| row.next_offset)),
    ])
}

fn batch<const COLUMNS: usize>(columns: [(&str, ArrayRef); COLUMNS]) -> RecordBatch {
    RecordBatch::try_from_iter(columns).expect("all columns have one value per row")
}
