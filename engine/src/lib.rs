//! The engine: pipelines, Kafka, ClickHouse, the worker loop and the command line.

pub mod binder;
pub mod binding;
pub mod books;
pub mod clickhouse;
pub mod dataflow;
pub mod kafka;
pub mod metrics;
