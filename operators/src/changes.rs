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

use std::collections::BTreeMap;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

use crate::accumulators::{Change, State};
use crate::keys::Key;
use crate::lateness::Horizon;
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

/// The versions to be written, each at its epoch.
pub fn publish<'scope>(
    changes: StreamVec<'scope, u64, Change>,
    ticks: StreamVec<'scope, u64, Tick>,
    publish: Publish,
) -> StreamVec<'scope, u64, Version> {
    changes.binary_frontier::<_, CapacityContainerBuilder<Vec<Version>>, _, _, _, _>(
        ticks,
        Pipeline,
        Pipeline,
        "publish",
        move |_, _| {
            let mut waiting: BTreeMap<u64, Waiting> = BTreeMap::new();
            let mut publisher = Publisher::new(publish);
            move |(changes, changes_frontier), (ticks, ticks_frontier), output| {
                changes.for_each(|capability, changes| {
                    if let Some(capability) = capability.retain_least(0) {
                        let epoch = *capability.time();
                        let entry = waiting.entry(epoch);
                        let entry = entry.or_insert_with(|| (capability, Vec::new(), None));
                        entry.1.append(changes);
                    }
                });
                ticks.for_each(|capability, ticks| {
                    for tick in ticks.drain(..) {
                        let capability = capability.delayed(&tick.epoch.0, 0);
                        let entry = waiting.entry(tick.epoch.0);
                        let entry = entry.or_insert_with(|| (capability, Vec::new(), None));
                        entry.2 = Some(tick);
                    }
                });
                while let Some(entry) = waiting.first_entry() {
                    let epoch = entry.key();
                    if changes_frontier.less_equal(epoch) || ticks_frontier.less_equal(epoch) {
                        break;
                    }
                    let (capability, changes, tick) = entry.remove();
                    let versions = publisher.run(changes, tick);
                    output.session(&capability).give_iterator(versions.into_iter());
                }
            }
        },
    )
}

/// What is held back, and what was published.
/// An epoch that is not complete: its capability, its changes so far and its tick.
type Waiting = (Capability<u64>, Vec<Change>, Option<Tick>);

struct Publisher {
    publish: Publish,
    /// For each key that changed since: what was published, and its newest content.
    held: BTreeMap<Key, (Option<State>, Option<State>)>,
    /// What was published of every live key; kept for keyframes only.
    published: BTreeMap<Key, State>,
}

impl Publisher {
    fn new(publish: Publish) -> Self {
        Self { publish, held: BTreeMap::new(), published: BTreeMap::new() }
    }

    /// The versions of one epoch. Without a tick (a state that is being loaded) all is held back.
    fn run(&mut self, changes: Vec<Change>, tick: Option<Tick>) -> Vec<Version> {
        let every_ms = self.publish.every_ms;
        let due = tick.is_some_and(|tick| crosses(&tick, every_ms));
        let keyframe = self.publish.keyframe_every_ms;
        let keyframe = keyframe.zip(tick).is_some_and(|(every_ms, tick)| crosses(&tick, every_ms));
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
    fn closed_by(&mut self, tick: Option<Tick>) -> BTreeMap<Key, (Option<State>, Option<State>)> {
        let mut closed = BTreeMap::new();
        let Some(tick) = tick else { return closed };
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

/// Whether bound time reached a new multiple of `every_ms` in this epoch.
pub(crate) fn crosses(tick: &Tick, every_ms: i64) -> bool {
    every_ms <= 0
        || tick.bound_time_ms.div_euclid(every_ms)
            > tick.previous_bound_time_ms.div_euclid(every_ms)
}
