//! What the oracle reads: every record that the broker has, kept in ClickHouse.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, BinaryArray, Int32Array, Int64Array, StringArray, UInt8Array},
    record_batch::RecordBatch,
};
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinHandle};

use crate::clickhouse::{ClickHouse, ClickHouseError, rows::arrow_stream};

use super::feeder::Delivered;

const ROWS_MAX: usize = 20_000;

const CREATE: &str = "CREATE TABLE raw_events (topic LowCardinality(String), partition Int32, \
    record_offset Int64, broker_time_ms Int64, payload String, is_null UInt8, ce_id String, \
    ce_source String, ce_type String) \
    ENGINE = MergeTree ORDER BY (topic, partition, record_offset)";

/// Creates the table.
///
/// # Errors
/// ClickHouse's; also when it exists, since offsets of another broker mean nothing.
pub(super) async fn create(clickhouse: &ClickHouse) -> Result<(), ClickHouseError> {
    clickhouse.create_database().await?;
    clickhouse.execute("create the table raw_events", CREATE).await
}

/// Inserts all that arrives, and ends when nothing more can arrive.
pub(super) fn keep(
    clickhouse: ClickHouse,
    mut delivered: UnboundedReceiver<Delivered>,
) -> JoinHandle<Result<(), ClickHouseError>> {
    tokio::spawn(async move {
        let mut batch = Vec::new();
        while delivered.recv_many(&mut batch, ROWS_MAX).await > 0 {
            clickhouse.insert_arrow("raw_events", arrow_stream(&columns(&batch))).await?;
            batch.clear();
            // Many small parts cost more than a short wait.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    })
}

fn columns(rows: &[Delivered]) -> RecordBatch {
    let header = |name: &'static str| -> ArrayRef {
        let values = rows.iter().map(|row| row.record.header(name).unwrap_or_default());
        Arc::new(StringArray::from_iter_values(values))
    };
    let records = || rows.iter().map(|row| &row.record);
    let payloads = records().map(|record| record.payload.as_deref().unwrap_or_default());
    let nulls = records().map(|record| u8::from(record.payload.is_none()));
    let topics = records().map(|record| record.topic);
    RecordBatch::try_from_iter([
        ("topic", Arc::new(StringArray::from_iter_values(topics)) as ArrayRef),
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
    .expect("all columns have one value per row")
}
