//! Prints what a million live keys cost beside a hash map of the same content. The last line is JSON.

use std::process::Command;

use citycell_benchmarks::state::{State, dataflow, hash_map};
use serde_json::json;

const KEYS: usize = 1_000_000;
const ROUNDS: usize = 3;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("dataflow") => return print(dataflow(KEYS)),
        Some("hash_map") => return print(hash_map(KEYS)),
        _ => {}
    }
    let sides = ["dataflow", "hash_map"].map(|side| {
        let mut rounds: Vec<State> = (0..ROUNDS).map(|_| in_a_process(side)).collect();
        rounds.sort_unstable_by(|one, other| one.read_s_per_m.total_cmp(&other.read_s_per_m));
        let middle = rounds[ROUNDS / 2];
        println!(
            "{side}: {:.0} bytes per key in memory, {:.0} written; a million keys written in \
             {:.2} s, read in {:.2} s",
            middle.bytes_per_key, middle.written_per_key, middle.write_s_per_m, middle.read_s_per_m
        );
        middle
    });
    println!("{}", json!({"benchmark": "state", "dataflow": sides[0], "hash_map": sides[1]}));
}

/// A process of its own: what another run left in memory must not count.
fn in_a_process(side: &str) -> State {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).arg(side).output().expect("this program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

fn print(state: State) {
    println!("{}", json!(state));
}
