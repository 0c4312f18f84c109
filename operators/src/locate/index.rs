//! Which cell a point lies in.
//!
//! - **Borders.** A point on a border belongs to the cell that begins immediately east of it (on a
//!   horizontal border: north of it). Where cells share their borders, every point of a border
//!   therefore belongs to exactly one of them, always the same. A point on the outermost border to
//!   the east or the north belongs to none.
//! - **Overlaps** belong to the cell with the smallest [`Place`]. What lies within an odd number of
//!   rings is inside a cell, so that holes and multipolygons need no case of their own.
//! - **Exactness.** Decisions are those of exact arithmetic on the given coordinates.
//! - **Cost.** A raster of buckets says "entirely inside this cell" or lists the few edges that a
//!   lookup must look at; nothing is allocated. Cells that crowd into a small part of the bounding
//!   box share buckets, which is slower, not wrong.

use citycell_schemas::Place;
use geo::{BoundingRect, Coord, LinesIter, MultiPolygon, Rect};

use super::edge::Edge;
use super::raster::{Raster, Span};

/// Buckets for each cell: more of them cost memory, fewer cost time.
const BUCKETS_PER_CELL: usize = 64;
/// The most buckets that a raster has.
const BUCKETS_MAX: usize = 1 << 25;

/// In a bucket: the rest of the word is the place whose cell the bucket lies in.
const INSIDE: u32 = 1 << 31;
/// A bucket that no cell touches; otherwise the word is where its candidates begin.
const EMPTY: u32 = INSIDE - 1;

/// A point index over cells.
#[derive(Debug)]
pub struct CellIndex {
    raster: Raster,
    buckets: Vec<u32>,
    candidates: Vec<Candidate>,
    near: Vec<u32>,
    edges: Vec<Edge>,
}

/// A cell that has part of a bucket, and what decides about the points there.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    place: u32,
    near_start: u32,
    near_count: u32,
    /// Whether an odd number of edges are crossed from everywhere in the bucket.
    odd: bool,
    /// Whether it is the bucket's last one.
    last: bool,
}

impl Candidate {
    fn has_all(&self) -> bool {
        self.odd && self.near_count == 0
    }
}

impl CellIndex {
    /// An index of these cells, whose coordinates are finite.
    ///
    /// # Panics
    /// With 2^31 or more places or edges near buckets, which no city has.
    #[must_use]
    pub fn new(mut cells: Vec<(Place, MultiPolygon<f64>)>) -> Self {
        cells.sort_by_key(|(place, _)| *place);
        let mut builder = Builder::new(raster_over(&cells));
        for (place, shape) in &cells {
            builder.add(*place, shape);
        }
        builder.finish()
    }

    /// The cell that the point lies in; none outside all cells, for NaN and for infinities.
    #[inline]
    #[must_use]
    pub fn locate(&self, x: f64, y: f64) -> Option<Place> {
        let word = self.buckets[self.raster.bucket_of(x, y)?];
        if word & INSIDE != 0 {
            return Some(Place(word & !INSIDE));
        }
        if word == EMPTY { None } else { self.choose(&self.candidates[word as usize..], x, y) }
    }

    fn choose(&self, candidates: &[Candidate], x: f64, y: f64) -> Option<Place> {
        for candidate in candidates {
            let start = candidate.near_start as usize;
            let near = &self.near[start..start + candidate.near_count as usize];
            let inside = near.iter().fold(candidate.odd, |inside, edge| {
                inside ^ self.edges[*edge as usize].crossed_from(x, y)
            });
            if inside {
                return Some(Place(candidate.place));
            }
            if candidate.last {
                break;
            }
        }
        None
    }
}

fn raster_over(cells: &[(Place, MultiPolygon<f64>)]) -> Raster {
    let bounds =
        cells.iter().filter_map(|(_, shape)| shape.bounding_rect()).reduce(|one, other| {
            let (min, max) = (one.min(), one.max());
            let (low, high) = (other.min(), other.max());
            Rect::new(
                Coord { x: min.x.min(low.x), y: min.y.min(low.y) },
                Coord { x: max.x.max(high.x), y: max.y.max(high.y) },
            )
        });
    let edges: usize = cells.iter().map(|(_, shape)| shape.lines_iter().count()).sum();
    let buckets = (cells.len() * BUCKETS_PER_CELL).max(edges).min(BUCKETS_MAX);
    // Without cells a box that no point lies in does.
    let nowhere = Coord { x: f64::INFINITY, y: f64::INFINITY };
    Raster::new(bounds.unwrap_or(Rect::new(nowhere, nowhere)), buckets)
}

/// An edge with the rows it reaches.
struct Reach {
    edge: u32,
    rows: Span,
}

/// An edge within one row of buckets.
struct Passage {
    edge: u32,
    columns: Span,
    /// Whether it is there at every height of the row.
    spans_row: bool,
}

struct Builder {
    raster: Raster,
    edges: Vec<Edge>,
    near: Vec<u32>,
    claims: Vec<(usize, Candidate)>,
}

