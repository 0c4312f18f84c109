//! Reading a kept record as it came, for whoever has the keys.

use std::collections::HashMap;

use jiff::civil::Date;

use super::{
    Place,
    key::{DataKey, MasterKey},
    keys::{DayState, Keys, KeysError, day_of},
    redact::restore,
    seal::{ERASED, Sealed},
};

/// A row of `archive` or `rejects`.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Where it stands.
    pub place: Place<'a>,
    /// Kafka's timestamp of the record.
    pub broker_time_ms: i64,
    /// What all may read.
    pub payload: &'a [u8],
    /// What was taken out.
    pub sealed: &'a [u8],
}

/// What a row says to whoever has the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The record as it came, and a reject's detail if it was hidden.
    Whole {
        /// The record's bytes.
        payload: Vec<u8>,
        /// The detail.
        detail: Option<String>,
    },
    /// Its day's key was destroyed: what is personal is gone.
    Erased(Date),
    /// There is no key of its day.
    NoKey(Date),
    /// It was sealed under another key, or is damaged.
    Unreadable(Date),
}

/// Opens rows. It asks for each day's key once.
pub struct Opener {
    keys: Keys,
    master: MasterKey,
    days: HashMap<Date, Day>,
}

enum Day {
    Kept(Box<DataKey>),
    Destroyed,
    Missing,
}

impl Opener {
    /// Opens rows with these keys.
    #[must_use]
    pub fn new(keys: Keys, master: MasterKey) -> Self {
        Self { keys, master, days: HashMap::new() }
    }

    /// The record of a row as it came.
    ///
    /// # Errors
    /// When the keys cannot be read, or the master key is another.
    pub async fn open(&mut self, row: Row<'_>) -> Result<Opened, KeysError> {
        let Row { place, broker_time_ms, payload, sealed } = row;
        if sealed.is_empty() {
            return Ok(Opened::Whole { payload: payload.to_vec(), detail: None });
        }
        let day = day_of(broker_time_ms);
        Ok(match self.day(day).await? {
            Day::Destroyed => Opened::Erased(day),
            _ if sealed == ERASED => Opened::Erased(day),
            Day::Missing => Opened::NoKey(day),
            Day::Kept(key) => {
                let opened = key.open(place, sealed);
                let whole = opened.and_then(|content| whole(payload, &content));
                whole.unwrap_or(Opened::Unreadable(day))
            }
        })
    }

    async fn day(&mut self, day: Date) -> Result<&Day, KeysError> {
        if !self.days.contains_key(&day) {
            let state = self.keys.state(day).await?;
            let key = match &state {
                Some(state @ DayState::Kept { .. }) => {
                    self.keys.unwrap(day, state, &self.master)?
                }
                _ => None,
            };
            let found = match (key, state) {
                (Some(key), _) => Day::Kept(Box::new(key)),
                (None, Some(_)) => Day::Destroyed,
                (None, None) => Day::Missing,
            };
            self.days.insert(day, found);
        }
        Ok(&self.days[&day])
    }
}

fn whole(shown: &[u8], content: &[u8]) -> Option<Opened> {
    let Sealed { cuts, detail } = postcard::from_bytes(content).ok()?;
    let payload = restore(shown, &cuts)?;
    Some(Opened::Whole { payload, detail: detail.map(str::to_owned) })
}
