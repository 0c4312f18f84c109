//! The `citycell` command.

use std::{
    error::Error,
    io::{self, ErrorKind, IsTerminal},
    process::ExitCode,
};

use citycell::commands::{
    archive, audit, backup, check, demo, keys, plan, run, schema, store, test,
};
use citycell::grid::cli::{self as grid, GridCommand};
use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A live, exact picture of a city: one number per management cell.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// How log lines look; RUST_LOG says which are shown.
    #[arg(long, global = true, env = "CITYCELL_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Check pipeline files
    Check(check::CheckArgs),
    /// Show what a pipeline does, writes and keeps
    Plan(plan::PlanArgs),
    /// Run the cases inside pipeline files
    Test(test::TestArgs),
    /// List, print and try event schemas
    Schema(schema::SchemaArgs),
    /// Run pipelines: Kafka in, ClickHouse out
    Run(Box<run::RunArgs>),
    /// Check that the books in ClickHouse balance, epoch by epoch
    Audit(audit::AuditArgs),
    /// Write tables, snapshots and bindings to another place, as one
    Backup(backup::BackupArgs),
    /// Put a backup back where nothing is
    Restore(backup::RestoreArgs),
    /// Look after the records that are kept
    #[command(subcommand)]
    Archive(archive::ArchiveCommand),
    /// Look after the keys of personal fields
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Show a simulated district live, without any server
    Demo(demo::DemoArgs),
    /// Serve the embedded ClickHouse
    Store(store::StoreArgs),
    /// Make, check and look at grids
    #[command(subcommand)]
    Grid(GridCommand),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A screen has the terminal to itself.
    if !matches!(&cli.command, Command::Demo(args) if args.has_screen()) {
        start_log(cli.log_format);
    }
    match execute(cli.command) {
        Ok(code) => code,
        Err(error) => {
            report(&*error);
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut out = io::stdout();
    match command {
        Command::Check(args) => return printed(check::run(&args, &mut out)),
        Command::Plan(args) => return printed(runtime.block_on(plan::run(&args, &mut out))),
        Command::Test(args) => return printed(test::run(&args, &mut out)),
        Command::Schema(args) => return printed(schema::run(&args, &mut out)),
        Command::Run(args) => runtime.block_on(run::run(*args))?,
        Command::Audit(args) => return printed(runtime.block_on(audit::run(args, &mut out))),
        Command::Archive(command) => {
            return printed(runtime.block_on(archive::run(command, &mut out)));
        }
        Command::Keys(command) => runtime.block_on(keys::run(command, &mut out))?,
        Command::Backup(args) => runtime.block_on(backup::backup(args, &mut out))?,
        Command::Restore(args) => runtime.block_on(backup::restore(args, &mut out))?,
        Command::Demo(args) => return Ok(runtime.block_on(demo::run(args))?),
        Command::Store(args) => runtime.block_on(store::run(args))?,
        Command::Grid(command) => return grid::run(command),
    }
    Ok(ExitCode::SUCCESS)
}

/// The outcome of a command that only prints. Whoever reads its output may have read enough (as
/// `head` does): that is no error to report, but no success either.
fn printed(
    outcome: Result<ExitCode, impl Into<Box<dyn Error>>>,
) -> Result<ExitCode, Box<dyn Error>> {
    /// What a shell shows for a program that ended by SIGPIPE.
    const OUTPUT_CLOSED: u8 = 141;
    outcome.map_err(Into::into).or_else(|error| {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
        while let Some(error) = cause {
            let io_error = error.downcast_ref::<io::Error>();
            if io_error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) {
                return Ok(ExitCode::from(OUTPUT_CLOSED));
            }
            cause = error.source();
        }
        Err(error)
    })
}

fn start_log(format: LogFormat) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,librdkafka=warn".into());
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Prints an error and its causes, each once.
fn report(error: &dyn Error) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
}
