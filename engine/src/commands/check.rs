//! `citycell check`: is a pipeline file good?

use std::path::PathBuf;
use std::process::ExitCode;

use citycell_schemas::event::shipped;
use clap::Args;
use serde_json::json;

use crate::config::{ConfigErrors, json_schema, load_pipeline};

/// Check pipeline files: keys, names, types and every expression.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The pipeline files.
    #[arg(required_unless_present = "json_schema")]
    files: Vec<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Print the JSON Schema of pipeline files, for editors, and check nothing.
    #[arg(long)]
    json_schema: bool,
}

/// Runs the command; fails if a file is not good.
#[must_use]
pub fn run(args: &CheckArgs) -> ExitCode {
    if args.json_schema {
        println!("{:#}", json_schema());
        return ExitCode::SUCCESS;
    }
    let schemas = shipped();
    let mut faults = Vec::new();
    for file in &args.files {
        match load_pipeline(file, &schemas) {
            Ok(_) if args.json => {}
            Ok(_) => println!("{}: ok", file.display()),
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
        println!("{}", json!({"ok": faults.is_empty(), "errors": faults}));
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
