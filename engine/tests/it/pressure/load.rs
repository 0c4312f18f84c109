//! Sensors that report all the time, at their own time, as real ones do.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

use crate::crowd::PARTITIONS;

/// Events a second.
const RATE: u64 = 50;
pub(super) const SENSORS: u64 = 25;

/// What was sent, by partition and offset.
#[derive(Default)]
pub(super) struct Sent(pub(super) [Vec<Report>; PARTITIONS]);

pub(super) struct Report {
    pub(super) time_ms: i64,
    pub(super) payload: String,
}

impl Sent {
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|reports| reports.len() as u64).sum()
    }

    /// The longest that no sensor at all reported, ms.
    pub(super) fn silence_ms(&self) -> i64 {
        let times = self.0.iter().flatten().map(|report| report.time_ms);
        let mut times: Vec<i64> = times.collect();
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

pub(super) struct Load {
    sent: Arc<Mutex<Sent>>,
    times: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Load {
    pub(super) fn start(brokers: &str, topic: &str) -> Self {
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("queue.buffering.max.messages", "2000000")
            // Retries keep the order of records, and with it their offsets.
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "900000")
            .set("reconnect.backoff.max.ms", "1000")
            .create()
            .unwrap();
        let (sent, times) = (Arc::<Mutex<Sent>>::default(), Arc::new(AtomicU64::new(1)));
        let stopped = Arc::new(AtomicBool::new(false));
        let sender = Sender { producer, topic: topic.to_owned(), number: 0 };
        let (into, rate, over) = (Arc::clone(&sent), Arc::clone(&times), Arc::clone(&stopped));
        let thread = std::thread::spawn(move || sender.run(&into, &rate, &over));
        Self { sent, times, stopped, thread }
    }

    /// How many were sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.lock().unwrap().count()
    }

    /// Sends so many times as much as usual.
    pub(super) fn times(&self, times: u64) {
        self.times.store(times, Ordering::Relaxed);
    }

    /// Sends no more.
    pub(super) fn end(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Waits until Kafka has everything.
    pub(super) fn sent_in_all(self) -> Sent {
        self.thread.join().unwrap();
        Arc::into_inner(self.sent).unwrap().into_inner().unwrap()
    }
}

struct Sender {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
    number: u64,
}

impl Sender {
    fn run(mut self, sent: &Mutex<Sent>, times: &AtomicU64, stopped: &AtomicBool) {
        let mut before = Instant::now();
        let mut due = 0.0;
        while !stopped.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
            let rate = RATE * times.load(Ordering::Relaxed);
            due += before.elapsed().as_secs_f64() * rate as f64;
            before = Instant::now();
            let mut sent = sent.lock().unwrap();
            while due >= 1.0 {
                self.send(&mut sent);
                due -= 1.0;
            }
        }
        self.producer.flush(Duration::from_secs(60)).unwrap();
    }

    fn send(&mut self, sent: &mut Sent) {
        let number = self.number;
        self.number += 1;
        let now = jiff::Timestamp::now();
        let (sensor, cell) = (number % SENSORS, number % 4);
        let lon = 113.0005 + 0.001 * cell as f64;
        let time = jiff::Timestamp::from_millisecond(now.as_millisecond()).unwrap();
        let payload = format!(
            r#"{{"specversion":"1.0","id":"{number}","source":"test","type":"city.crowd.flow","data":{{"sensorId":"s{sensor}","dateObserved":"{time}","lon":{lon},"lat":28.0005,"category":"mall","status":"actual","peopleCount":{}}}}}"#,
            number % 500
        );
        // A sensor's reports stay in order, as its key would keep them.
        let partition = (sensor % PARTITIONS as u64) as usize;
        let record = BaseRecord::<(), [u8]>::to(&self.topic)
            .partition(partition as i32)
            .timestamp(now.as_millisecond())
            .payload(payload.as_bytes());
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        sent.0[partition].push(Report { time_ms: now.as_millisecond(), payload });
    }
}
