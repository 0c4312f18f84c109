//! How a cell's code is made up of segments.

use citycell_schemas::Level;
use serde::{Deserialize, Serialize};

/// The widths of a code's segments: district, street, community, cell. By default 6+3+3+3.
///
/// The code of a level above the cell is the cell's code up to the end of that level's segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "[u8; 4]", into = "[u8; 4]")]
pub struct Layout {
    widths: [u8; 4],
}

/// The widths are no layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a layout has four segments of 1 to 9 characters, for example [6, 3, 3, 3]")]
pub struct LayoutError;

/// The levels that have a segment, in the order of the code.
pub const SEGMENTS: [Level; 4] = [Level::District, Level::Street, Level::Community, Level::Cell];

impl Default for Layout {
    fn default() -> Self {
        Self { widths: [6, 3, 3, 3] }
    }
}

impl TryFrom<[u8; 4]> for Layout {
    type Error = LayoutError;

    fn try_from(widths: [u8; 4]) -> Result<Self, LayoutError> {
        let valid = widths.iter().all(|width| (1..=9).contains(width));
        valid.then_some(Self { widths }).ok_or(LayoutError)
    }
}

impl From<Layout> for [u8; 4] {
    fn from(layout: Layout) -> Self {
        layout.widths
    }
}

impl std::str::FromStr for Layout {
    type Err = LayoutError;

    /// Reads `6+3+3+3`.
    fn from_str(text: &str) -> Result<Self, LayoutError> {
        let widths: Vec<u8> =
            text.split('+').map(str::parse).collect::<Result<_, _>>().map_err(|_| LayoutError)?;
        Self::try_from(<[u8; 4]>::try_from(widths).map_err(|_| LayoutError)?)
    }
}

impl Layout {
    /// The width of the segment of `level`; 0 for the city, which has none.
    #[must_use]
    pub fn width(&self, level: Level) -> usize {
        let segment = SEGMENTS.iter().position(|other| *other == level);
        segment.map_or(0, |segment| usize::from(self.widths[segment]))
    }

    /// The length of a code of `level`; 0 for the city, whose code is not a part of the cell's.
    #[must_use]
    pub fn length(&self, level: Level) -> usize {
        let segments = SEGMENTS.iter().filter(|other| **other >= level);
        segments.map(|other| self.width(*other)).sum()
    }

    /// The level whose codes have this length.
    #[must_use]
    pub fn level_of_length(&self, length: usize) -> Option<Level> {
        SEGMENTS.into_iter().find(|level| self.length(*level) == length)
    }

    /// Whether `code` is a code of `level`: letters and digits, of the right number.
    #[must_use]
    pub fn is_code(&self, code: &str, level: Level) -> bool {
        code.len() == self.length(level) && code.bytes().all(|byte| byte.is_ascii_alphanumeric())
    }

    /// The code of `level` in a cell's code.
    ///
    /// # Panics
    /// If `cell` is not a code, see [`Self::is_code`].
    #[must_use]
    pub fn prefix<'code>(&self, cell: &'code str, level: Level) -> &'code str {
        &cell[..self.length(level)]
    }

    /// The largest number that the segment of `level` holds.
    #[must_use]
    pub fn number_max(&self, level: Level) -> usize {
        10_usize.pow(self.width(level) as u32) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_contains_the_codes_above() {
        let layout = Layout::default();
        let code = "430102001002003";
        assert!(layout.is_code(code, Level::Cell));
        assert_eq!(layout.prefix(code, Level::Community), "430102001002");
        assert_eq!(layout.prefix(code, Level::Street), "430102001");
        assert_eq!(layout.prefix(code, Level::District), "430102");
        assert_eq!(layout.level_of_length(9), Some(Level::Street));
        assert_eq!(layout.number_max(Level::Cell), 999);
    }

    #[test]
    fn four_segments_and_nothing_else() {
        assert_eq!("6+3+3+2".parse(), Layout::try_from([6, 3, 3, 2]));
        for text in ["6+3+3", "6+3+3+0", "6+3+3+10", "6,3,3,3", ""] {
            assert_eq!(text.parse::<Layout>(), Err(LayoutError), "{text}");
        }
    }
}
