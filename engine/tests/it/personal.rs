//! Personal fields: wherever records are kept they are sealed, come back byte by byte while their
//! day's key is there, and are gone once it is destroyed.

mod refused;
mod visits;

use std::{collections::BTreeMap, fs, path::Path, process::Output};

use citycell::{
    audit::Audit,
    clickhouse::ClickHouse,
    engine::{self, EngineError},
};
use serde_json::Value;

use crate::{crash, processes::free_addresses, restart::wait, store::TestStore};

use visits::{DAYS, Visits};

/// Where `needle` is in what a folder's files hold.
fn found_in_folder(folder: &Path, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(found_in_folder(&path, needle));
        } else if contains(&fs::read(&path).unwrap(), needle) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn contains(text: &[u8], needle: &str) -> bool {
    text.windows(needle.len()).any(|part| part == needle.as_bytes())
}

/// All that the tables say, as text.
async fn all_rows(store: &TestStore) -> BTreeMap<String, Vec<u8>> {
    let clickhouse = ClickHouse::new(&store.settings());
    let mut rows = BTreeMap::new();
    for table in store.lines("SHOW TABLES").await {
        if !table.ends_with("_as_of") {
            let sql = format!("SELECT * FROM `{table}`");
            let answer = clickhouse.query(&table, &sql, "RowBinary").await.unwrap();
            rows.insert(table, answer.to_vec());
        }
    }
    rows
}

/// The objects that `citycell archive show` prints, by partition and offset.
fn shown(output: &Output) -> BTreeMap<(i64, i64), Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let objects = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let place = |object: &Value| {
        (object["partition"].as_i64().unwrap(), object["offset"].as_i64().unwrap())
    };
    objects.map(|object| (place(&object), object)).collect()
}

