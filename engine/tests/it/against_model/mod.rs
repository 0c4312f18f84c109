//! The engine and the model of time, given the same records and bindings, say the same of every
//! epoch, its books and its rows: whatever the sensors do, however many workers there are, whoever
//! is killed in the middle of what, and whether or not it goes on from a snapshot.
//!
//! What a case is follows from its seed. `CITYCELL_MODEL_CASES=100` tries as many, from
//! `CITYCELL_MODEL_SEED` on; a failure names its case.

mod case;
mod lives;

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use citycell_operators::events::Outcome;
use citycell_schemas::EventTime;

use self::{
    case::Case,
    lives::{Writer, live, read_all},
};
use crate::{
    broker::{create_topic, unique},
    city::withdrawal,
    model::{Binding, Event, Log, Numbers, PARTITIONS, Record, Row, machine::Machine},
    program::Program,
    restart::bindings,
    store::TestStore,
};

/// Values of the model are moved by this: no count of people is negative.
const MOVED: i128 = 1_000;

const IDLE_AFTER_MS: i64 = 700;

/// Cases that run at the same time.
const CASES_AT_ONCE: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_every_epoch_is_as_the_model_says() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("CITYCELL_MODEL_SEED").unwrap_or(1);
    let count = number("CITYCELL_MODEL_CASES").unwrap_or(3);
    let seeds: Vec<u64> = (first..first + count).collect();
    for seeds in seeds.chunks(CASES_AT_ONCE) {
        let cases = seeds.iter().map(|seed| tokio::spawn(hold(Case::draw(*seed))));
        for case in cases.collect::<Vec<_>>() {
            case.await.unwrap();
        }
    }
}

/// Lets a case's engines live, then holds every epoch to the model.
async fn hold(case: Case) {
    eprintln!("{case:?}");
    let mut store = TestStore::start();
    let topic = unique("model");
    create_topic(&topic, PARTITIONS as i32).await;
    let idle_after = format!("{IDLE_AFTER_MS}ms");
    let program = Program::of(&topic, &store.settings().url, &case.file(&topic), &idle_after);
    let mut writer = Writer::new(&topic, &case);
    for life in &case.lives {
        live(life, &program, &mut store, &mut writer).await;
    }
    for _ in 0..20 {
        writer.write().await;
    }
    tokio::task::block_in_place(|| read_all(&program, case.last, &writer));
    compare(&case, &store, &topic, &writer.log).await;
}

async fn compare(case: &Case, store: &TestStore, topic: &str, log: &Log) {
    let seed = case.seed;
    let books = said(store, BOOKS).await;
    let mut rows = said(store, ROWS).await;
    let mut machine = Machine::new(case.rules);
    let (mut numbers, mut shown, mut read) = (Numbers::new(), Vec::new(), 0);
    for binding in bindings(topic).await {
        let binding = of_model(&binding);
        let epoch = binding.epoch.to_string();
        let closed = machine.process(log, &binding);
        read += closed.books.values().sum::<u64>();
        assert_eq!(books[&epoch], [books_line(&closed.books)], "case {seed}: books of {epoch}");
        for (key, row) in closed.changes {
            match row {
                Some(row) => numbers.insert(key, row),
                None => numbers.remove(&key),
            };
        }
        let written = rows.remove(&epoch).unwrap_or_default();
        let keys = newest_of_all(&written).len();
        assert_eq!(keys, written.len(), "case {seed}: {epoch} says two things: {written:?}");
        shown.extend(written);
        assert_eq!(newest(&shown), lines(&numbers), "case {seed}: rows after {epoch}");
    }
    assert!(rows.is_empty(), "case {seed}: rows of epochs that are not bound: {rows:?}");
    let written: usize = log.iter().map(Vec::len).sum();
    assert_eq!(read, written as u64, "case {seed}: records read");
    assert!(shown.len() > 10, "case {seed}: only {} rows", shown.len());
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
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
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

const BOOKS: &str = "SELECT DISTINCT toString(epoch), concatWithSeparator(' ', counted, filtered, rejected, \
                     diverted, duplicates, withdrawals) FROM epochs";

fn books_line(books: &BTreeMap<Outcome, u64>) -> String {
    use Outcome::{Counted, Diverted, Duplicate, Filtered, Rejected, Withdrawal};
    let counts = [Counted, Filtered, Rejected, Diverted, Duplicate, Withdrawal]
        .map(|outcome| books.get(&outcome).copied().unwrap_or_default().to_string());
    counts.join(" ")
}

const ROWS: &str = "SELECT DISTINCT toString(epoch), concatWithSeparator(' ', \
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
    let mut newest = newest_of_all(rows);
    newest.retain(|_, row| row != "-");
    newest
}

fn newest_of_all(rows: &[String]) -> BTreeMap<String, String> {
    let of_key = |row: &String| {
        let mut parts = row.splitn(3, ' ').map(str::to_owned);
        let (window, place) = (parts.next().unwrap(), parts.next().unwrap());
        (format!("{window} {place}"), parts.next().unwrap())
    };
    rows.iter().map(of_key).collect()
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
