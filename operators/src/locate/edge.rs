//! One border between two vertices, and the rule by which points on it find their side.

use geo::algorithm::kernels::{Kernel, Orientation, RobustKernel};
use geo::{Coord, Line};

/// The relative error of a 2x2 determinant of differences (Shewchuk 1997, `ccwerrboundA`).
const DETERMINANT_ERROR: f64 = (3.0 + 16.0 * f64::EPSILON / 2.0) * f64::EPSILON / 2.0;

/// A border from its lower to its upper end.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(crate) struct Edge {
    pub(crate) lower: Coord<f64>,
    pub(crate) upper: Coord<f64>,
}

impl Edge {
    pub(crate) fn new(line: Line<f64>) -> Self {
        if line.start.y <= line.end.y {
            Self { lower: line.start, upper: line.end }
        } else {
            Self { lower: line.end, upper: line.start }
        }
    }

    /// Whether it is horizontal: then no eastward ray crosses it.
    pub(crate) fn is_level(&self) -> bool {
        self.lower.y == self.upper.y
    }

    /// Whether a ray from the point to the east crosses the edge.
    ///
    /// The lower end belongs to the edge, the upper does not, and a point on the edge lies east of
    /// it. That is where the point would be if it were moved to the east by next to nothing, and
    /// to the north by even less; and a moved point is on no border.
    #[inline]
    pub(crate) fn crossed_from(&self, x: f64, y: f64) -> bool {
        self.lower.y <= y && y < self.upper.y && self.is_west(x, y)
    }

    #[inline]
    fn is_west(&self, x: f64, y: f64) -> bool {
        let left = (self.lower.x - x) * (self.upper.y - y);
        let right = (self.lower.y - y) * (self.upper.x - x);
        let determinant = left - right;
        if determinant.abs() > DETERMINANT_ERROR * (left.abs() + right.abs()) {
            return determinant > 0.0;
        }
        self.is_exactly_west(Coord { x, y })
    }

    #[cold]
    fn is_exactly_west(&self, point: Coord<f64>) -> bool {
        RobustKernel::orient2d(self.lower, self.upper, point) == Orientation::CounterClockwise
    }
}
