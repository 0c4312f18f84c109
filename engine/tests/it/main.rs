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
mod crowd;
mod demo;
mod killed;
mod lost;
mod oracle;
mod outage;
mod pipeline_files;
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
