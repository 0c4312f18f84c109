//! The engine: pipelines, Kafka, ClickHouse, the worker loop and the command line.

pub mod binder;
pub mod binding;
pub mod books;
pub mod clickhouse;
pub mod commands;
pub mod config;
pub mod dataflow;
pub mod event_schemas;
pub mod grid;
pub mod http;
pub mod kafka;
pub mod metrics;
