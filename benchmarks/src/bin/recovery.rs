//! Prints how long a crashed engine takes to its first new mark: with a million keys alive, with ten
//! times the history at the same keys, and with a tenth of the keys. The last line is JSON.
//!
//! `recovery [CELLS]`: a tenth of the live keys, 100,000 if not said.

use std::{error::Error, process::Command};

use citycell_benchmarks::{
    recovery::{Recovery, Size, measure},
    state::hash_map,
};
use serde_json::json;

const ROUNDS: usize = 5;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let cells = arguments.next().map_or(Ok(100_000), |cells| cells.parse())?;
    if let Some(minutes) = arguments.next() {
        let size = Size { cells, minutes: minutes.parse()?, rounds: ROUNDS };
        let Recovery { keys, events, recovery_s, snapshot_bytes } = measure(size).await?;
        println!("{}", json!([keys, events, recovery_s, snapshot_bytes]));
        return Ok(());
    }
    let few = in_a_process(cells / 10, 10)?;
    let once = in_a_process(cells, 10)?;
    let ten_times = in_a_process(cells, 100)?;
    for recovery in [few, once, ten_times] {
        let Recovery { keys, events, recovery_s, snapshot_bytes } = recovery;
        println!(
            "{keys} keys after {events} events: {recovery_s:.2} s to the first new mark, from a \
             snapshot of {snapshot_bytes} bytes"
        );
    }
    let ratio = ten_times.recovery_s / once.recovery_s;
    let millions = (once.keys - few.keys) as f64 / 1e6;
    let per_million = (once.recovery_s - few.recovery_s) / millions;
    let map = hash_map(once.keys).read_s_per_m;
    println!(
        "ten times the history: {ratio:.2} times as long; {per_million:.2} s more per million keys, \
         a hash map {map:.2} s"
    );
    println!(
        "{}",
        json!({
            "benchmark": "recovery",
            "keys": once.keys,
            "recovery_s": once.recovery_s,
            "ten_times_the_history": ratio,
            "recovery_s_per_m": per_million,
            "hash_map_s_per_m": map,
            "snapshot_bytes": once.snapshot_bytes,
        })
    );
    Ok(())
}

/// A process of its own: ClickHouse can be started once in each.
fn in_a_process(cells: usize, minutes: usize) -> Result<Recovery, Box<dyn Error>> {
    let size = [cells.to_string(), minutes.to_string()];
    let output = Command::new(std::env::current_exe()?).args(size).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let (keys, events, recovery_s, snapshot_bytes) = serde_json::from_slice(&output.stdout)?;
    Ok(Recovery { keys, events, recovery_s, snapshot_bytes })
}
