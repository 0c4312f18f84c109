//! What is wrong with a grid, and where.
//!
//! Vertices are compared as whole billionths of a degree. Borders that run within
//! [`BORDER_TOLERANCE_DEGREES`] of each other are one; overlaps and gaps below [`AREA_MIN_M2`] are
//! rounding. Every hole in the grid counts as a gap, since a grid covers its city.

mod areas;
mod gaps;
mod hierarchy;
mod overlaps;

use std::fmt;

use geo::{BoundingRect, CoordsIter, Validation};
use serde::Serialize;

use super::file::{Cell, GridFile};

/// About a centimetre.
pub const BORDER_TOLERANCE_DEGREES: f64 = 1e-7;

/// The smallest overlap or gap that counts.
pub const AREA_MIN_M2: f64 = 0.01;

/// What kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// A code that does not fit the layout.
    Code,
    /// A code that several cells have.
    RepeatedCode,
    /// A cell that lies inside another community, or a name for a place without cells.
    Hierarchy,
    /// A ring that crosses itself, or polygons of one cell that do.
    Ring,
    /// A stated area more than one percent off.
    Area,
    /// Dates in the wrong order.
    Dates,
    /// Two cells that share an area.
    Overlap,
    /// A hole between cells.
    Gap,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// The codes of the cells, or what else bears a code.
    pub codes: Vec<String>,
    /// Where: longitude and latitude in the grid's coordinate system.
    pub at: Option<(f64, f64)>,
    /// What was found.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.codes.join(", "), self.detail)?;
        self.at.map_or(Ok(()), |(lon, lat)| write!(formatter, " at ({lon:.6}, {lat:.6})"))
    }
}

/// All faults of a grid, kind by kind.
#[must_use]
pub fn check(file: &GridFile) -> Vec<Fault> {
    let mut faults = hierarchy::codes(file);
    faults.extend(file.cells.iter().filter_map(dates));
    let rings: Vec<Option<Fault>> = file.cells.iter().map(ring).collect();
    // What crosses itself has no area to speak of.
    let valid: Vec<&Cell> = file
        .cells
        .iter()
        .zip(&rings)
        .filter(|(_, fault)| fault.is_none())
        .map(|(cell, _)| cell)
        .collect();
    faults.extend(rings.iter().flatten().cloned());
    faults.extend(valid.iter().filter_map(|cell| areas::area(cell)));
    faults.extend(overlaps::overlaps(&valid));
    faults.extend(gaps::gaps(&file.cells));
    faults.extend(hierarchy::enclaves(file));
    faults.sort_by_key(|fault| fault.kind);
    faults
}

fn dates(cell: &Cell) -> Option<Fault> {
    let (from, to) = (cell.valid_from?, cell.valid_to?);
    (to <= from).then(|| fault_of(cell, FaultKind::Dates, format!("valid from {from} to {to}")))
}

fn ring(cell: &Cell) -> Option<Fault> {
    if cell.shape.coords_iter().any(|at| !(at.x.abs() <= 180.0 && at.y.abs() <= 90.0)) {
        let detail = "a vertex is not a longitude and a latitude in degrees".to_owned();
        return Some(fault_of(cell, FaultKind::Ring, detail));
    }
    let error = cell.shape.check_validation().err()?;
    Some(fault_of(cell, FaultKind::Ring, error.to_string()))
}

fn fault_of(cell: &Cell, kind: FaultKind, detail: String) -> Fault {
    let centre = cell.shape.bounding_rect().map(|bounds| bounds.center());
    Fault { kind, codes: vec![cell.code.clone()], at: centre.map(|at| (at.x, at.y)), detail }
}

#[cfg(test)]
mod tests;
