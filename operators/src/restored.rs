//! From what snapshots kept back to the state of operators.
//!
//! Every worker is given the entries of its keys before its dataflow is built: operators with maps of
//! their own start with them, and the arrangements get theirs as contributions of the epoch that
//! the state is of.

use citycell_schemas::{Epoch, EventTime};
use differential_dataflow::{AsCollection, Hashable};
use serde::de::DeserializeOwned;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::{Scope, StreamVec};

use crate::accumulators::Accumulators;
use crate::combine::{Contributions, Ranked};
use crate::duplicates::Known;
use crate::events::EventId;
use crate::keys::Key;
use crate::lateness::Horizon;
use crate::members::Members;
use crate::saved::{Part, Pending};
use crate::tick::Tick;

/// An entry that is not what an operator of this program wrote.
#[derive(Debug, thiserror::Error)]
#[error("an entry of {part:?} cannot be read")]
pub struct UnreadableEntry {
    /// Whose state it should be.
    pub part: Part,
    /// Why not.
    #[source]
    pub source: postcard::Error,
}

/// Decides which worker an entry goes to and whether it is of any use: what each needs of it.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// When the pipeline's windows close.
    pub horizon: Horizon,
    /// The watermark of the epoch as of which the state is read.
    pub watermark: EventTime,
}

impl Reading {
    /// Whether this content can no longer change anything.
    ///
    /// # Errors
    /// When the entry cannot be read.
    pub fn is_over(&self, part: Part, key: &[u8], value: &[u8]) -> Result<bool, UnreadableEntry> {
        // A window's start is the first thing in the key of everything that has one.
        let window_is_closed = || {
            let window_start: EventTime = read(part, key)?;
            Ok(self.horizon.window_is_closed(window_start, self.watermark))
        };
        match part {
            Part::Events => {
                let known: Known = read(part, value)?;
                Ok(known.until <= self.watermark)
            }
            Part::Entities | Part::Totals | Part::Extremes | Part::Held => window_is_closed(),
            Part::Latest => Ok(false),
        }
    }
}

/// What decides which worker keeps an entry: the hash by which its operator's input is exchanged.
///
/// # Errors
/// When the key cannot be read.
pub fn route(part: Part, key: &[u8]) -> Result<u64, UnreadableEntry> {
    Ok(match part {
        Part::Events => read::<EventId>(part, key)?.route(),
        Part::Entities => read::<(EventTime, Box<[u8]>)>(part, key)?.hashed(),
        Part::Latest => read::<Box<[u8]>>(part, key)?.hashed(),
        // The rank of an extreme follows its key, which decides.
        Part::Totals | Part::Extremes | Part::Held => read::<Key>(part, key)?.hashed(),
    })
}

/// An entity's observations in a window.
pub(crate) type WindowedMembers = ((EventTime, Box<[u8]>), Members);
/// An entity's observations.
pub(crate) type LatestMembers = (Box<[u8]>, Members);

/// A pipeline's state on one worker as of the end of an epoch.
#[derive(Debug)]
pub struct Restored {
    /// That epoch's decisions.
    pub tick: Tick,
    pub(crate) events: Vec<(EventId, Known)>,
    pub(crate) entities: Vec<WindowedMembers>,
    pub(crate) latest: Vec<LatestMembers>,
    pub(crate) totals: Vec<(Key, Accumulators)>,
    pub(crate) extremes: Vec<((Key, Ranked), isize)>,
    pub(crate) held: Vec<(Key, Pending)>,
}

impl Restored {
    /// Nothing yet.
    #[must_use]
    pub fn new(tick: Tick) -> Self {
        Self {
            tick,
            events: Vec::new(),
            entities: Vec::new(),
            latest: Vec::new(),
            totals: Vec::new(),
            extremes: Vec::new(),
            held: Vec::new(),
        }
    }

    /// Nothing, and no epoch that it belongs to.
    pub(crate) fn nothing() -> Self {
        let epoch = Epoch(0);
        let watermark = EventTime::MIN;
        let (bound_time_ms, previous_bound_time_ms) = (i64::MIN, i64::MIN);
        Self::new(Tick { epoch, bound_time_ms, previous_bound_time_ms, watermark, snapshot: false })
    }

