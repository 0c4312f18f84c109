//! Since when Kafka has been saying of each partition how far it is read.
//!
//! Whether a partition is silent can be said only of a time in which Kafka was there. When it comes
//! back, those who write to it come back too, one by one, with what they kept meanwhile: nobody is
//! declared silent before they had their time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::kafka::{TopicPartition, reader::Fetched};

/// All partitions.
#[derive(Default)]
pub(super) struct Watch(BTreeMap<TopicPartition, Watched>);

struct Watched {
    /// When Kafka was asked last of what it answered.
    asked: Instant,
    /// Since when there was no gap between answers.
    since: Instant,
    /// Whether there was one before.
    was_away: bool,
}

impl Watch {
    /// Takes note of what Kafka says. Without an answer for longer than `gap_max` it was away.
    pub(super) fn look(&mut self, fetched: &BTreeMap<TopicPartition, Fetched>, gap_max: Duration) {
        for (partition, Fetched { age_ms, .. }) in fetched {
            let age = age_ms.map(Duration::from_millis);
            let Some(asked) = age.and_then(|age| Instant::now().checked_sub(age)) else { continue };
            let new = Watched { asked, since: asked, was_away: false };
            let watched = self.0.entry(*partition).or_insert(new);
            if asked.saturating_duration_since(watched.asked) > gap_max {
                watched.since = asked;
                watched.was_away = true;
            }
            watched.asked = asked;
        }
    }

    /// Whether nothing was `accepted` of a partition for so long while Kafka was there.
    pub(super) fn is_silent(
        &self,
        partition: TopicPartition,
        accepted: Option<Instant>,
        idle_after: Duration,
    ) -> bool {
        self.0.get(&partition).is_some_and(|watched| {
            let since = accepted.map_or(watched.since, |accepted| accepted.max(watched.since));
            watched.asked >= since + idle_after
        })
    }

    /// Whether Kafka was away and came back less than `idle_after` ago.
    pub(super) fn is_back(&self, partition: TopicPartition, idle_after: Duration) -> bool {
        let watched = self.0.get(&partition).filter(|watched| watched.was_away);
        watched.is_some_and(|watched| watched.since.elapsed() < idle_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: TopicPartition = TopicPartition { topic: 0, partition: 0 };
    const SHORT: Duration = Duration::from_millis(2_000);

    /// Kafka was asked this long ago.
    fn look(watch: &mut Watch, age: Duration) {
        let fetched = Fetched {
            next_offset: 0,
            at_end: true,
            age_ms: Some(age.as_millis() as u64),
            last_broker_time_ms: None,
            lost_until: None,
        };
        watch.look(&BTreeMap::from([(PARTITION, fetched)]), SHORT);
    }

    #[test]
    fn nobody_is_silent_who_was_not_asked() {
        let mut watch = Watch::default();
        assert!(!watch.is_silent(PARTITION, None, Duration::ZERO));
        look(&mut watch, Duration::from_secs(60));
        look(&mut watch, Duration::from_secs(60) - SHORT / 2);
        assert!(watch.is_silent(PARTITION, None, SHORT / 4), "it answered all the time");
        assert!(!watch.is_back(PARTITION, Duration::from_secs(100)));
        // It is back, and the time begins anew.
        look(&mut watch, Duration::ZERO);
        assert!(!watch.is_silent(PARTITION, None, SHORT / 4));
        assert!(watch.is_back(PARTITION, Duration::from_secs(60)));
    }

    #[test]
    fn what_is_accepted_begins_the_time_anew() {
        let mut watch = Watch::default();
        look(&mut watch, SHORT / 2);
        look(&mut watch, Duration::ZERO);
        assert!(watch.is_silent(PARTITION, None, SHORT / 4));
        assert!(!watch.is_silent(PARTITION, Some(Instant::now()), SHORT / 4));
    }
}
