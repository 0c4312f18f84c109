//! ClickHouse as a library behind ClickHouse's HTTP interface.
//!
//! [`Store::start`] loads `libchdb.so` (the whole ClickHouse engine as a shared library), opens a
//! data folder and serves it over HTTP, so that the rest of the program, Grafana and curl cannot
//! tell it from a server.
//!
//! What holds here:
//! - Two users: the writer, who may do anything inside the database, and the reader, who may
//!   only read it. Neither reaches the host's files, other hosts or programs: the engine runs
//!   without those grants (`engine_config`), and what its grants do not cover is refused before
//!   it is run (`guard`).
//! - Every request runs on its own connection to the engine, so no setting, database or temporary
//!   table outlives the request that made it. Sessions are refused, not ignored.
//! - An insert is acknowledged after its parts and their folder are on disk (fsync).
//! - One store per process: the library opens one data folder at a time.

mod asked;
mod authentication;
mod config;
mod connection;
mod engine;
mod engine_config;
mod error;
mod exception;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod grants;
mod guard;
mod http;
mod insert;
mod library;
mod multipart;
mod parameters;
mod refused;
mod response;
mod results;
mod running;
mod select;
mod statement;

pub use config::{Password, StoreConfig, User};
pub use error::StoreError;
pub use grants::{Grants, NoGrants};
pub use http::{RunningStore, Store};
pub use library::LIBRARY_VARIABLE;
