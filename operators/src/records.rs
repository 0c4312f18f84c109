//! Records as Kafka delivered them: bytes, positions and CloudEvents attributes.

use std::sync::Arc;

use citycell_schemas::Offset;

/// The attributes of a CloudEvent in Kafka's binary mode, from the `ce_` headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudEventHeaders {
    /// `ce_id`: with `source`, the event's identity.
    pub id: Option<String>,
    /// `ce_source`.
    pub source: Option<String>,
    /// `ce_type`.
    pub kind: Option<String>,
    /// `ce_time`, RFC 3339.
    pub time: Option<String>,
    /// `ce_recordedtime`, RFC 3339: when the source recorded it.
    pub recorded_time: Option<String>,
}

/// A run of records of one partition, in offset order, their payloads in one buffer.
#[derive(Clone, Debug)]
pub struct Records {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
    /// One offset per record, ascending.
    pub offsets: Vec<Offset>,
    /// The broker's timestamp of each record, ms since 1970.
    pub broker_times_ms: Vec<i64>,
    /// The CloudEvents headers of each record that has any.
    pub headers: Vec<Option<Box<CloudEventHeaders>>>,
    buffer: Vec<u8>,
    ends: Vec<usize>,
    nulls: Vec<bool>,
}

impl Records {
    /// No records yet of this partition.
    #[must_use]
    pub fn new(topic: Arc<str>, partition: i32) -> Self {
        Self {
            topic,
            partition,
            offsets: Vec::new(),
            broker_times_ms: Vec::new(),
            headers: Vec::new(),
            buffer: Vec::new(),
            ends: Vec::new(),
            nulls: Vec::new(),
        }
    }

    /// Appends one record; a `payload` of `None` is Kafka's null value (a tombstone).
    pub fn push(
        &mut self,
        offset: Offset,
        broker_time_ms: i64,
        payload: Option<&[u8]>,
        headers: Option<Box<CloudEventHeaders>>,
    ) {
        self.offsets.push(offset);
        self.broker_times_ms.push(broker_time_ms);
        self.headers.push(headers);
        self.buffer.extend_from_slice(payload.unwrap_or_default());
        self.ends.push(self.buffer.len());
        self.nulls.push(payload.is_none());
    }

    /// Keeps the records before `next_offset` and returns the others.
    #[must_use]
    pub fn split_off(&mut self, next_offset: Offset) -> Self {
        let kept = self.offsets.partition_point(|offset| *offset < next_offset);
        let mut rest = Self::new(Arc::clone(&self.topic), self.partition);
        if kept == self.len() {
            return rest;
        }
        if kept == 0 {
            return std::mem::replace(self, rest);
        }
        let bytes = self.ends[kept - 1];
        rest.offsets = self.offsets.split_off(kept);
        rest.broker_times_ms = self.broker_times_ms.split_off(kept);
        rest.headers = self.headers.split_off(kept);
        rest.buffer = self.buffer.split_off(bytes);
        rest.ends = self.ends.split_off(kept).into_iter().map(|end| end - bytes).collect();
        rest.nulls = self.nulls.split_off(kept);
        rest
    }

    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The payload bytes of all records together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The payload of record `index`; `None` is a null value.
    #[must_use]
    pub fn payload(&self, index: usize) -> Option<&[u8]> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        (!self.nulls[index]).then(|| &self.buffer[start..self.ends[index]])
    }
}
