//! The engine: pipelines, Kafka, ClickHouse, the worker loop and the command line.
