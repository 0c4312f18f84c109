//! Stated areas against the polygons'.

use super::{Fault, FaultKind, fault_of};
use crate::grid::file::Cell;
use crate::grid::metres::area_m2;

/// How far a stated area may be off, as a part of it.
const ERROR_MAX: f64 = 0.01;

pub(super) fn area(cell: &Cell) -> Option<Fault> {
    let (stated, measured) = (cell.area_m2?, area_m2(&cell.shape));
    // Areas are stated in whole hundredths.
    let wrong = (stated - measured).abs() > ERROR_MAX * measured + 0.01;
    let detail = format!("area_m2 is {stated}, the polygon has {measured:.2}");
    wrong.then(|| fault_of(cell, FaultKind::Area, detail))
}
