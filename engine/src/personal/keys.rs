//! The keys of days in their place: one file per day, `2026-11-24.json`.
//!
//! A file says either the day's key, wrapped by the master key, or that it was destroyed, and is
//! replaced as a whole: whoever asks for a day's key sees one or the other, and whoever comes first
//! makes it. They do not lie in ClickHouse: its parts, their copies and its backups keep what was
//! deleted. What a file system or a versioned bucket still has of a destroyed key is of no use
//! without the master key: to be sure, change that too and destroy the old one.

use std::fmt;

use bytes::Bytes;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use object_store::Error as StorageError;
use serde::{Deserialize, Serialize};

use crate::{
    secret::without_credentials,
    snapshot::{SnapshotError, Storage},
};

use super::key::{DataKey, MasterKey};

/// Where the keys of one deployment lie.
#[derive(Clone, Debug)]
pub struct Keys {
    storage: Storage,
    /// Without credentials, for messages.
    location: String,
}

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Their place cannot be used.
    #[error("cannot use the keys of personal fields at {location}")]
    Place {
        /// As configured, without credentials.
        location: String,
        /// Why not.
        #[source]
        source: SnapshotError,
    },
    /// A file is no key.
    #[error("{file} at {location} is no key of a day")]
    Damaged {
        /// Where.
        location: String,
        /// The file.
        file: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A key was wrapped by another master key, or is damaged.
    #[error("the master key does not open the key of {day} at {location}: is it the right one?")]
    OtherMaster {
        /// Where.
        location: String,
        /// The day.
        day: Date,
    },
    /// There is no key at all.
    #[error("there are no keys at {location}: is it the right place and deployment?")]
    NoKeys {
        /// Where.
        location: String,
    },
    /// Records of the day still arrive.
    #[error("{day} is not over yet: destroy its key once no record of it arrives any more")]
    NotOver {
        /// The day.
        day: Date,
    },
}

/// What became of a day's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DayState {
    /// It is there.
    Kept {
        /// When it was made.
        made_at: Timestamp,
        /// The key, wrapped.
        wrapped: Wrapped,
    },
    /// It is gone, and none is made again.
    Destroyed {
        /// Since when.
        destroyed_at: Timestamp,
    },
}

/// A wrapped key; its `Debug` says nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wrapped(String);

/// What destroying a key found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destroyed {
    /// The key is gone now.
    Now,
    /// It was gone already.
    Before(Timestamp),
    /// There was none, and none will be made.
    NeverMade,
}

impl fmt::Debug for Wrapped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Wrapped(hidden)")
    }
}

/// The UTC day of a broker's timestamp. A record without one (-1) is of the first day; beyond the
/// year 9999 is the last.
#[must_use]
pub fn day_of(broker_time_ms: i64) -> Date {
    let time = Timestamp::from_millisecond(broker_time_ms.max(0)).unwrap_or(Timestamp::MAX);
    time.to_zoned(TimeZone::UTC).date()
}

impl Keys {
    /// The keys of `deployment` at `location`: a folder, which is created, or an object store's URL.
    ///
    /// # Errors
    /// When the location cannot be used.
    pub fn open(location: &str, deployment: &str) -> Result<Self, KeysError> {
        let shown = without_credentials(location);
        let storage = Storage::open(location, deployment)
            .map_err(|source| KeysError::Place { location: shown.clone(), source })?;
        Ok(Self { storage, location: shown })
    }

    /// The state of each day that has one, by day. None at all is an error, so that nobody takes
    /// another place for the right one.
    ///
    /// # Errors
    /// When their place cannot be read, holds something else, or nothing.
    pub async fn list(&self) -> Result<Vec<(Date, DayState)>, KeysError> {
        let mut states = Vec::new();
        for day in self.days().await? {
            states.extend(self.state(day).await?.map(|state| (day, state)));
        }
        if states.is_empty() {
            return Err(KeysError::NoKeys { location: self.location.clone() });
        }
        Ok(states)
    }

    /// The days that have a state, in their order.
    async fn days(&self) -> Result<Vec<Date>, KeysError> {
        let files = self.storage.list("").await.map_err(|source| self.failed(source))?;
        let day = |file: &String| file.strip_suffix(".json")?.parse().ok();
        let mut days: Vec<Date> = files.iter().filter_map(day).collect();
        days.sort_unstable();
        Ok(days)
    }

