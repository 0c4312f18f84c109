//! A connection that can be cut and slowed.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// How bytes pass.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    Open,
    Slow,
    /// Slower than an insert usually takes, tenfold.
    Slower,
    Cut,
}

/// Listens for one address and passes on to another.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mode: Arc<AtomicU8>,
}

impl Proxy {
    pub(crate) async fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(AtomicU8::new(Mode::Open as u8));
        let passing = Arc::clone(&mode);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mode, target) = (Arc::clone(&passing), target.clone());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let there = pass(from_client, to_server, Arc::clone(&mode));
                    let back = pass(from_server, to_client, mode);
                    // Either side that ends takes the other with it.
                    tokio::select! { () = there => {}, () = back => {} }
                });
            }
        });
        Self { address, mode }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mode: Arc<AtomicU8>,
) {
    let mut buffer = vec![0; 4096];
    while let Ok(count) = from.read(&mut buffer).await {
        let mode = mode.load(Ordering::Relaxed);
        if count == 0 || mode == Mode::Cut as u8 {
            return;
        }
        if mode == Mode::Slow as u8 || mode == Mode::Slower as u8 {
            let pause_ms = if mode == Mode::Slow as u8 { 40 } else { 150 };
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
