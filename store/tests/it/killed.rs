//! Killed at any moment, the store keeps every row that it acknowledged.
//!
//! A child serves under eight connections: two insert rows one batch after the other, one inserts
//! large batches, one cancels long queries, one runs into its memory limit, one merges and changes
//! tables, two read. Then it is killed with SIGKILL, started again on its folder and asked for
//! what it acknowledged. `CITYCELL_STORE_KILLS` says how often; 3 by default.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;

use crate::served::{READER, Served, WRITER, http_client};

const WRITERS: u64 = 3;

/// Per writer, the next batch, counted once the store has acknowledged the one before.
type Acknowledged = Arc<[AtomicU64; WRITERS as usize]>;

fn batch_rows(writer: u64) -> u64 {
    if writer == 2 { 50_000 } else { 100 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_row_survives_kill_9() {
    let kills: u32 = std::env::var("CITYCELL_STORE_KILLS").map_or(3, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let acknowledged = Acknowledged::default();
    let mut restarts = Vec::new();
    let store = Served::start(folder.path());
    store.run(WRITER, "CREATE TABLE default.kept (writer UInt64, batch UInt64, n UInt64, text String) ENGINE = MergeTree ORDER BY (writer, batch, n)").await;
    store
        .run(WRITER, "CREATE TABLE default.churned (a UInt64) ENGINE = MergeTree ORDER BY a")
        .await;
    store.stop();
    for kill in 0..kills {
        let started = Instant::now();
        let store = Arc::new(Served::start(folder.path()));
        restarts.push(started.elapsed());
        check(&store, &acknowledged, kill).await;
        let load: Vec<_> = (0..8)
            .map(|client| tokio::spawn(load(client, Arc::clone(&store), Arc::clone(&acknowledged))))
            .collect();
        let lifetime = Duration::from_millis(rand::rng().random_range(200..1500));
        tokio::time::sleep(lifetime).await;
        store.kill();
        for client in load {
            client.abort();
            // Aborted or ended by the kill: either is the end.
            let _ = client.await;
        }
    }
    let store = Served::start(folder.path());
    check(&store, &acknowledged, kills).await;
    let rows: u64 = (0..WRITERS)
        .map(|writer| acknowledged[writer as usize].load(Ordering::SeqCst) * batch_rows(writer))
        .sum();
    restarts.sort();
    println!(
        "{kills} kills, {rows} rows acknowledged and there, restart at the median {:?}, at most {:?}",
        restarts[restarts.len() / 2],
        restarts[restarts.len() - 1]
    );
    store.stop();
}

/// Every acknowledged batch is there, whole and once; one more per kill may be, unacknowledged.
async fn check(store: &Served, acknowledged: &Acknowledged, kill: u32) {
    let sql = "SELECT writer, batch, count(), uniqExact(n), countIf(text != repeat(toString(n), 3)) \
        FROM default.kept GROUP BY writer, batch";
    let found: BTreeMap<(u64, u64), (u64, u64, u64)> = store
        .run(READER, sql)
        .await
        .lines()
        .map(|line| {
            let numbers: Vec<u64> = line.split('\t').map(|text| text.parse().unwrap()).collect();
            ((numbers[0], numbers[1]), (numbers[2], numbers[3], numbers[4]))
        })
        .collect();
    for writer in 0..WRITERS {
        let next = acknowledged[writer as usize].load(Ordering::SeqCst);
        let rows = batch_rows(writer);
        for batch in 0..next {
            let kept = found.get(&(writer, batch));
            assert_eq!(
                kept,
                Some(&(rows, rows, 0)),
                "kill {kill}, writer {writer}, batch {batch} of {next}"
            );
        }
        // The one that was under way may have been stored without our knowing: count it as done.
        if found.contains_key(&(writer, next)) {
            acknowledged[writer as usize].fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn load(client: u64, store: Arc<Served>, acknowledged: Acknowledged) {
    loop {
        let more = match client {
            writer @ 0..WRITERS => insert(&store, writer, &acknowledged[writer as usize]).await,
            3 => cancelled(&store).await,
            4 => out_of_memory(&store).await,
            5 => churn(&store).await,
            _ => read(&store).await,
        };
        if !more {
            return;
        }
    }
}

/// Sends a statement; `None` once the store is gone.
async fn send(store: &Served, sql: &str, data: String, timeout: Duration) -> Option<u16> {
    let url = reqwest::Url::parse_with_params(&store.url(), [("query", sql)]).unwrap();
    let request =
        http_client().post(url).basic_auth(WRITER.0, Some(WRITER.1)).body(data).timeout(timeout);
    match request.send().await {
        Ok(response) => {
            let status = response.status().as_u16();
            response.bytes().await.ok().map(|_| status)
        }
        Err(error) => error.is_timeout().then_some(0),
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

async fn insert(store: &Served, writer: u64, next: &AtomicU64) -> bool {
    let batch = next.load(Ordering::SeqCst);
    let rows: String =
        (0..batch_rows(writer)).map(|n| format!("{writer},{batch},{n},{n}{n}{n}\n")).collect();
    match send(store, "INSERT INTO default.kept FORMAT CSV", rows, PATIENCE).await {
        Some(status) => {
            assert_eq!(status, 200, "an insert failed while the store was alive");
            next.fetch_add(1, Ordering::SeqCst);
            true
        }
        None => false,
    }
}

async fn cancelled(store: &Served) -> bool {
    let long = "SELECT count() FROM system.numbers WHERE sipHash64(number) = 1";
    send(store, long, String::new(), Duration::from_millis(50)).await.is_some()
}

async fn out_of_memory(store: &Served) -> bool {
    let large = "SELECT groupArray(number) FROM numbers(100000000) SETTINGS max_memory_usage = 20000000 FORMAT Null";
    let status = send(store, large, String::new(), PATIENCE).await;
    assert!(matches!(status, None | Some(500)), "{status:?} from a query beyond its memory");
    status.is_some()
}

async fn churn(store: &Served) -> bool {
    for sql in [
        "INSERT INTO default.churned SELECT number FROM numbers(1000)",
        "OPTIMIZE TABLE default.kept",
        "CREATE TABLE IF NOT EXISTS default.passing (a UInt8) ENGINE = MergeTree ORDER BY a",
        "DROP TABLE IF EXISTS default.passing",
        "TRUNCATE TABLE default.churned",
    ] {
        if send(store, sql, String::new(), PATIENCE).await.is_none() {
            return false;
        }
    }
    true
}

async fn read(store: &Served) -> bool {
    let sql = "SELECT writer, count(), sum(cityHash64(text)) FROM default.kept GROUP BY writer";
    send(store, sql, String::new(), PATIENCE).await.is_some()
}
