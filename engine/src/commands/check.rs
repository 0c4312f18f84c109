//! `citycell check`: is a pipeline file good?

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use crate::config::{ConfigErrors, json_schema};

use super::files::{FilesError, load};

/// Check pipeline files: keys, names, types and every expression.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Pipeline files, or folders of them (*.yaml).
    #[arg(value_name = "FILE", required_unless_present = "json_schema")]
    files: Vec<PathBuf>,
    /// A folder of event schemas of your own (*.yaml), beside those that come with the program.
    #[arg(long, value_name = "DIR")]
    schemas: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Print the JSON Schema of pipeline files, for editors, and check nothing.
    #[arg(long, exclusive = true)]
    json_schema: bool,
}

/// Runs the command; exit code 1 if a file is not good.
///
/// # Errors
/// Folders or schemas that cannot be read, an output that is closed.
pub fn run(args: &CheckArgs, out: &mut impl Write) -> Result<ExitCode, FilesError> {
    if args.json_schema {
        writeln!(out, "{:#}", json_schema())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut faults = Vec::new();
    for file in load(&args.files, args.schemas.as_deref())? {
        match file.pipeline {
            Ok(_) if args.json => {}
            Ok(_) => writeln!(out, "{}: ok", file.name)?,
            Err(errors) => {
                if !args.json {
                    eprintln!("{errors}\n");
                }
                let ConfigErrors(errors) = errors;
                faults.extend(errors);
            }
        }
    }
    if args.json {
        writeln!(out, "{}", json!({"ok": faults.is_empty(), "errors": faults}))?;
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
