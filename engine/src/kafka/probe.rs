//! Asks Kafka whether there is a record at an offset.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset as KafkaOffset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, DefaultConsumerContext},
    error::KafkaError,
};

use super::{
    KafkaSettings,
    consume::{BatchQueue, Delivery},
    reader::{ReadFailure, ReadFailureKind},
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A client that looks at single offsets.
pub struct RecordProbe {
    queue: BatchQueue,
}

impl RecordProbe {
    /// A client that only looks.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn new(settings: &KafkaSettings) -> Result<Self, KafkaError> {
        let defaults = [
            ("group.id", "citycell-probe"),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
            ("isolation.level", "read_committed"),
            ("allow.auto.create.topics", "false"),
            ("fetch.wait.max.ms", "50"),
        ];
        let consumer: BaseConsumer = settings.create(&defaults, DefaultConsumerContext)?;
        Ok(Self { queue: BatchQueue::new(consumer, 16) })
    }

    /// The offset of the first record that Kafka has at one of these offsets: none where compaction
    /// removed it, where a transaction has its control records, and where retention deleted it.
    ///
    /// # Errors
    /// When Kafka does not say so within half a minute.
    pub fn first_record(
        &mut self,
        topic: &str,
        partition: i32,
        offsets: Range<i64>,
    ) -> Result<Option<i64>, ReadFailure> {
        let kind = ReadFailureKind::Unanswered;
        let failed = |text: String| ReadFailure { topic: topic.to_owned(), partition, kind, text };
        let kafka = |error: KafkaError| failed(error.to_string());
        let consumer = self.queue.consumer();
        let (low, _) = consumer.fetch_watermarks(topic, partition, TIMEOUT).map_err(kafka)?;
        let start = offsets.start.max(low);
        if start >= offsets.end {
            return Ok(None);
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, KafkaOffset::Offset(start)).map_err(kafka)?;
        consumer.assign(&list).map_err(kafka)?;
        let (asked, mut seen, mut trouble) = (Instant::now(), None, String::new());
        while seen.is_none() && asked.elapsed() < TIMEOUT {
            self.queue.consume(Duration::from_millis(100), |delivery| match delivery {
                Delivery::Record(message) if message.offset >= start => {
                    seen.get_or_insert(message.offset);
                }
                // Control records are behind it and a record is not.
                Delivery::End { next_offset, .. } if next_offset >= offsets.end => {
                    seen.get_or_insert(next_offset);
                }
                Delivery::Failed { text, .. } => trouble = text,
                Delivery::Record(_) | Delivery::End { .. } => {}
            });
        }
        let seen = seen.ok_or_else(|| failed(format!("no answer within 30 s. {trouble}")))?;
        Ok(Some(seen).filter(|offset| *offset < offsets.end))
    }
}
