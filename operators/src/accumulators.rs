//! What one key adds up: a small commutative group, differential's difference.
//!
//! A key lives while its number of contributions is not 0, so a sum of 0 is not "no data". Sums
//! are fixed point, in units of 10^-scale of their argument. Addition wraps, because wrapping is a
//! group and saturating is not: no order of additions and subtractions changes the result. It is
//! exact as long as the true sum fits in an `i128`, which [`VALUE_MAX`] guarantees for the first
//! 10^14 contributions of a key; whoever evaluates arguments rejects larger ones.

use citycell_schemas::EventTime;
use differential_dataflow::difference::{Abelian, IsZero, Monoid, Semigroup};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::plan::{Plan, Slot};
use crate::sums::{Sum, Sums};

/// The largest absolute value of an argument, in units of 10^-scale: 10^18 at the default scale.
pub const VALUE_MAX: i128 = 1_000_000_000_000_000_000_000_000;

/// The number of contributions and one sum per argument.
///
/// How the sums lie in memory is the matter of `Sums`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Accumulators {
    contributions: i64,
    sums: Sums,
}

impl Accumulators {
    /// The group's zero for this number of arguments.
    #[must_use]
    pub fn none(arguments: usize) -> Self {
        Self { contributions: 0, sums: Sums::none(arguments) }
    }

    /// Adds one event (or entity) `sign` times: -1 takes it back.
    pub fn contribute(&mut self, values: &[Option<i128>], sign: i64) {
        self.contributions = self.contributions.wrapping_add(sign);
        for (sum, value) in self.sums.as_mut_slice().iter_mut().zip(values) {
            if let Some(value) = value {
                sum.add(*value, 1, sign);
            }
        }
    }

    /// How many events (or entities) are in it.
    #[must_use]
    pub fn contributions(&self) -> i64 {
        self.contributions
    }

    /// What they take in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.sums.boxed_bytes()
    }

    fn sum(&self, argument: usize) -> &Sum {
        &self.sums.as_slice()[argument]
    }

    /// Adds `other` (`sign` 1) or takes it away (-1).
    pub(crate) fn add_times(&mut self, other: &Self, sign: i64) {
        // The zero of `Monoid` knows no width; it grows to the first that is added.
        let more = other.sums.as_slice();
        if self.sums.as_slice().len() < more.len() {
            let mut wider = Sums::none(more.len());
            for (sum, before) in wider.as_mut_slice().iter_mut().zip(self.sums.as_slice()) {
                *sum = *before;
            }
            self.sums = wider;
        }
        self.contributions =
            self.contributions.wrapping_add(other.contributions.wrapping_mul(sign));
        for (sum, more) in self.sums.as_mut_slice().iter_mut().zip(more) {
            sum.add(more.total(), more.values(), sign);
        }
    }
}

impl IsZero for Accumulators {
    fn is_zero(&self) -> bool {
        self.contributions == 0 && self.sums.as_slice().iter().all(|sum| *sum == Sum::default())
    }
}

impl Semigroup for Accumulators {
    fn plus_equals(&mut self, other: &Self) {
        self.add_times(other, 1);
    }
}

impl Monoid for Accumulators {
    fn zero() -> Self {
        Self::none(0)
    }
}

impl Abelian for Accumulators {
    fn negate(&mut self) {
        let mut negated = Self::none(self.sums.as_slice().len());
        negated.add_times(self, -1);
        *self = negated;
    }
}

/// The newest known content of a key: its sums, and its extremes in the order of the plan's `Min`
/// and `Max` slots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct State {
    /// The group part.
    pub totals: Accumulators,
    /// One per `Min` or `Max` slot; `None` where every value was null.
    pub extremes: SmallVec<[Option<i128>; 1]>,
}

/// What became of one key in one epoch; `old` and `new` differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Change {
    /// Which key.
    pub key: crate::keys::Key,
    /// Its content before this epoch; `None` if it had none.
    pub old: Option<State>,
    /// Its content from this epoch on; `None` if nothing is left of it.
    pub new: Option<State>,
}

impl Change {
    /// The window it belongs to.
    #[must_use]
    pub fn window_start(&self) -> EventTime {
        self.key.window_start
    }
}

