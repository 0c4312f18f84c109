//! Good events keep to their schemas and stand where they say.

use citycell_schemas::event::{EventSchema, FieldType, shipped};
use citycell_simulator::{City, District, Planted, SimulatedRecord, SimulatorConfig, Stream};
use serde_json::Value;

use crate::SECOND_MS;

fn good_events() -> (District, Vec<(SimulatedRecord, Value)>) {
    let mut city = City::new(11, SimulatorConfig::default()).unwrap();
    let records = city.next_batch(city.now_ms() + 20 * SECOND_MS);
    let events = records
        .into_iter()
        .filter(|record| matches!(record.planted, Planted::OnTime | Planted::Late))
        .map(|record| {
            let payload = serde_json::from_slice(record.payload.as_deref().unwrap()).unwrap();
            (record, payload)
        })
        .collect();
    (city.district().clone(), events)
}

#[test]
fn every_field_is_of_its_schema() {
    let schemas = shipped();
    for (record, payload) in good_events().1 {
        let schema = schemas
            .iter()
            .find(|schema| schema.cloudevents_type.as_deref() == record.header("ce_type"))
            .unwrap();
        for (name, value) in payload.as_object().unwrap() {
            assert!(fits(schema, name, value), "{name} = {value} in {}", schema.name);
        }
        for field in schema.fields.iter().filter(|field| field.required) {
            assert!(!payload[&field.name].is_null(), "{} in {}", field.name, schema.name);
        }
    }
}

fn fits(schema: &EventSchema, name: &str, value: &Value) -> bool {
    let field = schema.field(name).unwrap_or_else(|| panic!("{name} is no field"));
    let in_range = |number: f64| field.range.is_none_or(|range| range.contains(number));
    match field.kind {
        FieldType::Time => value.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(),
        FieldType::Text => {
            let text = value.as_str().unwrap();
            field.values.is_empty() || field.values.iter().any(|allowed| allowed == text)
        }
        FieldType::Boolean => value.is_boolean(),
        _ => in_range(value.as_f64().unwrap()),
    }
}

#[test]
fn every_event_stands_in_the_cell_it_names() {
    let (district, events) = good_events();
    for (record, payload) in events {
        let (lon, lat) = (payload["lon"].as_f64().unwrap(), payload["lat"].as_f64().unwrap());
        let (lon, lat) = if record.topic == Stream::Environment.topic() {
            (lon, lat)
        } else {
            coordtransform::gcj02_to_wgs84(lon, lat)
        };
        let cell = district.cells().iter().find(|cell| payload["gridCode"] == cell.code).unwrap();
        let (west, north) = district.point_in(cell, 0.0, 0.0);
        let (east, south) = district.point_in(cell, 1.0, 1.0);
        assert!(west < lon && lon < east && south < lat && lat < north, "{payload}");
    }
}

#[test]
fn every_stream_reports_on_every_partition() {
    let events = good_events().1;
    for stream in Stream::ALL {
        for partition in 0..SimulatorConfig::default().partitions {
            let reported = events
                .iter()
                .any(|(record, _)| record.topic == stream.topic() && record.partition == partition);
            assert!(reported, "{stream:?} partition {partition}");
        }
    }
}

#[test]
fn an_event_carries_its_own_time_in_utc_and_in_the_citys_zone() {
    for (record, payload) in good_events().1 {
        let header: jiff::Timestamp = record.header("ce_time").unwrap().parse().unwrap();
        let observed: jiff::Timestamp = payload["dateObserved"].as_str().unwrap().parse().unwrap();
        assert_eq!(header, observed);
        assert!(payload["dateObserved"].as_str().unwrap().ends_with("+08:00"));
    }
}
