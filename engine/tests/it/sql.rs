//! A real ClickHouse takes whatever stands in quotes of ours for a name or a text.

use arrow::datatypes::{DataType, Field};
use citycell::clickhouse::{
    ClickHouse,
    placement::Placement,
    sql::{identifier, literal},
    tables::{self, PipelineTable},
    views::views,
};

use crate::store::TestStore;

const HOSTILE: [&str; 9] = [
    "a`; DROP TABLE epochs; --",
    "a' OR '1'='1",
    "a\\' || 'b",
    "a\\\\`b",
    "\"a\" /* b */ # c",
    "{epoch:UInt64}",
    "?",
    "a\nb\tc",
    "长沙 ｀ ＇ ’",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_quoted_text_is_read_as_it_is() {
    let store = TestStore::start();
    store.execute("SELECT 1").await;
    let clickhouse = ClickHouse::new(&store.settings());
    for text in HOSTILE {
        let sql = format!("SELECT {} AS {}", literal(text), identifier(text));
        let row = clickhouse.query("read", &sql, "JSONEachRow").await.unwrap();
        let row: serde_json::Value = serde_json::from_slice(&row).unwrap();
        assert_eq!(row, serde_json::json!({ text: text }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_hostile_names_are_just_tables() {
    let store = TestStore::start();
    let clickhouse = ClickHouse::new(&store.settings());
    tables::create_shared(&clickhouse).await.unwrap();
    let count = "SELECT count() FROM system.tables WHERE database = 'city'";
    let before: usize = store.lines(count).await[0].parse().unwrap();
    // The store takes a name with a backslash for a function's in disguise and refuses it.
    let names = || HOSTILE.into_iter().filter(|text| !text.contains('\\'));
    for text in names() {
        let table = PipelineTable {
            pipeline: text.to_owned(),
            version: "1".into(),
            groups: vec![Field::new(text, DataType::Utf8, true)],
            measures: vec![format!("m{text}")],
            windowed: false,
            grid: text.to_owned(),
        };
        table.create(&clickhouse).await.unwrap();
        for view in views(&table, &[], &Placement::OneServer) {
            store.execute(&view).await;
        }
        let all = format!("SELECT count() FROM {}", identifier(text));
        assert_eq!(store.lines(&all).await, ["0"]);
    }
    let after: usize = store.lines(count).await[0].parse().unwrap();
    assert_eq!(after, before + 4 * names().count());
}
