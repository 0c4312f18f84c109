//! The `citycell` command.

fn main() {}
