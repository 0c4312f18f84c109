//! Each event counts once, and not at all after it was withdrawn.
//!
//! Of the copies of one id the one with the smallest position counts, whenever it arrives: a
//! smaller copy that comes later replaces the content. A withdrawal is final; it waits for its
//! event if it comes first, and may come twice. Within an epoch events go before withdrawals and
//! smaller positions before greater ones, so the order of arrival never matters.
//!
//! **Limits.** A replacement or withdrawal changes nothing once the window of the counted copy is
//! closed ([`Horizon::is_closed`]). An id is remembered until the windows of *all* its copies and
//! the horizons of its withdrawals are over; a record of a forgotten id is a new event. That can
//! only happen if copies disagree about their time: an equal one is late by then.
//!
//! **Books.** The first copy seen is `Counted` and stays so, also when it is replaced or withdrawn;
//! the others are `Duplicate`s; each withdrawal is a `Withdrawal`, whether or not it had an effect.
//!
//! **State.** Per open id: 16 bytes twice, and the counted observation until it is withdrawn.

use std::collections::BTreeMap;

use ahash::AHashMap;
use citycell_schemas::EventTime;
use differential_dataflow::consolidation::consolidate;
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Concat, OkErr};

use crate::by_epoch::{ByEpoch, Inputs, Outputs, Routed, by_epoch};
use crate::events::{EventId, Observation, Outcome, Position, Withdrawal};
use crate::lateness::Horizon;
use crate::saved::{Keeping, Part, Saved, Touched};
use crate::tick::Tick;

/// What may come of an identified source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Arrival {
    /// An event in time.
    Event(Observation),
    /// A record that takes one back.
    Withdrawal(Withdrawal),
}

/// What one epoch changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distinct {
    /// Observations that count from now on (+1) or no more (-1), consolidated and sorted.
    pub updates: Vec<(Observation, isize)>,
    /// How many records met which outcome.
    pub books: BTreeMap<Outcome, u64>,
}

/// What `duplicates` sends on.
pub struct DistinctStreams<'scope> {
    /// The changes of the observations that count.
    pub updates: StreamVec<'scope, u64, (Observation, isize)>,
    /// How many records met which outcome, per worker and epoch.
    pub books: StreamVec<'scope, u64, (Outcome, u64)>,
    /// What snapshots keep.
    pub saved: StreamVec<'scope, u64, Saved>,
}

/// Lets each id through once.
///
/// `observations` are in time and carry ids; one without an id counts as it is.
pub fn duplicates<'scope>(
    observations: StreamVec<'scope, u64, Observation>,
    withdrawals: StreamVec<'scope, u64, Withdrawal>,
    ticks: StreamVec<'scope, u64, Tick>,
    events: DistinctEvents,
) -> DistinctStreams<'scope> {
    let arrivals = observations.map(Arrival::Event).concat(withdrawals.map(Arrival::Withdrawal));
    let Outputs { rows, saved } = by_epoch("duplicates", Inputs { rows: arrivals, ticks }, events);
    let (updates, books) = rows.ok_err(|row| row);
    DistinctStreams { updates, books, saved }
}

impl EventId {
    /// An id is a hash already: its low half spreads well and is the same in every process.
    pub(crate) fn route(self) -> u64 {
        self.0 as u64
    }
}

impl Arrival {
    fn id(&self) -> Option<EventId> {
        match self {
            Self::Event(observation) => observation.id,
            Self::Withdrawal(withdrawal) => Some(withdrawal.id),
        }
    }

    /// Events before withdrawals, smaller positions first.
    fn turn(&self) -> (bool, Position) {
        match self {
            Self::Event(observation) => (false, observation.position),
            Self::Withdrawal(withdrawal) => (true, withdrawal.position),
        }
    }
}

/// The ids that are open, and what stands for each.
pub struct DistinctEvents {
    horizon: Horizon,
    watermark: EventTime,
    known: AHashMap<EventId, Known>,
    /// The ids to look at when the watermark reaches a time, in steps of [`FORGET_STEP_MS`].
    forgetting: BTreeMap<EventTime, Vec<EventId>>,
    touched: Touched<EventId>,
    keeping: Keeping,
}

/// How coarsely ids leave memory; what they decide is exact.
const FORGET_STEP_MS: i64 = 1_000;

/// What is known of an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// The watermark from which the id is as good as forgotten.
    pub(crate) until: EventTime,
    standing: Standing,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Standing {
    /// Withdrawn before its event came.
    Awaited,
    /// This copy counts.
    Counting(Box<Observation>),
    /// Its event came and was withdrawn.
    Withdrawn,
}

impl DistinctEvents {
    /// Knows no id yet.
    #[must_use]
    pub fn new(horizon: Horizon) -> Self {
        Self::restored(horizon, Keeping::default(), Vec::new())
    }

