//! The whole way: Kafka in, one number right in ClickHouse.

use citycell::engine;

use crate::{
    broker::{Sender, create_topic, unique},
    city::{config, crowd_flow, event, pipeline, withdrawal},
    store::TestStore,
};

#[tokio::test(flavor = "multi_thread")]
async fn events_become_rows_of_every_level() {
    let _ = tracing_subscriber::fmt().with_test_writer().try_init();
    let store = TestStore::start();
    let topic = unique("crowd");
    create_topic(&topic, 2).await;
    let sender = Sender::new();
    let say = |partition, payload: String| sender.send(&topic, partition, Some(payload.as_bytes()));
    say(0, event("1", 0, 0, "a", 10));
    say(1, event("2", 30, 0, "a", 7));
    say(0, event("3", 10, 0, "b", 5));
    say(0, event("3", 10, 0, "b", 5));
    say(1, event("4", 20, 2, "c", 100));
    say(1, event("5", 20, 2, "d", 1));
    say(0, withdrawal("4"));
    say(0, "{not json".into());
    say(0, event("6", 20, 9, "far", 1));
    sender.flush();

    let engine = engine::start(config(&topic, store.settings(), vec![crowd_flow(&topic)]));
    let engine = engine.await.unwrap();
    engine.drain();
    tokio::task::spawn_blocking(|| engine.wait()).await.unwrap().unwrap();

    let rows = store
        .lines(
            "SELECT level, cell, toUnixTimestamp(window_start), category, events, people, peak, \
             average FROM crowd_flow ORDER BY level, cell",
        )
        .await;
    assert_eq!(
        rows,
        [
            "cell\t430102001001001\t1795154400\tmall\t2\t12\t7\t6",
            "cell\t430102001002001\t1795154400\tmall\t1\t1\t1\t1",
            "city\t4301\t1795154400\tmall\t3\t13\t7\t4.333333333333333",
            "community\t430102001001\t1795154400\tmall\t2\t12\t7\t6",
            "community\t430102001002\t1795154400\tmall\t1\t1\t1\t1",
            "district\t430102\t1795154400\tmall\t3\t13\t7\t4.333333333333333",
            "street\t430102001\t1795154400\tmall\t3\t13\t7\t4.333333333333333",
        ]
    );
    let books = store
        .lines(
            "SELECT sum(records), sum(counted), sum(filtered), sum(rejected), sum(diverted), \
             sum(duplicates), sum(withdrawals) FROM epochs",
        )
        .await;
    assert_eq!(books, ["9\t5\t0\t2\t0\t1\t1"]);
    let ranges = store
        .lines(
            "SELECT range.2 AS partition, min(range.3), max(range.4) \
             FROM (SELECT arrayJoin(ranges) AS range FROM epochs) GROUP BY partition ORDER BY ALL",
        )
        .await;
    assert_eq!(ranges, ["0\t0\t6", "1\t0\t3"]);
    let as_of = |epoch: &str| format!("SELECT count() FROM crowd_flow_as_of(epoch = {epoch})");
    assert_eq!(store.lines(&as_of("1")).await, ["0"]);
    assert_eq!(store.lines(&as_of("(SELECT epoch FROM city_moment)")).await, ["7"]);
    let rejects = store.lines("SELECT reason FROM rejects ORDER BY reason").await;
    assert_eq!(rejects, ["not_json", "outside_grid"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_epoch_may_reach_over_years() {
    let store = TestStore::start();
    let topic = unique("years");
    create_topic(&topic, 1).await;
    let sender = Sender::new();
    for month in 0..110 {
        let payload = event(&month.to_string(), -30 * 86_400 * month, 0, "a", 1);
        sender.send(&topic, 0, Some(payload.as_bytes()));
    }
    sender.flush();
    let daily = pipeline(&format!(
        "
pipeline: daily
source:
  topic: {topic}
  schema: crowd_flow
  event_time: dateObserved
  location: {{lon: lon, lat: lat, crs: wgs84}}
  late: {{allow: 36500d}}
window: {{tumbling: 1d}}
aggregate: {{people: sum(peopleCount)}}
"
    ));
    let engine = engine::start(config(&topic, store.settings(), vec![daily])).await.unwrap();
    engine.drain();
    tokio::task::spawn_blocking(|| engine.wait()).await.unwrap().unwrap();
    let counted = store.lines("SELECT count(), sum(people) FROM daily").await;
    assert_eq!(counted, ["110\t110"]);
}
