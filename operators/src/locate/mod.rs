//! Events to cells: by code, or by the polygon that a point lies in.
//!
//! Points are transformed into the grid's coordinate system, never polygons: a border keeps exactly
//! the vertices that both its cells were given. An event that no cell takes has no place; what
//! becomes of it is not decided here.

mod codes;
mod coordinates;
mod edge;
mod index;
mod raster;

use std::sync::Arc;

use arrow::array::{Float64Array, StringArray};
use citycell_schemas::{Grid, Place};
use geo::MultiPolygon;

use crate::plan::Crs;

pub use codes::CodeIndex;
pub use coordinates::transform;
pub use index::CellIndex;

/// A grid whose cells can be found.
#[derive(Debug)]
pub struct LocatedGrid {
    grid: Arc<Grid>,
    crs: Crs,
    cells: CellIndex,
    codes: CodeIndex,
}

impl LocatedGrid {
    /// `grid` with the polygons of its cells, whose vertices are (longitude, latitude) in `crs`.
    #[must_use]
    pub fn new(grid: Arc<Grid>, crs: Crs, polygons: Vec<(Place, MultiPolygon<f64>)>) -> Self {
        let codes = CodeIndex::new(&grid);
        Self { grid, crs, cells: CellIndex::new(polygons), codes }
    }

    /// The grid's places.
    #[must_use]
    pub fn grid(&self) -> &Arc<Grid> {
        &self.grid
    }

    /// The coordinate system of its polygons.
    #[must_use]
    pub fn crs(&self) -> Crs {
        self.crs
    }

    /// The cell in which a point of `crs` lies.
    #[inline]
    #[must_use]
    pub fn locate_point(&self, lon: f64, lat: f64, crs: Crs) -> Option<Place> {
        let (x, y) = transform(lon, lat, crs, self.crs)?;
        self.cells.locate(x, y)
    }

    /// The cell of this code.
    #[must_use]
    pub fn locate_code(&self, code: &str) -> Option<Place> {
        self.codes.locate(code.as_bytes())
    }
}

/// Finds the cells of whole columns.
#[derive(Clone, Debug)]
pub struct Locator {
    grid: Arc<LocatedGrid>,
}

impl Locator {
    /// A locator over `grid`.
    #[must_use]
    pub fn new(grid: Arc<LocatedGrid>) -> Self {
        Self { grid }
    }

    /// The cell of each point; none where a coordinate is null, no number or outside the grid.
    ///
    /// # Panics
    /// If the columns differ in length, which columns of one batch never do.
    #[must_use]
    pub fn locate_points(
        &self,
        lon: &Float64Array,
        lat: &Float64Array,
        crs: Crs,
    ) -> Vec<Option<Place>> {
        assert_eq!(lon.len(), lat.len(), "longitudes and latitudes come in pairs");
        lon.iter().zip(lat).map(|(lon, lat)| self.grid.locate_point(lon?, lat?, crs)).collect()
    }

    /// The cell of each code; none where it is null or no cell's.
    #[must_use]
    pub fn locate_codes(&self, codes: &StringArray) -> Vec<Option<Place>> {
        codes.iter().map(|code| self.grid.locate_code(code?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use citycell_schemas::Level;
    use citycell_schemas::grid::PlaceEntry;
    use geo::{Rect, coord};

    use super::*;

    fn two_cells() -> Locator {
        let entry = |code: &str, level| PlaceEntry {
            code: code.to_owned(),
            name: String::new(),
            level,
            parent: None,
            area_m2: 1.0,
        };
        let places = vec![
            entry("001", Level::Cell),
            entry("002", Level::Cell),
            entry("9", Level::Community),
        ];
        let square = |x: f64| {
            let rect = Rect::new(coord! {x: x, y: 28.0}, coord! {x: x + 1.0, y: 29.0});
            MultiPolygon::from(rect.to_polygon())
        };
        let grid = Arc::new(Grid::new("1".to_owned(), places));
        let polygons = vec![(Place(0), square(112.0)), (Place(1), square(113.0))];
        Locator::new(Arc::new(LocatedGrid::new(grid, Crs::Wgs84, polygons)))
    }

    #[test]
    fn points_are_moved_into_the_grid() {
        // The border is at 113 degrees in WGS 84 and about 0.0055 degrees further east in GCJ-02.
        let lon = Float64Array::from(vec![Some(113.003), Some(113.007), None, Some(f64::NAN)]);
        let lat = Float64Array::from(vec![Some(28.5), Some(28.5), Some(28.5), Some(28.5)]);
        let locator = two_cells();
        let gcj02 = locator.locate_points(&lon, &lat, Crs::Gcj02);
        assert_eq!(gcj02, vec![Some(Place(0)), Some(Place(1)), None, None]);
        let wgs84 = locator.locate_points(&lon, &lat, Crs::Wgs84);
        assert_eq!(wgs84, vec![Some(Place(1)), Some(Place(1)), None, None]);
    }

    #[test]
    fn only_codes_of_cells_count() {
        let codes = StringArray::from(vec![Some("002"), Some("9"), None, Some("2"), Some("")]);
        assert_eq!(two_cells().locate_codes(&codes), vec![Some(Place(1)), None, None, None, None]);
    }
}
