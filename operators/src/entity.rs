//! One value per entity and window, before cells add up (`per: {by: [...], take: ...}`).
//!
//! A sensor that reports every ten seconds counts its people once a minute. The entity contributes
//! to one cell and group: those of its newest observation in the window, by (event time, position),
//! whatever `take` is. An observation that is withdrawn or replaced leaves as if it had never been.
//!
//! **Values**, for each argument on its own: `last` takes the newest observation's, null included;
//! `mean`, `max` and `sum` skip nulls, and all null is null. The mean is rounded half away from
//! zero at the argument's scale. A sum beyond an i128 is null.
//!
//! **State.** Every observation of every open window; a window leaves when it is closed.

use std::collections::BTreeMap;

use ahash::AHashMap;
use citycell_schemas::EventTime;
use differential_dataflow::Hashable;
use differential_dataflow::consolidation::consolidate;
use timely::dataflow::StreamVec;

use crate::by_epoch::{ByEpoch, Inputs, Outputs, Routed, by_epoch};
use crate::events::Observation;
use crate::keys::Values;
use crate::lateness::Horizon;
use crate::members::{Member, Members, change};
use crate::plan::Take;
use crate::restored::WindowedMembers;
use crate::saved::{Keeping, Part, Saved, Touched};
use crate::tick::Tick;

/// Reduces the observations of each (window, entity) to one.
pub fn entity<'scope>(
    updates: StreamVec<'scope, u64, (Observation, isize)>,
    ticks: StreamVec<'scope, u64, Tick>,
    entities: EntityValues,
) -> EntityStreams<'scope> {
    let Outputs { rows, saved } = by_epoch("entity", Inputs { rows: updates, ticks }, entities);
    EntityStreams { contributions: rows, saved }
}

/// What `entity` and `latest` send on.
pub struct EntityStreams<'scope> {
    /// What the entities no longer contribute (-1) and what they do now (+1).
    pub contributions: StreamVec<'scope, u64, (Observation, isize)>,
    /// What snapshots keep.
    pub saved: StreamVec<'scope, u64, Saved>,
}

/// The entities of the open windows.
pub struct EntityValues {
    horizon: Horizon,
    take: Take,
    windows: BTreeMap<EventTime, AHashMap<Box<[u8]>, Members>>,
    bytes: i64,
    touched: Touched<(EventTime, Box<[u8]>)>,
    keeping: Keeping,
}

impl EntityValues {
    /// Knows no entity yet.
    #[must_use]
    pub fn new(horizon: Horizon, take: Take) -> Self {
        Self::restored((horizon, take), Keeping::default(), Vec::new())
    }

    /// Knows these entities already.
    pub(crate) fn restored(
        (horizon, take): (Horizon, Take),
        keeping: Keeping,
        entities: Vec<WindowedMembers>,
    ) -> Self {
        let mut windows: BTreeMap<EventTime, AHashMap<_, _>> = BTreeMap::new();
        let mut bytes = 0;
        for ((window_start, entity), members) in entities {
            bytes += size(&entity, &members);
            windows.entry(window_start).or_default().insert(entity, members);
        }
        keeping.live.add_bytes(bytes);
        let touched = Touched::new(keeping.recording);
        Self { horizon, take, windows, bytes, touched, keeping }
    }

    /// Applies all updates of one epoch, in any order. Epochs come in order. Returns what the
    /// entities no longer contribute (-1) and what they do now (+1).
    pub fn apply(
        &mut self,
        tick: &Tick,
        mut updates: Vec<(Observation, isize)>,
    ) -> Vec<(Observation, isize)> {
        let before = self.bytes;
        self.drop_closed(tick.watermark);
        consolidate(&mut updates);
        let mut by_entity: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (mut observation, diff) in updates {
            let entity = std::mem::take(&mut observation.entity);
            let window_start = observation.key.window_start;
            by_entity.entry((window_start, entity)).or_default().push((observation, diff));
        }
        let changes = by_entity
            .into_iter()
            .flat_map(|((window_start, entity), updates)| {
                self.update_entity(window_start, entity, updates)
            })
            .collect();
        self.keeping.live.add_bytes(self.bytes - before);
        changes
    }

    /// How many (window, entity) pairs are in memory.
    #[must_use]
    pub fn live(&self) -> usize {
        self.windows.values().map(|entities| entities.len()).sum()
    }

    fn update_entity(
        &mut self,
        window_start: EventTime,
        entity: Box<[u8]>,
        updates: Vec<(Observation, isize)>,
    ) -> impl Iterator<Item = (Observation, isize)> + use<> {
        let take = self.take;
        let entities = self.windows.entry(window_start).or_default();
        let known = entities.remove(&entity);
        self.bytes -= known.as_ref().map_or(0, |members| size(&entity, members));
        let mut members = known.unwrap_or_default();
        self.touched.note_with(|| (window_start, entity.clone()));
        let old = contribution(take, window_start, &entity, &members);
        for (observation, diff) in updates {
            members.update(observation, diff);
        }
        let new = contribution(take, window_start, &entity, &members);
        if !members.is_empty() {
            self.bytes += size(&entity, &members);
            entities.insert(entity, members);
        }
        change(old, new)
    }

    fn drop_closed(&mut self, watermark: EventTime) {
        while let Some(oldest) = self.windows.first_entry() {
            if !self.horizon.is_closed(*oldest.key(), watermark) {
                break;
            }
            let window_start = *oldest.key();
            for (entity, members) in oldest.remove() {
                self.bytes -= size(&entity, &members);
                self.touched.forget(&(window_start, entity));
            }
        }
    }
}

impl Routed for EntityValues {
    fn route((observation, _): &(Observation, isize)) -> u64 {
        (observation.key.window_start, &observation.entity).hashed()
    }
}

