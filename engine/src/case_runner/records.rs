//! The given records of a case as Kafka would deliver them.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{array::AsArray, datatypes::TimestampMillisecondType};
use citycell_operators::{
    decode::{Decoder, IdSource},
    records::Records,
};
use citycell_schemas::Offset;
use serde_json::{Map, Value, json};

use crate::{
    config::{GivenEvent, GivenRecord, TestCase},
    pipeline::Pipeline,
};

use super::city::City;

/// What every event of a case names as its CloudEvents source.
const SOURCE: &str = "case";

/// One batch of one record for each given record, in their order.
pub(super) fn records(
    pipeline: &Pipeline,
    case: &TestCase,
    city: &City,
    decoder: &mut Decoder,
) -> Vec<Records> {
    let topic: Arc<str> = pipeline.plan.topics.first().map_or("", String::as_str).into();
    let payloads: Vec<Vec<u8>> =
        case.given.iter().map(|given| payload(pipeline, given, city)).collect();
    let record = |number: usize, broker_time_ms| {
        let mut records = Records::new(Arc::clone(&topic), case.given[number].partition);
        records.push(Offset(number as i64), broker_time_ms, Some(&payloads[number]), None);
        records
    };
    let own_times: Vec<Option<i64>> = (0..case.given.len())
        .map(|number| {
            let given = &case.given[number];
            given.broker_time_ms.or_else(|| event_time(pipeline, &record(number, 0), decoder))
        })
        .collect();
    // Records before the first time that the case names came at that time.
    let mut broker_time_ms = own_times.iter().flatten().next().copied().unwrap_or(0);
    let mut all = Vec::new();
    for (number, own_time) in own_times.into_iter().enumerate() {
        broker_time_ms = own_time.unwrap_or(broker_time_ms);
        all.push(record(number, broker_time_ms));
    }
    all
}

/// The time of the event that a record holds, if it is a good one.
fn event_time(pipeline: &Pipeline, records: &Records, decoder: &mut Decoder) -> Option<i64> {
    let decoded = decoder.decode(0, records);
    let times = decoded.events.columns.column_by_name(&pipeline.plan.event_time)?;
    times.as_primitive_opt::<TimestampMillisecondType>()?.iter().next()?
}

fn payload(pipeline: &Pipeline, given: &GivenEvent, city: &City) -> Vec<u8> {
    let text = match &given.record {
        GivenRecord::Raw(text) => text.clone(),
        GivenRecord::Withdrawal { id } => envelope(pipeline, id, None).to_string(),
        GivenRecord::Event(event) => {
            let mut event = event.clone();
            if let Some(code) = &given.cell {
                city.put(&mut event, code);
            }
            match pipeline.decode.ids {
                IdSource::CloudEvents => envelope(pipeline, &given.id, Some(event)).to_string(),
                IdSource::Fields(_) | IdSource::None => Value::Object(event).to_string(),
            }
        }
    };
    text.into_bytes()
}

/// A CloudEvent in structured mode; without data it takes the event of this id back.
fn envelope(pipeline: &Pipeline, id: &str, data: Option<Map<String, Value>>) -> Value {
    let mut event = BTreeMap::from([
        ("specversion", json!("1.0")),
        ("id", json!(id)),
        ("source", json!(SOURCE)),
    ]);
    event.extend(pipeline.schema.cloudevents_type.as_ref().map(|kind| ("type", json!(kind))));
    event.extend(data.map(|data| ("data", Value::Object(data))));
    json!(event)
}
