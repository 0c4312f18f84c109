//! Who may do what in ClickHouse: the grants of `schemas/users` are enough, and none is too much.
//!
//! The embedded engine creates no users, but checks the grants of its own as a server does.

use std::{path::Path, sync::Arc};

use citycell::{
    clickhouse::{ClickHouse, ClickHouseSettings, sql::literal},
    engine::{self, EngineError},
    pipeline::Pipeline,
};

use crate::{
    broker::{Sender, create_topic, unique},
    city::{config, crowd_flow, event, named},
    store::TestStore,
};

const WRITER: &str = include_str!("../../../schemas/users/writer.sql");
const READER: &str = include_str!("../../../schemas/users/reader.sql");
const CLUSTER: &str = include_str!("../../../schemas/users/cluster.sql");

/// A store in which nobody may do more than these statements grant.
fn store_granting(folder: &Path, statements: &str) -> TestStore {
    let file = folder.join("grants.sql");
    std::fs::write(&file, statements).unwrap();
    TestStore::start_with(vec!["--writer-grants".into(), file.display().to_string()])
}

fn reader(store: &TestStore) -> ClickHouseSettings {
    ClickHouseSettings { user: "reader".into(), ..store.settings() }
}

/// A topic with two people in it.
async fn topic_with_two() -> String {
    let topic = unique("granted");
    create_topic(&topic, 1).await;
    let sender = Sender::new();
    sender.send(&topic, 0, Some(event("1", 0, 0, "a", 2).as_bytes()));
    sender.send(&topic, 0, Some(b"{"));
    sender.flush();
    topic
}

/// Runs an engine to the end of its topics.
async fn run(
    deployment: &str,
    clickhouse: ClickHouseSettings,
    pipelines: Vec<Arc<Pipeline>>,
) -> Result<(), EngineError> {
    let engine = engine::start(config(deployment, clickhouse, pipelines)).await?;
    engine.drain();
    tokio::task::spawn_blocking(|| engine.wait()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_with_its_grants_does_all_the_work_and_a_reader_only_reads() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_granting(folder.path(), WRITER);
    let topic = topic_with_two().await;
    // At first alone, then beside another pipeline, then without the first, which retires.
    let (first, second) = (|| crowd_flow(&topic), || named("second", &topic));
    for (number, pipelines) in
        [vec![first()], vec![first(), second()], vec![second()]].into_iter().enumerate()
    {
        // Each its own deployment: bindings name the pipelines' topics, which are the same.
        let done = run(&format!("{topic}-{number}"), store.settings(), pipelines).await;
        done.unwrap_or_else(|error| panic!("run {number}: {error:?}"));
    }
    let people = "SELECT people FROM second WHERE level = 'city'";
    assert_eq!(store.lines(people).await, ["2"]);

    let reader = ClickHouse::new(&reader(&store));
    for table in ["second", "second_history", "epochs", "rejects", "late", "versions", "cells"] {
        let sql = format!("SELECT * FROM {table} LIMIT 1");
        reader.query("read", &sql, "Null").await.unwrap();
    }
    for (sql, code) in [
        ("INSERT INTO epochs (pipeline) VALUES ('x')", "READONLY"),
        ("CREATE TABLE x (a UInt8) ENGINE = MergeTree ORDER BY a", "READONLY"),
        ("CREATE OR REPLACE VIEW second AS SELECT 1", "READONLY"),
        ("DROP VIEW second", "READONLY"),
        ("DROP TABLE epochs", "READONLY"),
        ("TRUNCATE TABLE epochs", "READONLY"),
        ("ALTER TABLE epochs DELETE WHERE 1", "READONLY"),
        ("OPTIMIZE TABLE epochs", "READONLY"),
        ("CREATE DATABASE other", "READONLY"),
        ("SELECT * FROM url('http://127.0.0.1:9', CSV, 'a String')", "ACCESS_DENIED"),
        ("SELECT * FROM system.users", "ACCESS_DENIED"),
    ] {
        let refused = reader.query("do it", sql, "Null").await.expect_err(sql);
        assert!(format!("{:?}", refused.source).contains(code), "{sql}: {:?}", refused.source);
    }
    // The writer has its grants and no more.
    let writer = ClickHouse::new(&store.settings());
    for sql in [
        "DROP TABLE epochs",
        "TRUNCATE TABLE epochs",
        "ALTER TABLE epochs DELETE WHERE 1",
        "CREATE DATABASE other",
        "CREATE TABLE other.x (a UInt8) ENGINE = MergeTree ORDER BY a",
        "SYSTEM STOP MERGES epochs",
    ] {
        let refused = writer.execute("do it", sql).await.expect_err(sql);
        let text = format!("{:?}", refused.source);
        assert!(text.contains("ACCESS_DENIED"), "{sql}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_cannot_run_an_engine() {
    let store = TestStore::start();
    let topic = topic_with_two().await;
    let error = run(&topic, reader(&store), vec![crowd_flow(&topic)]).await.expect_err("refused");
    let EngineError::ClickHouse(error) = error else { panic!("{error}") };
    assert!(error.to_string().ends_with("failed to create the database"), "{error}");
    assert!(format!("{:?}", error.source).contains("READONLY"), "{:?}", error.source);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_needs_every_grant_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let topic = topic_with_two().await;
    let grants = WRITER.lines().filter(|line| line.starts_with("GRANT"));
    // The embedded engine asks for no grants of its usual table engines; some servers do.
    let grants: Vec<&str> = grants.filter(|line| !line.contains("TABLE ENGINE")).collect();
    assert_eq!(grants.len(), 6);
    for grant in grants {
        let store = store_granting(folder.path(), &WRITER.replace(grant, ""));
        let done = run(&topic, store.settings(), vec![crowd_flow(&topic)]).await;
        let Err(EngineError::ClickHouse(error)) = done else { panic!("it works without {grant}") };
        let text = format!("{:?}", error.source);
        assert!(text.contains("ACCESS_DENIED"), "without {grant}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statements_are_good_sql() {
    let store = TestStore::start();
    store.execute("SELECT 1").await;
    for file in [WRITER, READER, CLUSTER] {
        let lines: Vec<&str> = file.lines().filter(|line| !line.starts_with("--")).collect();
        for statement in lines.join("\n").split_terminator(';').map(str::trim) {
            if !statement.is_empty() {
                let sql = format!("SELECT formatQuery({})", literal(statement));
                assert!(!store.lines(&sql).await.is_empty());
            }
        }
    }
}