    /// Knows these ids already.
    pub(crate) fn restored(
        horizon: Horizon,
        keeping: Keeping,
        known: Vec<(EventId, Known)>,
    ) -> Self {
        let mut forgetting: BTreeMap<EventTime, Vec<EventId>> = BTreeMap::new();
        for (id, known) in &known {
            forgetting.entry(forget_step(known.until)).or_default().push(*id);
        }
        let events = Self {
            horizon,
            watermark: EventTime::MIN,
            known: known.into_iter().collect(),
            forgetting,
            touched: Touched::new(keeping.recording),
            keeping,
        };
        events.keeping.live.add_bytes(events.bytes());
        events
    }

    /// Applies all arrivals of one epoch, in any order. Epochs come in order.
    pub fn apply(&mut self, tick: &Tick, mut arrivals: Vec<Arrival>) -> Distinct {
        self.watermark = tick.watermark;
        self.forget_closed();
        arrivals.sort_unstable_by_key(Arrival::turn);
        let mut distinct = Distinct::default();
        for arrival in arrivals {
            let outcome = match arrival {
                Arrival::Event(observation) => self.event(observation, &mut distinct.updates),
                Arrival::Withdrawal(withdrawal) => {
                    self.withdraw(&withdrawal, &mut distinct.updates);
                    Outcome::Withdrawal
                }
            };
            *distinct.books.entry(outcome).or_default() += 1;
        }
        consolidate(&mut distinct.updates);
        distinct
    }

    /// What the ids take in memory, roughly.
    fn bytes(&self) -> i64 {
        let each = size_of::<(EventId, Known)>() + size_of::<Observation>();
        i64::try_from(self.known.len() * each).unwrap_or(i64::MAX)
    }

    /// How many ids are in memory.
    #[must_use]
    pub fn live(&self) -> usize {
        self.known.len()
    }

    fn event(
        &mut self,
        observation: Observation,
        updates: &mut Vec<(Observation, isize)>,
    ) -> Outcome {
        let Some(id) = observation.id else {
            updates.push((observation, 1));
            return Outcome::Counted;
        };
        let (horizon, watermark) = (self.horizon, self.watermark);
        let until = horizon.closes_at(observation.time);
        let Some(known) = self.recall(id, until) else {
            updates.push((observation.clone(), 1));
            self.remember(id, until, Standing::Counting(Box::new(observation)));
            return Outcome::Counted;
        };
        match &mut known.standing {
            Standing::Awaited => {
                known.standing = Standing::Withdrawn;
                Outcome::Counted
            }
            Standing::Counting(counted) => {
                let open = !horizon.is_closed(counted.time, watermark);
                if open && observation.position < counted.position {
                    let replaced = std::mem::replace(&mut **counted, observation.clone());
                    updates.extend([(replaced, -1), (observation, 1)]);
                }
                Outcome::Duplicate
            }
            Standing::Withdrawn => Outcome::Duplicate,
        }
    }

    fn withdraw(&mut self, withdrawal: &Withdrawal, updates: &mut Vec<(Observation, isize)>) {
        let (horizon, watermark) = (self.horizon, self.watermark);
        let until = horizon.withdrawal_closes_at(withdrawal.broker_time_ms);
        let Some(known) = self.recall(withdrawal.id, until) else {
            return self.remember(withdrawal.id, until, Standing::Awaited);
        };
        match std::mem::replace(&mut known.standing, Standing::Withdrawn) {
            Standing::Counting(counted) if !horizon.is_closed(counted.time, watermark) => {
                updates.push((*counted, -1));
            }
            unchanged => known.standing = unchanged,
        }
    }

    /// What is known of `id`, from now on remembered at least until this watermark.
    fn recall(&mut self, id: EventId, until: EventTime) -> Option<&mut Known> {
        let watermark = self.watermark;
        self.touched.note(id);
        let known = self.known.get_mut(&id).filter(|known| known.until > watermark)?;
        if until > known.until {
            if forget_step(until) > forget_step(known.until) {
                self.forgetting.entry(forget_step(until)).or_default().push(id);
            }
            known.until = until;
        }
        Some(known)
    }

    fn remember(&mut self, id: EventId, until: EventTime, standing: Standing) {
        if until > self.watermark {
            self.known.insert(id, Known { until, standing });
            self.forgetting.entry(forget_step(until)).or_default().push(id);
        }
    }

    fn forget_closed(&mut self) {
        while let Some(due) = self.forgetting.first_entry() {
            if *due.key() > self.watermark {
                break;
            }
            for id in due.remove() {
                // A later copy or withdrawal may have moved the id to a later step.
                if self.known.get(&id).is_some_and(|known| known.until <= self.watermark) {
                    self.known.remove(&id);
                    self.touched.forget(&id);
                }
            }
        }
    }
}

impl Routed for DistinctEvents {
    fn route(arrival: &Arrival) -> u64 {
        arrival.id().map_or(0, EventId::route)
    }
}

impl ByEpoch for DistinctEvents {
    type Row = Arrival;
    type Output = Result<(Observation, isize), (Outcome, u64)>;

