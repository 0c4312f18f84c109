//! What is not there: a topic that comes later, no broker, no ClickHouse.

use std::time::{Duration, Instant};

use citycell::{
    clickhouse::{ClickHouseSettings, placement::Placement},
    engine::{self, EngineConfig},
    kafka::KafkaSettings,
};

use crate::{
    broker::{Sender, create_topic, unique},
    city::{config, crowd_flow, event, named},
    store::TestStore,
};

/// An address at which nobody listens.
const NOBODY: &str = "127.0.0.1:9";

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_may_come_later_and_holds_nobody_up() {
    let store = TestStore::start();
    let (here, later) = (unique("here"), unique("later"));
    create_topic(&here, 1).await;
    let sender = Sender::new();
    sender.send(&here, 0, Some(event("1", 0, 0, "a", 3).as_bytes()));
    sender.flush();
    let pipelines = vec![crowd_flow(&here), named("later", &later)];
    let engine = engine::start(config(&here, store.settings(), pipelines)).await.unwrap();
    let people = |view| format!("SELECT sum(people) FROM {view} WHERE level = 'cell'");
    store.until(&people("crowd_flow"), "3").await;
    assert_eq!(store.lines("SELECT count() FROM later").await, ["0"]);

    create_topic(&later, 2).await;
    sender.send(&later, 1, Some(event("1", 0, 2, "b", 4).as_bytes()));
    sender.send(&here, 0, Some(event("2", 0, 1, "c", 5).as_bytes()));
    sender.flush();
    store.until(&people("later"), "4").await;
    store.until(&people("crowd_flow"), "8").await;
    engine.stop();
    tokio::task::spawn_blocking(|| engine.wait()).await.unwrap().unwrap();
}

async fn start_fails(config: EngineConfig) -> String {
    let started = Instant::now();
    let error = engine::start(config).await.err().expect("it cannot start");
    assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_a_broker_says_where_it_looked() {
    let store = TestStore::start();
    let mut config = config("nobody", store.settings(), vec![crowd_flow("nobody")]);
    config.kafka = KafkaSettings::new(NOBODY);
    assert_eq!(start_fails(config).await, format!("cannot use Kafka at {NOBODY}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_clickhouse_says_where_it_looked() {
    let clickhouse = ClickHouseSettings {
        url: format!("http://{NOBODY}"),
        user: "default".into(),
        password: String::new(),
        database: "city".into(),
        tls: None,
        placement: Placement::OneServer,
    };
    let error = start_fails(config("nobody", clickhouse, vec![crowd_flow("nobody")])).await;
    let expected = format!("ClickHouse at http://{NOBODY} failed to create the database");
    assert_eq!(error, expected);
}
