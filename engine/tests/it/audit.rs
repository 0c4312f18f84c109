//! `citycell audit` finds nothing after crashes, and every fault that is planted.

use std::{
    process::{Command, Output},
    time::Duration,
};

use citycell::{
    audit::{Audit, Outcome},
    clickhouse::{ClickHouse, ClickHouseSettings},
    engine::{self, EngineConfig},
};

use crate::{
    broker::{self, create_topic, unique},
    city::{config, crowd_flow},
    crowd::{Crowd, PARTITIONS},
    restart::wait,
    snapshots::{latest, slow},
    store::TestStore,
};

/// What runs that crashed left behind.
struct City {
    store: TestStore,
    topic: String,
    /// The history table of `crowd_flow`.
    history: String,
    /// An epoch of `crowd_flow` with rows, rejects and late events, in the middle of the history.
    epoch: u64,
}

impl City {
    async fn after_crashes() -> Self {
        let store = TestStore::start();
        let topic = unique("audit");
        create_topic(&topic, PARTITIONS as i32).await;
        let mut crowd = Crowd::new(&topic, 3, 30 * 60_000);
        let config = || {
            let pipelines = vec![crowd_flow(&topic), latest(&topic), slow(&topic)];
            EngineConfig { ..config(&topic, store.settings(), pipelines) }
        };
        for batches in [9, 3, 6] {
            let engine = engine::start(config()).await.unwrap();
            for _ in 0..batches {
                crowd.send(150);
                tokio::time::sleep(Duration::from_millis(90)).await;
            }
            engine.abandon();
            wait(engine).await;
        }
        let engine = engine::start(config()).await.unwrap();
        let marked = "SELECT sum(records) FROM (SELECT DISTINCT epoch, records FROM epochs \
                      WHERE pipeline = 'crowd_flow')";
        for _ in 0..3 {
            crowd.send(300);
            store.until(marked, &crowd.sent().to_string()).await;
        }
        engine.drain();
        wait(engine).await;
        // One between two others with records; the bound time of epochs is unknown until every
        // partition was read from, and no time goes back behind an unknown one.
        let eventful = "WITH marks AS (SELECT * FROM epochs WHERE pipeline = 'crowd_flow') \
                        SELECT epoch FROM marks WHERE rows > 0 AND rejected > 0 AND diverted > 0 \
                        AND epoch > (SELECT min(epoch) FROM marks WHERE bound_time > 0) \
                        AND epoch < (SELECT max(epoch) FROM marks WHERE records > 0) \
                        ORDER BY epoch";
        let eventful = store.lines(eventful).await;
        let epoch = eventful[eventful.len() / 2].parse().unwrap();
        let history = "SELECT name FROM system.tables WHERE name LIKE 'crowd_flow_history_%'";
        let history = store.lines(history).await.remove(0);
        Self { store, topic, history, epoch }
    }

    fn settings(&self, database: &str) -> ClickHouseSettings {
        ClickHouseSettings { database: database.into(), ..self.store.settings() }
    }

    /// A copy of the database in which `table` holds what `select` yields of the original.
    async fn with(&self, database: &str, table: &str, select: &str) {
        let clickhouse = ClickHouse::new(&self.settings(database));
        clickhouse.create_database().await.unwrap();
        let tables = "SELECT name FROM system.tables WHERE database = 'city' \
                      AND (name IN ('epochs', 'versions', 'rejects', 'late', 'skipped') \
                      OR match(name, '_history_[0-9a-f]+$'))";
        for name in self.store.lines(tables).await {
            self.store.execute(&format!("CREATE TABLE {database}.{name} AS city.{name}")).await;
            let all = format!("SELECT * FROM city.{name}");
            let select = if name == table { select } else { &all };
            self.store.execute(&format!("INSERT INTO {database}.{name} {select}")).await;
        }
    }

    async fn audit(&self, database: &str) -> Vec<Outcome> {
        let audit = Audit::begin(ClickHouse::new(&self.settings(database))).await.unwrap();
        let mut outcomes = Vec::new();
        audit.check(|outcome| outcomes.push(outcome)).await.unwrap();
        outcomes.push(audit.check_bindings(&broker::settings(), &self.topic).await.unwrap());
        outcomes
    }

    /// Plants a fault and expects these checks, no others, to find it first at `epoch`.
    async fn planted(&self, fault: &Fault<'_>) {
        let Fault { name, table, select, checks, epoch } = fault;
        self.with(name, table, select).await;
        let outcomes = self.audit(name).await;
        let at_fault: Vec<&str> = outcomes
            .iter()
            .filter(|outcome| outcome.first.is_some())
            .map(|outcome| outcome.check)
            .collect();
        assert_eq!(at_fault, *checks, "{name}: {outcomes:#?}");
        let first = outcomes.iter().find_map(|outcome| outcome.first.clone()).unwrap();
        let expected = ("crowd_flow", *epoch);
        assert_eq!((first.pipeline.as_str(), first.epoch), expected, "{name}: {first:?}");
        println!("{name}: expected {}; found {}", first.expected, first.found);
    }

    fn command(&self, database: &str, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_citycell"))
            .args(["audit", "--clickhouse", &self.store.settings().url, "--database", database])
            .args(more)
            .output()
            .unwrap()
    }
}

