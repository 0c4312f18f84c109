//! The grid: its file format, and what makes, checks, shows and loads it.

pub mod layout;

mod lattice;
mod metres;
mod rings;

pub mod boundaries;
mod clip;
mod slivers;

pub mod generate;

pub mod file;

pub mod check;
pub mod load;
pub mod show;

pub mod cli;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
