//! `citycell test`: do the cases inside pipeline files hold?

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::{
    case_runner::{CaseResult, Mismatch, run_case},
    config::ConfigError,
    pipeline::Pipeline,
};

use super::files::{FileArgs, FilesError};

/// Run the cases inside pipeline files through the real dataflow, without Kafka or ClickHouse.
#[derive(Args, Debug)]
pub struct TestArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

/// What became of all cases.
#[derive(Default, Serialize)]
struct Results {
    /// Every case that ran.
    cases: Vec<FileCase>,
    /// The faults of files that are no good pipelines.
    errors: Vec<ConfigError>,
}

#[derive(Serialize)]
struct FileCase {
    file: String,
    passed: bool,
    #[serde(flatten)]
    result: CaseResult,
}

/// Runs the command; exit code 1 if a case fails or a file is not good.
///
/// # Errors
/// Folders or schemas that cannot be read, an output that is closed.
pub fn run(args: &TestArgs, out: &mut impl Write) -> Result<ExitCode, FilesError> {
    let mut results = Results::default();
    for file in args.files.load()? {
        match file.pipeline {
            Ok(mut pipeline) => {
                let cases = std::mem::take(&mut pipeline.tests);
                let pipeline = Arc::new(Pipeline::from(pipeline));
                for case in cases {
                    let failed = |source| {
                        let (file, line) = (file.name.clone(), case.line);
                        FilesError::Case { file, line, source }
                    };
                    let result = run_case(&pipeline, &case).map_err(failed)?;
                    let (file, passed) = (file.name.clone(), result.passed());
                    let case = FileCase { file, passed, result };
                    if !args.json {
                        print(&case, out)?;
                    }
                    results.cases.push(case);
                }
            }
            Err(errors) => {
                if !args.json {
                    eprintln!("{errors}\n");
                }
                results.errors.extend(errors.0);
            }
        }
    }
    let passed = results.cases.iter().filter(|case| case.passed).count();
    let failed = results.cases.len() - passed;
    let ok = failed == 0 && results.errors.is_empty();
    if args.json {
        let Results { cases, errors } = results;
        let report = json!({
            "ok": ok, "passed": passed, "failed": failed, "cases": cases, "errors": errors,
        });
        writeln!(out, "{report}")?;
    } else {
        writeln!(out, "{passed} passed, {failed} failed")?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(case: &FileCase, out: &mut impl Write) -> io::Result<()> {
    let FileCase { file, passed, result } = case;
    let word = if *passed { "ok" } else { "FAILED" };
    writeln!(out, "{file}:{}: {word}: {}", result.line, result.name)?;
    for mismatch in &result.mismatches {
        match mismatch {
            Mismatch::Different { line, row, columns } => {
                writeln!(out, "  {file}:{line}: another row: {row}")?;
                for column in columns {
                    let (expected, actual) = (&column.expected, &column.actual);
                    writeln!(out, "    {}: expected {expected}, is {actual}", column.column)?;
                }
            }
            Mismatch::Missing { line, row } => {
                writeln!(out, "  {file}:{line}: no such row: {row}")?;
            }
            Mismatch::Surplus { row } => writeln!(out, "  a row that is not expected: {row}")?,
        }
    }
    if !passed {
        for one in &result.not_counted {
            writeln!(out, "  record {} is not counted: {}", one.record, one.why)?;
        }
    }
    Ok(())
}