/// The value of every slot of `plan`, in order; `None` is SQL's null (no value that is not null).
#[must_use]
pub fn finish(plan: &Plan, state: &State) -> Vec<Option<f64>> {
    let mut extremes = state.extremes.iter();
    plan.slots
        .iter()
        .map(|slot| match *slot {
            Slot::Count => Some(state.totals.contributions as f64),
            Slot::CountOf(argument) => Some(state.totals.sum(argument).values() as f64),
            Slot::Sum(argument) => quotient(plan, &state.totals, argument, |_| 1),
            Slot::Mean(argument) => quotient(plan, &state.totals, argument, Sum::values),
            Slot::Min(argument) | Slot::Max(argument) => {
                let extreme = extremes.next().copied().flatten();
                extreme.map(|value| value as f64 / unit(plan, argument) as f64)
            }
        })
        .collect()
}

/// The one division of an exact sum: by its unit, times `divisor`.
fn quotient(
    plan: &Plan,
    totals: &Accumulators,
    argument: usize,
    divisor: impl Fn(&Sum) -> i64,
) -> Option<f64> {
    let sum = totals.sum(argument);
    let by = unit(plan, argument).wrapping_mul(i128::from(divisor(sum)));
    (sum.values() != 0).then(|| sum.total() as f64 / by as f64)
}

fn unit(plan: &Plan, argument: usize) -> i128 {
    10i128.pow(u32::from(plan.arguments[argument].scale))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contribution(values: &[Option<i128>], sign: i64) -> Accumulators {
        let mut accumulators = Accumulators::none(values.len());
        accumulators.contribute(values, sign);
        accumulators
    }

    #[test]
    fn a_sum_of_zero_is_not_no_data() {
        assert!(!contribution(&[Some(0), None], 1).is_zero());
        assert!(Accumulators::none(3).is_zero());
    }

    #[test]
    fn sums_beyond_the_range_come_back_when_taken_away() {
        let large = contribution(&[Some(i128::MAX)], 1);
        let mut sum = large.clone();
        sum.plus_equals(&large);
        sum.add_times(&large, -1);
        assert_eq!(sum, large);
    }

    #[test]
    fn slots_are_finished_in_order_each_by_its_arguments_unit() {
        let plan = crate::sample::plan(vec![
            Slot::Count,
            Slot::CountOf(0),
            Slot::Max(1),
            Slot::Sum(0),
            Slot::Mean(1),
            Slot::Min(0),
        ]);
        let mut totals = contribution(&[Some(7), Some(250)], 1);
        totals.plus_equals(&contribution(&[None, Some(-100)], 1));
        totals.plus_equals(&contribution(&[Some(1), None], 1));
        let state = State { totals, extremes: [Some(250), Some(1)].into_iter().collect() };
        // Argument 0 has no decimals, argument 1 two; nulls are in no sum, mean or count of values.
        let expected = [3.0, 2.0, 2.5, 8.0, 0.75, 1.0].map(Some);
        assert_eq!(finish(&plan, &state), expected);
    }

    #[test]
    fn without_values_only_counts_have_one() {
        let slots = vec![Slot::Count, Slot::CountOf(1), Slot::Sum(1), Slot::Mean(1), Slot::Min(1)];
        let plan = crate::sample::plan(slots);
        let totals = contribution(&[Some(0), None], 1);
        let state = State { totals, extremes: [None].into_iter().collect() };
        assert_eq!(finish(&plan, &state), [Some(1.0), Some(0.0), None, None, None]);
    }

    proptest! {
        #[test]
        fn any_order_of_adding_and_taking_back_ends_in_zero(
            values in proptest::collection::vec(proptest::option::of(-VALUE_MAX..VALUE_MAX), 0..5),
            times in 1i64..9,
        ) {
            let mut sum = Accumulators::zero();
            for _ in 0..times {
                sum.plus_equals(&contribution(&values, 1));
            }
            prop_assert!(!sum.is_zero());
            let mut back = sum.clone();
            back.negate();
            sum.plus_equals(&back);
            prop_assert!(sum.is_zero());
        }
    }
}