    /// Whether `master` is the one: it opens the newest key, if there is any.
    pub(super) async fn check(&self, master: &MasterKey) -> Result<(), KeysError> {
        for day in self.days().await?.into_iter().rev() {
            if let Some(kept @ DayState::Kept { .. }) = self.state(day).await? {
                return self.unwrap(day, &kept, master).map(drop);
            }
        }
        Ok(())
    }

    /// What became of a day's key; none if none was made.
    ///
    /// # Errors
    /// When their place cannot be read, or holds something else.
    pub async fn state(&self, day: Date) -> Result<Option<DayState>, KeysError> {
        let file = file(day);
        match self.storage.get(&file).await {
            Ok(bytes) => {
                let state = serde_json::from_slice(&bytes);
                let location = self.location.clone();
                state.map(Some).map_err(|source| KeysError::Damaged { location, file, source })
            }
            Err(SnapshotError::Storage { source, .. })
                if matches!(*source, StorageError::NotFound { .. }) =>
            {
                Ok(None)
            }
            Err(source) => Err(self.failed(source)),
        }
    }

    /// The key of `day`, made if there is none yet; none if it was destroyed.
    ///
    /// # Errors
    /// When their place cannot be used, or the master key is another.
    pub(super) async fn get_or_create(
        &self,
        day: Date,
        master: &MasterKey,
    ) -> Result<Option<DataKey>, KeysError> {
        loop {
            if let Some(state) = self.state(day).await? {
                return self.unwrap(day, &state, master);
            }
            let (key, bytes) = DataKey::generate();
            let wrapped = Wrapped(master.wrap(&day.to_string(), &bytes));
            let state = DayState::Kept { made_at: Timestamp::now(), wrapped };
            let created = self.storage.create(&file(day), content(&state)).await;
            if created.map_err(|source| self.failed(source))? {
                return Ok(Some(key));
            }
            // Another worker or process was first: its key counts.
        }
    }

    /// A day's key; none if it was destroyed.
    ///
    /// # Errors
    /// When the master key is another.
    pub(super) fn unwrap(
        &self,
        day: Date,
        state: &DayState,
        master: &MasterKey,
    ) -> Result<Option<DataKey>, KeysError> {
        let DayState::Kept { wrapped: Wrapped(wrapped), .. } = state else { return Ok(None) };
        match master.unwrap(&day.to_string(), wrapped) {
            Some(key) => Ok(Some(DataKey::of(&key))),
            None => Err(KeysError::OtherMaster { location: self.location.clone(), day }),
        }
    }

    /// Destroys the key of a day that is over. Another one is never made, so what is read again of
    /// that day is kept without what is personal.
    ///
    /// # Errors
    /// A day that is not over, or a place that cannot be written or has no keys at all.
    pub async fn destroy(&self, day: Date) -> Result<Destroyed, KeysError> {
        let now = Timestamp::now();
        if day >= day_of(now.as_millisecond()) {
            return Err(KeysError::NotOver { day });
        }
        let gone = DayState::Destroyed { destroyed_at: now };
        let found = match self.state(day).await? {
            Some(DayState::Destroyed { destroyed_at }) => {
                return Ok(Destroyed::Before(destroyed_at));
            }
            Some(DayState::Kept { .. }) => Destroyed::Now,
            None => {
                self.list().await?;
                Destroyed::NeverMade
            }
        };
        // Also over a key that is made just now.
        self.put(day, &gone).await?;
        Ok(found)
    }

    /// Wraps every key with the master key `to` that `from` opens, and says how many these were.
    /// Those that `to` opens already are left: what was interrupted is done again.
    ///
    /// # Errors
    /// A key that neither opens, or a place that cannot be used or has no keys.
    pub async fn rotate(&self, from: &MasterKey, to: &MasterKey) -> Result<usize, KeysError> {
        let mut rotated = 0;
        for (day, state) in self.list().await? {
            let DayState::Kept { made_at, wrapped: Wrapped(wrapped) } = state else { continue };
            let name = day.to_string();
            if to.unwrap(&name, &wrapped).is_some() {
                continue;
            }
            let Some(key) = from.unwrap(&name, &wrapped) else {
                return Err(KeysError::OtherMaster { location: self.location.clone(), day });
            };
            let wrapped = Wrapped(to.wrap(&name, &key));
            self.put(day, &DayState::Kept { made_at, wrapped }).await?;
            rotated += 1;
        }
        Ok(rotated)
    }

