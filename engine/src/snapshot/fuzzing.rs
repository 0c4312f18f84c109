//! What holds for runs and manifests of any bytes; `make fuzz` looks for some that break it.
//!
//! The first byte of an input says what the rest is: a run's or a manifest's content with the right
//! checksum; or entries, or a state, to be written, damaged and read again.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Seek, Write},
    sync::LazyLock,
};

use citycell_operators::{
    lateness::Horizon,
    restored::{Reading, Restored, route},
    saved::{Entry, Part},
    tick::Tick,
};
use citycell_schemas::{Epoch, EventTime, event::shipped};
use sha2::{Digest, Sha256};

use super::{
    SnapshotError,
    manifest::{Manifest, PipelineState, checksum},
    run::{HEADER, OwnedEntry, Run, RunReader, RunWriter, hexadecimal},
};
use crate::config::parse_pipeline;

static HORIZON: LazyLock<Horizon> = LazyLock::new(|| {
    let text = include_str!("../../../pipelines/crowd_flow.yaml");
    let pipeline = parse_pipeline("crowd_flow.yaml", text, &shipped());
    Horizon::of(&pipeline.expect("a pipeline that comes with citycell").plan)
});

/// Reads what `data` says.
///
/// # Panics
/// If a damaged file is taken for what was written, or reading one fails otherwise than by saying
/// that it is damaged.
pub fn hold(data: &[u8]) {
    match data.split_first() {
        Some((0, rest)) => any_run(rest),
        Some((1, rest)) => damaged_run(rest),
        Some((2, rest)) => any_manifest(rest),
        Some((3, rest)) => damaged_manifest(rest),
        _ => {}
    }
}

/// A run of any entries, as many as the first byte says, is read or refused.
fn any_run(data: &[u8]) {
    let Some((entries, rest)) = data.split_first() else { return };
    let content = [HEADER, rest].concat();
    let run = run(u64::from(*entries), &content);
    let Ok(read) = read(&run, &content) else { return };
    assert_eq!(read.len() as u64, run.entries);
    let (epoch, watermark) = (Epoch(1), EventTime(0));
    let (bound_time_ms, previous_bound_time_ms) = (1, 0);
    let tick = Tick { epoch, bound_time_ms, previous_bound_time_ms, watermark, snapshot: false };
    let mut restored = Restored::new(tick);
    let reading = Reading { horizon: *HORIZON, watermark };
    for OwnedEntry { part, key, value } in read {
        // Each says that it cannot be read, if it cannot.
        let _ = route(part, &key);
        if let Some(value) = value {
            let _ = reading.is_over(part, &key, &value);
            let _ = restored.add(part, &key, &value);
        }
    }
}

/// What was written is what is read, unless the file is another by then.
fn damaged_run(data: &[u8]) {
    let Some((damage, rest)) = data.split_at_checked(DAMAGE_BYTES) else { return };
    let entries = entries(rest);
    let mut writer = RunWriter::new(Vec::new()).expect("a vector takes any bytes");
    for OwnedEntry { part, key, value } in &entries {
        let entry = Entry { part: *part, key, value: value.as_deref() };
        writer.push(entry).expect("a vector takes any bytes");
    }
    let finished = writer.finish("f".into(), Epoch(1));
    let (run, content) = finished.expect("a vector takes any bytes");
    assert_eq!(read(&run, &content).expect("it is what was written"), entries);
    let other = damaged(&content, damage);
    assert_eq!(read(&run, &other).is_ok(), other == content);
}

/// A manifest with any content is read or refused; one that is read is written as it was read.
fn any_manifest(json: &[u8]) {
    let json = json.trim_ascii_end();
    let content = [checksum(json).as_bytes(), b"\n", json].concat();
    if let Ok(manifest) = manifest(&content) {
        let again = manifest_of(manifest.to_text().as_bytes());
        assert_eq!(again, manifest);
    }
}

