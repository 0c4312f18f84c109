//! Several connections at once.

use std::time::Instant;

use crate::served::{READER, Served, WRITER, http_client};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_clients_write_and_read_at_once_and_nothing_is_mixed_up() {
    let (store, _folder) = Served::fresh();
    store.run(WRITER, "CREATE TABLE default.t (client UInt32, n UInt32) ENGINE = MergeTree ORDER BY (client, n)").await;
    let store = std::sync::Arc::new(store);
    let client = |client: u32| {
        let store = std::sync::Arc::clone(&store);
        tokio::spawn(async move {
            for batch in 0..3 {
                let rows: String =
                    (0..100).map(|n| format!("{client},{}\n", batch * 100 + n)).collect();
                let insert = [("query", "INSERT INTO default.t FORMAT CSV")];
                let answer = store.post(WRITER, &insert, rows).await;
                assert_eq!(answer.status, 200, "{}", answer.text);
                let own = format!(
                    "SELECT count(), uniqExact(n), {client} FROM default.t WHERE client = {client}"
                );
                let rows = (batch + 1) * 100;
                assert_eq!(store.run(READER, &own).await, format!("{rows}\t{rows}\t{client}\n"));
            }
        })
    };
    for running in (0..40).map(client).collect::<Vec<_>>() {
        running.await.unwrap();
    }
    assert_eq!(store.run(READER, "SELECT count() FROM default.t").await, "12000\n");
    std::sync::Arc::into_inner(store).unwrap().stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_end_waits_for_what_runs() {
    let (store, folder) = Served::fresh();
    store.run(WRITER, "CREATE TABLE default.t (n UInt64) ENGINE = MergeTree ORDER BY n").await;
    let url = store.url();
    let slow = "INSERT INTO default.t SELECT number FROM numbers(10) WHERE NOT sleepEachRow(0.1)";
    let started = Instant::now();
    let running = tokio::spawn(async move {
        let request = http_client().post(url).basic_auth(WRITER.0, Some(WRITER.1));
        request.body(slow).send().await.unwrap().status()
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    tokio::task::spawn_blocking(|| store.stop()).await.unwrap();
    assert_eq!(running.await.unwrap(), 200);
    assert!(started.elapsed().as_millis() >= 900);
    let store = Served::start(folder.path());
    assert_eq!(store.run(READER, "SELECT count() FROM default.t").await, "10\n");
    store.stop();
}
