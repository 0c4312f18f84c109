//! Kafka: connection settings, the readers of partitions and the log of bindings.

pub mod binding_log;
mod consume;
pub mod partitions;
pub mod reader;
pub mod settings;

pub use partitions::TopicPartition;
pub use settings::KafkaSettings;
