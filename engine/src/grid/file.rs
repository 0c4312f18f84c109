//! The grid file: a GeoJSON `FeatureCollection` of cells with a `citycell` member.
//!
//! ```json
//! {"type": "FeatureCollection",
//!  "citycell": {"crs": "gcj02", "layout": [6, 3, 3, 3],
//!               "city": {"code": "430100", "name": "长沙市"}, "names": {"430102": "芙蓉区"}},
//!  "features": [
//!   {"type": "Feature",
//!    "properties": {"code": "430102001001001", "area_m2": 10004.1, "synthetic": ["street"]},
//!    "geometry": {"type": "Polygon", "coordinates": [[[112.9, 28.1], "..."]]}}]}
//! ```
//!
//! Vertices are (longitude, latitude) in the stated coordinate system. One file is one version of
//! the grid. What is read here has the form of a grid; whether it is a good one, `check` says.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use citycell_operators::plan::Crs;
use citycell_schemas::Level;
use geo::{Coord, LineString, MultiPolygon, Polygon};
use jiff::civil::Date;
use serde::de::{self, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::layout::Layout;

/// What the cells of a file have in common: its `citycell` member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridHead {
    /// The coordinate system of all vertices.
    pub crs: Crs,
    /// The segments of the codes.
    #[serde(default)]
    pub layout: Layout,
    /// The city.
    pub city: City,
    /// Names of communities, streets and districts by their codes.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
}

/// The place above all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct City {
    /// Its code.
    pub code: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// One cell as its file states it.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Its code.
    pub code: String,
    /// Its name; empty where it has none.
    pub name: String,
    /// Its area, if stated.
    pub area_m2: Option<f64>,
    /// The first day on which it is valid.
    pub valid_from: Option<Date>,
    /// The first day on which it is not valid any more.
    pub valid_to: Option<Date>,
    /// The levels of its code that were made up, not given by the city.
    pub synthetic: Vec<Level>,
    /// Its polygons.
    pub shape: MultiPolygon<f64>,
}

/// A file's content.
#[derive(Clone, Debug, PartialEq)]
pub struct GridFile {
    /// What all cells have in common.
    pub head: GridHead,
    /// The cells in the file's order.
    pub cells: Vec<Cell>,
}

impl GridFile {
    /// Reads a file's bytes.
    ///
    /// # Errors
    /// Where the text is no JSON or no grid; the message names line, column and feature.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let collection: Collection = serde_json::from_slice(bytes)?;
        Ok(Self { head: collection.citycell, cells: collection.features.0 })
    }

    /// Writes the file, one cell on a line.
    ///
    /// # Errors
    /// What `out` returns.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        write!(out, "{{\"type\":\"FeatureCollection\",\n\"citycell\":")?;
        serde_json::to_writer(&mut *out, &self.head)?;
        write!(out, ",\n\"features\":[")?;
        for (number, cell) in self.cells.iter().enumerate() {
            out.write_all(if number == 0 { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut *out, &Feature::from(cell))?;
        }
        writeln!(out, "\n]}}")
    }
}

#[derive(Deserialize)]
struct Collection {
    #[serde(rename = "type")]
    _kind: CollectionKind,
    citycell: GridHead,
    features: Features,
}

#[derive(Deserialize)]
enum CollectionKind {
    FeatureCollection,
}

#[derive(Serialize, Deserialize)]
enum FeatureKind {
    Feature,
}

struct Features(Vec<Cell>);

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FeaturesVisitor)
    }
}

struct FeaturesVisitor;

impl<'de> Visitor<'de> for FeaturesVisitor {
    type Value = Features;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of features")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Features, A::Error> {
        let mut cells = Vec::new();
        let numbered = |number: usize, error: &dyn fmt::Display| {
            de::Error::custom(format_args!("feature {}: {error}", number + 1))
        };
        while let Some(feature) =
            seq.next_element::<Feature>().map_err(|error| numbered(cells.len(), &error))?
        {
            cells.push(Cell::try_from(feature).map_err(|error| numbered(cells.len(), &error))?);
        }
        Ok(Features(cells))
    }
}

#[derive(Serialize, Deserialize)]
struct Feature {
    #[serde(rename = "type")]
    kind: FeatureKind,
    properties: Properties,
    geometry: Geometry,
}

#[derive(Serialize, Deserialize)]
struct Properties {
    code: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    area_m2: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    valid_from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    valid_to: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    synthetic: Vec<Level>,
}

