//! Holes between cells.
//!
//! Two neighbours' common borders cancel each other. What remains is the grid's outer border, and a
//! ring with the clock around every hole.

use std::ops::RangeInclusive;

use ahash::AHashMap;
use geo::{BoundingRect, LineString, MultiPolygon, Polygon};

use super::{AREA_MIN_M2, BORDER_TOLERANCE_DEGREES, Fault, FaultKind};
use crate::grid::file::Cell;
use crate::grid::lattice::{Point, Segment, ring_of};
use crate::grid::metres::area_m2;
use crate::grid::rings::{Ring, area_twice, cancel, rings, segments_of};

/// How far a vertex may be from a border that it splits, in billionths of a degree.
const TOLERANCE: f64 = BORDER_TOLERANCE_DEGREES * 1e9;
/// The side of the buckets in which vertices are looked up, in billionths of a degree.
const BUCKET: i64 = 1_000_000;

pub(super) fn gaps(cells: &[Cell]) -> Vec<Fault> {
    let unmatched = cancel(cells.iter().flat_map(|cell| borders(&cell.shape)));
    let vertices = Vertices::new(&unmatched);
    let split = unmatched.iter().flat_map(|segment| vertices.split(*segment));
    let remaining = cancel(split);
    let holes: Vec<Ring> =
        rings(&remaining).into_iter().filter(|ring| area_twice(ring) < 0).collect();
    let mut neighbours = Neighbours::new(cells, &holes);
    holes.iter().filter_map(|hole| gap(hole, &mut neighbours)).collect()
}

/// The borders of a cell with its interior on their left.
pub(super) fn borders(shape: &MultiPolygon<f64>) -> Vec<Segment> {
    let oriented = |ring: &LineString<f64>, outer: bool| {
        let mut points = ring_of(ring);
        if (area_twice(&points) > 0) != outer {
            points.reverse();
        }
        points
    };
    shape
        .iter()
        .flat_map(|polygon| {
            std::iter::once(oriented(polygon.exterior(), true))
                .chain(polygon.interiors().iter().map(move |ring| oriented(ring, false)))
        })
        .flat_map(|ring| segments_of(&ring).collect::<Vec<_>>())
        .collect()
}

/// The ends of unmatched borders.
struct Vertices {
    buckets: AHashMap<(i64, i64), Vec<Point>>,
}

impl Vertices {
    fn new(segments: &[Segment]) -> Self {
        let mut buckets: AHashMap<(i64, i64), Vec<Point>> = AHashMap::new();
        for (from, _) in segments {
            let bucket = (from.x.div_euclid(BUCKET), from.y.div_euclid(BUCKET));
            buckets.entry(bucket).or_default().push(*from);
        }
        for points in buckets.values_mut() {
            points.sort_unstable();
            points.dedup();
        }
        Self { buckets }
    }

    /// The segment in parts between the vertices that lie on it.
    fn split(&self, segment: Segment) -> Vec<Segment> {
        let (from, to) = segment;
        let reach = TOLERANCE as i64;
        let range = |one: i64, other: i64| {
            (one.min(other) - reach).div_euclid(BUCKET)
                ..=(one.max(other) + reach).div_euclid(BUCKET)
        };
        let (rows, columns) = (range(from.y, to.y), range(from.x, to.x));
        let near: Vec<&Point> = if count(&rows) * count(&columns) > self.buckets.len() as u128 {
            // A border across half the world, of a vertex that is wrong, passes more buckets than
            // there are.
            self.buckets.values().flatten().collect()
        } else {
            let buckets = rows.flat_map(|row| columns.clone().map(move |column| (column, row)));
            buckets.filter_map(|bucket| self.buckets.get(&bucket)).flatten().collect()
        };
        let on_it = near.into_iter().filter_map(|point| Some((along(segment, *point)?, *point)));
        let mut on_it: Vec<(f64, Point)> = on_it.collect();
        on_it.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let points: Vec<Point> = std::iter::once(from)
            .chain(on_it.into_iter().map(|(_, point)| point))
            .chain(std::iter::once(to))
            .collect();
        points.windows(2).map(|pair| (pair[0], pair[1])).collect()
    }
}

fn count(range: &RangeInclusive<i64>) -> u128 {
    u128::from(range.end().abs_diff(*range.start())) + 1
}

/// How far along the segment a point lies, if it lies on it and at neither end.
fn along((from, to): Segment, point: Point) -> Option<f64> {
    if point == from || point == to {
        return None;
    }
    let (dx, dy) = ((to.x - from.x) as f64, (to.y - from.y) as f64);
    let (px, py) = ((point.x - from.x) as f64, (point.y - from.y) as f64);
    let length = dx.hypot(dy);
    let (forward, aside) = ((px * dx + py * dy) / length, (px * dy - py * dx) / length);
    (aside.abs() <= TOLERANCE && 0.0 < forward && forward < length).then_some(forward)
}

/// The cells that have the vertices of holes.
struct Neighbours {
    codes: AHashMap<Point, Vec<String>>,
}

impl Neighbours {
    fn new(cells: &[Cell], holes: &[Ring]) -> Self {
        let mut codes: AHashMap<Point, Vec<String>> =
            holes.iter().flatten().map(|point| (*point, Vec::new())).collect();
        if codes.is_empty() {
            return Self { codes };
        }
        for cell in cells {
            for (from, _) in borders(&cell.shape) {
                if let Some(codes) = codes.get_mut(&from) {
                    codes.push(cell.code.clone());
                }
            }
        }
        Self { codes }
    }

    fn of(&mut self, hole: &Ring) -> Vec<String> {
        let mut codes: Vec<String> =
            hole.iter().filter_map(|point| self.codes.get(point)).flatten().cloned().collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    }
}

fn gap(hole: &Ring, neighbours: &mut Neighbours) -> Option<Fault> {
    let line = LineString::new(hole.iter().map(|point| point.degrees()).collect());
    let shape = MultiPolygon::from(Polygon::new(line, vec![]));
    let gap_m2 = area_m2(&shape);
    let at = shape.bounding_rect()?.center();
    (gap_m2 > AREA_MIN_M2).then(|| Fault {
        kind: FaultKind::Gap,
        codes: neighbours.of(hole),
        at: Some((at.x, at.y)),
        detail: format!("a gap of {gap_m2:.2} m2 between these cells"),
    })
}
