//! The durable log of bindings: a one-partition Kafka topic behind a transactional producer.
//!
//! The producer's fencing is what we need: a second engine, or one thawed after a pause, loses at
//! its next commit and must stop.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext, Message, Offset as KafkaOffset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer, DefaultConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};

use citycell_schemas::Epoch;

use crate::binding::Binding;

use super::{
    KafkaSettings,
    consume::{BatchQueue, Delivery},
    partitions::PartitionFinder,
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a binding could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum BindingLogError {
    /// Another engine took over this deployment: this one must stop.
    #[error("another engine runs this deployment now; this one stops")]
    Fenced(#[source] KafkaError),
    /// Kafka could not do it.
    #[error("cannot {action} the topic of bindings {topic}")]
    Kafka {
        /// What we tried.
        action: &'static str,
        /// The topic.
        topic: String,
        /// Why not.
        #[source]
        source: KafkaError,
    },
    /// A record of the topic is no binding.
    #[error("record {offset} of the topic of bindings {topic} is not a binding")]
    Unreadable {
        /// The topic.
        topic: String,
        /// The record's offset.
        offset: i64,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A snapshot names a binding that the topic does not have.
    #[error(
        "the topic of bindings {topic} has no binding of epoch {epoch} at offset {offset}, which the \
         snapshot goes on from: the snapshots belong to another deployment, or the topic was \
         deleted. Without the snapshots everything is computed from Kafka again"
    )]
    OtherLog {
        /// The topic.
        topic: String,
        /// The epoch.
        epoch: u64,
        /// Where it should be.
        offset: i64,
    },
}

/// Learns where a binding was written.
#[derive(Clone, Default)]
struct WrittenAt(Arc<AtomicI64>);

impl ClientContext for WrittenAt {}

impl ProducerContext for WrittenAt {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        if let Ok(message) = delivery {
            self.0.store(message.offset(), Ordering::Release);
        }
    }
}

/// The topic in which a deployment keeps its bindings.
#[must_use]
pub fn topic_of(deployment: &str) -> String {
    format!("citycell.{deployment}.bindings")
}

/// The log of one deployment, held by one engine at a time.
pub struct BindingLog {
    topic: String,
    topics: Vec<String>,
    producer: ThreadedProducer<WrittenAt>,
    settings: KafkaSettings,
}

/// A binding as it stands in the log.
#[derive(Clone, Debug)]
pub struct LoggedBinding {
    /// It.
    pub binding: Binding,
    /// Its record's offset.
    pub offset: i64,
}

impl BindingLog {
    /// Takes over the deployment's log; whoever held it before is fenced out. It knows no topics
    /// yet.
    ///
    /// # Errors
    /// When Kafka cannot be reached or refuses.
    pub async fn take_over(
        settings: &KafkaSettings,
        deployment: &str,
    ) -> Result<Self, BindingLogError> {
        let topic = topic_of(deployment);
        let failed = |action| {
            let topic = topic.clone();
            move |source| BindingLogError::Kafka { action, topic, source }
        };
        create_topic(settings, &topic).await.map_err(failed("create"))?;
        let defaults = [
            ("transactional.id", topic.as_str()),
            // An outage that is shorter does not take the deployment from us: a transaction that
            // the broker gives up looks as if another engine had taken over. The next engine ends
            // ours at once, however long it may take. This is the most that brokers usually allow.
            ("transaction.timeout.ms", "900000"),
            ("linger.ms", "0"),
        ];
        let producer = settings.create(&defaults, WrittenAt::default());
        let producer: ThreadedProducer<WrittenAt> = producer.map_err(failed("write to"))?;
        producer.init_transactions(TIMEOUT).map_err(failed("take over"))?;
        Ok(Self { topic, topics: Vec::new(), producer, settings: settings.clone() })
    }

    /// The log with the names of the topics whose partitions bindings name by number.
    #[must_use]
    pub fn with_topics(self, topics: Vec<String>) -> Self {
        Self { topics, ..self }
    }

    /// Keeps `binding` for good; yields its record's offset.
    ///
    /// # Errors
    /// [`BindingLogError::Fenced`] when another engine took over.
    pub fn append(&self, binding: &Binding) -> Result<i64, BindingLogError> {
        self.append_all(&[binding.to_value(&self.topics).to_string()])
    }

