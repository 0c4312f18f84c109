//! `citycell archive`: the records that are kept.

mod show;

use std::{error::Error, io::Write, process::ExitCode};

use clap::{Args, Subcommand};

use crate::{audit::Audit, clickhouse::ClickHouse};

use super::{
    connection::{ClickHouseArgs, KafkaArgs},
    findings::{Findings, Form},
};

/// The records that `citycell run --archive` keeps.
#[derive(Subcommand, Debug)]
pub enum ArchiveCommand {
    /// Prove that no record is missing, or name the first that is
    Verify(VerifyArgs),
    /// Print records as they came, what is personal included
    Show(show::ShowArgs),
}

/// Prove that no record is missing since the archive began or as long as it keeps them, or name the
/// first that is. Reads only, and may run beside an engine at work.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    #[command(flatten)]
    clickhouse: ClickHouseArgs,
    /// Ask Kafka for missing offsets, and hold the marks against the log of bindings: its brokers,
    /// host:port, comma-separated.
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

/// Runs the command; exit code 1 if a record is missing, or cannot be shown as it came.
///
/// # Errors
/// Kafka, ClickHouse or keys that cannot be reached, a database without an archive, an output that
/// is closed.
pub async fn run(
    command: ArchiveCommand,
    out: &mut impl Write,
) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        ArchiveCommand::Verify(args) => verify(args, out).await,
        ArchiveCommand::Show(args) => show::run(args, out).await,
    }
}

async fn verify(args: VerifyArgs, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
    let audit = Audit::begin_archive(ClickHouse::new(&args.clickhouse.settings()?)).await?;
    let kafka = args.brokers.as_ref().map(|brokers| args.kafka.settings(brokers)).transpose()?;
    let mut findings = Findings::new(audit.versions(), Form::asked(args.json), out)?;
    audit.check_archive(kafka.as_ref(), |outcome| findings.add(outcome)).await?;
    if let Some(kafka) = &kafka {
        findings.add(audit.check_bindings(kafka, &args.deployment).await?);
    }
    Ok(findings.finish()?)
}
