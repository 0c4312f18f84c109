//! What each epoch changed, read from the arrangements of totals and extremes.
//!
//! The arrangements are read as of the epochs they hold: `done` is the newest epoch whose changes
//! are out, and updates up to it may be compacted together; those after it keep their epochs.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use differential_dataflow::difference::Semigroup;
use differential_dataflow::operators::arrange::Arranged;
use differential_dataflow::trace::cursor::{CursorList, cursor_list};
use differential_dataflow::trace::{BatchCursor, Cursor, Navigable, Span, TraceReader};
use smallvec::SmallVec;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::Antichain;
use timely::progress::frontier::MutableAntichain;

use crate::accumulators::{Accumulators, Change, State};
use crate::aggregate::{Aggregation, ExtremesTrace, TotalsTrace};
use crate::combine::{Extremes, Ranked};
use crate::keys::Key;
use crate::tick::Tick;

type TotalsBatch = <TotalsTrace as TraceReader>::Batch;
type ExtremesBatch = <ExtremesTrace as TraceReader>::Batch;

/// Emits every changed key once per epoch, at that epoch.
pub(crate) fn changed<'scope>(
    totals: Arranged<'scope, TotalsTrace>,
    extremes: Arranged<'scope, ExtremesTrace>,
    ticks: StreamVec<'scope, u64, Tick>,
    aggregation: Aggregation,
) -> StreamVec<'scope, u64, Change> {
    let name = format!("{}: changes", aggregation.name);
    let mut builder = OperatorBuilder::new(name, ticks.scope());
    let mut totals_input = builder.new_input(totals.stream, Pipeline);
    let mut extremes_input = builder.new_input(extremes.stream, Pipeline);
    let mut ticks_input = builder.new_input(ticks, Pipeline);
    let (output, changes) = builder.new_output::<Vec<Change>>();
    let mut output = OutputBuilder::<u64, CapacityContainerBuilder<Vec<Change>>>::from(output);

    builder.build(move |_| {
        let mut reader = Reader {
            aggregation,
            totals: totals.trace,
            extremes: extremes.trace,
            totals_touched: Vec::new(),
            extremes_touched: Vec::new(),
            ticks: BTreeMap::new(),
            done: None,
        };
        let mut held: Option<Capability<u64>> = None;
        move |frontiers| {
            let mut output = output.activate();
            // 1. Keep what came, and the right to answer at the earliest of it.
            totals_input.for_each(|capability, spans| {
                hold(&mut held, capability.retain_least(0));
                reader.totals_touched.append(spans);
            });
            extremes_input.for_each(|capability, spans| {
                hold(&mut held, capability.retain_least(0));
                reader.extremes_touched.append(spans);
            });
            ticks_input.for_each(|capability, ticks| {
                hold(&mut held, capability.retain_least(0));
                let ticks = ticks.drain(..).map(|tick| (tick.epoch.0, tick));
                reader.ticks.extend(ticks);
            });
            // 2. Answer for the epochs that are complete on all three.
            let open = least(frontiers);
            if let Some(capability) = &held
                && *capability.time() < open
            {
                for (epoch, changes) in reader.changes_before(open) {
                    let epoch = capability.delayed(&epoch);
                    output.session(&epoch).give_iterator(changes.into_iter());
                }
            }
            // 3. Let go of them.
            reader.finish_before(open);
            match &mut held {
                Some(capability) if reader.waits() => {
                    let time = open.max(*capability.time());
                    capability.downgrade(&time);
                }
                _ => held = None,
            }
        }
    });
    changes
}

/// The first epoch that is not complete on every input; `u64::MAX` after the last.
fn least(frontiers: &[MutableAntichain<u64>]) -> u64 {
    let first = |frontier: &MutableAntichain<u64>| frontier.frontier().first().copied();
    frontiers.iter().filter_map(first).min().unwrap_or(u64::MAX)
}

fn hold(held: &mut Option<Capability<u64>>, capability: Option<Capability<u64>>) {
    let Some(capability) = capability else { return };
    if held.as_ref().is_none_or(|held| capability.time() < held.time()) {
        *held = Some(capability);
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
}

impl Reader {
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
        loop {
            // 1. The next touched key, and in which epochs.
            let by_totals = touched_totals.get_key(&totals);
            let by_extremes = touched_extremes.get_key(&extremes);
            let Some(key) = by_totals.into_iter().chain(by_extremes).min() else {
                break;
            };
            epochs.clear();
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
                while touched_extremes.get_val(&extremes).is_some() {
                    touched_extremes.map_times(&extremes, |epoch, _| note(epoch));
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
                let live = i64::from(new.is_some()) - i64::from(old.is_some());
                self.aggregation.live_keys.fetch_add(live, Ordering::Relaxed);
                if old != new && !self.is_closed(key, *epoch) {
                    let change = Change { key: key.clone(), old, new: new.clone() };
                    changes.entry(*epoch).or_default().push(change);
                }
                old = new;
            }
        }
        changes
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
        let mut updates = self.updates.iter().filter(|(time, _)| *time <= epoch);
        let mut totals = updates.next()?.1.clone();
        updates.for_each(|(_, sums)| totals.plus_equals(sums));
        (totals.contributions() != 0)
            .then(|| State { totals, extremes: self.extremes_at(key, epoch) })
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
