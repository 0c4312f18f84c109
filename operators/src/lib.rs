//! The data's way as dataflow operators, in the order in which data flows.
//!
//! Nothing here does I/O, reads a clock or knows YAML.

pub mod live;
pub mod plan;
pub mod records;
pub mod tick;

pub mod decode;
pub mod events;
pub mod keys;

pub mod expression;
pub mod select;

pub mod locate;

pub mod lateness;
pub mod prepare;

mod by_epoch;
pub mod duplicates;
pub mod entity;
pub mod latest;
mod members;
pub mod restored;
pub mod saved;

pub mod accumulators;
pub mod combine;
mod sums;

pub mod aggregate;
mod changed;
mod retire;
mod totals;

pub mod roll_up;

pub mod changes;
pub mod measures;

pub mod pipeline;

#[cfg(test)]
mod sample;
