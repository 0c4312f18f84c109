//! The sums of one key, as many as its plan has arguments.
//!
//! One sum lies in place: most plans have one argument, and the arrangements copy differences in every
//! merge and every look at a key. More lie in a box; docs/experiments/accumulators.md has what the
//! alternatives cost.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

/// The sum of one argument over the contributions in which it is not null.
///
/// The total is kept as two halves, since an `i128` would align everything around it to 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Sum {
    high: i64,
    low: u64,
    values: i64,
}

impl Sum {
    /// The sum itself.
    pub(crate) fn total(&self) -> i128 {
        i128::from(self.high) << 64 | i128::from(self.low)
    }

    /// Of how many values.
    pub(crate) fn values(&self) -> i64 {
        self.values
    }

    /// Adds `total` of `values` values, `sign` times; wraps, as the group does.
    pub(crate) fn add(&mut self, total: i128, values: i64, sign: i64) {
        let sum = self.total().wrapping_add(total.wrapping_mul(i128::from(sign)));
        self.high = (sum >> 64) as i64;
        self.low = sum as u64;
        self.values = self.values.wrapping_add(values.wrapping_mul(sign));
    }
}

impl Hash for Sum {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.total(), self.values).hash(state);
    }
}

/// One sum per argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Sums {
    /// Of a plan with one argument.
    One(Sum),
    /// Of any other plan; empty where events are only counted, which allocates nothing.
    Many(Box<[Sum]>),
}

impl Sums {
    /// As many sums of nothing.
    pub(crate) fn none(arguments: usize) -> Self {
        match arguments {
            1 => Self::One(Sum::default()),
            _ => Self::Many(vec![Sum::default(); arguments].into_boxed_slice()),
        }
    }

    /// What they take in memory beside themselves.
    pub(crate) fn boxed_bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Many(sums) => size_of_val(&**sums),
        }
    }

    /// All of them, in the order of the arguments.
    pub(crate) fn as_slice(&self) -> &[Sum] {
        match self {
            Self::One(sum) => std::slice::from_ref(sum),
            Self::Many(sums) => sums,
        }
    }

    /// The same, to be changed.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [Sum] {
        match self {
            Self::One(sum) => std::slice::from_mut(sum),
            Self::Many(sums) => sums,
        }
    }
}

impl PartialEq for Sums {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Sums {}

impl PartialOrd for Sums {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sums {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Hash for Sums {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum_of(total: i128, values: i64) -> Sum {
        let mut sum = Sum::default();
        sum.add(total, values, 1);
        sum
    }

    proptest! {
        #[test]
        fn halves_add_and_compare_as_the_whole(
            one in any::<i128>(), other in any::<i128>(), sign in -3_i64..3,
        ) {
            let mut sum = sum_of(one, 1);
            prop_assert_eq!(sum.total(), one);
            prop_assert_eq!(sum.cmp(&sum_of(other, 1)), one.cmp(&other));
            sum.add(other, 2, sign);
            prop_assert_eq!(sum.total(), one.wrapping_add(other.wrapping_mul(i128::from(sign))));
            prop_assert_eq!(sum.values(), 1 + 2 * sign);
        }
    }
}
