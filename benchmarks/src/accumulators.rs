//! Differences of run-time width: inline words against a box, in differential's `count_total`.
//!
//! What came of it is in docs/experiments/accumulators.md.

use std::cell::Cell;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use differential_dataflow::difference::{IsZero, Semigroup};
use differential_dataflow::operators::CountTotal;
use differential_dataflow::{AsCollection, ExchangeData};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use timely::dataflow::operators::vec::Input as _;
use timely::dataflow::operators::{Inspect, Probe};

use crate::clock::Stopwatch;

/// Window, place and an empty group.
type Key = (i64, u32, Box<[u8]>);

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Different keys.
    pub keys: u32,
    /// Updates of an epoch.
    pub updates_per_epoch: usize,
    /// Epochs that are timed.
    pub epochs: u64,
}

/// The sizes of the experiment: keys that repeat within an epoch, and keys that hardly do.
pub const FULL: [Size; 2] = [
    Size { keys: 20_000, updates_per_epoch: 100_000, epochs: 20 },
    Size { keys: 1_000_000, updates_per_epoch: 10_000, epochs: 60 },
];

/// What a test can afford.
pub const TINY: [Size; 1] = [Size { keys: 20, updates_per_epoch: 100, epochs: 3 }];

/// What one representation costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// The representation.
    pub name: &'static str,
    /// How many words it has: the first counts, the others add up.
    pub words: usize,
    /// What was asked of it.
    pub size: Size,
    /// Seconds of computing per million updates.
    pub s_per_m: f64,
    /// Over all counts, whose words are the same whatever holds them.
    pub hash: u64,
}

trait Words: Semigroup + ExchangeData {
    /// An event: 1, and `words - 1` times `value`.
    fn event(words: usize, value: i8) -> Self;
    fn hash_words(&self, hasher: &mut DefaultHasher);
}

macro_rules! words {
    ($name:ident, $container:ty) => {
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        struct $name($container);

        impl IsZero for $name {
            fn is_zero(&self) -> bool {
                self.0.iter().all(|word| *word == 0)
            }
        }

        impl Semigroup for $name {
            fn plus_equals(&mut self, other: &Self) {
                for (word, more) in self.0.iter_mut().zip(other.0.iter()) {
                    *word += *more;
                }
            }
        }

        impl Words for $name {
            fn event(words: usize, value: i8) -> Self {
                let word = |index| if index == 0 { 1 } else { value.into() };
                let words: Vec<_> = (0..words).map(word).collect();
                Self(words.try_into().expect("as many words as the type holds"))
            }

            fn hash_words(&self, hasher: &mut DefaultHasher) {
                self.0.iter().for_each(|word| i128::from(*word).hash(hasher));
            }
        }
    };
}

words!(InlineNarrow2, [i64; 2]);
words!(InlineNarrow4, [i64; 4]);
words!(InlineNarrow8, [i64; 8]);
words!(Inline2, [i128; 2]);
words!(Inline4, [i128; 4]);
words!(Inline8, [i128; 8]);
words!(Small2, SmallVec<[i128; 2]>);
words!(Small4, SmallVec<[i128; 4]>);
words!(Boxed, Box<[i128]>);

/// Times every representation.
#[must_use]
pub fn measure(sizes: &[Size]) -> Vec<Cost> {
    let all = |size: &Size| {
        [
            run::<InlineNarrow2>("[i64; 2]", 2, *size),
            run::<Inline2>("[i128; 2]", 2, *size),
            run::<Boxed>("Box<[i128]>", 2, *size),
            run::<Small2>("SmallVec<[i128; 2]>", 2, *size),
            run::<Small4>("SmallVec<[i128; 4]>", 2, *size),
            run::<InlineNarrow4>("[i64; 4]", 4, *size),
            run::<Inline4>("[i128; 4]", 4, *size),
            run::<Boxed>("Box<[i128]>", 4, *size),
            run::<Small4>("SmallVec<[i128; 4]>", 4, *size),
            run::<InlineNarrow8>("[i64; 8]", 8, *size),
            run::<Inline8>("[i128; 8]", 8, *size),
            run::<Boxed>("Box<[i128]>", 8, *size),
            run::<Small4>("SmallVec<[i128; 4]>, spilled", 8, *size),
        ]
    };
    sizes.iter().flat_map(all).collect()
}

fn run<W: Words>(name: &'static str, words: usize, size: Size) -> Cost {
    timely::execute_directly(move |worker| {
        let hash = Rc::new(Cell::new(0u64));
        let seen = Rc::clone(&hash);
        let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, updates) = scope.new_input::<(Key, u64, W)>();
            let counts = updates.as_collection().count_total();
            let counts = counts.inner.inspect(move |((key, count), epoch, diff)| {
                let mut hasher = DefaultHasher::new();
                (key, epoch, diff).hash(&mut hasher);
                count.hash_words(&mut hasher);
                seen.set(seen.get().wrapping_add(hasher.finish()));
            });
            (input, counts.probe().0)
        });
        let mut random = StdRng::seed_from_u64(19);
        let mut seconds = 0.0;
        // The first epoch loads every key, three more settle, the others are timed.
        for epoch in 0..4 + size.epochs {
            let keys: Vec<u32> = match epoch {
                0 => (0..size.keys).collect(),
                _ => {
                    (0..size.updates_per_epoch).map(|_| random.random_range(0..size.keys)).collect()
                }
            };
            let update = |key| ((0, key, Box::default()), epoch, W::event(words, 7));
            let updates: Vec<(Key, u64, W)> = keys.into_iter().map(update).collect();
            let watch = Stopwatch::start();
            updates.into_iter().for_each(|update| input.send(update));
            input.advance_to(epoch + 1);
            worker.step_while(|| probe.less_than(&(epoch + 1)));
            if epoch > 3 {
                seconds += watch.seconds();
            }
        }
        let millions = (size.updates_per_epoch as u64 * size.epochs) as f64 / 1e6;
        Cost { name, words, size, s_per_m: seconds / millions, hash: hash.get() }
    })
}

#[cfg(test)]
mod tests {
    use super::{TINY, measure};

    #[test]
    fn every_representation_of_a_width_counts_the_same_every_time() {
        let hashes = |words| {
            let costs = measure(&TINY).into_iter().filter(move |cost| cost.words == words);
            costs.map(|cost| cost.hash).collect::<Vec<_>>()
        };
        for words in [2, 4, 8] {
            let (one, other) = (hashes(words), hashes(words));
            assert!(one.iter().all(|hash| *hash == one[0]), "{words}: {one:?}");
            assert_eq!(one, other);
        }
    }
}
