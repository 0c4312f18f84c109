//! What operators write down of their state, and what they get back after a restart.
//!
//! An operator remembers which keys it touched since it last wrote. At the end of an epoch whose
//! tick asks for a snapshot it emits each of them: its content, or that nothing is left of it. The
//! newest entry of a key stands for all before it, so the entries of all epochs up to one are the
//! state as of that epoch. What can no longer change anything is left out on the way back in, so an
//! operator need not say when a window closed.
//!
//! The levels above the cell are not written: they follow from the cells.

use std::hash::Hash;
use std::sync::Arc;

use ahash::AHashSet;
use serde::{Deserialize, Serialize};

use crate::accumulators::State;
use crate::live::Live;

/// Whose state an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Part {
    /// The ids of `duplicates`.
    Events,
    /// The observations of `entity`, by window and entity.
    Entities,
    /// The observations of `latest`, by entity.
    Latest,
    /// The sums of the cells.
    Totals,
    /// The values that the cells' extremes are chosen from.
    Extremes,
    /// The changes that `publish` holds back.
    Held,
}

/// One key's content as bytes; `None` where nothing is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Whose state it is.
    pub part: Part,
    /// The key.
    pub key: &'a [u8],
    /// Its content.
    pub value: Option<&'a [u8]>,
}

/// Entries in one buffer.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    part: Part,
    start: usize,
    key_end: usize,
    value_end: Option<usize>,
}

impl Saved {
    /// How many entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The entries by part and key. Of one epoch no key has two.
    pub fn sorted(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut entries: Vec<Entry<'_>> = self.spans.iter().map(|span| self.entry(span)).collect();
        entries.sort_unstable_by_key(|entry| (entry.part, entry.key));
        entries.into_iter()
    }

    /// Adds what `other` holds.
    pub fn append(&mut self, other: &Self) {
        let moved = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.spans.extend(other.spans.iter().map(|span| Span {
            start: span.start + moved,
            key_end: span.key_end + moved,
            value_end: span.value_end.map(|end| end + moved),
            ..*span
        }));
    }

    pub(crate) fn push<K: Serialize, V: Serialize>(
        &mut self,
        part: Part,
        key: &K,
        value: Option<&V>,
    ) {
        let start = self.bytes.len();
        self.write(key);
        let key_end = self.bytes.len();
        let value_end = value.map(|value| {
            self.write(value);
            self.bytes.len()
        });
        self.spans.push(Span { part, start, key_end, value_end });
    }

    fn write<T: Serialize>(&mut self, value: &T) {
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(value, bytes).expect("a vector takes any plain value");
    }

    fn entry(&self, span: &Span) -> Entry<'_> {
        Entry {
            part: span.part,
            key: &self.bytes[span.start..span.key_end],
            value: span.value_end.map(|end| &self.bytes[span.key_end..end]),
        }
    }
}

/// What `publish` holds back of a key: what was published of it, and its newest content.
pub(crate) type Pending = (Option<State>, Option<State>);

/// How operators keep their state.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// Whether they remember what they touch.
    pub recording: Recording,
    /// Where they count what they keep.
    pub live: Arc<Live>,
}

impl Default for Keeping {
    fn default() -> Self {
        Self { recording: Recording::Off, live: Arc::default() }
    }
}

/// The keys touched since the last snapshot; nothing where nobody takes snapshots.
#[derive(Debug)]
pub(crate) struct Touched<K>(Option<AHashSet<K>>);

impl<K: Hash + Eq + Ord> Touched<K> {
    pub(crate) fn new(recording: Recording) -> Self {
        Self((recording == Recording::On).then(AHashSet::new))
    }

    pub(crate) fn note(&mut self, key: K) {
        if let Some(keys) = &mut self.0 {
            keys.insert(key);
        }
    }

    /// Notes a key that is made only if somebody wants it.
    pub(crate) fn note_with(&mut self, key: impl FnOnce() -> K) {
        if let Some(keys) = &mut self.0 {
            keys.insert(key());
        }
    }

    /// No longer of interest: what is left out on the way back needs no entry.
    pub(crate) fn forget(&mut self, key: &K) {
        if let Some(keys) = &mut self.0 {
            keys.remove(key);
        }
    }

    /// The same of a key that is made only if somebody wants it.
    pub(crate) fn forget_with(&mut self, key: impl FnOnce() -> K) {
        if let Some(keys) = &mut self.0 {
            keys.remove(&key());
        }
    }

    /// The keys in order, and none from now on.
    pub(crate) fn take(&mut self) -> Vec<K> {
        let mut keys: Vec<K> = self.0.iter_mut().flat_map(|keys| keys.drain()).collect();
        keys.sort_unstable();
        keys
    }
}

/// Whether operators remember what they touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// For snapshots.
    On,
    /// Nobody takes any.
    Off,
}
