//! Values of personal fields, wherever records are kept: encrypted under the key of their day.
//!
//! ```text
//! payload -> what all may read (redact) -> `payload`
//!               +-> what was taken out (cuts) -> sealed under the day's key (seal) -> `sealed`
//! day's key: random, wrapped by the master key, one file per day (keys), held for a while (ring)
//! ```
//!
//! The *day* is the UTC day of Kafka's timestamp of the record. A record has that timestamp for ever,
//! so it is sealed under the same key however often, when and by whom it is read; and once the key
//! is destroyed, nothing that is read again from Kafka brings back what was erased. The time at
//! which we read it would do neither.
//!
//! Kept are `archive` and `rejects`. What a topic's records hide is the union over all pipelines that
//! read it: the rejects of one hold the records of the others. Without a personal field nothing of
//! this runs.

mod key;
mod keys;
mod open;
mod redact;
mod ring;
mod seal;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use citycell_operators::{
    events::{Reason, Reject},
    records::Records,
};

use crate::pipeline::Pipeline;

pub use key::{MasterKey, MasterKeyError};
pub use keys::{DayState, Destroyed, Keys, KeysError, day_of};
pub use open::{Opened, Opener, Row};
pub use ring::KeyRing;
pub use seal::Place;

use redact::{Cut, Redacted};
use seal::{ERASED, Sealed};

/// What a reject's detail says where it is hidden.
const HIDDEN: &str = "hidden: it may quote a personal field";

/// Where the keys of personal fields lie, and what opens them.
#[derive(Clone, Debug)]
pub struct KeySettings {
    /// A folder, or the URL of an object store, for example `s3://bucket/path`.
    pub location: String,
    /// What they are wrapped with.
    pub master: MasterKey,
}

/// What one topic's records show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRules {
    /// The fields that some schema of the topic lists.
    listed: BTreeSet<String>,
    /// Of them, those that some schema calls personal.
    personal: BTreeSet<String>,
}

/// Seals what is personal in records that are kept.
pub struct Sealing {
    /// The topics with personal fields.
    topics: BTreeMap<String, TopicRules>,
    ring: KeyRing,
}

/// A record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept<'a> {
    /// What all may read.
    pub payload: Cow<'a, [u8]>,
    /// For a reject: its detail, as all may read it.
    pub detail: Cow<'a, str>,
    /// What was taken out of both; empty if nothing was.
    pub sealed: Vec<u8>,
}

/// The topics of `pipelines` that have personal fields.
#[must_use]
pub fn topic_rules(pipelines: &[Arc<Pipeline>]) -> BTreeMap<String, TopicRules> {
    let mut topics: BTreeMap<String, TopicRules> = BTreeMap::new();
    for pipeline in pipelines {
        for topic in &pipeline.plan.topics {
            let rules = topics.entry(topic.clone()).or_default();
            let names = pipeline.schema.fields.iter().map(|field| field.name.clone());
            rules.listed.extend(names);
            let personal = pipeline.schema.personal_fields().map(|field| field.name.clone());
            rules.personal.extend(personal);
        }
    }
    topics.retain(|_, rules| !rules.personal.is_empty());
    topics
}

/// The first personal field of `pipelines`, with its schema.
#[must_use]
pub fn first_personal(pipelines: &[Arc<Pipeline>]) -> Option<(&str, &str)> {
    pipelines.iter().find_map(|pipeline| {
        let field = pipeline.schema.personal_fields().next()?;
        Some((pipeline.schema.name.as_str(), field.name.as_str()))
    })
}

impl Sealing {
    /// Seals the records of these topics.
    #[must_use]
    pub fn new(topics: BTreeMap<String, TopicRules>, ring: KeyRing) -> Self {
        Self { topics, ring }
    }

    /// Record `index` as the archive keeps it.
    ///
    /// # Errors
    /// When the key of its day cannot be had.
    pub fn record<'a>(&self, records: &'a Records, index: usize) -> Result<Kept<'a>, KeysError> {
        let payload = records.payload(index).unwrap_or_default();
        let place = Place {
            table: "archive",
            topic: &records.topic,
            partition: records.partition,
            offset: records.offsets[index].0,
        };
        let record = Record { payload, detail: "", quotes: false };
        self.keep(record, place, records.broker_times_ms[index])
    }

    /// A reject as `rejects` keeps it.
    ///
    /// # Errors
    /// When the key of its day cannot be had.
    pub fn reject<'a>(&self, reject: &'a Reject) -> Result<Kept<'a>, KeysError> {
        let place = Place {
            table: "rejects",
            topic: &reject.topic,
            partition: reject.partition,
            offset: reject.offset.0,
        };
        let rules = self.topics.get(&*reject.topic);
        let record = Record {
            payload: &reject.payload,
            detail: &reject.detail,
            quotes: rules.is_some_and(|rules| rules.may_quote(reject)),
        };
        self.keep(record, place, reject.broker_time_ms)
    }

    fn keep<'a>(
        &self,
        record: Record<'a>,
        place: Place<'_>,
        broker_time_ms: i64,
    ) -> Result<Kept<'a>, KeysError> {
        let Record { payload, detail, quotes } = record;
        let as_it_is = Kept { payload: payload.into(), detail: detail.into(), sealed: Vec::new() };
        let Some(rules) = self.topics.get(place.topic) else { return Ok(as_it_is) };
        let Redacted { shown, cuts } = redact::redact(payload, rules);
        if cuts.is_empty() && !quotes {
            return Ok(as_it_is);
        }
        let sealed = match self.ring.key(broker_time_ms)? {
            Some(key) => {
                let detail = quotes.then_some(detail);
                key.seal(place, &Sealed { cuts, detail })
            }
            None => ERASED.to_vec(),
        };
        let detail = if quotes { HIDDEN } else { detail };
        Ok(Kept { payload: shown.into(), detail: detail.into(), sealed })
    }
}

/// What is to be kept of a record.
struct Record<'a> {
    payload: &'a [u8],
    detail: &'a str,
    /// Whether the detail may quote a personal field.
    quotes: bool,
}

impl TopicRules {
    /// Whether a field's values are for all: a field that no schema lists may say anything.
    fn shows(&self, field: &str) -> bool {
        self.listed.contains(field) && !self.personal.contains(field)
    }

    /// Whether a reject's detail may quote what is hidden. The details of the reasons named here
    /// quote nothing, or the value of their field, or the event's type; an expression's may quote
    /// anything.
    fn may_quote(&self, reject: &Reject) -> bool {
        match reject.reason {
            Reason::NotJson
            | Reason::NotUtf8
            | Reason::TooDeep
            | Reason::TooLarge
            | Reason::Empty
            | Reason::MissingField
            | Reason::RepeatedField
            | Reason::Future
            | Reason::MissingId
            | Reason::UnknownSchema
            | Reason::MissingPlace
            | Reason::OutsideGrid => false,
            Reason::WrongType | Reason::OutOfRange | Reason::UnknownValue | Reason::BadTime => {
                !reject.field.is_empty() && !self.shows(&reject.field)
            }
            Reason::Expression => true,
        }
    }
}