impl ByEpoch for EntityValues {
    type Row = (Observation, isize);
    type Output = (Observation, isize);

    fn step(&mut self, tick: &Tick, updates: Vec<Self::Row>) -> Vec<Self::Output> {
        self.apply(tick, updates)
    }

    fn save(&mut self) -> Saved {
        let mut saved = Saved::default();
        for key in self.touched.take() {
            let members = self.windows.get(&key.0).and_then(|entities| entities.get(&key.1));
            saved.push(Part::Entities, &key, members);
        }
        saved
    }
}

/// What an entity takes in memory, roughly.
pub(crate) fn size(entity: &[u8], members: &Members) -> i64 {
    let bytes = size_of::<(Box<[u8]>, Members)>() + entity.len() + members.bytes();
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn contribution(
    take: Take,
    window_start: EventTime,
    entity: &[u8],
    members: &Members,
) -> Option<Observation> {
    let newest = members.newest()?;
    let values = match take {
        Take::Last => newest.values.clone(),
        Take::Mean => each_argument(newest, members, mean),
        Take::Max => each_argument(newest, members, |values| values.iter().copied().max()),
        Take::Sum => each_argument(newest, members, sum),
    };
    Some(newest.contribution(window_start, entity, values))
}

/// Reduces the values of each argument that are not null.
fn each_argument(
    newest: &Member,
    members: &Members,
    reduce: impl Fn(&[i128]) -> Option<i128>,
) -> Values {
    let mut values = Vec::new();
    (0..newest.values.len())
        .map(|argument| {
            values.clear();
            values.extend(members.iter().filter_map(|member| member.values[argument]));
            reduce(&values)
        })
        .collect()
}

fn sum(values: &[i128]) -> Option<i128> {
    let mut values = values.iter();
    let first = *values.next()?;
    values.try_fold(first, |sum, value| sum.checked_add(*value))
}

fn mean(values: &[i128]) -> Option<i128> {
    let sum = sum(values)?;
    let count = values.len() as i128;
    let (quotient, remainder) = (sum / count, sum % count);
    let away = if remainder.abs() * 2 >= count { sum.signum() } else { 0 };
    Some(quotient + away)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{horizon, seen, tick};

    /// What (place, value) pairs an epoch takes away and adds.
    fn step(
        entities: &mut EntityValues,
        updates: Vec<(Observation, isize)>,
    ) -> Vec<(u32, Option<i128>, isize)> {
        let changes = entities.apply(&tick(0, 0), updates);
        changes.iter().map(|(row, diff)| (row.key.place.0, row.values[0], *diff)).collect()
    }

    #[test]
    fn last_is_the_newest_event_and_a_withdrawal_brings_back_the_one_before() {
        let mut entities = EntityValues::new(horizon(), Take::Last);
        let (old, new) = (seen(1, 7, 100, Some(5)), seen(1, 8, 200, Some(6)));
        assert_eq!(step(&mut entities, vec![(new.clone(), 1)]), [(8, Some(6), 1)]);
        assert_eq!(step(&mut entities, vec![(old.clone(), 1)]), []);
        let back = step(&mut entities, vec![(new, -1)]);
        assert_eq!(back, [(8, Some(6), -1), (7, Some(5), 1)]);
        assert_eq!(step(&mut entities, vec![(old, -1)]), [(7, Some(5), -1)]);
    }

    #[test]
    fn mean_max_and_sum_skip_nulls_and_count_where_the_entity_was_last() {
        let observations = [Some(3), Some(-8), None].into_iter().zip(0u32..);
        let updates: Vec<_> = observations
            .map(|(value, place)| (seen(1, place, 100 * i64::from(place), value), 1))
            .collect();
        for (take, expected) in [
            (Take::Last, None),
            (Take::Mean, Some(-3)), // -2.5, half away from zero
            (Take::Max, Some(3)),
            (Take::Sum, Some(-5)),
        ] {
            let mut entities = EntityValues::new(horizon(), take);
            assert_eq!(step(&mut entities, updates.clone()), [(2, expected, 1)], "{take:?}");
        }
    }

    #[test]
    fn all_null_is_null_and_a_sum_out_of_range_too() {
        for take in [Take::Mean, Take::Max, Take::Sum] {
            let mut entities = EntityValues::new(horizon(), take);
            assert_eq!(step(&mut entities, vec![(seen(1, 0, 0, None), 1)]), [(0, None, 1)]);
        }
        let mut entities = EntityValues::new(horizon(), Take::Sum);
        let huge = [0, 1].map(|time| (seen(1, 0, time, Some(i128::MAX)), 1));
        assert_eq!(step(&mut entities, huge.to_vec()), [(0, None, 1)]);
    }

    #[test]
    fn a_mean_is_rounded_half_away_from_zero() {
        assert_eq!(mean(&[1, 2]), Some(2));
        assert_eq!(mean(&[-1, -2]), Some(-2));
        assert_eq!(mean(&[1, 1, 2]), Some(1));
        assert_eq!(mean(&[1, 2, 2]), Some(2));
        assert_eq!(mean(&[]), None);
    }

    #[test]
    fn a_window_leaves_memory_when_it_closes() {
        let mut entities = EntityValues::new(horizon(), Take::Last);
        let updates = (0..2_000).map(|time| (seen(1, 0, time, None), 1)).collect();
        entities.apply(&tick(0, 0), updates);
        let live_at = [2_999, 3_000, 4_000].map(|watermark| {
            assert_eq!(entities.apply(&tick(watermark, 0), Vec::new()), []);
            entities.live()
        });
        assert_eq!(live_at, [2, 1, 0]);
    }
}
