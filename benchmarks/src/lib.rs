//! Benchmarks: run small under cargo test, large under make bench.

pub mod accumulators;
pub mod city;
pub mod clock;
pub mod decode;
pub mod live_cells;
pub mod live_cells_way;
pub mod locate;
pub mod recovery;
pub mod stages;
pub mod state;
mod way;
pub mod whole_way;

/// As in the program: the standard allocator would flatter neither side.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
