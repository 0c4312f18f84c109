//! How many points a second one core places into irregular cells.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use citycell_operators::locate::CellIndex;
use citycell_schemas::Place;
use geo::{Coord, MultiPolygon, Polygon, coord};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Borders between two corners of a cell.
pub(crate) const STEPS: usize = 4;

/// What a run measured.
#[derive(Clone, Copy, Debug)]
pub struct Located {
    /// How many cells the index has.
    pub cells: usize,
    /// How many points were looked up.
    pub points: usize,
    /// How long building took.
    pub build_s: f64,
    /// How long all lookups took.
    pub locate_s: f64,
    /// A hash of all places found.
    pub hash: u64,
}

/// Looks up `points` random points in `side` x `side` cells of 16 corners each that tile a plane.
#[must_use]
pub fn run(side: usize, points: usize) -> Located {
    let mut random = StdRng::seed_from_u64(7);
    let cells = tiling((side, side), &mut random);
    let started = Instant::now();
    let index = CellIndex::new(cells);
    let build_s = started.elapsed().as_secs_f64();
    let extent = (side * STEPS) as f64;
    let points: Vec<(f64, f64)> = (0..points)
        .map(|_| (random.random_range(0.0..extent), random.random_range(0.0..extent)))
        .collect();
    let started = Instant::now();
    let found: Vec<Option<Place>> = points.iter().map(|(x, y)| index.locate(*x, *y)).collect();
    let locate_s = started.elapsed().as_secs_f64();
    let mut hasher = DefaultHasher::new();
    found.hash(&mut hasher);
    Located { cells: side * side, points: points.len(), build_s, locate_s, hash: hasher.finish() }
}

/// Cells whose shared vertices are shifted at random: every border is jagged, none overlap.
pub(crate) fn tiling(
    (columns, rows): (usize, usize),
    random: &mut StdRng,
) -> Vec<(Place, MultiPolygon<f64>)> {
    let points_per_row = columns * STEPS + 1;
    let vertices: Vec<Coord<f64>> = (0..points_per_row * (rows * STEPS + 1))
        .map(|number| {
            let (x, y) = ((number % points_per_row) as f64, (number / points_per_row) as f64);
            let mut shift = || random.random_range(-0.3..0.3);
            coord! {x: x + shift(), y: y + shift()}
        })
        .collect();
    let vertex = |column: usize, row: usize| vertices[row * points_per_row + column];
    let cell = |number: usize| {
        let (west, south) = (number % columns * STEPS, number / columns * STEPS);
        let (east, north) = (west + STEPS, south + STEPS);
        let ring = (0..STEPS)
            .map(|step| vertex(west + step, south))
            .chain((0..STEPS).map(|step| vertex(east, south + step)))
            .chain((0..STEPS).map(|step| vertex(east - step, north)))
            .chain((0..STEPS).map(|step| vertex(west, north - step)));
        MultiPolygon::from(Polygon::new(ring.collect(), vec![]))
    };
    (0..).map(Place).zip((0..columns * rows).map(cell)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_same_seed_finds_the_same_places() {
        let (one, other) = (super::run(10, 1000), super::run(10, 1000));
        assert_eq!(one.hash, other.hash);
        assert_eq!(one.cells, 100);
    }
}
