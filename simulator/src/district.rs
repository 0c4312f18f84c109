//! The district: a rectangle of square unit grid cells with codes like Changsha's.
//!
//! Nothing in it is real: the district's six digits belong to no district, and every feature lists
//! all its levels as `synthetic`. Communities are 5 by 5 cells, streets 4 by 4 communities. Within each level places
//! are numbered from west to east, then from north to south.

use rand::Rng;
use serde_json::{Value, json};

/// The code of the district that does not exist; 4301 is Changsha.
const DISTRICT_CODE: &str = "430199";

/// Changsha's own code, which its districts' codes begin with but for the last two digits.
const CITY_CODE: &str = "430100";

/// The length of a cell's side.
const SIDE_M: f64 = 100.0;

/// One degree of latitude on the sphere that is good enough for drawing.
const METRES_PER_DEGREE: f64 = 111_194.93;

const COMMUNITY_CELLS: u32 = 5;
const STREET_CELLS: u32 = 20;

/// One cell: its code and where it lies in its district.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its 15 digits: 6 district, 3 street, 3 community, 3 cell.
    pub code: String,
    column: u32,
    row: u32,
}

/// A simulated district in WGS 84.
#[derive(Clone, Debug, PartialEq)]
pub struct District {
    cells: Vec<Cell>,
    west: f64,
    north: f64,
    side_lon: f64,
    side_lat: f64,
}

impl District {
    /// A district of at least `cells` cells near Changsha's centre.
    pub(crate) fn draw(cells: u32, rng: &mut impl Rng) -> Self {
        let columns = f64::from(cells).sqrt().ceil() as u32;
        let rows = cells.div_ceil(columns);
        let west = rounded(112.9 + rng.random_range(0.0..0.1));
        let north = rounded(28.3 + rng.random_range(0.0..0.1));
        let cells = (0..rows)
            .flat_map(|row| (0..columns).map(move |column| (column, row)))
            .map(|(column, row)| Cell { code: code(column, row, columns), column, row })
            .collect();
        let side_lat = SIDE_M / METRES_PER_DEGREE;
        Self { cells, west, north, side_lon: side_lat / north.to_radians().cos(), side_lat }
    }

    /// Its cells, row by row from the north-west.
    #[must_use]
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The point of `cell` at these fractions of its side, from its north-west corner, as
    /// (longitude, latitude) in WGS 84.
    #[must_use]
    pub fn point_in(&self, cell: &Cell, east: f64, south: f64) -> (f64, f64) {
        self.point(f64::from(cell.column) + east, f64::from(cell.row) + south)
    }

    /// The district as a grid file: GeoJSON, one feature per cell. Neighbours share their vertices
    /// exactly.
    #[must_use]
    pub fn to_geojson(&self) -> Value {
        let features: Vec<Value> = self.cells.iter().map(|cell| self.feature(cell)).collect();
        json!({
            "type": "FeatureCollection",
            "citycell": {
                "crs": "wgs84",
                "layout": [6, 3, 3, 3],
                "city": { "code": CITY_CODE, "name": "simulated city" },
                "names": { DISTRICT_CODE: "simulated district" },
            },
            "features": features,
        })
    }

    fn feature(&self, cell: &Cell) -> Value {
        // Counter-clockwise, as GeoJSON wants an outer ring, and closed.
        let corners = [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0)];
        let ring: Vec<Value> = corners
            .iter()
            .map(|(east, south)| self.point_in(cell, *east, *south))
            .map(|(lon, lat)| json!([lon, lat]))
            .collect();
        json!({
            "type": "Feature",
            "properties": {
                "code": cell.code,
                "name": "",
                "valid_from": "2020-01-01",
                "synthetic": ["cell", "community", "street", "district"],
            },
            "geometry": { "type": "Polygon", "coordinates": [ring] },
        })
    }

    fn point(&self, columns_east: f64, rows_south: f64) -> (f64, f64) {
        let lon = self.west + columns_east * self.side_lon;
        let lat = self.north - rows_south * self.side_lat;
        (rounded(lon), rounded(lat))
    }
}

/// Seven decimals of a degree are a centimetre.
pub(crate) fn rounded(degrees: f64) -> f64 {
    (degrees * 1e7).round() / 1e7
}

fn code(column: u32, row: u32, columns: u32) -> String {
    let street = number(column / STREET_CELLS, row / STREET_CELLS, columns.div_ceil(STREET_CELLS));
    let within = |position: u32| position % STREET_CELLS / COMMUNITY_CELLS;
    let community = number(within(column), within(row), STREET_CELLS / COMMUNITY_CELLS);
    let cell = number(column % COMMUNITY_CELLS, row % COMMUNITY_CELLS, COMMUNITY_CELLS);
    format!("{DISTRICT_CODE}{street:03}{community:03}{cell:03}")
}

/// The number, from 1, of what lies at `column` and `row` among rows of `columns`.
const fn number(column: u32, row: u32, columns: u32) -> u32 {
    row * columns + column + 1
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::District;

    fn draw(cells: u32) -> District {
        District::draw(cells, &mut StdRng::seed_from_u64(1))
    }

    #[test]
    fn codes_have_fifteen_digits_and_never_repeat() {
        for cells in [1, 7, 400, 10_000] {
            let district = draw(cells);
            assert!(district.cells().len() >= cells as usize);
            let codes: HashSet<_> = district.cells().iter().map(|cell| &cell.code).collect();
            assert_eq!(codes.len(), district.cells().len());
            assert!(codes.iter().all(|code| code.len() == 15 && code.starts_with("430199")));
            assert!(codes.iter().all(|code| code.bytes().all(|digit| digit.is_ascii_digit())));
        }
    }

    #[test]
    fn cells_are_numbered_west_to_east_then_north_to_south() {
        let district = draw(400);
        let codes: Vec<_> = district.cells().iter().map(|cell| cell.code.as_str()).collect();
        assert_eq!(codes[0], "430199001001001");
        assert_eq!(codes[4], "430199001001005");
        assert_eq!(codes[5], "430199001002001");
        assert_eq!(codes[20], "430199001001006");
        assert_eq!(codes[399], "430199001016025");
    }

    #[test]
    fn neighbours_share_their_corners_exactly() {
        let district = draw(25);
        let [first, second] = [&district.cells()[0], &district.cells()[1]];
        assert_eq!(district.point_in(first, 1.0, 0.0), district.point_in(second, 0.0, 0.0));
        assert_eq!(district.point_in(first, 1.0, 1.0), district.point_in(second, 0.0, 1.0));
    }

    #[test]
    fn the_geojson_names_every_cell_and_says_that_it_is_synthetic() {
        let geojson = draw(4).to_geojson();
        let features = geojson["features"].as_array().unwrap();
        assert_eq!(features.len(), 4);
        let ring = features[0]["geometry"]["coordinates"][0].as_array().unwrap();
        assert_eq!((ring.len(), &ring[0]), (5, &ring[4]));
        assert!(features.iter().all(|feature| feature["properties"]["synthetic"][0] == "cell"));
    }
}