    fn step(&mut self, tick: &Tick, arrivals: Vec<Arrival>) -> Vec<Self::Output> {
        let before = self.bytes();
        let distinct = self.apply(tick, arrivals);
        self.keeping.live.add_bytes(self.bytes() - before);
        let updates = distinct.updates.into_iter().map(Ok);
        updates.chain(distinct.books.into_iter().map(Err)).collect()
    }

    fn save(&mut self) -> Saved {
        let mut saved = Saved::default();
        for id in self.touched.take() {
            saved.push(Part::Events, &id, self.known.get(&id));
        }
        saved
    }
}

/// The first step boundary not before this watermark.
fn forget_step(until: EventTime) -> EventTime {
    let steps = until.plus_ms(FORGET_STEP_MS - 1).0.div_euclid(FORGET_STEP_MS);
    EventTime(steps.saturating_mul(FORGET_STEP_MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{horizon, observation, tick, withdrawal};

    fn updates(of: &Distinct) -> Vec<(i64, isize)> {
        of.updates.iter().map(|(seen, diff)| (seen.position.offset.0, *diff)).collect()
    }

    fn event(id: u128, offset: i64, time: i64) -> Arrival {
        Arrival::Event(observation(id, offset, time))
    }

    fn withdraw(id: u128, broker_time_ms: i64) -> Arrival {
        Arrival::Withdrawal(withdrawal(id, broker_time_ms))
    }

    #[test]
    fn the_smallest_position_counts_whenever_it_arrives() {
        let mut events = DistinctEvents::new(horizon());
        let first = events.apply(&tick(0, 0), vec![event(1, 9, 500), event(1, 5, 500)]);
        assert_eq!(updates(&first), [(5, 1)]);
        assert_eq!(first.books, [(Outcome::Counted, 1), (Outcome::Duplicate, 1)].into());
        let second = events.apply(&tick(0, 0), vec![event(1, 2, 600), event(1, 7, 500)]);
        assert_eq!(updates(&second), [(5, -1), (2, 1)]);
        assert_eq!(second.books, [(Outcome::Duplicate, 2)].into());
    }

    #[test]
    fn a_withdrawal_takes_its_event_back_in_either_order_and_for_good() {
        let mut events = DistinctEvents::new(horizon());
        events.apply(&tick(0, 0), vec![event(1, 1, 500), withdraw(2, 500)]);
        let second = events.apply(&tick(0, 0), vec![withdraw(1, 600), event(2, 2, 500)]);
        assert_eq!(updates(&second), [(1, -1)]);
        assert_eq!(second.books, [(Outcome::Counted, 1), (Outcome::Withdrawal, 1)].into());
        let again = vec![event(1, 0, 500), event(2, 0, 500), withdraw(1, 600), withdraw(2, 600)];
        let third = events.apply(&tick(0, 0), again);
        assert_eq!(updates(&third), []);
        assert_eq!(third.books, [(Outcome::Duplicate, 2), (Outcome::Withdrawal, 2)].into());
    }

    #[test]
    fn an_event_withdrawn_within_its_epoch_is_in_the_books_and_not_in_the_numbers() {
        let mut events = DistinctEvents::new(horizon());
        let epoch = events.apply(&tick(0, 0), vec![withdraw(1, 500), event(1, 1, 500)]);
        assert_eq!(updates(&epoch), []);
        assert_eq!(epoch.books, [(Outcome::Counted, 1), (Outcome::Withdrawal, 1)].into());
    }

    #[test]
    fn a_closed_window_changes_no_more() {
        // The copy of 500 closes at 1,000 + 2,000; the other keeps the id open until 5,000.
        let mut events = DistinctEvents::new(horizon());
        events.apply(&tick(0, 0), vec![event(1, 3, 500), event(1, 4, 2_500)]);
        let late = vec![event(1, 1, 2_600), withdraw(1, 2_600)];
        let epoch = events.apply(&tick(3_000, 0), late);
        assert_eq!(updates(&epoch), []);
        assert_eq!(epoch.books, [(Outcome::Duplicate, 1), (Outcome::Withdrawal, 1)].into());
    }

    #[test]
    fn ids_leave_memory_with_their_windows_and_withdrawals_with_their_horizons() {
        let mut events = DistinctEvents::new(horizon());
        let arrivals = (0..100).map(|id| event(id, id as i64, 9 * id as i64)).collect();
        events.apply(&tick(0, 0), arrivals);
        events.apply(&tick(0, 0), vec![event(7, 200, 1_500), withdraw(1_000, 4_000)]);
        let live_at = [2_999, 3_000, 4_000, 8_000].map(|watermark| {
            events.apply(&tick(watermark, 0), Vec::new());
            events.live()
        });
        assert_eq!(live_at, [101, 2, 1, 0]);
        assert!(events.forgetting.is_empty());
    }

    #[test]
    fn a_withdrawal_whose_horizon_is_over_is_not_kept() {
        let mut events = DistinctEvents::new(horizon());
        events.apply(&tick(50_000, 0), vec![withdraw(1, 1_000)]);
        assert_eq!(events.live(), 0);
    }
}
