//! Event schemas, ClickHouse tables and the types every crate shares.
//!
//! Nothing here knows timely, and nothing here reads a file, a socket or a clock.

pub mod event;
pub mod grid;
pub mod tables;
pub mod time;

pub use event::EventSchema;
pub use grid::{Grid, Level, Place};
pub use time::{Epoch, EventTime, Offset};
