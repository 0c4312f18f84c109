//! What holds for records of any bytes; `make fuzz` looks for some that break it.
//!
//! An input is a byte that says how ids are found and which schema it is, then records separated by
//! byte 0x1e. A record is a payload, or CloudEvents id, source, type and payload separated by 0x1f.

use std::sync::LazyLock;

use arrow::record_batch::RecordBatch;
use citycell_schemas::event::shipped;
use citycell_schemas::{EventSchema, Offset};
use serde::de::IgnoredAny;

use super::{DecodeOptions, Decoded, Decoder, IdSource};
use crate::events::{EventId, Reason};
use crate::records::{CloudEventHeaders, Records};

const ALL_TYPES: &str = "
name: all_types
version: 1
description: A field of every kind.
fields:
  - {name: name, type: text, meaning: m, required: true}
  - {name: kind, type: text, meaning: m, values: [red, green]}
  - {name: count, type: integer, meaning: m, range: {min: 0, max: 100}}
  - {name: serial, type: integer, meaning: m}
  - {name: share, type: number, meaning: m, range: {min: -1.5, max: 1.5}}
  - {name: level, type: number, meaning: m}
  - {name: open, type: boolean, meaning: m}
  - {name: at, type: time, meaning: m}
  - {name: at_ms, type: time, meaning: m, format: epoch_ms}
";

const BYTES_MAX: usize = 2_000;
const DEPTH_MAX: usize = 8;

/// What became of one record.
#[derive(Debug, PartialEq)]
enum Fate {
    Event(RecordBatch, Option<EventId>),
    Withdrawal(EventId),
    Reject(Reason, String, String),
}

/// Decodes the records of `data`, all together, each alone, and each payload the short way and the
/// long way.
///
/// # Panics
/// If a record is not accounted for once, or what becomes of it depends on how it came.
pub fn hold(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let schema = schema(mode / 3);
    let ids = ids(mode % 3, schema);
    let records = records(rest);
    let decoded = decoder(schema, ids.clone(), 0).decode(0, &records);
    let together: Vec<Fate> = (0..records.len()).map(|index| fate(&decoded, index)).collect();
    let (events, withdrawals) = (decoded.events.offsets.len(), decoded.withdrawals.len());
    assert_eq!(events + withdrawals + decoded.rejects.len(), records.len());
    let mut binary = decoder(schema, IdSource::CloudEvents, 0);
    let mut structured = decoder(schema, IdSource::CloudEvents, 1);
    for (index, together) in together.iter().enumerate() {
        let alone = decoder(schema, ids.clone(), 0).decode(0, &only(&records, index));
        assert_eq!(fate(&alone, 0), *together);
        if let Some(payload) = records.payload(index) {
            read_both_ways(&mut binary, &mut structured, payload);
        }
    }
}

/// A payload beside headers is first read by the parser of plain objects, the data of a structured
/// event are read by the full one.
fn read_both_ways(binary: &mut Decoder, structured: &mut Decoder, payload: &[u8]) {
    let Ok(text) = std::str::from_utf8(payload) else { return };
    let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
    if !is_json || text.trim() == "null" || payload.len() > BYTES_MAX {
        return;
    }
    let headers = CloudEventHeaders {
        id: Some("i".into()),
        source: Some("s".into()),
        ..CloudEventHeaders::default()
    };
    let beside = fate(&binary.decode(0, &one(payload, Some(Box::new(headers)))), 0);
    let envelope = format!(r#"{{"id":"i","source":"s","data":{text}}}"#);
    let within = fate(&structured.decode(0, &one(envelope.as_bytes(), None)), 0);
    match (&beside, &within) {
        // They say how deep is too deep.
        (Fate::Reject(reason, ..), Fate::Reject(other, ..)) if *reason == Reason::TooDeep => {
            assert_eq!(reason, other);
        }
        _ => assert_eq!(beside, within, "{text}"),
    }
}

/// The schemas that come with the program, then one of all types.
fn schema(number: u8) -> &'static EventSchema {
    static SCHEMAS: LazyLock<Vec<EventSchema>> = LazyLock::new(|| {
        let all_types = EventSchema::from_yaml("all_types.yaml", ALL_TYPES);
        shipped().into_iter().chain([all_types.expect("a good schema")]).collect()
    });
    &SCHEMAS[usize::from(number) % SCHEMAS.len()]
}

