//! Each entity counts with its latest event (`window: {latest: {by: [...], ...}}`).
//!
//! The newest surviving observation by (event time, position) counts, in window 0; withdrawing it
//! brings back the one before. Silent longer than `expire_ms`, an entity is unknown: it counts,
//! with null values, where it was last. Silent longer than `forget_ms`, it is gone. Silence is the
//! bound time minus the newest observation's event time, so a backlog is read before anyone is
//! declared silent.
//!
//! **State.** Per entity the observations that may still be withdrawn and the newest before them;
//! one timer. Older observations leave when the entity is next touched.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ahash::AHashMap;
use citycell_schemas::EventTime;
use differential_dataflow::Hashable;
use differential_dataflow::consolidation::consolidate;
use smallvec::smallvec;
use timely::dataflow::StreamVec;

use crate::by_epoch::{ByEpoch, Inputs, Outputs, Routed, by_epoch};
use crate::entity::{EntityStreams, size};
use crate::events::Observation;
use crate::lateness::Horizon;
use crate::members::{Members, change};
use crate::restored::LatestMembers;
use crate::saved::{Keeping, Part, Saved, Touched};
use crate::tick::Tick;

/// How long an entity may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Longer than this, it is unknown.
    pub expire_ms: i64,
    /// Longer than this, it is gone.
    pub forget_ms: i64,
}

/// Reduces the observations of each entity to its newest.
pub fn latest<'scope>(
    updates: StreamVec<'scope, u64, (Observation, isize)>,
    ticks: StreamVec<'scope, u64, Tick>,
    entities: LatestValues,
) -> EntityStreams<'scope> {
    let Outputs { rows, saved } = by_epoch("latest", Inputs { rows: updates, ticks }, entities);
    EntityStreams { contributions: rows, saved }
}

/// All entities that are not forgotten.
pub struct LatestValues {
    horizon: Horizon,
    silence: Silence,
    bound_time_ms: i64,
    entities: AHashMap<Rc<[u8]>, Entity>,
    /// Whom to look at once the bound time is past a time. An entity has one timer at most, never
    /// later than its next change; a newer observation does not move it, it moves on when it fires.
    timers: BTreeSet<(i64, Rc<[u8]>)>,
    bytes: i64,
    touched: Touched<Rc<[u8]>>,
    keeping: Keeping,
}

#[derive(Default)]
struct Entity {
    members: Members,
    standing: Standing,
    timer_ms: Option<i64>,
}

/// How an entity counts at present.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    /// With its newest values.
    Known,
    /// Without values.
    Unknown,
    /// Not at all.
    #[default]
    Gone,
}

impl LatestValues {
    /// Knows no entity yet.
    #[must_use]
    pub fn new(horizon: Horizon, silence: Silence) -> Self {
        Self::restored((horizon, silence), Keeping::default(), (i64::MIN, Vec::new()))
    }

    /// Knows these entities already, as they stood at this bound time.
    ///
    /// How an entity counts follows from its observations: whatever its timer was, it has fired if
    /// it was due.
    pub(crate) fn restored(
        (horizon, silence): (Horizon, Silence),
        keeping: Keeping,
        (bound_time_ms, entities): (i64, Vec<LatestMembers>),
    ) -> Self {
        let mut restored = Self {
            horizon,
            silence,
            bound_time_ms,
            entities: AHashMap::with_capacity(entities.len()),
            timers: BTreeSet::new(),
            bytes: 0,
            touched: Touched::new(keeping.recording),
            keeping,
        };
        for (name, members) in entities {
            let name = Rc::from(name);
            let standing = restored.standing(&members);
            let mut entity = Entity { members, standing, timer_ms: None };
            restored.set_timer(&name, &mut entity);
            restored.bytes += size(&name, &entity.members);
            restored.entities.insert(name, entity);
        }
        restored.keeping.live.add_bytes(restored.bytes);
        restored
    }

