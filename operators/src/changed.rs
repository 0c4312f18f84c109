//! What each epoch changed, read from the arrangements of totals and extremes.
//!
//! The arrangements are read as of the epochs they hold: `done` is the newest epoch whose changes
//! are out, and updates up to it may be compacted together; those after it keep their epochs.

use std::collections::BTreeMap;

use differential_dataflow::difference::Semigroup;
use differential_dataflow::operators::arrange::Arranged;
use differential_dataflow::trace::cursor::{CursorList, cursor_list};
use differential_dataflow::trace::{BatchCursor, Cursor, Navigable, Span, TraceReader};
use smallvec::SmallVec;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::{Capability, InputCapability};
use timely::progress::Antichain;
use timely::progress::frontier::MutableAntichain;

use crate::accumulators::{Accumulators, Change, State};
use crate::aggregate::{Aggregated, Aggregation, ExtremesTrace, TotalsTrace};
use crate::combine::{Extremes, Ranked};
use crate::keys::Key;
use crate::saved::{Part, Saved, Touched};
use crate::tick::Tick;
use crate::totals::size;

type TotalsBatch = <TotalsTrace as TraceReader>::Batch;
type ExtremesBatch = <ExtremesTrace as TraceReader>::Batch;

/// Emits every changed key once per epoch, at that epoch.
pub(crate) fn changed<'scope>(
    totals: Arranged<'scope, TotalsTrace>,
    extremes: Arranged<'scope, ExtremesTrace>,
    ticks: StreamVec<'scope, u64, Tick>,
    aggregation: Aggregation,
) -> Aggregated<'scope> {
    let name = format!("{}: changes", aggregation.name);
    let mut builder = OperatorBuilder::new(name, ticks.scope());
    let mut totals_input = builder.new_input(totals.stream, Pipeline);
    let mut extremes_input = builder.new_input(extremes.stream, Pipeline);
    let mut ticks_input = builder.new_input(ticks, Pipeline);
    let (output, changes) = builder.new_output::<Vec<Change>>();
    let mut output = OutputBuilder::<u64, CapacityContainerBuilder<Vec<Change>>>::from(output);
    let (saved_output, saved) = builder.new_output::<Vec<Saved>>();
    let mut saved_output =
        OutputBuilder::<u64, CapacityContainerBuilder<Vec<Saved>>>::from(saved_output);

    builder.build(move |_| {
        let recording = aggregation.keeping.recording;
        let mut reader = Reader {
            aggregation,
            totals: totals.trace,
            extremes: extremes.trace,
            totals_touched: Vec::new(),
            extremes_touched: Vec::new(),
            ticks: BTreeMap::new(),
            done: None,
            unsaved: Unsaved { totals: Touched::new(recording), extremes: Touched::new(recording) },
        };
        let mut held: Option<Held> = None;
        move |frontiers| {
            let mut output = output.activate();
            let mut saved_output = saved_output.activate();
            // 1. Keep what came, and the right to answer at the earliest of it.
            totals_input.for_each(|capability, spans| {
                hold(&mut held, capability);
                reader.totals_touched.append(spans);
            });
            extremes_input.for_each(|capability, spans| {
                hold(&mut held, capability);
                reader.extremes_touched.append(spans);
            });
            ticks_input.for_each(|capability, ticks| {
                hold(&mut held, capability);
                let ticks = ticks.drain(..).map(|tick| (tick.epoch.0, tick));
                reader.ticks.extend(ticks);
            });
            // 2. Answer for the epochs that are complete on all three, up to each snapshot and
            //    then for the rest.
            let open = least(frontiers);
            if let Some(held) = &held
                && *held.changes.time() < open
            {
                let snapshots = reader.snapshots_before(open);
                let cuts = snapshots.iter().map(|epoch| epoch + 1);
                for cut in cuts.chain([open]) {
                    for (epoch, changes) in reader.changes_before(cut) {
                        let epoch = held.changes.delayed(&epoch);
                        output.session(&epoch).give_iterator(changes.into_iter());
                    }
                    reader.finish_before(cut);
                    if cut.checked_sub(1).is_some_and(|epoch| snapshots.contains(&epoch)) {
                        let epoch = held.saved.delayed(&(cut - 1));
                        saved_output.session(&epoch).give(reader.save());
                    }
                }
            }
            // 3. Let go of them.
            reader.finish_before(open);
            match &mut held {
                Some(held) if reader.waits() => {
                    let time = open.max(*held.changes.time());
                    held.changes.downgrade(&time);
                    held.saved.downgrade(&time);
                }
                _ => held = None,
            }
        }
    });
    Aggregated { changes, saved }
}

