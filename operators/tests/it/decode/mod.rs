//! Decoding is held to a naive one through JSON trees: same rows, same ids, same reasons.

mod bad_records;
mod naive;
mod random_records;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMillisecondType};
use citycell_operators::decode::{DecodeOptions, Decoded, Decoder, IdSource};
use citycell_operators::records::Records;
use citycell_schemas::{EventSchema, Offset};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use naive::{Naive, Verdict};

const SCHEMA: &str = "
name: all_types
version: 1
description: A field of every kind.
cloudevents_type: test.all
fields:
  - {name: name, type: text, meaning: m, required: true}
  - {name: kind, type: text, meaning: m, values: [red, green]}
  - {name: count, type: integer, meaning: m, range: {min: 0, max: 100}}
  - {name: serial, type: integer, meaning: m}
  - {name: share, type: number, meaning: m, range: {min: -1.5, max: 1.5}}
  - {name: level, type: number, meaning: m}
  - {name: open, type: boolean, meaning: m}
  - {name: at, type: time, meaning: m, required: true}
  - {name: at_ms, type: time, meaning: m, format: epoch_ms}
  - {name: unread, type: text, meaning: m, required: true}
";

const FIELDS: [&str; 9] =
    ["name", "kind", "count", "serial", "share", "level", "open", "at", "at_ms"];

fn schema() -> EventSchema {
    EventSchema::from_yaml("all_types.yaml", SCHEMA).expect("a good schema")
}

fn options(ids: IdSource) -> DecodeOptions {
    DecodeOptions { ids, payload_bytes_max: 2_000, depth_max: 8 }
}

fn decoder(ids: IdSource) -> Decoder {
    Decoder::new(&schema(), &FIELDS, options(ids)).expect("fields of the schema")
}

/// The cells of a row as text, none where null.
type Row = Vec<Option<String>>;

fn rows(decoded: &Decoded) -> Vec<Row> {
    let columns = &decoded.events.columns;
    (0..columns.num_rows())
        .map(|row| columns.columns().iter().map(|column| cell(column.as_ref(), row)).collect())
        .collect()
}

fn cell(column: &dyn Array, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        _ => column.as_primitive::<TimestampMillisecondType>().value(row).to_string(),
    })
}

/// Decodes and checks what always holds: every record is accounted for, once.
fn decode(decoder: &mut Decoder, records: &Records) -> Decoded {
    let decoded = decoder.decode(3, records);
    let (events, withdrawals) = (&decoded.events, &decoded.withdrawals);
    let mut offsets: Vec<Offset> = events.offsets.clone();
    offsets.extend(withdrawals.iter().map(|withdrawal| withdrawal.position.offset));
    offsets.extend(decoded.rejects.iter().map(|reject| reject.offset));
    offsets.sort();
    assert_eq!(offsets, records.offsets);
    assert_eq!(events.columns.num_rows(), events.offsets.len());
    assert_eq!(events.broker_times_ms.len(), events.offsets.len());
    decoded
}

fn assert_like_naive(ids: IdSource, records: &Records) {
    let decoded = decode(&mut decoder(ids.clone()), records);
    let mut naive = Naive::new(schema(), &FIELDS, options(ids));
    let (mut rows_due, mut ids_due, mut withdrawals_due, mut rejects_due) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for index in 0..records.len() {
        match naive.judge(records.payload(index), records.headers[index].as_deref()) {
            Verdict::Event(row, id) => {
                rows_due.push(row);
                ids_due.extend(id);
            }
            Verdict::Withdrawal(id) => withdrawals_due.push(id),
            Verdict::Reject(reason, field) => {
                rejects_due.push((records.offsets[index], reason, field));
            }
        }
    }
    let rejects: Vec<_> = decoded
        .rejects
        .iter()
        .map(|reject| (reject.offset, reject.reason, reject.field.clone()))
        .collect();
    let text = |index: i64| {
        let payload = records.payload(usize::try_from(index).unwrap_or_default());
        String::from_utf8_lossy(payload.unwrap_or_default()).into_owned()
    };
    for (found, due) in rejects.iter().zip(&rejects_due) {
        assert_eq!(found, due, "{}", text(found.0.0.min(due.0.0)));
    }
    assert_eq!(rejects.len(), rejects_due.len());
    assert_eq!(rows(&decoded), rows_due);
    assert_eq!(decoded.events.ids, ids_due);
    let withdrawals: Vec<_> = decoded.withdrawals.iter().map(|entry| entry.id).collect();
    assert_eq!(withdrawals, withdrawals_due);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn decodes_like_json_trees(seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let by_fields = IdSource::Fields(vec!["name".to_owned(), "serial".to_owned()]);
        for ids in [IdSource::None, by_fields, IdSource::CloudEvents] {
            let records = random_records::batch(&mut rng, &ids, 40);
            assert_like_naive(ids, &records);
        }
    }

    #[test]
    fn any_bytes_are_accounted_for(payloads: Vec<Option<Vec<u8>>>) {
        let mut records = Records::new("any".into(), 0);
        for (offset, payload) in (0..).zip(&payloads) {
            records.push(Offset(offset), 0, payload.as_deref(), None);
        }
        decode(&mut decoder(IdSource::None), &records);
        decode(&mut decoder(IdSource::CloudEvents), &records);
    }

    #[test]
    fn any_text_of_json_signs_is_accounted_for(
        texts in proptest::collection::vec("[\\[\\]{}:,\"\\\\a-e0-9u. -]{0,40}", 1..20),
    ) {
        let mut records = Records::new("any".into(), 0);
        for (offset, text) in (0..).zip(&texts) {
            let wrapped = format!("{{\"name\": {text}, \"data\": {text}}}");
            records.push(Offset(offset), 0, Some(wrapped.as_bytes()), None);
        }
        decode(&mut decoder(IdSource::None), &records);
        decode(&mut decoder(IdSource::CloudEvents), &records);
    }
}
