//! Kafka: connection settings, the readers of partitions and the log of bindings.

pub mod binding_log;
mod complaints;
mod consume;
pub mod partitions;
pub mod presence;
pub mod probe;
pub mod reader;
pub mod settings;
pub mod settings_file;

pub use partitions::{TopicPartition, Unreachable};
pub use settings::KafkaSettings;
