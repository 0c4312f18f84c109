//! Vertices as whole numbers, and the lines of the unit grid between them.
//!
//! A vertex is a pair of whole billionths of a degree (0.1 mm), so that two cells either share a
//! vertex or do not, and every side of every line is decided exactly.

use geo::{Coord, LineString};

const UNITS_PER_DEGREE: f64 = 1e9;

/// A vertex in billionths of a degree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Point {
    pub(crate) x: i64,
    pub(crate) y: i64,
}

/// A border with the interior on its left.
pub(crate) type Segment = (Point, Point);

/// A square's column and row.
pub(crate) type Square = (i64, i64);

impl Point {
    /// What lies beyond a whole turn, and so on no globe, is taken back to it: no sum of two points
    /// outgrows its number.
    pub(crate) fn from_degrees(at: Coord<f64>) -> Self {
        let units = |degrees: f64| (degrees.clamp(-360.0, 360.0) * UNITS_PER_DEGREE).round() as i64;
        Self { x: units(at.x), y: units(at.y) }
    }

    pub(crate) fn degrees(self) -> Coord<f64> {
        Coord { x: self.x as f64 / UNITS_PER_DEGREE, y: self.y as f64 / UNITS_PER_DEGREE }
    }

    /// The point in halves of the unit, in which middles are whole.
    fn doubled(self) -> Self {
        Self { x: 2 * self.x, y: 2 * self.y }
    }
}

/// The middle of a segment, in halves of the unit.
pub(crate) fn middle((from, to): Segment) -> Point {
    Point { x: from.x + to.x, y: from.y + to.y }
}

/// Twice the signed area of the triangle: positive if `c` is left of the way from `a` to `b`.
pub(crate) fn cross(a: Point, b: Point, c: Point) -> i128 {
    let (abx, aby) = (i128::from(b.x - a.x), i128::from(b.y - a.y));
    let (acx, acy) = (i128::from(c.x - a.x), i128::from(c.y - a.y));
    abx * acy - aby * acx
}

/// Whether a point, in halves of the unit, lies within the segments' odd parity; borders as in
/// `operators::locate`.
pub(crate) fn is_inside<'a>(
    segments: impl IntoIterator<Item = &'a Segment>,
    doubled: Point,
) -> bool {
    let crossed = |segment: &&Segment| {
        let (from, to) = (segment.0.doubled(), segment.1.doubled());
        let (lower, upper) = if from.y <= to.y { (from, to) } else { (to, from) };
        lower.y <= doubled.y && doubled.y < upper.y && cross(lower, upper, doubled) > 0
    };
    segments.into_iter().filter(crossed).count() % 2 == 1
}

/// A ring as points, without repeating the first one at the end and without standing still.
pub(crate) fn ring_of(ring: &LineString<f64>) -> Vec<Point> {
    let mut points: Vec<Point> = ring.0.iter().map(|at| Point::from_degrees(*at)).collect();
    points.dedup();
    while points.len() > 1 && points.first() == points.last() {
        points.pop();
    }
    points
}

/// Lines at equal distances, from an origin in the south-west.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lattice {
    pub(crate) origin: Point,
    pub(crate) step: Point,
}

impl Lattice {
    pub(crate) fn column(&self, x: i64) -> i64 {
        (x - self.origin.x).div_euclid(self.step.x)
    }

    pub(crate) fn row(&self, y: i64) -> i64 {
        (y - self.origin.y).div_euclid(self.step.y)
    }

    /// The south-western corner of a square.
    pub(crate) fn corner(&self, (column, row): Square) -> Point {
        Point { x: self.origin.x + column * self.step.x, y: self.origin.y + row * self.step.y }
    }

    pub(crate) fn is_on_column_line(&self, x: i64) -> bool {
        (x - self.origin.x).rem_euclid(self.step.x) == 0
    }

    pub(crate) fn is_on_row_line(&self, y: i64) -> bool {
        (y - self.origin.y).rem_euclid(self.step.y) == 0
    }

    /// The segment's ends and where it crosses lines, in order.
    ///
    /// Both directions give the same points, so that two regions keep sharing what they shared;
    /// rounding keeps the order, so that each part lies within one square.
    pub(crate) fn split(&self, (from, to): Segment) -> Vec<Point> {
        let (low, high) = if from <= to { (from, to) } else { (to, from) };
        let mut points = vec![low, high];
        for column in self.column(low.x) + 1..=self.column(high.x) {
            let x = self.corner((column, 0)).x;
            if low.x < x && x < high.x {
                points.push(Point { x, y: between((low.x, low.y), (high.x, high.y), x) });
            }
        }
        let (south, north) = if low.y <= high.y { (low, high) } else { (high, low) };
        for row in self.row(south.y) + 1..=self.row(north.y) {
            let y = self.corner((0, row)).y;
            if south.y < y && y < north.y {
                points.push(Point { x: between((south.y, south.x), (north.y, north.x), y), y });
            }
        }
        let falls = low.y > high.y;
        points.sort_by_key(|point| (point.x, if falls { -point.y } else { point.y }));
        points.dedup();
        if from > to {
            points.reverse();
        }
        points
    }

    /// The square in which a part of a border lies; along a line, the one to its left.
    pub(crate) fn square_left_of(&self, segment: Segment) -> Square {
        let (from, to) = segment;
        let lattice = Self { origin: self.origin.doubled(), step: self.step.doubled() };
        let at = middle(segment);
        let (column, row) = (lattice.column(at.x), lattice.row(at.y));
        if from.x == to.x && to.y > from.y && self.is_on_column_line(from.x) {
            (column - 1, row)
        } else if from.y == to.y && to.x < from.x && self.is_on_row_line(from.y) {
            (column, row - 1)
        } else {
            (column, row)
        }
    }
}

/// The second coordinate where the first one is `at`, rounded to the nearest unit.
fn between(from: (i64, i64), to: (i64, i64), at: i64) -> i64 {
    let (run, rise) = (i128::from(to.0 - from.0), i128::from(to.1 - from.1));
    let rounded = (2 * rise * i128::from(at - from.0) + run).div_euclid(2 * run);
    from.1 + i64::try_from(rounded).expect("between two whole numbers of 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_border_is_split_at_lines_in_both_directions_alike() {
        let lattice = Lattice { origin: Point { x: 0, y: 0 }, step: Point { x: 10, y: 10 } };
        let (from, to) = (Point { x: 1, y: 28 }, Point { x: 25, y: 3 });
        let there = lattice.split((from, to));
        let mut back = lattice.split((to, from));
        back.reverse();
        assert_eq!(there, back);
        assert_eq!(there.len(), 6);
        for part in there.windows(2) {
            let (column, row) = lattice.square_left_of((part[0], part[1]));
            let corner = lattice.corner((column, row));
            for point in part {
                assert!((corner.x..=corner.x + 10).contains(&point.x), "{part:?}");
                assert!((corner.y..=corner.y + 10).contains(&point.y), "{part:?}");
            }
        }
    }
}
