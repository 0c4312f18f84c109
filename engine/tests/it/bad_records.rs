//! Every kind of bad record between good ones: one row in `rejects` each, and nothing else suffers.

use std::fmt::Write;

use citycell::engine;
use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::BaseRecord,
};
use sha2::{Digest, Sha256};

use crate::{
    broker::{Sender, create_topic, unique},
    city::{config, crowd_flow, event, named},
    store::TestStore,
};

/// Why, which field, and the bytes; no bytes are a tombstone.
type Bad = (&'static str, &'static str, Option<Vec<u8>>);

fn bad_records() -> Vec<Bad> {
    let good = event("bad", 0, 0, "bad", 7);
    let with = |old: &str, new: &str| {
        assert!(good.contains(old), "{old}");
        Some(good.replacen(old, new, 1).into_bytes())
    };
    let deep = format!("\"note\":{}1{},\"peopleCount\"", "[".repeat(500), "]".repeat(500));
    let invalid_utf8 = good.clone().into_bytes().into_iter();
    let invalid_utf8 = invalid_utf8.map(|byte| if byte == b'7' { 0xff } else { byte }).collect();
    vec![
        ("not_json", "", Some(b"people = 7".to_vec())),
        ("not_json", "", Some(good.as_bytes()[..good.len() / 2].to_vec())),
        ("not_json", "", with(":7", ":NaN")),
        ("not_utf8", "", Some(invalid_utf8)),
        ("wrong_type", "peopleCount", with(":7", ":\"7\"")),
        ("wrong_type", "sensorId", with(":\"bad\",\"date", ":1,\"date")),
        ("out_of_range", "peopleCount", with(":7", ":-1")),
        ("out_of_range", "peopleCount", with(":7", ":\"NaN\"")),
        ("repeated_field", "peopleCount", with(":7", ":7,\"peopleCount\":8")),
        ("missing_field", "peopleCount", with("\"peopleCount\":7", "\"other\":7")),
        ("missing_id", "id", with("\"id\":\"bad\",", "")),
        ("missing_place", "lon", with("\"lon\":", "\"longitude\":")),
        ("outside_grid", "lon", with("28.0005", "29.0005")),
        ("future", "dateObserved", with("2026-", "2126-")),
        ("bad_time", "dateObserved", with("Z\"", "\"")),
        ("unknown_schema", "type", with("city.crowd.flow", "city.crowd.flown")),
        ("too_deep", "", with("\"peopleCount\"", &deep)),
        ("too_large", "", Some(vec![b' '; 10_000_000])),
        ("empty", "", Some(Vec::new())),
        ("empty", "", None),
    ]
}

fn send(sender: &Sender, topic: &str, payload: Option<&[u8]>) {
    sender.send(topic, 0, payload);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_one_row_of_rejects_with_its_bytes_and_the_rest_is_counted() {
    let store = TestStore::start();
    let (topic, calm) = (unique("bad"), unique("calm"));
    create_topic(&topic, 1).await;
    create_topic(&calm, 1).await;
    let sender = Sender::new();
    let mut expected = Vec::new();
    let bad_records = bad_records();
    for (number, (reason, field, payload)) in bad_records.iter().enumerate() {
        send(
            &sender,
            &topic,
            Some(event(&format!("g{number}"), 1, 0, &format!("s{number}"), 1).as_bytes()),
        );
        send(&sender, &topic, payload.as_deref());
        send(
            &sender,
            &calm,
            Some(event(&format!("c{number}"), 1, 1, &format!("s{number}"), 2).as_bytes()),
        );
        expected.push(line(&topic, 2 * number + 1, reason, field, payload.as_deref()));
    }
    let other = event("other", 1, 0, "other", 7);
    sender.post(of_another_type(&topic, other.as_bytes()));
    let last = 2 * bad_records.len();
    expected.push(line(&topic, last, "unknown_schema", "type", Some(other.as_bytes())));
    sender.flush();

    let pipelines = vec![crowd_flow(&topic), named("calm", &calm)];
    let engine = engine::start(config(&topic, store.settings(), pipelines)).await.unwrap();
    engine.drain();
    tokio::task::spawn_blocking(|| engine.wait()).await.unwrap().unwrap();

    let rejects = "SELECT pipeline, topic, partition, record_offset, reason, field, \
                   length(payload), hex(SHA256(payload)) FROM rejects ORDER BY record_offset";
    assert_eq!(store.lines(rejects).await, expected);
    let silent = "SELECT count() FROM rejects WHERE detail = '' OR length(detail) > 300";
    assert_eq!(store.lines(silent).await, ["0"]);
    let good = bad_records.len();
    let people = |view| format!("SELECT people, events FROM {view} WHERE level = 'city'");
    assert_eq!(store.lines(&people("crowd_flow")).await, [format!("{good}\t{good}")]);
    assert_eq!(store.lines(&people("calm")).await, [format!("{}\t{good}", 2 * good)]);
    let books = "SELECT pipeline, sum(records), sum(counted), sum(rejected) FROM epochs \
                 GROUP BY pipeline ORDER BY pipeline";
    let expected = [
        format!("calm\t{good}\t{good}\t0"),
        format!("crowd_flow\t{}\t{good}\t{}", 2 * good + 1, good + 1),
    ];
    assert_eq!(store.lines(books).await, expected);
}

/// A CloudEvent in binary mode of a type that no pipeline reads.
fn of_another_type<'a>(topic: &'a str, payload: &'a [u8]) -> BaseRecord<'a, (), [u8]> {
    let attributes = [("ce_id", "other"), ("ce_source", "test"), ("ce_type", "city.weather")];
    let headers = attributes.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(*value) })
    });
    BaseRecord::to(topic).partition(0).payload(payload).headers(headers)
}

fn line(topic: &str, offset: usize, reason: &str, field: &str, payload: Option<&[u8]>) -> String {
    let payload = payload.unwrap_or_default();
    let hash = Sha256::digest(payload).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    });
    format!("crowd_flow\t{topic}\t0\t{offset}\t{reason}\t{field}\t{}\t{hash}", payload.len())
}