/// The bytes that such an object says.
fn payload(object: &Value) -> Vec<u8> {
    match object["payload_hex"].as_str() {
        Some(digits) => {
            let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
        }
        None => object["payload"].as_str().unwrap().as_bytes().to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_personal_is_readable_without_keys_and_all_of_it_with_them_until_they_are_destroyed()
 {
    let store = TestStore::start();
    let mut visits = Visits::new("personal").await;
    visits.send_each_kind(3);
    let log = visits.run_until_end(&store, &[]);

    // 1. Nothing that is written says it.
    let secret = visits.secret.clone();
    let rows = all_rows(&store).await;
    for (table, rows) in &rows {
        assert!(!contains(rows, &secret), "{secret} is in the table {table}");
    }
    assert!(["archive", "rejects"].iter().all(|table| contains(&rows[*table], "city.visit")));
    store.execute("SYSTEM FLUSH LOGS").await;
    for folder in [store.folder(), visits.folder()] {
        assert_eq!(found_in_folder(folder, &secret), Vec::<String>::new());
    }
    assert_ne!(found_in_folder(store.folder(), "city.visit"), Vec::<String>::new());
    // Nor the key that opens it.
    let master = visits.master_key();
    assert!(!contains(&log, &master), "the master key is in the log");
    assert!(rows.values().all(|rows| !contains(rows, &master)));
    assert_eq!(found_in_folder(visits.folder(), &master).len(), 1, "only its own file has it");
    assert!(contains(&log, "TRACE") && !contains(&log, &secret), "it is in the log");
    // It would be found: the same program keeps what the schema does not call personal.
    assert!(contains(&rows["archive"], &visits.plain));

    // 2. What is not personal can be queried.
    let queried = "SELECT sum(JSONExtractInt(payload, 'data', 'peopleCount')) FROM archive \
                   WHERE JSONExtractString(payload, 'type') = 'city.visit'";
    assert_ne!(store.lines(queried).await, ["0"]);
    let hidden = "SELECT DISTINCT reason FROM rejects WHERE detail LIKE 'hidden:%' ORDER BY ALL";
    assert_eq!(store.lines(hidden).await, ["expression", "out_of_range", "wrong_type"]);
    let quoting = "SELECT DISTINCT detail FROM rejects WHERE field = 'peopleCount'";
    assert_eq!(store.lines(quoting).await, ["-7 is not within 0 and any"]);
    let whole =
        "SELECT DISTINCT reason FROM rejects WHERE payload = '' AND sealed != '' ORDER BY ALL";
    assert_eq!(store.lines(whole).await, ["not_json", "not_utf8"]);

    // 3. Whoever has the keys reads every byte.
    let archived = visits.show(&store, &[]);
    assert!(archived.status.success(), "{archived:?}");
    let objects = shown(&archived);
    assert_eq!(objects.len(), visits.records.len());
    for (place, object) in &objects {
        assert_eq!(payload(object), visits.records[place].payload, "{place:?}");
    }
    let rejected = visits.show(&store, &["--rejects", "visits"]);
    assert!(rejected.status.success(), "{rejected:?}");
    for (place, object) in shown(&rejected) {
        assert_eq!(payload(&object), visits.records[&place].payload, "{place:?}");
        assert!(!object["detail"].as_str().unwrap().starts_with("hidden:"), "{object}");
    }
    let one = ["--partition", "1", "--from-offset", "2", "--next-offset", "4"];
    let two: Vec<_> = shown(&visits.show(&store, &one)).into_keys().collect();
    assert_eq!(two, [(1, 2), (1, 3)]);

    // 4. A day's key is destroyed: its records are gone, the others are there.
    let [first, second] = DAYS;
    let said = visits.keys(&["list"]);
    assert!(said.contains(&format!("{first} kept")) && said.contains(&format!("{second} kept")));
    assert_eq!(visits.keys(&["destroy", first]), format!("{first}: destroyed\n"));
    assert!(visits.keys(&["list"]).contains(&format!("{first} destroyed")));
    for rejects in [&[][..], &["--rejects", "visits"]] {
        let output = visits.show(&store, rejects);
        assert_eq!(output.status.code(), Some(1));
        assert!(!contains(&output.stdout, &format!("{secret} of {first}")));
        for (place, object) in shown(&output) {
            let record = &visits.records[&place];
            if record.day == first && record.is_personal {
                let why = format!("the key of {first} was destroyed");
                assert_eq!(object["hidden"], why, "{object}");
            } else {
                assert_eq!(payload(&object), record.payload, "{place:?}");
            }
        }
    }
    assert!(visits.verify(&store).status.success());

    // 5. What is computed again of that day does not bring it back.
    let elsewhere = TestStore::start();
    visits.run_until_end(&elsewhere, &["--snapshots", "none"]);
    let rows = all_rows(&elsewhere).await;
    let gone = format!("{secret} of {first}");
    assert!(rows.values().all(|rows| !contains(rows, &secret)));
    let output = visits.show(&elsewhere, &[]);
    assert!(!contains(&output.stdout, &gone) && contains(&output.stdout, &secret));
    let shown_part = "SELECT topic, partition, record_offset, epoch, reason, field, detail, payload \
                      FROM rejects ORDER BY ALL";
    assert_eq!(elsewhere.lines(shown_part).await, store.lines(shown_part).await);
    let audit = Audit::begin(ClickHouse::new(&elsewhere.settings())).await.unwrap();
    audit.check(|outcome| assert_eq!(outcome.first, None, "{outcome:?}")).await.unwrap();

    // 6. A row that was sent before and after its key was destroyed is still the same record.
    let both = "INSERT INTO archive SELECT * REPLACE (char(0) AS sealed) FROM archive \
                WHERE partition = 0 AND sealed != ''";
    store.execute(both).await;
    let output = visits.verify(&store);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let differs = "INSERT INTO archive SELECT * REPLACE ('x' AS sealed) FROM archive \
                   WHERE partition = 0 AND sealed != ''";
    store.execute(differs).await;
    let output = visits.verify(&store);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("FAULT  repeats"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_workers_and_replays_seal_every_record_alike() {
    let store = TestStore::start();
    let mut visits = Visits::new("personal-killed").await;
    for point in ["after_rows", "after_manifest"] {
        let command = visits.command(&store, &[]);
        crash::run_until_it_crashes((point, 4), command, || visits.send_each_kind(1)).await;
    }
    visits.run_until_end(&store, &[]);
    let repeated = "SELECT count() - uniqExact(topic, partition, record_offset) FROM archive";
    assert_ne!(store.lines(repeated).await, ["0"], "no row was sent twice: nothing is tried");
    for (table, key) in [
        ("archive", "topic, partition, record_offset"),
        ("rejects", "pipeline, topic, partition, record_offset"),
    ] {
        let differ = format!(
            "SELECT {key} FROM (SELECT DISTINCT * FROM {table}) GROUP BY ALL HAVING count() > 1"
        );
        assert_eq!(store.lines(&differ).await, Vec::<String>::new(), "{table}");
    }
    assert!(visits.verify(&store).status.success());

    // Other workers compute all of it again, into another store.
    let elsewhere = TestStore::start();
    let settings = elsewhere.settings();
    let engine = engine::start(visits.config(settings, 2)).await.unwrap();
    engine.drain();
    wait(engine).await;
    for table in ["archive", "rejects"] {
        let all = format!(
            "SELECT DISTINCT * REPLACE (hex(payload) AS payload, hex(sealed) AS sealed) \
             FROM {table} ORDER BY ALL"
        );
        let run = store.lines(&all).await;
        assert!(!run.is_empty());
        assert_eq!(elsewhere.lines(&all).await, run, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_together_agree_on_a_days_key() {
    let store = TestStore::start();
    let mut visits = Visits::new("personal-cluster").await;
    visits.send_each_kind(20);
    let addresses = free_addresses(2);
    let start = |process: usize| {
        let cluster = Some(engine::Cluster { process, addresses: addresses.clone() });
        engine::start(engine::EngineConfig { cluster, ..visits.config(store.settings(), 2) })
    };
    let (first, second) = tokio::join!(start(0), start(1));
    let (first, second) = (first.unwrap(), second.unwrap());
    first.drain();
    wait(first).await;
    wait(second).await;
    let output = visits.show(&store, &[]);
    assert!(output.status.success(), "{output:?}");
    let objects = shown(&output);
    assert_eq!(objects.len(), visits.records.len());
    assert!(objects.iter().all(|(at, object)| payload(object) == visits.records[at].payload));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_master_key_is_refused_until_the_keys_are_wrapped_with_it() {
    let store = TestStore::start();
    let mut visits = Visits::new("personal-rotated").await;
    visits.send_each_kind(1);
    visits.run_until_end(&store, &[]);
    let before = visits.show(&store, &[]);
    assert!(before.status.success(), "{before:?}");
    let old = visits.replace_master_key();

    let refused = visits.command(&store, &["--until-end"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("the master key does not open the key of"), "{said}");
    let refused = visits.show(&store, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stdout.is_empty(), "{refused:?}");

    let new = visits.master_key_file();
    let rotate =
        ["rotate", "--master-key-file", old.as_str(), "--new-master-key-file", new.as_str()];
    // Two days of records and today, for which the engine makes a key when it starts.
    assert_eq!(visits.keys(&rotate), "3 keys wrapped with the new master key\n");
    assert_eq!(visits.keys(&rotate), "0 keys wrapped with the new master key\n");
    let after = visits.show(&store, &[]);
    assert_eq!(after.stdout, before.stdout);
    visits.send_each_kind(1);
    visits.run_until_end(&store, &[]);
    let after = visits.show(&store, &[]);
    assert_eq!(shown(&after).len(), visits.records.len());
    assert!(after.status.success(), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_shows_nothing_personal_in_its_metrics() {
    let store = TestStore::start();
    let mut visits = Visits::new("personal-metrics").await;
    visits.send_each_kind(2);
    let engine = engine::start(visits.config(store.settings(), 1)).await.unwrap();
    let metrics = engine.metrics.clone();
    engine.drain();
    wait(engine).await;
    let text = metrics.encode();
    assert!(text.contains("pipeline=\"visits\"") && !text.contains(&visits.secret), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_ends_when_a_key_cannot_be_had_and_goes_on_later() {
    let store = TestStore::start();
    let mut visits = Visits::new("personal-away").await;
    let engine = engine::start(visits.config(store.settings(), 2)).await.unwrap();
    let keys = visits.key_folder();
    let aside = keys.with_extension("aside");
    fs::rename(&keys, &aside).unwrap();
    fs::write(&keys, "no folder").unwrap();
    visits.send_each_kind(1);
    let failed = tokio::task::spawn_blocking(|| engine.wait()).await.unwrap().unwrap_err();
    assert!(matches!(failed, EngineError::Keys(_)), "{failed:?}");
    for table in ["archive", "rejects"] {
        assert_eq!(store.lines(&format!("SELECT count() FROM {table}")).await, ["0"], "{table}");
    }

    fs::remove_file(&keys).unwrap();
    fs::rename(&aside, &keys).unwrap();
    let engine = engine::start(visits.config(store.settings(), 2)).await.unwrap();
    engine.drain();
    wait(engine).await;
    let output = visits.show(&store, &[]);
    assert!(output.status.success() && shown(&output).len() == visits.records.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_an_earlier_program_get_the_columns_they_lack() {
    let store = TestStore::start();
    let mut visits = Visits::new("personal-earlier").await;
    let run = async |visits: &Visits| {
        let engine = engine::start(visits.config(store.settings(), 1)).await.unwrap();
        engine.drain();
        wait(engine).await;
    };
    run(&visits).await;
    store.execute("ALTER TABLE rejects DROP COLUMN sealed, DROP COLUMN broker_time").await;
    store.execute("ALTER TABLE archive DROP COLUMN sealed").await;
    visits.send_each_kind(1);
    run(&visits).await;
    for more in [&[][..], &["--rejects", "visits"]] {
        let output = visits.show(&store, more);
        assert!(output.status.success(), "{output:?}");
        for (place, object) in shown(&output) {
            assert_eq!(payload(&object), visits.records[&place].payload);
        }
    }
}
