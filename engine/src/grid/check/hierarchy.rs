//! Codes, and whether a cell lies where its code says.

use ahash::{AHashMap, AHashSet};
use citycell_schemas::Level;

use super::gaps::borders;
use super::{Fault, FaultKind, fault_of};
use crate::grid::file::GridFile;
use crate::grid::lattice::Segment;

/// Codes that do not fit, repeated codes, and names of places that have no cells.
pub(super) fn codes(file: &GridFile) -> Vec<Fault> {
    let layout = file.head.layout;
    let mut faults = Vec::new();
    let mut seen: AHashSet<&str> = AHashSet::new();
    let mut above: AHashSet<&str> = AHashSet::new();
    for cell in &file.cells {
        if !layout.is_code(&cell.code, Level::Cell) {
            let detail = "the code does not have the letters and digits of the layout".to_owned();
            faults.push(fault_of(cell, FaultKind::Code, detail));
        } else if !seen.insert(&cell.code) {
            let detail = "another cell has the same code".to_owned();
            faults.push(fault_of(cell, FaultKind::RepeatedCode, detail));
        } else {
            let levels = [Level::Community, Level::Street, Level::District];
            above.extend(levels.map(|level| layout.prefix(&cell.code, level)));
        }
    }
    let unknown = file.head.names.keys().filter(|code| !above.contains(code.as_str()));
    faults.extend(unknown.map(|code| Fault {
        kind: FaultKind::Hierarchy,
        codes: vec![code.clone()],
        at: None,
        detail: "the file names this place, but no cell lies in it".to_owned(),
    }));
    faults
}

/// Cells all of whose borders are shared with cells of one other community.
pub(super) fn enclaves(file: &GridFile) -> Vec<Fault> {
    let layout = file.head.layout;
    let owners: AHashMap<Segment, &str> = file
        .cells
        .iter()
        .filter(|cell| layout.is_code(&cell.code, Level::Cell))
        .flat_map(|cell| {
            let community = layout.prefix(&cell.code, Level::Community);
            borders(&cell.shape).into_iter().map(move |border| (border, community))
        })
        .collect();
    let mut faults = Vec::new();
    for cell in file.cells.iter().filter(|cell| layout.is_code(&cell.code, Level::Cell)) {
        let around: AHashSet<Option<&&str>> =
            borders(&cell.shape).iter().map(|(from, to)| owners.get(&(*to, *from))).collect();
        let own = layout.prefix(&cell.code, Level::Community);
        if let (1, Some(Some(community))) = (around.len(), around.iter().next())
            && **community != own
        {
            let detail = format!("lies inside the community {community}");
            faults.push(fault_of(cell, FaultKind::Hierarchy, detail));
        }
    }
    faults
}
