//! `citycell run`: keep the pipelines' tables up to date until interrupted.

use std::{
    error::Error, net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration,
};

use clap::Args;

use crate::{
    binder::{BinderLimits, OnLostOffsets},
    clickhouse::{ClickHouseSettings, backlog::BacklogLimits},
    config::parse_duration_ms,
    engine::{self, EngineConfig, RunningEngine, WritingLimits},
    grid, http,
    kafka::presence::{Presence, Watch},
    pipeline::Pipeline,
    secret::Secret,
    snapshot::SnapshotSettings,
};

use super::{
    connection::{BrokerArgs, ClickHouseArgs, KeyPlaceArgs, MasterKeyArgs, PlacementArgs},
    files::FileArgs,
    peers::PeerArgs,
    store::interrupted,
};

/// Run pipelines: Kafka in, ClickHouse out, until interrupted.
#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    files: FileArgs,
    /// The grid of cells, as `citycell grid generate` writes it.
    #[arg(long)]
    grid: PathBuf,
    /// Names the deployment; an engine of the same name takes over from the one before.
    #[arg(long, default_value = "city")]
    deployment: String,
    #[command(flatten)]
    kafka: BrokerArgs,
    #[command(flatten)]
    clickhouse: ClickHouseArgs,
    #[command(flatten)]
    placement: PlacementArgs,
    /// From one epoch to the next.
    #[arg(long, default_value = "1s", value_parser = duration)]
    tick: Duration,
    /// How long a partition at its end is silent before it no longer holds its pipelines back.
    #[arg(long, default_value = "10s", value_parser = duration)]
    idle_after: Duration,
    /// Worker threads.
    #[arg(long, default_value = "1")]
    workers: NonZeroUsize,
    #[command(flatten)]
    peers: PeerArgs,
    /// If Kafka's retention has removed records before they were read: stop, or go on behind them
    /// and write down in the table `skipped` which offsets are missing.
    #[arg(long, value_enum, default_value = "stop")]
    on_lost_offsets: OnLostOffsets,
    /// Payload bytes that each worker may read ahead.
    #[arg(long, default_value = "67108864")]
    buffer_bytes: usize,
    /// Epochs that may be bound and not yet written; beyond this the engine waits for ClickHouse.
    #[arg(long, default_value = "600")]
    unmarked_max: NonZeroUsize,
    /// Bytes of rows that may wait for ClickHouse in memory; more wait on disk.
    #[arg(long, default_value = "67108864")]
    backlog_memory_bytes: u64,
    /// Bytes of rows that may wait for ClickHouse in all; beyond this the engine waits.
    #[arg(long, default_value = "4294967296")]
    backlog_bytes: u64,
    /// The folder in which rows wait on disk; the system's temporary one if not said.
    #[arg(long)]
    backlog_folder: Option<PathBuf>,
    /// A pipeline that writes nothing for this long while others do is stale: it no longer holds
    /// them back, and catches up later.
    #[arg(long, default_value = "10s", value_parser = duration)]
    stale_after: Duration,
    /// Where snapshots go: a folder, or an object store's URL such as s3://bucket/path, whose
    /// settings come from its usual environment variables. `none` keeps none; then a restart reads
    /// everything from Kafka again.
    #[arg(long, default_value = "citycell-snapshots")]
    snapshots: String,
    /// From one snapshot to the next.
    #[arg(long, default_value = "60s", value_parser = duration)]
    snapshot_every: Duration,
    /// Keep the records themselves in ClickHouse, in the table `archive`, for this long; for example
    /// 30d. Not kept if not said.
    #[arg(long, value_parser = keep)]
    archive: Option<Duration>,
    #[command(flatten)]
    keys: KeyPlaceArgs,
    #[command(flatten)]
    master_key: MasterKeyArgs,
    /// The address of /metrics, /healthz and /readyz; one that others reach demands a token.
    #[arg(long, default_value = "127.0.0.1:8601")]
    listen: SocketAddr,
    /// A file that holds the token for --listen, sent as `Authorization: Bearer`; without it the
    /// environment variable CITYCELL_TOKEN does.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// Wait until no engine runs this deployment any more, then take it over. Without, it is taken
    /// over at once.
    #[arg(long, conflicts_with = "process")]
    standby: bool,
    /// End once everything in the topics is counted and written.
    #[arg(long)]
    until_end: bool,
}

