//! Sends the simulated city's records to the broker at the pace of the clock.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use citycell_simulator::{City, SimulatedRecord};
use rdkafka::{
    ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, Message, OwnedHeaders},
    producer::{BaseRecord, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer},
};
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::now_ms;
use crate::{kafka::KafkaSettings, metrics::Metrics};

/// Payload bytes of a topic that may be sent and not yet counted, well below what the embedded
/// broker keeps of one partition.
const UNREAD_BYTES_MAX: usize = 2 << 20;

const STEP: Duration = Duration::from_millis(20);

/// A record that the broker has.
pub(super) struct Delivered {
    pub(super) record: Arc<SimulatedRecord>,
    pub(super) offset: i64,
}

/// What a feeder needs.
pub(super) struct FeederParts {
    pub(super) city: City,
    pub(super) kafka: KafkaSettings,
    /// Takes each record once the broker has it.
    pub(super) delivered: UnboundedSender<Delivered>,
    /// Tells how much of each topic is counted.
    pub(super) metrics: Metrics,
    /// The pipeline that reads each topic.
    pub(super) readers: HashMap<String, String>,
}

/// A thread that sends until it is stopped.
pub(super) struct Feeder {
    stopped: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<Result<(), KafkaError>>,
}

impl Feeder {
    /// Starts to send.
    pub(super) fn start(parts: FeederParts) -> Result<Self, super::DemoError> {
        let context = Deliveries(parts.delivered.clone());
        let producer: ThreadedProducer<Deliveries> = parts
            .kafka
            .create(&[("enable.idempotence", "true"), ("linger.ms", "5")], context)
            .map_err(super::DemoError::Broker)?;
        let (stopped, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let feeding = Feeding {
            city: parts.city,
            producer,
            unread: Unread { readers: parts.readers, metrics: parts.metrics, sent: HashMap::new() },
            stopped: Arc::clone(&stopped),
            count: Arc::clone(&sent),
        };
        let thread = std::thread::Builder::new().name("feeder".into());
        let thread = thread.spawn(move || feeding.run()).map_err(super::DemoError::Thread)?;
        Ok(Self { stopped, sent, thread })
    }

    /// Records sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops and waits until the broker has everything that was sent.
    pub(super) fn stop(self) -> Result<(), super::DemoError> {
        self.stopped.store(true, Ordering::Relaxed);
        let ended = self.thread.join().map_err(|_| super::DemoError::Panicked("feeder"))?;
        ended.map_err(super::DemoError::Broker)
    }
}

/// Hands on what the broker acknowledges.
struct Deliveries(UnboundedSender<Delivered>);

impl ClientContext for Deliveries {}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = Arc<SimulatedRecord>;

    fn delivery(&self, result: &DeliveryResult<'_>, record: Arc<SimulatedRecord>) {
        match result {
            Ok(message) => {
                // Nobody listens only when the demo is over.
                let _ = self.0.send(Delivered { record, offset: message.offset() });
            }
            Err((error, _)) => {
                tracing::error!(%error, topic = record.topic, "a simulated record is lost");
            }
        }
    }
}

struct Feeding {
    city: City,
    producer: ThreadedProducer<Deliveries>,
    unread: Unread,
    stopped: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
}

impl Feeding {
    fn run(mut self) -> Result<(), KafkaError> {
        while !self.stopped() {
            for record in self.city.next_batch(now_ms()) {
                while self.unread.is_full(record.topic) && !self.stopped() {
                    std::thread::sleep(STEP);
                }
                if self.stopped() {
                    break;
                }
                self.send(record)?;
            }
            std::thread::sleep(STEP);
        }
        self.producer.flush(Duration::from_secs(30))
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn send(&mut self, record: SimulatedRecord) -> Result<(), KafkaError> {
        let record = Arc::new(record);
        let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let mut message: BaseRecord<'_, str, [u8], Arc<SimulatedRecord>> =
            BaseRecord::with_opaque_to(record.topic, Arc::clone(&record))
                .partition(record.partition)
                .key(record.key.as_str())
                .timestamp(record.broker_time_ms)
                .headers(headers);
        message.payload = record.payload.as_deref();
        while let Err((error, back)) = self.producer.send(message) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error);
            }
            std::thread::sleep(STEP);
            message = back;
        }
        self.unread.send(&record);
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// What is sent and not yet counted, by topic: the sizes of its records, oldest first.
struct Unread {
    readers: HashMap<String, String>,
    metrics: Metrics,
    sent: HashMap<&'static str, Sent>,
}

#[derive(Default)]
struct Sent {
    sizes: VecDeque<usize>,
    bytes: usize,
    counted: u64,
}

impl Unread {
    fn send(&mut self, record: &SimulatedRecord) {
        let sent = self.sent.entry(record.topic).or_default();
        let size = record.payload.as_deref().map_or(0, <[u8]>::len);
        sent.sizes.push_back(size);
        sent.bytes += size;
    }

    fn is_full(&mut self, topic: &str) -> bool {
        let Some(sent) = self.sent.get_mut(topic) else { return false };
        if sent.bytes < UNREAD_BYTES_MAX {
            return false;
        }
        let Some(pipeline) = self.readers.get(topic) else { return false };
        let counted = self.metrics.figures(pipeline).books.records();
        while sent.counted < counted {
            sent.bytes -= sent.sizes.pop_front().unwrap_or_default();
            sent.counted += 1;
        }
        sent.bytes >= UNREAD_BYTES_MAX
    }
}
