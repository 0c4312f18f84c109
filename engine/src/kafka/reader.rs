//! One worker's partitions, read ahead into a bounded buffer.
//!
//! A thread moves records from librdkafka into the buffer and stops moving them while the buffer
//! is full; the worker's source takes from it exactly what a binding names. Offsets are `next_offset`
//! throughout: "everything before this has been handed over".

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use citycell_operators::records::Records;
use citycell_schemas::Offset;
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use rdkafka::{
    Offset as KafkaOffset, TopicPartitionList,
    consumer::{Consumer, DefaultConsumerContext},
    error::KafkaError,
    types::RDKafkaRespErr,
};

use super::{
    KafkaSettings, TopicPartition,
    consume::{BatchQueue, Delivery, Message},
};

/// Records per chunk of the buffer: small enough to split cheaply, large enough to decode well.
const CHUNK_RECORDS: usize = 4096;
/// How long a full buffer waits before it is looked at again.
const FULL_PAUSE: Duration = Duration::from_millis(2);
/// Messages per call into librdkafka.
const BATCH_MESSAGES: usize = 1024;

/// How far a partition has been fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fetched {
    /// Everything before this offset is in the buffer or has been taken from it.
    pub next_offset: i64,
    /// Whether that is the partition's end, as the broker last said.
    pub at_end: bool,
    /// The broker's timestamp of the last record fetched.
    pub last_broker_time_ms: Option<i64>,
}

/// A partition that cannot be read any further.
#[derive(Clone, Debug, thiserror::Error)]
#[error("topic {topic} partition {partition}: {text}")]
pub struct ReadFailure {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// librdkafka's words.
    pub text: String,
}

/// The worker's end of a reader.
pub struct Reader {
    shared: Arc<Shared>,
    assignments: Sender<(TopicPartition, i64)>,
}

struct Shared {
    topics: Arc<[Arc<str>]>,
    buffers: Mutex<Buffers>,
    stopped: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Buffers {
    partitions: BTreeMap<TopicPartition, PartitionBuffer>,
    bytes: usize,
    failure: Option<ReadFailure>,
}

struct PartitionBuffer {
    chunks: VecDeque<Records>,
    fetched: Fetched,
    /// Everything before this offset is being waited for.
    wanted_offset: i64,
}

impl Reader {
    /// Starts the reading thread. `wake` is called after records arrived.
    ///
    /// # Errors
    /// When a Kafka setting is wrong.
    pub fn start(
        settings: &KafkaSettings,
        topics: Arc<[Arc<str>]>,
        buffer_bytes_max: usize,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, KafkaError> {
        let defaults = [
            ("group.id", "citycell-reader"),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "error"),
            ("isolation.level", "read_committed"),
            ("fetch.wait.max.ms", "50"),
            ("fetch.message.max.bytes", "4194304"),
            ("queued.max.messages.kbytes", "32768"),
        ];
        let consumer = settings.create(&defaults, DefaultConsumerContext)?;
        let shared = Arc::new(Shared {
            topics,
            buffers: Mutex::default(),
            stopped: AtomicBool::new(false),
            wake: Box::new(wake),
        });
        let (assignments, assigned) = crossbeam_channel::unbounded();
        let thread = ReadingThread {
            shared: Arc::clone(&shared),
            queue: BatchQueue::new(consumer, BATCH_MESSAGES),
            assigned,
            buffer_bytes_max,
        };
        thread::Builder::new()
            .name("kafka-reader".into())
            .spawn(move || thread.run())
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { shared, assignments })
    }

    /// Reads this partition too, from `next_offset` on; nothing if it is read already.
    pub fn assign(&self, partition: TopicPartition, next_offset: i64) {
        let mut buffers = self.shared.lock();
        if buffers.partitions.contains_key(&partition) {
            return;
        }
        let fetched = Fetched { next_offset, at_end: false, last_broker_time_ms: None };
        let buffer =
            PartitionBuffer { chunks: VecDeque::new(), fetched, wanted_offset: next_offset };
        buffers.partitions.insert(partition, buffer);
        // The thread lives as long as `self`, so the message arrives.
        let _ = self.assignments.send((partition, next_offset));
    }

    /// How far each partition has been fetched.
    #[must_use]
    pub fn fetched(&self) -> Vec<(TopicPartition, Fetched)> {
        let buffers = self.shared.lock();
        buffers.partitions.iter().map(|(partition, buffer)| (*partition, buffer.fetched)).collect()
    }

