//! Faults come as often as the settings say.

use std::collections::{HashMap, HashSet};

use citycell_simulator::{Planted, SimulatedRecord, SimulatorConfig};

use crate::records;

fn ids(records: &[SimulatedRecord], planted: &[Planted]) -> HashSet<String> {
    records
        .iter()
        .filter(|record| planted.contains(&record.planted))
        .filter_map(|record| record.header("ce_id"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn shares_are_near_what_was_asked_for() {
    let config = SimulatorConfig {
        late_share: 0.1,
        duplicate_share: 0.05,
        withdrawn_share: 0.04,
        bad_share: 0.02,
        events_per_second: 250.0,
        ..SimulatorConfig::default()
    };
    let records = records(1, 120, config);
    let mut counts: HashMap<&str, f64> = HashMap::new();
    for record in &records {
        let name = match record.planted {
            Planted::OnTime => "event",
            Planted::Late => {
                *counts.entry("late").or_default() += 1.0;
                "event"
            }
            Planted::Copy | Planted::DifferingCopy => "copy",
            Planted::Withdrawal => "withdrawal",
            Planted::Bad(_) => "bad",
        };
        *counts.entry(name).or_default() += 1.0;
    }
    let events = counts["event"];
    // 250 a second for 120 seconds; a sensor's interval is drawn anew each time.
    assert!((events - 30_000.0).abs() < 1_500.0, "{events} events");
    for (name, share) in [("late", 0.1), ("copy", 0.05), ("withdrawal", 0.04), ("bad", 0.02)] {
        // The last copies and withdrawals, up to 30 seconds of them, are still to come.
        let found = counts[name] / events;
        assert!((found - share).abs() < 0.2 * share, "{name}: {found}");
    }
}

#[test]
fn no_share_means_none() {
    let config = SimulatorConfig {
        late_share: 0.0,
        duplicate_share: 0.0,
        withdrawn_share: 0.0,
        bad_share: 0.0,
        ..SimulatorConfig::default()
    };
    assert!(records(1, 5, config).iter().all(|record| record.planted == Planted::OnTime));
}

#[test]
fn copies_and_withdrawals_name_events_and_events_never_share_an_id() {
    let records = records(2, 60, SimulatorConfig::default());
    let events = [Planted::OnTime, Planted::Late];
    let event_ids = ids(&records, &events);
    let event_count = records.iter().filter(|record| events.contains(&record.planted)).count();
    assert_eq!(event_ids.len(), event_count);
    let copies = ids(&records, &[Planted::Copy, Planted::DifferingCopy]);
    assert!(!copies.is_empty() && copies.is_subset(&event_ids));
    // A withdrawal may also come first; then its event follows in the same instant.
    let withdrawals = ids(&records, &[Planted::Withdrawal]);
    assert!(!withdrawals.is_empty() && withdrawals.is_subset(&event_ids));
}

#[test]
fn some_withdrawals_overtake_their_events() {
    let records = records(2, 60, SimulatorConfig::default());
    let overtakes = records.windows(2).any(|pair| {
        pair[0].planted == Planted::Withdrawal && pair[0].header("ce_id") == pair[1].header("ce_id")
    });
    assert!(overtakes);
}
