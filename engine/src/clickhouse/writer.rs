//! Writes batches of rows until ClickHouse acknowledged them.
//!
//! One task per pipeline, so that a slow table holds up nobody else; the batches of one pipeline
//! go in order. A batch is sent again until it is acknowledged: rows name their epoch, so a row
//! sent twice is the same row.

use std::time::{Duration, Instant};

use bytes::Bytes;
use citycell_schemas::Epoch;
use tokio::{runtime::Handle, sync::mpsc};

use crate::{alarm::Alarm, metrics::Metrics};

use super::ClickHouse;

/// Rows of one epoch for one table, as an Arrow stream.
#[derive(Clone, Debug)]
pub struct TableBatch {
    /// The table.
    pub table: String,
    /// The rows.
    pub data: Bytes,
}

/// Everything one worker writes of one pipeline in one epoch.
pub struct WriteJob {
    /// The epoch.
    pub epoch: Epoch,
    /// The rows by table.
    pub batches: Vec<TableBatch>,
    /// Called once everything is acknowledged.
    pub done: Box<dyn FnOnce() + Send>,
}

/// What a writing task needs.
#[derive(Clone)]
pub struct TaskParts {
    /// Where it runs.
    pub runtime: Handle,
    /// Where it writes.
    pub clickhouse: ClickHouse,
    /// What it shows of itself.
    pub metrics: Metrics,
    /// Rings if it panics.
    pub alarm: Alarm,
}

/// The way to one pipeline's writing task.
pub type WriteQueue = mpsc::UnboundedSender<WriteJob>;

/// Starts the writing task of `pipeline`. What waits in its queue is bounded by the number of
/// epochs that may be bound and not yet marked.
#[must_use]
pub fn start(parts: TaskParts, pipeline: String) -> WriteQueue {
    let (queue, mut jobs) = mpsc::unbounded_channel::<WriteJob>();
    let runtime = parts.runtime.clone();
    runtime.spawn(async move {
        while let Some(job) = jobs.recv().await {
            for batch in job.batches {
                insert(&parts, &pipeline, batch).await;
            }
            (job.done)();
        }
    });
    queue
}

/// Inserts `batch`, however long ClickHouse takes to come back.
pub(super) async fn insert(parts: &TaskParts, pipeline: &str, batch: TableBatch) {
    let TaskParts { clickhouse, metrics, .. } = parts;
    let mut pause = Duration::from_millis(100);
    loop {
        let started = Instant::now();
        match clickhouse.insert_arrow(&batch.table, batch.data.clone()).await {
            Ok(()) => {
                metrics.inserted(pipeline, started.elapsed());
                return;
            }
            Err(error) => {
                metrics.insert_failed(pipeline);
                tracing::warn!(
                    pipeline,
                    table = batch.table,
                    error = %error,
                    cause = %error.source,
                    retry_in_ms = pause.as_millis(),
                    "ClickHouse did not take the rows, sending them again"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        }
    }
}
