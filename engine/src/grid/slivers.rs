//! Pieces too small to be cells, joined to their neighbours.
//!
//! A piece smaller than a tenth of a square joins the piece of its region with which it shares the
//! longest border, the smallest pieces first. One without a neighbour stays a cell of its own.

use ahash::AHashMap;

use super::lattice::{Lattice, Square};
use super::rings::{Piece, cancel, pieces};

/// Pieces below one part in so many of a square are slivers.
const SLIVERS_PER_SQUARE: i128 = 10;

/// The pieces with all slivers joined; a joined piece has the square of its largest part.
pub(crate) fn join(parts: Vec<(Square, Piece)>, lattice: Lattice) -> Vec<(Square, Piece)> {
    let square_twice = 2 * i128::from(lattice.step.x) * i128::from(lattice.step.y);
    let mut groups = Groups::new(parts, lattice);
    let mut small: Vec<usize> = (0..groups.parts.len())
        .filter(|part| groups.areas[*part] * SLIVERS_PER_SQUARE < square_twice)
        .collect();
    small.sort_by_key(|part| (groups.areas[*part], *part));
    for part in small {
        let root = groups.root(part);
        if groups.areas[root] * SLIVERS_PER_SQUARE < square_twice {
            groups.join_to_neighbour(part, root);
        }
    }
    groups.finish()
}

struct Groups {
    lattice: Lattice,
    parts: Vec<(Square, Piece)>,
    by_square: AHashMap<Square, Vec<usize>>,
    parents: Vec<usize>,
    /// Twice the area of the group of which a part is the root.
    areas: Vec<i128>,
}

impl Groups {
    fn new(parts: Vec<(Square, Piece)>, lattice: Lattice) -> Self {
        let mut by_square: AHashMap<Square, Vec<usize>> = AHashMap::new();
        for (part, (square, _)) in parts.iter().enumerate() {
            by_square.entry(*square).or_default().push(part);
        }
        let areas = parts.iter().map(|(_, piece)| piece.area_twice()).collect();
        Self { lattice, by_square, parents: (0..parts.len()).collect(), areas, parts }
    }

    fn root(&self, mut part: usize) -> usize {
        while self.parents[part] != part {
            part = self.parents[part];
        }
        part
    }

    fn join_to_neighbour(&mut self, part: usize, root: usize) {
        let mut shared: Vec<(usize, i64)> = self.shared_borders(part).into_iter().collect();
        shared.retain(|(neighbour, _)| self.root(*neighbour) != root);
        let longest = shared.into_iter().max_by_key(|(part, length)| (*length, usize::MAX - part));
        let Some((neighbour, _)) = longest else { return };
        let other = self.root(neighbour);
        let (larger, smaller) =
            if self.areas[other] >= self.areas[root] { (other, root) } else { (root, other) };
        self.parents[smaller] = larger;
        self.areas[larger] += self.areas[smaller];
    }

    /// The parts that share borders with `part`, and how long these are.
    fn shared_borders(&self, part: usize) -> AHashMap<usize, i64> {
        let mut shared = AHashMap::new();
        let (square, piece) = &self.parts[part];
        for (from, to) in piece.segments().filter(|(from, to)| from.x == to.x || from.y == to.y) {
            let beyond = self.lattice.square_left_of((to, from));
            for neighbour in self.by_square.get(&beyond).into_iter().flatten() {
                let borders = &self.parts[*neighbour].1;
                if beyond != *square && borders.segments().any(|segment| segment == (to, from)) {
                    *shared.entry(*neighbour).or_default() +=
                        (to.x - from.x).abs() + (to.y - from.y).abs();
                }
            }
        }
        shared
    }

    fn finish(self) -> Vec<(Square, Piece)> {
        let roots: Vec<usize> = (0..self.parts.len()).map(|part| self.root(part)).collect();
        let mut members: AHashMap<usize, Vec<Piece>> = AHashMap::new();
        let mut joined = Vec::new();
        let mut squares = Vec::new();
        for (part, (square, piece)) in self.parts.into_iter().enumerate() {
            members.entry(roots[part]).or_default().push(piece);
            if roots[part] == part {
                squares.push((part, square));
            }
        }
        for (root, square) in squares {
            let group = members.remove(&root).unwrap_or_default();
            if let [piece] = group.as_slice() {
                joined.push((square, piece.clone()));
            } else {
                let borders = cancel(group.iter().flat_map(Piece::segments));
                joined.extend(pieces(&borders).into_iter().map(|piece| (square, piece)));
            }
        }
        joined
    }
}
