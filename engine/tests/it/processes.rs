//! Two processes compute what one computes, epoch by epoch.

use std::net::TcpListener;

use citycell::{
    clickhouse::ClickHouseSettings,
    engine::{self, Cluster, RunningEngine},
};

use crate::{
    broker::{Sender, create_topic, unique},
    city::{config, crowd_flow, event, withdrawal},
    store::TestStore,
};

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_write_what_one_process_writes() {
    let store = TestStore::start();
    let topic = unique("cluster");
    create_topic(&topic, 4).await;
    produce(&topic);
    let database = |name: &str| ClickHouseSettings { database: name.into(), ..store.settings() };

    let addresses = free_addresses(2);
    let start = |process: usize| {
        let mut config = config(&topic, database("city"), vec![crowd_flow(&topic)]);
        config.cluster = Some(Cluster { process, addresses: addresses.clone() });
        engine::start(config)
    };
    let first = start(0).await.unwrap();
    let second = start(1).await.unwrap();
    first.drain();
    ended(first).await;
    ended(second).await;

    // The same deployment: its bindings are there, so this one replays the same epochs.
    let alone =
        engine::start(config(&topic, database("one"), vec![crowd_flow(&topic)])).await.unwrap();
    alone.drain();
    ended(alone).await;

    let last = &store.lines("SELECT max(epoch) FROM city.epochs").await[0];
    for sql in [
        format!("SELECT * FROM DB.crowd_flow_history WHERE epoch <= {last} ORDER BY ALL"),
        format!("SELECT * EXCEPT committed_at FROM DB.epochs WHERE epoch <= {last} ORDER BY epoch"),
        format!("SELECT * FROM DB.rejects WHERE epoch <= {last} ORDER BY ALL"),
    ] {
        let two = store.lines(&sql.replace("DB", "city")).await;
        let one = store.lines(&sql.replace("DB", "one")).await;
        assert!(!one.is_empty(), "{sql}");
        assert_eq!(two, one, "{sql}");
    }
    let books = "SELECT sum(records), sum(duplicates), sum(withdrawals) FROM city.epochs";
    assert_eq!(store.lines(books).await, ["2310\t200\t100"]);
}

/// 2,000 events, every tenth sent twice, every twentieth withdrawn, and ten bad records.
fn produce(topic: &str) {
    let sender = Sender::new();
    let say = |number: i64, payload: &str| {
        sender.send(topic, (number % 4) as i32, Some(payload.as_bytes()))
    };
    for number in 0..2_000 {
        let (cell, sensor) = ((number % 4) as u32, format!("s{}", number % 7));
        let payload = event(&number.to_string(), number % 300, cell, &sensor, number % 50);
        say(number, &payload);
        if number % 10 == 0 {
            say(number + 1, &payload);
        }
        if number % 20 == 0 {
            say(number + 2, &withdrawal(&number.to_string()));
        }
        if number % 200 == 0 {
            say(number + 3, "{broken");
        }
    }
    sender.flush();
}

pub(crate) fn free_addresses(count: usize) -> Vec<String> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

pub(crate) async fn ended(engine: RunningEngine) {
    tokio::task::spawn_blocking(|| engine.wait()).await.unwrap().unwrap();
}
