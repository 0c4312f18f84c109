//! `citycell archive show`: records as they came, for whoever has the keys.

use std::{error::Error, io::Write, process::ExitCode};

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    clickhouse::{ClickHouse, sql::literal},
    personal::{Opened, Opener, Place, Row},
};

use super::super::connection::{ClickHouseArgs, KeyPlaceArgs, MasterKeyArgs};

/// Rows that are read at once; a record may be large.
const PAGE_ROWS: usize = 256;

/// Print records of a topic as they came, what is personal included: one JSON object a line. Exit
/// code 1 if one of them cannot be shown, for example because its day's key was destroyed.
#[derive(Args, Debug)]
pub struct ShowArgs {
    #[command(flatten)]
    clickhouse: ClickHouseArgs,
    #[command(flatten)]
    place: KeyPlaceArgs,
    #[command(flatten)]
    master_key: MasterKeyArgs,
    /// The deployment whose keys they are.
    #[arg(long, default_value = "city")]
    deployment: String,
    /// The topic.
    topic: String,
    /// One partition; all of them if not said.
    #[arg(long)]
    partition: Option<i32>,
    /// From this offset on.
    #[arg(long, default_value_t = i64::MIN, hide_default_value = true)]
    from_offset: i64,
    /// Up to before this offset.
    #[arg(long, default_value_t = i64::MAX, hide_default_value = true)]
    next_offset: i64,
    /// The rejects of this pipeline, in place of the archive.
    #[arg(long, value_name = "PIPELINE")]
    rejects: Option<String>,
}

/// A row as ClickHouse answers.
#[derive(Deserialize)]
struct KeptRow {
    partition: i32,
    record_offset: i64,
    epoch: u64,
    broker_time_ms: i64,
    is_null: u8,
    reason: String,
    field: String,
    detail: String,
    payload_hex: String,
    sealed_hex: String,
}

/// Runs the command.
///
/// # Errors
/// ClickHouse or keys that cannot be reached, a master key that is missing or another, an output
/// that is closed.
pub(super) async fn run(args: ShowArgs, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
    let clickhouse = ClickHouse::new(&args.clickhouse.settings()?);
    let keys = args.place.open(&args.deployment)?;
    let mut opener = Opener::new(keys, args.master_key.read()?);
    let mut shown = ExitCode::SUCCESS;
    let mut after = None;
    loop {
        let answer = clickhouse.query("read records", &args.sql(after), "JSONEachRow").await?;
        let lines = answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let rows: Vec<KeptRow> = lines.map(serde_json::from_slice).collect::<Result<_, _>>()?;
        for row in &rows {
            let (object, is_whole) = args.open(row, &mut opener).await?;
            writeln!(out, "{}", Value::Object(object))?;
            if !is_whole {
                shown = ExitCode::FAILURE;
            }
        }
        match rows.last() {
            Some(last) if rows.len() == PAGE_ROWS => {
                after = Some((last.partition, last.record_offset));
            }
            _ => return Ok(shown),
        }
    }
}

impl ShowArgs {
    /// The rows after a partition and offset. A row that a crash left twice is read once; of two, the
    /// one that was written while its key was there.
    fn sql(&self, after: Option<(i32, i64)>) -> String {
        let (table, of_kind) = match &self.rejects {
            None => ("archive", "is_null, '' AS reason, '' AS field, '' AS detail"),
            Some(_) => ("rejects", "0 AS is_null, reason, field, detail"),
        };
        let mut conditions = vec![
            format!("topic = {}", literal(&self.topic)),
            format!(
                "record_offset >= {} AND record_offset < {}",
                self.from_offset, self.next_offset
            ),
        ];
        conditions.extend(self.partition.map(|partition| format!("partition = {partition}")));
        conditions.extend(
            self.rejects.as_ref().map(|pipeline| format!("pipeline = {}", literal(pipeline))),
        );
        conditions.extend(after.map(|(partition, offset)| {
            format!("(partition, record_offset) > ({partition}, {offset})")
        }));
        format!(
            "SELECT partition, record_offset, epoch, \
             toUnixTimestamp64Milli(broker_time) AS broker_time_ms, {of_kind}, \
             hex(payload) AS payload_hex, hex(sealed) AS sealed_hex \
             FROM {table} WHERE {} \
             ORDER BY partition, record_offset, length(sealed) > 1 DESC, epoch DESC \
             LIMIT 1 BY partition, record_offset LIMIT {PAGE_ROWS} \
             SETTINGS output_format_json_quote_64bit_integers = 0",
            conditions.join(" AND ")
        )
    }

    /// A row as JSON, and whether it says everything.
    async fn open(
        &self,
        row: &KeptRow,
        opener: &mut Opener,
    ) -> Result<(Map<String, Value>, bool), Box<dyn Error>> {
        let (shown, sealed) = (hex::decode(&row.payload_hex)?, hex::decode(&row.sealed_hex)?);
        let table = if self.rejects.is_some() { "rejects" } else { "archive" };
        let place = Place {
            table,
            topic: &self.topic,
            partition: row.partition,
            offset: row.record_offset,
        };
        let broker_time_ms = row.broker_time_ms;
        let kept = Row { place, broker_time_ms, payload: &shown, sealed: &sealed };
        let mut object = Map::new();
        let mut add = |name: &str, value: Value| object.insert(name.to_owned(), value);
        add("topic", json!(self.topic));
        add("partition", json!(row.partition));
        add("offset", json!(row.record_offset));
        add("epoch", json!(row.epoch));
        add("broker_time_ms", json!(broker_time_ms));
        let (payload, detail, problem) = match opener.open(kept).await? {
            Opened::Whole { payload, detail } => (payload, detail, None),
            Opened::Erased(day) => (shown, None, Some(format!("the key of {day} was destroyed"))),
            Opened::NoKey(day) => (shown, None, Some(format!("there is no key of {day} here"))),
            Opened::Unreadable(day) => {
                (shown, None, Some(format!("the key of {day} does not open it")))
            }
        };
        if self.rejects.is_some() {
            add("reason", json!(row.reason));
            add("field", json!(row.field));
            add("detail", json!(detail.as_ref().unwrap_or(&row.detail)));
        }
        match (row.is_null, String::from_utf8(payload)) {
            (1, _) => add("payload", Value::Null),
            (_, Ok(text)) => add("payload", json!(text)),
            (_, Err(bytes)) => add("payload_hex", json!(hex::encode(bytes.as_bytes()))),
        };
        let is_whole = problem.is_none();
        if let Some(problem) = problem {
            add("hidden", json!(problem));
        }
        Ok((object, is_whole))
    }
}
