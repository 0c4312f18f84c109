//! Times the candidate shapes of "now", "as of" and "one cell over a day" on an embedded
//! ClickHouse, and an insert with and without fsync. What it showed: docs/experiments/table-design.md.
//!
//! `table_design [CELLS] [VERSIONS] [WINDOWS] [DAY_CELLS] [REPEATS]`: the city is CELLS cells in
//! each of WINDOWS one-minute windows with VERSIONS versions each; the day is DAY_CELLS cells in
//! 1,440 windows with as many versions. A median over REPEATS runs is printed per query, with a
//! hash of its rows: shapes of one question must agree in it.

use std::error::Error;
use std::time::Instant;

use citycell_store::{Store, StoreConfig, User};

/// 2026-11-23 00:00 UTC, the day; the city's windows are on the day after.
const DAY: u64 = 1_795_392_000;
const CITY: u64 = DAY + 86_400;
const DAY_WINDOWS: u64 = 1_440;
const WRITER: (&str, &str) = ("writer", "writer");

const COLUMNS: &str = "window_start DateTime('UTC'), cell UInt32, epoch UInt64, \
    people Int64, people_valid Bool, load Float64, load_valid Bool, \
    sensors UInt64, sensors_valid Bool, is_deleted Bool";
const VALUES: [&str; 6] =
    ["people", "people_valid", "load", "load_valid", "sensors", "sensors_valid"];

struct Sizes {
    cells: u64,
    versions: u64,
    windows: u64,
    day_cells: u64,
    repeats: usize,
}

struct Client {
    http: reqwest::Client,
    url: String,
}

/// One question asked in several shapes: what to keep, and by which key versions compete.
struct Question {
    name: &'static str,
    filter: String,
    key: &'static str,
}

/// One way to ask a question; the settings stand at the outermost level, where they reach all of it.
struct Shape {
    name: &'static str,
    sql: String,
    settings: &'static str,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let sizes = Sizes::from_arguments()?;
    let folder = tempfile::tempdir()?;
    let user = |name: &str| User { name: name.to_owned(), password: name.into() };
    let store = Store::start(StoreConfig {
        listen: "127.0.0.1:0".parse()?,
        data: folder.path().to_owned(),
        writer: user(WRITER.0),
        reader: user("reader"),
    })
    .await?;
    let url = format!("http://{}/", store.local_addr());
    // Plain HTTP, but the client asks for a provider of TLS when it is made.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let measured = measure(&Client { http: reqwest::Client::new(), url }, &sizes).await;
    store.shutdown().await;
    measured
}

async fn measure(client: &Client, sizes: &Sizes) -> Result<(), Box<dyn Error>> {
    fill(client, sizes).await?;
    println!("| question | shape | median ms | least ms | rows | hash |");
    println!("|---|---|---:|---:|---:|---|");
    for question in questions(sizes) {
        compare(client, sizes, &question).await?;
    }
    measure_inserts(client, sizes).await
}

async fn fill(client: &Client, sizes: &Sizes) -> Result<(), Box<dyn Error>> {
    let history = format!(
        "CREATE TABLE history ({COLUMNS}, \
           PROJECTION by_cell (SELECT * ORDER BY cell, window_start, epoch)) \
         ENGINE = MergeTree ORDER BY (window_start, cell, epoch) \
         PARTITION BY toYYYYMMDD(window_start)"
    );
    client.run(&history).await?;
    let current = format!(
        "CREATE TABLE current ({COLUMNS}) ENGINE = ReplacingMergeTree(epoch) \
         ORDER BY (window_start, cell) PARTITION BY toYYYYMMDD(window_start)"
    );
    client.run(&current).await?;
    let started = Instant::now();
    // A batch holds one version of every key, as a tick would write it.
    for version in 0..sizes.versions {
        let city = rows(CITY, sizes.windows, sizes.cells, version);
        client.run(&format!("INSERT INTO history {city}")).await?;
        client.run(&format!("INSERT INTO current {city}")).await?;
        let day = rows(DAY, DAY_WINDOWS, sizes.day_cells, version);
        client.run(&format!("INSERT INTO history {day}")).await?;
    }
    let count = client.run("SELECT count() FROM history FORMAT TSV").await?;
    let rows = String::from_utf8(count)?;
    println!("{} rows of history in {:?}", rows.trim(), started.elapsed());
    settled(client).await
}

