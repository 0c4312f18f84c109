//! One dataflow and the way into it: the versions that serve have one, those that are built another.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use citycell_schemas::Epoch;
use crossbeam_channel::Sender;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    alarm::Alarm,
    binder::{HandOut, Notice},
    clickhouse::marks::Mark,
    dataflow::{ArchiveWork, PipelineWork, SnapshotWork, Work, source::Waker},
    kafka::{reader::Reader, witness},
    metrics::Metrics,
    personal::Sealing,
    snapshot,
};

use super::{EngineConfig, EngineError, start::kafka_error};

/// A dataflow that is not running yet.
pub(super) struct Line {
    /// What the workers do.
    pub(super) work: Work,
    /// The way in, for process 0.
    pub(super) hand_out: HandOut,
}

/// What all lines share.
pub(super) struct LineParts<'a> {
    pub(super) config: &'a EngineConfig,
    pub(super) topics: &'a Arc<[Arc<str>]>,
    pub(super) marks: UnboundedSender<Mark>,
    pub(super) sealing: Option<Arc<Sealing>>,
    pub(super) snapshots: Option<SnapshotWork>,
    pub(super) alarm: &'a Alarm,
    pub(super) metrics: &'a Metrics,
    /// The epoch of each version's state.
    pub(super) started_at: &'a BTreeMap<String, Epoch>,
}

impl LineParts<'_> {
    /// A line with readers of its own; `notices` is heard by who hands its bindings out.
    pub(super) fn line(
        &self,
        pipelines: Vec<PipelineWork>,
        archive: Option<ArchiveWork>,
        notices: &Sender<Notice>,
    ) -> Result<Line, EngineError> {
        let (handed_out, bindings) = crossbeam_channel::unbounded();
        let bindings_waker = Waker::default();
        let (record_wakers, readers) = self.start_readers()?;
        let keys = pipelines.iter();
        let keys = keys.map(|one| snapshot::key(&one.table.pipeline, &one.table.version));
        let started_at = keys.filter_map(|key| self.started_at.get_key_value(&key));
        let started_at: BTreeMap<_, _> =
            started_at.map(|(key, epoch)| (key.clone(), *epoch)).collect();
        let work = Work {
            topics: Arc::clone(self.topics),
            grid: Arc::clone(&self.config.grid),
            marks: self.marks.clone(),
            pipelines,
            archive,
            sealing: self.sealing.clone(),
            snapshots: self.snapshots.clone(),
            started_at: Arc::new(started_at),
            readers,
            record_wakers,
            bindings: Mutex::new(self.config.is_first().then_some(bindings)),
            is_cluster: self.config.cluster.is_some(),
            bindings_waker: bindings_waker.clone(),
            notices: notices.clone(),
            alarm: self.alarm.clone(),
            metrics: self.metrics.clone(),
        };
        Ok(Line { work, hand_out: HandOut { bindings: Some(handed_out), waker: bindings_waker } })
    }

    fn start_readers(&self) -> Result<(Vec<Waker>, Vec<Arc<Reader>>), EngineError> {
        let config = self.config;
        let wakers: Vec<Waker> = (0..config.workers.get()).map(|_| Waker::default()).collect();
        let start = |waker: &Waker| {
            let waker = waker.clone();
            let wake = move || waker.wake();
            let topics = Arc::clone(self.topics);
            let reader = Reader::start(&config.kafka, topics, config.buffer_bytes_max, wake);
            reader.map(Arc::new).map_err(|source| kafka_error(config, source))
        };
        let readers: Vec<_> = wakers.iter().map(start).collect::<Result<_, _>>()?;
        witness::start(&config.kafka, &readers).map_err(|source| kafka_error(config, source))?;
        Ok((wakers, readers))
    }
}
