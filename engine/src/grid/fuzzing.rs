//! What holds for grid files of any bytes; `make fuzz` looks for some that break it.

use std::path::Path;

use citycell_schemas::{Level, Place};
use geo::{Coord, CoordsIter};

use super::{
    check::{FaultKind, check},
    file::GridFile,
    load::{GridError, LoadedGrid, from_bytes},
};

/// Reads `data` as a grid file.
///
/// # Panics
/// If a grid that is loaded contradicts itself, or an error does not say where it is.
pub fn hold(data: &[u8]) {
    if let Ok(file) = GridFile::parse(data) {
        // Whatever it finds: that it ends is what is tried.
        let _ = check(&file);
    }
    match from_bytes(Path::new("g.geojson"), data) {
        Ok(grid) => {
            is_whole(&grid);
            finds_its_cells(&grid);
            is_written_as_read(grid);
        }
        Err(error) => says_where(&error),
    }
}

/// Every place but the city has a parent one level above, whose area is the sum of its children's.
fn is_whole(grid: &LoadedGrid) {
    let places = grid.located.grid().places();
    assert_eq!(grid.cells.len(), places.iter().filter(|at| at.level == Level::Cell).count());
    let mut sums = vec![0.0; places.len()];
    for (number, place) in (0..).map(Place).zip(places) {
        match place.parent {
            Some(parent) => {
                sums[parent.0 as usize] += place.area_m2;
                let above = grid.located.grid().entry(parent).level;
                assert_eq!(grid.located.grid().at_level(number, above), Some(parent));
            }
            None => assert_eq!((place.level, number.0 as usize), (Level::City, places.len() - 1)),
        }
        assert!(place.area_m2 >= 0.0, "{} has {} m2", place.code, place.area_m2);
    }
    for (place, sum) in places.iter().zip(sums).filter(|(at, _)| at.level != Level::Cell) {
        assert!((place.area_m2 - sum).abs() <= 1e-9 * sum, "{}", place.code);
    }
}

/// A code leads to its cell; a point in the middle of a cell to that cell or to one that it overlaps
/// with.
fn finds_its_cells(grid: &LoadedGrid) {
    use geo::{Contains, InteriorPoint};
    let located = &grid.located;
    let is_good = check_finds_nothing(grid);
    for (place, cell) in (0..).map(Place).zip(&grid.cells) {
        assert_eq!(located.locate_code(&cell.code), Some(place));
        let inside = cell.shape.interior_point().map(Coord::from);
        for at in cell.shape.coords_iter().chain(inside) {
            let found = located.locate_point(at.x, at.y, grid.head.crs);
            assert!(found.is_none_or(|found| (found.0 as usize) < grid.cells.len()));
        }
        if let Some(at) = inside.filter(|at| is_good && cell.shape.contains(at)) {
            assert_eq!(located.locate_point(at.x, at.y, grid.head.crs), Some(place));
        }
    }
}

fn check_finds_nothing(grid: &LoadedGrid) -> bool {
    let file = GridFile { head: grid.head.clone(), cells: grid.cells.clone() };
    let faults = check(&file);
    let never = [FaultKind::Code, FaultKind::RepeatedCode];
    let found = faults.iter().find(|fault| never.contains(&fault.kind));
    assert!(found.is_none(), "loaded in spite of {found:?}");
    faults.is_empty()
}

fn is_written_as_read(grid: LoadedGrid) {
    let file = GridFile { head: grid.head, cells: grid.cells };
    let mut written = Vec::new();
    file.write(&mut written).expect("a vector takes everything");
    let again = GridFile::parse(&written).expect("what was written is read");
    assert_eq!((&again.head, again.cells.len()), (&file.head, file.cells.len()));
    for (cell, was) in again.cells.iter().zip(&file.cells) {
        assert_eq!((&cell.code, &cell.name), (&was.code, &was.name));
        assert_eq!((cell.valid_from, cell.valid_to), (was.valid_from, was.valid_to));
        // The JSON reader takes a number of many digits for its neighbour now and then.
        let is_near = |(at, was): (Coord<f64>, Coord<f64>)| {
            (at.x - was.x).abs() < 1e-12 * 360.0 && (at.y - was.y).abs() < 1e-12 * 360.0
        };
        assert!(cell.shape.coords_iter().zip(was.shape.coords_iter()).all(is_near));
    }
}

fn says_where(error: &GridError) {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    match error {
        GridError::Parse { source, .. } => {
            assert!(source.line() >= 1 && cause.contains("line"), "{error}: {cause}");
        }
        GridError::Cell { number, code, .. } => {
            assert!(*number >= 1 && error.to_string().contains(code));
        }
        GridError::Empty { .. } | GridError::Read { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn inputs_that_once_broke_it_do_no_more() {
        for input in std::fs::read_dir("../fuzz/inputs/grid").expect("kept inputs") {
            let input = input.expect("a file").path();
            super::hold(&std::fs::read(&input).expect("its bytes"));
        }
    }
}