/// What a feature lacks to be a cell or a boundary.
#[derive(Debug, thiserror::Error)]
pub enum FeatureProblem {
    /// A date in another form.
    #[error("{code}: `{text}` is no date such as 2026-01-31")]
    Date {
        /// The feature's code.
        code: String,
        /// What is there instead.
        text: String,
    },
    /// A ring that is none.
    #[error("{code}: a ring at ({x}, {y}) has fewer than four positions or is not closed")]
    Ring {
        /// The feature's code.
        code: String,
        /// The longitude of its first position.
        x: f64,
        /// The latitude of its first position.
        y: f64,
    },
    /// No area at all.
    #[error("{code}: no ring")]
    Empty {
        /// The feature's code.
        code: String,
    },
}

impl TryFrom<Feature> for Cell {
    type Error = FeatureProblem;

    fn try_from(feature: Feature) -> Result<Self, FeatureProblem> {
        let properties = feature.properties;
        let shape = feature.geometry.into_shape(&properties.code)?;
        Ok(Self {
            valid_from: date(&properties.code, properties.valid_from)?,
            valid_to: date(&properties.code, properties.valid_to)?,
            code: properties.code,
            name: properties.name,
            area_m2: properties.area_m2,
            synthetic: properties.synthetic,
            shape,
        })
    }
}

fn date(code: &str, text: Option<String>) -> Result<Option<Date>, FeatureProblem> {
    let parse = |text: String| {
        text.parse().map_err(|_| FeatureProblem::Date { code: code.to_owned(), text })
    };
    text.map(parse).transpose()
}

impl From<&Cell> for Feature {
    fn from(cell: &Cell) -> Self {
        Self {
            kind: FeatureKind::Feature,
            properties: Properties {
                code: cell.code.clone(),
                name: cell.name.clone(),
                area_m2: cell.area_m2,
                valid_from: cell.valid_from.map(|date| date.to_string()),
                valid_to: cell.valid_to.map(|date| date.to_string()),
                synthetic: cell.synthetic.clone(),
            },
            geometry: Geometry::from(&cell.shape),
        }
    }
}

type Ring = Vec<Position>;

/// A GeoJSON geometry with an area.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", content = "coordinates")]
pub(crate) enum Geometry {
    Polygon(Vec<Ring>),
    MultiPolygon(Vec<Vec<Ring>>),
}

/// Longitude and latitude; an altitude is read over.
#[derive(Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Position(f64, f64);

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(PositionVisitor)
    }
}

struct PositionVisitor;

impl<'de> Visitor<'de> for PositionVisitor {
    type Value = Position;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a position of longitude and latitude")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Position, A::Error> {
        let x = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
        let y = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Position(x, y))
    }
}

impl Geometry {
    pub(crate) fn into_shape(self, code: &str) -> Result<MultiPolygon<f64>, FeatureProblem> {
        let polygons = match self {
            Self::Polygon(rings) => vec![rings],
            Self::MultiPolygon(polygons) => polygons,
        };
        let shape: Result<Vec<_>, _> =
            polygons.into_iter().map(|rings| polygon(rings, code)).collect();
        let shape = shape?;
        if shape.is_empty() {
            return Err(FeatureProblem::Empty { code: code.to_owned() });
        }
        Ok(MultiPolygon::new(shape))
    }
}

fn polygon(rings: Vec<Ring>, code: &str) -> Result<Polygon<f64>, FeatureProblem> {
    let rings: Result<Vec<_>, _> = rings.into_iter().map(|ring| line_string(ring, code)).collect();
    let mut rings = rings?.into_iter();
    let exterior = rings.next().ok_or_else(|| FeatureProblem::Empty { code: code.to_owned() })?;
    Ok(Polygon::new(exterior, rings.collect()))
}

fn line_string(ring: Ring, code: &str) -> Result<LineString<f64>, FeatureProblem> {
    if ring.len() < 4 || ring.first() != ring.last() {
        let Position(x, y) = ring.first().copied().unwrap_or(Position(f64::NAN, f64::NAN));
        return Err(FeatureProblem::Ring { code: code.to_owned(), x, y });
    }
    Ok(ring.into_iter().map(|Position(x, y)| Coord { x, y }).collect())
}

impl From<&MultiPolygon<f64>> for Geometry {
    fn from(shape: &MultiPolygon<f64>) -> Self {
        let ring = |ring: &LineString<f64>| ring.0.iter().map(|at| Position(at.x, at.y)).collect();
        let rings = |polygon: &Polygon<f64>| -> Vec<Ring> {
            std::iter::once(polygon.exterior()).chain(polygon.interiors()).map(ring).collect()
        };
        match shape.0.as_slice() {
            [polygon] => Self::Polygon(rings(polygon)),
            polygons => Self::MultiPolygon(polygons.iter().map(rings).collect()),
        }
    }
}
