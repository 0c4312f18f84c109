//! The model's cities as a pipeline reads them: bytes of records, batches by partition, ticks.

use std::sync::Arc;

use citycell_operators::plan::{Argument, Location, Plan, Slot};
use citycell_operators::records::Records;
use citycell_operators::tick::Tick;
use citycell_schemas::{Epoch, Level, Offset};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::keyed_operators;
use crate::model::city::{Durable, Habits, live};
use crate::model::{Binding, Event, Grouping, Log, Record, Rules};
use crate::time_model::rules_of;

/// Long enough for windows to open and close several times.
pub(super) const EPOCHS: usize = 30;

const TOPIC: &str = "people";

/// The fields that [`Case::plan`] reads.
pub(super) const FIELDS: [&str; 7] =
    ["sensorId", "dateObserved", "gridCode", "category", "status", "peopleCountTowards", "lat"];

/// A pipeline, and the seed of everything else.
#[derive(Clone, Debug)]
pub(super) struct Case {
    rules: Rules,
    pub(super) plan: Plan,
    copies_differ_by: i64,
    pub(super) seed: u64,
}

/// Pipelines of this kind, with and without all that a plan may leave out.
pub(super) fn cases(grouping: impl Strategy<Value = Grouping>) -> impl Strategy<Value = Case> {
    let publish_every_ms = prop_oneof![Just(0), Just(5_000), Just(60_000)];
    let wanted = any::<[bool; 4]>();
    let copies_differ_by = prop_oneof![Just(0), 0..20_000i64];
    (rules_of(grouping), publish_every_ms, wanted, copies_differ_by, any::<u64>()).prop_map(
        |(rules, publish_every_ms, wanted, copies_differ_by, seed)| {
            let [identified, grouped, extremes, rolled_up] = wanted;
            let slots = [Slot::Sum(0), Slot::Mean(1), Slot::Min(0), Slot::Max(1)];
            let category = "category".to_owned();
            let plan = Plan {
                identified,
                group_by: if grouped { vec![category] } else { Vec::new() },
                slots: slots[..if extremes { 4 } else { 2 }].to_vec(),
                roll_up: if rolled_up { vec![Level::Community, Level::Street] } else { Vec::new() },
                publish_every_ms,
                ..plan(&rules)
            };
            Case { rules, plan, copies_differ_by, seed }
        },
    )
}

fn plan(rules: &Rules) -> Plan {
    let argument = |expression: &str, scale| Argument { expression: expression.to_owned(), scale };
    Plan {
        topics: vec![TOPIC.to_owned()],
        schema: "crowd_flow".to_owned(),
        event_time: "dateObserved".to_owned(),
        location: Location::Cell { column: "gridCode".to_owned() },
        filter: Some("status = 'actual'".to_owned()),
        arguments: vec![argument("peopleCountTowards - 50", 0), argument("lat", 2)],
        ..keyed_operators::plan(rules)
    }
}

/// What happens in the epochs of a city: each has a tick and the records of its partitions.
#[derive(Debug)]
pub(super) struct City {
    pub(super) plan: Plan,
    pub(super) epochs: Vec<(Tick, Vec<Records>)>,
}

impl City {
    pub(super) fn of(case: &Case) -> Self {
        let mut random = StdRng::seed_from_u64(case.seed);
        let habits = Habits { epochs: EPOCHS, kill: 0.0, copies_differ_by: case.copies_differ_by };
        let mut durable = live(case.rules, habits, &mut random, |_| {});
        leap(&mut durable, &mut random);
        leap(&mut durable, &mut random);
        let Durable { log, bindings, .. } = &durable;
        let epoch = |binding: &Binding| {
            (keyed_operators::tick(binding), records(log, binding, case.plan.identified))
        };
        Self { plan: case.plan.clone(), epochs: bindings.iter().map(epoch).collect() }
    }

