//! Errors have ClickHouse's texts, codes, headers and HTTP status.

use crate::served::{Answer, READER, Served, WRITER, http_client};

#[tokio::test]
async fn errors_are_clickhouses() {
    let (store, _folder) = Served::fresh();
    for (sql, code, status) in [
        ("SELECT * FROM nowhere", 60, 404),
        ("SELECT nothing FROM system.one", 47, 404),
        ("SELECT nofunction(1)", 46, 404),
        ("SELECT * FROM nodatabase.t", 81, 404),
        ("SELEC 1", 62, 400),
        ("SELECT 1; SELECT 2", 62, 400),
        ("SELECT 1 FORMAT NoSuchFormat", 73, 404),
        ("SELECT {missing:UInt8}", 456, 500),
        ("SELECT toUInt8('x')", 6, 400),
        ("SELECT throwIf(1)", 395, 500),
        ("SELECT 1 SETTINGS nosuchsetting = 1", 115, 404),
        ("INSERT INTO nowhere VALUES (1)", 60, 404),
    ] {
        let answer = store.post(WRITER, &[], sql).await;
        let expected = format!("Code: {code}. DB::Exception: ");
        assert!(answer.text.starts_with(&expected), "{sql}: {}", answer.text);
        assert_eq!(answer.header("x-clickhouse-exception-code"), code.to_string(), "{sql}");
        assert_eq!(answer.status, status, "{sql}: {}", answer.text);
    }
    store.stop();
}

#[tokio::test]
async fn what_is_not_supported_is_said() {
    let (store, _folder) = Served::fresh();
    for (name, value, code, status) in [
        ("compress", "1", 48, 501),
        ("decompress", "1", 48, 501),
        ("session_id", "mine", 48, 501),
        ("database", "nodatabase", 81, 404),
        ("nosuchsetting", "1", 115, 404),
        ("no such setting; DROP", "1", 115, 404),
        ("max_threads", "many", 27, 400),
    ] {
        let answer = store.post(WRITER, &[(name, value)], "SELECT 1").await;
        assert_eq!(
            answer.header("x-clickhouse-exception-code"),
            code.to_string(),
            "{name}: {}",
            answer.text
        );
        assert_eq!(answer.status, status, "{name}");
    }
    let long = format!("SELECT '{}'", "x".repeat(300_000));
    let answer = store.post(WRITER, &[], long).await;
    assert_eq!((answer.status, answer.header("x-clickhouse-exception-code")), (413, "229"));
    store.stop();
}

#[tokio::test]
async fn users_prove_who_they_are_in_three_ways() {
    let (store, _folder) = Served::fresh();
    let client = http_client();
    let ask = |user: &str, password: &str| {
        let url = format!("{}?query=SELECT+1", store.url());
        [
            client.get(&url).basic_auth(user, Some(password)),
            client.get(&url).header("X-ClickHouse-User", user).header("X-ClickHouse-Key", password),
            client.get(format!("{url}&user={user}&password={password}")),
        ]
    };
    for request in ask(READER.0, READER.1) {
        assert_eq!(Answer::of(request.send().await.unwrap()).await.text, "1\n");
    }
    let wrong = [ask(READER.0, WRITER.1), ask("default", ""), ask(WRITER.0, "")];
    for request in wrong.into_iter().flatten() {
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!((answer.status, answer.header("x-clickhouse-exception-code")), (403, "516"));
        assert!(!answer.text.contains("secret"), "{}", answer.text);
    }
    let nobody = client.get(format!("{}?query=SELECT+1", store.url())).send().await.unwrap();
    let answer = Answer::of(nobody).await;
    assert_eq!((answer.status, answer.header("x-clickhouse-exception-code")), (401, "194"));
    assert!(answer.header("www-authenticate").starts_with("Basic"));
    store.stop();
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_result_is_seen() {
    let (store, _folder) = Served::fresh();
    let sql = "SELECT throwIf(number = 3000000, 'far in') AS thrown FROM numbers(4000000)";
    // One thread, so that what comes before the error is out before it.
    let parameters = [("max_threads", "1")];
    let error = store
        .client(READER)
        .query(sql)
        .with_setting("max_threads", "1")
        .fetch_all::<u8>()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("Code: 395. DB::Exception: far in"), "{error}");
    let url = reqwest::Url::parse_with_params(&store.url(), parameters).unwrap();
    let request = http_client().post(url).basic_auth(READER.0, Some(READER.1));
    let response = request.body(sql).send().await.unwrap();
    assert_eq!(response.status(), 200, "the error came before the first bytes");
    assert!(response.bytes().await.is_err(), "a cut result must not look whole");
    store.stop();
}

#[tokio::test]
async fn an_insert_with_a_bad_row_writes_nothing() {
    let (store, _folder) = Served::fresh();
    store.run(WRITER, "CREATE TABLE default.t (a UInt32) ENGINE = MergeTree ORDER BY a").await;
    let insert = [("query", "INSERT INTO default.t FORMAT CSV")];
    let answer = store.post(WRITER, &insert, "1\n2\nthree\n4\n").await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_eq!(store.run(READER, "SELECT count() FROM default.t").await, "0\n");
    store.stop();
}
