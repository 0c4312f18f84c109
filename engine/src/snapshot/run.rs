//! A run: entries sorted by part and key, in one file.
//!
//! The file is a header and a frame per entry: four bytes with the length of the rest, little
//! endian, and the entry. Its length and SHA-256 stand in the manifest.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, Write},
};

use citycell_operators::saved::{Entry, Part};
use citycell_schemas::Epoch;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{SnapshotError, storage::local_failed};

pub(super) const HEADER: &[u8] = b"citycell run 1\n";

/// What a manifest says of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its file.
    pub file: String,
    /// The epoch at whose end its entries held.
    pub epoch: Epoch,
    /// How many entries.
    pub entries: u64,
    /// The file's length.
    pub bytes: u64,
    /// The file's SHA-256, hexadecimal.
    pub sha256: String,
}

impl Run {
    /// Whether `file` is this run's, whole and as it was written.
    pub(super) fn check(&self, file: &mut File) -> Result<(), SnapshotError> {
        check(file, &self.file, (self.bytes, &self.sha256))
    }
}

/// Whether a file has as many bytes as were written and their SHA-256; `name` is its in messages.
///
/// # Errors
/// [`SnapshotError::Damaged`] if not, or the file's own.
pub fn check(
    file: &mut File,
    name: &str,
    (bytes_written, sha256): (u64, &str),
) -> Result<(), SnapshotError> {
    let damaged = |reason: String| SnapshotError::Damaged { file: name.to_owned(), reason };
    let (hash, bytes) = hashed(file).map_err(local_failed("read", name))?;
    if bytes != bytes_written {
        return Err(damaged(format!("it has {bytes} bytes instead of {bytes_written}")));
    }
    if hexadecimal(hash) != sha256 {
        return Err(damaged("its checksum is another".to_owned()));
    }
    Ok(())
}

/// An entry of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OwnedEntry {
    pub(super) part: Part,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

/// Writes entries, which must come sorted.
pub(super) struct RunWriter<W> {
    out: W,
    hash: Sha256,
    bytes: u64,
    entries: u64,
    frame: Vec<u8>,
}

impl<W: Write> RunWriter<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let mut writer = Self { out, hash: Sha256::new(), bytes: 0, entries: 0, frame: Vec::new() };
        writer.write(HEADER)?;
        Ok(writer)
    }

    pub(super) fn push(&mut self, entry: Entry<'_>) -> io::Result<()> {
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        frame.extend_from_slice(&[0; 4]);
        let mut frame = postcard::to_extend(&(entry.part, entry.key, entry.value), frame)
            .map_err(io::Error::other)?;
        let length = u32::try_from(frame.len() - 4).map_err(io::Error::other)?;
        frame[..4].copy_from_slice(&length.to_le_bytes());
        let written = self.write(&frame);
        self.entries += 1;
        self.frame = frame;
        written
    }

    /// What the manifest will say, and where the bytes went.
    pub(super) fn finish(mut self, file: String, epoch: Epoch) -> io::Result<(Run, W)> {
        self.out.flush()?;
        let sha256 = hexadecimal(self.hash);
        Ok((Run { file, epoch, entries: self.entries, bytes: self.bytes, sha256 }, self.out))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// Reads a run's entries in order.
#[derive(Debug)]
pub(super) struct RunReader {
    run: Run,
    input: BufReader<File>,
    entries_left: u64,
    bytes_left: u64,
    frame: Vec<u8>,
}

impl RunReader {
    /// Checks the file's length and checksum before anything is made of it.
    pub(super) fn open(run: &Run, mut file: File) -> Result<Self, SnapshotError> {
        run.check(&mut file)?;
        let failed = || local_failed("read", &run.file);
        let damaged = |reason: String| SnapshotError::Damaged { file: run.file.clone(), reason };
        file.rewind().map_err(failed())?;
        let input = BufReader::with_capacity(1 << 16, file);
        let mut reader = Self {
            run: run.clone(),
            input,
            entries_left: run.entries,
            bytes_left: run.bytes,
            frame: Vec::new(),
        };
        let mut header = [0; HEADER.len()];
        reader.read(&mut header)?;
        if header != HEADER {
            return Err(damaged("it is no run of a format that we know".to_owned()));
        }
        Ok(reader)
    }

    pub(super) fn next(&mut self) -> Result<Option<OwnedEntry>, SnapshotError> {
        if self.entries_left == 0 {
            return match self.bytes_left {
                0 => Ok(None),
                bytes => Err(self.damaged(format!("{bytes} bytes follow its last entry"))),
            };
        }
        self.entries_left -= 1;
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length = u32::from_le_bytes(length);
        self.check_left(length.into())?;
        let mut frame = std::mem::take(&mut self.frame);
        frame.resize(length as usize, 0);
        self.read(&mut frame)?;
        let entry = postcard::from_bytes(&frame);
        self.frame = frame;
        entry.map(Some).map_err(|error| self.damaged(format!("an entry is unreadable: {error}")))
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        self.check_left(bytes.len() as u64)?;
        self.bytes_left -= bytes.len() as u64;
        self.input.read_exact(bytes).map_err(local_failed("read", &self.run.file))
    }

    /// A length that is wrong must neither reserve memory nor pass for a disk that fails.
    fn check_left(&self, bytes: u64) -> Result<(), SnapshotError> {
        if bytes <= self.bytes_left {
            return Ok(());
        }
        Err(self.damaged(format!("{bytes} bytes are due, {} are left", self.bytes_left)))
    }

    fn damaged(&self, reason: String) -> SnapshotError {
        SnapshotError::Damaged { file: self.run.file.clone(), reason }
    }
}

/// The hash over the rest of a file, and its length.
fn hashed(file: &mut File) -> io::Result<(Sha256, u64)> {
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hash, bytes));
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
}

pub(crate) fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
