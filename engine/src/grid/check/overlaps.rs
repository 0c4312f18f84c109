//! Cells that share an area.

use ahash::AHashMap;
use geo::{Area, BooleanOps, BoundingRect, Rect};

use super::{AREA_MIN_M2, BORDER_TOLERANCE_DEGREES, Fault, FaultKind};
use crate::grid::file::Cell;
use crate::grid::metres::area_m2;

/// A bucket of the raster over all cells.
type Bucket = (i64, i64);

pub(super) fn overlaps(cells: &[&Cell]) -> Vec<Fault> {
    let boxes: Vec<Rect<f64>> =
        cells.iter().filter_map(|cell| cell.shape.bounding_rect()).collect();
    let side = mean_side(&boxes);
    let bucket = |x: f64, y: f64| ((x / side).floor() as i64, (y / side).floor() as i64);
    let mut buckets: AHashMap<Bucket, Vec<usize>> = AHashMap::new();
    for (number, bounds) in boxes.iter().enumerate() {
        let (low, high) = (bounds.min(), bounds.max());
        let ((west, south), (east, north)) = (bucket(low.x, low.y), bucket(high.x, high.y));
        for row in south..=north {
            for column in west..=east {
                buckets.entry((column, row)).or_default().push(number);
            }
        }
    }
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    for (at, members) in &buckets {
        for (position, one) in members.iter().enumerate() {
            for other in &members[position + 1..] {
                // Of the buckets that both are in, the one with their common corner takes the pair.
                if common_corner(&boxes[*one], &boxes[*other]).map(|(x, y)| bucket(x, y))
                    == Some(*at)
                {
                    pairs.push((*one.min(other), *one.max(other)));
                }
            }
        }
    }
    pairs.sort_unstable();
    pairs.iter().filter_map(|(one, other)| overlap(cells[*one], cells[*other])).collect()
}

/// The mean side of the boxes: then a box lies in few buckets and a bucket has few boxes.
fn mean_side(boxes: &[Rect<f64>]) -> f64 {
    let sum: f64 = boxes.iter().map(|bounds| bounds.width().max(bounds.height())).sum();
    (sum / boxes.len().max(1) as f64).max(BORDER_TOLERANCE_DEGREES)
}

/// The south-western corner of what two boxes share; none if they do no more than touch.
fn common_corner(one: &Rect<f64>, other: &Rect<f64>) -> Option<(f64, f64)> {
    let (x, y) = (one.min().x.max(other.min().x), one.min().y.max(other.min().y));
    let (east, north) = (one.max().x.min(other.max().x), one.max().y.min(other.max().y));
    (x < east && y < north).then_some((x, y))
}

fn overlap(one: &Cell, other: &Cell) -> Option<Fault> {
    let shared = one.shape.intersection(&other.shape);
    if shared.unsigned_area() == 0.0 {
        return None;
    }
    let shared_m2 = area_m2(&shared);
    let at = shared.bounding_rect()?.center();
    (shared_m2 > AREA_MIN_M2).then(|| Fault {
        kind: FaultKind::Overlap,
        codes: vec![one.code.clone(), other.code.clone()],
        at: Some((at.x, at.y)),
        detail: format!("overlap of {shared_m2:.2} m2"),
    })
}
