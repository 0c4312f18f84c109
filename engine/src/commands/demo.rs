//! `citycell demo`: a simulated district, live, without any server.

use std::{io::IsTerminal, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;

use crate::demo::{self, DemoConfig, DemoError, DisplayKind};

/// Show a simulated district live, until stopped.
///
/// Its Kafka and its ClickHouse run inside the program. With --seconds, every row is compared at the
/// end with SQL over the raw records.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Feed for so long, then count everything and compare; until stopped without it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Print nothing but the result as one JSON object.
    #[arg(long, requires = "seconds")]
    json: bool,
    /// The folder of ClickHouse's data, new or empty; a temporary one without it.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where ClickHouse answers; 127.0.0.1:8123 without it, or a free port if that is taken.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// The seed of the city: the same seed draws the same district and sensors.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Events a second over all streams.
    #[arg(long, default_value_t = 500.0)]
    events_per_second: f64,
}

impl DemoArgs {
    /// Whether the terminal belongs to its screen, so that nothing else may write there.
    #[must_use]
    pub fn has_screen(&self) -> bool {
        self.display() == DisplayKind::Screen
    }

    fn display(&self) -> DisplayKind {
        if self.json {
            DisplayKind::Silent
        } else if std::io::stdout().is_terminal() {
            DisplayKind::Screen
        } else {
            DisplayKind::Lines
        }
    }
}

/// Runs the command; fails if the oracle disagrees.
///
/// # Errors
/// Whatever kept the demo from running to its end.
pub async fn run(args: DemoArgs) -> Result<ExitCode, DemoError> {
    let display = args.display();
    let report = demo::run(DemoConfig {
        seed: args.seed,
        events_per_second: args.events_per_second,
        duration: args.seconds.map(Duration::from_secs),
        listen: args.listen,
        data: args.data,
        display,
    })
    .await?;
    let Some(report) = report else { return Ok(ExitCode::SUCCESS) };
    if args.json {
        for line in &report.details {
            eprintln!("{line}");
        }
        println!("{}", serde_json::json!(report));
    } else {
        println!("{report}");
    }
    Ok(if report.oracle_mismatches == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