    /// Applies all updates of one epoch, in any order, and fires the timers that its bound time is
    /// past. Epochs come in order. Returns what the entities no longer contribute (-1) and what
    /// they do now (+1).
    pub fn apply(
        &mut self,
        tick: &Tick,
        mut updates: Vec<(Observation, isize)>,
    ) -> Vec<(Observation, isize)> {
        let before = self.bytes;
        self.bound_time_ms = self.bound_time_ms.max(tick.bound_time_ms);
        consolidate(&mut updates);
        let mut touched: BTreeMap<Rc<[u8]>, Vec<_>> = BTreeMap::new();
        for (mut observation, diff) in updates {
            let name = Rc::from(std::mem::take(&mut observation.entity));
            touched.entry(name).or_default().push((observation, diff));
        }
        for name in self.take_due() {
            touched.entry(name).or_default();
        }
        let changes = touched
            .into_iter()
            .flat_map(|(name, updates)| self.update_entity(name, updates, tick.watermark))
            .collect();
        self.keeping.live.add_bytes(self.bytes - before);
        changes
    }

    /// How many entities are in memory.
    #[must_use]
    pub fn live(&self) -> usize {
        self.entities.len()
    }

    fn update_entity(
        &mut self,
        name: Rc<[u8]>,
        updates: Vec<(Observation, isize)>,
        watermark: EventTime,
    ) -> impl Iterator<Item = (Observation, isize)> + use<> {
        let known = self.entities.remove(&name);
        self.bytes -= known.as_ref().map_or(0, |entity| size(&name, &entity.members));
        self.touched.note_with(|| Rc::clone(&name));
        let mut entity = known.unwrap_or_default();
        let old = entity.contribution(&name);
        for (observation, diff) in updates {
            entity.members.update(observation, diff);
        }
        let horizon = self.horizon;
        entity.members.keep_newest_closed(|time| horizon.is_closed(time, watermark));
        entity.standing = self.standing(&entity.members);
        let new = entity.contribution(&name);
        self.set_timer(&name, &mut entity);
        if entity.standing != Standing::Gone {
            self.bytes += size(&name, &entity.members);
            self.entities.insert(name, entity);
        }
        change(old, new)
    }

    fn standing(&self, members: &Members) -> Standing {
        let Some(newest) = members.newest() else {
            return Standing::Gone;
        };
        let silent_ms = self.bound_time_ms.saturating_sub(newest.time.0);
        if silent_ms > self.silence.forget_ms {
            Standing::Gone
        } else if silent_ms > self.silence.expire_ms {
            Standing::Unknown
        } else {
            Standing::Known
        }
    }

    /// Takes the timers that the bound time is past, with their entities.
    fn take_due(&mut self) -> Vec<Rc<[u8]>> {
        let mut due = Vec::new();
        while self.timers.first().is_some_and(|(timer_ms, _)| *timer_ms < self.bound_time_ms) {
            if let Some((_, name)) = self.timers.pop_first() {
                if let Some(entity) = self.entities.get_mut(&name) {
                    entity.timer_ms = None;
                }
                due.push(name);
            }
        }
        due
    }

    /// Sees to it that the entity is looked at when its standing may change.
    fn set_timer(&mut self, name: &Rc<[u8]>, entity: &mut Entity) {
        let next_ms = entity.members.newest().and_then(|newest| match entity.standing {
            Standing::Known => Some(newest.time.plus_ms(self.silence.expire_ms).0),
            Standing::Unknown => Some(newest.time.plus_ms(self.silence.forget_ms).0),
            Standing::Gone => None,
        });
        let early_enough = |timer_ms| next_ms.is_some_and(|next_ms| timer_ms <= next_ms);
        if entity.timer_ms.is_some_and(early_enough) {
            return;
        }
        if let Some(timer_ms) = entity.timer_ms {
            self.timers.remove(&(timer_ms, name.clone()));
        }
        entity.timer_ms = next_ms;
        self.timers.extend(next_ms.map(|next_ms| (next_ms, name.clone())));
    }
}

impl Routed for LatestValues {
    fn route((observation, _): &(Observation, isize)) -> u64 {
        observation.entity.hashed()
    }
}

impl ByEpoch for LatestValues {
    type Row = (Observation, isize);
    type Output = (Observation, isize);

    fn step(&mut self, tick: &Tick, updates: Vec<Self::Row>) -> Vec<Self::Output> {
        self.apply(tick, updates)
    }

    fn save(&mut self) -> Saved {
        let mut saved = Saved::default();
        for name in self.touched.take() {
            let members = self.entities.get(&name).map(|entity| &entity.members);
            saved.push(Part::Latest, &&*name, members);
        }
        saved
    }
}

