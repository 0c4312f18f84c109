//! Fuzzes the reading of grid files.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| citycell::grid::fuzzing::hold(data));
