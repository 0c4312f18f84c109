//! What the view shows is what plain SQL over the raw records says.
//!
//! The SQL knows the rules, not the engine: it decides itself which copy counts, what is withdrawn
//! and what is late, the last from the bindings alone.

use std::time::Duration;

use citycell::{binding::Binding, clickhouse::ClickHouse, engine};

use crate::{
    broker::{create_topic, unique},
    city::{config, crowd_flow},
    crowd::{Crowd, PARTITIONS},
    restart::bindings,
    store::TestStore,
};

/// Every record that is a CloudEvent, with the watermark of the epoch it was read in.
const READ: &str = "
    SELECT
        raw.partition AS partition, offset, watermark,
        JSONExtractString(payload, 'id') AS id,
        JSONHas(payload, 'data') AS is_event,
        JSONExtractString(payload, 'data', 'sensorId') AS sensor,
        JSONExtractString(payload, 'data', 'category') AS category,
        JSONExtractString(payload, 'data', 'status') AS status,
        JSONExtractInt(payload, 'data', 'peopleCount') AS people,
        toInt32(floor((JSONExtractFloat(payload, 'data', 'lon') - 113) * 1000)) AS column,
        parseDateTime64BestEffortOrZero(
            JSONExtractString(payload, 'data', 'dateObserved'), 3, 'UTC') AS time,
        toStartOfMinute(time) AS window_start,
        toUnixTimestamp64Milli(toDateTime64(window_start, 3, 'UTC')) + 660000 AS closes_at
    FROM raw ASOF INNER JOIN (SELECT * FROM bound WHERE from_offset < next_offset) AS bound
        ON raw.partition = bound.partition AND raw.offset >= bound.from_offset
    WHERE isValidJSON(payload) AND from_offset <= offset AND offset < next_offset";

/// The events whose window was open when they were read, the smallest position of each id, without
/// those that were withdrawn before their window closed.
const COUNTING: &str = "
    SELECT * FROM
    (
        SELECT * FROM read
        WHERE is_event AND status != 'test' AND column < 4 AND closes_at > watermark
        ORDER BY partition, offset LIMIT 1 BY id
    ) AS events
    LEFT JOIN
    (
        SELECT id, min(watermark) AS withdrawn_at FROM read WHERE NOT is_event GROUP BY id
    ) AS withdrawals USING (id)
    WHERE withdrawals.withdrawn_at = 0 OR withdrawals.withdrawn_at >= closes_at";

/// The last report of each sensor and minute, added up on all levels.
const ROWS: &str = "
    SELECT toUnixTimestamp(window_start) AS minute, level, substring(code, 1, digits) AS cell,
           newest.2 AS category, count() AS events, sum(newest.3) AS people,
           max(newest.3) AS peak, round(avg(newest.3), 6) AS average
    FROM
    (
        SELECT window_start, sensor,
               argMax((column, category, people), (time, partition, offset)) AS newest,
               ['430102001001001', '430102001001002', '430102001002001', '430102001002002']
                   [newest.1 + 1] AS code
        FROM counting GROUP BY window_start, sensor
    )
    ARRAY JOIN ['cell', 'community', 'street', 'district', 'city'] AS level,
               [15, 12, 9, 6, 4] AS digits
    GROUP BY minute, level, cell, category";

const SHOWN: &str = "
    SELECT toUnixTimestamp(window_start) AS minute, level, cell, category, events, people, peak,
           round(average, 6) AS average";

/// When readers look.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    /// At the end.
    Now,
    /// At this epoch.
    AsOf(u64),
}

/// Fails unless `crowd_flow` shows what SQL says of the records; yields how many were late.
pub(crate) async fn assert_right(store: &TestStore, crowd: &Crowd, bindings: &[Binding]) -> usize {
    prepare(store, crowd, bindings).await;
    let given = given(Moment::Now);
    let expected = store.lines(&format!("{given} {ROWS} ORDER BY ALL")).await;
    let shown = store.lines(&format!("{SHOWN} FROM crowd_flow ORDER BY ALL")).await;
    assert!(expected.len() > 100, "only {} rows", expected.len());
    assert_eq!(shown, expected);
    let late = "SELECT DISTINCT partition, offset FROM read \
                WHERE is_event AND status != 'test' AND column < 4 AND closes_at <= watermark";
    let late = store.lines(&format!("{given} {late} ORDER BY ALL")).await;
    let diverted = "SELECT DISTINCT partition, record_offset FROM late \
                    WHERE pipeline = 'crowd_flow' ORDER BY ALL";
    assert_eq!(store.lines(diverted).await, late);
    late.len()
}

