//! The threads that bind epochs and look for partitions; in process 0 only.

use std::{
    collections::BTreeSet,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::Sender;

use crate::{
    alarm::Alarm,
    binder::{Binder, BoundPipeline, Notice},
    follower::Follower,
    kafka::partitions::PartitionFinder,
    pipeline::Pipeline,
};

use super::{
    EngineConfig, EngineError,
    start::{kafka_error, spawn},
};

/// They end with the engine.
pub(super) struct BindingThreads {
    pub(super) binder: JoinHandle<Result<(), EngineError>>,
    pub(super) finder: JoinHandle<()>,
    /// Only while versions are built.
    pub(super) follower: Option<JoinHandle<()>>,
}

/// Starts the binder and the search for partitions.
pub(super) fn start_binding(
    config: &EngineConfig,
    binder: Binder,
    follower: Option<Follower>,
    notices: &Sender<Notice>,
    alarm: &Alarm,
) -> Result<BindingThreads, EngineError> {
    let names: Vec<String> = config.topics().iter().map(ToString::to_string).collect();
    let finder = find_partitions(config, names, notices.clone(), alarm.clone())?;
    let follow = |follower: Follower| spawn("follower", move || follower.run());
    Ok(BindingThreads {
        binder: spawn("binder", move || binder.run())?,
        finder,
        follower: follower.map(follow).transpose()?,
    })
}

/// The pipelines as far as binding is concerned.
pub(super) fn bound_pipelines(config: &EngineConfig, topics: &[Arc<str>]) -> Vec<BoundPipeline> {
    let bound = |pipeline: &Arc<Pipeline>| BoundPipeline {
        name: pipeline.plan.name.clone(),
        version: pipeline.version(config.grid.grid()),
        topics: pipeline.topic_numbers(topics).collect(),
        publish_every_ms: pipeline.plan.publish_every_ms,
    };
    config.pipelines.iter().map(bound).collect()
}

/// Looks for partitions again and again: a topic may be created, or grow, at any time.
fn find_partitions(
    config: &EngineConfig,
    names: Vec<String>,
    notices: Sender<Notice>,
    alarm: Alarm,
) -> Result<JoinHandle<()>, EngineError> {
    let finder =
        PartitionFinder::new(&config.kafka).map_err(|source| kafka_error(config, source))?;
    spawn("partition-finder", move || {
        let mut missing = BTreeSet::new();
        while !alarm.is_stopped() {
            match finder.find(&names) {
                Ok(found) => {
                    for (index, topic) in (0u16..).zip(&names) {
                        if found.partitions.keys().any(|partition| partition.topic == index) {
                            missing.remove(topic);
                        } else if missing.insert(topic.clone()) {
                            tracing::warn!(
                                topic,
                                "the topic does not exist yet, or we may not see it; waiting for it"
                            );
                        }
                    }
                    let _ = notices.send(Notice::Found(found));
                }
                Err(error) => tracing::warn!(%error, "no broker answers, trying again"),
            }
            for _ in 0..50 {
                if !alarm.is_stopped() {
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    })
}
