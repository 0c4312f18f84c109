//! The commands of `citycell`, one file each.

pub mod schema;
pub mod store;
