//! The city itself: its sensors report in turn, and some of what they say goes wrong on the way.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::bad::{BadKind, Event, spoil};
use crate::config::{ConfigError, SimulatorConfig};
use crate::district::District;
use crate::record::{Planted, SimulatedRecord};
use crate::sensor::Sensor;
use crate::stream::Stream;

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;

/// One report in this many is a sensor's last for a while.
const REPORTS_PER_SILENCE: f64 = 20_000.0;

/// An endless, deterministic stream of a city's records.
pub struct City {
    config: SimulatorConfig,
    district: District,
    sensors: Vec<Sensor>,
    rng: StdRng,
    now_ms: i64,
    /// What is still to come, earliest first.
    agenda: BinaryHeap<Reverse<Appointment>>,
    appointments: u64,
    bad_records: usize,
}

/// Something that happens at a time; ties go to what was planned first.
struct Appointment {
    time_ms: i64,
    number: u64,
    what: What,
}

enum What {
    /// The sensor of this index reports.
    Report(usize),
    /// A record is sent that was made before.
    Send(Box<SimulatedRecord>),
}

impl City {
    /// The city of this seed.
    ///
    /// # Errors
    /// If a setting makes no city.
    pub fn new(seed: u64, config: SimulatorConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let mut rng = StdRng::seed_from_u64(seed);
        let district = District::draw(config.cells, &mut rng);
        let sensors = place_sensors(&config, &district, &mut rng);
        let mut city = Self {
            now_ms: config.start_time_ms,
            config,
            district,
            sensors,
            rng,
            agenda: BinaryHeap::new(),
            appointments: 0,
            bad_records: 0,
        };
        city.plan_first_reports();
        Ok(city)
    }

    /// Its district.
    #[must_use]
    pub const fn district(&self) -> &District {
        &self.district
    }

    /// The simulated time up to which its records have been taken.
    #[must_use]
    pub const fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Every record sent from now until just before `until_ms`, in the order of sending.
    ///
    /// Where batches are cut does not change the records. A time that has passed yields nothing.
    pub fn next_batch(&mut self, until_ms: i64) -> Vec<SimulatedRecord> {
        let mut batch = Vec::new();
        while self.agenda.peek().is_some_and(|Reverse(next)| next.time_ms < until_ms) {
            let Some(Reverse(next)) = self.agenda.pop() else { break };
            self.now_ms = next.time_ms;
            match next.what {
                What::Report(sensor) => self.report(sensor, &mut batch),
                What::Send(record) => batch.push(*record),
            }
        }
        self.now_ms = self.now_ms.max(until_ms);
        batch
    }

    /// How long a sensor waits between reports, on average.
    fn interval_ms(&self) -> f64 {
        self.sensors.len() as f64 / self.config.events_per_second * SECOND_MS as f64
    }

    fn plan_first_reports(&mut self) {
        for sensor in 0..self.sensors.len() {
            let wait_ms = (self.interval_ms() * self.rng.random::<f64>()) as i64;
            self.plan(wait_ms, What::Report(sensor));
        }
    }

    fn plan_next_report(&mut self, sensor: usize) {
        let mut wait_ms = (self.interval_ms() * self.rng.random_range(0.8..1.2)) as i64;
        if self.rng.random_bool(1.0 / REPORTS_PER_SILENCE) {
            wait_ms += self.rng.random_range(5 * MINUTE_MS..15 * MINUTE_MS);
        }
        // A wait of 0 would never let time pass.
        self.plan(wait_ms.max(1), What::Report(sensor));
    }

    fn plan(&mut self, wait_ms: i64, what: What) {
        self.appointments += 1;
        let time_ms = self.now_ms.saturating_add(wait_ms);
        self.agenda.push(Reverse(Appointment { time_ms, number: self.appointments, what }));
    }

    fn report(&mut self, sensor: usize, batch: &mut Vec<SimulatedRecord>) {
        self.plan_next_report(sensor);
        let (record, _) = self.event(sensor);
        if self.rng.random_bool(self.config.duplicate_share) {
            self.plan_copy(sensor, &record);
        }
        if self.rng.random_bool(self.config.withdrawn_share) {
            let withdrawal = withdrawal_of(&record);
            if self.rng.random_bool(0.125) {
                batch.push(withdrawal);
            } else {
                self.plan_sending(30 * SECOND_MS, withdrawal);
            }
        }
        batch.push(record);
        if self.rng.random_bool(self.config.bad_share) {
            let bad = self.bad_record(sensor);
            batch.push(bad);
        }
    }

