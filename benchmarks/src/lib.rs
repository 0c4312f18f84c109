//! Benchmarks: run small under cargo test, large under make bench.

pub mod decode;
pub mod locate;
