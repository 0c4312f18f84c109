use citycell_operators::plan::Crs;
use geo::{Area, Coord, LineString, MapCoords, MultiPolygon, Polygon, coord};

use super::*;
use crate::grid::boundaries::Boundary;
use crate::grid::file::City;
use crate::grid::generate::{GenerateOptions, generate};
use crate::grid::layout::Layout;
use crate::grid::metres::area_m2;

fn options(cell_m: f64) -> GenerateOptions {
    GenerateOptions {
        crs: Crs::Gcj02,
        city: City { code: "430100".to_owned(), name: String::new() },
        layout: Layout::default(),
        cell_m,
        community_cells: 10,
        street_communities: 3,
        valid_from: None,
    }
}

/// Two districts with a jagged common border, the eastern one with a hole that a third one fills.
fn boundaries() -> Vec<Boundary> {
    let line = |points: &[(f64, f64)]| -> LineString<f64> {
        points.iter().map(|(x, y)| coord! {x: 113.0 + x / 100.0, y: 28.0 + y / 100.0}).collect()
    };
    let middle = [(2.0, 0.1), (1.7, 1.03), (2.31, 2.0), (2.0, 2.9)];
    let west: Vec<_> = [(0.0, 3.0), (0.0, 0.0)].into_iter().chain(middle).collect();
    let east: Vec<_> =
        [(4.1, 0.0), (4.4, 3.1)].into_iter().chain(middle.into_iter().rev()).collect();
    let lake = [(3.0, 1.0), (3.42, 1.2), (3.1, 1.77)];
    let boundary = |code: &str, outer: &[(f64, f64)], holes: Vec<LineString<f64>>| Boundary {
        code: code.to_owned(),
        name: String::new(),
        shape: MultiPolygon::from(Polygon::new(line(outer), holes)),
    };
    vec![
        boundary("430102", &west, vec![]),
        boundary("430103", &east, vec![line(&lake)]),
        boundary("430104", &lake, vec![]),
    ]
}

fn grid() -> GridFile {
    generate(&boundaries(), &options(100.0)).expect("a grid")
}

fn faults(file: &GridFile) -> Vec<(FaultKind, Vec<String>)> {
    check(file).into_iter().map(|fault| (fault.kind, fault.codes)).collect()
}

/// A cell that is surrounded by cells of its own community.
fn inner_cell(file: &GridFile) -> usize {
    let number = file.cells.iter().position(|cell| cell.code == "430102002001045");
    number.expect("a community with all its cells")
}

#[test]
fn a_generated_grid_has_no_faults_and_covers_its_boundaries() {
    let file = grid();
    assert_eq!(check(&file), vec![]);
    let given: f64 = boundaries().iter().map(|boundary| area_m2(&boundary.shape)).sum();
    let cells: f64 = file.cells.iter().map(|cell| area_m2(&cell.shape)).sum();
    assert!((given - cells).abs() / given < 1e-5, "{given} against {cells}");
    let degrees = |shape: &MultiPolygon<f64>| shape.unsigned_area();
    let given: f64 = boundaries().iter().map(|boundary| degrees(&boundary.shape)).sum();
    let cells: f64 = file.cells.iter().map(|cell| degrees(&cell.shape)).sum();
    assert!((given - cells).abs() / given < 1e-9, "{given} against {cells}");
}

#[test]
fn cells_are_numbered_from_the_north_and_from_the_west() {
    let file = grid();
    let first = &file.cells[0];
    let centre = |cell: &Cell| cell.shape.bounding_rect().expect("a cell").center();
    assert_eq!(first.code, "430102001001001");
    for pair in file.cells.windows(2) {
        if pair[0].code[..12] == pair[1].code[..12] {
            let (one, other) = (centre(&pair[0]), centre(&pair[1]));
            assert!(other.y < one.y - 0.0003 || other.x > one.x, "{}", pair[1].code);
        }
    }
}

#[test]
fn an_inner_cell_is_a_hundred_metres_wide() {
    let file = grid();
    let area_m2 = file.cells[inner_cell(&file)].area_m2.expect("an area");
    assert!((area_m2 - 10_000.0).abs() < 20.0, "{area_m2}");
}

