//! A grid file to a grid in which places are found.
//!
//! Places are numbered: the cells in the order of their codes, then communities, streets, districts
//! (each in the order of their codes) and last the city. A level's area is the sum of its cells'.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use citycell_operators::locate::LocatedGrid;
use citycell_schemas::grid::PlaceEntry;
use citycell_schemas::{Grid, Level, Place};
use sha2::{Digest, Sha256};

use super::file::{Cell, GridFile, GridHead};
use super::metres::area_m2;

/// A grid together with what its file says of the cells.
#[derive(Debug)]
pub struct LoadedGrid {
    /// The grid and its indexes.
    pub located: Arc<LocatedGrid>,
    /// What all cells have in common.
    pub head: GridHead,
    /// The cells; a cell's [`Place`] is its index.
    pub cells: Vec<Cell>,
}

/// A grid file that cannot be used. It is the file's fault; trying again is of no use, unless the
/// file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum GridError {
    /// The file could not be read.
    #[error("cannot read the grid {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The text is no grid file.
    #[error("{} is no grid file", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line, column and feature.
        source: serde_json::Error,
    },
    /// The file has no cells.
    #[error("the grid {} has no cells", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A cell cannot be taken.
    #[error("{}: feature {number} (cell {code}): {problem}", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// The feature's number, from 1.
        number: usize,
        /// The code it states.
        code: String,
        /// What is wrong with it.
        problem: CellProblem,
    },
}

/// What is wrong with a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CellProblem {
    /// The code does not fit the layout.
    #[error("the code does not have the letters and digits of the layout")]
    Code,
    /// Another cell has the code.
    #[error("feature {first} has the same code")]
    Repeated {
        /// The number of the other feature, from 1.
        first: usize,
    },
    /// The stated area is no area.
    #[error("area_m2 is not above 0")]
    Area,
    /// A vertex lies on no globe.
    #[error("a vertex is not a longitude and a latitude in degrees")]
    Vertex,
}

/// Loads the grid file `path`.
///
/// # Errors
/// Where it cannot be read or used, see [`GridError`]. Faults that do no harm to a lookup, such as
/// overlaps, are `check`'s.
pub fn load(path: &Path) -> Result<LoadedGrid, GridError> {
    from_bytes(path, &read(path)?)
}

/// Loads the content of the grid file `path`.
pub(super) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<LoadedGrid, GridError> {
    let mut file = parse(path, bytes)?;
    accept(path, &file)?;
    file.cells.sort_by(|one, other| one.code.cmp(&other.code));
    let GridFile { head, cells } = file;
    let grid = Arc::new(Grid::new(version(bytes), places(&head, &cells)));
    let polygons = (0..).map(Place).zip(cells.iter().map(|cell| cell.shape.clone())).collect();
    let located = Arc::new(LocatedGrid::new(grid, head.crs, polygons));
    Ok(LoadedGrid { located, head, cells })
}

/// Reads a file's bytes.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, GridError> {
    std::fs::read(path).map_err(|source| GridError::Read { path: path.to_owned(), source })
}

/// Reads a grid without judging it.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<GridFile, GridError> {
    GridFile::parse(bytes).map_err(|source| GridError::Parse { path: path.to_owned(), source })
}

/// The first 128 bits of the content's SHA-256.
fn version(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn accept(path: &Path, file: &GridFile) -> Result<(), GridError> {
    if file.cells.is_empty() {
        return Err(GridError::Empty { path: path.to_owned() });
    }
    let mut first_with: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, cell) in (1..).zip(&file.cells) {
        let refuse = |problem| GridError::Cell {
            path: path.to_owned(),
            number,
            code: cell.code.clone(),
            problem,
        };
        accept_cell(&file.head, cell).map_err(refuse)?;
        if let Some(first) = first_with.insert(&cell.code, number) {
            return Err(refuse(CellProblem::Repeated { first }));
        }
    }
    Ok(())
}

fn accept_cell(head: &GridHead, cell: &Cell) -> Result<(), CellProblem> {
    use geo::CoordsIter;
    if !head.layout.is_code(&cell.code, Level::Cell) {
        return Err(CellProblem::Code);
    }
    if cell.area_m2.is_some_and(|area_m2| area_m2 <= 0.0) {
        return Err(CellProblem::Area);
    }
    let on_globe = |at: geo::Coord<f64>| at.x.abs() <= 180.0 && at.y.abs() <= 90.0;
    if cell.shape.coords_iter().all(on_globe) { Ok(()) } else { Err(CellProblem::Vertex) }
}

