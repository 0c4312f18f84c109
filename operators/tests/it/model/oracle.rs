//! The numbers from the raw records and the bindings alone, with no memory of what came when
//! beyond each record's epoch. Copies of one id must agree about their event time.

use std::collections::BTreeMap;

use super::{At, Binding, Event, Log, Numbers, Record, Rules, reduce};

/// Everything read of one id that is in time.
#[derive(Default)]
struct Story<'a> {
    /// Its copies, and the watermark that each was judged by.
    copies: BTreeMap<At, (&'a Event, i64)>,
    /// Its withdrawals: the watermark when each was read, and its broker time.
    withdrawals: Vec<(i64, i64)>,
}

/// The numbers that a reader must see once all of `bindings` are marked.
pub(crate) fn numbers(rules: &Rules, log: &Log, bindings: &[Binding]) -> Numbers {
    let mut stories: BTreeMap<u128, Story<'_>> = BTreeMap::new();
    for binding in bindings {
        for (at, stored) in binding.records(log) {
            match &stored.record {
                Record::Event(event) if in_time(rules, event, stored.broker_time, binding) => {
                    let story = stories.entry(event.id).or_default();
                    story.copies.insert(at, (event, binding.watermark));
                }
                Record::Withdrawal(id) => {
                    let read = (binding.watermark, stored.broker_time);
                    stories.entry(*id).or_default().withdrawals.push(read);
                }
                Record::Event(_) | Record::Bad => {}
            }
        }
    }
    let surviving = stories.values().filter_map(|story| story.survivor(rules)).collect();
    reduce::numbers(rules, &surviving, bindings.last().map_or(i64::MIN, |last| last.bound_time))
}

fn in_time(rules: &Rules, event: &Event, broker_time: i64, binding: &Binding) -> bool {
    event.wanted
        && event.time <= broker_time + rules.future
        && binding.watermark < rules.closes_at(event.time)
}

impl Story<'_> {
    /// The copy at the smallest position, unless a withdrawal took the event back while its window
    /// was open, or was still waiting when it came.
    fn survivor(&self, rules: &Rules) -> Option<(At, Event)> {
        let (at, (event, _)) = self.copies.first_key_value()?;
        let came = self.copies.values().map(|(_, watermark)| *watermark).min()?;
        let withdrawn = self.withdrawals.iter().any(|(read, broker_time)| {
            let waited = *read <= came && came < rules.withdrawal_closes_at(*broker_time);
            let took_back = *read >= came && *read < rules.closes_at(event.time);
            waited || took_back
        });
        (!withdrawn).then(|| (*at, (*event).clone()))
    }
}
