//! Records that Kafka has removed before they were read.

use clap::ValueEnum;

use crate::kafka::{TopicPartition, reader::Fetched};

use super::Binder;

/// What becomes of records that Kafka has removed before they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnLostOffsets {
    /// The engine ends and says which they are.
    #[default]
    Stop,
    /// It goes on behind them, and the table `skipped` names them.
    Skip,
}

/// Records that no epoch holds are no longer in Kafka.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "topic {topic} partition {partition}: Kafka has removed the offsets {from_offset} to before \
     {until_offset}, which were never read: its retention is shorter than the engine was behind. \
     With --on-lost-offsets skip it goes on at {until_offset} and writes down in the table skipped \
     what is missing"
)]
pub struct LostOffsets {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset that is lost.
    pub from_offset: i64,
    /// The first after it that Kafka has.
    pub until_offset: i64,
}

impl Binder {
    /// The first offset that is skipped, if what is to be bound next is lost.
    pub(super) fn skip_lost(
        &self,
        partition: TopicPartition,
        from_offset: i64,
        state: Option<&Fetched>,
    ) -> Result<Option<i64>, LostOffsets> {
        // What was fetched before the gap is bound first; another process may not have heard yet of
        // a gap that is skipped already.
        let is_next = |state: &&Fetched| state.next_offset <= from_offset;
        let lost_until = state.filter(is_next).and_then(|state| state.lost_until);
        let Some(until_offset) = lost_until.filter(|until| *until > from_offset) else {
            return Ok(None);
        };
        let topic = self.topics[usize::from(partition.topic)].to_string();
        let partition = partition.partition;
        let lost = LostOffsets { topic, partition, from_offset, until_offset };
        match self.limits.on_lost_offsets {
            OnLostOffsets::Stop => Err(lost),
            OnLostOffsets::Skip => {
                let LostOffsets { topic, .. } = &lost;
                tracing::warn!(
                    topic,
                    partition,
                    from_offset,
                    until_offset,
                    "Kafka has removed records before they were read, skipping them"
                );
                self.metrics.skipped(topic, partition, until_offset.abs_diff(from_offset));
                Ok(Some(from_offset))
            }
        }
    }
}
