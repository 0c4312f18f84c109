//! Cuts the log into epochs: what a binding fixes, computed from nothing but the log and the
//! bindings before.

use super::{Binding, Log, PARTITIONS, Record, Rules};

/// How far each partition is read in the next epoch, and when that is.
pub(crate) struct Cut {
    pub(crate) epoch: u64,
    pub(crate) next_offset: [usize; PARTITIONS],
}

/// The binding of a cut.
pub(crate) fn bind(rules: &Rules, log: &Log, bindings: &[Binding], cut: &Cut) -> Binding {
    let now = cut.epoch as i64;
    let last = bindings.last();
    let shown = std::array::from_fn(|partition| shown(rules, log, bindings, partition));
    let idle = std::array::from_fn(|partition| {
        let at_end = cut.next_offset[partition] == log[partition].len();
        let since = shown[partition].map_or(first_epoch(bindings, now), |(_, epoch)| epoch);
        at_end && now - since >= rules.idle_after
    });
    let oldest_unread = (0..PARTITIONS)
        .filter_map(|partition| log[partition].get(cut.next_offset[partition]))
        .map(|stored| stored.broker_time)
        .min();
    let previous_bound_time = last.map_or(i64::MIN, |last| last.bound_time);
    Binding {
        epoch: cut.epoch,
        from: last.map_or([0; PARTITIONS], |last| last.next_offset),
        next_offset: cut.next_offset,
        idle,
        watermark: watermark(&idle, &shown, last.map_or(i64::MIN, |last| last.watermark)),
        bound_time: oldest_unread.map_or(now, |oldest| oldest.min(now)).max(previous_bound_time),
        previous_bound_time,
    }
}

/// The least of what the partitions that are not idle have reached, never going back.
fn watermark(
    idle: &[bool; PARTITIONS],
    shown: &[Option<(i64, i64)>; PARTITIONS],
    previous: i64,
) -> i64 {
    let awake = (0..PARTITIONS).filter(|partition| !idle[*partition]);
    let reached = awake.map(|partition| shown[partition].map_or(i64::MIN, |(time, _)| time));
    reached.min().unwrap_or(previous).max(previous)
}

/// The newest event time that a partition has shown in the epochs before, and the last epoch in
/// which it showed any: of readable events that are not future. Rejects show nothing, so that a
/// partition full of them does not hold the city back.
fn shown(rules: &Rules, log: &Log, bindings: &[Binding], partition: usize) -> Option<(i64, i64)> {
    let times = bindings.iter().flat_map(|binding| {
        let records = &log[partition][binding.from[partition]..binding.next_offset[partition]];
        records.iter().filter_map(move |stored| match &stored.record {
            Record::Event(event) if !rules.is_future(event, stored) => {
                Some((event.time, binding.epoch as i64))
            }
            _ => None,
        })
    });
    times.reduce(|(time, epoch), next| (time.max(next.0), epoch.max(next.1)))
}

fn first_epoch(bindings: &[Binding], now: i64) -> i64 {
    bindings.first().map_or(now, |first| first.epoch as i64)
}