/// The cells in their order, then the levels above.
fn places(head: &GridHead, cells: &[Cell]) -> Vec<PlaceEntry> {
    let mut places: Vec<PlaceEntry> = cells.iter().map(cell_entry).collect();
    let mut below = 0..places.len();
    for level in [Level::Community, Level::Street, Level::District] {
        let first = places.len();
        for child in below {
            let code = head.layout.prefix(&places[child].code, level);
            // Below is in code order, so children of one parent are neighbours.
            if places.len() == first || places[places.len() - 1].code != code {
                let name = head.names.get(code).cloned().unwrap_or_default();
                let code = code.to_owned();
                places.push(PlaceEntry { code, name, level, parent: None, area_m2: 0.0 });
            }
            adopt(&mut places, child);
        }
        below = first..places.len();
    }
    places.push(PlaceEntry {
        code: head.city.code.clone(),
        name: head.city.name.clone(),
        level: Level::City,
        parent: None,
        area_m2: 0.0,
    });
    for district in below {
        adopt(&mut places, district);
    }
    places
}

fn cell_entry(cell: &Cell) -> PlaceEntry {
    PlaceEntry {
        code: cell.code.clone(),
        name: cell.name.clone(),
        level: Level::Cell,
        parent: None,
        area_m2: cell.area_m2.unwrap_or_else(|| area_m2(&cell.shape)),
    }
}

/// Makes the last place the parent of `child`.
fn adopt(places: &mut [PlaceEntry], child: usize) {
    let parent = places.len() - 1;
    places[parent].area_m2 += places[child].area_m2;
    let number = u32::try_from(parent).expect("fewer than 2^32 places");
    places[child].parent = Some(Place(number));
}

#[cfg(test)]
mod tests {
    use citycell_operators::plan::Crs;

    use super::*;