/// Runs the command.
///
/// # Errors
/// What keeps the engine from starting, or ended it.
pub async fn run(args: RunArgs) -> Result<(), Box<dyn Error>> {
    let token = Secret::read(args.token_file.as_deref(), "CITYCELL_TOKEN")?;
    let listener = http::Listener::new(args.listen, token.as_ref())?;
    let config = config(&args)?;
    if args.standby {
        tokio::select! {
            gone = wait_for_the_other(&config) => gone?,
            () = interrupted() => return Ok(()),
        }
    }
    let announce = || Presence::announce(&config.kafka, &config.deployment);
    let _while_it_runs = config.is_first().then(announce).transpose()?;
    let engine = engine::start(config).await?;
    let address = http::serve(listener, engine.metrics.clone(), engine.readiness.clone()).await?;
    tracing::info!(%address, "metrics and health are served");
    if args.until_end {
        engine.drain();
    }
    while engine.is_running() {
        tokio::select! {
            () = interrupted() => {
                tracing::info!("stopping: what is bound is written and marked first");
                engine.stop();
                break;
            }
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
    let ended = tokio::task::spawn_blocking(|| RunningEngine::wait(engine));
    tokio::select! {
        ended = ended => Ok(ended??),
        () = interrupted() => Err("interrupted again: what is not marked is written at the next start".into()),
    }
}

/// Returns once nobody runs the deployment: asked twice, since a broker that has just started may know
/// of no member yet, and one that does not answer is no answer.
async fn wait_for_the_other(config: &EngineConfig) -> Result<(), Box<dyn Error>> {
    const PAUSE: Duration = Duration::from_millis(250);
    let watch = Arc::new(Watch::new(&config.kafka, &config.deployment)?);
    let deployment = &config.deployment;
    tracing::info!(deployment, "standing by");
    let mut absent = 0;
    while absent < 2 {
        tokio::time::sleep(PAUSE).await;
        let watch = Arc::clone(&watch);
        match tokio::task::spawn_blocking(move || watch.is_somebody_there()).await? {
            Ok(true) => absent = 0,
            Ok(false) => absent += 1,
            Err(error) => {
                absent = 0;
                tracing::warn!(%error, "Kafka does not say who runs the deployment, asking again");
            }
        }
    }
    tracing::info!(deployment, "no engine runs this deployment: taking it over");
    Ok(())
}

fn config(args: &RunArgs) -> Result<EngineConfig, Box<dyn Error>> {
    let mut pipelines = Vec::new();
    for file in args.files.load()? {
        pipelines.push(Arc::new(Pipeline::from(file.pipeline?)));
    }
    Ok(EngineConfig {
        deployment: args.deployment.clone(),
        kafka: args.kafka.settings()?,
        clickhouse: ClickHouseSettings {
            placement: args.placement.placement(),
            ..args.clickhouse.settings()?
        },
        pipelines,
        grid: Arc::clone(&grid::load::load(&args.grid)?.located),
        workers: args.workers,
        cluster: args.peers.cluster()?,
        limits: BinderLimits {
            tick: args.tick,
            idle_after: args.idle_after,
            unmarked_max: args.unmarked_max.get(),
            on_lost_offsets: args.on_lost_offsets,
        },
        buffer_bytes_max: args.buffer_bytes,
        writing: WritingLimits {
            backlog: BacklogLimits {
                memory_bytes_max: args.backlog_memory_bytes,
                bytes_max: args.backlog_bytes,
                folder: args.backlog_folder.clone().unwrap_or_else(std::env::temp_dir),
            },
            stale_after: args.stale_after,
        },
        snapshots: (args.snapshots != "none").then(|| SnapshotSettings {
            location: args.snapshots.clone(),
            every: args.snapshot_every,
        }),
        archive: args.archive,
        keys: args.master_key.find()?.map(|master| args.keys.settings(master)),
    })
}

fn keep(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_secs(60 * 60);
    match duration(text)? {
        keep if keep < SHORTEST => Err("must be at least 1h".to_owned()),
        keep => Ok(keep),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let ms = parse_duration_ms(text)?;
    u64::try_from(ms).map(Duration::from_millis).map_err(|_| "must not be negative".to_owned())
}
