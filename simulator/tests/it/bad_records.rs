//! Every kind of bad record occurs, and none of them is a good one.

use std::collections::HashMap;

use citycell_schemas::event::shipped;
use citycell_simulator::{BadKind, Planted, SimulatedRecord, SimulatorConfig, Stream};
use serde_json::Value;

use crate::records;

fn bad_records() -> Vec<(BadKind, SimulatedRecord)> {
    let config = SimulatorConfig { bad_share: 0.5, ..SimulatorConfig::default() };
    let kind_of = |record: &SimulatedRecord| match record.planted {
        Planted::Bad(kind) => Some(kind),
        _ => None,
    };
    records(9, 5, config)
        .into_iter()
        .filter_map(|record| kind_of(&record).map(|kind| (kind, record)))
        .collect()
}

#[test]
fn every_kind_occurs_in_every_stream() {
    let mut counts: HashMap<(BadKind, &str), usize> = HashMap::new();
    for (kind, record) in bad_records() {
        *counts.entry((kind, record.topic)).or_default() += 1;
    }
    for kind in BadKind::ALL {
        for stream in Stream::ALL {
            assert!(counts.contains_key(&(kind, stream.topic())), "{kind:?} in {stream:?}");
        }
    }
}

#[test]
fn what_should_not_parse_does_not() {
    let unparsable = [
        BadKind::NotJson,
        BadKind::Truncated,
        BadKind::NotANumber,
        BadKind::DeeplyNested,
        BadKind::InvalidUtf8,
        BadKind::Empty,
    ];
    for (kind, record) in bad_records() {
        let parsed: Option<Value> =
            record.payload.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok());
        let expected = !unparsable.contains(&kind) && kind != BadKind::TombstoneWithoutId;
        assert_eq!(parsed.is_some(), expected, "{kind:?}");
    }
}

#[test]
fn what_parses_is_bad_in_the_way_it_says() {
    let schemas = shipped();
    for (kind, record) in bad_records() {
        let text = record.payload.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        let payload: Value = serde_json::from_str(&text).unwrap_or_default();
        let schema = schemas
            .iter()
            .find(|schema| schema.cloudevents_type.as_deref() == Some(record.topic))
            .unwrap();
        let holds = match kind {
            BadKind::RepeatedKey => schema
                .fields
                .iter()
                .any(|field| text.matches(&format!("\"{}\":", field.name)).count() == 2),
            BadKind::WrongType => payload.as_object().unwrap().values().any(Value::is_object),
            BadKind::OutOfRange => text.contains("on fire") || text.contains(":-5"),
            BadKind::MissingPlace => payload["lon"].is_null() && payload["gridCode"].is_null(),
            BadKind::OutsideGrid => payload["lon"] == 115.0,
            BadKind::TimeWithoutZone => !payload["dateObserved"].as_str().unwrap().contains('+'),
            BadKind::Oversized => text.len() > 65_536,
            BadKind::UnknownSchema => record.header("ce_type") == Some("city.nobody.knows"),
            BadKind::TombstoneWithoutId => record.payload.is_none() && record.headers.is_empty(),
            BadKind::FarFuture => days_ahead(&record, &payload) == 1,
            _ => true,
        };
        assert!(holds, "{kind:?}: {text}");
    }
}

fn days_ahead(record: &SimulatedRecord, payload: &Value) -> i64 {
    let observed: jiff::Timestamp = payload["dateObserved"].as_str().unwrap().parse().unwrap();
    (observed.as_millisecond() - record.broker_time_ms) / 86_400_000
}
