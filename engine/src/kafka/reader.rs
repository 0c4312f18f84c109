//! One worker's partitions, read ahead into a bounded buffer.
//!
//! A thread moves records from librdkafka into the buffer and stops moving them while the buffer
//! is full; the worker's source takes from it exactly what a binding names. Offsets are `next_offset`
//! throughout: "everything before this has been handed over".
//!
//! Nothing is handed over, or counts as fetched, before [`super::witness`] has confirmed it: a topic
//! that was deleted and made again goes on under the same name, and librdkafka reads on in it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
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
    ask::{TopicId, TopicIds},
    consume::{BatchQueue, Delivery, Message},
    witness::{Testimony, Unconfirmed},
};

/// Records per chunk of the buffer: small enough to split cheaply, large enough to decode well.
const CHUNK_RECORDS: usize = 4096;
/// How long a full buffer waits before it is looked at again.
const FULL_PAUSE: Duration = Duration::from_millis(2);
/// Messages per call into librdkafka.
const BATCH_MESSAGES: usize = 1024;

/// How far a partition has been fetched, as Kafka confirmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fetched {
    /// Everything before this offset is in the buffer or has been taken from it.
    pub next_offset: i64,
    /// Whether that was the partition's end.
    pub at_end: bool,
    /// How long ago Kafka was asked, ms: whatever is unread of a partition at its end came later. No
    /// point in time, since clocks step and those of other processes differ. None before it answered.
    pub age_ms: Option<u64>,
    /// The broker's timestamp of the last record fetched.
    pub last_broker_time_ms: Option<i64>,
    /// Kafka's first offset, if it is behind `next_offset`: what lies between is gone.
    pub lost_until: Option<i64>,
}

/// A partition that cannot be read any further.
#[derive(Clone, Debug, thiserror::Error)]
#[error("topic {topic} partition {partition}: {text}")]
pub struct ReadFailure {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// What kind of failure it is.
    pub kind: ReadFailureKind,
    /// What is wrong; librdkafka's words where it is what says so.
    pub text: String,
}

/// Kinds of [`ReadFailure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFailureKind {
    /// Kafka does not answer, or not as it should.
    Unanswered,
    /// Records are no longer there.
    Gone,
    /// The topic is not the one that was read before.
    OtherTopic,
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
}

