//! The city of a case: the cells that it names, and what lies above them.
//!
//! Each cell is a square of its own and 10,000 m² large, the size of a unit grid cell. A code of the
//! default layout (15 digits) has its community, street and district above it, and one city above
//! all; another code has nothing above it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use citycell_operators::{
    locate::LocatedGrid,
    plan::{Crs, Location, Plan},
};
use citycell_schemas::{EventSchema, Grid, Level, Place, grid::PlaceEntry};
use geo::{MultiPolygon, Rect, coord};
use serde_json::{Map, Value, json};

use crate::{
    config::{GivenRecord, TestCase},
    grid::layout::Layout,
    pipeline::Pipeline,
};

/// The area of a cell.
const CELL_AREA_M2: f64 = 10_000.0;
/// The side of a cell, unless the schema's range of coordinates is too narrow for all.
const SIDE_DEGREES: f64 = 0.001;

/// The cells of a case, and how an event is placed in one.
pub(super) struct City {
    /// The grid.
    pub(super) grid: Arc<LocatedGrid>,
    location: Location,
    centres: BTreeMap<String, (f64, f64)>,
}

impl City {
    /// The city that `case` needs.
    pub(super) fn of(pipeline: &Pipeline, case: &TestCase) -> Self {
        let location = pipeline.plan.location.clone();
        let codes = codes(&pipeline.plan, case);
        let crs = match &location {
            Location::Point { crs, .. } => *crs,
            Location::Cell { .. } => Crs::Wgs84,
        };
        let squares = squares(&location, &pipeline.schema, codes.len());
        let polygon = |square: &Rect<f64>| MultiPolygon::from(square.to_polygon());
        let polygons = (0..).map(Place).zip(squares.iter().map(polygon)).collect();
        let centres = squares.iter().map(|square| square.center().x_y());
        let centres = codes.iter().cloned().zip(centres).collect();
        let grid = Arc::new(Grid::new("case".to_owned(), places(&codes, case)));
        Self { grid: Arc::new(LocatedGrid::new(grid, crs, polygons)), location, centres }
    }

    /// Makes the event lie in the cell of this code.
    pub(super) fn put(&self, event: &mut Map<String, Value>, code: &str) {
        match &self.location {
            Location::Cell { column } => {
                event.insert(column.clone(), json!(code));
            }
            Location::Point { lon, lat, .. } => {
                if let Some((x, y)) = self.centres.get(code) {
                    event.insert(lon.clone(), json!(x));
                    event.insert(lat.clone(), json!(y));
                }
            }
        }
    }
}

/// The codes of all cells that the case names.
fn codes(plan: &Plan, case: &TestCase) -> BTreeSet<String> {
    let own = |record: &GivenRecord| match (record, &plan.location) {
        (GivenRecord::Event(event), Location::Cell { column }) => {
            event.get(column)?.as_str().map(str::to_owned)
        }
        _ => None,
    };
    let given = case.given.iter().flat_map(|given| [given.cell.clone(), own(&given.record)]);
    let expected = case.expect.iter().filter(|row| row.level == Level::Cell);
    given.flatten().chain(expected.map(|row| row.place.clone())).collect()
}

/// One square per cell, from west to east, in the middle of where the schema allows coordinates.
fn squares(location: &Location, schema: &EventSchema, count: usize) -> Vec<Rect<f64>> {
    let (lon, lat) = match location {
        Location::Point { lon, lat, .. } => (Some(lon), Some(lat)),
        Location::Cell { .. } => (None, None),
    };
    let limits = |field: Option<&String>, globe: f64| {
        let range = field.and_then(|name| schema.field(name)).and_then(|field| field.range);
        let min = range.and_then(|range| range.min).unwrap_or(-globe);
        let max = range.and_then(|range| range.max).unwrap_or(globe);
        (min.max(-globe), max.min(globe))
    };
    let ((west, east), (south, north)) = (limits(lon, 180.0), limits(lat, 90.0));
    let width = SIDE_DEGREES.min((east - west) / count.max(1) as f64);
    let height = SIDE_DEGREES.min(north - south);
    let first = f64::midpoint(west, east) - width * count as f64 / 2.0;
    let bottom = f64::midpoint(south, north) - height / 2.0;
    let square = |number: usize| {
        let left = first + width * number as f64;
        Rect::new(coord! { x: left, y: bottom }, coord! { x: left + width, y: bottom + height })
    };
    (0..count).map(square).collect()
}

/// The cells in the order of their codes, then everything above them.
fn places(codes: &BTreeSet<String>, case: &TestCase) -> Vec<PlaceEntry> {
    let layout = Layout::default();
    let entry = |code: &str, level| PlaceEntry {
        code: code.to_owned(),
        name: String::new(),
        level,
        parent: None,
        area_m2: if level == Level::Cell { CELL_AREA_M2 } else { 0.0 },
    };
    let mut places: Vec<PlaceEntry> = codes.iter().map(|code| entry(code, Level::Cell)).collect();
    let city = case.expect.iter().find(|row| row.level == Level::City);
    for cell in 0..codes.len() {
        let code = places[cell].code.clone();
        if !layout.is_code(&code, Level::Cell) {
            continue;
        }
        let mut child = cell;
        for level in [Level::Community, Level::Street, Level::District, Level::City] {
            let above = match level {
                Level::City => city.map_or(&code[..4], |row| &row.place),
                _ => layout.prefix(&code, level),
            };
            let known = places.iter().position(|one| one.level == level && one.code == above);
            let parent = known.unwrap_or_else(|| {
                places.push(entry(above, level));
                places.len() - 1
            });
            places[parent].area_m2 += CELL_AREA_M2;
            places[child].parent = u32::try_from(parent).ok().map(Place);
            child = parent;
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_the_default_layout_have_all_levels_above_them() {
        let codes = ["430102001001001", "430102001002001", "own"].map(str::to_owned).into();
        let case = TestCase { name: String::new(), line: 1, given: Vec::new(), expect: Vec::new() };
        let grid = Grid::new("case".to_owned(), places(&codes, &case));
        let above = |level| {
            (0..3).map(|cell| Some(grid.at_level(Place(cell), level)?.0)).collect::<Vec<_>>()
        };
        let code = |place: Option<u32>| grid.entry(Place(place.expect("a place"))).code.as_str();
        assert_eq!(code(above(Level::Community)[1]), "430102001002");
        let streets = above(Level::Street);
        assert_eq!((streets[0], streets[2]), (streets[1], None));
        assert_eq!(code(above(Level::City)[0]), "4301");
        assert_eq!(grid.entry(Place(streets[0].expect("a street"))).area_m2, 20_000.0);
    }
}
