//! Asks Kafka about what was read: is it of the topic that was bound, is it up to the end, and if
//! there is nothing more to read, why?
//!
//! librdkafka does not say. Once it has reached a partition's end it stays silent, also when the
//! broker is away; and in a topic that was deleted and made again it reads on at the same offset. So
//! one thread asks again and again, and readers hand over only what it has confirmed. What had been
//! read when Kafka was asked, and says the old id, is of the old topic.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    consumer::{BaseConsumer, Consumer, DefaultConsumerContext},
    error::KafkaError,
};

use super::{
    BrokerKind, KafkaSettings, TopicPartition,
    ask::{TopicId, end_offsets, topic_ids},
    reader::{ReadFailure, ReadFailureKind, Reader},
};

/// From one answer to the next question: what was read waits about this long.
const EVERY: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_secs(5);

/// A partition as a reader has read it.
pub(super) struct Unconfirmed {
    pub(super) partition: TopicPartition,
    pub(super) topic: Arc<str>,
    pub(super) topic_id: Option<TopicId>,
    /// Everything before this was read.
    pub(super) read_offset: i64,
    /// Everything before this is bound.
    pub(super) bound_offset: i64,
    pub(super) last_broker_time_ms: Option<i64>,
    /// Whether Kafka has nothing at `read_offset`.
    pub(super) out_of_range: bool,
}

/// What Kafka says of it.
pub(super) enum Testimony {
    /// Nothing is wrong.
    Readable { at_end: bool },
    /// The partition begins behind what was read.
    Lost { first_offset: i64 },
    /// There is something to read after all.
    InRange,
    /// It cannot be read any further.
    Failed(ReadFailure),
}

/// Starts asking for these readers; ends with them.
///
/// # Errors
/// When a Kafka setting is wrong.
pub fn start(settings: &KafkaSettings, readers: &[Arc<Reader>]) -> Result<(), KafkaError> {
    let defaults = [("group.id", "citycell-witness"), ("allow.auto.create.topics", "false")];
    let consumer = settings.create(&defaults, DefaultConsumerContext)?;
    let readers = readers.iter().map(Arc::downgrade).collect();
    let witness = Witness { consumer, broker: settings.broker, readers };
    thread::Builder::new()
        .name("kafka-witness".into())
        .spawn(move || witness.run())
        .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
    Ok(())
}

struct Witness {
    consumer: BaseConsumer<DefaultConsumerContext>,
    broker: BrokerKind,
    readers: Vec<Weak<Reader>>,
}

impl Witness {
    fn run(self) {
        while self.readers.iter().any(|reader| reader.strong_count() > 0) {
            if let Err(error) = self.ask() {
                tracing::warn!(%error, "Kafka does not confirm what was read, asking again");
            }
            thread::sleep(EVERY);
        }
    }

    fn ask(&self) -> Result<(), KafkaError> {
        // 1. What was read, before Kafka is asked.
        let readers = self.readers.iter().filter_map(|reader| Some((reader, reader.upgrade()?)));
        let unconfirmed: Vec<(&Weak<Reader>, Unconfirmed)> = readers
            .flat_map(|(weak, reader)| reader.unconfirmed().into_iter().map(move |of| (weak, of)))
            .collect();
        if unconfirmed.is_empty() {
            return Ok(());
        }
        let asked = Instant::now();
        let topics: BTreeSet<&str> = unconfirmed.iter().map(|(_, of)| &*of.topic).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        let ids = match self.broker {
            BrokerKind::Kafka => topic_ids(self.consumer.client(), &topics)?,
            BrokerKind::Embedded => topics.iter().map(|name| ((*name).to_owned(), None)).collect(),
        };
        // 2. A topic that is not there now says nothing yet.
        let there = |of: &Unconfirmed| ids.contains_key(&*of.topic);
        let partitions = unconfirmed.iter().filter(|(_, of)| there(of));
        let partitions: Vec<(&str, i32)> =
            partitions.map(|(_, of)| (&*of.topic, of.partition.partition)).collect();
        let ends = match self.broker {
            BrokerKind::Kafka => end_offsets(self.consumer.client(), &partitions)?,
            BrokerKind::Embedded => self.ends_one_by_one(&partitions)?,
        };
        for (reader, of) in unconfirmed.iter().filter(|(_, of)| there(of)) {
            let id = ids.get(&*of.topic).and_then(Option::as_ref);
            match self.testimony(of, id, &ends) {
                Ok(testimony) => {
                    if let Some(reader) = reader.upgrade() {
                        reader.confirm(of, testimony, asked);
                    }
                }
                Err(error) => tracing::warn!(topic = %of.topic, %error, "asking again"),
            }
        }
        Ok(())
    }

    fn ends_one_by_one(
        &self,
        partitions: &[(&str, i32)],
    ) -> Result<BTreeMap<(String, i32), i64>, KafkaError> {
        let end = |(topic, partition): &(&str, i32)| {
            let (_, end) = self.consumer.fetch_watermarks(topic, *partition, TIMEOUT)?;
            Ok((((*topic).to_owned(), *partition), end))
        };
        partitions.iter().map(end).collect()
    }

    fn testimony(
        &self,
        of: &Unconfirmed,
        id: Option<&TopicId>,
        ends: &BTreeMap<(String, i32), i64>,
    ) -> Result<Testimony, KafkaError> {
        if let (Some(was), Some(is)) = (&of.topic_id, id)
            && was != is
        {
            let (first, end) = self.range(of)?;
            let text = format!(
                "the topic was deleted and made again. Everything before offset {} was read of the \
                 topic whose id is {was}; now there is one whose id is {is}, with the offsets {first} \
                 to before {end}. {GO_ON}",
                of.bound_offset
            );
            return Ok(of.failed(ReadFailureKind::OtherTopic, text));
        }
        if !of.out_of_range {
            // Unknown while the partition's leader is away.
            let end = ends.get(&(of.topic.to_string(), of.partition.partition));
            let at_end = end.is_some_and(|end| of.read_offset >= *end);
            return Ok(Testimony::Readable { at_end });
        }
        let (first_offset, end_offset) = self.range(of)?;
        if of.read_offset < first_offset {
            return Ok(Testimony::Lost { first_offset });
        }
        if of.read_offset <= end_offset {
            return Ok(Testimony::InRange);
        }
        let text = format!(
            "everything before offset {} was bound, and {} read, but Kafka has only the offsets \
             {first_offset} to before {end_offset}: the topic was deleted and made again, or Kafka \
             lost records that it had delivered. {GO_ON}",
            of.bound_offset, of.read_offset
        );
        Ok(of.failed(ReadFailureKind::OtherTopic, text))
    }

    /// The first offset and the one behind the last.
    fn range(&self, of: &Unconfirmed) -> Result<(i64, i64), KafkaError> {
        self.consumer.fetch_watermarks(&of.topic, of.partition.partition, TIMEOUT)
    }
}

const GO_ON: &str = "Its offsets name other records than those in the books, so it is not read. To go \
                     on, give the new topic a name of its own and the pipelines that name, or start \
                     a deployment of another name (--deployment) in another database (--database)";

impl Unconfirmed {
    fn failed(&self, kind: ReadFailureKind, text: String) -> Testimony {
        let (topic, partition) = (self.topic.to_string(), self.partition.partition);
        Testimony::Failed(ReadFailure { topic, partition, kind, text })
    }
}