impl Entity {
    fn contribution(&self, name: &[u8]) -> Option<Observation> {
        let newest = self.members.newest()?;
        let values = match self.standing {
            Standing::Known => newest.values.clone(),
            Standing::Unknown => smallvec![None; newest.values.len()],
            Standing::Gone => return None,
        };
        Some(newest.contribution(EventTime(0), name, values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{horizon, seen, tick};

    fn entities() -> LatestValues {
        let horizon = Horizon { window_ms: None, ..horizon() };
        LatestValues::new(horizon, Silence { expire_ms: 100, forget_ms: 1_000 })
    }

    fn step(
        entities: &mut LatestValues,
        bound_time_ms: i64,
        updates: Vec<(Observation, isize)>,
    ) -> Vec<(u32, Option<i128>, isize)> {
        let changes = entities.apply(&tick(0, bound_time_ms), updates);
        changes.iter().map(|(row, diff)| (row.key.place.0, row.values[0], *diff)).collect()
    }

    #[test]
    fn an_entity_moves_with_its_newest_event_and_a_withdrawal_brings_it_back() {
        let mut entities = entities();
        let (old, new) = (seen(1, 7, 10, Some(5)), seen(1, 8, 20, Some(6)));
        assert_eq!(step(&mut entities, 20, vec![(old.clone(), 1)]), [(7, Some(5), 1)]);
        let moved = step(&mut entities, 21, vec![(new.clone(), 1)]);
        assert_eq!(moved, [(7, Some(5), -1), (8, Some(6), 1)]);
        let back = step(&mut entities, 22, vec![(new, -1)]);
        assert_eq!(back, [(8, Some(6), -1), (7, Some(5), 1)]);
        assert_eq!(step(&mut entities, 23, vec![(old, -1)]), [(7, Some(5), -1)]);
        assert!(entities.entities.is_empty() && entities.timers.is_empty());
    }

    #[test]
    fn silence_makes_an_entity_unknown_and_then_forgets_it() {
        let mut entities = entities();
        step(&mut entities, 0, vec![(seen(1, 7, 10, Some(5)), 1)]);
        assert_eq!(step(&mut entities, 110, Vec::new()), []);
        let unknown = step(&mut entities, 111, Vec::new());
        assert_eq!(unknown, [(7, Some(5), -1), (7, None, 1)]);
        assert_eq!(step(&mut entities, 1_010, Vec::new()), []);
        assert_eq!(step(&mut entities, 1_011, Vec::new()), [(7, None, -1)]);
        assert!(entities.entities.is_empty() && entities.timers.is_empty());
    }

    #[test]
    fn a_new_event_makes_an_unknown_entity_known_again() {
        let mut entities = entities();
        step(&mut entities, 0, vec![(seen(1, 7, 10, Some(5)), 1)]);
        step(&mut entities, 500, Vec::new());
        let known = step(&mut entities, 501, vec![(seen(1, 8, 490, Some(6)), 1)]);
        assert_eq!(known, [(7, None, -1), (8, Some(6), 1)]);
        assert_eq!(step(&mut entities, 591, Vec::new()), [(8, Some(6), -1), (8, None, 1)]);
    }

    #[test]
    fn withdrawing_the_newest_may_leave_an_entity_that_is_silent_already() {
        let mut entities = entities();
        let (old, new) = (seen(1, 7, 10, Some(5)), seen(1, 8, 200, Some(6)));
        step(&mut entities, 200, vec![(old, 1), (new.clone(), 1)]);
        let back = step(&mut entities, 201, vec![(new, -1)]);
        assert_eq!(back, [(8, Some(6), -1), (7, None, 1)]);
    }

    #[test]
    fn bound_time_that_goes_back_revives_nobody() {
        let mut entities = entities();
        step(&mut entities, 0, vec![(seen(1, 7, 10, Some(5)), 1)]);
        step(&mut entities, 200, Vec::new());
        assert_eq!(step(&mut entities, 50, vec![(seen(1, 7, 11, Some(5)), 1)]), []);
    }

    #[test]
    fn of_what_can_no_longer_be_withdrawn_only_the_newest_stays() {
        let mut entities = entities();
        let updates = (0..10).map(|time| (seen(1, 7, time, Some(5)), 1)).collect();
        entities.apply(&tick(2_004, 10), updates);
        let entity = entities.entities.values().next();
        let kept: Vec<_> = entity.map(|entity| entity.members.iter().collect()).unwrap_or_default();
        assert_eq!(kept.iter().map(|member| member.time.0).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9]);
        assert_eq!(entities.timers.len(), 1);
    }
}