/// One version of every (window, cell), epochs a second apart and beginning with the window.
fn rows(first: u64, windows: u64, cells: u64, version: u64) -> String {
    let keys = windows * cells;
    format!(
        "SELECT toDateTime({first} + 60 * intDiv(number, {cells}), 'UTC') AS window_start, \
           number % {cells} AS cell, (toUnixTimestamp(window_start) + {version}) * 1000 AS epoch, \
           intHash32(number + {version}) % 500 AS people, true AS people_valid, \
           people / 7 AS load, people > 3 AS load_valid, people % 9 AS sensors, true AS sensors_valid, \
           people = 0 AS is_deleted FROM numbers({keys})"
    )
}

fn questions(sizes: &Sizes) -> [Question; 3] {
    let last = (CITY + 60 * sizes.windows + sizes.versions) * 1000;
    let middle = (CITY + sizes.versions / 2) * 1000;
    let cell = sizes.day_cells / 2;
    let day_end = DAY + 86_400;
    [
        Question {
            name: "now",
            filter: format!("window_start = {CITY} AND epoch <= {last}"),
            key: "cell",
        },
        Question {
            name: "as of",
            filter: format!("window_start = {CITY} AND epoch <= {middle}"),
            key: "cell",
        },
        Question {
            name: "one cell over a day",
            filter: format!(
                "cell = {cell} AND window_start >= {DAY} AND window_start < {day_end} AND epoch <= {last}"
            ),
            key: "window_start",
        },
    ]
}

/// The same question in every shape; all give `key` and the values of the newest version.
fn shapes(question: &Question) -> Vec<Shape> {
    let Question { filter, key, .. } = question;
    let values = VALUES.join(", ");
    let newest = |column: &str| format!("argMax(h.{column}, h.epoch) AS {column}");
    let columns: Vec<String> = VALUES.iter().map(|column| newest(column)).collect();
    let per_column = format!(
        "SELECT {key}, {} FROM history AS h WHERE {filter} GROUP BY {key} \
         HAVING NOT argMax(h.is_deleted, h.epoch)",
        columns.join(", ")
    );
    let elements: Vec<String> =
        (1..).zip(VALUES).map(|(at, column)| format!("newest.{at} AS {column}")).collect();
    let tuple = format!(
        "SELECT {key}, {} FROM (SELECT {key}, argMax(({values}, is_deleted), epoch) AS newest \
         FROM history WHERE {filter} GROUP BY {key}) WHERE NOT newest.7",
        elements.join(", ")
    );
    let limit_by = format!(
        "SELECT {key}, {values} FROM (SELECT {key}, {values}, is_deleted FROM history \
         WHERE {filter} ORDER BY window_start DESC, cell DESC, epoch DESC LIMIT 1 BY {key}) \
         WHERE NOT is_deleted"
    );
    let row_number = format!(
        "SELECT {key}, {values} FROM (SELECT {key}, {values}, is_deleted, \
           row_number() OVER (PARTITION BY {key} ORDER BY epoch DESC) AS place \
         FROM history WHERE {filter}) WHERE place = 1 AND NOT is_deleted"
    );
    // A row may have been sent twice; LIMIT 1 BY keeps one of the equal ones.
    let two_steps = format!(
        "SELECT {key}, {values} FROM history WHERE {filter} AND NOT is_deleted AND ({key}, epoch) IN \
         (SELECT {key}, max(epoch) FROM history WHERE {filter} GROUP BY {key}) LIMIT 1 BY {key}"
    );
    let shape = |name, sql: &str, settings| Shape { name, sql: sql.to_owned(), settings };
    let in_order = "SETTINGS optimize_aggregation_in_order = 1";
    let no_projection = "SETTINGS optimize_use_projections = 0";
    let mut shapes = vec![
        shape("argMax per column", &per_column, ""),
        shape("argMax per column, in order", &per_column, in_order),
        shape("argMax per column, no projection", &per_column, no_projection),
        shape("argMax tuple", &tuple, ""),
        shape("argMax tuple, in order", &tuple, in_order),
        shape("LIMIT 1 BY", &limit_by, ""),
        shape("row_number", &row_number, ""),
        shape("max(epoch), then the rows", &two_steps, ""),
        shape("max(epoch), then the rows, no projection", &two_steps, no_projection),
    ];
    if question.name == "now" {
        let current = format!(
            "SELECT cell, {values} FROM current FINAL WHERE window_start = {CITY} AND NOT is_deleted"
        );
        shapes.push(shape("FINAL on a current table", &current, ""));
    }
    shapes
}