struct PartitionBuffer {
    chunks: VecDeque<Records>,
    /// Everything before this offset has been moved into the buffer.
    read_offset: i64,
    last_broker_time_ms: Option<i64>,
    /// How much of that is confirmed, and when Kafka was asked for that.
    fetched: Fetched,
    asked: Option<Instant>,
    /// Everything before this offset is bound and waited for.
    wanted_offset: i64,
    /// The topic that is read; whichever there is if Kafka tells none apart.
    topic_id: Option<TopicId>,
    /// Whether Kafka has no record at `read_offset` and is still to say why.
    out_of_range: bool,
    failure: Option<ReadFailure>,
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
            reads: BTreeSet::new(),
            buffer_bytes_max,
        };
        thread::Builder::new()
            .name("kafka-reader".into())
            .spawn(move || thread.run())
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { shared, assignments })
    }

    /// Reads this partition too, from `next_offset` on; goes on there if it is read already and has
    /// not come so far, since a binding skips what is lost. Its topic must be the one of `ids`.
    pub fn assign(&self, partition: TopicPartition, next_offset: i64, ids: &TopicIds) {
        let mut buffers = self.shared.lock();
        match buffers.partitions.get_mut(&partition) {
            Some(buffer) if buffer.read_offset >= next_offset => {
                // Bindings were kept without ids once.
                if buffer.topic_id.is_none() {
                    let topic = &self.shared.topics[usize::from(partition.topic)];
                    buffer.topic_id = ids.get(&**topic).cloned();
                }
                return;
            }
            Some(buffer) => buffer.go_on_at(next_offset),
            None => {
                let topic = &self.shared.topics[usize::from(partition.topic)];
                let buffer = PartitionBuffer::new(next_offset, ids.get(&**topic).cloned());
                buffers.partitions.insert(partition, buffer);
            }
        }
        // The thread lives as long as `self`, so the message arrives.
        let _ = self.assignments.send((partition, next_offset));
    }

    /// How far each partition has been fetched.
    #[must_use]
    pub fn fetched(&self) -> Vec<(TopicPartition, Fetched)> {
        let buffers = self.shared.lock();
        let age_ms =
            |asked: Instant| u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        let fetched = buffers.partitions.iter().map(|(partition, buffer)| {
            (*partition, Fetched { age_ms: buffer.asked.map(age_ms), ..buffer.fetched })
        });
        fetched.collect()
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
    /// When the partition cannot be read so far.
    pub fn take(
        &self,
        partition: TopicPartition,
        next_offset: i64,
    ) -> Result<(Vec<Records>, bool), ReadFailure> {
        let mut buffers = self.shared.lock();
        let Some(buffer) = buffers.partitions.get_mut(&partition) else {
            return Ok((Vec::new(), false));
        };
        if let Some(failure) = &buffer.failure {
            return Err(failure.clone());
        }
        buffer.wanted_offset = next_offset;
        let confirmed = buffer.fetched;
        let complete = confirmed.next_offset >= next_offset;
        if let Some(first) = confirmed.lost_until.filter(|_| !complete) {
            let topic = self.shared.topics[usize::from(partition.topic)].to_string();
            let text = format!(
                "Kafka has removed the offsets {} to before {first}, of which those before \
                 {next_offset} are bound",
                confirmed.next_offset
            );
            let kind = ReadFailureKind::Gone;
            return Err(ReadFailure { topic, partition: partition.partition, kind, text });
        }
        let taken = buffer.take(next_offset.min(confirmed.next_offset));
        buffers.bytes -= taken.iter().map(Records::bytes).sum::<usize>();
        Ok((taken, complete))
    }

    /// What Kafka is to be asked about.
    pub(super) fn unconfirmed(&self) -> Vec<Unconfirmed> {
        let buffers = self.shared.lock();
        let readable = buffers.partitions.iter().filter(|(_, buffer)| buffer.failure.is_none());
        let unconfirmed = readable.map(|(partition, buffer)| Unconfirmed {
            partition: *partition,
            topic: Arc::clone(&self.shared.topics[usize::from(partition.topic)]),
            topic_id: buffer.topic_id.clone(),
            read_offset: buffer.read_offset,
            bound_offset: buffer.wanted_offset,
            last_broker_time_ms: buffer.last_broker_time_ms,
            out_of_range: buffer.out_of_range,
        });
        unconfirmed.collect()
    }

    /// What Kafka says of a partition, as it was when it was asked about.
    pub(super) fn confirm(&self, of: &Unconfirmed, testimony: Testimony, asked: Instant) {
        let mut buffers = self.shared.lock();
        let Some(buffer) = buffers.partitions.get_mut(&of.partition) else { return };
        // It may have gone on elsewhere since.
        let is_elsewhere = of.out_of_range && buffer.read_offset != of.read_offset;
        if is_elsewhere || of.read_offset < buffer.fetched.next_offset {
            return;
        }
        let mut confirmed = Fetched {
            next_offset: of.read_offset,
            at_end: false,
            age_ms: None,
            last_broker_time_ms: of.last_broker_time_ms,
            lost_until: None,
        };
        match testimony {
            Testimony::Readable { at_end } => confirmed.at_end = at_end,
            Testimony::Lost { first_offset } => confirmed.lost_until = Some(first_offset),
            Testimony::InRange => {
                buffer.out_of_range = false;
                let _ = self.assignments.send((of.partition, of.read_offset));
            }
            Testimony::Failed(failure) => {
                buffer.failure = Some(failure);
                drop(buffers);
                (self.shared.wake)();
                return;
            }
        }
        let is_news = confirmed.next_offset > buffer.fetched.next_offset
            || confirmed.lost_until != buffer.fetched.lost_until;
        buffer.fetched = confirmed;
        buffer.asked = Some(asked);
        drop(buffers);
        if is_news {
            (self.shared.wake)();
        }
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
    fn new(next_offset: i64, topic_id: Option<TopicId>) -> Self {
        let fetched = Fetched {
            next_offset,
            at_end: false,
            age_ms: None,
            last_broker_time_ms: None,
            lost_until: None,
        };
        Self {
            chunks: VecDeque::new(),
            read_offset: next_offset,
            last_broker_time_ms: None,
            fetched,
            asked: None,
            wanted_offset: next_offset,
            topic_id,
            out_of_range: false,
            failure: None,
        }
    }

    /// Skips what is before `next_offset`.
    fn go_on_at(&mut self, next_offset: i64) {
        self.read_offset = next_offset;
        self.out_of_range = false;
        self.fetched = Fetched { next_offset, at_end: false, lost_until: None, ..self.fetched };
    }

    fn push(&mut self, topic: &Arc<str>, message: Message<'_>) {
        if self.chunks.back().is_none_or(|chunk| chunk.len() >= CHUNK_RECORDS) {
            self.chunks.push_back(Records::new(Arc::clone(topic), message.partition));
        }
        self.read_offset = message.offset + 1;
        self.last_broker_time_ms = Some(message.broker_time_ms);
        if let Some(chunk) = self.chunks.back_mut() {
            let offset = Offset(message.offset);
            chunk.push(offset, message.broker_time_ms, message.payload, message.headers);
        }
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
    /// What librdkafka reads.
    reads: BTreeSet<TopicPartition>,
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
            self.queue.consume(Duration::from_millis(20), |delivery| receive(&shared, delivery));
        }
    }

    fn assign_new(&mut self) {
        loop {
            match self.assigned.try_recv() {
                Ok((partition, next_offset)) => {
                    if let Err(error) = self.read_from(partition, next_offset) {
                        self.shared.fail(partition, error.to_string());
                    }
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn read_from(&mut self, partition: TopicPartition, next_offset: i64) -> Result<(), KafkaError> {
        let topic = &self.shared.topics[usize::from(partition.topic)];
        let mut list = TopicPartitionList::new();
        let offset = KafkaOffset::Offset(next_offset);
        list.add_partition_offset(topic, partition.partition, offset)?;
        let consumer = self.queue.consumer();
        if !self.reads.insert(partition) {
            consumer.incremental_unassign(&list)?;
        }
        consumer.incremental_assign(&list)
    }

    /// While the buffer is full nothing is moved into it, so librdkafka's own queue fills up and it
    /// stops fetching. (Pausing partitions would do the same, but after a pause that ended within
    /// milliseconds librdkafka 2.12 was seen not to fetch again.) What an epoch waits for is let in
    /// however full the buffer is: of other partitions it may hold what only later epochs take.
    fn is_full(&self) -> bool {
        let buffers = self.shared.lock();
        let has_all_wanted = |buffer: &PartitionBuffer| buffer.read_offset >= buffer.wanted_offset;
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
            if let Some(buffer) = buffers.partitions.get_mut(&partition)
                // What was under way when it went on elsewhere is skipped.
                && message.offset >= buffer.read_offset
            {
                buffer.push(topic, message);
                buffers.bytes += bytes;
            }
        }
        Delivery::End { topic, partition, next_offset } => {
            let Some((partition, _)) = shared.partition(topic, partition) else { return };
            if let Some(buffer) = shared.lock().partitions.get_mut(&partition) {
                buffer.read_offset = buffer.read_offset.max(next_offset);
            }
        }
        Delivery::Failed { topic: Some(topic), partition, offset, code, .. }
            if is_out_of_range(code) =>
        {
            let Some((partition, _)) = shared.partition(topic, partition) else { return };
            if let Some(buffer) = shared.lock().partitions.get_mut(&partition) {
                buffer.out_of_range |= buffer.read_offset == offset;
            }
        }
        Delivery::Failed { topic, partition, text, .. } => {
            tracing::warn!(topic, partition, error = text, "Kafka is in trouble, trying again");
        }
    }
}

/// Whether waiting cannot help: what we were to read is not there.
fn is_out_of_range(code: RDKafkaRespErr) -> bool {
    matches!(
        code,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE
    )
}

impl Shared {
    fn fail(&self, partition: TopicPartition, text: String) {
        let topic = self.topics[usize::from(partition.topic)].to_string();
        let kind = ReadFailureKind::Unanswered;
        if let Some(buffer) = self.lock().partitions.get_mut(&partition) {
            let failure = ReadFailure { topic, partition: partition.partition, kind, text };
            buffer.failure = Some(failure);
        }
        (self.wake)();
    }

    fn partition(&self, topic: &str, partition: i32) -> Option<(TopicPartition, &Arc<str>)> {
        (0u16..)
            .zip(self.topics.iter())
            .find(|(_, name)| &***name == topic)
            .map(|(topic, name)| (TopicPartition { topic, partition }, name))
    }
}
