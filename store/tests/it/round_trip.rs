//! What goes in by the `clickhouse` crate comes out again.

use clickhouse::Row;
use serde::{Deserialize, Serialize};

use crate::served::{READER, Served, WRITER};

#[derive(Row, Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Reading {
    cell: u32,
    people: i64,
    name: String,
}

fn readings(count: u32) -> Vec<Reading> {
    let reading =
        |cell| Reading { cell, people: -i64::from(cell), name: format!("cell {cell} \u{57ce}") };
    (0..count).map(reading).collect()
}

#[tokio::test]
async fn rows_come_back_as_they_were_written_also_after_a_restart() {
    let (store, folder) = Served::fresh();
    let writer = store.client(WRITER);
    writer.query("CREATE DATABASE city").execute().await.unwrap();
    let table = "CREATE TABLE city.readings (cell UInt32, people Int64, name String) \
        ENGINE = MergeTree ORDER BY cell";
    writer.query(table).execute().await.unwrap();
    let rows = readings(100_000);
    let mut insert =
        writer.clone().with_database("city").insert::<Reading>("readings").await.unwrap();
    for row in &rows {
        insert.write(row).await.unwrap();
    }
    insert.end().await.unwrap();
    let all = "SELECT ?fields FROM city.readings ORDER BY cell";
    let read = store.client(READER).query(all).fetch_all::<Reading>().await.unwrap();
    assert!(read == rows, "{} rows came back", read.len());
    store.stop();

    let store = Served::start(folder.path());
    let some =
        store.client(READER).query("SELECT ?fields FROM city.readings WHERE cell = {cell:UInt32}");
    let one = some.param("cell", 4711).fetch_one::<Reading>().await.unwrap();
    assert_eq!(one, rows[4711]);
    store.stop();
}
