//! The rules of time as a single-threaded model, naive on purpose: what the engine and the
//! operators are held to.
//!
//! Input: a [`Log`] of records per partition, and the bindings that cut it into epochs.
//! Output: per epoch the rows that changed and the books. [`machine`] goes from one to the other,
//! [`oracle`] says what the numbers must be without going through epochs, [`city`] runs an engine
//! made of durable steps that may be killed between any two while [`sensors`] write, and [`reader`] sees what was marked.

pub(crate) mod binder;
pub(crate) mod city;
pub(crate) mod machine;
pub(crate) mod oracle;
pub(crate) mod reader;
pub(crate) mod reduce;
pub(crate) mod sensors;

use std::collections::BTreeMap;

use citycell_operators::events::Outcome;
use citycell_operators::plan::Take;

/// How many partitions a city has here.
pub(crate) const PARTITIONS: usize = 3;

/// The records of each partition; a record's offset is its index.
pub(crate) type Log = [Vec<Stored>; PARTITIONS];

/// A record's (partition, offset).
pub(crate) type At = (usize, usize);

/// A record as the broker stored it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) broker_time: i64,
    pub(crate) record: Record,
}

/// What a record may be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    Event(Event),
    Withdrawal(u128),
    Bad,
}

/// An event; the pipeline's `where` is whether it is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: u128,
    pub(crate) time: i64,
    pub(crate) entity: u8,
    pub(crate) place: u32,
    pub(crate) value: Option<i128>,
    pub(crate) wanted: bool,
}

/// What a pipeline states about time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) grouping: Grouping,
    pub(crate) allow: i64,
    pub(crate) future: i64,
    pub(crate) idle_after: i64,
}

/// What counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Grouping {
    /// Each event in its window.
    Events { window: i64 },
    /// Each entity once in its window.
    PerEntity { window: i64, take: Take },
    /// Each entity with its latest event.
    Latest { expire: i64, forget: i64 },
}

/// One epoch, fixed before any row of it is sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Binding {
    pub(crate) epoch: u64,
    pub(crate) from: [usize; PARTITIONS],
    pub(crate) next_offset: [usize; PARTITIONS],
    pub(crate) idle: [bool; PARTITIONS],
    pub(crate) watermark: i64,
    pub(crate) bound_time: i64,
    pub(crate) previous_bound_time: i64,
}

/// Window start and place.
pub(crate) type Key = (i64, u32);

/// What is published of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Row {
    pub(crate) count: i64,
    pub(crate) not_null: i64,
    pub(crate) sum: i128,
}

/// All live keys.
pub(crate) type Numbers = BTreeMap<Key, Row>;

/// How many records met which outcome.
pub(crate) type Books = BTreeMap<Outcome, u64>;

/// What one epoch changed: a key without a row is deleted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Closed {
    pub(crate) changes: BTreeMap<Key, Option<Row>>,
    pub(crate) books: Books,
}

impl Rules {
    /// The length of a window; 0 without.
    pub(crate) fn window(&self) -> i64 {
        match self.grouping {
            Grouping::Events { window } | Grouping::PerEntity { window, .. } => window,
            Grouping::Latest { .. } => 0,
        }
    }

    pub(crate) fn window_start(&self, time: i64) -> i64 {
        match self.window() {
            0 => 0,
            window => time.div_euclid(window) * window,
        }
    }

    /// The watermark at which events of this time are late.
    pub(crate) fn closes_at(&self, time: i64) -> i64 {
        match self.window() {
            0 => time + self.allow,
            window => self.window_start(time) + window + self.allow,
        }
    }

    /// The watermark at which a withdrawal no longer waits.
    pub(crate) fn withdrawal_closes_at(&self, broker_time: i64) -> i64 {
        broker_time + self.future + self.window() + self.allow
    }

    pub(crate) fn is_future(&self, event: &Event, stored: &Stored) -> bool {
        event.time > stored.broker_time + self.future
    }
}

impl Binding {
    /// Its records in the order of their positions.
    pub(crate) fn records<'a>(
        &self,
        log: &'a Log,
    ) -> impl Iterator<Item = (At, &'a Stored)> + use<'a> {
        let ranges = std::array::from_fn::<_, PARTITIONS, _>(|p| self.from[p]..self.next_offset[p]);
        let offsets =
            ranges.into_iter().enumerate().flat_map(|(p, range)| range.map(move |o| (p, o)));
        offsets.map(|(partition, offset)| ((partition, offset), &log[partition][offset]))
    }
}

/// What must be written so that `old` becomes `new`.
pub(crate) fn changes(old: &Numbers, new: &Numbers) -> BTreeMap<Key, Option<Row>> {
    let keys = old.keys().chain(new.keys());
    keys.filter(|key| old.get(key) != new.get(key))
        .map(|key| (*key, new.get(key).copied()))
        .collect()
}