    /// Payload bytes waiting in the buffer.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.shared.lock().bytes
    }

    /// Takes the records of `partition` before `next_offset` that have arrived, and says whether
    /// these were all of them: compaction and control records leave holes, so what counts is how
    /// far was fetched, not which record came last.
    ///
    /// # Errors
    /// When the partition cannot be read any further.
    pub fn take(
        &self,
        partition: TopicPartition,
        next_offset: i64,
    ) -> Result<(Vec<Records>, bool), ReadFailure> {
        let mut buffers = self.shared.lock();
        if let Some(failure) = &buffers.failure {
            return Err(failure.clone());
        }
        let Some(buffer) = buffers.partitions.get_mut(&partition) else {
            return Ok((Vec::new(), false));
        };
        buffer.wanted_offset = next_offset;
        let taken = buffer.take(next_offset);
        let complete = buffer.fetched.next_offset >= next_offset;
        buffers.bytes -= taken.iter().map(Records::bytes).sum::<usize>();
        Ok((taken, complete))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffers> {
        // A reader that panicked left whole records: each push is one call.
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartitionBuffer {
    fn push(&mut self, topic: &Arc<str>, message: Message<'_>) {
        if self.chunks.back().is_none_or(|chunk| chunk.len() >= CHUNK_RECORDS) {
            self.chunks.push_back(Records::new(Arc::clone(topic), message.partition));
        }
        if let Some(chunk) = self.chunks.back_mut() {
            let offset = Offset(message.offset);
            chunk.push(offset, message.broker_time_ms, message.payload, message.headers);
        }
        self.fetched = Fetched {
            next_offset: message.offset + 1,
            at_end: false,
            last_broker_time_ms: Some(message.broker_time_ms),
        };
    }

    fn take(&mut self, next_offset: i64) -> Vec<Records> {
        let mut taken = Vec::new();
        while let Some(mut chunk) = self.chunks.pop_front() {
            let rest = chunk.split_off(Offset(next_offset));
            if !chunk.is_empty() {
                taken.push(chunk);
            }
            if !rest.is_empty() {
                self.chunks.push_front(rest);
                break;
            }
        }
        taken
    }
}

struct ReadingThread {
    shared: Arc<Shared>,
    queue: BatchQueue,
    assigned: Receiver<(TopicPartition, i64)>,
    buffer_bytes_max: usize,
}

impl ReadingThread {
    fn run(mut self) {
        while !self.shared.stopped.load(Ordering::Relaxed) {
            self.assign_new();
            if self.is_full() {
                thread::sleep(FULL_PAUSE);
                continue;
            }
            let shared = Arc::clone(&self.shared);
            let count = self
                .queue
                .consume(Duration::from_millis(20), |delivery| receive(&shared, delivery));
            if count > 0 {
                (self.shared.wake)();
            }
        }
    }

    fn assign_new(&mut self) {
        loop {
            match self.assigned.try_recv() {
                Ok((partition, next_offset)) => {
                    let mut list = TopicPartitionList::new();
                    let topic = &self.shared.topics[usize::from(partition.topic)];
                    let assigned = list
                        .add_partition_offset(
                            topic,
                            partition.partition,
                            KafkaOffset::Offset(next_offset),
                        )
                        .and_then(|()| self.queue.consumer().incremental_assign(&list));
                    if let Err(error) = assigned {
                        fail(&self.shared, topic, partition.partition, error.to_string());
                    }
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    /// While the buffer is full nothing is moved into it, so librdkafka's own queue fills up and it
    /// stops fetching. (Pausing partitions would do the same, but after a pause that ended within
    /// milliseconds librdkafka 2.12 was seen not to fetch again.) What an epoch waits for is let in
    /// however full the buffer is: of other partitions it may hold what only later epochs take.
    fn is_full(&self) -> bool {
        let buffers = self.shared.lock();
        let has_all_wanted =
            |buffer: &PartitionBuffer| buffer.fetched.next_offset >= buffer.wanted_offset;
        buffers.bytes >= self.buffer_bytes_max && buffers.partitions.values().all(has_all_wanted)
    }
}

fn receive(shared: &Shared, delivery: Delivery<'_>) {
    match delivery {
        Delivery::Record(message) => {
            let Some((partition, topic)) = shared.partition(message.topic, message.partition)
            else {
                return;
            };
            let mut buffers = shared.lock();
            let bytes = message.payload.map_or(0, <[u8]>::len);
            if let Some(buffer) = buffers.partitions.get_mut(&partition) {
                buffer.push(topic, message);
                buffers.bytes += bytes;
            }
        }
        Delivery::End { topic, partition, next_offset } => {
            let Some((partition, _)) = shared.partition(topic, partition) else { return };
            if let Some(buffer) = shared.lock().partitions.get_mut(&partition) {
                buffer.fetched.next_offset = buffer.fetched.next_offset.max(next_offset);
                buffer.fetched.at_end = true;
            }
        }
        Delivery::Failed { topic: Some(topic), partition, code, text } if is_final(code) => {
            fail(shared, topic, partition, text);
        }
        Delivery::Failed { topic, partition, text, .. } => {
            tracing::warn!(topic, partition, error = text, "Kafka is in trouble, trying again");
        }
    }
}

/// Whether waiting cannot help: what we were to read is no longer there.
fn is_final(code: RDKafkaRespErr) -> bool {
    matches!(
        code,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE
    )
}

fn fail(shared: &Shared, topic: &str, partition: i32, text: String) {
    shared.lock().failure = Some(ReadFailure { topic: topic.to_owned(), partition, text });
    (shared.wake)();
}

impl Shared {
    fn partition(&self, topic: &str, partition: i32) -> Option<(TopicPartition, &Arc<str>)> {
        (0u16..)
            .zip(self.topics.iter())
            .find(|(_, name)| &***name == topic)
            .map(|(topic, name)| (TopicPartition { topic, partition }, name))
    }
}
