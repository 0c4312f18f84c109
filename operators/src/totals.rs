//! Every key's sums in a map, window by window: what [`aggregate`](crate::aggregate::aggregate) is
//! for a plan without extremes.
//!
//! It does what the arrangement does behind the same signature, with one look-up where that seeks
//! through batches and merges them, so an epoch costs nearly the same whether ten thousand or a
//! million keys are alive. A closed window leaves memory at once, as a whole.

use std::collections::BTreeMap;

use ahash::AHashMap;
use citycell_schemas::{EventTime, Place};
use differential_dataflow::Hashable;
use differential_dataflow::difference::IsZero;
use smallvec::SmallVec;
use timely::dataflow::StreamVec;

use crate::accumulators::{Accumulators, Change, State};
use crate::aggregate::{Aggregated, Aggregation};
use crate::by_epoch::{ByEpoch, Inputs, Outputs, Routed, by_epoch};
use crate::keys::Key;
use crate::saved::{Part, Saved, Touched};
use crate::tick::Tick;

/// The keys of one window by place and group.
type Groups = AHashMap<(Place, Box<[u8]>), Entry>;

/// A change of one key's sums at an epoch.
type Contribution = (Key, u64, Accumulators);

/// Adds contributions up by key.
pub(crate) fn totals<'scope>(
    contributions: StreamVec<'scope, u64, Contribution>,
    ticks: StreamVec<'scope, u64, Tick>,
    aggregation: Aggregation,
) -> Aggregated<'scope> {
    let name = format!("{}: totals", aggregation.name);
    let totals = Totals {
        unsaved: Touched::new(aggregation.keeping.recording),
        aggregation,
        windows: BTreeMap::new(),
    };
    let Outputs { rows, saved } = by_epoch(&name, Inputs { rows: contributions, ticks }, totals);
    Aggregated { changes: rows, saved }
}

struct Totals {
    aggregation: Aggregation,
    windows: BTreeMap<EventTime, Groups>,
    unsaved: Touched<Key>,
}

#[derive(Default)]
struct Entry {
    sums: Option<Accumulators>,
    /// Where the epoch's changes have this key, while they are made.
    change: Option<usize>,
}

impl Entry {
    /// What the key counts for: a key lives while it has contributions.
    fn state(&self) -> Option<State> {
        let totals = self.sums.clone().filter(|sums| sums.contributions() != 0)?;
        Some(State { totals, extremes: SmallVec::new() })
    }
}

impl Totals {
    fn apply(&mut self, contributions: Vec<Contribution>) -> Vec<Change> {
        // 1. Add up; the first time a key is met, note what it was.
        let mut changes: Vec<Change> = Vec::new();
        for (key, _, sums) in contributions {
            let Key { window_start, place, group } = key;
            let groups = self.windows.entry(window_start).or_default();
            let entry = groups.entry((place, group.clone())).or_default();
            if entry.change.is_none() {
                entry.change = Some(changes.len());
                let key = Key { window_start, place, group };
                changes.push(Change { key, old: entry.state(), new: None });
            }
            match &mut entry.sums {
                Some(known) => known.add_times(&sums, 1),
                None => entry.sums = Some(sums),
            }
        }
        // 2. See what each has become.
        for change in &mut changes {
            let Some(groups) = self.windows.get_mut(&change.key.window_start) else { continue };
            let name = (change.key.place, std::mem::take(&mut change.key.group));
            if let Some(entry) = groups.get_mut(&name) {
                entry.change = None;
                change.new = entry.state();
                if entry.sums.as_ref().is_none_or(IsZero::is_zero) {
                    groups.remove(&name);
                }
            }
            change.key.group = name.1;
        }
        changes.iter().for_each(|change| self.count(change));
        changes.retain(|change| change.old != change.new);
        changes
    }

    /// Closed windows leave, which is no change.
    fn retire(&mut self, watermark: EventTime) {
        while let Some(oldest) = self.windows.first_entry() {
            let window_start = *oldest.key();
            if !self.aggregation.horizon.window_is_closed(window_start, watermark) {
                break;
            }
            for ((place, group), entry) in oldest.remove() {
                let key = Key { window_start, place, group };
                if let Some(state) = entry.state() {
                    self.aggregation.keeping.live.add(-1, -size(&key, &state));
                }
                self.unsaved.forget(&key);
            }
        }
    }

    fn count(&self, change: &Change) {
        let live = &self.aggregation.keeping.live;
        match (&change.old, &change.new) {
            (None, Some(state)) => live.add(1, size(&change.key, state)),
            (Some(state), None) => live.add(-1, -size(&change.key, state)),
            _ => {}
        }
    }
}

impl Routed for Totals {
    /// As differential exchanges what it arranges.
    fn route((key, _, _): &Contribution) -> u64 {
        key.hashed()
    }
}

impl ByEpoch for Totals {
    type Row = Contribution;
    type Output = Change;

    fn step(&mut self, tick: &Tick, contributions: Vec<Contribution>) -> Vec<Change> {
        let changes = self.apply(contributions);
        changes.iter().for_each(|change| self.unsaved.note_with(|| change.key.clone()));
        self.retire(tick.watermark);
        changes
    }

    /// What is restored is in a snapshot already.
    fn load(&mut self, contributions: Vec<Contribution>) -> Vec<Change> {
        self.apply(contributions)
    }

    fn save(&mut self) -> Saved {
        let mut saved = Saved::default();
        for Key { window_start, place, group } in self.unsaved.take() {
            let name = (place, group);
            let entry = self.windows.get(&window_start).and_then(|groups| groups.get(&name));
            let sums = entry.and_then(|entry| entry.sums.as_ref());
            let key = Key { window_start, place: name.0, group: name.1.clone() };
            saved.push(Part::Totals, &key, sums.filter(|sums| sums.contributions() != 0));
        }
        saved
    }
}

/// What a key takes in memory, without the containers around it.
pub(crate) fn size(key: &Key, state: &State) -> i64 {
    let bytes = size_of::<Key>() + key.group.len() + state.totals.bytes();
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