/// Waits until the tables' parts are merged, as far as they will be.
async fn settled(client: &Client) -> Result<(), Box<dyn Error>> {
    while client.run("SELECT count() FROM system.merges FORMAT TSV").await? != b"0\n" {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    Ok(())
}

/// Times every shape of a question in turn, so that a slow moment of the machine hits all alike.
async fn compare(
    client: &Client,
    sizes: &Sizes,
    question: &Question,
) -> Result<(), Box<dyn Error>> {
    let shapes = shapes(question);
    let mut times = vec![Vec::new(); shapes.len()];
    for _ in 0..sizes.repeats {
        for (Shape { sql, settings, .. }, times) in shapes.iter().zip(&mut times) {
            let started = Instant::now();
            client.run(&format!("SELECT * FROM ({sql}) {settings} FORMAT RowBinary")).await?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    for (Shape { name, sql, settings }, times) in shapes.iter().zip(times) {
        let sum = "count(), sum(cityHash64(*))";
        let hashed = format!("SELECT {sum} FROM ({sql}) {settings} FORMAT TSV");
        let answer = String::from_utf8(client.run(&hashed).await?)?;
        let (rows, hash) = answer.trim().split_once('\t').ok_or("two columns")?;
        let (median, least) = median_and_least(times);
        println!("| {} | {name} | {median:.1} | {least:.1} | {rows} | {hash} |", question.name);
    }
    Ok(())
}

async fn measure_inserts(client: &Client, sizes: &Sizes) -> Result<(), Box<dyn Error>> {
    println!("| a 20,000-row insert | median ms | least ms |\n|---|---:|---:|");
    for (name, settings) in [
        ("fsync (the store's default)", ""),
        ("no fsync", "SETTINGS fsync_after_insert = 0, fsync_part_directory = 0"),
    ] {
        let table = format!(
            "CREATE TABLE inserted ({COLUMNS}) ENGINE = MergeTree ORDER BY (window_start, cell, epoch) {settings}"
        );
        client.run(&table).await?;
        client.run(&format!("INSERT INTO inserted {}", rows(CITY, 1, 20_000, 0))).await?;
        let batch = client.run("SELECT * FROM inserted FORMAT RowBinary").await?;
        let mut times = Vec::new();
        for _ in 0..sizes.repeats * 3 {
            let started = Instant::now();
            client.insert("INSERT INTO inserted FORMAT RowBinary", batch.clone()).await?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        let (median, least) = median_and_least(times);
        println!("| {name} | {median:.1} | {least:.1} |");
        client.run("DROP TABLE inserted SYNC").await?;
    }
    Ok(())
}

fn median_and_least(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[0])
}

impl Client {
    async fn run(&self, sql: &str) -> Result<Vec<u8>, Box<dyn Error>> {
        self.send(self.http.post(&self.url).body(sql.to_owned())).await
    }

    async fn insert(&self, sql: &str, data: Vec<u8>) -> Result<Vec<u8>, Box<dyn Error>> {
        let request =
            self.http.post(&self.url).body([format!("{sql}\n").into_bytes(), data].concat());
        self.send(request).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, Box<dyn Error>> {
        let request = request.basic_auth(WRITER.0, Some(WRITER.1));
        let response = request.send().await?;
        let status = response.status();
        let body = response.bytes().await?.to_vec();
        if !status.is_success() {
            return Err(String::from_utf8_lossy(&body).into_owned().into());
        }
        Ok(body)
    }
}

impl Sizes {
    fn from_arguments() -> Result<Self, Box<dyn Error>> {
        let mut given = std::env::args().skip(1);
        let mut next = |default: u64| given.next().map_or(Ok(default), |text| text.parse());
        Ok(Self {
            cells: next(100_000)?,
            versions: next(60)?,
            windows: next(3)?,
            day_cells: next(300)?,
            repeats: usize::try_from(next(11)?)?,
        })
    }
}