/// The right to answer from a time on.
struct Held {
    changes: Capability<u64>,
    saved: Capability<u64>,
}

/// The first epoch that is not complete on every input; `u64::MAX` after the last.
fn least(frontiers: &[MutableAntichain<u64>]) -> u64 {
    let first = |frontier: &MutableAntichain<u64>| frontier.frontier().first().copied();
    frontiers.iter().filter_map(first).min().unwrap_or(u64::MAX)
}

fn hold(held: &mut Option<Held>, capability: InputCapability<u64>) {
    let Some(time) = capability.least().copied() else { return };
    if held.as_ref().is_none_or(|held| time < *held.changes.time()) {
        let (changes, saved) = (capability.delayed(&time, 0), capability.delayed(&time, 1));
        *held = Some(Held { changes, saved });
    }
}

/// The arrangements, and what was touched in them since `done`.
struct Reader {
    aggregation: Aggregation,
    totals: TotalsTrace,
    extremes: ExtremesTrace,
    totals_touched: Vec<Span<u64, TotalsBatch>>,
    extremes_touched: Vec<Span<u64, ExtremesBatch>>,
    ticks: BTreeMap<u64, Tick>,
    done: Option<u64>,
    unsaved: Unsaved,
}

/// What no snapshot has yet.
struct Unsaved {
    totals: Touched<Key>,
    extremes: Touched<(Key, Ranked)>,
}

impl Reader {
    /// The epochs after `done` and before `open` at whose end a snapshot is taken.
    fn snapshots_before(&self, open: u64) -> Vec<u64> {
        let complete = self.ticks.range(..open).filter(|(epoch, _)| Some(**epoch) > self.done);
        complete.filter(|(_, tick)| tick.snapshot).map(|(epoch, _)| *epoch).collect()
    }

    /// The changes of all epochs after `done` and before `open`, by epoch.
    fn changes_before(&mut self, open: u64) -> BTreeMap<u64, Vec<Change>> {
        let mut changes: BTreeMap<u64, Vec<Change>> = BTreeMap::new();
        let totals = batches(&self.totals_touched);
        let extremes = batches(&self.extremes_touched);
        if totals.is_empty() && extremes.is_empty() {
            return changes;
        }
        let (mut touched_totals, totals) = cursor_list(totals);
        let (mut touched_extremes, extremes) = cursor_list(extremes);
        let mut view = View::new(&mut self.totals, &mut self.extremes, &self.aggregation.extremes);
        let mut epochs: SmallVec<[u64; 2]> = SmallVec::new();
        let mut ranks: SmallVec<[Ranked; 2]> = SmallVec::new();
        loop {
            // 1. The next touched key, and in which epochs.
            let by_totals = touched_totals.get_key(&totals);
            let by_extremes = touched_extremes.get_key(&extremes);
            let Some(key) = by_totals.into_iter().chain(by_extremes).min() else {
                break;
            };
            epochs.clear();
            ranks.clear();
            let mut note = |epoch: &u64| {
                if *epoch < open && self.done.is_none_or(|done| *epoch > done) {
                    epochs.push(*epoch);
                }
            };
            if by_totals == Some(key) {
                touched_totals.map_times(&totals, |epoch, _| note(epoch));
                touched_totals.step_key(&totals);
            }
            if by_extremes == Some(key) {
                while let Some(ranked) = touched_extremes.get_val(&extremes) {
                    touched_extremes.map_times(&extremes, |epoch, _| note(epoch));
                    ranks.push(*ranked);
                    touched_extremes.step_val(&extremes);
                }
                touched_extremes.step_key(&extremes);
            }
            epochs.sort_unstable();
            epochs.dedup();
            if epochs.is_empty() {
                continue;
            }
            // 2. Its content before them and after each.
            view.seek(key);
            let mut old = self.done.and_then(|done| view.state(key, done));
            for epoch in &epochs {
                let new = view.state(key, *epoch);
                let closed = self.is_closed(key, *epoch);
                self.count_live(key, old.as_ref(), new.as_ref());
                self.unsaved.note(key, &ranks, closed, self.ticks.contains_key(epoch));
                if old != new && !closed {
                    let change = Change { key: key.clone(), old, new: new.clone() };
                    changes.entry(*epoch).or_default().push(change);
                }
                old = new;
            }
        }
        changes
    }

