//! A unit grid laid into given boundaries.
//!
//! - **Squares.** All boundaries share one lattice of lines along meridians and parallels, from the
//!   south-western corner of all of them. A side is `cell_m` metres at the city's middle latitude
//!   (equirectangular; in a city one degree high, a square's width differs by less than one percent).
//! - **Borders.** Squares are cut at the boundaries. Vertices are whole billionths of a degree, and
//!   neighbours share them, also across boundaries that share theirs.
//! - **Slivers** below a tenth of a square join the neighbour with the longest common border.
//! - **Codes.** A boundary's code has the length of its level. Where it is a district, streets are
//!   blocks of `street_communities` by `street_communities` communities; where it is a district or
//!   a street, communities are blocks of `community_cells` by `community_cells` squares. All are
//!   numbered from 1, row by row from the north, each row from west to east. What was made up is
//!   listed in the cell's `synthetic`.

use std::collections::BTreeMap;

use citycell_operators::plan::Crs;
use citycell_schemas::Level;
use geo::{BoundingRect, Coord, MultiPolygon};
use jiff::civil::Date;

use super::boundaries::Boundary;
use super::clip::clip;
use super::file::{Cell, City, GridFile, GridHead};
use super::lattice::{Lattice, Point, Square};
use super::layout::{Layout, SEGMENTS};
use super::metres::{DegreeLengths, area_m2};
use super::rings::Piece;
use super::slivers;

/// What to generate.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// The boundaries' coordinate system, which the grid's is too.
    pub crs: Crs,
    /// The city.
    pub city: City,
    /// The segments of the codes.
    pub layout: Layout,
    /// The side of a square in metres.
    pub cell_m: f64,
    /// The side of a made-up community in squares.
    pub community_cells: i64,
    /// The side of a made-up street in communities.
    pub street_communities: i64,
    /// The first day on which the cells are valid.
    pub valid_from: Option<Date>,
}

/// Why there is no grid.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GenerateError {
    /// Nothing to lay a grid into.
    #[error("there are no boundaries")]
    Empty,
    /// A size that no grid has.
    #[error("a cell is at least 1 m wide, and blocks are at least 1 cell wide")]
    Size,
    /// A code of no level.
    #[error("the boundary code {code} is not as long as a district's, street's or community's")]
    Code {
        /// The code.
        code: String,
    },
    /// Two boundaries of which one contains the other, by their codes.
    #[error("the boundary {inner} lies in the boundary {outer}: give one of them")]
    Nested {
        /// The shorter code, or the same.
        outer: String,
        /// The longer one.
        inner: String,
    },
    /// More places than a segment can number.
    #[error("{code} needs more than {count_max} places of level {level:?}; make the blocks larger")]
    Full {
        /// The place above.
        code: String,
        /// The level that has no numbers left.
        level: Level,
        /// How many the segment holds.
        count_max: usize,
    },
}

/// Lays a grid into the boundaries.
///
/// # Errors
/// See [`GenerateError`]; all are the caller's fault.
pub fn generate(
    boundaries: &[Boundary],
    options: &GenerateOptions,
) -> Result<GridFile, GenerateError> {
    let sizes = [options.community_cells, options.street_communities];
    if !(1.0..1e6).contains(&options.cell_m) || sizes.iter().any(|side| *side < 1) {
        return Err(GenerateError::Size);
    }
    let mut boundaries: Vec<&Boundary> = boundaries.iter().collect();
    boundaries.sort_by(|one, other| one.code.cmp(&other.code));
    if let Some(pair) = boundaries.windows(2).find(|pair| pair[1].code.starts_with(&pair[0].code)) {
        let (outer, inner) = (pair[0].code.clone(), pair[1].code.clone());
        return Err(GenerateError::Nested { outer, inner });
    }
    let lattice = lattice(&boundaries, options.cell_m).ok_or(GenerateError::Empty)?;
    let mut cells = Vec::new();
    for boundary in &boundaries {
        let parts = slivers::join(clip(&boundary.shape, lattice), lattice);
        number(boundary, parts, options, &mut cells)?;
    }
    Ok(GridFile { head: head(&boundaries, options), cells })
}

