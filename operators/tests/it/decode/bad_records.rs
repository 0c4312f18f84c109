//! Every kind of bad record by name, between two good ones that are counted.

use citycell_operators::decode::{DecodeOptions, Decoder, DecoderError, IdSource, event_id};
use citycell_operators::events::{Reason, Reject};
use citycell_operators::records::{CloudEventHeaders, Records};
use citycell_schemas::Offset;

use super::{FIELDS, schema};

const GOOD: &[u8] = br#"{"name": "n", "at": "2026-03-01T08:00:00+08:00", "count": 1}"#;

fn decode_between(payload: Option<&[u8]>) -> Reject {
    let mut records = Records::new("city.test".into(), 0);
    for (offset, payload) in (10..).zip([Some(GOOD), payload, Some(GOOD)]) {
        records.push(Offset(offset), 0, payload, None);
    }
    let mut decoder = Decoder::new(&schema(), &FIELDS, DecodeOptions::default()).expect("known");
    let mut decoded = decoder.decode(0, &records);
    assert_eq!(decoded.events.offsets, [Offset(10), Offset(12)]);
    assert_eq!(decoded.withdrawals, []);
    let reject = decoded.rejects.pop().expect("a reject");
    assert_eq!((reject.offset, decoded.rejects.len()), (Offset(11), 0));
    assert_eq!(reject.payload, payload.unwrap_or_default());
    reject
}

#[test]
fn each_bad_record_has_its_reason_and_leaves_its_batch_alone() {
    let with =
        |fields: &str| format!("{{\"name\": \"n\", \"at\": \"2026-03-01T00:00:00Z\"{fields}}}");
    let cases: [(Reason, &str, String); 16] = [
        (Reason::NotJson, "", "count=3".to_owned()),
        (Reason::NotJson, "", with("").replace('}', "")),
        (Reason::NotJson, "", with(", \"level\": NaN")),
        (Reason::OutOfRange, "level", with(", \"level\": \"NaN\"")),
        (Reason::OutOfRange, "level", with(", \"level\": 1e999")),
        (Reason::OutOfRange, "at_ms", with(", \"at_ms\": 1e999")),
        (Reason::OutOfRange, "count", with(", \"count\": 101")),
        (Reason::WrongType, "count", with(", \"count\": \"101\"")),
        (Reason::WrongType, "", "[]".to_owned()),
        (Reason::RepeatedField, "count", with(", \"count\": 1, \"count\": 1")),
        (Reason::UnknownValue, "kind", with(", \"kind\": \"blue\"")),
        (Reason::BadTime, "at", with("").replace('Z', "")),
        (Reason::MissingField, "name", with("").replace("\"n\"", "null")),
        (Reason::TooDeep, "", with(&format!(", \"x\": {}1{}", "[".repeat(99), "]".repeat(99)))),
        (Reason::TooDeep, "", "[".repeat(1_000_000)),
        (Reason::Empty, "", String::new()),
    ];
    for (reason, field, payload) in cases {
        let reject = decode_between(Some(payload.as_bytes()));
        assert_eq!((reject.reason, reject.field.as_str()), (reason, field), "{}", reject.detail);
        assert!(!reject.detail.is_empty() && reject.detail.len() < 300, "{}", reject.detail);
    }
    assert_eq!(decode_between(None).reason, Reason::Empty);
    assert_eq!(decode_between(Some(b"{\"name\": \"\xc3\x28\"}")).reason, Reason::NotUtf8);
}

#[test]
fn a_message_of_10_mb_is_refused_before_it_is_read() {
    let reject = decode_between(Some(&vec![b'['; 10_000_000]));
    assert_eq!((reject.reason, reject.payload.len()), (Reason::TooLarge, 10_000_000));
}

#[test]
fn a_cloud_event_without_data_is_a_withdrawal_in_both_modes() {
    let headers = |id: Option<&str>| {
        let (id, source) = (id.map(str::to_owned), Some("//s".to_owned()));
        Some(Box::new(CloudEventHeaders { id, source, ..CloudEventHeaders::default() }))
    };
    let mut records = Records::new("city.test".into(), 0);
    records.push(Offset(0), 5, None, headers(Some("e")));
    records.push(Offset(1), 6, Some(br#"{"id": "e", "source": "//s"}"#), None);
    records.push(Offset(2), 7, None, headers(None));
    records.push(Offset(3), 8, None, None);
    records.push(Offset(4), 9, Some(GOOD), headers(Some("f")));
    let options = DecodeOptions { ids: IdSource::CloudEvents, ..DecodeOptions::default() };
    let decoded = Decoder::new(&schema(), &[], options).expect("known").decode(4, &records);
    let withdrawn: Vec<_> =
        decoded.withdrawals.iter().map(|entry| (entry.id, entry.position.offset)).collect();
    let id = event_id(&[b"//s", b"e"]);
    assert_eq!(withdrawn, [(id, Offset(0)), (id, Offset(1))]);
    assert_eq!(decoded.events.ids, [event_id(&[b"//s", b"f"])]);
    assert_eq!(decoded.events.columns.num_rows(), 1);
    let reasons: Vec<_> = decoded.rejects.iter().map(|reject| reject.reason).collect();
    assert_eq!(reasons, [Reason::Empty, Reason::Empty]);
}

#[test]
fn a_decoder_of_unknown_fields_is_refused() {
    let refused = |fields: &[&str], ids| {
        Decoder::new(&schema(), fields, DecodeOptions { ids, ..DecodeOptions::default() })
            .expect_err("not to be had")
    };
    assert!(matches!(refused(&["colour"], IdSource::None), DecoderError::UnknownField { .. }));
    let by_level = IdSource::Fields(vec!["level".to_owned()]);
    assert!(matches!(refused(&[], by_level), DecoderError::BadIdField { .. }));
    assert_eq!(refused(&[], IdSource::Fields(Vec::new())), DecoderError::NoIdField);
}
