//! The one engine of this process: its data folder, its anchor connection and its places.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::connection::{Connection, QueryParameters};
use crate::engine_config;
use crate::error::StoreError;
use crate::exception::Exception;
use crate::grants::Grants;
use crate::library::{self, Library};

/// How many statements run at once; more wait for [`PLACE_WAIT`].
const PLACES: usize = 16;
const PLACE_WAIT: Duration = Duration::from_secs(10);

static RUNNING: AtomicBool = AtomicBool::new(false);

/// The running engine. Ends with its last user: a connection in use keeps it alive.
pub(crate) struct Engine {
    library: &'static Library,
    path_argument: String,
    places: Arc<Semaphore>,
    sessions: AtomicU64,
    /// Held for the engine's life: with its last connection the engine itself ends.
    anchor: Option<Mutex<Connection>>,
}

/// A place among those that run at once, and its own connection.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    /// What the session's statement is known by while it runs.
    pub(crate) tag: String,
    // Fields drop in this order: the connection before the engine that it belongs to.
    _engine: Arc<Engine>,
    _place: OwnedSemaphorePermit,
}

impl Engine {
    /// Starts the engine on the folder `data`, which is created if missing.
    pub(crate) fn start(data: &Path, grants: &Grants) -> Result<Self, StoreError> {
        let library = library::load()?;
        let folder = prepared(data)?;
        let config = engine_config::write(&folder, grants)?;
        let path = folder.join("clickhouse");
        if RUNNING.swap(true, Ordering::SeqCst) {
            return Err(StoreError::AlreadyRunning);
        }
        let path_argument = format!("--path={}", path.display());
        let arguments = [path_argument.clone(), format!("--config-file={}", config.display())];
        let Some(anchor) = Connection::open(library, &arguments) else {
            RUNNING.store(false, Ordering::SeqCst);
            return Err(StoreError::EngineDidNotStart { path });
        };
        Ok(Self {
            library,
            path_argument,
            places: Arc::new(Semaphore::new(PLACES)),
            sessions: AtomicU64::new(0),
            anchor: Some(Mutex::new(anchor)),
        })
    }

    /// Waits for a place and opens a connection of its own.
    pub(crate) async fn session(self: &Arc<Self>) -> Result<Session, Exception> {
        let waiting = tokio::time::timeout(PLACE_WAIT, Arc::clone(&self.places).acquire_owned());
        let place = match waiting.await {
            Ok(Ok(place)) => place,
            Ok(Err(_closed)) => {
                return Err(Exception::new(236, "ABORTED", "The store is shutting down"));
            }
            Err(_elapsed) => {
                let text = format!("{PLACES} statements have been running for {PLACE_WAIT:?}");
                return Err(Exception::new(202, "TOO_MANY_SIMULTANEOUS_QUERIES", &text));
            }
        };
        let connection = Connection::open(self.library, std::slice::from_ref(&self.path_argument))
            .ok_or_else(|| Exception::internal("the engine refused a connection"))?;
        let tag = format!("citycell-{}", self.sessions.fetch_add(1, Ordering::Relaxed));
        Ok(Session { tag, connection, _engine: Arc::clone(self), _place: place })
    }

    /// Asks the engine to end the statement of the session `tag`; blocks for a moment.
    pub(crate) fn kill(&self, tag: &str) {
        let sql = format!("KILL QUERY WHERE Settings['log_comment'] = '{tag}' ASYNC");
        let Some(Ok(mut anchor)) = self.anchor.as_ref().map(Mutex::lock) else { return };
        if let Err(exception) = anchor.query(&sql, "Null", &QueryParameters::default()) {
            tracing::warn!(%exception, tag, "an abandoned statement could not be killed");
        }
    }

    /// Lets no further statement in and waits until those that run have ended.
    pub(crate) async fn drain(&self) {
        let all = u32::try_from(PLACES).expect("a small number");
        // An error means that somebody else closed the places already.
        let _ = self.places.acquire_many(all).await;
        self.places.close();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.anchor = None;
        RUNNING.store(false, Ordering::SeqCst);
    }
}

fn prepared(data: &Path) -> Result<PathBuf, StoreError> {
    let failed = |source| StoreError::DataFolder { path: data.to_owned(), source };
    std::fs::create_dir_all(data).map_err(failed)?;
    data.canonicalize().map_err(failed)
}
