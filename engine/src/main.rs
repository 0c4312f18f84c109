//! The `citycell` command.

use std::{error::Error, process::ExitCode};

use citycell::commands::{check, plan, run, store};
use citycell::grid::cli::{self as grid, GridCommand};
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A live, exact picture of a city: one number per management cell.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check pipeline files
    Check(check::CheckArgs),
    /// Show what a pipeline does, writes and keeps
    Plan(plan::PlanArgs),
    /// Run pipelines: Kafka in, ClickHouse out
    Run(run::RunArgs),
    /// Serve the embedded ClickHouse
    Store(store::StoreArgs),
    /// Make, check and look at grids
    #[command(subcommand)]
    Grid(GridCommand),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "info,librdkafka=warn".into()),
        )
        .init();
    match execute(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            report(&*error);
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    match command {
        Command::Check(args) => return Ok(check::run(&args)),
        Command::Plan(args) => return Ok(plan::run(&args)),
        Command::Run(args) => runtime.block_on(run::run(args))?,
        Command::Store(args) => runtime.block_on(store::run(args))?,
        Command::Grid(command) => return grid::run(command),
    }
    Ok(ExitCode::SUCCESS)
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
