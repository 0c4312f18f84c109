//! `citycell schema`: which event schemas there are, what they say, and whether events meet them.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use citycell_operators::decode::{DecodeOptions, Decoder, DecoderError, IdSource};
use citycell_operators::events::Reject;
use citycell_operators::records::Records;
use citycell_schemas::event::{Field, Range};
use citycell_schemas::{EventSchema, Offset};
use clap::Args;
use serde_json::{Value, json};

use crate::event_schemas::{self, LoadError};

/// How many lines are decoded at once.
const BATCH_LINES: usize = 4_096;

/// List event schemas, print one, or check sample events against one.
#[derive(Args, Debug)]
pub struct SchemaArgs {
    /// The schema to print; all are listed without it.
    name: Option<String>,
    /// A folder of schemas of your own (*.yaml), beside those that come with the program.
    #[arg(long, value_name = "DIR")]
    schemas: Option<PathBuf>,
    /// Print the schema as JSON Schema (draft 2020-12).
    #[arg(long, requires = "name", conflicts_with = "validate")]
    json_schema: bool,
    /// Check the events of this file, one JSON object a line.
    #[arg(long, requires = "name", value_name = "FILE.jsonl")]
    validate: Option<PathBuf>,
    /// The events of the file are CloudEvents in structured mode.
    #[arg(long, requires = "validate")]
    cloudevents: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Why the command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SchemaCommandError {
    /// The schemas cannot be loaded.
    #[error("cannot load the event schemas")]
    Load(#[from] LoadError),
    /// There is no schema of this name.
    #[error("no event schema {name}; there are: {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The schema cannot be decoded with.
    #[error("cannot decode events of this schema")]
    Decoder(#[from] DecoderError),
    /// The file of events cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write the output")]
    Write(#[from] io::Error),
}

/// Runs the command; it fails (exit code 1) if an event does not meet its schema.
///
/// # Errors
/// Schemas or events that cannot be read, an unknown name, an output that is closed.
pub fn run(args: &SchemaArgs, out: &mut impl Write) -> Result<ExitCode, SchemaCommandError> {
    let schemas = event_schemas::load(args.schemas.as_deref())?;
    let Some(name) = &args.name else {
        list(&schemas, args.json, out)?;
        return Ok(ExitCode::SUCCESS);
    };
    let Some(schema) = schemas.iter().find(|schema| schema.name == *name) else {
        let known: Vec<&str> = schemas.iter().map(|schema| schema.name.as_str()).collect();
        let known = known.join(", ");
        return Err(SchemaCommandError::Unknown { name: name.clone(), known });
    };
    if let Some(path) = &args.validate {
        let ids = if args.cloudevents { IdSource::CloudEvents } else { IdSource::None };
        let validated = validate(schema, ids, path)?;
        validated.print(path, args.json, out)?;
        let good = validated.rejects.is_empty();
        return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    match (args.json_schema, args.json) {
        (true, _) => writeln!(out, "{:#}", schema.json_schema())?,
        (false, true) => writeln!(out, "{:#}", json!(schema))?,
        (false, false) => print_schema(schema, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(schemas: &[EventSchema], as_json: bool, out: &mut impl Write) -> io::Result<()> {
    if as_json {
        return writeln!(out, "{:#}", json!(schemas));
    }
    for schema in schemas {
        writeln!(out, "{:<16} v{:<3} {}", schema.name, schema.version, schema.description)?;
    }
    Ok(())
}

fn print_schema(schema: &EventSchema, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{} (version {}): {}", schema.name, schema.version, schema.description)?;
    if let Some(kind) = &schema.cloudevents_type {
        writeln!(out, "CloudEvents type: {kind}")?;
    }
    writeln!(out)?;
    for field in &schema.fields {
        let required = if field.required { "required" } else { "" };
        let (name, kind, limits) = (&field.name, field.kind.as_str(), limits(field));
        writeln!(out, "{name:<20} {kind:<8} {required:<9} {}{limits}", field.meaning)?;
    }
    Ok(())
}

/// A field's unit and limits in words.
fn limits(field: &Field) -> String {
    let mut limits = Vec::new();
    if !field.unit.is_empty() {
        limits.push(field.unit.clone());
    }
    match field.range {
        Some(Range { min: Some(min), max: Some(max) }) => limits.push(format!("{min} to {max}")),
        Some(Range { min: Some(min), max: None }) => limits.push(format!("at least {min}")),
        Some(Range { min: None, max: Some(max) }) => limits.push(format!("at most {max}")),
        Some(Range { min: None, max: None }) | None => {}
    }
    if field.decimals > 0 {
        limits.push(format!("{} decimals", field.decimals));
    }
    if let Some(personal) = field.personal {
        limits.push(format!("personal: {}", personal.as_str()));
    }
    if !field.values.is_empty() {
        limits.push(field.values.join(" | "));
    }
    if limits.is_empty() { String::new() } else { format!(" [{}]", limits.join(", ")) }
}

/// What the check of a file found. A reject's offset is its line, from 1.
struct Validated {
    good: usize,
    withdrawals: usize,
    rejects: Vec<Reject>,
}

fn validate(
    schema: &EventSchema,
    ids: IdSource,
    path: &Path,
) -> Result<Validated, SchemaCommandError> {
    let read_error = |source| SchemaCommandError::Read { path: path.to_owned(), source };
    let file = BufReader::new(File::open(path).map_err(read_error)?);
    let fields: Vec<&str> = schema.fields.iter().map(|field| field.name.as_str()).collect();
    let options = DecodeOptions { ids, ..DecodeOptions::default() };
    let mut decoder = Decoder::new(schema, &fields, options)?;
    let mut validated = Validated { good: 0, withdrawals: 0, rejects: Vec::new() };
    let empty = || Records::new("".into(), 0);
    let mut records = empty();
    for (number, line) in (1..).zip(file.split(b'\n')) {
        let line = line.map_err(read_error)?;
        if !line.trim_ascii().is_empty() {
            records.push(Offset(number), 0, Some(&line), None);
        }
        if records.len() == BATCH_LINES {
            validated.add(&mut decoder, &std::mem::replace(&mut records, empty()));
        }
    }
    validated.add(&mut decoder, &records);
    Ok(validated)
}

impl Validated {
    fn add(&mut self, decoder: &mut Decoder, records: &Records) {
        let decoded = decoder.decode(0, records);
        self.good += decoded.events.offsets.len();
        self.withdrawals += decoded.withdrawals.len();
        self.rejects.extend(decoded.rejects);
    }

    fn print(&self, path: &Path, as_json: bool, out: &mut impl Write) -> io::Result<()> {
        let (good, withdrawals, bad) = (self.good, self.withdrawals, self.rejects.len());
        if as_json {
            let errors: Vec<Value> = self.rejects.iter().map(error_json).collect();
            let file = path.display().to_string();
            let report = json!({
                "file": file, "good": good, "withdrawals": withdrawals, "bad": bad, "errors": errors,
            });
            return writeln!(out, "{report}");
        }
        for Reject { offset, field, detail, .. } in &self.rejects {
            let field = if field.is_empty() { "record" } else { field };
            writeln!(out, "{}:{}: {field}: {detail}", path.display(), offset.0)?;
        }
        writeln!(out, "{good} good, {withdrawals} withdrawals, {bad} bad")
    }
}

fn error_json(reject: &Reject) -> Value {
    json!({
        "line": reject.offset.0,
        "field": reject.field,
        "reason": reject.reason,
        "detail": reject.detail,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: SchemaArgs,
    }

    fn run_with(words: &[&str]) -> (bool, String) {
        let args = Cli::try_parse_from([&["schema"], words].concat()).expect("good arguments").args;
        let mut out = Vec::new();
        let code = run(&args, &mut out).expect("runs");
        (code == ExitCode::SUCCESS, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn schemas_are_listed_and_printed() {
        let (_, list) = run_with(&[]);
        assert!(list.lines().any(|line| line.starts_with("crowd_flow ")), "{list}");
        let (_, one) = run_with(&["parking_space"]);
        assert!(one.contains("[free | occupied | closed | unknown]"), "{one}");
        let (_, schema) = run_with(&["traffic", "--json-schema"]);
        let schema: Value = serde_json::from_str(&schema).expect("JSON");
        assert_eq!(schema["properties"]["laneId"]["maximum"], 100);
    }

    #[test]
    fn every_bad_line_is_named_with_field_and_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let good =
            r#"{"siteId":"p1","dateObserved":"2026-03-01T08:00:00Z","availableSpotNumber":3}"#;
        let bad = good.replace(":3", ":-3");
        std::fs::write(&path, format!("{good}\n\n{bad}\nnonsense\n")).expect("written");
        let path = path.to_str().expect("text");

        let (success, text) = run_with(&["parking_site", "--validate", path]);
        assert!(!success);
        assert!(text.starts_with(&format!("{path}:3: availableSpotNumber: -3 ")), "{text}");
        assert!(text.ends_with("1 good, 0 withdrawals, 2 bad\n"), "{text}");

        let (_, report) = run_with(&["parking_site", "--validate", path, "--json"]);
        let report: Value = serde_json::from_str(&report).expect("JSON");
        assert_eq!(report["errors"][0]["reason"], "out_of_range");
        assert_eq!(report["errors"][1]["line"], 4);
        assert_eq!(report["errors"][1]["reason"], "not_json");
    }

    #[test]
    fn an_unknown_schema_is_told_which_there_are() {
        let args = Cli::try_parse_from(["schema", "nosuch"]).expect("good arguments").args;
        let error = run(&args, &mut Vec::new()).expect_err("unknown").to_string();
        assert!(error.contains("nosuch") && error.contains("crowd_flow"), "{error}");
    }
}
