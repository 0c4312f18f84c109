//! `citycell store`: ClickHouse itself, embedded, behind its HTTP interface.

use std::{
    error::Error,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use citycell_store::{Grants, Store, StoreConfig, User};
use clap::Args;

use crate::secret::{Secret, SecretError};

/// Serve the embedded ClickHouse until interrupted.
#[derive(Args, Debug)]
pub struct StoreArgs {
    /// The address of the HTTP interface; one that others reach demands passwords of both users.
    #[arg(long, default_value = "127.0.0.1:8123")]
    listen: SocketAddr,
    /// The folder of the data; created if missing.
    #[arg(long)]
    data: PathBuf,
    /// The user who may write and read.
    #[arg(long, default_value = "default")]
    writer: String,
    /// A file that holds the writer's password; without it the environment variable
    /// CITYCELL_WRITER_PASSWORD does. Where neither does, none is asked for.
    #[arg(long)]
    writer_password_file: Option<PathBuf>,
    /// A file of GRANT statements, for example schemas/users/writer.sql: nobody may do more. Without
    /// it the writer may do all that works inside the data folder.
    #[arg(long, value_name = "FILE")]
    writer_grants: Option<PathBuf>,
    /// The user who may only read.
    #[arg(long, default_value = "reader")]
    reader: String,
    /// A file that holds the reader's password; without it the environment variable
    /// CITYCELL_READER_PASSWORD does. Where neither does, none is asked for.
    #[arg(long)]
    reader_password_file: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When the library, the folder, the address or one of the files named cannot be used.
pub async fn run(args: StoreArgs) -> Result<(), Box<dyn Error>> {
    let user = |name: String, file: Option<PathBuf>, variable| -> Result<User, SecretError> {
        let password = Secret::read(file.as_deref(), variable)?.unwrap_or_default();
        Ok(User { name, password: password.reveal().into() })
    };
    let grants = args.writer_grants.as_deref().map_or_else(|| Ok(Grants::default()), grants)?;
    let config = StoreConfig {
        listen: args.listen,
        data: args.data,
        writer: user(args.writer, args.writer_password_file, "CITYCELL_WRITER_PASSWORD")?,
        reader: user(args.reader, args.reader_password_file, "CITYCELL_READER_PASSWORD")?,
    };
    let store = Store::start_granting(config, grants).await?;
    eprintln!("ClickHouse answers on http://{}", store.local_addr());
    interrupted().await;
    store.shutdown().await;
    Ok(())
}

fn grants(file: &Path) -> Result<Grants, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read the grants in {}: {error}", file.display()))?;
    Grants::parse(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Waits for Ctrl-C or a request to end.
pub async fn interrupted() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
