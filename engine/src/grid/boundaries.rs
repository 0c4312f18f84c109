//! The boundaries that a grid is generated in: GeoJSON polygons with codes and names.

use std::path::{Path, PathBuf};

use geo::MultiPolygon;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::file::{FeatureProblem, Geometry};

/// One given area.
#[derive(Clone, Debug)]
pub struct Boundary {
    /// Its code, as long as the codes of its level.
    pub code: String,
    /// Its name.
    pub name: String,
    /// Its polygons.
    pub shape: MultiPolygon<f64>,
}

/// Which properties of a feature hold its code and its name.
#[derive(Clone, Debug)]
pub struct BoundaryProperties {
    /// The code's; a text or a whole number.
    pub code: String,
    /// The name's.
    pub name: String,
}

/// Boundaries that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BoundaryError {
    /// The file could not be read.
    #[error("cannot read the boundaries {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The text is no collection of polygons.
    #[error("{} is no GeoJSON collection of polygons", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A feature has no code.
    #[error("{}: feature {number} has no property `{property}` with a code", path.display())]
    NoCode {
        /// The file.
        path: PathBuf,
        /// The feature's number, from 1.
        number: usize,
        /// The property looked for.
        property: String,
    },
    /// A feature has no rings, or broken ones.
    #[error("{}: feature {number} has no usable polygon", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The feature's number, from 1.
        number: usize,
        /// What is wrong.
        source: FeatureProblem,
    },
}

#[derive(Deserialize)]
struct Collection {
    features: Vec<Feature>,
}

#[derive(Deserialize)]
struct Feature {
    #[serde(default)]
    properties: Map<String, Value>,
    geometry: Geometry,
}

/// Reads the boundaries in `path`.
///
/// # Errors
/// See [`BoundaryError`]; all of them are the file's fault.
pub fn read(path: &Path, names: &BoundaryProperties) -> Result<Vec<Boundary>, BoundaryError> {
    let bytes = std::fs::read(path)
        .map_err(|source| BoundaryError::Read { path: path.to_owned(), source })?;
    let collection: Collection = serde_json::from_slice(&bytes)
        .map_err(|source| BoundaryError::Parse { path: path.to_owned(), source })?;
    let boundary = |(number, feature): (usize, Feature)| {
        let code = match feature.properties.get(&names.code) {
            Some(Value::String(code)) => Some(code.clone()),
            Some(Value::Number(code)) => Some(code.to_string()),
            _ => None,
        };
        let property = names.code.clone();
        let code = code.ok_or(BoundaryError::NoCode { path: path.to_owned(), number, property })?;
        let name = feature.properties.get(&names.name).and_then(Value::as_str).unwrap_or_default();
        let shape = feature.geometry.into_shape(&code);
        let shape = shape.map_err(|source| BoundaryError::Shape {
            path: path.to_owned(),
            number,
            source,
        })?;
        Ok(Boundary { code, name: name.to_owned(), shape })
    };
    (1..).zip(collection.features).map(boundary).collect()
}
