//! The places of a city: cells and the levels above them, numbered densely.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// A place's number within one [`Grid`]: an index into [`Grid::places`].
///
/// Cells and all levels above share one numbering, so that one key type serves every level.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Place(pub u32);

/// The levels of city management, finest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The smallest management cell: a building or a unit grid cell of about 100 m.
    Cell,
    /// 社区.
    Community,
    /// 街道.
    Street,
    /// 区.
    District,
    /// The whole city.
    City,
}

/// What is known of one place, without its polygon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlaceEntry {
    /// Its code, for example the 15 digits of a unit grid cell.
    pub code: String,
    /// Its name; empty where it has none.
    pub name: String,
    /// Its level.
    pub level: Level,
    /// The place one level up; none for the city itself.
    pub parent: Option<Place>,
    /// Its area in square metres.
    pub area_m2: f64,
}

/// Every place of one version of the grid.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    version: String,
    places: Vec<PlaceEntry>,
    by_code: HashMap<(Level, String), Place>,
}

impl Grid {
    /// A grid of these places; `version` names it in bindings and in `runs`.
    #[must_use]
    pub fn new(version: String, places: Vec<PlaceEntry>) -> Self {
        let by_code = (0u32..)
            .zip(&places)
            .map(|(number, entry)| ((entry.level, entry.code.clone()), Place(number)))
            .collect();
        Self { version, places, by_code }
    }

    /// The name of this version: a hash of its content.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// All places; a [`Place`] is an index into them.
    #[must_use]
    pub fn places(&self) -> &[PlaceEntry] {
        &self.places
    }

    /// What is known of `place`.
    #[must_use]
    pub fn entry(&self, place: Place) -> &PlaceEntry {
        &self.places[place.0 as usize]
    }

    /// The place of this code on this level.
    #[must_use]
    pub fn by_code(&self, level: Level, code: &str) -> Option<Place> {
        // A borrowed pair is no key of a map of owned pairs; this is not the hot path, `locate` is.
        self.by_code.get(&(level, code.to_owned())).copied()
    }

    /// `place` itself or the place above it on `level`.
    #[must_use]
    pub fn at_level(&self, place: Place, level: Level) -> Option<Place> {
        std::iter::successors(Some(place), |place| self.entry(*place).parent)
            .find(|place| self.entry(*place).level == level)
    }
}