    /// Keeps bindings as they stood in a log, all or none; yields the offset of the last one, which
    /// those before stand directly before.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_all(&self, payloads: &[String]) -> Result<i64, BindingLogError> {
        loop {
            match self.commit(payloads) {
                // The transaction left nothing behind, so this is no second binding.
                Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                    tracing::warn!(%error, "the binding was not committed, sending it again");
                    self.abort().map_err(|error| self.failed("abort a transaction on", error))?;
                }
                outcome => return outcome.map_err(|error| self.failed("write to", error)),
            }
        }
    }

    fn commit(&self, payloads: &[String]) -> Result<i64, KafkaError> {
        self.producer.begin_transaction()?;
        for payload in payloads {
            let record = BaseRecord::<(), str>::to(&self.topic).partition(0).payload(payload);
            self.producer.send(record).map_err(|(error, _)| error)?;
        }
        loop {
            match self.producer.commit_transaction(TIMEOUT) {
                Err(error) if may_still_succeed(&error) => {
                    tracing::warn!(%error, "the binding is not committed yet, trying again");
                }
                // Delivered before it is committed, so its place is known.
                Ok(()) => return Ok(self.producer.context().0.load(Ordering::Acquire)),
                Err(error) => return Err(error),
            }
        }
    }

    fn abort(&self) -> Result<(), KafkaError> {
        loop {
            match self.producer.abort_transaction(TIMEOUT) {
                Err(error) if may_still_succeed(&error) => {
                    tracing::warn!(%error, "the transaction is not aborted yet, trying again");
                }
                outcome => return outcome,
            }
        }
    }

    /// The topics' names by which bindings are kept.
    #[must_use]
    pub fn topics(&self) -> &[String] {
        &self.topics
    }

    /// The bindings kept so far, oldest first.
    ///
    /// # Errors
    /// When Kafka cannot be reached; an unreadable record is an item of its own.
    pub fn read(&self) -> Result<BindingReader, BindingLogError> {
        let read = self.read_at(None)?;
        Ok(read.expect("a topic begins at its beginning"))
    }

    /// The same from the binding of `epoch` on, which must stand at `offset`.
    ///
    /// # Errors
    /// Also [`BindingLogError::OtherLog`] when it does not.
    pub fn read_from(&self, epoch: Epoch, offset: i64) -> Result<BindingReader, BindingLogError> {
        let other =
            || BindingLogError::OtherLog { topic: self.topic.clone(), epoch: epoch.0, offset };
        let mut reader = self.read_at(Some(offset))?.ok_or_else(other)?;
        match reader.next().transpose()? {
            Some(first) if first.binding.epoch == epoch && first.offset == offset => {
                reader.first = Some(first);
                Ok(reader)
            }
            _ => Err(other()),
        }
    }

    /// The bindings from that one on, or from the oldest, and those that are bound later.
    ///
    /// # Errors
    /// As above.
    pub fn follow(&self, from: Option<(Epoch, i64)>) -> Result<BindingTail, BindingLogError> {
        let mut reader = match from {
            Some((epoch, offset)) => self.read_from(epoch, offset)?,
            None => self.read()?,
        };
        (reader.records.end_offset, reader.records.at_end) = (i64::MAX, false);
        Ok(BindingTail(reader))
    }

    /// None if the topic has no such offset.
    fn read_at(&self, offset: Option<i64>) -> Result<Option<BindingReader>, BindingLogError> {
        let records = open(&self.settings, &self.topic, offset);
        let records = records.map_err(|error| self.failed("read", error))?;
        let topics = self.topics.clone();
        Ok(records.map(|records| BindingReader { records, topics, first: None }))
    }

    fn failed(&self, action: &'static str, source: KafkaError) -> BindingLogError {
        let fenced = self.producer.client().fatal_error().is_some_and(|(code, _)| {
            matches!(
                code,
                RDKafkaErrorCode::Fenced
                    | RDKafkaErrorCode::InvalidProducerEpoch
                    | RDKafkaErrorCode::ProducerFenced
            )
        });
        if fenced {
            BindingLogError::Fenced(source)
        } else {
            BindingLogError::Kafka { action, topic: self.topic.clone(), source }
        }
    }
}

/// Whether Kafka only takes its time: it may be away.
fn may_still_succeed(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable(),
        KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
        _ => false,
    }
}

/// The bindings of a deployment kept so far, oldest first, for one who only looks: the engine that
/// holds the log goes on.
///
/// # Errors
/// When Kafka cannot be reached or the deployment has no log.
pub fn read_beside(
    settings: &KafkaSettings,
    deployment: &str,
    topics: Vec<String>,
) -> Result<BindingReader, BindingLogError> {
    Ok(BindingReader { records: read_records_beside(settings, deployment)?, topics, first: None })
}

/// The same as they stand in the log, each with its offset.
///
/// # Errors
/// As [`read_beside`].
pub fn read_records_beside(
    settings: &KafkaSettings,
    deployment: &str,
) -> Result<RecordReader, BindingLogError> {
    let topic = topic_of(deployment);
    let failed = |source| BindingLogError::Kafka { action: "read", topic: topic.clone(), source };
    let reader = open(settings, &topic, None).map_err(failed)?;
    Ok(reader.expect("a topic begins at its beginning"))
}

