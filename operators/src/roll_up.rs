//! From the cells' changes to the contributions of the levels above them.
//!
//! A level's sums move by the difference of the cell's; its extremes are the extremes of its cells'
//! extremes. All levels of a pipeline share one key type and so one [`aggregate`](crate::aggregate).

use citycell_schemas::{Grid, Level, Place};
use differential_dataflow::AsCollection;
use smallvec::SmallVec;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::accumulators::{Change, State};
use crate::combine::{Combiner, Contributions, combine_with};
use crate::keys::Key;
use crate::plan::Plan;

/// For every place, the places above it on the levels that a pipeline publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels(Vec<SmallVec<[Place; 4]>>);

impl Levels {
    /// The table for these levels; `Cell` among them adds nothing, the cells are there already.
    #[must_use]
    pub fn of(grid: &Grid, levels: &[Level]) -> Self {
        let count = u32::try_from(grid.places().len()).expect("a place is numbered by a u32");
        let above = |place: u32| {
            let wanted = levels.iter().filter(|level| **level != Level::Cell);
            wanted.filter_map(|level| grid.at_level(Place(place), *level)).collect()
        };
        Self((0..count).map(above).collect())
    }

    fn above(&self, place: Place) -> &[Place] {
        self.0.get(place.0 as usize).map_or(&[], |places| places)
    }
}

/// Turns changes of cells into contributions of the places above them.
pub fn roll_up<'scope>(
    changes: StreamVec<'scope, u64, Change>,
    levels: Levels,
    plan: &Plan,
) -> Contributions<'scope> {
    let changes = changes
        .unary(Pipeline, "roll_up: stamp", |_, _| {
            |input, output| {
                input.for_each(|capability, changes| {
                    if let Some(epoch) = capability.least().copied() {
                        let stamped = changes.drain(..).map(|change| (change, epoch, 1));
                        output.session(&capability).give_iterator(stamped);
                    }
                });
            }
        })
        .as_collection();
    let add = move |combiner: &mut Combiner, change: Change, count: isize| {
        for place in levels.above(change.key.place) {
            let key = Key { place: *place, ..change.key.clone() };
            contribute(combiner, &key, change.old.as_ref(), -count);
            contribute(combiner, &key, change.new.as_ref(), count);
        }
        std::iter::empty::<()>()
    };
    combine_with("roll_up", changes, plan, add).0
}

fn contribute(combiner: &mut Combiner, key: &Key, state: Option<&State>, count: isize) {
    let Some(state) = state else { return };
    combiner.add_totals(key, &state.totals, count as i64);
    for (extreme, value) in (0u16..).zip(&state.extremes) {
        if let Some(value) = value {
            combiner.add_extreme(key, extreme, *value, count);
        }
    }
}
