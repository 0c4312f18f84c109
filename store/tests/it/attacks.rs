//! What a reader, and in part a writer, must not get done.

use crate::served::{READER, Served, WRITER, http_client};

async fn store_with_a_table() -> (Served, tempfile::TempDir, String) {
    let (store, folder) = Served::fresh();
    store.run(WRITER, "CREATE DATABASE city").await;
    store.run(WRITER, "CREATE TABLE city.t (a UInt32) ENGINE = MergeTree ORDER BY a").await;
    store.run(WRITER, "INSERT INTO city.t VALUES (1)").await;
    let secret = folder.path().join("secret.csv");
    std::fs::write(&secret, "4711,hidden\n").unwrap();
    let secret = secret.display().to_string();
    (store, folder, secret)
}

#[tokio::test]
async fn a_reader_cannot_change_anything() {
    let (store, _folder, _secret) = store_with_a_table().await;
    for sql in [
        "INSERT INTO city.t VALUES (2)",
        "INSERT INTO city.t SELECT 2",
        "INSERT INTO city.t FORMAT CSV\n2\n",
        "CREATE TABLE city.u (a UInt8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE u (a UInt8)",
        "CREATE DATABASE other",
        "DROP TABLE city.t",
        "TRUNCATE TABLE city.t",
        "ALTER TABLE city.t DELETE WHERE 1",
        "DELETE FROM city.t WHERE 1",
        "OPTIMIZE TABLE city.t",
        "RENAME TABLE city.t TO city.u",
        "KILL QUERY WHERE 1",
        "SYSTEM STOP MERGES",
        "SYSTEM SHUTDOWN",
        "SET max_threads = 64",
        "SET readonly = 0",
        "USE city",
        "DETACH TABLE city.t",
        "GRANT ALL ON *.* TO reader",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_memory_usage = 0",
        "SELECT * FROM city.t SETTINGS max_execution_time = 0",
        "SELECT 1; DROP TABLE city.t",
        "/* SELECT */ DROP TABLE city.t",
        "EXPLAIN SELECT 1; DROP TABLE city.t",
    ] {
        let answer = store.post(READER, &[], sql).await;
        assert_ne!(answer.status, 200, "{sql}");
    }
    for (name, value) in
        [("readonly", "0"), ("max_execution_time", "0"), ("max_memory_usage", "9000000000")]
    {
        let answer = store.post(READER, &[(name, value)], "SELECT 1").await;
        assert_eq!(answer.header("x-clickhouse-exception-code"), "164", "{name}");
    }
    assert_eq!(store.run(READER, "SELECT a FROM city.t").await, "1\n");
    store.stop();
}

