//! Prints what representations of run-time accumulators cost; docs/experiments/accumulators.md
//! draws the conclusion. The last line is JSON.

use citycell_benchmarks::accumulators::{FULL, measure};

fn main() {
    let costs = measure(&FULL);
    for cost in &costs {
        println!(
            "accumulators: {:30} {} words, {:7} keys, {:6} updates per epoch: {:.2} s per M",
            cost.name, cost.words, cost.size.keys, cost.size.updates_per_epoch, cost.s_per_m
        );
    }
    let hash = costs.iter().fold(0u64, |hash, cost| hash.wrapping_add(cost.hash));
    println!(
        "{}",
        serde_json::json!({"benchmark": "accumulators", "hash": format!("{hash:016x}")})
    );
}
