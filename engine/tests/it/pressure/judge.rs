//! Holds what is left to plain SQL over what was sent and bound.

use std::{process::Command, sync::Arc};

use arrow::{
    array::{ArrayRef, Int32Array, Int64Array, StringArray},
    record_batch::RecordBatch,
};
use citycell::{
    binding::Binding,
    clickhouse::{ClickHouse, rows::arrow_stream},
};

use crate::{
    oracle::{Moment, differences, write_bound},
    store::TestStore,
};

use super::{
    Settings,
    load::{Report, SENSORS, Sent},
};

/// A record takes less than this from its sensor to Kafka, where it can be known of.
const ON_THE_WAY_MS: u64 = 1_000;

/// What was found.
#[derive(Default)]
pub(super) struct Verdict {
    pub(super) rows: u64,
    pub(super) mismatches: u64,
    pub(super) lines: Vec<String>,
}

pub(super) async fn judge(
    store: &TestStore,
    brokers: &str,
    sent: &Sent,
    (bindings, settings): (&[Binding], &Settings),
) -> Verdict {
    let mut verdict = Verdict::default();
    write_raw(store, sent).await;
    write_bound(store, bindings).await;
    // 1. Every record counted, once.
    for pipeline in ["crowd_flow", "strict", "latest"] {
        let counted = format!(
            "SELECT sum(counted) FROM (SELECT DISTINCT epoch, counted FROM epochs \
             WHERE pipeline = '{pipeline}')"
        );
        let counted = number(store, &counted).await;
        verdict.add(&format!("events of {pipeline}"), counted, counted.abs_diff(sent.count()));
    }
    // 2. What is seen, and what was seen at some moments, is what SQL says.
    let marks = store.lines("SELECT DISTINCT epoch FROM moments ORDER BY epoch").await;
    let step = marks.len().div_ceil(4).max(1);
    let epochs: Vec<u64> =
        marks.iter().rev().step_by(step).filter_map(|m| m.parse().ok()).collect();
    for epoch in epochs.iter().copied().filter(|epoch| *epoch > 0) {
        let (rows, differing) = differences(store, Moment::AsOf(epoch)).await;
        verdict.add(&format!("crowd_flow as of {epoch}"), rows, differing);
        let differing = latest_differs(store, epoch, settings).await;
        verdict.add(&format!("latest as of {epoch}"), 1, differing);
    }
    // 3. No watermark ran ahead: a pipeline that allows a second has seen nothing late.
    verdict.add("late", 0, number(store, "SELECT count() FROM late").await);
    // 4. Bound time did not run ahead of what was unread, so nobody was declared silent.
    let ahead_ms = number(store, AHEAD).await;
    verdict.lines.push(format!("bound time ran at most {ahead_ms} ms ahead of an unread record"));
    verdict.add("bound time ahead", 0, u64::from(ahead_ms > ON_THE_WAY_MS));
    if sent.silence_ms() < settings.expire.as_millis() as i64 / 4 {
        let silent = format!(
            "SELECT count() FROM latest_history WHERE level = 'city' AND sensors = {SENSORS} \
             AND known < sensors"
        );
        verdict.add("rows with silent sensors", 0, number(store, &silent).await);
    } else {
        verdict.lines.push("the sensors were silent themselves: not judged".to_owned());
    }
    // 5. The books.
    let audit = Command::new(env!("CARGO_BIN_EXE_citycell"))
        .args(["audit", "--clickhouse", &store.settings().url, "--brokers", brokers])
        .args(["--deployment", &deployment(store).await])
        .output()
        .unwrap();
    verdict.add("audit", 0, u64::from(!audit.status.success()));
    if !audit.status.success() {
        verdict.lines.push(String::from_utf8_lossy(&audit.stdout).into_owned());
    }
    verdict
}

/// The most by which an epoch's timers ran ahead of a record that it had not read, ms.
const AHEAD: &str = "
    SELECT toUInt64(greatest(0, max(timers - created_ms)))
    FROM
    (
        SELECT DISTINCT epoch, toUnixTimestamp64Milli(bound_time) AS timers FROM epochs
        WHERE pipeline = 'crowd_flow'
    ) AS marks
    INNER JOIN bound USING (epoch)
    INNER JOIN raw ON raw.partition = bound.partition AND raw.offset = bound.next_offset";

/// 1 if the city's latest reports are not what SQL says.
async fn latest_differs(store: &TestStore, epoch: u64, settings: &Settings) -> u64 {
    let timers = format!(
        "SELECT toUnixTimestamp64Milli(max(bound_time)) FROM epochs \
         WHERE pipeline = 'latest' AND epoch = {epoch}"
    );
    let timers = number(store, &timers).await;
    let expire = settings.expire.as_millis();
    let expected = format!(
        "SELECT count(), countIf(known), sumIf(people, known) FROM (\
         SELECT JSONExtractString(payload, 'data', 'sensorId') AS sensor, \
         {timers} - max(created_ms) <= {expire} AS known, \
         argMax(JSONExtractInt(payload, 'data', 'peopleCount'), (created_ms, offset)) AS people \
         FROM raw INNER JOIN (SELECT partition, max(next_offset) AS next FROM bound \
         WHERE epoch <= {epoch} GROUP BY partition) AS read USING (partition) \
         WHERE offset < next GROUP BY sensor) HAVING count() > 0"
    );
    let shown = format!(
        "SELECT toUInt64(sensors), toUInt64(known), toInt64(people) \
         FROM latest_as_of(epoch = {epoch}) WHERE level = 'city'"
    );
    u64::from(store.lines(&expected).await != store.lines(&shown).await)
}

/// What was sent, as the oracle wants it, and when.
async fn write_raw(store: &TestStore, sent: &Sent) {
    let clickhouse = ClickHouse::new(&store.settings());
    let create = "CREATE TABLE raw (partition Int32, offset Int64, created_ms Int64, payload String) \
                  ENGINE = MergeTree ORDER BY (partition, offset)";
    clickhouse.execute("create raw", create).await.unwrap();
    const ROWS: usize = 50_000;
    for (partition, reports) in (0..).zip(&sent.0) {
        for (chunk, first) in reports.chunks(ROWS).zip((0..).step_by(ROWS)) {
            let column = |value: fn(&Report) -> i64| -> ArrayRef {
                Arc::new(Int64Array::from_iter_values(chunk.iter().map(value)))
            };
            let payloads = chunk.iter().map(|report| report.payload.as_str());
            let batch = RecordBatch::try_from_iter([
                ("partition", Arc::new(Int32Array::from_value(partition, chunk.len())) as ArrayRef),
                (
                    "offset",
                    Arc::new(Int64Array::from_iter_values(first..first + chunk.len() as i64)),
                ),
                ("created_ms", column(|report| report.time_ms)),
                ("payload", Arc::new(StringArray::from_iter_values(payloads))),
            ]);
            clickhouse.insert_arrow("raw", arrow_stream(&batch.unwrap())).await.unwrap();
        }
    }
}

impl Verdict {
    fn add(&mut self, what: &str, rows: u64, differing: u64) {
        self.rows += rows;
        self.mismatches += differing;
        if differing > 0 {
            self.lines.push(format!("{what}: {differing} wrong"));
        }
    }
}

/// The topic names it.
async fn deployment(store: &TestStore) -> String {
    store.lines("SELECT DISTINCT arrayJoin(ranges).1 FROM epochs").await.concat()
}

async fn number(store: &TestStore, sql: &str) -> u64 {
    store.lines(sql).await.concat().parse().unwrap()
}
