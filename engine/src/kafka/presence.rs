//! Whether an engine runs a deployment: a member of a consumer group, kept alive by the broker.
//!
//! Who runs a deployment joins its group and does nothing else there; who stands by asks whether the
//! group has members. The broker drops a member that is silent for six seconds, or says that it
//! leaves. This only decides when to take over: two who run at once are told apart by the log of
//! bindings, which fences one of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rdkafka::{
    consumer::{BaseConsumer, Consumer, DefaultConsumerContext},
    error::KafkaError,
};

use super::{KafkaSettings, binding_log::topic_of};

/// After this a member that says nothing is gone, in ms: the least that brokers take by default.
const SILENT_FOR: &str = "6000";
/// How long a broker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The group of a deployment.
#[must_use]
pub fn group_of(deployment: &str) -> String {
    format!("citycell.{deployment}")
}

/// Tells those who stand by that somebody is there, until it is dropped.
pub struct Presence {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Presence {
    /// Joins the group; that it cannot be joined is only logged, since nothing else depends on it.
    ///
    /// # Errors
    /// When a Kafka setting is wrong.
    pub fn announce(settings: &KafkaSettings, deployment: &str) -> Result<Self, KafkaError> {
        let group = group_of(deployment);
        let defaults = [
            ("group.id", group.as_str()),
            ("session.timeout.ms", SILENT_FOR),
            ("heartbeat.interval.ms", "1500"),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "latest"),
            // The topic is made at the first start, perhaps after this.
            ("topic.metadata.refresh.interval.ms", "1000"),
            ("allow.auto.create.topics", "false"),
        ];
        let consumer: BaseConsumer = settings.create(&defaults, DefaultConsumerContext)?;
        consumer.subscribe(&[&topic_of(deployment)])?;
        let stopped = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stopped);
        let thread = thread::Builder::new().name("presence".into()).spawn(move || {
            while !until.load(Ordering::Relaxed) {
                // Bindings that come are not for us; a member must ask for them all the same.
                if let Some(Err(error)) = consumer.poll(Duration::from_millis(100)) {
                    tracing::debug!(%error, "those who stand by may not see us");
                }
            }
            // Leaves the group.
            drop(consumer);
        });
        let thread = thread.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { stopped, thread: Some(thread) })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // One that panicked has left.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Asks who is present.
pub struct Watch {
    consumer: BaseConsumer,
    group: String,
}

impl Watch {
    /// A client that only asks.
    ///
    /// # Errors
    /// When a Kafka setting is wrong.
    pub fn new(settings: &KafkaSettings, deployment: &str) -> Result<Self, KafkaError> {
        let consumer =
            settings.create(&[("group.id", "citycell-finder")], DefaultConsumerContext)?;
        Ok(Self { consumer, group: group_of(deployment) })
    }

    /// Whether an engine runs the deployment.
    ///
    /// # Errors
    /// When the broker does not say.
    pub fn is_somebody_there(&self) -> Result<bool, KafkaError> {
        let groups = self.consumer.fetch_group_list(Some(&self.group), TIMEOUT)?;
        Ok(groups.groups().iter().any(|group| !group.members().is_empty()))
    }
}
