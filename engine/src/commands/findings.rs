//! What audits found, for people or for programs.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use jiff::Timestamp;
use serde_json::json;

use crate::audit::{AuditedVersion, Finding, Outcome};

/// For whom findings are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A line per check, as soon as it is made.
    Lines,
    /// One object at the end.
    Json,
}

/// Findings on their way out.
pub(super) struct Findings<'a, W> {
    form: Form,
    out: &'a mut W,
    outcomes: Vec<Outcome>,
    /// The first line that could not be written.
    failed: Option<io::Error>,
}

impl Form {
    /// That of a command with or without `--json`.
    pub(super) fn asked(json: bool) -> Self {
        if json { Self::Json } else { Self::Lines }
    }
}

impl<'a, W: Write> Findings<'a, W> {
    /// Says what is audited.
    pub(super) fn new(versions: &[AuditedVersion], form: Form, out: &'a mut W) -> io::Result<Self> {
        if form == Form::Lines {
            writeln!(out, "{}", extent(versions))?;
        }
        Ok(Self { form, out, outcomes: Vec::new(), failed: None })
    }

    /// Says what a check found.
    pub(super) fn add(&mut self, outcome: Outcome) {
        if self.form == Form::Lines && self.failed.is_none() {
            self.failed = writeln!(self.out, "{}", line(&outcome)).err();
        }
        self.outcomes.push(outcome);
    }

    /// The command's exit code: 1 if anything was found.
    pub(super) fn finish(self) -> io::Result<ExitCode> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let ok = self.outcomes.iter().all(|outcome| outcome.first.is_none());
        if self.form == Form::Json {
            writeln!(self.out, "{}", json!({"ok": ok, "checks": self.outcomes}))?;
        }
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What is audited.
fn extent(versions: &[AuditedVersion]) -> String {
    match versions.iter().map(|version| version.last).max() {
        Some(last) => {
            let count = versions.len();
            format!("{count} versions of pipelines, up to epoch {}", epoch(last))
        }
        None => "no epoch is marked yet".to_owned(),
    }
}

fn line(outcome: &Outcome) -> String {
    let Outcome { check, holds, first, faults } = outcome;
    let Some(Finding { pipeline, version, epoch: at, expected, found }) = first else {
        return format!("OK     {check:9} {holds}");
    };
    let more = match faults {
        0 | 1 => String::new(),
        faults => format!(" ({faults} faults in all)"),
    };
    let at = epoch(*at);
    format!(
        "FAULT  {check:9} {pipeline} {version} epoch {at}: expected {expected}; found {found}{more}"
    )
}

/// An epoch with the time that it is.
fn epoch(epoch: u64) -> String {
    let time = i64::try_from(epoch).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| epoch.to_string(), |time| format!("{epoch} ({time})"))
}