/// Puts the raw records and the bindings beside the engine's tables.
pub(crate) async fn prepare(store: &TestStore, crowd: &Crowd, bindings: &[Binding]) {
    crowd.write_raw(store).await;
    write_bound(store, bindings).await;
}

/// How many rows there should be at a moment, and how many rows differ from what is shown.
pub(crate) async fn differences(store: &TestStore, moment: Moment) -> (u64, u64) {
    differences_from(store, moment, &given(moment)).await
}

/// The same of a `crowd_flow` that counts events of status `test` too.
pub(crate) async fn differences_with_tests(store: &TestStore, moment: Moment) -> (u64, u64) {
    let given = given(moment);
    let with_tests = given.replace("AND status != 'test' ", "");
    assert_ne!(given, with_tests);
    differences_from(store, moment, &with_tests).await
}

async fn differences_from(store: &TestStore, moment: Moment, given: &str) -> (u64, u64) {
    let shown = match moment {
        Moment::Now => "crowd_flow".to_owned(),
        Moment::AsOf(epoch) => format!("crowd_flow_as_of(epoch = {epoch})"),
    };
    let sql = format!(
        "{given}, \
         expected AS (SELECT toString(tuple(*)) FROM ({ROWS})), \
         shown AS (SELECT toString(tuple(*)) FROM ({SHOWN} FROM {shown})) \
         SELECT (SELECT count() FROM expected), \
         (SELECT count() FROM (SELECT * FROM expected EXCEPT SELECT * FROM shown)) \
         + (SELECT count() FROM (SELECT * FROM shown EXCEPT SELECT * FROM expected))",
    );
    let counts = store.lines(&sql).await.concat();
    let (rows, differing) = counts.split_once('\t').unwrap();
    (rows.parse().unwrap(), differing.parse().unwrap())
}

/// What was read by a moment, and what of it counts.
fn given(moment: Moment) -> String {
    let read = match moment {
        Moment::Now => READ.to_owned(),
        Moment::AsOf(epoch) => format!("{READ} AND epoch <= {epoch}"),
    };
    format!("WITH read AS ({read}), counting AS ({COUNTING})")
}

/// The bindings as a table `bound (epoch, partition, from_offset, next_offset, watermark)`.
pub(crate) async fn write_bound(store: &TestStore, bindings: &[Binding]) {
    let mut rows = Vec::new();
    for binding in bindings {
        let watermark = binding.watermarks["crowd_flow"].0;
        for (partition, range) in &binding.partitions {
            let (number, from, next) = (partition.partition, range.from_offset, range.next_offset);
            let epoch = binding.epoch.0;
            rows.push(format!("({epoch}, {number}, {from}, {next}, {watermark})"));
        }
    }
    let clickhouse = ClickHouse::new(&store.settings());
    let create = "CREATE TABLE bound (epoch UInt64, partition Int32, from_offset Int64, next_offset Int64, \
                  watermark Int64) ENGINE = MergeTree ORDER BY (partition, from_offset)";
    clickhouse.execute("create bound", create).await.unwrap();
    for rows in rows.chunks(1_000) {
        let insert = format!("INSERT INTO bound VALUES {}", rows.join(", "));
        clickhouse.execute("insert into bound", &insert).await.unwrap();
    }
}

async fn run(name: &str, delay_ms_max: i64) -> usize {
    let store = TestStore::start();
    let topic = unique(name);
    create_topic(&topic, PARTITIONS as i32).await;
    let mut crowd = Crowd::new(&topic, 11, delay_ms_max);
    let engine = engine::start(config(&topic, store.settings(), vec![crowd_flow(&topic)]));
    let engine = engine.await.unwrap();
    for _ in 0..25 {
        crowd.send(150);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    engine.drain();
    tokio::task::spawn_blocking(|| engine.wait()).await.unwrap().unwrap();
    assert_right(&store, &crowd, &bindings(&topic).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn corrections_within_the_allowance_are_exact() {
    assert_eq!(run("corrected", 2 * 60_000).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_too_late_is_set_aside_and_no_more() {
    assert!(run("late", 40 * 60_000).await > 0);
}
