//! The worker loop: the operators of all pipelines between Kafka and ClickHouse.

pub mod at_worker_0;
pub mod source;
