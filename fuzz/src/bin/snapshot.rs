//! Fuzzes the reading of snapshot files.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| citycell::snapshot::fuzzing::hold(data));
