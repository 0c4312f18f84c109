//! The totals and extremes of every key, and what changes in them, epoch by epoch.
//!
//! ```text
//! contributions ----+-> totals   (arranged by key; the difference is the sum)  --+
//!   + retire (negated)                                                           +-> changes
//! contributions ----+-> extremes (arranged by key and rank; counted)           --+
//!   + retire (negated)                                             ticks --------+
//! ```
//!
//! This is the way of a plan with extremes. Without them `totals` keeps the same sums in a
//! map; each is the other's test.
//!
//! Each touched key comes out once per epoch, at that epoch, with what it was and what it is, and
//! not at all when both are the same. Several epochs may be in flight. A window that is closed
//! under an epoch's watermark changes no more: its keys leave the arrangements in slices, and that
//! is not published. For memory to return, the worker must be configured to merge while idle
//! (`differential_dataflow::Config::idle_merge_effort`).
//!
//! A key costs about 150 bytes; with `Min` or `Max`, every different value of a key is kept too, and
//! reading an extreme costs one seek.

use std::cell::RefCell;
use std::rc::Rc;

use differential_dataflow::operators::arrange::TraceAgent;
use differential_dataflow::trace::implementations::{KeySpine, ValSpine};
use timely::dataflow::StreamVec;

use crate::accumulators::{Accumulators, Change};
use crate::changed::changed;
use crate::combine::{Contributions, Extremes, Ranked};
use crate::keys::Key;
use crate::lateness::Horizon;
use crate::retire::{Handle, Retirement, retire};
use crate::saved::{Keeping, Saved};
use crate::tick::Tick;
use crate::totals::totals;

pub(crate) type TotalsTrace = TraceAgent<KeySpine<Key, u64, Accumulators>>;
pub(crate) type ExtremesTrace = TraceAgent<ValSpine<Key, Ranked, u64, isize>>;

/// How to aggregate.
#[derive(Clone)]
pub struct Aggregation {
    /// What the operators are called in the dataflow graph: `cells` or `levels`, for example.
    pub name: String,
    /// When windows close.
    pub horizon: Horizon,
    /// The extremes of the plan.
    pub extremes: Extremes,
    /// How many keys of closed windows leave per epoch and worker at most.
    pub retire_keys_max: usize,
    /// Whether snapshots are taken, and where live keys are counted.
    pub keeping: Keeping,
}

/// What comes out of an aggregation.
pub struct Aggregated<'scope> {
    /// The changes of every key; each worker emits those of the keys it owns.
    pub changes: StreamVec<'scope, u64, Change>,
    /// What snapshots keep.
    pub saved: StreamVec<'scope, u64, Saved>,
}

/// Adds contributions up by key: in a map where the plan has no extremes, else as
/// [`arranged`].
pub fn aggregate<'scope>(
    contributions: Contributions<'scope>,
    ticks: StreamVec<'scope, u64, Tick>,
    aggregation: Aggregation,
) -> Aggregated<'scope> {
    if aggregation.extremes.is_empty() {
        totals(contributions.totals.inner, ticks, aggregation)
    } else {
        arranged(contributions, ticks, aggregation)
    }
}

/// Adds contributions up by key in differential's arrangements, extremes or not.
pub fn arranged<'scope>(
    contributions: Contributions<'scope>,
    ticks: StreamVec<'scope, u64, Tick>,
    aggregation: Aggregation,
) -> Aggregated<'scope> {
    let (totals_handle, extremes_handle) = (Handle::default(), Handle::default());
    let retirement = |part: &str| Retirement {
        name: format!("{}: retire {part}", aggregation.name),
        horizon: aggregation.horizon,
        keys_max: aggregation.retire_keys_max,
    };
    let leaving = retire(ticks.clone(), Rc::clone(&totals_handle), retirement("totals"));
    let totals = contributions
        .totals
        .concat(leaving.map(|(key, ())| key))
        .arrange_by_self_named(&format!("{}: totals", aggregation.name));
    hand_over(&totals_handle, totals.trace.clone());

    let leaving = retire(ticks.clone(), Rc::clone(&extremes_handle), retirement("extremes"));
    let extremes = contributions
        .extremes
        .concat(leaving)
        .arrange_by_key_named(&format!("{}: extremes", aggregation.name));
    hand_over(&extremes_handle, extremes.trace.clone());

    changed(totals, extremes, ticks, aggregation)
}

fn hand_over<Tr>(handle: &Rc<RefCell<Option<Tr>>>, trace: Tr) {
    *handle.borrow_mut() = Some(trace);
}
