//! `citycell audit`: do the books balance?

use std::{error::Error, io::Write, process::ExitCode};

use clap::Args;

use crate::{audit::Audit, clickhouse::ClickHouse};

use super::{
    connection::{ClickHouseArgs, KafkaArgs},
    findings::{Findings, Form},
};

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
    let mut findings = Findings::new(audit.versions(), Form::asked(args.json), out)?;
    audit.check(|outcome| findings.add(outcome)).await?;
    if let Some(brokers) = &args.brokers {
        let kafka = args.kafka.settings(brokers)?;
        findings.add(audit.check_bindings(&kafka, &args.deployment).await?);
    }
    Ok(findings.finish()?)
}