    /// The sensor's next event, now or late.
    fn event(&mut self, sensor: usize) -> (SimulatedRecord, Value) {
        let late = self.rng.random_bool(self.config.late_share);
        let delay_ms = match (late, self.rng.random_bool(0.2)) {
            (false, _) => self.rng.random_range(20..500),
            (true, false) => self.rng.random_range(10 * SECOND_MS..5 * MINUTE_MS),
            (true, true) => self.rng.random_range(11 * MINUTE_MS..20 * MINUTE_MS),
        };
        let sensor = &mut self.sensors[sensor];
        let event_time_ms = self.now_ms - delay_ms + sensor.clock_ahead_ms;
        let (mut record, payload) = sensor.event(event_time_ms, self.now_ms, &mut self.rng);
        if late {
            record.planted = Planted::Late;
        }
        (record, payload)
    }

    /// One record more, bad in the next of all ways.
    fn bad_record(&mut self, sensor: usize) -> SimulatedRecord {
        let kind = BadKind::ALL[self.bad_records % BadKind::ALL.len()];
        self.bad_records += 1;
        let event_time_ms = self.now_ms;
        let oversized_bytes = self.config.oversized_bytes;
        let sensor = &mut self.sensors[sensor];
        let (record, payload) = sensor.event(event_time_ms, self.now_ms, &mut self.rng);
        let stream = sensor.stream;
        spoil(kind, Event { stream, record, payload, event_time_ms, oversized_bytes })
    }

    /// A copy comes again, one in eight with another measurement, one in eight in any partition.
    fn plan_copy(&mut self, sensor: usize, record: &SimulatedRecord) {
        let mut copy = SimulatedRecord { planted: Planted::Copy, ..record.clone() };
        if self.rng.random_bool(0.125) {
            copy.planted = Planted::DifferingCopy;
            copy.payload = record.payload.as_deref().map(|bytes| self.remeasure(sensor, bytes));
        }
        if self.rng.random_bool(0.125) {
            copy.partition = self.rng.random_range(0..self.config.partitions);
        }
        self.plan_sending(20 * SECOND_MS, copy);
    }

    /// The same event's bytes with what the sensor measures a moment later.
    fn remeasure(&mut self, sensor: usize, bytes: &[u8]) -> Vec<u8> {
        let sensor = &mut self.sensors[sensor];
        let mut again = sensor.payload(self.now_ms, &mut self.rng);
        if let Ok(first) = serde_json::from_slice::<Value>(bytes) {
            again["dateObserved"] = first["dateObserved"].clone();
        }
        again.to_string().into_bytes()
    }

    fn plan_sending(&mut self, wait_ms_max: i64, mut record: SimulatedRecord) {
        let wait_ms = self.rng.random_range(0..wait_ms_max);
        record.broker_time_ms = self.now_ms.saturating_add(wait_ms);
        self.plan(wait_ms, What::Send(Box::new(record)));
    }
}

fn place_sensors(config: &SimulatorConfig, district: &District, rng: &mut StdRng) -> Vec<Sensor> {
    let mut sensors = Vec::new();
    for stream in Stream::ALL {
        for (number, partition) in
            (0..config.sensors_per_stream).zip((0..config.partitions).cycle())
        {
            let mut sensor = Sensor::place(stream, number, district, rng);
            sensor.partition = partition;
            sensors.push(sensor);
        }
    }
    sensors
}

/// The withdrawal of an event: its envelope without data, sent when the event is.
fn withdrawal_of(record: &SimulatedRecord) -> SimulatedRecord {
    SimulatedRecord { payload: None, planted: Planted::Withdrawal, ..record.clone() }
}

impl PartialEq for Appointment {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Appointment {}

impl PartialOrd for Appointment {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Appointment {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time_ms, self.number).cmp(&(other.time_ms, other.number))
    }
}
