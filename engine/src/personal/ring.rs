//! The keys of days in use, for worker threads.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::runtime::Handle;

use super::{
    KeysError,
    key::{DataKey, MasterKey},
    keys::{Keys, day_of},
};

/// How long a key is held before it is read again: so long may an engine seal under a key that was
/// destroyed meanwhile.
const HELD: Duration = Duration::from_secs(60);

/// Days whose keys are held at once; records of many more days take longer, as keys are read again.
const DAYS_MAX: usize = 1024;

const DAY_MS: i64 = 86_400_000;

/// Hands out the keys of days to the workers of one process.
pub struct KeyRing {
    keys: Keys,
    master: MasterKey,
    runtime: Handle,
    held: Mutex<HashMap<i64, Held>>,
}

struct Held {
    /// None if it was destroyed.
    key: Option<Arc<DataKey>>,
    until: Instant,
}

impl KeyRing {
    /// A ring that reads and makes keys on the current tokio runtime. It asks for a key at once, so
    /// that a place that cannot be used and a wrong master key are found before any record is read.
    ///
    /// # Errors
    /// Those of the place, and a master key that does not open the newest key.
    pub async fn open(keys: Keys, master: MasterKey) -> Result<Self, KeysError> {
        keys.check(&master).await?;
        keys.get_or_create(day_of(Timestamp::now().as_millisecond()), &master).await?;
        Ok(Self { keys, master, runtime: Handle::current(), held: Mutex::default() })
    }

    /// The key of the day of this broker's timestamp, made if there is none yet; none if it was
    /// destroyed. Waits for the keys' place; not to be called from the runtime's own threads.
    ///
    /// # Errors
    /// When the key cannot be had.
    pub(super) fn key(&self, broker_time_ms: i64) -> Result<Option<Arc<DataKey>>, KeysError> {
        let day = broker_time_ms.div_euclid(DAY_MS);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(Held { key, .. }) = held.get(&day).filter(|held| held.until > now) {
            return Ok(key.clone());
        }
        let key = self.keys.get_or_create(day_of(broker_time_ms), &self.master);
        let key = self.runtime.block_on(key)?.map(Arc::new);
        if held.len() >= DAYS_MAX {
            held.clear();
        }
        held.insert(day, Held { key: key.clone(), until: now + HELD });
        Ok(key)
    }
}