struct Fault<'a> {
    name: &'a str,
    table: &'a str,
    /// What the table holds instead.
    select: String,
    /// The checks that find it.
    checks: &'a [&'a str],
    /// Where the first of them finds it.
    epoch: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_leave_nothing_and_every_planted_fault_is_named() {
    let city = City::after_crashes().await;
    for outcome in city.audit("city").await {
        assert_eq!(outcome.first, None, "{outcome:?}");
    }
    let City { history, epoch, .. } = &city;
    let epoch = *epoch;
    let mark = format!("pipeline = 'crowd_flow' AND epoch = {epoch}");
    let changed = |column: &str, value: &str| {
        format!("SELECT * REPLACE (if({mark}, {value}, {column}) AS {column}) FROM city.epochs")
    };
    let without_one = |table: &str, key: &str, condition: &str| {
        format!(
            "SELECT * FROM city.{table} WHERE ({key}) != \
             (SELECT {key} FROM city.{table} WHERE {condition} ORDER BY ALL LIMIT 1)"
        )
    };
    let key = "level, window_start, cell, category, epoch";
    let position = "pipeline, topic, partition, record_offset";
    let of_epoch = format!("epoch = {epoch}");
    let twice = |table: &str, columns: &str, condition: &str| {
        format!(
            "SELECT * FROM city.{table} UNION ALL \
             SELECT {columns} FROM \
             (SELECT * FROM city.{table} WHERE {condition} ORDER BY ALL LIMIT 1)"
        )
    };
    let after = |epoch: u64| {
        format!(
            "SELECT min(epoch) FROM city.epochs \
             WHERE pipeline = 'crowd_flow' AND epoch > {epoch} AND records > 0"
        )
    };
    let next: u64 = city.store.lines(&after(epoch)).await[0].parse().unwrap();
    let overlapping = "arrayMap(range -> (range.1, range.2, range.3 - 1, range.4), ranges)";
    let later = format!("* REPLACE ({epoch} + 1 AS epoch)");
    let faults = [
        Fault {
            name: "a_row_deleted",
            table: history,
            select: without_one(history, key, &of_epoch),
            checks: &["rows"],
            epoch,
        },
        Fault {
            name: "a_count_changed",
            table: "epochs",
            select: changed("counted", "counted + 1"),
            checks: &["books"],
            epoch,
        },
        Fault {
            name: "more_records_than_offsets",
            table: "epochs",
            select: format!(
                "SELECT * REPLACE (if({mark}, counted + 1, counted) AS counted, \
                 if({mark}, records + 1, records) AS records) FROM city.epochs"
            ),
            checks: &["lengths"],
            epoch,
        },
        Fault {
            name: "a_stray_row",
            table: history,
            select: twice(history, &later, &of_epoch),
            checks: &["strays"],
            epoch: epoch + 1,
        },
        Fault {
            name: "a_row_twice_differently",
            table: history,
            select: twice(history, "* REPLACE (events + 1 AS events)", &of_epoch),
            checks: &["repeats"],
            epoch,
        },
        Fault {
            name: "a_reject_dropped",
            table: "rejects",
            select: without_one("rejects", position, &mark),
            checks: &["rejects"],
            epoch,
        },
        Fault {
            name: "a_late_event_dropped",
            table: "late",
            select: without_one("late", position, &mark),
            checks: &["late"],
            epoch,
        },
        Fault {
            name: "an_overlapping_range",
            table: "epochs",
            select: changed("ranges", overlapping),
            checks: &["ranges", "bindings"],
            epoch,
        },
        Fault {
            name: "a_mark_deleted",
            table: "epochs",
            select: format!("SELECT * FROM city.epochs WHERE NOT ({mark})"),
            checks: &["ranges", "strays", "bindings"],
            epoch: next,
        },
        Fault {
            name: "a_mark_twice_differently",
            table: "epochs",
            select: twice("epochs", "* REPLACE (1 - keyframe AS keyframe)", &mark),
            checks: &["marks"],
            epoch,
        },
        Fault {
            name: "a_time_that_goes_back",
            table: "epochs",
            select: changed("committed_at", "committed_at - toIntervalHour(1)"),
            checks: &["times"],
            epoch,
        },
        Fault {
            name: "another_bound_time",
            table: "epochs",
            select: changed("bound_time", "toDateTime64(1, 3, 'UTC')"),
            checks: &["times", "bindings"],
            epoch,
        },
    ];
    for fault in &faults {
        city.planted(fault).await;
    }
    // What a crash between two inserts leaves: rows and a mark sent again.
    city.with("a_row_again", history, &twice(history, "*", &of_epoch)).await;
    city.with(
        "a_mark_again",
        "epochs",
        &twice("epochs", "* REPLACE (now64() AS committed_at)", &mark),
    )
    .await;
    for database in ["a_row_again", "a_mark_again"] {
        assert!(city.audit(database).await.iter().all(|outcome| outcome.first.is_none()));
    }
    as_a_command(&city);
}

fn as_a_command(city: &City) {
    let brokers = broker::settings().brokers;
    let good = city.command("city", &["--brokers", &brokers, "--deployment", &city.topic]);
    let text = String::from_utf8_lossy(&good.stdout);
    assert!(good.status.success(), "{text}{}", String::from_utf8_lossy(&good.stderr));
    assert_eq!(text.lines().filter(|line| line.starts_with("OK ")).count(), 11, "{text}");

    let bad = city.command("a_row_deleted", &[]);
    let text = String::from_utf8_lossy(&bad.stdout);
    assert_eq!(bad.status.code(), Some(1), "{text}");
    let fault = text.lines().find(|line| line.starts_with("FAULT")).unwrap();
    assert!(fault.contains(&city.epoch.to_string()) && fault.contains(&city.history), "{fault}");

    let bad = city.command("a_row_deleted", &["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!(json["ok"], false);
    let rows = json["checks"].as_array().unwrap().iter().find(|check| check["check"] == "rows");
    assert_eq!(rows.unwrap()["first"]["epoch"], city.epoch, "{json}");

    let other = ["--brokers", &brokers, "--deployment", "no-such-deployment"];
    let unknown = city.command("city", &other);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no-such-deployment"));
}