    /// Some epochs more in which nobody writes, each made from the one before.
    pub(super) fn then(mut self, epochs: usize, next: impl Fn(Tick) -> Tick) -> Self {
        for _ in 0..epochs {
            let last = self.last_tick();
            let next = next(last);
            let (epoch, previous_bound_time_ms) = (Epoch(last.epoch.0 + 1), last.bound_time_ms);
            self.epochs.push((Tick { epoch, previous_bound_time_ms, ..next }, Vec::new()));
        }
        self
    }

    pub(super) fn last_tick(&self) -> Tick {
        self.epochs.last().expect("a city has epochs").0
    }
}

/// Makes everything after a moment happen later: many windows close at once, entities expire and
/// keyframes are due.
fn leap(durable: &mut Durable, random: &mut StdRng) {
    let moment = durable.bindings[random.random_range(0..EPOCHS)].bound_time;
    let lengths = if random.random() { 5_000..20_000 } else { 300_000..700_000 };
    let length = random.random_range(lengths);
    let leap = |time: i64| if time > moment { time + length } else { time };
    for stored in durable.log.iter_mut().flatten() {
        stored.broker_time = leap(stored.broker_time);
        if let Record::Event(event) = &mut stored.record {
            event.time = leap(event.time);
        }
    }
    for binding in &mut durable.bindings {
        binding.epoch = leap(binding.epoch as i64) as u64;
        binding.watermark = leap(binding.watermark);
        binding.bound_time = leap(binding.bound_time);
        binding.previous_bound_time = leap(binding.previous_bound_time);
    }
}

/// The records of an epoch, one run per partition that has any.
fn records(log: &Log, binding: &Binding, identified: bool) -> Vec<Records> {
    let mut runs: Vec<Records> = Vec::new();
    for ((partition, offset), stored) in binding.records(log) {
        let partition = partition as i32;
        if runs.last().is_none_or(|run| run.partition != partition) {
            runs.push(Records::new(Arc::from(TOPIC), partition));
        }
        let payload = payload(&stored.record, identified);
        let run = runs.last_mut().expect("one was just added");
        run.push(Offset(offset as i64), stored.broker_time, payload.as_deref(), None);
    }
    runs
}

/// A record's bytes. Without ids there is no envelope, and a withdrawal says nothing at all.
fn payload(record: &Record, identified: bool) -> Option<Vec<u8>> {
    let envelope = |id: u128| {
        let kind = "city.crowd.flow";
        json!({"specversion": "1.0", "id": id.to_string(), "source": "//sensors", "type": kind})
    };
    let document = match record {
        Record::Bad => return Some(b"{".to_vec()),
        Record::Withdrawal(_) if !identified => return None,
        Record::Withdrawal(id) => envelope(*id),
        Record::Event(event) if !identified => data(event),
        Record::Event(event) => {
            let mut document = envelope(event.id);
            document["data"] = data(event);
            document
        }
    };
    Some(document.to_string().into_bytes())
}

/// An event in the fields of crowd flow. Half of the model's sensors are in other cells than the
/// others; and some events are of sensors seldom heard, of which a keyframe alone speaks again.
fn data(event: &Event) -> serde_json::Value {
    let seldom = event.id.is_multiple_of(4).then_some(event.id / 4 % 20);
    let sensor = seldom.map_or(u128::from(event.entity), |seldom| 4 + seldom);
    let moment = jiff::Timestamp::from_millisecond(event.time).expect("in range");
    let cell = event.place + 3 * u32::from(event.entity % 2);
    let category = [None, Some("mall"), Some("metro")][event.time.rem_euclid(3) as usize];
    json!({
        "sensorId": format!("s{sensor}"),
        "dateObserved": moment.to_string(),
        "gridCode": cell.to_string(),
        "category": category,
        "status": if event.wanted { "actual" } else { "test" },
        "peopleCountTowards": event.value.map(|value| value as i64 + 50),
        "lat": (event.time % 9_000) as f64 / 100.0,
    })
}