impl Builder {
    fn new(raster: Raster) -> Self {
        Self { raster, edges: Vec::new(), near: Vec::new(), claims: Vec::new() }
    }

    fn add(&mut self, place: Place, shape: &MultiPolygon<f64>) {
        assert!(place.0 < EMPTY, "place {} is beyond the index", place.0);
        let Some(bounds) = shape.bounding_rect() else {
            return;
        };
        let columns = self.raster.columns_between(bounds.min().x, bounds.max().x);
        let mut waiting = self.add_edges(shape);
        let mut reaches: Vec<Reach> = Vec::new();
        let rows = self.raster.rows_between(bounds.min().y, bounds.max().y);
        for row in rows.iter() {
            reaches.retain(|reach| reach.rows.last >= row);
            while let Some(reach) = waiting.pop_if(|reach| reach.rows.first <= row) {
                reaches.push(reach);
            }
            let passages = self.passages(row, &reaches);
            for column in columns.iter() {
                self.claim(place, (column, row), &passages);
            }
        }
    }

    /// Adds the cell's edges; what is returned is sorted from the highest first row to the lowest.
    fn add_edges(&mut self, shape: &MultiPolygon<f64>) -> Vec<Reach> {
        let first = self.edges.len();
        self.edges.extend(shape.lines_iter().map(Edge::new));
        let mut reaches: Vec<Reach> = (first..self.edges.len())
            .map(|number| {
                let edge = &self.edges[number];
                let rows = self.raster.rows_between(edge.lower.y, edge.upper.y);
                Reach { edge: index(number), rows }
            })
            .collect();
        reaches.sort_by_key(|reach| std::cmp::Reverse(reach.rows.first));
        reaches
    }

    fn passages(&self, row: u32, reaches: &[Reach]) -> Vec<Passage> {
        let passage = |reach: &Reach| {
            let edge = &self.edges[reach.edge as usize];
            Passage {
                edge: reach.edge,
                columns: self.raster.columns_in_row(edge.lower, edge.upper, row),
                spans_row: reach.rows.first < row && row < reach.rows.last,
            }
        };
        reaches.iter().map(passage).collect()
    }

    /// Notes what the cell has of one bucket, if anything.
    fn claim(&mut self, place: Place, (column, row): (u32, u32), passages: &[Passage]) {
        let start = self.near.len();
        let odd = if passages.iter().any(|passage| passage.touches(column)) {
            self.note_near(column, passages)
        } else {
            // No edge touches the bucket: its centre speaks for all of it.
            let centre = self.raster.centre(column, row);
            let crossed = |passage: &&Passage| {
                self.edges[passage.edge as usize].crossed_from(centre.x, centre.y)
            };
            passages.iter().filter(crossed).count() % 2 == 1
        };
        let near_count = index(self.near.len() - start);
        if odd || near_count > 0 {
            let near_start = index(start);
            let place = place.0;
            let candidate = Candidate { place, near_start, near_count, odd, last: false };
            self.claims.push((self.raster.bucket(column, row), candidate));
        }
    }

    /// Notes the edges that a lookup must look at; true if an odd number need no look.
    fn note_near(&mut self, column: u32, passages: &[Passage]) -> bool {
        let mut odd = false;
        for passage in passages.iter().filter(|passage| column <= passage.columns.last) {
            if column < passage.columns.first && passage.spans_row {
                odd = !odd;
            } else if !self.edges[passage.edge as usize].is_level() {
                self.near.push(passage.edge);
            }
        }
        odd
    }

    fn finish(mut self) -> CellIndex {
        // Stable, so that a bucket's candidates stay in the order of their places.
        self.claims.sort_by_key(|(bucket, _)| *bucket);
        let mut buckets = vec![EMPTY; self.raster.buckets()];
        let mut candidates = Vec::with_capacity(self.claims.len());
        for claims in self.claims.chunk_by(|one, other| one.0 == other.0) {
            let bucket = claims[0].0;
            buckets[bucket] = if claims[0].1.has_all() {
                INSIDE | claims[0].1.place
            } else {
                let start = index(candidates.len());
                push_candidates(&mut candidates, claims);
                start
            };
        }
        let Self { raster, edges, near, .. } = self;
        CellIndex { raster, buckets, candidates, near, edges }
    }
}

impl Passage {
    fn touches(&self, column: u32) -> bool {
        self.columns.first <= column && column <= self.columns.last
    }
}

/// Adds a bucket's candidates up to the first one that leaves nothing to those behind it.
fn push_candidates(candidates: &mut Vec<Candidate>, claims: &[(usize, Candidate)]) {
    let all = claims.iter().position(|(_, candidate)| candidate.has_all());
    let count = all.map_or(claims.len(), |position| position + 1);
    candidates.extend(claims[..count].iter().map(|(_, candidate)| *candidate));
    if let Some(last) = candidates.last_mut() {
        last.last = true;
    }
}

fn index(number: usize) -> u32 {
    u32::try_from(number).ok().filter(|number| *number < EMPTY).expect("fewer than 2^31 entries")
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
