//! Fuzzes the reading of the store's HTTP requests.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| citycell_store::fuzzing::hold(data));
