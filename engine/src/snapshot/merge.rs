//! Several runs as one: of each key the newest entry.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use citycell_operators::saved::Part;

use super::{
    SnapshotError,
    run::{OwnedEntry, Run, RunReader},
    storage::Storage,
};

/// The entries of several runs in order of part and key, each key once.
pub(super) struct Merge {
    readers: Vec<RunReader>,
    heads: BinaryHeap<Reverse<Head>>,
}

/// The next entry of one run; of equal keys that of the newest epoch comes first.
struct Head {
    entry: OwnedEntry,
    epoch: u64,
    reader: usize,
}

impl Head {
    fn order(&self) -> (Part, &[u8], Reverse<u64>, usize) {
        (self.entry.part, &self.entry.key, Reverse(self.epoch), self.reader)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl Merge {
    /// Opens and checks all of `runs`.
    pub(super) async fn open(storage: &Storage, runs: &[Run]) -> Result<Self, SnapshotError> {
        let mut readers = Vec::new();
        let mut heads = BinaryHeap::new();
        for (number, run) in runs.iter().enumerate() {
            let file = storage.open_file(&run.file).await?;
            let run_of_reader = run.clone();
            let opened =
                tokio::task::spawn_blocking(move || RunReader::open(&run_of_reader, file)).await;
            let mut reader = opened.expect("reading a run does not panic")?;
            let first = reader.next()?;
            heads.extend(
                first.map(|entry| Reverse(Head { entry, epoch: run.epoch.0, reader: number })),
            );
            readers.push(reader);
        }
        Ok(Self { readers, heads })
    }

    /// The next key's newest entry, whether or not anything is left of it.
    pub(super) fn next(&mut self) -> Result<Option<OwnedEntry>, SnapshotError> {
        let Some(newest) = self.pop()? else { return Ok(None) };
        while self.heads.peek().is_some_and(|Reverse(head)| {
            head.entry.part == newest.part && head.entry.key == newest.key
        }) {
            self.pop()?;
        }
        Ok(Some(newest))
    }

    fn pop(&mut self) -> Result<Option<OwnedEntry>, SnapshotError> {
        let Some(Reverse(Head { entry, epoch, reader })) = self.heads.pop() else {
            return Ok(None);
        };
        let next = self.readers[reader].next()?;
        self.heads.extend(next.map(|entry| Reverse(Head { entry, epoch, reader })));
        Ok(Some(entry))
    }
}