fn ids(mode: u8, schema: &EventSchema) -> IdSource {
    let kinds = ["text", "integer"];
    let fields = schema.fields.iter().filter(|field| kinds.contains(&field.kind.as_str()));
    match mode {
        0 => IdSource::CloudEvents,
        1 => IdSource::Fields(fields.map(|field| field.name.clone()).take(2).collect()),
        _ => IdSource::None,
    }
}

/// A decoder of every field; an envelope is one level deeper than its data.
fn decoder(schema: &EventSchema, ids: IdSource, envelopes: usize) -> Decoder {
    let fields: Vec<&str> = schema.fields.iter().map(|field| field.name.as_str()).collect();
    let (payload_bytes_max, depth_max) = (BYTES_MAX + 100 * envelopes, DEPTH_MAX + envelopes);
    let options = DecodeOptions { ids, payload_bytes_max, depth_max };
    Decoder::new(schema, &fields, options).expect("fields of the schema")
}

fn records(data: &[u8]) -> Records {
    let mut records = Records::new("fuzz".into(), 0);
    for (offset, record) in (0..).zip(data.split(|byte| *byte == 0x1e)) {
        let parts: Vec<&[u8]> = record.splitn(4, |byte| *byte == 0x1f).collect();
        let (headers, payload) = match parts[..] {
            [id, source, kind, payload] => {
                let text = |bytes: &[u8]| {
                    Some(String::from_utf8_lossy(bytes).into_owned()).filter(|text| text != "-")
                };
                let (id, source, kind) = (text(id), text(source), text(kind));
                let headers = CloudEventHeaders { id, source, kind, ..Default::default() };
                (Some(Box::new(headers)), payload)
            }
            _ => (None, record),
        };
        records.push(Offset(offset), 0, Some(payload).filter(|bytes| *bytes != b"\0"), headers);
    }
    records
}

fn one(payload: &[u8], headers: Option<Box<CloudEventHeaders>>) -> Records {
    let mut records = Records::new("fuzz".into(), 0);
    records.push(Offset(0), 0, Some(payload), headers);
    records
}

fn only(records: &Records, index: usize) -> Records {
    let mut only = Records::new("fuzz".into(), 0);
    only.push(Offset(0), 0, records.payload(index), records.headers[index].clone());
    only
}

/// What became of the record whose offset is `index`.
fn fate(decoded: &Decoded, index: usize) -> Fate {
    let offset = Offset(i64::try_from(index).expect("few records"));
    let Decoded { events, withdrawals, rejects } = decoded;
    if let Ok(row) = events.offsets.binary_search(&offset) {
        return Fate::Event(events.columns.slice(row, 1), events.ids.get(row).copied());
    }
    if let Some(withdrawal) = withdrawals.iter().find(|entry| entry.position.offset == offset) {
        return Fate::Withdrawal(withdrawal.id);
    }
    let reject = rejects.iter().find(|reject| reject.offset == offset);
    let reject = reject.expect("a record that is nothing else is a reject");
    Fate::Reject(reject.reason, reject.field.clone(), reject.detail.clone())
}

#[cfg(test)]
mod tests {
    #[test]
    fn inputs_that_once_broke_it_do_no_more() {
        for input in std::fs::read_dir("../fuzz/inputs/decode").expect("kept inputs") {
            let input = input.expect("a file").path();
            super::hold(&std::fs::read(&input).expect("its bytes"));
        }
    }
}
