//! The grid: its file format, and what makes, checks, shows and loads it.

pub mod layout;

pub mod file;

pub mod load;

mod metres;
