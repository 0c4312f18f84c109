//! The engine and the model of time, given the same records and bindings, say the same of every
//! epoch: its books and its rows.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use citycell::engine;
use citycell_operators::{events::Outcome, plan::Take};
use citycell_schemas::EventTime;
use rand::{SeedableRng, rngs::StdRng};
use rdkafka::producer::BaseRecord;

use crate::{
    broker::{Sender, create_topic, unique},
    city::{config, pipeline, withdrawal},
    model::{
        Binding, Event, Grouping, Log, Numbers, PARTITIONS, Record, Row, Rules, machine::Machine,
        sensors::Sensors,
    },
    restart::bindings,
    store::TestStore,
};

/// Values of the model are moved by this: no count of people is negative.
const MOVED: i128 = 1_000;

fn file(topic: &str, kind: &str) -> String {
    format!(
        "
pipeline: crowd
source:
  topic: {topic}
  schema: crowd_flow
  event_time: dateObserved
  location: {{cell: gridCode}}
  late: {{allow: 2s}}
  future: 1s
where: status = 'actual'
{kind}
aggregate:
  total: sum(peopleCountTowards)
"
    )
}

fn payload(record: &Record) -> String {
    match record {
        Record::Bad => "[".to_owned(),
        Record::Withdrawal(id) => withdrawal(&id.to_string()),
        Record::Event(Event { id, time, entity, place, value, wanted }) => {
            let time = jiff::Timestamp::from_millisecond(*time).unwrap();
            let cell = place + 1;
            let value = value.map_or("null".to_owned(), |value| (value + MOVED).to_string());
            let status = if *wanted { "actual" } else { "test" };
            format!(
                r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"city.crowd.flow","data":{{"sensorId":"{entity}","dateObserved":"{time}","gridCode":"{}","status":"{status}","peopleCount":1,"peopleCountTowards":{value}}}}}"#,
                ["430102001001001", "430102001001002", "430102001002001"][cell as usize - 1]
            )
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Runs an engine while sensors write for a few seconds, then holds every epoch to the model.
async fn hold(rules: Rules, kind: &str, seed: u64) {
    let store = TestStore::start();
    let topic = unique("model");
    create_topic(&topic, PARTITIONS as i32).await;
    let mut config = config(&topic, store.settings(), vec![pipeline(&file(&topic, kind))]);
    config.limits.idle_after = Duration::from_millis(700);
    let engine = engine::start(config).await.unwrap();
    let log = write(&topic, rules, seed).await;
    engine.drain();
    tokio::task::spawn_blocking(|| engine.wait()).await.unwrap().unwrap();

    let books = said(&store, BOOKS).await;
    let rows = said(&store, ROWS).await;
    let (mut machine, mut numbers, mut shown) = (Machine::new(rules), Numbers::new(), Vec::new());
    for binding in bindings(&topic).await {
        let binding = of_model(&binding);
        let epoch = binding.epoch.to_string();
        let closed = machine.process(&log, &binding);
        assert_eq!(books[&epoch], [books_line(&closed.books)], "books of {epoch}");
        for (key, row) in closed.changes {
            match row {
                Some(row) => numbers.insert(key, row),
                None => numbers.remove(&key),
            };
        }
        let written = rows.get(&epoch).cloned().unwrap_or_default();
        shown.extend(written);
        assert_eq!(newest(&shown), lines(&numbers), "rows after {epoch}");
    }
    assert!(shown.len() > 50 && books.len() > 20, "{} rows, {} epochs", shown.len(), books.len());
}

async fn write(topic: &str, rules: Rules, seed: u64) -> Log {
    let (sender, mut log) = (Sender::new(), Log::default());
    let mut random = StdRng::seed_from_u64(seed);
    let mut sensors = Sensors::new(rules, 1_500);
    let mut sent = [0; PARTITIONS];
    for _ in 0..60 {
        sensors.write(&mut log, now_ms(), &mut random);
        for (partition, records) in log.iter().enumerate() {
            for stored in &records[sent[partition]..] {
                let payload = payload(&stored.record);
                let record = BaseRecord::<(), [u8]>::to(topic).partition(partition as i32);
                sender.post(record.timestamp(stored.broker_time).payload(payload.as_bytes()));
            }
            sent[partition] = records.len();
        }
        sender.flush();
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    log
}

fn of_model(binding: &citycell::binding::Binding) -> Binding {
    let mut of = Binding {
        epoch: binding.epoch.0,
        from: [0; PARTITIONS],
        next_offset: [0; PARTITIONS],
        idle: [false; PARTITIONS],
        watermark: binding.watermarks.get("crowd").copied().unwrap_or(EventTime::MIN).0,
        bound_time: binding.bound_time_ms,
        previous_bound_time: binding.previous_bound_time_ms,
    };
    for (partition, range) in &binding.partitions {
        let number = partition.partition as usize;
        of.from[number] = range.from_offset as usize;
        of.next_offset[number] = range.next_offset as usize;
        of.idle[number] = range.idle;
    }
    of
}

const BOOKS: &str = "SELECT toString(epoch), concatWithSeparator(' ', counted, filtered, rejected, \
                     diverted, duplicates, withdrawals) FROM epochs";

fn books_line(books: &BTreeMap<Outcome, u64>) -> String {
    use Outcome::{Counted, Diverted, Duplicate, Filtered, Rejected, Withdrawal};
    let counts = [Counted, Filtered, Rejected, Diverted, Duplicate, Withdrawal]
        .map(|outcome| books.get(&outcome).copied().unwrap_or_default().to_string());
    counts.join(" ")
}

const ROWS: &str = "SELECT toString(epoch), concatWithSeparator(' ', \
                    toUnixTimestamp64Milli(window_start), cell, \
                    if(is_deleted = 1, '-', concatWithSeparator(' ', events, \
                    if(total_valid = 1, toString(total), 'null')))) \
                    FROM crowd_history WHERE level = 'cell'";

/// What a query says of each epoch.
async fn said(store: &TestStore, sql: &str) -> BTreeMap<String, Vec<String>> {
    let mut said = BTreeMap::<String, Vec<String>>::new();
    for line in store.lines(sql).await {
        let (epoch, text) = line.split_once('\t').unwrap();
        said.entry(epoch.to_owned()).or_default().push(text.to_owned());
    }
    said
}

/// The rows as last written, by key, without those deleted.
fn newest(rows: &[String]) -> BTreeMap<String, String> {
    let mut newest = BTreeMap::new();
    for row in rows {
        let mut parts = row.splitn(3, ' ');
        let key = format!("{} {}", parts.next().unwrap(), parts.next().unwrap());
        newest.insert(key, parts.next().unwrap().to_owned());
    }
    newest.retain(|_, row| row != "-");
    newest
}

fn lines(numbers: &Numbers) -> BTreeMap<String, String> {
    let line = |((window_start, place), row): (&(i64, u32), &Row)| {
        let code = ["430102001001001", "430102001001002", "430102001002001"][*place as usize];
        let total = match row.not_null {
            0 => "null".to_owned(),
            values => (row.sum + MOVED * i128::from(values)).to_string(),
        };
        (format!("{window_start} {code}"), format!("{} {total}", row.count))
    };
    numbers.iter().map(line).collect()
}

fn rules(grouping: Grouping) -> Rules {
    Rules { grouping, allow: 2_000, future: 1_000, idle_after: 700 }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_in_windows() {
    hold(rules(Grouping::Events { window: 1_000 }), "window: {tumbling: 1s}", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_of_each_entity_in_windows() {
    let grouping = Grouping::PerEntity { window: 2_000, take: Take::Last };
    let kind = "window: {tumbling: 2s}\nper: {by: [sensorId], take: last}";
    hold(rules(grouping), kind, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_of_each_entity() {
    let grouping = Grouping::Latest { expire: 1_000, forget: 3_000 };
    hold(rules(grouping), "latest: {by: [sensorId], expire: 1s, forget: 3s}", 3).await;
}
