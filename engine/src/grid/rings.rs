//! Borders to polygons.

use std::collections::HashMap;

use ahash::{AHashMap, AHashSet};
use geo::{LineString, Polygon};

use super::lattice::{Point, Segment, cross, is_inside, middle};

/// A ring of points, the last one joined to the first.
pub(crate) type Ring = Vec<Point>;

/// A ring and the holes in it.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) outer: Ring,
    pub(crate) holes: Vec<Ring>,
}

impl Piece {
    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment> {
        std::iter::once(&self.outer).chain(&self.holes).flat_map(|ring| segments_of(ring))
    }

    /// Twice its area, in squared units.
    pub(crate) fn area_twice(&self) -> i128 {
        let holes: i128 = self.holes.iter().map(|ring| area_twice(ring)).sum();
        area_twice(&self.outer) + holes
    }

    pub(crate) fn polygon(&self) -> Polygon<f64> {
        let line = |ring: &Ring| LineString::new(ring.iter().map(|at| at.degrees()).collect());
        Polygon::new(line(&self.outer), self.holes.iter().map(line).collect())
    }
}

pub(crate) fn segments_of(ring: &[Point]) -> impl Iterator<Item = Segment> {
    ring.iter().copied().zip(ring.iter().copied().cycle().skip(1))
}

/// Twice the area of a ring: positive if it runs against the clock.
pub(crate) fn area_twice(ring: &[Point]) -> i128 {
    let Some(first) = ring.first() else { return 0 };
    segments_of(ring).map(|(from, to)| cross(*first, from, to)).sum()
}

/// Takes out every segment together with its opposite: what remains is the border of the union.
pub(crate) fn cancel(segments: impl IntoIterator<Item = Segment>) -> Vec<Segment> {
    let mut counts: AHashMap<Segment, i32> = AHashMap::new();
    for (from, to) in segments {
        if from < to {
            *counts.entry((from, to)).or_default() += 1;
        } else if to < from {
            *counts.entry((to, from)).or_default() -= 1;
        }
    }
    let mut remaining: Vec<Segment> = counts
        .into_iter()
        .flat_map(|((from, to), count)| {
            let segment = if count > 0 { (from, to) } else { (to, from) };
            std::iter::repeat_n(segment, count.unsigned_abs() as usize)
        })
        .collect();
    remaining.sort_unstable();
    remaining
}

/// The rings that the segments form; a ring passes no point twice. What does not close is left out.
pub(crate) fn rings(segments: &[Segment]) -> Vec<Ring> {
    let mut next: HashMap<Point, Vec<Point>, ahash::RandomState> = HashMap::default();
    for (from, to) in segments {
        next.entry(*from).or_default().push(*to);
    }
    let mut rings = Vec::new();
    for (start, _) in segments {
        while next.get(start).is_some_and(|targets| !targets.is_empty()) {
            walk(*start, &mut next, &mut rings);
        }
    }
    rings
}

/// Follows segments from `start` until none goes on, cutting off a ring wherever one closes.
fn walk(
    start: Point,
    next: &mut HashMap<Point, Vec<Point>, ahash::RandomState>,
    rings: &mut Vec<Ring>,
) {
    let mut path = vec![start];
    let mut on_path: AHashSet<Point> = AHashSet::from_iter([start]);
    loop {
        let at = path[path.len() - 1];
        let came_from = path.len().checked_sub(2).map(|before| path[before]);
        let Some(target) =
            next.get_mut(&at).and_then(|targets| take_leftmost(came_from, at, targets))
        else {
            return;
        };
        if on_path.insert(target) {
            path.push(target);
            continue;
        }
        let begin = path.iter().rposition(|point| *point == target).unwrap_or(0);
        let ring: Ring = path.drain(begin + 1..).collect();
        for point in &ring {
            on_path.remove(point);
        }
        rings.push(std::iter::once(target).chain(ring).collect());
        if path.len() == 1 {
            return;
        }
    }
}

/// Takes the target that turns most to the left, so that a walk stays with its own interior.
fn take_leftmost(came_from: Option<Point>, at: Point, targets: &mut Vec<Point>) -> Option<Point> {
    let Some(came_from) = came_from else { return targets.pop() };
    let leftmost = (0..targets.len()).max_by(|one, other| {
        let turn = |index: usize| turn(came_from, at, targets[index]);
        turn(*one).total_cmp(&turn(*other))
    })?;
    Some(targets.swap_remove(leftmost))
}

/// The angle by which the way turns at `at`, to the left positive.
fn turn(from: Point, at: Point, to: Point) -> f64 {
    let dot = i128::from(at.x - from.x) * i128::from(to.x - at.x)
        + i128::from(at.y - from.y) * i128::from(to.y - at.y);
    (cross(from, at, to) as f64).atan2(dot as f64)
}

/// Rings to pieces: each hole goes to the smallest ring around it.
pub(crate) fn pieces(segments: &[Segment]) -> Vec<Piece> {
    let (mut outer, mut holes) = (Vec::new(), Vec::new());
    for ring in rings(segments) {
        match area_twice(&ring) {
            1.. => outer.push(Piece { outer: ring, holes: Vec::new() }),
            0 => {}
            _ => holes.push(ring),
        }
    }
    outer.sort_by_key(|piece| area_twice(&piece.outer));
    for hole in holes {
        let at = middle((hole[0], hole[1]));
        let around = |piece: &&mut Piece| {
            let segments: Vec<Segment> = segments_of(&piece.outer).collect();
            is_inside(&segments, at)
        };
        if let Some(piece) = outer.iter_mut().find(around) {
            piece.holes.push(hole);
        }
    }
    outer
}
