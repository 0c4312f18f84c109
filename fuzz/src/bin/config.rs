//! Fuzzes the reading of config files.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| citycell::config::fuzzing::hold(data));
