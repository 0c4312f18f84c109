//! An engine's memory between epochs: takes bindings in order, remembers everything for ever.

use std::collections::BTreeMap;

use citycell_operators::events::Outcome;

use super::{At, Binding, Closed, Event, Log, Numbers, Record, Rules, Stored, changes, reduce};

pub(crate) struct Machine {
    rules: Rules,
    ids: BTreeMap<u128, Known>,
    surviving: BTreeMap<At, Event>,
    published: Numbers,
}

/// What is known of an id, until the watermark reaches `until`.
struct Known {
    until: i64,
    standing: Standing,
}

enum Standing {
    Awaited,
    Counting(At),
    Withdrawn,
}

impl Machine {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { rules, ids: BTreeMap::new(), surviving: BTreeMap::new(), published: Numbers::new() }
    }

    pub(crate) fn process(&mut self, log: &Log, binding: &Binding) -> Closed {
        let mut closed = Closed::default();
        let (withdrawals, others): (Vec<_>, Vec<_>) = binding
            .records(log)
            .partition(|(_, stored)| matches!(stored.record, Record::Withdrawal(_)));
        for (at, stored) in others.into_iter().chain(withdrawals) {
            let outcome = self.take(at, stored, binding.watermark);
            *closed.books.entry(outcome).or_default() += 1;
        }
        let numbers = reduce::numbers(&self.rules, &self.surviving, binding.bound_time);
        closed.changes = changes(&self.published, &numbers);
        self.published = numbers;
        closed
    }

    fn take(&mut self, at: At, stored: &Stored, watermark: i64) -> Outcome {
        match &stored.record {
            Record::Bad => Outcome::Rejected,
            Record::Event(event) if self.rules.is_future(event, stored) => Outcome::Rejected,
            Record::Event(event) if !event.wanted => Outcome::Filtered,
            Record::Event(event) if self.rules.closes_at(event.time) <= watermark => {
                Outcome::Diverted
            }
            Record::Event(event) => self.count(at, event, watermark),
            Record::Withdrawal(id) => {
                self.withdraw(*id, stored.broker_time, watermark);
                Outcome::Withdrawal
            }
        }
    }

    fn count(&mut self, at: At, event: &Event, watermark: i64) -> Outcome {
        let rules = self.rules;
        let until = rules.closes_at(event.time);
        let Some(known) = self.ids.get_mut(&event.id).filter(|known| known.until > watermark)
        else {
            self.ids.insert(event.id, Known { until, standing: Standing::Counting(at) });
            self.surviving.insert(at, event.clone());
            return Outcome::Counted;
        };
        known.until = known.until.max(until);
        match known.standing {
            Standing::Awaited => {
                known.standing = Standing::Withdrawn;
                Outcome::Counted
            }
            Standing::Counting(counted) => {
                let open = rules.closes_at(self.surviving[&counted].time) > watermark;
                if at < counted && open {
                    known.standing = Standing::Counting(at);
                    self.surviving.remove(&counted);
                    self.surviving.insert(at, event.clone());
                }
                Outcome::Duplicate
            }
            Standing::Withdrawn => Outcome::Duplicate,
        }
    }

    fn withdraw(&mut self, id: u128, broker_time: i64, watermark: i64) {
        let until = self.rules.withdrawal_closes_at(broker_time);
        let Some(known) = self.ids.get_mut(&id).filter(|known| known.until > watermark) else {
            self.ids.insert(id, Known { until, standing: Standing::Awaited });
            return;
        };
        known.until = known.until.max(until);
        if let Standing::Counting(counted) = known.standing
            && self.rules.closes_at(self.surviving[&counted].time) > watermark
        {
            known.standing = Standing::Withdrawn;
            self.surviving.remove(&counted);
        }
    }
}
