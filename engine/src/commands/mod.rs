//! The commands of `citycell`, one file each.

pub mod connection;
pub mod files;
mod findings;
pub mod peers;

pub mod archive;
pub mod audit;
pub mod backup;
pub mod check;
pub mod demo;
pub mod keys;
pub mod plan;
pub mod run;
pub mod schema;
pub mod store;
pub mod test;