    /// What the cells' sums and extremes were, as contributions of its epoch.
    pub fn contributions<'scope>(&mut self, scope: Scope<'scope, u64>) -> Contributions<'scope> {
        let epoch = self.tick.epoch.0;
        let totals = at(scope, epoch, std::mem::take(&mut self.totals));
        let extremes = at(scope, epoch, std::mem::take(&mut self.extremes));
        Contributions { totals: totals.as_collection(), extremes: extremes.as_collection() }
    }

    /// Takes in one entry.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn add(&mut self, part: Part, key: &[u8], value: &[u8]) -> Result<(), UnreadableEntry> {
        match part {
            Part::Events => self.events.push((read(part, key)?, read(part, value)?)),
            Part::Entities => self.entities.push((read(part, key)?, read(part, value)?)),
            Part::Latest => self.latest.push((read(part, key)?, read(part, value)?)),
            Part::Totals => self.totals.push((read(part, key)?, read(part, value)?)),
            Part::Extremes => self.extremes.push((read(part, key)?, read(part, value)?)),
            Part::Held => self.held.push((read(part, key)?, read(part, value)?)),
        }
        Ok(())
    }
}

/// Reads the beginning of `bytes`: what follows may be the rest of a longer key.
fn read<T: DeserializeOwned>(part: Part, bytes: &[u8]) -> Result<T, UnreadableEntry> {
    let read = postcard::take_from_bytes(bytes);
    read.map(|(value, _rest)| value).map_err(|source| UnreadableEntry { part, source })
}

/// Rows with their counts, all of one epoch.
fn at<'scope, D: Clone + 'static, R: Clone + 'static>(
    scope: Scope<'scope, u64>,
    epoch: u64,
    rows: Vec<(D, R)>,
) -> StreamVec<'scope, u64, (D, u64, R)> {
    source::<_, CapacityContainerBuilder<Vec<_>>, _, _>(scope, "restored", |capability, _| {
        let mut waiting = Some((capability, rows));
        move |output| {
            let Some((mut capability, rows)) = waiting.take() else { return };
            capability.downgrade(&epoch);
            let rows = rows.into_iter().map(|(row, count)| (row, epoch, count));
            output.session(&capability).give_iterator(rows);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::horizon;
    use crate::saved::Saved;

    #[test]
    fn entries_come_back_sorted_and_whole() {
        let mut saved = Saved::default();
        let key = |start| Key { window_start: EventTime(start), ..Key::default() };
        saved.push(Part::Held, &key(1), None::<&Pending>);
        let mut more = Saved::default();
        more.push(Part::Totals, &key(5), Some(&Accumulators::none(1)));
        saved.append(&more);
        let entries: Vec<_> = saved.sorted().collect();
        assert_eq!(
            entries.iter().map(|entry| entry.part).collect::<Vec<_>>(),
            [Part::Totals, Part::Held]
        );
        let mut restored = Restored::new(crate::sample::tick(0, 0));
        restored.add(Part::Totals, entries[0].key, entries[0].value.unwrap()).unwrap();
        assert_eq!(restored.totals, [(key(5), Accumulators::none(1))]);
        assert_eq!(entries[1].value, None);
    }

    #[test]
    fn a_closed_window_is_over_whatever_part_it_is_of() {
        let mut saved = Saved::default();
        let key = Key { window_start: EventTime(1_000), ..Key::default() };
        let ranked = Ranked { extreme: 0, rank: 3 };
        saved.push(Part::Totals, &key, Some(&Accumulators::none(1)));
        saved.push(Part::Extremes, &(&key, ranked), Some(&1isize));
        saved.push(Part::Entities, &(key.window_start, b"s1"), Some(&Members::default()));
        for (watermark, over) in [(3_999, false), (4_000, true)] {
            let reading = Reading { horizon: horizon(), watermark: EventTime(watermark) };
            for entry in saved.sorted() {
                let found = reading.is_over(entry.part, entry.key, entry.value.unwrap()).unwrap();
                assert_eq!(found, over, "{:?} at {watermark}", entry.part);
            }
        }
    }

    #[test]
    fn bytes_that_are_no_entry_are_an_error() {
        let mut restored = Restored::new(crate::sample::tick(0, 0));
        assert!(restored.add(Part::Totals, &[], &[1]).is_err());
        assert!(route(Part::Events, &[0x80]).is_err());
    }
}
