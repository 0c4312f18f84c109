//! What the city writes: events in and out of order, copies, withdrawals before and after their
//! events, bad records and bad clocks.

use rand::Rng;
use rand::rngs::StdRng;

use super::{Event, Log, Record, Rules, Stored};

pub(crate) struct Sensors {
    rules: Rules,
    copies_differ_by: i64,
    issued: Vec<Event>,
}

impl Sensors {
    pub(crate) fn new(rules: Rules, copies_differ_by: i64) -> Self {
        Self { rules, copies_differ_by, issued: Vec::new() }
    }

    /// Appends some records to each partition; each is silent every now and then.
    pub(crate) fn write(&mut self, log: &mut Log, now: i64, random: &mut StdRng) {
        for (partition, records) in log.iter_mut().enumerate() {
            let silent = (now / 20_000) % 4 == partition as i64;
            let count = if silent { 0 } else { random.random_range(0..5) };
            for _ in 0..count {
                records.push(Stored { broker_time: now, record: self.record(now, random) });
            }
        }
    }

    fn record(&mut self, now: i64, random: &mut StdRng) -> Record {
        let issued = self.issued.len();
        match random.random_range(0..20) {
            0 => Record::Bad,
            1..=3 => {
                // Also of events that are still to come.
                let id = random.random_range(issued.saturating_sub(30)..issued + 4);
                Record::Withdrawal(id as u128)
            }
            4..=7 if issued > 0 => {
                let of = random.random_range(issued.saturating_sub(40)..issued);
                Record::Event(self.copy(&self.issued[of], random))
            }
            _ => {
                let event = self.event(now, random);
                self.issued.push(event.clone());
                Record::Event(event)
            }
        }
    }

    /// A copy agrees with the first about its id, entity and whether it is wanted.
    fn copy(&self, event: &Event, random: &mut StdRng) -> Event {
        Event {
            time: event.time + random.random_range(0..=self.copies_differ_by),
            place: random.random_range(0..3),
            value: event.value.map(|value| value + 1),
            ..event.clone()
        }
    }

    fn event(&self, now: i64, random: &mut StdRng) -> Event {
        let future = self.rules.future;
        let ahead = match random.random_range(0..20) {
            0 => future + random.random_range(1..1_000_000),
            1..=3 => -random.random_range(0..60_000),
            _ => random.random_range(-4_000..=future),
        };
        Event {
            id: self.issued.len() as u128,
            time: now + ahead,
            entity: random.random_range(0..4),
            place: random.random_range(0..3),
            value: random.random_bool(0.9).then(|| random.random_range(-50..50)),
            wanted: random.random_bool(0.9),
        }
    }
}