fn damaged_manifest(data: &[u8]) {
    let Some((damage, rest)) = data.split_at_checked(DAMAGE_BYTES) else { return };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let states = rest.split(|byte| *byte == 0).map(|name| {
        let state = PipelineState {
            version: text(name),
            epoch: Epoch(name.len() as u64),
            binding_offset: name.first().copied().unwrap_or_default().into(),
            binding: serde_json::json!({ text(name): [1.5, text(name), null] }),
            reached: BTreeMap::from([(text(name), vec![(-1, EventTime::MIN)])]),
            runs: vec![run(3, name)],
        };
        (text(name), state)
    });
    let written = Manifest::after(7, 8, states.collect());
    let content = written.to_text().into_bytes();
    assert_eq!(manifest_of(&content), written);
    let other = damaged(&content, damage);
    if let Ok(read) = manifest(&other) {
        assert_eq!(read, written, "damaged, and taken for another");
    }
}

fn manifest(content: &[u8]) -> Result<Manifest, SnapshotError> {
    let read = Manifest::from_bytes("m", content);
    assert!(matches!(read, Ok(_) | Err(SnapshotError::Damaged { .. })), "{read:?}");
    read
}

fn manifest_of(content: &[u8]) -> Manifest {
    manifest(content).expect("what was written is read")
}

/// What a manifest says of a run with this content.
fn run(entries: u64, content: &[u8]) -> Run {
    let sha256 = hexadecimal(Sha256::new_with_prefix(content));
    Run { file: "f".into(), epoch: Epoch(1), entries, bytes: content.len() as u64, sha256 }
}

fn read(run: &Run, content: &[u8]) -> Result<Vec<OwnedEntry>, SnapshotError> {
    let read = read_entries(run, content);
    assert!(matches!(read, Ok(_) | Err(SnapshotError::Damaged { .. })), "{read:?}");
    read
}

fn read_entries(run: &Run, content: &[u8]) -> Result<Vec<OwnedEntry>, SnapshotError> {
    let mut file: File = tempfile::tempfile().expect("a file");
    file.write_all(content).expect("a full disk");
    file.rewind().expect("a file that can be read again");
    let mut reader = RunReader::open(run, file)?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.next()? {
        entries.push(entry);
    }
    Ok(entries)
}

const PARTS: [Part; 6] =
    [Part::Events, Part::Entities, Part::Latest, Part::Totals, Part::Extremes, Part::Held];

/// Entries whose part and lengths are the first bytes of each.
fn entries(mut data: &[u8]) -> Vec<OwnedEntry> {
    let mut entries = Vec::new();
    while let [head, key, value, rest @ ..] = data {
        let part = PARTS[usize::from(head % 6)];
        let (key, rest) = rest.split_at(usize::from(*key).min(rest.len()));
        let (value, rest) = rest.split_at(usize::from(*value).min(rest.len()));
        let value = (head & 0x80 == 0).then(|| value.to_vec());
        entries.push(OwnedEntry { part, key: key.to_vec(), value });
        data = rest;
    }
    entries
}

/// What [`damaged`] takes: what to do, a place of two bytes, and a byte.
const DAMAGE_BYTES: usize = 4;

/// `content` with something done to it; by chance it may stay what it was.
fn damaged(content: &[u8], damage: &[u8]) -> Vec<u8> {
    let at = usize::from(damage[1]) << 8 | usize::from(damage[2]);
    let at = at % content.len();
    let mut other = content.to_vec();
    match damage[0] % 6 {
        0 => other[at] ^= damage[3],
        1 => other.truncate(at),
        2 => other.insert(at, damage[3]),
        3 => drop(other.remove(at)),
        4 => other.rotate_left(at),
        _ => other.extend_from_slice(&content[at..]),
    }
    other
}

#[cfg(test)]
mod tests {
    #[test]
    fn inputs_that_once_broke_it_do_no_more() {
        for input in std::fs::read_dir("../fuzz/inputs/snapshot").expect("kept inputs") {
            let input = input.expect("a file").path();
            super::hold(&std::fs::read(&input).expect("its bytes"));
        }
    }
}