#[tokio::test]
async fn nobody_reaches_the_hosts_files_or_other_hosts() {
    let (store, folder, secret) = store_with_a_table().await;
    let out = folder.path().join("out.csv").display().to_string();
    let attempts = [
        format!("SELECT * FROM file('{secret}', CSV, 'a Int32, b String')"),
        format!("SELECT file('{secret}')"),
        format!("SELECT `file`('{secret}')"),
        format!("SELECT `f\\x69le`('{secret}')"),
        format!("SELECT \"f\\x69le\"('{secret}')"),
        format!("SELECT file/**/('{secret}')"),
        format!("SELECT file /* /* */ */ ('{secret}')"),
        format!("SELECT file // x\n('{secret}')"),
        format!("SELECT file\u{200b}('{secret}')"),
        format!("SELECT file\u{feff}('{secret}')"),
        format!("SELECT file\u{2060}('{secret}')"),
        format!("SELECT file\u{180e}('{secret}')"),
        format!("SELECT \u{201c}file\u{201d}('{secret}')"),
        format!("SELECT * APPLY file FROM (SELECT '{secret}')"),
        format!("SELECT * APPLY(file) FROM (SELECT '{secret}')"),
        format!("SELECT * APPLY `f\\x69le` FROM (SELECT '{secret}')"),
        format!("SELECT arrayMap(file, ['{secret}'])"),
        format!("SELECT arrayMap(\"f\\x69le\", ['{secret}'])"),
        format!("SELECT arrayMap({{f:Identifier}}, ['{secret}'])"),
        format!("WITH file('{secret}') AS x SELECT x"),
        format!("SELECT 1 WHERE 'x' IN (SELECT file('{secret}'))"),
        format!("EXPLAIN SELECT file('{secret}')"),
        format!("SELECT * FROM `{secret}`"),
        format!("SELECT * FROM default.`{secret}`"),
        format!("DESCRIBE TABLE file('{secret}')"),
        format!("DESCRIBE TABLE default.`{secret}`"),
        format!("SELECT * FROM fileCluster('default', '{secret}')"),
        format!("SELECT * FROM filesystem('{secret}')"),
        format!(
            "SELECT * FROM city.t WHERE a IN (SELECT a FROM file('{secret}', CSV, 'a Int32, b String'))"
        ),
        format!("SELECT 1 INTO OUTFILE '{out}'"),
        format!("SELECT 1 INTO/**/OUTFILE '{out}' FORMAT CSV"),
        format!("(SELECT 1) INTO OUTFILE '{out}'"),
        format!("EXPLAIN SELECT 1 INTO OUTFILE '{out}'"),
        format!("INSERT INTO FUNCTION file('{out}', CSV, 'a Int32') SELECT 1"),
        format!("INSERT INTO FUNCTION file('{out}', CSV, 'a Int32') VALUES (1)"),
        format!("INSERT INTO city.t FROM INFILE '{secret}' FORMAT CSV"),
        format!("SELECT 1 FORMAT Template SETTINGS format_template_resultset = '{secret}'"),
        format!("CREATE TABLE city.f (a String) ENGINE = File(CSV, '{secret}')"),
        "CREATE TABLE city.f (a String) ENGINE = URL('http://127.0.0.1:1/', CSV)".to_owned(),
        format!("CREATE DATABASE f ENGINE = Filesystem('{}')", folder.path().display()),
        format!(
            "CREATE TABLE city.f (a String) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '{out}')"
        ),
        format!("BACKUP TABLE city.t TO File('{out}')"),
        format!(
            "ATTACH TABLE city.f FROM '{}' (a String) ENGINE = MergeTree ORDER BY a",
            folder.path().display()
        ),
        "SELECT * FROM url('http://127.0.0.1:1/', CSV, 'a String')".to_owned(),
        "SELECT * FROM s3('http://127.0.0.1:1/bucket/x.csv')".to_owned(),
        "SELECT * FROM remote('127.0.0.1:1', system.one)".to_owned(),
        "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')".to_owned(),
        "SELECT * FROM postgresql('127.0.0.1:1', 'a', 'b', 'c', 'd')".to_owned(),
        format!("SELECT * FROM sqlite('{secret}', 'b')"),
        "SELECT * FROM executable('cat', TSV, 'a String')".to_owned(),
        format!("SELECT catboostEvaluate('{secret}', 1)"),
        format!("SELECT * FROM eval('SELECT file(\\'{secret}\\')')"),
        format!(
            "SELECT * FROM eval('SELECT fi' || 'le(\\'{secret}\\')') SETTINGS allow_experimental_eval_table_function = 1"
        ),
    ];
    for sql in &attempts {
        for user in [READER, WRITER] {
            let answer = store.post(user, &[("param_f", "file")], sql.clone()).await;
            assert_ne!(answer.status, 200, "{} got through: {sql}", user.0);
            assert!(!answer.text.contains("hidden"), "{sql}: {}", answer.text);
        }
    }
    let settings =
        [("format_schema", secret.as_str()), ("format_template_resultset", secret.as_str())];
    for setting in settings {
        let answer = store.post(WRITER, &[setting], "SELECT 1 FORMAT Template").await;
        assert_eq!(answer.header("x-clickhouse-exception-code"), "497", "{}", answer.text);
    }
    let written = [("output_format_schema", out.as_str())];
    for user in [READER, WRITER] {
        let answer = store.post(user, &written, "SELECT 1 AS a FORMAT Protobuf").await;
        assert_eq!(answer.header("x-clickhouse-exception-code"), "497", "{}", answer.text);
    }
    assert!(!std::path::Path::new(&out).exists(), "a file was written");
    store.stop();
}

#[tokio::test]
async fn a_dictionary_over_a_file_shows_nothing_and_one_over_a_table_works() {
    let (store, folder, secret) = store_with_a_table().await;
    let dictionary = |name: &str, source: &str| {
        format!(
            "CREATE DICTIONARY city.{name} (a UInt64, b String DEFAULT 'none') PRIMARY KEY a SOURCE({source}) LAYOUT(FLAT()) LIFETIME(0)"
        )
    };
    store.post(WRITER, &[], dictionary("f", &format!("FILE(path '{secret}' format 'CSV')"))).await;
    store
        .post(WRITER, &[], dictionary("e", "EXECUTABLE(command 'cat /etc/hostname' format 'CSV')"))
        .await;
    for name in ["f", "e"] {
        let sql = format!("SELECT dictGet('city.{name}', 'b', 4711)");
        assert_ne!(store.post(READER, &[], sql).await.status, 200, "{name}");
    }
    store
        .run(WRITER, "CREATE TABLE city.names (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
        .await;
    store.run(WRITER, "INSERT INTO city.names VALUES (1, 'one')").await;
    store.run(WRITER, &dictionary("d", "CLICKHOUSE(TABLE 'names' DB 'city')")).await;
    assert_eq!(store.run(READER, "SELECT dictGet('city.d', 'b', 1)").await, "one\n");
    store.stop();
    drop(folder);
}

#[tokio::test]
async fn a_get_changes_nothing_even_for_the_writer() {
    let (store, _folder, _secret) = store_with_a_table().await;
    let url =
        reqwest::Url::parse_with_params(&store.url(), [("query", "DROP TABLE city.t")]).unwrap();
    let get = http_client().get(url).basic_auth(WRITER.0, Some(WRITER.1));
    assert_eq!(get.send().await.unwrap().headers()["x-clickhouse-exception-code"], "164");
    assert_eq!(store.run(READER, "SELECT a FROM city.t").await, "1\n");
    store.stop();
}
