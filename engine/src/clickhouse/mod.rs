//! ClickHouse: the connection, the tables of a pipeline, its rows and the writer of both.

pub mod archive;
pub mod backlog;
pub mod cells;
pub mod marks;
pub mod moments;
pub mod placement;
pub mod rows;
pub mod settings;
mod skipped;
pub mod sql;
pub mod succession;
pub mod tables;
pub mod tls;
pub mod versions;
pub mod views;
pub mod writer;

pub use settings::{ClickHouse, ClickHouseError, ClickHouseSettings};
