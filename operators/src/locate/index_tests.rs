use geo::coordinate_position::{CoordPos, CoordinatePosition};
use geo::{LineString, Polygon, coord};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// A polygon around `centre` whose vertices are at any distance up to `radius`: never convex.
fn star(centre: Coord<f64>, radius: f64, random: &mut StdRng) -> Polygon<f64> {
    let corners = random.random_range(3..24);
    let ring = |from: f64, to: f64, random: &mut StdRng| -> LineString<f64> {
        (0..corners)
            .map(|corner| {
                let angle = std::f64::consts::TAU * f64::from(corner) / f64::from(corners);
                let distance = radius * random.random_range(from..to);
                coord! {x: centre.x + distance * angle.cos(), y: centre.y + distance * angle.sin()}
            })
            .collect()
    };
    // With few corners a chord passes close to the centre: no room for a hole.
    let holes = if corners > 8 && random.random() { vec![ring(0.05, 0.3, random)] } else { vec![] };
    Polygon::new(ring(0.4, 1.0, random), holes)
}

fn random_cells(random: &mut StdRng) -> Vec<(Place, MultiPolygon<f64>)> {
    (0..random.random_range(1..30))
        .map(|number| {
            let parts = random.random_range(1..3);
            let part = |part| {
                let centre = coord! {
                    x: 112.05 + 0.1 * f64::from(part) + random.random_range(-0.02..0.02),
                    y: random.random_range(28.0..28.2),
                };
                star(centre, 0.03, random)
            };
            (Place(number * 3), MultiPolygon::new((0..parts).map(part).collect()))
        })
        .collect()
}

/// A tiling of `side` x `side` cells with shared, shifted vertices and several corners per border.
fn tiling(side: i32, random: &mut StdRng) -> Vec<(Place, MultiPolygon<f64>)> {
    let steps = 4;
    let points = side * steps + 1;
    let vertices: Vec<Coord<f64>> = (0..points * points)
        .map(|number| {
            let shift = |random: &mut StdRng| random.random_range(-0.3..0.3);
            let (column, row) = (number % points, number / points);
            coord! {x: f64::from(column) + shift(random), y: f64::from(row) + shift(random)}
        })
        .collect();
    let vertex = |column: i32, row: i32| vertices[(row * points + column) as usize];
    let cell = |column: i32, row: i32| {
        let (west, south) = (column * steps, row * steps);
        let (east, north) = (west + steps, south + steps);
        let ring = (0..steps)
            .map(|step| vertex(west + step, south))
            .chain((0..steps).map(|step| vertex(east, south + step)))
            .chain((0..steps).map(|step| vertex(east - step, north)))
            .chain((0..steps).map(|step| vertex(west, north - step)));
        MultiPolygon::from(Polygon::new(ring.collect(), vec![]))
    };
    (0..side * side)
        .map(|number| (Place(number.unsigned_abs()), cell(number % side, number / side)))
        .collect()
}

