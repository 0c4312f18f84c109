//! Metres and square metres on the WGS 84 ellipsoid, near one latitude.
//!
//! A degree's length is taken at the middle latitude of what is measured, the projection being
//! equirectangular there. Over a cell the error is below a millionth, over a city of one degree
//! below a thousandth. Coordinates in GCJ-02 and BD-09 are measured in the same way: their shift
//! varies by centimetres within a cell.

use geo::{Area, BoundingRect, MapCoords, MultiPolygon, coord};

const SEMI_MAJOR_M: f64 = 6_378_137.0;
const ECCENTRICITY_SQUARED: f64 = 6.694_379_990_141_3e-3;

/// How many metres a degree is, near one latitude.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DegreeLengths {
    pub(crate) east_m: f64,
    pub(crate) north_m: f64,
}

impl DegreeLengths {
    pub(crate) fn at(latitude: f64) -> Self {
        let (sin, cos) = latitude.to_radians().sin_cos();
        let flattened = 1.0 - ECCENTRICITY_SQUARED * sin * sin;
        let meridian = SEMI_MAJOR_M * (1.0 - ECCENTRICITY_SQUARED) / flattened.powf(1.5);
        let across = SEMI_MAJOR_M / flattened.sqrt();
        Self { east_m: (across * cos).to_radians(), north_m: meridian.to_radians() }
    }
}

/// The area of a shape whose vertices are in degrees.
pub(crate) fn area_m2(shape: &MultiPolygon<f64>) -> f64 {
    let Some(bounds) = shape.bounding_rect() else { return 0.0 };
    let centre = bounds.center();
    let degree = DegreeLengths::at(centre.y);
    let metres = |vertex: geo::Coord<f64>| {
        coord! {x: (vertex.x - centre.x) * degree.east_m, y: (vertex.y - centre.y) * degree.north_m}
    };
    shape.map_coords(metres).unsigned_area()
}

#[cfg(test)]
mod tests {
    use geo::{GeodesicArea, Rect};

    use super::*;

    #[test]
    fn areas_are_those_on_the_ellipsoid() {
        for (south, side, error_max) in [(28.2, 0.001, 1e-6), (28.2, 1.0, 1e-3), (52.0, 0.01, 1e-5)]
        {
            let corner = coord! {x: 113.0, y: south};
            let rect = Rect::new(corner, coord! {x: 113.0 + side, y: south + side});
            let shape = MultiPolygon::from(rect.to_polygon());
            let exact = shape.geodesic_area_unsigned();
            let error = (area_m2(&shape) - exact).abs() / exact;
            assert!(error < error_max, "{error} at {south}, {side} degrees");
        }
    }
}