/// None if the topic has no such offset.
fn open(
    settings: &KafkaSettings,
    topic: &str,
    offset: Option<i64>,
) -> Result<Option<RecordReader>, KafkaError> {
    let defaults = [
        ("group.id", "citycell-bindings"),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "error"),
        ("enable.partition.eof", "true"),
        ("isolation.level", "read_committed"),
        ("allow.auto.create.topics", "false"),
    ];
    let consumer: BaseConsumer = settings.create(&defaults, DefaultConsumerContext)?;
    let (low, end) = consumer.fetch_watermarks(topic, 0, TIMEOUT)?;
    let mut list = TopicPartitionList::new();
    let start = offset.unwrap_or(low);
    if !(low..=end).contains(&start) {
        return Ok(None);
    }
    list.add_partition_offset(topic, 0, KafkaOffset::Offset(start))?;
    consumer.assign(&list)?;
    Ok(Some(RecordReader {
        queue: BatchQueue::new(consumer, 1024),
        topic: topic.to_owned(),
        end_offset: end,
        at_end: start == end,
        arrived: VecDeque::new(),
    }))
}

/// Bindings of the log, one by one, up to the end the log had when reading began.
pub struct BindingReader {
    records: RecordReader,
    topics: Vec<String>,
    /// One that was looked at already.
    first: Option<LoggedBinding>,
}

impl Iterator for BindingReader {
    type Item = Result<LoggedBinding, BindingLogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        let (offset, bytes) = self.records.next()?;
        let binding = Binding::from_json(&bytes, &self.topics);
        Some(match binding {
            Ok(binding) => Ok(LoggedBinding { binding, offset }),
            Err(source) => {
                let topic = self.records.topic.clone();
                Err(BindingLogError::Unreadable { topic, offset, source })
            }
        })
    }
}

/// The log's records, each with its offset, up to the end the log had when reading began.
pub struct RecordReader {
    queue: BatchQueue,
    topic: String,
    end_offset: i64,
    at_end: bool,
    arrived: VecDeque<(i64, Vec<u8>)>,
}

impl Iterator for RecordReader {
    type Item = (i64, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        // The last offsets are a transaction's control records, so the end is what Kafka calls
        // the end, never a silence.
        while self.arrived.is_empty() && !self.at_end {
            self.consume(Duration::from_millis(100));
        }
        self.arrived.pop_front()
    }
}

impl RecordReader {
    fn consume(&mut self, timeout: Duration) {
        let Self { queue, topic, end_offset, at_end, arrived } = self;
        queue.consume(timeout, |delivery| match delivery {
            // Beside an engine at work there may never be an end to be told of: what was written
            // since says it too.
            Delivery::Record(message) if message.offset >= *end_offset => *at_end = true,
            Delivery::Record(message) => {
                let bytes = message.payload.unwrap_or_default();
                arrived.push_back((message.offset, bytes.to_vec()));
            }
            Delivery::End { next_offset, .. } => *at_end = next_offset >= *end_offset,
            Delivery::Failed { text, .. } => {
                tracing::warn!(topic, error = text, "cannot read bindings, trying again");
            }
        });
    }
}

/// Bindings of the log without an end.
pub struct BindingTail(BindingReader);

impl BindingTail {
    /// The next one, if it comes in time.
    pub fn poll(&mut self, timeout: Duration) -> Option<Result<LoggedBinding, BindingLogError>> {
        let BindingReader { records, first, .. } = &mut self.0;
        if first.is_none() && records.arrived.is_empty() {
            records.consume(timeout);
            if records.arrived.is_empty() {
                return None;
            }
        }
        self.0.next()
    }
}

/// Creates the topic unless it exists: an embedded broker cannot be asked to create one.
async fn create_topic(settings: &KafkaSettings, topic: &str) -> Result<(), KafkaError> {
    if !PartitionFinder::new(settings)?.find(&[topic.to_owned()])?.partitions.is_empty() {
        return Ok(());
    }
    let admin: AdminClient<_> = settings.create(&[], DefaultClientContext)?;
    // The broker's own time: it refuses records of a clock that is an hour ahead of its own, and an
    // engine whose clock is wrong must still bind.
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1))
        .set("retention.ms", "-1")
        .set("message.timestamp.type", "LogAppendTime");
    for result in admin.create_topics([&new], &AdminOptions::new()).await? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(KafkaError::AdminOp(code)),
        }
    }
    Ok(())
}