fn shift(cell: &mut Cell, east: f64) {
    cell.shape = cell.shape.map_coords(|at| coord! {x: at.x + east, y: at.y});
}

#[test]
fn a_shifted_cell_overlaps_on_one_side_and_leaves_a_gap_on_the_other() {
    let mut file = grid();
    let number = inner_cell(&file);
    shift(&mut file.cells[number], 0.0001);
    let found = faults(&file);
    let (own, east) = (file.cells[number].code.clone(), file.cells[number + 1].code.clone());
    assert!(found.contains(&(FaultKind::Overlap, vec![own, east])), "{found:?}");
    assert_eq!(found.iter().filter(|(kind, _)| *kind == FaultKind::Gap).count(), 1, "{found:?}");
}

#[test]
fn a_missing_cell_is_a_gap_between_its_neighbours() {
    let mut file = grid();
    let number = inner_cell(&file);
    let missing = file.cells.remove(number);
    let found = check(&file);
    let [gap] = found.as_slice() else { panic!("{found:?}") };
    let (lon, lat) = gap.at.expect("a place");
    let centre = missing.shape.bounding_rect().expect("a cell").center();
    assert_eq!(gap.kind, FaultKind::Gap);
    assert!(gap.codes.contains(&file.cells[number].code), "{gap}");
    assert!((lon - centre.x).hypot(lat - centre.y) < 1e-6, "{gap}");
}

#[test]
fn a_ring_that_crosses_itself_is_named() {
    let mut file = grid();
    let number = inner_cell(&file);
    let mut corners: Vec<Coord<f64>> = file.cells[number].shape.0[0].exterior().0.clone();
    corners.swap(1, 2);
    file.cells[number].shape = MultiPolygon::from(Polygon::new(LineString::new(corners), vec![]));
    let code = file.cells[number].code.clone();
    assert!(faults(&file).contains(&(FaultKind::Ring, vec![code])));
}

#[test]
fn wrong_areas_codes_dates_and_parents_are_named() {
    let mut file = grid();
    let number = inner_cell(&file);
    let codes: Vec<String> = file.cells.iter().map(|cell| cell.code.clone()).collect();
    file.cells[0].area_m2 = file.cells[0].area_m2.map(|area_m2| area_m2 * 1.02 + 1.0);
    file.cells[1].code = codes[2].clone();
    file.cells[3].code = "43010200100100".to_owned();
    file.cells[4].valid_from = Some(jiff::civil::date(2026, 2, 1));
    file.cells[4].valid_to = Some(jiff::civil::date(2026, 1, 1));
    file.cells[number].code = "430102002002999".to_owned();
    file.head.names.insert("430199".to_owned(), "nowhere".to_owned());
    let expected = [
        (FaultKind::Code, vec!["43010200100100".to_owned()]),
        (FaultKind::RepeatedCode, vec![codes[2].clone()]),
        (FaultKind::Hierarchy, vec!["430199".to_owned()]),
        (FaultKind::Hierarchy, vec!["430102002002999".to_owned()]),
        (FaultKind::Area, vec![codes[0].clone()]),
        (FaultKind::Dates, vec![codes[4].clone()]),
    ];
    assert_eq!(faults(&file), expected);
}

/// The real districts of Changsha, where the data's folder is named.
#[test]
fn a_grid_in_the_real_districts_has_no_faults() {
    let Ok(folder) = std::env::var("CITYCELL_DATA") else {
        println!("skipped: CITYCELL_DATA does not name the data's folder");
        return;
    };
    let path = std::path::Path::new(&folder).join("changsha_geo/430100.json");
    let names = crate::grid::boundaries::BoundaryProperties {
        code: "adcode".to_owned(),
        name: "name".to_owned(),
    };
    let boundaries = crate::grid::boundaries::read(&path, &names).expect("districts");
    let file = generate(&boundaries, &options(1000.0)).expect("a grid");
    let found = check(&file);
    assert_eq!(found, vec![], "{} cells", file.cells.len());
}
