//! The engine against a real Kafka and a real ClickHouse.
//!
//! `make test` starts the broker and names it in `CITYCELL_KAFKA`.

mod bindings;
mod broker;
mod city;
mod demo;
mod pipeline_files;
mod processes;
mod real_data;
mod seeing_inside;
mod store;
mod way;
