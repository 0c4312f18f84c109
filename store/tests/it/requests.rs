//! Requests as curl sends them.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::served::{Answer, READER, Served, WRITER, http_client};

#[tokio::test]
async fn ping_needs_no_user() {
    let (store, _folder) = Served::fresh();
    let answer =
        Answer::of(http_client().get(format!("{}ping", store.url())).send().await.unwrap()).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "Ok.\n"));
    store.stop();
}

#[tokio::test]
async fn a_statement_stands_in_the_url_the_body_or_both() {
    let (store, _folder) = Served::fresh();
    for (parameters, body) in [
        (vec![], "SELECT 1 + 1"),
        (vec![("query", "SELECT 1 + 1")], ""),
        (vec![("query", "SELECT 1 +")], " 1"),
        (vec![("query", "")], "SELECT 1 + 1;"),
    ] {
        let answer = store.post(READER, &parameters, body).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "2\n"), "{parameters:?} {body}");
    }
    let url = format!("{}?query=SELECT%201%2B1", store.url());
    let get = http_client().get(url).basic_auth(READER.0, Some(READER.1));
    assert_eq!(Answer::of(get.send().await.unwrap()).await.text, "2\n");
    store.stop();
}

#[tokio::test]
async fn format_database_parameters_and_settings_come_with_the_request() {
    let (store, _folder) = Served::fresh();
    store.run(WRITER, "CREATE DATABASE city").await;
    let parameters = [
        ("default_format", "JSONEachRow"),
        ("database", "city"),
        ("param_text", "it's \\\\ a \"text\""),
        ("param_number", "7"),
        ("output_format_json_quote_64bit_integers", "1"),
        ("query_id", "a-name-of-mine"),
    ];
    let sql = "SELECT currentDatabase() AS d, {text:String} AS t, {number:UInt64} AS n";
    let answer = store.post(READER, &parameters, sql).await;
    assert_eq!(answer.text, "{\"d\":\"city\",\"t\":\"it's \\\\ a \\\"text\\\"\",\"n\":\"7\"}\n");
    assert_eq!(answer.header("x-clickhouse-format"), "JSONEachRow");
    assert_eq!(answer.header("x-clickhouse-query-id"), "a-name-of-mine");
    assert!(answer.header("x-clickhouse-summary").contains("\"read_rows\":\"1\""));

    let named =
        store.post(READER, &[("default_format", "CSV")], "SELECT 1 FORMAT TSVWithNames").await;
    assert_eq!(
        (named.text.as_str(), named.header("x-clickhouse-format")),
        ("1\n1\n", "TSVWithNames")
    );
    let none = store.run(READER, "SELECT currentDatabase(), getSetting('max_threads')").await;
    assert_eq!(none, "default\t2\n", "nothing of one request is left to the next");
    store.stop();
}

#[tokio::test]
async fn an_insert_takes_data_in_any_format_from_url_and_body() {
    let (store, _folder) = Served::fresh();
    store.run(WRITER, "CREATE DATABASE city").await;
    store
        .run(WRITER, "CREATE TABLE city.t (a UInt32, b String) ENGINE = MergeTree ORDER BY a")
        .await;
    let mut row_binary = 6u32.to_le_bytes().to_vec();
    row_binary.extend(b"\x03\xff'\n");
    for (query, body) in [
        ("", Bytes::from("INSERT INTO city.t VALUES (1, 'one'), (2, 'two;')")),
        ("INSERT INTO city.t FORMAT CSV", Bytes::from("3,three\n")),
        ("INSERT INTO city.t (b, a) FORMAT JSONEachRow", Bytes::from("{\"a\":4,\"b\":\"four\"}")),
        ("", Bytes::from("INSERT INTO city.t FORMAT TSV\n5\tfive\n")),
        ("INSERT INTO city.t FORMAT RowBinary", Bytes::from(row_binary)),
        ("INSERT INTO city.t SELECT 7, 'seven'", Bytes::new()),
        ("INSERT INTO city.t FORMAT CSV", Bytes::new()),
    ] {
        let answer = store.post(WRITER, &[("query", query)], body).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, ""), "{query}");
    }
    let arrow = "SELECT toUInt32(8) AS a, 'eight' AS b FORMAT ArrowStream";
    let url = reqwest::Url::parse_with_params(&store.url(), [("query", arrow)]).unwrap();
    let get = http_client().get(url).basic_auth(WRITER.0, Some(WRITER.1));
    let stream = get.send().await.unwrap().bytes().await.unwrap();
    let insert = [("query", "INSERT INTO city.t FORMAT ArrowStream")];
    let answer = store.post(WRITER, &insert, stream).await;
    assert!(answer.header("x-clickhouse-summary").contains("\"written_rows\":\"1\""));
    let all = store.run(READER, "SELECT a, hex(b) FROM city.t WHERE a = 6").await;
    assert_eq!(all, "6\tFF270A\n");
    assert_eq!(store.run(READER, "SELECT count(), sum(a) FROM city.t").await, "8\t36\n");
    store.stop();
}

