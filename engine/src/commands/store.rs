//! `citycell store`: ClickHouse itself, embedded, behind its HTTP interface.

use std::{net::SocketAddr, path::PathBuf};

use citycell_store::{Store, StoreConfig, StoreError, User};
use clap::Args;

/// Serve the embedded ClickHouse until interrupted.
#[derive(Args, Debug)]
pub struct StoreArgs {
    /// The address of the HTTP interface.
    #[arg(long, default_value = "127.0.0.1:8123")]
    listen: SocketAddr,
    /// The folder of the data; created if missing.
    #[arg(long)]
    data: PathBuf,
    /// The user who may write and read.
    #[arg(long, default_value = "default")]
    writer: String,
    /// The writer's password; empty asks for none.
    #[arg(long, env = "CITYCELL_WRITER_PASSWORD", default_value = "", hide_env_values = true)]
    writer_password: String,
    /// The user who may only read.
    #[arg(long, default_value = "reader")]
    reader: String,
    /// The reader's password; empty asks for none.
    #[arg(long, env = "CITYCELL_READER_PASSWORD", default_value = "", hide_env_values = true)]
    reader_password: String,
}

/// Runs the command.
///
/// # Errors
/// When the library, the folder or the address cannot be used.
pub async fn run(args: StoreArgs) -> Result<(), StoreError> {
    let user = |name: String, password: &str| User { name, password: password.into() };
    let store = Store::start(StoreConfig {
        listen: args.listen,
        data: args.data,
        writer: user(args.writer, &args.writer_password),
        reader: user(args.reader, &args.reader_password),
    })
    .await?;
    eprintln!("ClickHouse answers on http://{}", store.local_addr());
    interrupted().await;
    store.shutdown().await;
    Ok(())
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
