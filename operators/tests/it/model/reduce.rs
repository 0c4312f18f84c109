//! From the surviving events to the numbers, all at once.

use std::collections::BTreeMap;

use citycell_operators::plan::Take;

use super::{At, Event, Grouping, Numbers, Rules};

/// One thing that counts: an event, or an entity.
struct Counts {
    window_start: i64,
    place: u32,
    value: Option<i128>,
}

/// An event of an entity, with what orders it.
type Seen<'a> = (i64, At, &'a Event);

/// The numbers of these events at this bound time.
pub(crate) fn numbers(rules: &Rules, events: &BTreeMap<At, Event>, bound_time: i64) -> Numbers {
    let mut numbers = Numbers::new();
    for counts in counting(rules, events, bound_time) {
        let row = numbers.entry((counts.window_start, counts.place)).or_default();
        row.count += 1;
        row.not_null += i64::from(counts.value.is_some());
        row.sum += counts.value.unwrap_or(0);
    }
    numbers
}

fn counting(rules: &Rules, events: &BTreeMap<At, Event>, bound_time: i64) -> Vec<Counts> {
    let mut entities: BTreeMap<(i64, u8), Vec<Seen<'_>>> = BTreeMap::new();
    for (at, event) in events {
        let entity = (rules.window_start(event.time), event.entity);
        entities.entry(entity).or_default().push((event.time, *at, event));
    }
    let mut counting = Vec::new();
    for ((window_start, _), mut events) in entities {
        events.sort_by_key(|(time, at, _)| (*time, *at));
        let newest = events[events.len() - 1].2;
        let values: Vec<i128> = events.iter().filter_map(|(_, _, event)| event.value).collect();
        let counts = |event: &Event, value| Counts { window_start, place: event.place, value };
        match rules.grouping {
            Grouping::Events { .. } => {
                counting.extend(events.iter().map(|(_, _, event)| counts(event, event.value)));
            }
            Grouping::PerEntity { take, .. } => {
                let value = match take {
                    Take::Last => newest.value,
                    Take::Mean => mean(&values),
                    Take::Max => values.iter().copied().max(),
                    Take::Sum => (!values.is_empty()).then(|| values.iter().sum()),
                };
                counting.push(counts(newest, value));
            }
            Grouping::Latest { expire, forget } => match bound_time.saturating_sub(newest.time) {
                silent if silent > forget => {}
                silent if silent > expire => counting.push(counts(newest, None)),
                _ => counting.push(counts(newest, newest.value)),
            },
        }
    }
    counting
}

/// Rounded half away from zero; the values here are small enough for floating point.
fn mean(values: &[i128]) -> Option<i128> {
    let sum: i128 = values.iter().sum();
    (!values.is_empty()).then(|| (sum as f64 / values.len() as f64).round() as i128)
}
