//! What a query sees: rows of marked epochs, the newest of each key.

use std::collections::BTreeMap;

use super::{Key, Numbers, Row};

/// A row as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) epoch: u64,
    pub(crate) key: Key,
    pub(crate) row: Option<Row>,
}

/// The numbers as known at the mark of `epoch`.
pub(crate) fn as_of(sent: &[Sent], epoch: u64) -> Numbers {
    let mut newest: BTreeMap<Key, &Sent> = BTreeMap::new();
    for row in sent.iter().filter(|row| row.epoch <= epoch) {
        let seen = newest.entry(row.key).or_insert(row);
        if row.epoch > seen.epoch {
            *seen = row;
        }
    }
    newest.into_iter().filter_map(|(key, sent)| Some((key, sent.row?))).collect()
}
