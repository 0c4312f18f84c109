//! The engine against a real Kafka and a real ClickHouse.
//!
//! `make test` starts the broker and names it in `CITYCELL_KAFKA`.

mod against_model;
mod archive;
mod audit;
mod away;
mod backup;
mod bad_records;
mod bindings;
mod broker;
mod city;
mod clickhouse_cluster;
mod clickhouse_tls;
mod coverage;
mod crash;
mod crowd;
mod demo;
mod deployment;
mod kafka_grants;
mod killed;
mod killed_processes;
mod lost;
mod new_version;
mod oracle;
mod outage;
mod partitions;
mod personal;
mod pipeline_files;
mod pressure;
mod privileges;
mod processes;
mod program;
mod real_data;
mod restart;
mod s3;
mod secrets;
mod secure_kafka;
mod seeing_inside;
mod snapshots;
mod sql;
mod standby;
mod store;
mod torture;
mod trouble;
mod way;

#[path = "../../../operators/tests/it/model/mod.rs"]
#[expect(dead_code, reason = "the operators' tests use the rest")]
mod model;
