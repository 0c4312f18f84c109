//! `citycell keys`: the keys of personal fields, one per day.

use std::{error::Error, io::Write, path::PathBuf};

use clap::{Args, Subcommand};
use jiff::civil::Date;

use crate::{
    personal::{DayState, Destroyed, MasterKey},
    secret::Secret,
};

use super::connection::{KeyPlaceArgs, MasterKeyArgs};

/// The keys of personal fields.
#[derive(Subcommand, Debug)]
pub enum KeysCommand {
    /// Show the days that have a key, and those whose key was destroyed
    List(PlaceArgs),
    /// Destroy the keys of days: nobody reads what is personal in their records any more
    Destroy(DestroyArgs),
    /// Wrap all keys with another master key
    Rotate(RotateArgs),
}

/// Whose keys, and where.
#[derive(Args, Debug)]
pub struct PlaceArgs {
    #[command(flatten)]
    place: KeyPlaceArgs,
    /// The deployment whose keys they are.
    #[arg(long, default_value = "city")]
    deployment: String,
}

/// Destroy the keys of days that are over, for good: what is personal in the records that came on
/// these days (by Kafka's timestamp, in UTC) is erased wherever citycell keeps it. An engine at work
/// lets go of a key within a minute.
#[derive(Args, Debug)]
pub struct DestroyArgs {
    #[command(flatten)]
    of: PlaceArgs,
    /// The days, such as 2026-11-24.
    #[arg(required = true)]
    days: Vec<Date>,
}

/// Wrap all keys with another master key. No record is written again. Stop the engine before, and
/// start it with the new one; what was interrupted is finished by running this again.
#[derive(Args, Debug)]
pub struct RotateArgs {
    #[command(flatten)]
    of: PlaceArgs,
    #[command(flatten)]
    master_key: MasterKeyArgs,
    /// A file that holds the new master key, 64 hexadecimal digits; without it the environment
    /// variable CITYCELL_NEW_MASTER_KEY does.
    #[arg(long)]
    new_master_key_file: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// A place or a master key that cannot be used, a day that is not over, an output that is closed.
pub async fn run(command: KeysCommand, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    match command {
        KeysCommand::List(args) => list(&args, out).await,
        KeysCommand::Destroy(args) => destroy(&args, out).await,
        KeysCommand::Rotate(args) => rotate(&args, out).await,
    }
}

async fn list(args: &PlaceArgs, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    for (day, state) in args.place.open(&args.deployment)?.list().await? {
        match state {
            DayState::Kept { made_at, .. } => writeln!(out, "{day} kept since {made_at:.0}")?,
            DayState::Destroyed { destroyed_at } => {
                writeln!(out, "{day} destroyed {destroyed_at:.0}")?;
            }
        }
    }
    Ok(())
}

async fn destroy(args: &DestroyArgs, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let keys = args.of.place.open(&args.of.deployment)?;
    for day in &args.days {
        match keys.destroy(*day).await? {
            Destroyed::Now => writeln!(out, "{day}: destroyed")?,
            Destroyed::Before(at) => writeln!(out, "{day}: was destroyed {at:.0}")?,
            Destroyed::NeverMade => {
                writeln!(out, "{day}: there was no key, and none will be made")?
            }
        }
    }
    Ok(())
}

async fn rotate(args: &RotateArgs, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    const NEW: &str = "CITYCELL_NEW_MASTER_KEY";
    let from = args.master_key.read()?;
    let to = Secret::read(args.new_master_key_file.as_deref(), NEW)?;
    let missing =
        || format!("there is no new master key: name it by --new-master-key-file or {NEW}");
    let to = MasterKey::new(&to.ok_or_else(missing)?)?;
    let keys = args.of.place.open(&args.of.deployment)?;
    let rotated = keys.rotate(&from, &to).await?;
    writeln!(out, "{rotated} keys wrapped with the new master key")?;
    Ok(())
}