    async fn put(&self, day: Date, state: &DayState) -> Result<(), KeysError> {
        let put = self.storage.put(&file(day), content(state)).await;
        put.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: SnapshotError) -> KeysError {
        KeysError::Place { location: self.location.clone(), source }
    }
}

fn file(day: Date) -> String {
    format!("{day}.json")
}

fn content(state: &DayState) -> Bytes {
    serde_json::to_vec(state).expect("a state is always JSON").into()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::secret::Secret;

    fn master(digits: &str) -> MasterKey {
        MasterKey::new(&Secret::new(digits.repeat(32))).expect("good")
    }

    #[test]
    fn a_day_is_that_of_utc() {
        for (ms, day) in [
            (-1, date(1970, 1, 1)),
            (0, date(1970, 1, 1)),
            (86_399_999, date(1970, 1, 1)),
            (86_400_000, date(1970, 1, 2)),
            (1_795_154_400_000, date(2026, 11, 20)),
            (i64::MAX, date(9999, 12, 30)),
        ] {
            assert_eq!(day_of(ms), day, "{ms}");
        }
    }

    #[tokio::test]
    async fn whoever_comes_first_makes_a_key_and_none_is_made_once_it_is_destroyed() {
        let folder = tempfile::tempdir().expect("a folder");
        let location = folder.path().to_str().expect("text");
        let keys = || Keys::open(location, "city").expect("a place");
        let (old, new, day) = (master("01"), master("02"), date(2026, 1, 5));
        let here = keys();
        assert!(matches!(here.destroy(day).await, Err(KeysError::NoKeys { .. })));
        let made = here.get_or_create(day, &old).await.expect("made").expect("a key");
        let again = keys().get_or_create(day, &old).await.expect("read").expect("a key");
        let place = super::super::Place { table: "archive", topic: "t", partition: 0, offset: 0 };
        let content = super::super::Sealed { cuts: Vec::new(), detail: Some("Li") };
        let sealed = made.seal(place, &content);
        assert!(again.open(place, &sealed).is_some());

        let wrong = here.get_or_create(day, &new).await.err().expect("another master key");
        assert!(wrong.to_string().contains("does not open the key of 2026-01-05"), "{wrong}");
        assert_eq!(here.rotate(&old, &new).await.expect("rotated"), 1);
        assert_eq!(here.rotate(&old, &new).await.expect("rotated already"), 0);
        assert!(here.rotate(&old, &master("03")).await.is_err());
        let rotated = here.get_or_create(day, &new).await.expect("read").expect("a key");
        assert!(rotated.open(place, &sealed).is_some());
        assert!(here.get_or_create(day, &old).await.is_err());

        assert_eq!(here.destroy(day).await.expect("destroyed"), Destroyed::Now);
        assert!(matches!(here.destroy(day).await, Ok(Destroyed::Before(_))));
        assert!(here.get_or_create(day, &new).await.expect("read").is_none());
        let never = date(2026, 1, 6);
        assert_eq!(here.destroy(never).await.expect("destroyed"), Destroyed::NeverMade);
        assert!(here.get_or_create(never, &new).await.expect("read").is_none());
        let today = day_of(Timestamp::now().as_millisecond());
        assert!(matches!(here.destroy(today).await, Err(KeysError::NotOver { .. })));
        let days: Vec<Date> = here.list().await.expect("listed").iter().map(|day| day.0).collect();
        assert_eq!(days, [day, never]);
        let text = std::fs::read_to_string(folder.path().join("city/2026-01-05.json"));
        assert!(text.expect("a file").starts_with(r#"{"destroyed":{"destroyed_at":""#));

        std::fs::write(folder.path().join("city/2026-01-07.json"), "{}").expect("written");
        assert!(matches!(here.list().await, Err(KeysError::Damaged { .. })));
    }
}
