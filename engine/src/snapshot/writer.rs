//! Writes the runs of this process's workers, however long the storage takes to come back.

use std::time::Duration;

use bytes::Bytes;
use citycell_operators::saved::Saved;
use citycell_schemas::Epoch;
use tokio::{runtime::Handle, sync::mpsc};

use crate::{alarm::Alarm, crash_point::crash_point, metrics::Metrics};

use super::{
    run::{Run, RunWriter},
    storage::Storage,
};

/// What one worker wrote down of one pipeline.
pub struct SnapshotJob {
    /// The pipeline.
    pub pipeline: String,
    /// Its version.
    pub version: String,
    /// The epoch at whose end it holds.
    pub epoch: Epoch,
    /// The worker's number.
    pub worker: usize,
    /// The entries.
    pub saved: Saved,
    /// Called with the run once it is durable; none where there was no entry.
    pub done: Box<dyn FnOnce(Option<Run>) + Send>,
}

/// The way to the writing task. What waits in it is bounded: the next snapshot is taken only when
/// the one before is written.
pub type SnapshotQueue = mpsc::UnboundedSender<SnapshotJob>;

/// Starts the writing task.
#[must_use]
pub fn start(runtime: &Handle, storage: Storage, metrics: Metrics, alarm: Alarm) -> SnapshotQueue {
    let (queue, mut jobs) = mpsc::unbounded_channel::<SnapshotJob>();
    runtime.spawn(async move {
        let _rings_on_panic = alarm;
        // An engine that was fenced out may still write files of the same epochs and workers.
        let ours = storage.writer();
        while let Some(job) = jobs.recv().await {
            let SnapshotJob { pipeline, version, epoch, worker, saved, done } = job;
            if saved.is_empty() {
                done(None);
                continue;
            }
            let file =
                format!("runs/{pipeline}-{version}/{:013}-{worker}-{ours:016x}.run", epoch.0);
            let encoded = tokio::task::spawn_blocking(move || encode(&saved, file, epoch)).await;
            let (run, data) = encoded.expect("entries in memory are always written");
            write(&storage, &run, data, &metrics).await;
            crash_point("after_snapshot_file");
            done(Some(run));
        }
    });
    queue
}

fn encode(saved: &Saved, file: String, epoch: Epoch) -> (Run, Bytes) {
    let write = || {
        let mut writer = RunWriter::new(Vec::new())?;
        saved.sorted().try_for_each(|entry| writer.push(entry))?;
        writer.finish(file, epoch)
    };
    let written: std::io::Result<_> = write();
    let (run, data) = written.expect("a vector takes any bytes");
    (run, Bytes::from(data))
}

async fn write(storage: &Storage, run: &Run, data: Bytes, metrics: &Metrics) {
    let mut pause = Duration::from_millis(200);
    while let Err(error) = storage.put(&run.file, data.clone()).await {
        metrics.snapshot_failed();
        tracing::warn!(
            file = run.file,
            %error,
            cause = std::error::Error::source(&error).map(ToString::to_string),
            retry_in_ms = pause.as_millis(),
            "a snapshot's file is not written yet, trying again"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}
