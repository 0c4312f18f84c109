//! Observations to contributions, combined by key before they are exchanged.
//!
//! Where keys repeat within an epoch this all but removes the cost of the arrangement behind it.
//! An epoch's contributions leave when the epoch is complete, or earlier when [`KEYS_MAX`]
//! different keys wait: the arrangement adds up the rest.

use std::collections::BTreeMap;

use ahash::AHashMap;
use citycell_schemas::{EventTime, Place};
use differential_dataflow::{AsCollection, VecCollection};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::accumulators::Accumulators;
use crate::events::Observation;
use crate::keys::{Key, compare_groups};
use crate::plan::{Plan, Slot};

/// How many different keys of one epoch wait on a worker before they are sent on.
pub const KEYS_MAX: usize = 1 << 16;

/// One value of a `Min` or `Max` slot, ordered so that the slot's extreme comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ranked {
    /// The slot's number among the plan's `Min` and `Max` slots.
    pub extreme: u16,
    /// The value for a minimum, its negation for a maximum.
    pub rank: i128,
}

/// Which extremes a plan keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extremes(SmallVec<[(usize, bool); 2]>);

impl Extremes {
    /// The `Min` and `Max` slots of `slots`, in order.
    #[must_use]
    pub fn of(slots: &[Slot]) -> Self {
        let extreme = |slot: &Slot| match *slot {
            Slot::Min(argument) => Some((argument, false)),
            Slot::Max(argument) => Some((argument, true)),
            _ => None,
        };
        Self(slots.iter().filter_map(extreme).collect())
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `value` as the rank of extreme number `extreme`, and back.
    pub(crate) fn turn(&self, extreme: u16, value: i128) -> i128 {
        let (_, largest) = self.0[usize::from(extreme)];
        if largest { value.wrapping_neg() } else { value }
    }

    fn ranked(&self, values: &[Option<i128>]) -> impl Iterator<Item = Ranked> {
        let numbered = (0u16..).zip(&self.0);
        numbered.filter_map(|(extreme, (argument, _))| {
            let rank = self.turn(extreme, values[*argument]?);
            Some(Ranked { extreme, rank })
        })
    }
}

/// What flows into [`aggregate`](crate::aggregate::aggregate).
#[derive(Clone)]
pub struct Contributions<'scope> {
    /// Changes of the keys' sums.
    pub totals: VecCollection<'scope, u64, Key, Accumulators>,
    /// Values that come and go, one record per extreme; empty without `Min` and `Max`.
    pub extremes: VecCollection<'scope, u64, (Key, Ranked), isize>,
}

impl Contributions<'_> {
    /// These and `more`.
    #[must_use]
    pub fn concat(self, more: Self) -> Self {
        Self {
            totals: self.totals.concat(more.totals),
            extremes: self.extremes.concat(more.extremes),
        }
    }
}

/// The content of a [`Combiner`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Combined {
    /// One entry per key whose sums change.
    pub totals: Vec<(Key, Accumulators)>,
    /// One entry per value that comes or goes.
    pub extremes: Vec<((Key, Ranked), isize)>,
}

/// The sums of one window and place by group.
type Groups = SmallVec<[(Box<[u8]>, Accumulators); 1]>;

/// Adds contributions up by key.
#[derive(Clone, Debug)]
pub struct Combiner {
    arguments: usize,
    kept: Extremes,
    /// By group within window and place, sorted, so that a look-up needs no owned key.
    totals: AHashMap<(EventTime, Place), Groups>,
    extremes: AHashMap<(Key, Ranked), isize>,
    keys: usize,
}

impl Combiner {
    /// Nothing yet, for the arguments and slots of `plan`.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            arguments: plan.arguments.len(),
            kept: Extremes::of(&plan.slots),
            totals: AHashMap::new(),
            extremes: AHashMap::new(),
            keys: 0,
        }
    }

    /// Adds (`sign` 1) or takes back (-1) one event with one value per argument.
    pub fn add(
        &mut self,
        (window_start, place, group): (EventTime, Place, &[u8]),
        values: &[Option<i128>],
        sign: i64,
    ) {
        self.entry(window_start, place, group).contribute(values, sign);
        if !self.kept.is_empty() {
            let key = Key { window_start, place, group: group.into() };
            for ranked in self.kept.ranked(values) {
                *self.extremes.entry((key.clone(), ranked)).or_default() += sign as isize;
            }
        }
    }

    /// Adds or takes back what is already added up.
    pub(crate) fn add_totals(&mut self, key: &Key, totals: &Accumulators, sign: i64) {
        self.entry(key.window_start, key.place, &key.group).add_times(totals, sign);
    }

    /// Adds or takes back one candidate of extreme number `extreme`.
    pub(crate) fn add_extreme(&mut self, key: &Key, extreme: u16, value: i128, sign: isize) {
        let rank = self.kept.turn(extreme, value);
        let candidate = (key.clone(), Ranked { extreme, rank });
        *self.extremes.entry(candidate).or_default() += sign;
    }

    /// How many different keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Takes everything out; what came to nothing is left away.
    pub fn drain(&mut self) -> Combined {
        use differential_dataflow::difference::IsZero;

        self.keys = 0;
        let mut totals = Vec::new();
        for ((window_start, place), groups) in self.totals.drain() {
            totals.extend(groups.into_iter().map(|(group, sums)| {
                let key = Key { window_start, place, group };
                (key, sums)
            }));
        }
        totals.retain(|(_, sums)| !sums.is_zero());
        let extremes = self.extremes.drain().filter(|(_, count)| *count != 0);
        Combined { totals, extremes: extremes.collect() }
    }

    fn entry(&mut self, window_start: EventTime, place: Place, group: &[u8]) -> &mut Accumulators {
        let groups = self.totals.entry((window_start, place)).or_default();
        let found = groups.binary_search_by(|(known, _)| compare_groups(known, group));
        let index = found.unwrap_or_else(|index| {
            self.keys += 1;
            groups.insert(index, (group.into(), Accumulators::none(self.arguments)));
            index
        });
        &mut groups[index].1
    }
}

