//! Which changes are published, and when.
//!
//! With an interval, changes are held back and only the newest version of a key comes out, at the
//! first epoch whose bound time crosses a multiple of the interval; a key that came back to what
//! was published does not come out. A window that closes first is flushed at the epoch whose
//! watermark closes it, so nothing is lost when it retires.
//!
//! Keyframes write every live key again, so that a reader of an ever longer history can start at
//! the newest. They keep one published version per live key in memory, so they are for pipelines
//! without windows.
//!
//! Everything follows from the changes and the ticks: a restart publishes the same rows at the same
//! epochs.

use std::collections::{BTreeMap, BTreeSet};

use timely::dataflow::StreamVec;

use crate::accumulators::{Change, State};
use crate::by_epoch::{ByEpoch, Inputs, Outputs, by_epoch_in_place};
use crate::keys::Key;
use crate::lateness::Horizon;
use crate::saved::{Part, Pending, Saved};
use crate::tick::Tick;

/// When to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// When windows close.
    pub horizon: Horizon,
    /// The interval between versions of a row; 0 publishes every epoch's changes.
    pub every_ms: i64,
    /// The interval between keyframes; `None` writes none.
    pub keyframe_every_ms: Option<i64>,
}

/// A version of a key to be written at the epoch it comes out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Which key.
    pub key: Key,
    /// Its content; `None` where nothing is left of it.
    pub state: Option<State>,
    /// Whether it belongs to a keyframe.
    pub keyframe: bool,
}

/// What comes out of [`publish`].
pub struct Published<'scope> {
    /// The versions to be written, each at its epoch.
    pub versions: StreamVec<'scope, u64, Version>,
    /// What snapshots keep.
    pub saved: StreamVec<'scope, u64, Saved>,
}

/// Decides which changes become versions.
pub fn publish<'scope>(
    changes: StreamVec<'scope, u64, Change>,
    ticks: StreamVec<'scope, u64, Tick>,
    publisher: Publisher,
) -> Published<'scope> {
    let inputs = Inputs { rows: changes, ticks };
    let Outputs { rows, saved } = by_epoch_in_place("publish", inputs, publisher);
    Published { versions: rows, saved }
}

/// What is held back, and what was published.
pub struct Publisher {
    publish: Publish,
    /// For each key that changed since: what was published, and its newest content.
    held: BTreeMap<Key, Pending>,
    /// What was published of every live key; kept for keyframes only.
    published: BTreeMap<Key, State>,
    /// The keys that the last snapshot says are held back.
    saved: BTreeSet<Key>,
}

impl Publisher {
    /// Nothing is published yet.
    #[must_use]
    pub fn new(publish: Publish) -> Self {
        Self::restored(publish, Vec::new())
    }

    /// Holds these changes back already.
    pub(crate) fn restored(publish: Publish, held: Vec<(Key, Pending)>) -> Self {
        let saved = held.iter().map(|(key, _)| key.clone()).collect();
        let held = held.into_iter().collect();
        Self { publish, held, published: BTreeMap::new(), saved }
    }

    /// The versions of one epoch.
    fn run(&mut self, changes: Vec<Change>, tick: &Tick) -> Vec<Version> {
        let every_ms = self.publish.every_ms;
        let due = crosses(tick, every_ms);
        let keyframe = self.publish.keyframe_every_ms;
        let keyframe = keyframe.is_some_and(|every_ms| crosses(tick, every_ms));
        let plain = every_ms == 0 && self.publish.keyframe_every_ms.is_none();
        if plain && due && self.held.is_empty() {
            // Nothing is held back and nothing remembered: the common case costs no map.
            let version =
                |change: Change| Version { key: change.key, state: change.new, keyframe: false };
            return changes.into_iter().map(version).collect();
        }
        changes.into_iter().for_each(|change| self.hold(change));
        let mut out = if due { std::mem::take(&mut self.held) } else { self.closed_by(tick) };
        out.retain(|_, (published, newest)| published != newest);
        if self.publish.keyframe_every_ms.is_some() {
            for (key, (_, newest)) in &out {
                match newest {
                    Some(state) => self.published.insert(key.clone(), state.clone()),
                    None => self.published.remove(key),
                };
            }
        }
        let mut versions: BTreeMap<Key, Option<State>> =
            out.into_iter().map(|(key, (_, newest))| (key, newest)).collect();
        if keyframe {
            let again = self.published.iter();
            versions.extend(again.map(|(key, state)| (key.clone(), Some(state.clone()))));
        }
        let version = |(key, state)| Version { key, state, keyframe };
        versions.into_iter().map(version).collect()
    }

    fn hold(&mut self, change: Change) {
        let held = self.held.entry(change.key);
        held.or_insert((change.old, None)).1 = change.new;
    }

    /// What is held back of windows that this tick closes: a prefix, keys begin with their window.
    fn closed_by(&mut self, tick: &Tick) -> BTreeMap<Key, Pending> {
        let mut closed = BTreeMap::new();
        while let Some(first) = self.held.first_entry() {
            let start = first.key().window_start;
            if !self.publish.horizon.window_is_closed(start, tick.watermark) {
                break;
            }
            let (key, versions) = first.remove_entry();
            closed.insert(key, versions);
        }
        closed
    }
}

impl ByEpoch for Publisher {
    type Row = Change;
    type Output = Version;

    fn step(&mut self, tick: &Tick, changes: Vec<Change>) -> Vec<Version> {
        self.run(changes, tick)
    }

    /// Learns what there is in an epoch that no tick goes with: a state that is being loaded. Its
    /// rows are published but for those that are held back.
    fn load(&mut self, changes: Vec<Change>) -> Vec<Version> {
        if self.publish.keyframe_every_ms.is_none() {
            return Vec::new();
        }
        let there = changes.into_iter().filter_map(|change| Some((change.key, change.new?)));
        self.published.extend(there);
        for (key, (published, _)) in &self.held {
            match published {
                Some(state) => self.published.insert(key.clone(), state.clone()),
                None => self.published.remove(key),
            };
        }
        Vec::new()
    }

    /// Everything that is held back, and that nothing else is any more.
    fn save(&mut self) -> Saved {
        let mut saved = Saved::default();
        for key in self.saved.iter().filter(|key| !self.held.contains_key(key)) {
            saved.push(Part::Held, key, None::<&Pending>);
        }
        for (key, pending) in &self.held {
            saved.push(Part::Held, key, Some(pending));
        }
        self.saved = self.held.keys().cloned().collect();
        saved
    }
}

/// Whether bound time reached a new multiple of `every_ms` in this epoch.
pub(crate) fn crosses(tick: &Tick, every_ms: i64) -> bool {
    every_ms <= 0
        || tick.bound_time_ms.div_euclid(every_ms)
            > tick.previous_bound_time_ms.div_euclid(every_ms)
}
