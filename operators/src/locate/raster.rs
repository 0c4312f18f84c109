//! The uniform raster of buckets that a point index lies on.
//!
//! A coordinate's column (row) never decreases as the coordinate grows. Whatever is said here of
//! columns and rows is therefore exact, however the product was rounded: a coordinate in a lower
//! column is the smaller one.

use geo::{Coord, Rect};

/// How far, in bucket sides, an edge may miss a bucket and still count as touching it.
const SLACK: f64 = 1e-3;

/// Buckets of equal size over a bounding box.
#[derive(Debug)]
pub(crate) struct Raster {
    bounds: Rect<f64>,
    side: f64,
    per_side: f64,
    columns: u32,
    rows: u32,
}

/// Columns or rows from the first to the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u32,
    pub(crate) last: u32,
}

impl Span {
    pub(crate) fn iter(self) -> std::ops::RangeInclusive<u32> {
        self.first..=self.last
    }
}

impl Raster {
    /// About `buckets` square buckets over `bounds`; at least one.
    pub(crate) fn new(bounds: Rect<f64>, buckets: usize) -> Self {
        let (width, height) = (bounds.width(), bounds.height());
        #[expect(clippy::cast_precision_loss, reason = "an approximate number of buckets will do")]
        let buckets = buckets.max(1) as f64;
        // A box without area still gets a row or a column of buckets.
        let side = (width * height / buckets).sqrt().max(width.max(height) / buckets);
        let side = if side > 0.0 { side } else { 1.0 };
        Self {
            bounds,
            side,
            per_side: side.recip(),
            columns: count(width, side),
            rows: count(height, side),
        }
    }

    pub(crate) fn buckets(&self) -> usize {
        self.columns as usize * self.rows as usize
    }

    /// The bucket of a point; none outside the bounding box and for NaN.
    pub(crate) fn bucket_of(&self, x: f64, y: f64) -> Option<usize> {
        let (min, max) = (self.bounds.min(), self.bounds.max());
        let inside = min.x <= x && x <= max.x && min.y <= y && y <= max.y;
        inside.then(|| self.bucket(self.column(x), self.row(y)))
    }

    pub(crate) fn bucket(&self, column: u32, row: u32) -> usize {
        row as usize * self.columns as usize + column as usize
    }

    pub(crate) fn column(&self, x: f64) -> u32 {
        (((x - self.bounds.min().x) * self.per_side) as u32).min(self.columns - 1)
    }

    pub(crate) fn row(&self, y: f64) -> u32 {
        (((y - self.bounds.min().y) * self.per_side) as u32).min(self.rows - 1)
    }

    pub(crate) fn columns_between(&self, west: f64, east: f64) -> Span {
        Span { first: self.column(west), last: self.column(east) }
    }

    pub(crate) fn rows_between(&self, south: f64, north: f64) -> Span {
        Span { first: self.row(south), last: self.row(north) }
    }

    pub(crate) fn centre(&self, column: u32, row: u32) -> Coord<f64> {
        let min = self.bounds.min();
        Coord {
            x: min.x + (f64::from(column) + 0.5) * self.side,
            y: min.y + (f64::from(row) + 0.5) * self.side,
        }
    }

    /// The columns that the part of the edge within `row` touches, or a little more than these.
    pub(crate) fn columns_in_row(&self, lower: Coord<f64>, upper: Coord<f64>, row: u32) -> Span {
        let floor = self.bounds.min().y + f64::from(row) * self.side;
        let slack = self.slack(lower, upper);
        let from = at_height(lower, upper, floor - slack);
        let to = at_height(lower, upper, floor + self.side + slack);
        self.columns_between(from.min(to) - slack, from.max(to) + slack)
    }

    /// More than any rounding error of [`at_height`], less than what makes a difference.
    fn slack(&self, lower: Coord<f64>, upper: Coord<f64>) -> f64 {
        let largest =
            [lower.x, lower.y, upper.x, upper.y].map(f64::abs).into_iter().fold(0.0, f64::max);
        SLACK * self.side + 1e-12 * largest
    }
}

fn count(length: f64, side: f64) -> u32 {
    ((length / side).ceil() as u32).max(1)
}

/// The edge's x at height `y`, or at its nearer end where it does not reach that height.
fn at_height(lower: Coord<f64>, upper: Coord<f64>, y: f64) -> f64 {
    if y <= lower.y {
        lower.x
    } else if y >= upper.y {
        upper.x
    } else {
        lower.x + (upper.x - lower.x) * ((y - lower.y) / (upper.y - lower.y))
    }
}
