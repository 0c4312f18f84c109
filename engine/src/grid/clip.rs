//! One region cut along the lines of a lattice.
//!
//! Borders are split where they cross lines; a square's piece is bounded by the borders inside it
//! and by those parts of its sides that lie inside the region. Neighbouring pieces share all
//! vertices, also across regions that share borders.

use ahash::AHashMap;
use geo::{MultiPolygon, Polygon};

use super::lattice::{Lattice, Point, Segment, Square, is_inside, middle, ring_of};
use super::rings::{Piece, area_twice, pieces, segments_of};

/// The pieces of one region, each with its square.
pub(crate) fn clip(region: &MultiPolygon<f64>, lattice: Lattice) -> Vec<(Square, Piece)> {
    let cut = Cut::new(region, lattice);
    cut.squares().into_iter().flat_map(|square| cut.pieces_in(square)).collect()
}

#[derive(Default)]
struct Borders {
    by_square: AHashMap<Square, Vec<Segment>>,
    by_row: AHashMap<i64, Vec<Segment>>,
    /// Points on the western side of a square, and on its southern side.
    on_west: AHashMap<Square, Vec<Point>>,
    on_south: AHashMap<Square, Vec<Point>>,
}

struct Cut {
    lattice: Lattice,
    borders: Borders,
}

impl Cut {
    fn new(region: &MultiPolygon<f64>, lattice: Lattice) -> Self {
        let mut cut = Self { lattice, borders: Borders::default() };
        for ring in region.iter().flat_map(oriented_rings) {
            for segment in segments_of(&ring) {
                for part in lattice.split(segment).windows(2) {
                    cut.add((part[0], part[1]));
                }
            }
        }
        cut
    }

    fn add(&mut self, part: Segment) {
        let (from, to) = part;
        self.borders.by_square.entry(self.lattice.square_left_of(part)).or_default().push(part);
        if from.y != to.y {
            let row = self.lattice.row(from.y.min(to.y));
            self.borders.by_row.entry(row).or_default().push(part);
        }
        for point in [from, to] {
            let square = (self.lattice.column(point.x), self.lattice.row(point.y));
            if self.lattice.is_on_column_line(point.x) {
                self.borders.on_west.entry(square).or_default().push(point);
            }
            if self.lattice.is_on_row_line(point.y) {
                self.borders.on_south.entry(square).or_default().push(point);
            }
        }
    }

    /// All squares that have part of the region, row by row.
    fn squares(&self) -> Vec<Square> {
        let mut touched: Vec<Square> = self.borders.by_square.keys().copied().collect();
        touched.sort_unstable_by_key(|(column, row)| (*row, *column));
        let mut squares = Vec::new();
        for row in touched.chunk_by(|one, other| one.1 == other.1) {
            squares.push(row[0]);
            for pair in row.windows(2) {
                let gap = pair[0].0 + 1..pair[1].0;
                // No border runs between two touched squares: one square speaks for all of them.
                if !gap.is_empty() && self.is_centre_inside((gap.start, row[0].1)) {
                    squares.extend(gap.map(|column| (column, row[0].1)));
                }
                squares.push(pair[1]);
            }
        }
        squares
    }

    fn is_centre_inside(&self, square: Square) -> bool {
        let corner = self.lattice.corner(square);
        let opposite = self.lattice.corner((square.0 + 1, square.1 + 1));
        self.is_inside(middle((corner, opposite)), square.1)
    }

    fn is_inside(&self, doubled: Point, row: i64) -> bool {
        self.borders.by_row.get(&row).is_some_and(|segments| is_inside(segments, doubled))
    }

    fn pieces_in(&self, square: Square) -> Vec<(Square, Piece)> {
        let side = self.perimeter(square);
        let Some(borders) = self.borders.by_square.get(&square) else {
            return vec![(square, Piece { outer: side, holes: Vec::new() })];
        };
        let mut segments = borders.clone();
        segments.extend(segments_of(&side).filter(|part| self.is_side_inside(*part, square)));
        segments.sort_unstable();
        segments.dedup();
        pieces(&segments).into_iter().map(|piece| (square, piece)).collect()
    }

    /// The corners of a square and the points on its sides, against the clock.
    fn perimeter(&self, square: Square) -> Vec<Point> {
        let (column, row) = square;
        let corner = |column, row| self.lattice.corner((column, row));
        let mut south = vec![corner(column, row), corner(column + 1, row)];
        let mut east = vec![corner(column + 1, row), corner(column + 1, row + 1)];
        let mut north = vec![corner(column, row + 1), corner(column + 1, row + 1)];
        let mut west = vec![corner(column, row), corner(column, row + 1)];
        let extend = |side: &mut Vec<Point>, points: Option<&Vec<Point>>| {
            side.extend(points.into_iter().flatten());
            side.sort_unstable();
        };
        extend(&mut south, self.borders.on_south.get(&square));
        extend(&mut east, self.borders.on_west.get(&(column + 1, row)));
        extend(&mut north, self.borders.on_south.get(&(column, row + 1)));
        extend(&mut west, self.borders.on_west.get(&square));
        let mut points = south;
        points.extend(east);
        points.extend(north.into_iter().rev());
        points.extend(west.into_iter().rev());
        points.dedup();
        points.pop();
        points
    }

    /// Whether the region lies on the square's side of a part of its perimeter.
    fn is_side_inside(&self, part: Segment, square: Square) -> bool {
        let is_border = |square: Square, part: Segment| {
            self.borders.by_square.get(&square).is_some_and(|parts| parts.contains(&part))
        };
        let opposite = (part.1, part.0);
        if is_border(self.lattice.square_left_of(opposite), opposite) {
            return is_border(square, part);
        }
        let on_top = part.0.y == part.1.y && part.1.x < part.0.x;
        let row = if on_top { square.1 + 1 } else { square.1 };
        is_border(square, part) || self.is_inside(middle(part), row)
    }
}

/// The rings of a polygon with the interior on their left.
fn oriented_rings(polygon: &Polygon<f64>) -> Vec<Vec<Point>> {
    let against = |ring: &geo::LineString<f64>, outer: bool| {
        let mut points = ring_of(ring);
        if (area_twice(&points) > 0) != outer {
            points.reverse();
        }
        points
    };
    std::iter::once(against(polygon.exterior(), true))
        .chain(polygon.interiors().iter().map(|ring| against(ring, false)))
        .collect()
}
