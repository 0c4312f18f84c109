//! `citycell grid`.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use citycell_operators::plan::Crs;
use clap::{Args, Subcommand, ValueEnum};
use jiff::civil::Date;
use serde_json::json;

use super::boundaries::{self, BoundaryProperties};
use super::check::check;
use super::file::City;
use super::generate::{GenerateOptions, generate};
use super::layout::Layout;
use super::{load, show};

/// Make, check and look at grids.
#[derive(Debug, Subcommand)]
pub enum GridCommand {
    /// Lay a unit grid into given boundaries
    Generate(GenerateArgs),
    /// Find what is wrong with a grid, and where; exit code 1 if anything is
    Check(CheckArgs),
    /// Show a grid's levels, or one cell
    Show(ShowArgs),
}

/// `citycell grid generate`.
#[derive(Args, Debug)]
pub struct GenerateArgs {
    /// GeoJSON polygons of districts, streets or communities
    boundaries: PathBuf,
    /// The grid file to write
    #[arg(long)]
    out: PathBuf,
    /// The coordinate system of the boundaries; the grid keeps it
    #[arg(long, value_enum)]
    crs: CrsArg,
    /// The city's code
    #[arg(long)]
    city_code: String,
    /// The city's name
    #[arg(long, default_value = "")]
    city_name: String,
    /// The property of a boundary that holds its code
    #[arg(long, default_value = "code")]
    code_property: String,
    /// The property of a boundary that holds its name
    #[arg(long, default_value = "name")]
    name_property: String,
    /// Only boundaries whose codes begin so; may be given several times
    #[arg(long)]
    only: Vec<String>,
    /// The side of a square in metres
    #[arg(long, default_value_t = 100.0)]
    cell_m: f64,
    /// The side of a made-up community in squares
    #[arg(long, default_value_t = 10)]
    community_cells: i64,
    /// The side of a made-up street in communities
    #[arg(long, default_value_t = 3)]
    street_communities: i64,
    /// The widths of the code's segments: district, street, community, cell
    #[arg(long, default_value = "6+3+3+3")]
    layout: Layout,
    /// The first day on which the cells are valid, such as 2026-01-31
    #[arg(long)]
    valid_from: Option<Date>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// `citycell grid check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The grid file
    grid: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// `citycell grid show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// The grid file
    grid: PathBuf,
    /// The cell of this code
    #[arg(long, conflicts_with = "point")]
    cell: Option<String>,
    /// The cell at this point
    #[arg(long, value_names = ["LON", "LAT"], num_args = 2, allow_negative_numbers = true, requires = "crs")]
    point: Option<Vec<f64>>,
    /// The point's coordinate system
    #[arg(long, value_enum)]
    crs: Option<CrsArg>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A coordinate system.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CrsArg {
    /// WGS 84 (CGCS2000 at our precision)
    Wgs84,
    /// GCJ-02
    Gcj02,
    /// BD-09
    Bd09,
}

impl From<CrsArg> for Crs {
    fn from(crs: CrsArg) -> Self {
        match crs {
            CrsArg::Wgs84 => Self::Wgs84,
            CrsArg::Gcj02 => Self::Gcj02,
            CrsArg::Bd09 => Self::Bd09,
        }
    }
}

/// Runs the command; what it prints is its answer.
///
/// # Errors
/// What reading, generating and writing return.
pub fn run(command: GridCommand) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        GridCommand::Generate(args) => run_generate(args),
        GridCommand::Check(args) => run_check(&args),
        GridCommand::Show(args) => run_show(&args),
    }
}

fn run_generate(args: GenerateArgs) -> Result<ExitCode, Box<dyn Error>> {
    let names = BoundaryProperties { code: args.code_property, name: args.name_property };
    let mut boundaries = boundaries::read(&args.boundaries, &names)?;
    let wanted = |code: &str| args.only.iter().any(|prefix| code.starts_with(prefix));
    boundaries.retain(|boundary| args.only.is_empty() || wanted(&boundary.code));
    let options = GenerateOptions {
        crs: args.crs.into(),
        city: City { code: args.city_code, name: args.city_name },
        layout: args.layout,
        cell_m: args.cell_m,
        community_cells: args.community_cells,
        street_communities: args.street_communities,
        valid_from: args.valid_from,
    };
    let grid = generate(&boundaries, &options)?;
    let mut out = BufWriter::new(File::create(&args.out)?);
    grid.write(&mut out)?;
    out.flush()?;
    let area_m2: f64 = grid.cells.iter().filter_map(|cell| cell.area_m2).sum();
    if args.json {
        println!("{}", json!({"cells": grid.cells.len(), "area_m2": area_m2}));
    } else {
        let area_km2 = area_m2 / 1e6;
        println!("{} cells, {area_km2:.3} km2 in {}", grid.cells.len(), args.out.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn run_check(args: &CheckArgs) -> Result<ExitCode, Box<dyn Error>> {
    let grid = load::parse(&args.grid, &load::read(&args.grid)?)?;
    let faults = check(&grid);
    if args.json {
        println!("{}", json!({"cells": grid.cells.len(), "faults": faults}));
    } else {
        for fault in &faults {
            println!("{:?}: {fault}", fault.kind);
        }
        println!("{} cells, {} faults", grid.cells.len(), faults.len());
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_show(args: &ShowArgs) -> Result<ExitCode, Box<dyn Error>> {
    let grid = load::load(&args.grid)?;
    let place = match (&args.cell, args.point.as_deref(), args.crs) {
        (Some(code), ..) => grid.located.locate_code(code),
        (None, Some([lon, lat]), Some(crs)) => grid.located.locate_point(*lon, *lat, crs.into()),
        _ => return print(&show::summary(&grid), args.json),
    };
    match place {
        Some(place) => print(&show::cell(&grid, place), args.json),
        None => Err("no cell of the grid has this code or point".into()),
    }
}

fn print(
    answer: &(impl serde::Serialize + std::fmt::Display),
    json: bool,
) -> Result<ExitCode, Box<dyn Error>> {
    if json {
        println!("{}", serde_json::to_string(answer)?);
    } else {
        println!("{answer}");
    }
    Ok(ExitCode::SUCCESS)
}
