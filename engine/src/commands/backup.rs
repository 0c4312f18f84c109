//! `citycell backup` and `citycell restore`.

use std::{error::Error, io::Write};

use clap::Args;

use crate::{
    backup::{self, Contents, Deployment},
    clickhouse::ClickHouse,
    snapshot::Storage,
};

use super::connection::{BrokerArgs, ClickHouseArgs};

/// What a backup is of.
#[derive(Args, Debug)]
struct DeploymentArgs {
    /// The deployment.
    #[arg(long, default_value = "city")]
    deployment: String,
    #[command(flatten)]
    kafka: BrokerArgs,
    #[command(flatten)]
    clickhouse: ClickHouseArgs,
    /// Where its snapshots are, as for `run`; `none` if it takes none.
    #[arg(long, default_value = "citycell-snapshots")]
    snapshots: String,
}

/// Write tables, a snapshot and the bindings to an empty place, as of one moment. The engine may go
/// on meanwhile.
#[derive(Args, Debug)]
pub struct BackupArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// Where to: a folder, or an object store's URL such as s3://bucket/path.
    #[arg(long)]
    to: String,
}

/// Put a backup back into an empty database, topic of bindings and place of snapshots. Start the
/// engine afterwards: it goes on as after a crash.
#[derive(Args, Debug)]
pub struct RestoreArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// Where the backup is.
    #[arg(long)]
    from: String,
}

impl DeploymentArgs {
    fn open(&self) -> Result<Deployment, Box<dyn Error>> {
        let snapshots = (self.snapshots != "none").then_some(&self.snapshots);
        let open = |location| Storage::open(location, &self.deployment);
        Ok(Deployment {
            name: self.deployment.clone(),
            clickhouse: ClickHouse::new(&self.clickhouse.settings()?),
            kafka: self.kafka.settings()?,
            snapshots: snapshots.map(|location| open(location)).transpose()?,
        })
    }
}

/// Runs `backup`.
///
/// # Errors
/// A place that is not empty, or what cannot be read or written.
pub async fn backup(args: BackupArgs, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let to = Storage::open(&args.to, &args.deployment.deployment)?;
    let contents = backup::take(&args.deployment.open()?, &to).await?;
    Ok(say("backed up", &contents, out)?)
}

/// Runs `restore`.
///
/// # Errors
/// A backup that is damaged or of something else, something that exists already, or what cannot be
/// read or written.
pub async fn restore(args: RestoreArgs, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let from = Storage::open(&args.from, &args.deployment.deployment)?;
    let database = args.deployment.clickhouse.settings()?.database;
    let contents = backup::restore(&args.deployment.open()?, &database, &from).await?;
    Ok(say("restored", &contents, out)?)
}

fn say(done: &str, contents: &Contents, out: &mut impl Write) -> std::io::Result<()> {
    let Contents { deployment, database, epoch, tables, snapshot, bound, .. } = contents;
    let states = snapshot.as_ref().map_or(0, |manifest| manifest.pipelines.len());
    writeln!(
        out,
        "{done} {deployment}: {} tables and views of {database} up to epoch {epoch}, the state of \
         {states} pipelines, {bound} bindings",
        tables.len()
    )
}
