//! Writes batches of rows until ClickHouse acknowledged them.
//!
//! One task per pipeline, so that a slow table holds up nobody else; the batches of one pipeline
//! go in order, and wait in the [`Backlog`]. What waits behind each other goes together, or a
//! pipeline that fell behind would never catch up with ticks as short as its inserts. A batch is sent
//! again until it is acknowledged: rows name their epoch, so a row sent twice is the same row.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::mpsc};

use crate::{alarm::Alarm, crash_point::crash_point, metrics::Metrics};

use super::{
    ClickHouse,
    backlog::{Backlog, Waiting},
    rows::joined_streams,
};

/// Jobs go together until they have this many bytes.
const TOGETHER_BYTES: usize = 4 << 20;

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
#[derive(Clone)]
pub struct WriteQueue {
    jobs: mpsc::UnboundedSender<WaitingJob>,
    backlog: Backlog,
}

/// A [`WriteJob`] whose rows wait.
struct WaitingJob {
    batches: Vec<(String, Waiting)>,
    done: Box<dyn FnOnce() + Send>,
}

impl WriteQueue {
    /// Lets a job wait for its turn. Without a writing task it waits for ever.
    pub fn send(&self, job: WriteJob) {
        let batches = job.batches.into_iter();
        let batches = batches.map(|batch| (batch.table, self.backlog.put(batch.data))).collect();
        // The task is gone only when the runtime is, and then the epoch stays unmarked.
        let _ = self.jobs.send(WaitingJob { batches, done: job.done });
    }
}

/// Jobs that are written together.
#[derive(Default)]
struct Together {
    tables: BTreeMap<String, Vec<Waiting>>,
    done: Vec<Box<dyn FnOnce() + Send>>,
    bytes: usize,
}

impl Together {
    /// A job and those that wait behind it.
    fn gather(first: WaitingJob, jobs: &mut mpsc::UnboundedReceiver<WaitingJob>) -> Self {
        let mut together = Self::default();
        together.add(first);
        while together.bytes < TOGETHER_BYTES
            && let Ok(next) = jobs.try_recv()
        {
            together.add(next);
        }
        together
    }

    fn add(&mut self, job: WaitingJob) {
        for (table, rows) in job.batches {
            self.bytes += rows.bytes();
            self.tables.entry(table).or_default().push(rows);
        }
        self.done.push(job.done);
    }
}

/// Starts the writing task of `pipeline`.
#[must_use]
pub fn start(parts: TaskParts, pipeline: String, backlog: Backlog) -> WriteQueue {
    let (sender, mut jobs) = mpsc::unbounded_channel::<WaitingJob>();
    let runtime = parts.runtime.clone();
    let waiting = backlog.clone();
    runtime.spawn(async move {
        while let Some(job) = jobs.recv().await {
            crash_point("before_rows");
            let Together { tables, done, .. } = Together::gather(job, &mut jobs);
            for (table, rows) in tables {
                // What we wrote into a file of our own cannot be missing; if it is, nothing that
                // follows may be marked, and a restart computes it again.
                let data = rows.iter().map(|rows| waiting.get(rows)).collect::<Result<Vec<_>, _>>();
                let data = data.expect("rows that wait on disk can be read");
                for data in joined_streams(data) {
                    let table = table.clone();
                    insert(&parts, &pipeline, TableBatch { table, data }).await;
                }
                rows.into_iter().for_each(|rows| waiting.done(rows));
            }
            crash_point("after_rows");
            done.into_iter().for_each(|done| done());
        }
    });
    WriteQueue { jobs: sender, backlog }
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
