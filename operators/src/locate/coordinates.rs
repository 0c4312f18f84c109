//! Points from one coordinate system to another.
//!
//! The formulas are those in public use for GCJ-02 and BD-09 (`coordtransform`, whose published
//! pairs the tests below repeat). Their inverses are iterated; going back and forth errs by less
//! than a millimetre.
//!
//! Who says that points are GCJ-02 has said that they are shifted: no outline of where the shift
//! applies decides otherwise, since near that outline an approximate one would be wrong by half a
//! kilometre. A formula that is applied far from China gives a place far from every grid.

use coordtransform::{
    bd09_to_gcj02, gcj02_to_bd09, gcj02_to_wgs84_in_mainland, wgs84_to_gcj02_in_mainland,
};

use crate::plan::Crs;

/// The point of `from` in `to`; none for NaN, infinities and what is on no globe.
#[inline]
#[must_use]
pub fn transform(lon: f64, lat: f64, from: Crs, to: Crs) -> Option<(f64, f64)> {
    let valid = lon.abs() <= 180.0 && lat.abs() <= 90.0;
    valid.then(|| match (from, to) {
        (Crs::Wgs84, Crs::Wgs84) | (Crs::Gcj02, Crs::Gcj02) | (Crs::Bd09, Crs::Bd09) => (lon, lat),
        (_, Crs::Gcj02) => to_gcj02(lon, lat, from),
        (_, Crs::Wgs84) => chain(to_gcj02(lon, lat, from), gcj02_to_wgs84_in_mainland),
        (_, Crs::Bd09) => chain(to_gcj02(lon, lat, from), gcj02_to_bd09),
    })
}

/// GCJ-02 lies between the other two.
fn to_gcj02(lon: f64, lat: f64, from: Crs) -> (f64, f64) {
    match from {
        Crs::Wgs84 => wgs84_to_gcj02_in_mainland(lon, lat),
        Crs::Gcj02 => (lon, lat),
        Crs::Bd09 => bd09_to_gcj02(lon, lat),
    }
}

fn chain(point: (f64, f64), step: fn(f64, f64) -> (f64, f64)) -> (f64, f64) {
    step(point.0, point.1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SYSTEMS: [Crs; 3] = [Crs::Wgs84, Crs::Gcj02, Crs::Bd09];

    /// The pair that nearly every implementation's documentation gives, rounded as they round it.
    #[test]
    fn published_pairs() {
        let published = [
            (Crs::Wgs84, Crs::Gcj02, (116.41024449916938, 39.91640428150164)),
            (Crs::Gcj02, Crs::Wgs84, (116.39775550083061, 39.91359571849836)),
            (Crs::Gcj02, Crs::Bd09, (116.41036949371029, 39.92133699351021)),
            (Crs::Bd09, Crs::Gcj02, (116.39762729119315, 39.90865673957631)),
        ];
        for (from, to, expected) in published {
            let found = transform(116.404, 39.915, from, to).expect("a point on the globe");
            // The published inverses are single steps: they err by up to a metre or two.
            assert!(metres_apart(found, expected) < 2.0, "{from:?} to {to:?}: {found:?}");
        }
    }

    #[test]
    fn what_is_on_no_globe_is_nowhere() {
        for (lon, lat) in [(f64::NAN, 0.0), (0.0, f64::INFINITY), (180.1, 0.0), (0.0, -90.1)] {
            assert_eq!(transform(lon, lat, Crs::Gcj02, Crs::Wgs84), None);
        }
    }

    proptest! {
        #[test]
        fn back_and_forth_is_the_same_point(lon in 73.0..135.0f64, lat in 18.0..54.0f64) {
            for from in SYSTEMS {
                for to in SYSTEMS {
                    let there = transform(lon, lat, from, to).expect("a point on the globe");
                    let back = transform(there.0, there.1, to, from).expect("a point on the globe");
                    prop_assert!(metres_apart(back, (lon, lat)) < 0.001, "{from:?} to {to:?}");
                }
            }
        }
    }

    fn metres_apart(one: (f64, f64), other: (f64, f64)) -> f64 {
        let east = (one.0 - other.0) * one.1.to_radians().cos();
        east.hypot(one.1 - other.1) * 111_195.0
    }
}
