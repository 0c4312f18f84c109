//! What a city promises to those who build on it.

mod bad_records;
mod determinism;
mod events;
mod shares;

use citycell_simulator::{City, SimulatedRecord, SimulatorConfig};

const SECOND_MS: i64 = 1_000;

/// The records of the first `seconds` seconds of a small city.
fn records(seed: u64, seconds: i64, config: SimulatorConfig) -> Vec<SimulatedRecord> {
    let mut city = City::new(seed, config).expect("the test's settings are valid");
    city.next_batch(city.now_ms() + seconds * SECOND_MS)
}