    fn count_live(&self, key: &Key, old: Option<&State>, new: Option<&State>) {
        let live = &self.aggregation.keeping.live;
        match (old, new) {
            (None, Some(state)) => live.add(1, size(key, state)),
            (Some(state), None) => live.add(-1, -size(key, state)),
            _ => {}
        }
    }

    /// What was touched since this was last asked, as of `done`.
    fn save(&mut self) -> Saved {
        let mut saved = Saved::default();
        let Some(done) = self.done else { return saved };
        let Self { totals, extremes, aggregation, unsaved, .. } = self;
        let mut view = View::new(totals, extremes, &aggregation.extremes);
        for key in unsaved.totals.take() {
            view.seek(&key);
            saved.push(Part::Totals, &key, view.totals_at(done).as_ref());
        }
        let mut view = View::new(totals, extremes, &aggregation.extremes);
        for value in unsaved.extremes.take() {
            let count = view.count_of(&value, done);
            saved.push(Part::Extremes, &value, (count != 0).then_some(&count));
        }
        saved
    }

    /// Whether the key's window is closed in this epoch; then what happens is its retirement.
    fn is_closed(&self, key: &Key, epoch: u64) -> bool {
        let tick = self.ticks.range(..=epoch).next_back();
        tick.is_some_and(|(_, tick)| {
            let horizon = &self.aggregation.horizon;
            horizon.window_is_closed(key.window_start, tick.watermark)
        })
    }

    /// Forgets what only the epochs before `open` needed.
    fn finish_before(&mut self, open: u64) {
        let Some(done) = open.checked_sub(1) else { return };
        if self.done.is_some_and(|before| before >= done) {
            return;
        }
        self.done = Some(done);
        self.totals_touched.retain(|span| reaches(span.upper(), open));
        self.extremes_touched.retain(|span| reaches(span.upper(), open));
        // The newest complete tick still says which windows are closed.
        if let Some(newest) = self.ticks.range(..=done).next_back().map(|(epoch, _)| *epoch) {
            self.ticks = self.ticks.split_off(&newest);
        }
        let_compact(&mut self.totals, done);
        let_compact(&mut self.extremes, done);
    }

    /// Whether something of an epoch that is not complete is at hand.
    fn waits(&self) -> bool {
        let ticks_ahead = self.ticks.keys().next_back() > self.done.as_ref();
        ticks_ahead || !self.totals_touched.is_empty() || !self.extremes_touched.is_empty()
    }
}

impl Unsaved {
    /// A closed window needs no entry, and a state that is being loaded (which no tick goes with)
    /// has one.
    fn note(&mut self, key: &Key, ranks: &[Ranked], closed: bool, has_tick: bool) {
        if closed {
            self.totals.forget(key);
            ranks.iter().for_each(|ranked| self.extremes.forget_with(|| (key.clone(), *ranked)));
        } else if has_tick {
            self.totals.note_with(|| key.clone());
            ranks.iter().for_each(|ranked| self.extremes.note_with(|| (key.clone(), *ranked)));
        }
    }
}

fn batches<B: Clone>(spans: &[Span<u64, B>]) -> Vec<B> {
    spans.iter().filter_map(|span| span.inner.clone()).collect()
}

/// Whether a span up to `upper` holds epochs from `open` on.
fn reaches(upper: &Antichain<u64>, open: u64) -> bool {
    upper.elements().first().is_none_or(|upper| *upper > open) && open != u64::MAX
}

/// Updates up to `done` may become one; batches may merge whatever they hold.
fn let_compact<Tr: TraceReader<Time = u64>>(trace: &mut Tr, done: u64) {
    let mut upper = Antichain::new();
    trace.read_upper(&mut upper);
    trace.set_logical_compaction(Antichain::from_elem(done).borrow());
    trace.set_physical_compaction(upper.borrow());
}

type TotalsCursor = CursorList<BatchCursor<TotalsTrace>>;
type ExtremesCursor = BatchCursor<ExtremesTrace>;

