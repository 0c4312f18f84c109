//! ClickHouse's HTTP interface: `/ping`, and statements at `/` by GET and POST.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::routing::get;
use axum::serve::ListenerExt;
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::asked::{self, Asked, Data};
use crate::config::StoreConfig;
use crate::engine::{Engine, Session};
use crate::error::StoreError;
use crate::exception::Exception;
use crate::grants::Grants;
use crate::insert::{self, Incoming, Insert};
use crate::response::{self, Heading};
use crate::running::Running;
use crate::select::Select;

/// How many pieces of data wait between the network and the engine.
const PIECES_WAITING_MAX: usize = 4;

/// The embedded ClickHouse.
pub struct Store;

/// A store that serves; ends by [`RunningStore::shutdown`].
pub struct RunningStore {
    local_addr: SocketAddr,
    engine: Arc<Engine>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

struct Service {
    config: StoreConfig,
    engine: Arc<Engine>,
    queries: AtomicU64,
}

impl Store {
    /// Loads the engine, opens the data folder and serves it.
    ///
    /// # Errors
    /// If the library is missing, the folder or the address cannot be used, others reach the
    /// address and a user has no password, or this process already runs a store. Nothing is left
    /// running then.
    pub async fn start(config: StoreConfig) -> Result<RunningStore, StoreError> {
        Self::start_granting(config, Grants::default()).await
    }

    /// The same with other grants than all that works inside the data folder.
    ///
    /// # Errors
    /// As [`Store::start`].
    pub async fn start_granting(
        config: StoreConfig,
        grants: Grants,
    ) -> Result<RunningStore, StoreError> {
        let listen = config.listen;
        if config.writer.name == config.reader.name {
            return Err(StoreError::SameUser { name: config.writer.name });
        }
        let open = [&config.writer, &config.reader].into_iter().find(|user| user.is_open());
        if let (Some(user), false) = (open, listen.ip().is_loopback()) {
            return Err(StoreError::NoPassword { listen, user: user.name.clone() });
        }
        let failed = |source| StoreError::Listen { listen, source };
        let listener = tokio::net::TcpListener::bind(listen).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let data = config.data.clone();
        let started = tokio::task::spawn_blocking(move || Engine::start(&data, &grants)).await;
        let engine = Arc::new(started.expect("starting the engine does not panic")?);
        let queries = AtomicU64::new(0);
        let service = Arc::new(Service { config, engine: Arc::clone(&engine), queries });
        let routes = Router::new()
            .route("/ping", get(async || "Ok.\n"))
            .route("/", get(answer).post(answer))
            .with_state(service);
        let (stop, stopped) = oneshot::channel();
        // Small answers must not wait for the client's delayed acknowledgement (40 ms).
        let listener = listener.tap_io(|connection| {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "a connection stays with delayed sending");
            }
        });
        let server = axum::serve(listener, routes).with_graceful_shutdown(async {
            // A dropped sender stops the server too.
            let _ = stopped.await;
        });
        let server = tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the store's server ended");
            }
        });
        tracing::info!(%local_addr, "the embedded ClickHouse serves");
        Ok(RunningStore { local_addr, engine, stop, server })
    }
}

impl RunningStore {
    /// The address it serves on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Ends cleanly: takes no further request, lets those that run finish, closes the engine.
    pub async fn shutdown(self) {
        let Self { engine, stop, server, .. } = self;
        // The server may have ended by itself.
        let _ = stop.send(());
        engine.drain().await;
        if let Err(error) = server.await {
            tracing::error!(%error, "the store's server failed");
        }
        let closing = tokio::task::spawn_blocking(move || drop(engine)).await;
        if let Err(error) = closing {
            tracing::error!(%error, "the engine did not close");
        }
    }
}

async fn answer(State(service): State<Arc<Service>>, request: Request) -> Response<Body> {
    let number = service.queries.fetch_add(1, Ordering::Relaxed);
    let mut query_id = format!("{}-{number}", std::process::id());
    match try_answer(&service, request, &mut query_id).await {
        Ok(response) => response,
        Err(exception) => {
            tracing::debug!(%query_id, %exception, "a statement failed");
            response::error(&query_id, &exception)
        }
    }
}

async fn try_answer(
    service: &Service,
    request: Request,
    query_id: &mut String,
) -> Result<Response<Body>, Exception> {
    let asked = asked::read(&service.config, request, query_id).await?;
    let session = service.engine.session().await?;
    match asked {
        Asked::Insert(insert, data) => run_insert(session, insert, data, query_id).await,
        Asked::Select(select) => run_select(&service.engine, session, select, query_id).await,
    }
}

async fn run_insert(
    session: Session,
    insert: Insert,
    mut data: Data,
    query_id: &str,
) -> Result<Response<Body>, Exception> {
    let (sender, incoming) = mpsc::channel(PIECES_WAITING_MAX);
    let format = insert.format.clone();
    let running = tokio::task::spawn_blocking(move || insert::run(session, &insert, incoming));
    let mut open = true;
    while open {
        open = match data.next().await {
            Some(Ok(piece)) => sender.send(Incoming::Data(piece)).await.is_ok(),
            Some(Err(_)) => false,
            None => {
                // An insert that failed receives no more; its error is the answer.
                let _ = sender.send(Incoming::End).await;
                false
            }
        };
    }
    drop(sender);
    let ended = running.await.map_err(|_| Exception::internal("the insert's thread failed"))?;
    let heading = Heading { query_id: query_id.to_owned(), format, progress: ended? };
    Ok(response::result(&heading, Body::empty()))
}

async fn run_select(
    engine: &Arc<Engine>,
    session: Session,
    select: Select,
    query_id: &str,
) -> Result<Response<Body>, Exception> {
    let mut running = Running::start(engine, session, select);
    let (format, progress) = running.started().await?;
    let heading = Heading { query_id: query_id.to_owned(), format, progress };
    let tag = response::exception_tag();
    let body = Body::from_stream(running.into_stream(tag.clone()));
    Ok(response::streamed(&heading, &tag, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::User;

    #[tokio::test]
    async fn an_address_that_others_reach_demands_a_password_of_both_users() {
        let user =
            |name: &str, password: &str| User { name: name.into(), password: password.into() };
        for (writer, reader, open) in [("", "r-secret", "w"), ("w-secret", "", "r"), ("", "", "w")]
        {
            let config = StoreConfig {
                listen: SocketAddr::from(([0, 0, 0, 0], 0)),
                data: "never-opened".into(),
                writer: user("w", writer),
                reader: user("r", reader),
            };
            let refused = Store::start(config).await.err().expect("refused").to_string();
            let expected =
                format!("others may reach 0.0.0.0:0, and the user {open:?} has no password");
            assert!(refused.starts_with(&expected), "{refused}");
        }
    }
}
