//! What the simulator hands to a producer, and the truth it keeps beside it.

use serde::Serialize;

use crate::bad::BadKind;

/// One record on its way to Kafka.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedRecord {
    /// Where it goes.
    pub topic: &'static str,
    /// The partition it goes to: its sensor's, but for some copies.
    pub partition: i32,
    /// The sensor's id.
    pub key: String,
    /// The event as JSON; `None` is Kafka's null value.
    pub payload: Option<Vec<u8>>,
    /// CloudEvents attributes in Kafka's binary mode: `ce_id`, `ce_source` and so on.
    pub headers: Vec<(&'static str, String)>,
    /// When it is sent, ms since 1970 by the city's clock; the broker's timestamp.
    pub broker_time_ms: i64,
    /// What the simulator did to it.
    pub planted: Planted,
}

/// What the simulator did to a record, for tests of shares; no oracle needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Planted {
    /// Nothing: an event in time.
    OnTime,
    /// An event that arrives long after it happened.
    Late,
    /// A copy of an event, of the same id and content.
    Copy,
    /// A copy of the same id with another measurement.
    DifferingCopy,
    /// A withdrawal: null with an id.
    Withdrawal,
    /// A record that cannot be counted.
    Bad(BadKind),
}

/// A record as the oracle reads it: one JSON line, bytes in hexadecimal.
///
/// Everything that decides a number is here, so that SQL over these rows alone can recompute it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RawRow {
    /// Its topic.
    pub topic: &'static str,
    /// Its partition.
    pub partition: i32,
    /// The offset the broker gave it.
    pub offset: i64,
    /// The broker's timestamp, ms since 1970.
    pub broker_time_ms: i64,
    /// The payload's bytes in hexadecimal, empty for a null value.
    pub payload_hex: String,
    /// Whether the value is null.
    pub is_null: bool,
    /// `ce_id`, or empty.
    pub ce_id: String,
    /// `ce_source`, or empty.
    pub ce_source: String,
    /// `ce_type`, or empty.
    pub ce_type: String,
    /// `ce_time`, or empty.
    pub ce_time: String,
    /// `ce_recordedtime`, or empty.
    pub ce_recordedtime: String,
}

impl SimulatedRecord {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    /// The row of this record once the broker has given it `offset`.
    #[must_use]
    pub fn raw_row(&self, offset: i64) -> RawRow {
        let header = |name| self.header(name).unwrap_or_default().to_owned();
        RawRow {
            topic: self.topic,
            partition: self.partition,
            offset,
            broker_time_ms: self.broker_time_ms,
            payload_hex: hexadecimal(self.payload.as_deref().unwrap_or_default()),
            is_null: self.payload.is_none(),
            ce_id: header("ce_id"),
            ce_source: header("ce_source"),
            ce_type: header("ce_type"),
            ce_time: header("ce_time"),
            ce_recordedtime: header("ce_recordedtime"),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Planted, SimulatedRecord};

    #[test]
    fn a_raw_row_keeps_bytes_and_headers() {
        let record = SimulatedRecord {
            topic: "city.crowd.flow",
            partition: 2,
            key: "crowd-1".to_owned(),
            payload: Some(vec![0, 0xff, b'{']),
            headers: vec![("ce_id", "crowd-1-7".to_owned())],
            broker_time_ms: 5,
            planted: Planted::OnTime,
        };
        let line = serde_json::to_value(record.raw_row(9)).unwrap();
        assert_eq!(line["payload_hex"], "00FF7B");
        assert_eq!(line["offset"], 9);
        assert_eq!(line["ce_id"], "crowd-1-7");
        assert_eq!(line["ce_time"], "");
        let withdrawal = SimulatedRecord { payload: None, ..record }.raw_row(10);
        assert!(withdrawal.is_null && withdrawal.payload_hex.is_empty());
    }
}
