//! The engine against a real Kafka and a real ClickHouse.
//!
//! `make test` starts the broker and names it in `CITYCELL_KAFKA`.

mod bad_records;
mod bindings;
mod broker;
mod city;
mod crowd;
mod demo;
mod killed;
mod oracle;
mod pipeline_files;
mod processes;
mod real_data;
mod restart;
mod seeing_inside;
mod store;
mod trouble;
mod way;
