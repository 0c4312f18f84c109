//! Decoding against its yardstick: typed `serde_json` over the same bytes.
//!
//! The typed side reads the same fields into a struct, the time as text; decoding also parses the
//! time, checks ranges and builds columns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, Int64Array, StringArray};
use citycell_operators::decode::{DecodeOptions, Decoder};
use citycell_operators::records::Records;
use citycell_schemas::Offset;
use citycell_schemas::event::shipped;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Deserialize;

use crate::city::PlacedBy;

/// The fields that both sides read.
const FIELDS: [&str; 7] =
    ["sensorId", "dateObserved", "lon", "lat", "category", "peopleCount", "capacity"];

/// How many records one call of `decode` gets, as from Kafka.
const BATCH: usize = 10_000;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Events decoded by each side.
    pub events: usize,
    /// Their mean size in bytes.
    pub bytes_per_event: usize,
    /// Decoding into columns, millions of events a second.
    pub columns_m_per_s: f64,
    /// Typed `serde_json` with owned strings, millions of events a second.
    pub typed_m_per_s: f64,
    /// Typed `serde_json` with borrowed strings, millions of events a second.
    pub typed_borrowed_m_per_s: f64,
    /// Over people counts and sensor ids; both sides must agree.
    pub hash: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed<S> {
    sensor_id: S,
    date_observed: S,
    lon: f64,
    lat: f64,
    category: S,
    people_count: i64,
    capacity: i64,
}

/// The same event with its cell's code.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypedByCode {
    sensor_id: String,
    date_observed: String,
    grid_code: String,
    category: String,
    people_count: i64,
    capacity: i64,
}

/// Decodes `events` seeded events `rounds` times on each side; the fastest round of each counts.
///
/// # Panics
/// If the sides disagree, or an event of our own making is refused.
#[must_use]
pub fn measure(events: usize, rounds: usize) -> Report {
    let batches = batches(events);
    let bytes: usize = batches.iter().map(Records::bytes).sum();
    let (columns, hash) = fastest(rounds, || columns(&batches));
    let (typed, typed_hash) = fastest(rounds, || typed(&batches, PlacedBy::Point));
    let (borrowed, borrowed_hash) = fastest(rounds, || borrowed(&batches));
    assert_eq!((hash, hash), (typed_hash, borrowed_hash), "both sides read the same events");
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = |time: Duration| events as f64 / time.as_secs_f64() / 1e6;
    Report {
        events,
        bytes_per_event: bytes / events.max(1),
        columns_m_per_s: rate(columns),
        typed_m_per_s: rate(typed),
        typed_borrowed_m_per_s: rate(borrowed),
        hash,
    }
}

fn fastest(rounds: usize, mut run: impl FnMut() -> u64) -> (Duration, u64) {
    let timed = (0..rounds.max(1)).map(|_| {
        let start = Instant::now();
        let hash = run();
        (start.elapsed(), hash)
    });
    timed.min().expect("at least one round")
}

fn batches(events: usize) -> Vec<Records> {
    let mut rng = StdRng::seed_from_u64(1);
    let mut batches = Vec::new();
    for offset in 0..events {
        if offset % BATCH == 0 {
            batches.push(Records::new(Arc::from("city.crowd.flow"), 0));
        }
        let payload = format!(
            "{{\"sensorId\":\"s{:05}\",\"dateObserved\":\"2026-03-01T08:{:02}:{:02}+08:00\",\
             \"lon\":112.{:06},\"lat\":28.{:06},\"category\":\"shopping mall\",\"peopleCount\":{},\
             \"capacity\":5000}}",
            rng.random_range(0..50_000),
            rng.random_range(0..60),
            rng.random_range(0..60),
            rng.random_range(0..1_000_000),
            rng.random_range(0..1_000_000),
            rng.random_range(100..1000),
        );
        let offset = Offset(i64::try_from(offset).expect("a small number"));
        let batch = batches.last_mut().expect("one was pushed");
        batch.push(offset, 1_772_323_200_000, Some(payload.as_bytes()), None);
    }
    batches
}

fn mix(hash: u64, people: i64, sensor: &str) -> u64 {
    let last = u64::from(sensor.as_bytes().last().copied().unwrap_or_default());
    (hash.rotate_left(5) ^ people.cast_unsigned() ^ last).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn columns(batches: &[Records]) -> u64 {
    let schema = shipped().into_iter().find(|schema| schema.name == "crowd_flow").expect("shipped");
    let mut decoder =
        Decoder::new(&schema, &FIELDS, DecodeOptions::default()).expect("fields of the schema");
    let mut hash = 0;
    for batch in batches {
        let decoded = decoder.decode(0, batch);
        assert_eq!(decoded.rejects, []);
        let columns = &decoded.events.columns;
        let column = |name| columns.column_by_name(name).expect("asked for").as_any();
        let people = column("peopleCount").downcast_ref::<Int64Array>().expect("integers");
        let sensors = column("sensorId").downcast_ref::<StringArray>().expect("texts");
        for row in 0..columns.num_rows() {
            hash = mix(hash, people.value(row), sensors.value(row));
        }
    }
    hash
}

/// Decodes into structs with owned strings; the fields are those of `placed_by`.
pub(crate) fn typed<'a>(
    batches: impl IntoIterator<Item = &'a Records>,
    placed_by: PlacedBy,
) -> u64 {
    let mut hash = 0;
    for payload in payloads(batches) {
        match placed_by {
            PlacedBy::Point => {
                let event: Typed<String> = serde_json::from_slice(payload).expect("our own JSON");
                hash = mix(hash, event.people_count, &event.sensor_id);
                keep(&event);
            }
            PlacedBy::Code => {
                let event: TypedByCode = serde_json::from_slice(payload).expect("our own JSON");
                hash = mix(hash, event.people_count, &event.sensor_id);
                std::hint::black_box((&event.date_observed, &event.grid_code));
                std::hint::black_box((&event.category, event.capacity));
            }
        }
    }
    hash
}

fn borrowed(batches: &[Records]) -> u64 {
    let mut hash = 0;
    for payload in payloads(batches) {
        let event: Typed<&str> = serde_json::from_slice(payload).expect("our own JSON");
        hash = mix(hash, event.people_count, event.sensor_id);
        keep(&event);
    }
    hash
}

/// Keeps the compiler from leaving out the fields that the hash does not need.
fn keep<S>(event: &Typed<S>) {
    std::hint::black_box((&event.date_observed, event.lon, event.lat));
    std::hint::black_box((&event.category, event.capacity));
}

fn payloads<'a>(batches: impl IntoIterator<Item = &'a Records>) -> impl Iterator<Item = &'a [u8]> {
    batches.into_iter().flat_map(|batch| (0..batch.len()).filter_map(|index| batch.payload(index)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_read_the_same_events() {
        let report = measure(1_000, 1);
        assert_eq!((report.events, report.hash), (1_000, measure(1_000, 2).hash));
        assert_eq!(report.bytes_per_event, 158);
    }
}
