//! What a start with these files would build anew, by what ClickHouse has.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use citycell_schemas::Grid;
use serde::Serialize;
use serde_json::Value;

use crate::{
    clickhouse::{ClickHouse, ClickHouseError, sql::literal, versions::ServedVersion},
    pipeline::Pipeline,
};

/// The versions that have served each pipeline.
pub(super) type Served = BTreeMap<String, Vec<ServedVersion>>;

/// What becomes of a pipeline at a start.
#[derive(Debug, Serialize)]
pub(super) struct Start {
    /// The version of the file.
    version: String,
    /// The version that serves now.
    serves: Option<String>,
    /// What of the serving version's epochs is computed again.
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<History>,
    /// Whether the version that serves goes on until this one is complete.
    goes_on: bool,
    /// What differs, by place in the plan or schema: before and after.
    differs: Vec<Difference>,
    /// What else changes every number's version: the grid or the program.
    other_reason: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct History {
    epochs: u64,
    records: u64,
    first_epoch_ms: u64,
}

#[derive(Debug, Serialize)]
struct Difference {
    at: String,
    before: Value,
    after: Value,
}

/// What becomes of this pipeline.
///
/// # Errors
/// ClickHouse's.
pub(super) async fn start(
    pipeline: &Pipeline,
    grid: &Grid,
    served: &Served,
    clickhouse: &ClickHouse,
) -> Result<Start, ClickHouseError> {
    let version = pipeline.version(grid);
    let last = served.get(&pipeline.plan.name).and_then(|versions| versions.last());
    let Some(last) = last else {
        let history = history(clickhouse, None).await?;
        let (differs, other_reason) = (Vec::new(), None);
        return Ok(Start { version, serves: None, history, goes_on: false, differs, other_reason });
    };
    let serves = Some(last.version.clone());
    if last.version == version {
        let (differs, other_reason) = (Vec::new(), None);
        return Ok(Start { version, serves, history: None, goes_on: true, differs, other_reason });
    }
    let before = last.pipeline().ok();
    let goes_on = before.as_ref().is_some_and(|before| before.version(grid) == last.version);
    let differs = before.as_ref().map_or_else(Vec::new, |before| differences(before, pipeline));
    let other_reason = match (last.grid == grid.version(), goes_on) {
        (false, _) => Some("another grid"),
        (true, false) => Some("another version of the program"),
        (true, true) => None,
    };
    let history = history(clickhouse, Some(last)).await?;
    Ok(Start { version, serves, history, goes_on, differs, other_reason })
}

/// How much a version has marked, or any of them; none if nothing is.
async fn history(
    clickhouse: &ClickHouse,
    of: Option<&ServedVersion>,
) -> Result<Option<History>, ClickHouseError> {
    let which = of.map_or_else(String::new, |served| {
        let (name, version) = (literal(&served.pipeline), literal(&served.version));
        format!("WHERE pipeline = {name} AND version = {version}")
    });
    let sql = format!(
        "SELECT uniqExact(epoch), sum(records), min(epoch) FROM \
         (SELECT epoch, max(records) AS records FROM epochs {which} GROUP BY epoch)"
    );
    let answer = clickhouse.query("read what is marked", &sql, "TabSeparated").await?;
    let text = String::from_utf8_lossy(&answer);
    let mut numbers = text.trim().split('\t').map(|number| number.parse().unwrap_or_default());
    let mut next = || numbers.next().unwrap_or_default();
    let history = History { epochs: next(), records: next(), first_epoch_ms: next() };
    Ok((history.epochs > 0).then_some(history))
}

/// Pipelines that serve and are not among these.
pub(super) fn left_out<'a>(served: &'a Served, names: &BTreeSet<String>) -> Vec<&'a str> {
    let others = served.keys().filter(|name| !names.contains(*name));
    others.map(String::as_str).collect()
}

fn differences(before: &Pipeline, after: &Pipeline) -> Vec<Difference> {
    let value = |pipeline: &Pipeline| serde_json::json!({ "pipeline": pipeline.plan, "schema": *pipeline.schema });
    let mut found = Vec::new();
    compare("", &value(before), &value(after), &mut found);
    found
}

fn compare(at: &str, before: &Value, after: &Value, found: &mut Vec<Difference>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                let side = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or(Value::Null)
                };
                compare(&at, &side(old), &side(new), found);
            }
        }
        (old, new) if old == new => {}
        (old, new) => {
            found.push(Difference { at: at.to_owned(), before: old.clone(), after: new.clone() });
        }
    }
}

impl Start {
    /// Prints it for people.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\nat a start")?;
        let Self { version, serves, history, goes_on, differs, other_reason } = self;
        let Some(before) = serves else {
            return match history {
                None => writeln!(out, "  version {version} begins with the first record"),
                Some(_) => writeln!(
                    out,
                    "  version {version} is built from the first record; nothing is shown until it is \
                     complete"
                ),
            };
        };
        if before == version {
            return writeln!(out, "  version {version} serves: nothing is built anew");
        }
        writeln!(out, "  version {version} is built anew and takes the place of {before}")?;
        if let Some(History { epochs, records, first_epoch_ms }) = history {
            let first = i64::try_from(*first_epoch_ms).unwrap_or_default();
            let first = jiff::Timestamp::from_millisecond(first).unwrap_or_default();
            writeln!(out, "  from Kafka: {records} records in {epochs} epochs since {first}")?;
        }
        let until = if *goes_on { "goes on" } else { "stands still" };
        writeln!(out, "  until then {before} {until}")?;
        if let Some(reason) = other_reason {
            writeln!(out, "  because of {reason}")?;
        }
        for Difference { at, before, after } in differs {
            writeln!(out, "  {at}: {before} -> {after}")?;
        }
        Ok(())
    }
}
