//! What a grid has in it, for people and for programs.

use std::fmt;

use citycell_operators::plan::Crs;
use citycell_schemas::{Level, Place};
use geo::{BoundingRect, Rect};
use serde::Serialize;

use super::load::LoadedGrid;

/// A grid as a whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GridSummary {
    /// The city's name.
    pub city: String,
    /// The hash that names this version.
    pub version: String,
    /// The coordinate system of its vertices.
    pub crs: Crs,
    /// The levels, finest first.
    pub levels: Vec<LevelSummary>,
    /// West, south, east and north, in degrees.
    pub bounds: Option<[f64; 4]>,
    /// How many cells have codes of which a part was made up.
    pub cells_synthetic: usize,
}

/// One level.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LevelSummary {
    /// The level.
    pub level: Level,
    /// How many places it has.
    pub places: usize,
    /// Their area.
    pub area_m2: f64,
}

/// One cell with the places above it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellSummary {
    /// The cell first, the city last.
    pub places: Vec<PlaceSummary>,
    /// West, south, east and north, in degrees.
    pub bounds: Option<[f64; 4]>,
}

/// One place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlaceSummary {
    /// Its level.
    pub level: Level,
    /// Its code.
    pub code: String,
    /// Its name.
    pub name: String,
    /// Its area.
    pub area_m2: f64,
}

/// The grid as a whole.
#[must_use]
pub fn summary(grid: &LoadedGrid) -> GridSummary {
    let places = grid.located.grid().places();
    let level = |level: Level| {
        let of_level = || places.iter().filter(move |place| place.level == level);
        let area_m2 = of_level().map(|place| place.area_m2).sum();
        LevelSummary { level, places: of_level().count(), area_m2 }
    };
    let levels =
        [Level::Cell, Level::Community, Level::Street, Level::District, Level::City].map(level);
    let boxes = grid.cells.iter().filter_map(|cell| cell.shape.bounding_rect()).map(corners);
    GridSummary {
        city: grid.head.city.name.clone(),
        version: grid.located.grid().version().to_owned(),
        crs: grid.head.crs,
        levels: levels.to_vec(),
        bounds: boxes.reduce(|[west, south, east, north], other| {
            [west.min(other[0]), south.min(other[1]), east.max(other[2]), north.max(other[3])]
        }),
        cells_synthetic: grid.cells.iter().filter(|cell| !cell.synthetic.is_empty()).count(),
    }
}

/// One cell of the grid.
#[must_use]
pub fn cell(grid: &LoadedGrid, place: Place) -> CellSummary {
    let all = grid.located.grid();
    let places = std::iter::successors(Some(place), |place| all.entry(*place).parent)
        .map(|place| all.entry(place))
        .map(|entry| PlaceSummary {
            level: entry.level,
            code: entry.code.clone(),
            name: entry.name.clone(),
            area_m2: entry.area_m2,
        })
        .collect();
    let shape = grid.cells.get(place.0 as usize).map(|cell| &cell.shape);
    CellSummary { places, bounds: shape.and_then(|shape| shape.bounding_rect()).map(corners) }
}

fn corners(bounds: Rect<f64>) -> [f64; 4] {
    [bounds.min().x, bounds.min().y, bounds.max().x, bounds.max().y]
}

impl fmt::Display for GridSummary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{} (version {}, {:?})", self.city, self.version, self.crs)?;
        for level in &self.levels {
            let (name, area_km2) = (format!("{:?}", level.level), level.area_m2 / 1e6);
            writeln!(formatter, "{name:>10} {:>9} {area_km2:>12.3} km2", level.places)?;
        }
        if let Some([west, south, east, north]) = self.bounds {
            writeln!(formatter, "from ({west:.6}, {south:.6}) to ({east:.6}, {north:.6})")?;
        }
        write!(formatter, "{} cells have codes that were made up", self.cells_synthetic)
    }
}

impl fmt::Display for CellSummary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in &self.places {
            let level = format!("{:?}", place.level);
            writeln!(
                formatter,
                "{level:>10} {:15} {:14.2} m2 {}",
                place.code, place.area_m2, place.name
            )?;
        }
        let [west, south, east, north] = self.bounds.unwrap_or([f64::NAN; 4]);
        write!(formatter, "from ({west:.6}, {south:.6}) to ({east:.6}, {north:.6})")
    }
}
