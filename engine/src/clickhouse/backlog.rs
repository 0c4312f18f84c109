//! Rows that wait for ClickHouse: in memory first, then on disk, within one limit for all pipelines.
//!
//! The files have no names, so they are gone with the process; what they held is computed again from
//! the last snapshot and the bound epochs. A file takes so much and no more, and goes with the last of
//! its rows: a backlog that never quite empties gives its disk back all the same.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use crate::metrics::Metrics;

/// How much may wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BacklogLimits {
    /// In memory, bytes over all pipelines.
    pub memory_bytes_max: u64,
    /// In all, bytes over all pipelines. At this limit no epoch is bound until rows are written.
    pub bytes_max: u64,
    /// The folder of the files on disk.
    pub folder: PathBuf,
}

/// What waits, of all pipelines.
#[derive(Clone)]
pub struct Backlog(Arc<Shared>);

struct Shared {
    limits: BacklogLimits,
    metrics: Metrics,
    in_memory: AtomicU64,
    on_disk: AtomicU64,
    file: Mutex<Option<Spill>>,
}

/// Bytes after which the next rows go to a new file.
const FILE_BYTES: u64 = 64 << 20;

/// The newest file.
struct Spill {
    /// Rows that wait in it hold it too.
    file: Arc<File>,
    end: u64,
}

/// Bytes that wait somewhere.
pub enum Waiting {
    /// In memory.
    InMemory(Bytes),
    /// In a file.
    OnDisk {
        /// The file.
        file: Arc<File>,
        /// Where they begin.
        start: u64,
        /// How many.
        length: u64,
    },
}

impl Waiting {
    /// How many bytes these are.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::InMemory(data) => data.len(),
            Self::OnDisk { length, .. } => usize::try_from(*length).unwrap_or(usize::MAX),
        }
    }
}

impl Backlog {
    /// Nothing waits.
    #[must_use]
    pub fn new(limits: BacklogLimits, metrics: Metrics) -> Self {
        Self(Arc::new(Shared {
            limits,
            metrics,
            in_memory: AtomicU64::new(0),
            on_disk: AtomicU64::new(0),
            file: Mutex::new(None),
        }))
    }

    /// Whether more may wait.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let shared = &*self.0;
        let in_memory = shared.in_memory.load(Ordering::Relaxed);
        let waiting = in_memory + shared.on_disk.load(Ordering::Relaxed);
        // Twice the memory only if the disk takes nothing.
        waiting < shared.limits.bytes_max && in_memory < 2 * shared.limits.memory_bytes_max.max(1)
    }

    /// Lets bytes wait.
    #[must_use]
    pub fn put(&self, data: Bytes) -> Waiting {
        let shared = &*self.0;
        let length = data.len() as u64;
        if shared.in_memory.load(Ordering::Relaxed) + length > shared.limits.memory_bytes_max {
            match shared.spill(&data) {
                Ok(waiting) => {
                    shared.on_disk.fetch_add(length, Ordering::Relaxed);
                    shared.show();
                    return waiting;
                }
                Err(error) => {
                    let folder = shared.limits.folder.display();
                    tracing::warn!(%folder, %error, "rows cannot wait on disk, they wait in memory");
                }
            }
        }
        shared.in_memory.fetch_add(length, Ordering::Relaxed);
        shared.show();
        Waiting::InMemory(data)
    }

    /// The bytes again; they count as waiting until [`Self::done`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn get(&self, waiting: &Waiting) -> io::Result<Bytes> {
        match waiting {
            Waiting::InMemory(data) => Ok(data.clone()),
            Waiting::OnDisk { file, start, length } => {
                let mut data = vec![0; usize::try_from(*length).map_err(io::Error::other)?];
                file.read_exact_at(&mut data, *start)?;
                Ok(data.into())
            }
        }
    }

    /// These need not wait any longer.
    pub fn done(&self, waiting: Waiting) {
        let shared = &*self.0;
        match waiting {
            Waiting::InMemory(data) => {
                shared.in_memory.fetch_sub(data.len() as u64, Ordering::Relaxed);
            }
            Waiting::OnDisk { length, file, .. } => {
                shared.on_disk.fetch_sub(length, Ordering::Relaxed);
                drop(file);
                shared.give_back();
            }
        }
        shared.show();
    }
}

impl Shared {
    fn spill(&self, data: &[u8]) -> io::Result<Waiting> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.as_ref().is_none_or(|spill| spill.end >= FILE_BYTES) {
            let new = Arc::new(tempfile::tempfile_in(&self.limits.folder)?);
            *file = Some(Spill { file: new, end: 0 });
        }
        let Some(spill) = file.as_mut() else { return Err(io::Error::other("no file")) };
        spill.file.write_all_at(data, spill.end)?;
        let (start, length) = (spill.end, data.len() as u64);
        spill.end += length;
        Ok(Waiting::OnDisk { file: Arc::clone(&spill.file), start, length })
    }

    /// The newest file goes too once nothing waits in it.
    fn give_back(&self) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.take_if(|spill| Arc::strong_count(&spill.file) == 1);
    }

    fn show(&self) {
        let (in_memory, on_disk) = (&self.in_memory, &self.on_disk);
        self.metrics.backlog(in_memory.load(Ordering::Relaxed), on_disk.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(memory_bytes_max: u64, folder: PathBuf) -> Backlog {
        let limits = BacklogLimits { memory_bytes_max, bytes_max: 100, folder };
        Backlog::new(limits, Metrics::default())
    }

    #[test]
    fn what_does_not_fit_into_memory_waits_on_disk_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let backlog = backlog(10, folder.path().to_owned());
        let texts = ["in memory", "on disk", "also on disk"];
        let waiting: Vec<_> = texts.iter().map(|text| backlog.put(Bytes::from(*text))).collect();
        assert!(matches!(waiting[0], Waiting::InMemory(_)));
        assert!(matches!(waiting[2], Waiting::OnDisk { start: 7, .. }));
        for (waiting, text) in waiting.into_iter().zip(texts) {
            assert_eq!(backlog.get(&waiting).unwrap(), text);
            backlog.done(waiting);
        }
        assert!(backlog.0.file.lock().unwrap().is_none(), "the file is gone with its last bytes");
        assert_eq!(backlog.0.on_disk.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_full_file_goes_while_others_wait() {
        let folder = tempfile::tempdir().unwrap();
        let backlog = backlog(0, folder.path().to_owned());
        let first = backlog.put(Bytes::from(vec![1; FILE_BYTES as usize]));
        let second = backlog.put(Bytes::from("second"));
        let Waiting::OnDisk { file, .. } = &first else { panic!("in memory") };
        let file = Arc::downgrade(file);
        backlog.done(first);
        assert!(file.upgrade().is_none(), "the first file is still there");
        assert_eq!(backlog.get(&second).unwrap(), "second");
    }

    #[test]
    fn at_the_limit_there_is_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let backlog = backlog(10, folder.path().to_owned());
        let waiting = backlog.put(Bytes::from(vec![0; 101]));
        assert!(!backlog.has_room());
        backlog.done(waiting);
        assert!(backlog.has_room());
    }

    #[test]
    fn without_a_disk_memory_stays_bounded() {
        let backlog = backlog(10, PathBuf::from("/nowhere"));
        let waiting = backlog.put(Bytes::from(vec![0; 21]));
        assert!(matches!(waiting, Waiting::InMemory(_)) && !backlog.has_room());
    }
}
