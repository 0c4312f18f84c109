//! ClickHouse: the connection, the tables of a pipeline, its rows and the writer of both.

pub mod archive;
pub mod backlog;
pub mod cells;
pub mod marks;
pub mod moments;
pub mod rows;
pub mod serving;
pub mod settings;
mod skipped;
pub mod sql;
pub mod tables;
pub mod writer;

pub use settings::{ClickHouse, ClickHouseError, ClickHouseSettings};
