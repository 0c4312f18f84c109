//! Takes closed windows out of an arrangement.
//!
//! A window that is closed under the watermark of epoch e gets no update at e or later. So once the
//! arrangement is complete up to e, what it holds of the window is final, and the same with the
//! sign turned goes into the arrangement's own input at a later tick. Keys begin with their window,
//! so this walks the arrangement in order and never looks at a key twice. At most
//! `keys_max` keys leave per epoch and worker, so that ticks go on.
//!
//! Nothing waits for anything: the operator reads what the arrangement has completed when a tick
//! comes. When exactly a key leaves is therefore not determined, and nobody can see it: changes of
//! closed windows are not published.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use differential_dataflow::difference::Abelian;
use differential_dataflow::trace::cursor::cursor_list;
use differential_dataflow::trace::{BatchCursor, Cursor, Navigable, TraceReader};
use differential_dataflow::{AsCollection, ExchangeData, VecCollection};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::progress::Antichain;

use crate::keys::Key;
use crate::lateness::Horizon;
use crate::tick::Tick;

/// Where an arrangement puts its handle once it is built: [`retire`] stands before it.
pub(crate) type Handle<Tr> = Rc<RefCell<Option<Tr>>>;

/// What [`retire`] needs to know.
#[derive(Clone)]
pub(crate) struct Retirement {
    pub(crate) name: String,
    pub(crate) horizon: Horizon,
    pub(crate) keys_max: usize,
}

/// The negated content of closed windows, to be concatenated to the arrangement's input.
pub(crate) fn retire<'scope, Tr, V, R>(
    ticks: StreamVec<'scope, u64, Tick>,
    trace: Handle<Tr>,
    settings: Retirement,
) -> VecCollection<'scope, u64, (Key, V), R>
where
    Tr: TraceReader<Time = u64, Batch: Navigable> + 'static,
    for<'a> BatchCursor<Tr>:
        Cursor<Key<'a> = &'a Key, Val<'a> = &'a V, Time = u64, Diff = R, DiffGat<'a> = &'a R>,
    V: ExchangeData,
    R: ExchangeData + Abelian,
{
    let name = settings.name.clone();
    ticks
        .unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(Pipeline, &name, move |_, _| {
            let mut sweep = Sweep { settings, ticks: BTreeMap::new(), last: None };
            move |input, output| {
                input.for_each(|capability, ticks| {
                    let mut trace = trace.borrow_mut();
                    for tick in ticks.drain(..) {
                        sweep.ticks.insert(tick.epoch.0, tick);
                        let epoch = capability.delayed(&tick.epoch.0, 0);
                        let mut session = output.session(&epoch);
                        if let Some(trace) = trace.as_mut() {
                            sweep.run(trace, |key, value, negated| {
                                session.give(((key, value), tick.epoch.0, negated));
                            });
                        }
                    }
                });
            }
        })
        .as_collection()
}

/// How far the walk has come.
struct Sweep {
    settings: Retirement,
    /// The ticks that may still decide, the newest completed one and those after it.
    ticks: BTreeMap<u64, Tick>,
    /// The last key that left.
    last: Option<Key>,
}

impl Sweep {
    fn run<Tr, V, R>(&mut self, trace: &mut Tr, mut give: impl FnMut(Key, V, R))
    where
        Tr: TraceReader<Time = u64, Batch: Navigable>,
        for<'a> BatchCursor<Tr>:
            Cursor<Key<'a> = &'a Key, Val<'a> = &'a V, Time = u64, Diff = R, DiffGat<'a> = &'a R>,
        V: Clone,
        R: Abelian,
    {
        let mut upper = Antichain::new();
        trace.read_upper(&mut upper);
        let Some(tick) = self.decisive_tick(&upper) else {
            advance(trace, &upper);
            return;
        };
        let batches = trace
            .batches_through(upper.borrow())
            .expect("an arrangement can be cut at its own upper bound");
        let (mut cursor, batches) = cursor_list(batches);
        if let Some(last) = &self.last {
            cursor.seek_key(&batches, last);
            if cursor.get_key(&batches) == Some(last) {
                cursor.step_key(&batches);
            }
        }
        let mut left = 0;
        while let Some(key) = cursor.get_key(&batches) {
            let closed = self.settings.horizon.window_is_closed(key.window_start, tick.watermark);
            if !closed || left >= self.settings.keys_max {
                break;
            }
            let mut live = false;
            while let Some(value) = cursor.get_val(&batches) {
                let mut sum: Option<R> = None;
                cursor.map_times(&batches, |_, diff| match &mut sum {
                    Some(sum) => sum.plus_equals(diff),
                    None => sum = Some(diff.clone()),
                });
                if let Some(mut sum) = sum.filter(|sum| !sum.is_zero()) {
                    sum.negate();
                    give(key.clone(), value.clone(), sum);
                    live = true;
                }
                cursor.step_val(&batches);
            }
            left += usize::from(live);
            self.last = Some(key.clone());
            cursor.step_key(&batches);
        }
        advance(trace, &upper);
    }

    /// The newest tick up to which the arrangement is complete; older ones are forgotten.
    fn decisive_tick(&mut self, upper: &Antichain<u64>) -> Option<Tick> {
        let epoch = match upper.elements().first() {
            Some(upper) => *self.ticks.range(..=*upper).next_back()?.0,
            None => *self.ticks.last_key_value()?.0,
        };
        self.ticks = self.ticks.split_off(&epoch);
        self.ticks.get(&epoch).copied()
    }
}

/// Lets the arrangement forget what this reader does not need: without it, its cost is quadratic.
fn advance<Tr: TraceReader<Time = u64>>(trace: &mut Tr, upper: &Antichain<u64>) {
    trace.set_logical_compaction(upper.borrow());
    trace.set_physical_compaction(upper.borrow());
}