/// Both arrangements as they are now; their updates tell the epochs apart.
struct View<'a> {
    totals: TotalsCursor,
    totals_batches: Vec<TotalsBatch>,
    /// One per batch: a `CursorList` panics in `seek_val` once one of its cursors is at its end.
    extremes: Vec<(ExtremesCursor, ExtremesBatch)>,
    kept: &'a Extremes,
    /// The sums' updates of the key at hand, by epoch.
    updates: Vec<(u64, Accumulators)>,
}

impl<'a> View<'a> {
    fn new(totals: &mut TotalsTrace, extremes: &mut ExtremesTrace, kept: &'a Extremes) -> Self {
        let (totals, totals_batches) = cursor_list(all_batches(totals));
        let with_cursor = |batch: ExtremesBatch| (batch.cursor(), batch);
        let extremes = all_batches(extremes).into_iter().map(with_cursor).collect();
        Self { totals, totals_batches, extremes, kept, updates: Vec::new() }
    }

    /// Goes forward to `key`.
    fn seek(&mut self, key: &Key) {
        let updates = &mut self.updates;
        updates.clear();
        self.totals.seek_key(&self.totals_batches, key);
        if self.totals.get_key(&self.totals_batches) == Some(key) {
            self.totals.map_times(&self.totals_batches, |epoch, sums| {
                updates.push((*epoch, sums.clone()));
            });
        }
        for (cursor, batch) in &mut self.extremes {
            cursor.seek_key(batch, key);
        }
    }

    /// The content of the key at hand as of `epoch`.
    fn state(&mut self, key: &Key, epoch: u64) -> Option<State> {
        let totals = self.totals_at(epoch)?;
        Some(State { totals, extremes: self.extremes_at(key, epoch) })
    }

    /// The sums of the key at hand as of `epoch`.
    fn totals_at(&self, epoch: u64) -> Option<Accumulators> {
        let mut updates = self.updates.iter().filter(|(time, _)| *time <= epoch);
        let mut totals = updates.next()?.1.clone();
        updates.for_each(|(_, sums)| totals.plus_equals(sums));
        (totals.contributions() != 0).then_some(totals)
    }

    /// How often a value of an extreme is there as of `epoch`. Goes forward to its key.
    fn count_of(&mut self, (key, ranked): &(Key, Ranked), epoch: u64) -> isize {
        let mut count = 0;
        for (cursor, batch) in &mut self.extremes {
            cursor.seek_key(batch, key);
            if cursor.get_key(batch) != Some(key) {
                continue;
            }
            cursor.rewind_vals(batch);
            cursor.seek_val(batch, ranked);
            if cursor.get_val(batch) == Some(ranked) {
                cursor.map_times(batch, |time, diff| {
                    count += if *time <= epoch { *diff } else { 0 };
                });
            }
        }
        count
    }

    fn extremes_at(&mut self, key: &Key, epoch: u64) -> SmallVec<[Option<i128>; 1]> {
        (0..self.kept.len()).map(|extreme| self.first_live(key, extreme as u16, epoch)).collect()
    }

    /// The first value of this extreme that is there as of `epoch`.
    fn first_live(&mut self, key: &Key, extreme: u16, epoch: u64) -> Option<i128> {
        let first = Ranked { extreme, rank: i128::MIN };
        let mut here: SmallVec<[_; 8]> = self
            .extremes
            .iter_mut()
            .filter(|(cursor, batch)| cursor.get_key(batch) == Some(key))
            .collect();
        for (cursor, batch) in &mut here {
            cursor.rewind_vals(batch);
            cursor.seek_val(batch, &first);
        }
        loop {
            let values = here.iter().filter_map(|(cursor, batch)| cursor.get_val(batch));
            let ranked = *values.min().filter(|ranked| ranked.extreme == extreme)?;
            let mut count = 0;
            for (cursor, batch) in &mut here {
                if cursor.get_val(batch) == Some(&ranked) {
                    cursor.map_times(batch, |time, diff| {
                        count += if *time <= epoch { *diff } else { 0 };
                    });
                    cursor.step_val(batch);
                }
            }
            if count > 0 {
                return Some(self.kept.turn(extreme, ranked.rank));
            }
        }
    }
}

fn all_batches<Tr: TraceReader<Time = u64>>(trace: &mut Tr) -> Vec<Tr::Batch> {
    let mut upper = Antichain::new();
    trace.read_upper(&mut upper);
    trace.batches_through(upper.borrow()).expect("an arrangement can be cut at its own upper bound")
}
