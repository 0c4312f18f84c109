//! Reads the engine's bindings from their topic, as they are made.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    binding::Binding,
    kafka::{
        KafkaSettings,
        consume::{BatchQueue, Delivery},
    },
};

use super::{
    DemoError,
    kept::{BoundRange, bound_ranges},
};

/// So long nothing comes at the end of the topic before it is the end.
const QUIET: Duration = Duration::from_millis(500);

/// A thread that reads bindings until it is stopped.
pub(super) struct Follower {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Follower {
    /// Starts to read; `topics` are the deployment's topics, sorted.
    pub(super) fn start(
        kafka: &KafkaSettings,
        bindings_topic: &str,
        topics: Vec<String>,
        bound: UnboundedSender<BoundRange>,
    ) -> Result<Self, DemoError> {
        let queue = assigned(kafka, bindings_topic).map_err(DemoError::Broker)?;
        let stopped = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("bindings-follower".into());
        let stop = Arc::clone(&stopped);
        let thread = thread
            .spawn(move || follow(queue, &topics, &bound, &stop))
            .map_err(DemoError::Thread)?;
        Ok(Self { stopped, thread })
    }

    /// Stops at the end of the topic.
    pub(super) fn stop(self) -> Result<(), DemoError> {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| DemoError::Panicked("bindings-follower"))
    }
}

fn assigned(kafka: &KafkaSettings, topic: &str) -> Result<BatchQueue, KafkaError> {
    let consumer: BaseConsumer = kafka
        .client(&[
            ("group.id", "citycell-demo"),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", "true"),
            ("isolation.level", "read_committed"),
        ])
        .create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&list)?;
    Ok(BatchQueue::new(consumer, 1024))
}

fn follow(
    mut queue: BatchQueue,
    topics: &[String],
    bound: &UnboundedSender<BoundRange>,
    stopped: &AtomicBool,
) {
    let mut at_end = false;
    loop {
        let mut is_quiet = true;
        queue.consume(QUIET, |delivery| {
            is_quiet = false;
            match delivery {
                Delivery::Record(message) => {
                    at_end = false;
                    match Binding::from_json(message.payload.unwrap_or_default(), topics) {
                        Ok(binding) => {
                            bound_ranges(&binding, topics).into_iter().for_each(|range| {
                                // Nobody listens only when the demo is over.
                                let _ = bound.send(range);
                            })
                        }
                        Err(error) => tracing::error!(%error, "a record is not a binding"),
                    }
                }
                Delivery::End { .. } => at_end = true,
                Delivery::Failed { text, .. } => {
                    tracing::warn!(error = text, "cannot read bindings, trying again");
                }
            }
        });
        if is_quiet && at_end && stopped.load(Ordering::Relaxed) {
            return;
        }
    }
}
