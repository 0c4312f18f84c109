//! The same seed is the same city, however its time is cut.

use citycell_simulator::{City, SimulatorConfig};
use proptest::prelude::*;

use crate::records;

#[test]
fn the_seed_alone_decides() {
    let config = SimulatorConfig::default;
    assert_eq!(records(3, 10, config()), records(3, 10, config()));
    assert_ne!(records(3, 10, config()), records(4, 10, config()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn where_batches_are_cut_changes_nothing(steps_ms in prop::collection::vec(0..4_000_i64, 1..12)) {
        let mut cut = City::new(5, SimulatorConfig::default()).unwrap();
        let mut pieces = Vec::new();
        for step_ms in &steps_ms {
            let until_ms = cut.now_ms() + step_ms;
            pieces.extend(cut.next_batch(until_ms));
        }
        let mut whole = City::new(5, SimulatorConfig::default()).unwrap();
        prop_assert_eq!(whole.next_batch(cut.now_ms()), pieces);
    }
}

#[test]
fn records_are_sent_in_time_order_and_before_the_batch_ends() {
    let records = records(6, 20, SimulatorConfig::default());
    assert!(records.is_sorted_by_key(|record| record.broker_time_ms));
    let config = SimulatorConfig::default();
    assert!(records.iter().all(|record| record.broker_time_ms >= config.start_time_ms));
    assert!(records.last().unwrap().broker_time_ms < config.start_time_ms + 20_000);
}