    const HEAD: &str = r#""citycell": {"crs": "gcj02", "city": {"code": "430100", "name": "长沙市"},
        "names": {"430102": "芙蓉区"}}"#;

    fn feature(code: &str, west: f64, more: &str) -> String {
        let east = west + 0.001;
        format!(
            r#"{{"type": "Feature", "properties": {{"code": "{code}"{more}}}, "geometry":
            {{"type": "Polygon", "coordinates": [[[{west}, 28.1], [{east}, 28.1, 7.0],
            [{east}, 28.101], [{west}, 28.101], [{west}, 28.1]]]}}}}"#
        )
    }

    fn load_text(text: &str) -> Result<LoadedGrid, GridError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("grid.geojson");
        std::fs::write(&path, text).expect("a file");
        load(&path)
    }

    fn collection(features: &[String]) -> String {
        let features = features.join(",");
        format!(r#"{{"type": "FeatureCollection", {HEAD}, "features": [{features}]}}"#)
    }

    #[test]
    fn places_are_numbered_level_by_level() {
        let grid = load_text(&collection(&[
            feature("430103001001001", 113.002, r#", "area_m2": 4000.5"#),
            feature("430102001002001", 113.001, r#", "area_m2": 2000"#),
            feature("430102001001002", 113.0, r#", "area_m2": 1000, "valid_from": "2026-01-31""#),
        ]))
        .expect("a grid");
        let places = grid.located.grid().places();
        let codes: Vec<_> = places.iter().map(|place| place.code.as_str()).collect();
        let expected = [
            "430102001001002",
            "430102001002001",
            "430103001001001",
            "430102001001",
            "430102001002",
            "430103001001",
            "430102001",
            "430103001",
            "430102",
            "430103",
            "430100",
        ];
        assert_eq!(codes, expected);
        let district = grid.located.grid().at_level(Place(1), Level::District).expect("a district");
        let district = grid.located.grid().entry(district);
        assert_eq!((district.name.as_str(), district.area_m2), ("芙蓉区", 3000.0));
        assert_eq!(places[10].area_m2, 7000.5);
        assert_eq!(places[10].parent, None);
        assert_eq!(grid.located.locate_point(113.0015, 28.1005, Crs::Gcj02), Some(Place(1)));
        assert_eq!(grid.located.locate_code("430103001001001"), Some(Place(2)));
        assert_eq!(grid.cells[0].valid_from, Some(jiff::civil::date(2026, 1, 31)));
    }

    #[test]
    fn an_area_that_is_not_stated_is_measured() {
        let grid =
            load_text(&collection(&[feature("430102001001001", 113.0, "")])).expect("a grid");
        let area_m2 = grid.located.grid().entry(Place(0)).area_m2;
        assert!((area_m2 - 98.2 * 110.8).abs() < 10.0, "{area_m2}");
    }

    #[test]
    fn the_version_changes_with_the_content() {
        let version = |name: &str| {
            let more = format!(r#", "name": "{name}""#);
            let text = collection(&[feature("430102001001001", 113.0, &more)]);
            load_text(&text).expect("a grid").located.grid().version().to_owned()
        };
        assert_eq!(version("a"), version("a"));
        assert_ne!(version("a"), version("b"));
        assert_eq!(version("a").len(), 32);
    }

    #[test]
    fn what_is_no_grid_is_refused_by_name() {
        let good = feature("430102001001001", 113.0, "");
        let with = |bad: String| collection(&[good.clone(), bad]);
        let cases = [
            (with(good.clone()), "feature 2 (cell 430102001001001): feature 1 has the same code"),
            (
                with(feature("43010200100100", 113.0, "")),
                "feature 2 (cell 43010200100100): the code",
            ),
            (
                with(feature("430102001001002", 113.0, r#", "area_m2": 0"#)),
                "area_m2 is not above 0",
            ),
            (with(feature("430102001001002", 999.0, "")), "a vertex is not"),
            (with(r#"{"type": "Feature"}"#.to_owned()), "feature 2: missing field `properties`"),
            (with(feature("430102001001002", 1.0, r#", "valid_to": "2026-13-01""#)), "is no date"),
            (with(good.replace("[113, 28.101],", "")), "has the same code"),
            (with(good.replace(", [113, 28.1]]", "]")), "is not closed"),
            (collection(&[]), "has no cells"),
            (with(good.clone()).replace("\"gcj02\"", "\"epsg\""), "unknown variant `epsg`"),
            (with(good.clone()).replace("\"citycell\"", "\"other\""), "missing field `citycell`"),
            ("[]".to_owned(), "invalid"),
        ];
        for (text, expected) in cases {
            let error = load_text(&text).expect_err(expected);
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let message = format!("{error}: {}", cause.unwrap_or_default());
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        let text = collection(&[
            feature(
                "430102001001001",
                113.0,
                r#", "synthetic": ["street"], "valid_to": "2027-01-01""#,
            ),
            feature("430102001001002", 113.001, r#", "name": "b""#),
        ]);
        let file = GridFile::parse(text.as_bytes()).expect("a grid");
        let mut written = Vec::new();
        file.write(&mut written).expect("a vector takes everything");
        assert_eq!(GridFile::parse(&written).expect("a grid"), file);
    }

    #[test]
    fn a_simulated_district_is_a_grid_whose_events_stand_in_the_cells_they_name() {
        let config = citycell_simulator::SimulatorConfig::default();
        let mut city = citycell_simulator::City::new(1, config).expect("the defaults make a city");
        let loaded = load_text(&city.district().to_geojson().to_string()).expect("a grid");
        let places = loaded.located.grid().places();
        // 400 cells in 16 communities of one street of one district of the city.
        assert_eq!(places.len(), 400 + 16 + 3);
        for record in city.next_batch(city.now_ms() + 2_000) {
            if record.planted != citycell_simulator::Planted::OnTime {
                continue;
            }
            let event: serde_json::Value =
                serde_json::from_slice(&record.payload.expect("an event")).expect("JSON");
            let number = |name: &str| event[name].as_f64().expect("a number");
            let is_air = record.topic == citycell_simulator::Stream::Environment.topic();
            let crs = if is_air { Crs::Wgs84 } else { Crs::Gcj02 };
            let by_point = loaded.located.locate_point(number("lon"), number("lat"), crs);
            let by_code = loaded.located.locate_code(event["gridCode"].as_str().expect("a code"));
            assert!(by_point.is_some() && by_point == by_code, "{event}");
        }
    }
}