/// Turns observations into the contributions of their keys.
pub fn combine<'scope>(
    observations: VecCollection<'scope, u64, Observation, isize>,
    plan: &Plan,
) -> Contributions<'scope> {
    let add = |combiner: &mut Combiner, observation: Observation, count: isize| {
        let key = &observation.key;
        combiner.add((key.window_start, key.place, &key.group), &observation.values, count as i64);
        std::iter::empty::<()>()
    };
    combine_with("combine", observations, plan, add).0
}

/// The operator behind everything that combines: `add` says what one record contributes, and what
/// else it has to say, which goes out at once.
pub(crate) fn combine_with<'scope, D, N, I>(
    name: &str,
    records: VecCollection<'scope, u64, D, isize>,
    plan: &Plan,
    mut add: impl FnMut(&mut Combiner, D, isize) -> I + 'static,
) -> (Contributions<'scope>, StreamVec<'scope, u64, N>)
where
    D: Clone + 'static,
    N: Clone + 'static,
    I: Iterator<Item = N>,
{
    let mut builder = OperatorBuilder::new(name.to_owned(), records.inner.scope());
    let mut input = builder.new_input(records.inner, Pipeline);
    let (totals_output, totals) = builder.new_output::<Vec<_>>();
    let (extremes_output, extremes) = builder.new_output::<Vec<_>>();
    let (notes_output, notes) = builder.new_output::<Vec<_>>();
    let mut totals_output =
        OutputBuilder::<u64, CapacityContainerBuilder<Vec<_>>>::from(totals_output);
    let mut extremes_output =
        OutputBuilder::<u64, CapacityContainerBuilder<Vec<_>>>::from(extremes_output);
    let mut notes_output =
        OutputBuilder::<u64, CapacityContainerBuilder<Vec<N>>>::from(notes_output);
    let mut spare = Combiner::new(plan);
    let empty = spare.clone();

    builder.build(move |_| {
        let mut waiting: BTreeMap<u64, (Capability<u64>, Capability<u64>, Combiner)> =
            BTreeMap::new();
        move |frontiers| {
            let mut totals_output = totals_output.activate();
            let mut extremes_output = extremes_output.activate();
            let mut notes_output = notes_output.activate();
            let mut send = |epoch: u64,
                            (totals, extremes): (&Capability<u64>, &Capability<u64>),
                            combined: Combined| {
                let mut session = totals_output.session(totals);
                session.give_iterator(
                    combined.totals.into_iter().map(|(key, sums)| (key, epoch, sums)),
                );
                drop(session);
                let mut session = extremes_output.session(extremes);
                session.give_iterator(
                    combined.extremes.into_iter().map(|(value, count)| (value, epoch, count)),
                );
            };
            // 1. Add up by epoch.
            input.for_each(|capability, records| {
                let mut notes = notes_output.session(&capability);
                for (record, epoch, count) in records.drain(..) {
                    let (totals, extremes, combiner) = waiting.entry(epoch).or_insert_with(|| {
                        let delayed = |port| capability.delayed(&epoch, port);
                        (delayed(0), delayed(1), std::mem::replace(&mut spare, empty.clone()))
                    });
                    notes.give_iterator(add(combiner, record, count));
                    if combiner.len() >= KEYS_MAX {
                        send(epoch, (totals, extremes), combiner.drain());
                    }
                }
            });
            // 2. Send what is complete.
            while let Some(entry) = waiting.first_entry() {
                if frontiers[0].less_equal(entry.key()) {
                    break;
                }
                let (epoch, (totals, extremes, mut combiner)) = entry.remove_entry();
                send(epoch, (&totals, &extremes), combiner.drain());
                // The next epoch is about as large: it need not grow its tables again.
                spare = combiner;
            }
        }
    });
    let (totals, extremes) = (totals.as_collection(), extremes.as_collection());
    (Contributions { totals, extremes }, notes)
}