#[tokio::test]
async fn a_large_result_comes_whole_in_formats_streamed_and_not() {
    let (store, _folder) = Served::fresh();
    let rows = 300_000u64;
    for format in [
        "TSV",
        "JSONEachRow",
        "RowBinary",
        "RowBinaryWithNamesAndTypes",
        "JSONCompact",
        "CSVWithNames",
        "Native",
    ] {
        let sql = format!(
            "SELECT number AS n, toString(number) AS s FROM numbers({rows}) FORMAT {format}"
        );
        let response =
            http_client().post(store.url()).basic_auth(READER.0, Some(READER.1)).body(sql);
        let result = response.send().await.unwrap().bytes().await.unwrap();
        let data = if format == "JSONCompact" {
            let json: serde_json::Value = serde_json::from_slice(&result).unwrap();
            assert_eq!(json["rows"], rows);
            continue;
        } else {
            result
        };
        store.run(WRITER, "CREATE OR REPLACE TABLE default.back (n UInt64, s String) ENGINE = MergeTree ORDER BY n").await;
        let insert = format!("INSERT INTO default.back FORMAT {format}");
        let answer = store.post(WRITER, &[("query", &insert)], data).await;
        assert_eq!(answer.status, 200, "{format}: {}", answer.text);
        let sums = store
            .run(READER, "SELECT count(), sum(n), sum(toUInt64(s)), uniqExact(n) FROM default.back")
            .await;
        let sum = rows * (rows - 1) / 2;
        assert_eq!(sums, format!("{rows}\t{sum}\t{sum}\t{rows}\n"), "{format}");
    }
    store.stop();
}

#[tokio::test]
async fn an_endless_result_is_streamed_and_ends_with_its_reader() {
    let (store, _folder) = Served::fresh();
    let endless = "SELECT number FROM system.numbers FORMAT RowBinary";
    let request = http_client().post(store.url()).basic_auth(WRITER.0, Some(WRITER.1));
    let mut response = request.body(endless).send().await.unwrap();
    let mut received = 0;
    while received < 5_000_000 {
        received += response.chunk().await.unwrap().unwrap().len();
    }
    drop(response);
    nothing_else_runs(&store).await;
    store.stop();
}

#[tokio::test]
async fn a_statement_whose_client_went_away_is_killed() {
    let (store, _folder) = Served::fresh();
    let long = "SELECT count() FROM system.numbers WHERE sipHash64(number) = 1";
    let request = http_client().post(store.url()).basic_auth(WRITER.0, Some(WRITER.1));
    let waiting = request.body(long).timeout(Duration::from_millis(500)).send().await;
    assert!(waiting.unwrap_err().is_timeout());
    nothing_else_runs(&store).await;
    store.stop();
}

/// Waits until the only statement running is the one that asks.
async fn nothing_else_runs(store: &Served) {
    let started = Instant::now();
    while store.run(READER, "SELECT count() FROM system.processes").await != "1\n" {
        assert!(started.elapsed() < Duration::from_secs(10), "a statement still runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
