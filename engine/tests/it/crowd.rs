//! A random crowd: sensors that report out of order, late, twice, differently, broken, from
//! nowhere, and take back what they said.

use citycell::{clickhouse::ClickHouse, clickhouse::rows::arrow_stream};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rdkafka::producer::BaseRecord;
use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int32Array, Int64Array, StringArray},
    record_batch::RecordBatch,
};

use crate::{
    broker::{Sender, settings},
    city::NOON_MS,
    store::TestStore,
};

/// Partitions of a crowd's topic.
pub(crate) const PARTITIONS: usize = 3;

/// What one sensor says once.
#[derive(Clone)]
struct Report {
    id: usize,
    time_ms: i64,
    sensor: u32,
    cell: u32,
    category: &'static str,
    status: &'static str,
    people: u32,
}

impl Report {
    fn to_json(&self) -> String {
        let Self { id, sensor, category, status, people, .. } = self;
        let time = jiff::Timestamp::from_millisecond(self.time_ms).unwrap();
        let lon = 113.0005 + 0.001 * f64::from(self.cell);
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"city.crowd.flow","data":{{"sensorId":"s{sensor}","dateObserved":"{time}","lon":{lon},"lat":28.0005,"category":"{category}","status":"{status}","peopleCount":{people}}}}}"#
        )
    }
}

/// Writes to a topic and remembers what it wrote.
pub(crate) struct Crowd {
    topic: String,
    sender: Sender,
    random: StdRng,
    now_ms: i64,
    delay_ms_max: i64,
    reports: Vec<Report>,
    /// The partitions that it writes to: all of them from the first one on.
    pub(crate) open: usize,
    /// The payloads of each partition by offset.
    pub(crate) records: [Vec<String>; PARTITIONS],
}

impl Crowd {
    /// A crowd whose reports are up to `delay_ms_max` old when they arrive, most of them less.
    pub(crate) fn new(topic: &str, seed: u64, delay_ms_max: i64) -> Self {
        Self::at(&settings().brokers, topic, seed, delay_ms_max)
    }

    /// The same on another broker.
    pub(crate) fn at(brokers: &str, topic: &str, seed: u64, delay_ms_max: i64) -> Self {
        Self {
            topic: topic.to_owned(),
            sender: Sender::at(brokers),
            random: StdRng::seed_from_u64(seed),
            now_ms: NOON_MS,
            delay_ms_max,
            reports: Vec::new(),
            open: PARTITIONS,
            records: Default::default(),
        }
    }

    /// Writes to one partition more, which the topic must have.
    pub(crate) fn open_another(&mut self) {
        self.open += 1;
        // A producer that knows the topic looks at it again only after minutes.
        self.sender = Sender::new();
    }

    /// Sends this many records, which take half a second of the city's time each.
    pub(crate) fn send(&mut self, count: usize) {
        for _ in 0..count {
            self.now_ms += 500;
            let payload = self.payload();
            let partition = self.random.random_range(0..self.open);
            let record = BaseRecord::<(), [u8]>::to(&self.topic)
                .partition(partition as i32)
                .timestamp(self.now_ms)
                .payload(payload.as_bytes());
            self.sender.post(record);
            self.records[partition].push(payload);
        }
        self.sender.flush();
    }

    /// How many records were sent.
    pub(crate) fn sent(&self) -> usize {
        self.records.iter().map(Vec::len).sum()
    }

    fn payload(&mut self) -> String {
        let known = self.reports.len();
        let recent = known.saturating_sub(100)..known;
        match self.random.random_range(0..100) {
            0..3 => "{\"specversion\": \"1.0\", cut sho".to_owned(),
            3..5 => withdrawal(known + self.random.random_range(0..5)),
            5..9 if known > 0 => withdrawal(self.random.random_range(recent)),
            9..15 if known > 0 => self.reports[self.random.random_range(recent)].to_json(),
            15..19 if known > 0 => {
                let report = self.reports[self.random.random_range(recent)].clone();
                Report { people: report.people + 1, ..report }.to_json()
            }
            _ => {
                let report = self.report();
                self.reports.push(report.clone());
                report.to_json()
            }
        }
    }

    fn report(&mut self) -> Report {
        let random = &mut self.random;
        let usual = random.random_bool(0.8);
        let delay_ms_max = if usual { self.delay_ms_max / 20 } else { self.delay_ms_max };
        Report {
            id: self.reports.len(),
            time_ms: self.now_ms - random.random_range(0..=delay_ms_max),
            sensor: random.random_range(0..8),
            // The fifth cell is outside the grid.
            cell: random.random_range(0..41) / 10,
            category: ["mall", "metro"][random.random_range(0..2)],
            status: if random.random_bool(0.05) { "test" } else { "actual" },
            people: random.random_range(0..500),
        }
    }

    /// The records as a table `raw (partition, offset, payload)` beside the engine's.
    pub(crate) async fn write_raw(&self, store: &TestStore) {
        let clickhouse = ClickHouse::new(&store.settings());
        let create = "CREATE TABLE raw (partition Int32, offset Int64, payload String) \
                      ENGINE = MergeTree ORDER BY (partition, offset)";
        clickhouse.execute("create raw", create).await.unwrap();
        for (partition, payloads) in (0..).zip(&self.records) {
            let partitions = Int32Array::from_value(partition, payloads.len());
            let offsets = Int64Array::from_iter_values(0..payloads.len() as i64);
            let batch = RecordBatch::try_from_iter([
                ("partition", Arc::new(partitions) as ArrayRef),
                ("offset", Arc::new(offsets)),
                ("payload", Arc::new(StringArray::from_iter_values(payloads))),
            ]);
            clickhouse.insert_arrow("raw", arrow_stream(&batch.unwrap())).await.unwrap();
        }
    }
}

fn withdrawal(id: usize) -> String {
    crate::city::withdrawal(&id.to_string())
}