fn head(boundaries: &[&Boundary], options: &GenerateOptions) -> GridHead {
    let named = boundaries.iter().filter(|boundary| !boundary.name.is_empty());
    let names: BTreeMap<_, _> =
        named.map(|boundary| (boundary.code.clone(), boundary.name.clone())).collect();
    GridHead { crs: options.crs, layout: options.layout, city: options.city.clone(), names }
}

fn lattice(boundaries: &[&Boundary], cell_m: f64) -> Option<Lattice> {
    let all: Vec<_> = boundaries.iter().flat_map(|boundary| boundary.shape.0.clone()).collect();
    let bounds = MultiPolygon::new(all).bounding_rect()?;
    let degree = DegreeLengths::at(bounds.center().y);
    let step = Coord { x: cell_m / degree.east_m, y: cell_m / degree.north_m };
    Some(Lattice { origin: Point::from_degrees(bounds.min()), step: Point::from_degrees(step) })
}

/// Where a piece comes among its boundary's: (row from the north, column) of street, community and
/// square, and last its south-western point.
type Rank = [(i64, i64); 4];

fn number(
    boundary: &Boundary,
    parts: Vec<(Square, Piece)>,
    options: &GenerateOptions,
    cells: &mut Vec<Cell>,
) -> Result<(), GenerateError> {
    let given = options.layout.level_of_length(boundary.code.len());
    let given = given.filter(|level| *level > Level::Cell);
    let given = given.ok_or_else(|| GenerateError::Code { code: boundary.code.clone() })?;
    let made: Vec<Level> = SEGMENTS.into_iter().filter(|level| *level < given).collect();
    let mut ranked: Vec<(Rank, Piece)> =
        parts.into_iter().map(|(square, piece)| (rank(square, &piece, options), piece)).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut numbers = [0; 3];
    let mut before: Option<Rank> = None;
    for (rank, piece) in ranked {
        advance(&mut numbers, before.as_ref(), &rank, given);
        before = Some(rank);
        let code = code(&boundary.code, &numbers, &made, options.layout)?;
        cells.push(cell(code, piece, &made, options.valid_from));
    }
    Ok(())
}

fn rank(square: Square, piece: &Piece, options: &GenerateOptions) -> Rank {
    let community = options.community_cells;
    let block = |side: i64| (-square.1.div_euclid(side), square.0.div_euclid(side));
    let first = piece.outer.iter().min().map_or((0, 0), |point| (point.x, point.y));
    [block(community * options.street_communities), block(community), block(1), first]
}

/// Counts street, community and cell on to the next piece; levels that are given are not counted.
fn advance(numbers: &mut [usize; 3], before: Option<&Rank>, rank: &Rank, given: Level) {
    let starts = |index: usize| before.is_none_or(|before| before[index] != rank[index]);
    let street = given > Level::Street && starts(0);
    let community = given > Level::Community && (street || starts(1));
    if street {
        *numbers = [numbers[0] + 1, 0, 0];
    }
    if community {
        *numbers = [numbers[0], numbers[1] + 1, 0];
    }
    numbers[2] += 1;
}

fn code(
    given: &str,
    numbers: &[usize; 3],
    made: &[Level],
    layout: Layout,
) -> Result<String, GenerateError> {
    let mut code = given.to_owned();
    for level in made {
        let number = numbers[2 - *level as usize];
        let count_max = layout.number_max(*level);
        if number > count_max {
            return Err(GenerateError::Full { code, level: *level, count_max });
        }
        code.push_str(&format!("{number:0width$}", width = layout.width(*level)));
    }
    Ok(code)
}

fn cell(code: String, piece: Piece, made: &[Level], valid_from: Option<Date>) -> Cell {
    let shape = MultiPolygon::from(piece.polygon());
    Cell {
        code,
        name: String::new(),
        // Square decimetres are as exact as the vertices.
        area_m2: Some((area_m2(&shape) * 100.0).round().max(1.0) / 100.0),
        valid_from,
        valid_to: None,
        synthetic: made.to_vec(),
        shape,
    }
}
