//! What a process tells another before they share work.
//!
//! Workers exchange bytes that only another worker of the very same dataflow can read, so a process
//! that was started in another way must be refused before the first of them.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
};

use citycell_schemas::Epoch;
use serde::{Deserialize, Serialize};

use crate::engine::EngineConfig;

/// A greeting with more bytes is none.
const BYTES_MAX: u32 = 1 << 20;

/// How a process was started, and what it starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct Greeting {
    /// Which process this is.
    pub(super) process: usize,
    program: String,
    deployment: String,
    processes: usize,
    workers: usize,
    grid: String,
    /// Name and version, in the order in which they were named.
    pipelines: Vec<(String, String)>,
    snapshots: bool,
    archive: bool,
    /// The epoch of each version's state.
    started_at: BTreeMap<String, Epoch>,
    /// The last epoch of each version that was found marked.
    marked: BTreeMap<String, Epoch>,
}

impl Greeting {
    /// What this process says, given the states it starts with and what it found marked.
    pub(in crate::engine) fn new(
        config: &EngineConfig,
        started_at: BTreeMap<String, Epoch>,
        marked: BTreeMap<String, Epoch>,
    ) -> Self {
        let cluster = config.cluster.as_ref();
        let grid = config.grid.grid();
        let pipelines = config.pipelines.iter();
        let pipelines =
            pipelines.map(|pipeline| (pipeline.plan.name.clone(), pipeline.version(grid)));
        Self {
            process: cluster.map_or(0, |cluster| cluster.process),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            deployment: config.deployment.clone(),
            processes: cluster.map_or(1, |cluster| cluster.addresses.len()),
            workers: config.workers.get(),
            grid: grid.version().to_owned(),
            pipelines: pipelines.collect(),
            snapshots: config.snapshots.is_some(),
            archive: config.archive.is_some(),
            started_at,
            marked,
        }
    }

    /// In what a process that says `other` was started differently, if it was.
    pub(super) fn difference(&self, other: &Self) -> Option<&'static str> {
        let differences = [
            ("program", self.program != other.program),
            ("--deployment", self.deployment != other.deployment),
            ("number of --peers", self.processes != other.processes),
            ("--workers", self.workers != other.workers),
            ("grid", self.grid != other.grid),
            ("pipelines", self.pipelines != other.pipelines),
            ("--snapshots", self.snapshots != other.snapshots),
            ("--archive", self.archive != other.archive),
        ];
        differences.into_iter().find_map(|(what, differs)| differs.then_some(what))
    }

    /// Whether this process can go on beside process 0, which says `first`: from the same states,
    /// and without leaving out rows that process 0 is still going to mark.
    pub(super) fn goes_on_beside(&self, first: &Self) -> bool {
        let is_marked_there =
            |(name, epoch): (&String, &Epoch)| first.marked.get(name).is_some_and(|at| at >= epoch);
        self.started_at == first.started_at && self.marked.iter().all(is_marked_there)
    }

    pub(super) fn write(&self, mut to: impl Write) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        let length = u32::try_from(text.len()).ok().filter(|length| *length <= BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("too many pipelines"))?;
        to.write_all(&[&length.to_be_bytes()[..], &text].concat())
    }

    pub(super) fn read(mut from: impl Read) -> io::Result<Self> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > BYTES_MAX {
            return Err(io::Error::other("this is no greeting of citycell"));
        }
        let mut text = vec![0; length as usize];
        from.read_exact(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Greeting {
        Greeting {
            process: 1,
            program: "1".into(),
            deployment: "city".into(),
            processes: 2,
            workers: 2,
            grid: "grid".into(),
            pipelines: vec![("crowd".into(), "a1".into()), ("other".into(), "b2".into())],
            snapshots: true,
            archive: false,
            started_at: BTreeMap::from([("crowd".into(), Epoch(5))]),
            marked: BTreeMap::from([("crowd".into(), Epoch(7))]),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        greeting().write(&mut bytes).unwrap();
        assert_eq!(Greeting::read(&*bytes).unwrap(), greeting());
        assert!(Greeting::read(&b"GET / HTTP/1.1\r\n\r\n"[..]).is_err());
        assert!(Greeting::read(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn another_order_of_pipelines_is_a_difference() {
        let mut other = greeting();
        assert_eq!(greeting().difference(&other), None);
        other.pipelines.reverse();
        assert_eq!(greeting().difference(&other), Some("pipelines"));
    }

    #[test]
    fn nobody_goes_on_from_another_state_or_beyond_what_the_first_found_marked() {
        let first = greeting();
        assert!(greeting().goes_on_beside(&first));
        let mark = |epoch| {
            let marked = BTreeMap::from([("crowd".to_owned(), Epoch(epoch))]);
            Greeting { marked, ..greeting() }
        };
        assert!(mark(6).goes_on_beside(&first), "what it sends again is the same");
        assert!(!mark(8).goes_on_beside(&first), "process 0 would mark 8 without its rows");
        let other = Greeting { started_at: BTreeMap::new(), ..greeting() };
        assert!(!other.goes_on_beside(&first));
    }
}
