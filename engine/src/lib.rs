//! The engine: pipelines, Kafka, ClickHouse, the worker loop and the command line.

pub mod commands;

pub mod demo;

pub mod config;
pub mod event_schemas;
pub mod grid;
pub mod pipeline;

pub mod alarm;
mod clock;
pub mod crash_point;
pub mod engine;

pub mod binder;
pub mod binding;
pub mod follower;
pub mod kafka;

pub mod snapshot;

pub mod personal;

pub mod dataflow;

pub mod case_runner;

pub mod books;
pub mod clickhouse;

pub mod audit;

pub mod backup;

pub mod http;
pub mod metrics;
pub mod secret;
