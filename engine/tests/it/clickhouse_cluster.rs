//! Tables on a cluster of ClickHouse servers. No such cluster runs here: a real ClickHouse reads the
//! statements, and refuses what it must.

use std::time::Duration;

use arrow::datatypes::{DataType, Field};
use citycell::{
    clickhouse::{
        ClickHouse, ClickHouseSettings,
        placement::{Copying, Placement},
        sql::literal,
        tables::{self, PipelineTable},
        views::views,
    },
    engine,
};

use crate::{
    city::{config, crowd_flow},
    store::TestStore,
};

fn replicated() -> Placement {
    Placement::Cluster { name: "city servers".into(), copying: Copying::Replicated }
}

/// All statements that make or change something.
fn statements(placement: &Placement) -> Vec<String> {
    let table = PipelineTable {
        pipeline: "crowd_flow".into(),
        version: "1".into(),
        groups: vec![Field::new("category", DataType::Utf8, true)],
        measures: vec!["people".into()],
        windowed: true,
        grid: "1".into(),
    };
    let shared = tables::shared_statements(placement).into_iter().map(|(_, sql)| sql);
    shared
        .chain(citycell::clickhouse::archive::statements(placement, Duration::from_secs(3600)))
        .chain([table.create_history(placement)])
        .chain(views(&table, &[], placement))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_runs_on_the_cluster_and_every_table_is_replicated() {
    let store = TestStore::start();
    store.execute("SELECT 1").await;
    let mut tables = 0;
    for sql in statements(&replicated()) {
        let read = format!("SELECT formatQuerySingleLine({})", literal(&sql));
        let read = store.lines(&read).await.concat();
        assert!(read.contains(" ON CLUSTER `city servers` "), "{read}");
        let engine = read.split(" ENGINE = ").nth(1);
        if let Some(engine) = engine {
            let path =
                r"MergeTree(\'/clickhouse/tables/{shard}/{database}/{table}\', \'{replica}\')";
            let is_replicated = ["Replicated", "ReplicatedReplacing"]
                .iter()
                .any(|kind| engine.starts_with(&format!("{kind}{path}")));
            assert!(is_replicated, "{read}");
            tables += 1;
        }
    }
    // All shared ones, the archive and a pipeline's.
    assert_eq!(tables, citycell_schemas::tables::SHARED.len() + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_is_told_of_no_cluster() {
    for sql in statements(&Placement::OneServer) {
        for word in ["CLUSTER", "Replicated", "{"] {
            assert!(!sql.replace("{epoch:UInt64}", "").contains(word), "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_not_there_is_named() {
    let store = TestStore::start();
    let clickhouse = ClickHouseSettings { placement: replicated(), ..store.settings() };
    let started = engine::start(config("nobody", clickhouse, vec![crowd_flow("nobody")])).await;
    let Err(engine::EngineError::ClickHouse(error)) = started else { panic!("it started") };
    assert!(error.to_string().ends_with("failed to use the cluster city servers"), "{error}");
    assert!(error.source.to_string().contains("knows no cluster"), "{}", error.source);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_were_made_without_replication_are_refused() {
    let store = TestStore::start();
    let clickhouse = ClickHouse::new(&store.settings());
    tables::create_shared(&clickhouse).await.unwrap();
    let settings = ClickHouseSettings { placement: replicated(), ..store.settings() };
    let refused = tables::refuse_uncopied(&ClickHouse::new(&settings)).await.expect_err("refused");
    let text = format!("{:?}", refused.source);
    assert!(text.contains("a table is there already and is not replicated"), "{text}");
}
