//! `citycell audit`: do the books balance?

use std::{error::Error, io::Write, process::ExitCode};

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use crate::{
    audit::{Audit, AuditedVersion, Finding, Outcome},
    clickhouse::ClickHouse,
};

use super::connection::{ClickHouseArgs, KafkaArgs};

/// Check the books over the whole history in ClickHouse and name the first epoch that does not
/// balance. Reads only, and may run beside an engine at work.
#[derive(Args, Debug)]
pub struct AuditArgs {
    #[command(flatten)]
    clickhouse: ClickHouseArgs,
    /// Hold the marks against the log of bindings too: Kafka's brokers, host:port, comma-separated.
    #[arg(long)]
    brokers: Option<String>,
    /// The deployment whose log that is.
    #[arg(long, default_value = "city", requires = "brokers")]
    deployment: String,
    #[command(flatten)]
    kafka: KafkaArgs,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command; exit code 1 if an epoch does not balance.
///
/// # Errors
/// Kafka or ClickHouse that cannot be reached, an output that is closed.
pub async fn run(args: AuditArgs, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
    let audit = Audit::begin(ClickHouse::new(&args.clickhouse.settings()?)).await?;
    if !args.json {
        writeln!(out, "{}", extent(audit.versions()))?;
    }
    let mut outcomes = Vec::new();
    let mut written = Ok(());
    let mut judged = |outcome: Outcome| {
        if !args.json && written.is_ok() {
            written = writeln!(out, "{}", line(&outcome));
        }
        outcomes.push(outcome);
    };
    audit.check(&mut judged).await?;
    if let Some(brokers) = &args.brokers {
        let kafka = args.kafka.settings(brokers)?;
        judged(audit.check_bindings(&kafka, &args.deployment).await?);
    }
    written?;
    let ok = outcomes.iter().all(|outcome| outcome.first.is_none());
    if args.json {
        writeln!(out, "{}", json!({"ok": ok, "checks": outcomes}))?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