fn owners(cells: &[(Place, MultiPolygon<f64>)], x: f64, y: f64) -> Vec<Place> {
    let alone = |place, shape: &MultiPolygon<f64>| CellIndex::new(vec![(place, shape.clone())]);
    cells.iter().filter_map(|(place, shape)| alone(*place, shape).locate(x, y)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn agrees_with_geo_on_random_polygons(seed in any::<u64>()) {
        let mut random = StdRng::seed_from_u64(seed);
        let cells = random_cells(&mut random);
        let index = CellIndex::new(cells.clone());
        for _ in 0..400 {
            let point = coord! {x: random.random_range(111.9..112.3), y: random.random_range(27.9..28.3)};
            let expected = cells
                .iter()
                .find(|(_, shape)| shape.coordinate_position(&point) == CoordPos::Inside)
                .map(|(place, _)| *place);
            prop_assert_eq!(index.locate(point.x, point.y), expected, "{:?}", point);
        }
    }

    #[test]
    fn every_point_of_a_shared_border_has_one_owner_that_touches_it(seed in any::<u64>()) {
        let mut random = StdRng::seed_from_u64(seed);
        let cells = tiling(4, &mut random);
        let index = CellIndex::new(cells.clone());
        // The cell in the middle has neighbours on all sides: its whole border is shared.
        let borders: Vec<_> = cells[5].1.lines_iter().collect();
        for border in borders {
            let middle = (border.start + border.end) / 2.0;
            for point in [border.start, middle] {
                let found = owners(&cells, point.x, point.y);
                prop_assert_eq!(found.len(), 1, "{:?} belongs to {:?}", point, found);
                prop_assert_eq!(index.locate(point.x, point.y), Some(found[0]));
            }
            let owner = index.locate(border.start.x, border.start.y).expect("an owner");
            let position = cells[owner.0 as usize].1.coordinate_position(&border.start);
            prop_assert_eq!(position, CoordPos::OnBoundary);
        }
    }

    #[test]
    fn a_tiling_without_outer_border_agrees_with_geo(seed in any::<u64>()) {
        let mut random = StdRng::seed_from_u64(seed);
        let cells = tiling(6, &mut random);
        let index = CellIndex::new(cells.clone());
        for _ in 0..200 {
            let point = coord! {x: random.random_range(1.0..23.0), y: random.random_range(1.0..23.0)};
            let place = index.locate(point.x, point.y).expect("a tiling has no gaps");
            let position = cells[place.0 as usize].1.coordinate_position(&point);
            prop_assert_ne!(position, CoordPos::Outside);
        }
    }
}

fn square(x: f64, y: f64) -> MultiPolygon<f64> {
    Rect::new(coord! {x: x, y: y}, coord! {x: x + 1.0, y: y + 1.0}).to_polygon().into()
}

#[test]
fn a_border_belongs_to_the_cell_east_or_north_of_it() {
    let squares = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)];
    let cells = (0..).zip(squares).map(|(number, (x, y))| (Place(number), square(x, y))).collect();
    let index = CellIndex::new(cells);
    assert_eq!(index.locate(1.0, 0.5), Some(Place(1)));
    assert_eq!(index.locate(0.5, 1.0), Some(Place(2)));
    assert_eq!(index.locate(1.0, 1.0), Some(Place(3)));
    assert_eq!(index.locate(0.0, 0.0), Some(Place(0)));
    assert_eq!(index.locate(2.0, 0.5), None);
    assert_eq!(index.locate(0.5, 2.0), None);
}

#[test]
fn an_overlap_belongs_to_the_smallest_place() {
    let index = CellIndex::new(vec![(Place(7), square(0.5, 0.0)), (Place(3), square(0.0, 0.0))]);
    assert_eq!(index.locate(0.75, 0.5), Some(Place(3)));
    assert_eq!(index.locate(1.25, 0.5), Some(Place(7)));
}

#[test]
fn a_hole_that_another_cell_fills_belongs_to_that_cell() {
    let outer = Rect::new(coord! {x: 0.0, y: 0.0}, coord! {x: 3.0, y: 3.0}).to_polygon();
    let hole = square(1.0, 1.0).0[0].exterior().clone();
    let ring = MultiPolygon::from(Polygon::new(outer.exterior().clone(), vec![hole]));
    let index = CellIndex::new(vec![(Place(0), ring), (Place(1), square(1.0, 1.0))]);
    assert_eq!(index.locate(1.5, 1.5), Some(Place(1)));
    assert_eq!(index.locate(1.0, 1.5), Some(Place(1)));
    assert_eq!(index.locate(2.0, 1.5), Some(Place(0)));
    assert_eq!(index.locate(0.5, 2.5), Some(Place(0)));
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let empty = CellIndex::new(vec![]);
    let flat = CellIndex::new(vec![(
        Place(0),
        MultiPolygon::from(Polygon::new(
            LineString::from(vec![(0.0, 0.0), (1.0, 0.0), (0.0, 0.0)]),
            vec![],
        )),
    )]);
    for (x, y) in
        [(0.5, 0.0), (f64::NAN, 0.0), (0.0, f64::NEG_INFINITY), (f64::INFINITY, f64::INFINITY)]
    {
        assert_eq!(empty.locate(x, y), None);
        assert_eq!(flat.locate(x, y), None);
    }
}
