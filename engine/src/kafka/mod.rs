//! Kafka: connection settings, the readers of partitions and the log of bindings.

mod ask;
pub mod binding_log;
mod complaints;
mod consume;
pub mod partitions;
pub mod presence;
pub mod probe;
pub mod reader;
pub mod settings;
pub mod settings_file;
pub mod witness;

pub use ask::{TopicId, TopicIds};
pub use partitions::{TopicPartition, Unreachable};
pub use settings::{BrokerKind, KafkaSettings};
