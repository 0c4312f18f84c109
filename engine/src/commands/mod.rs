//! The commands of `citycell`, one file each.

pub mod store;
