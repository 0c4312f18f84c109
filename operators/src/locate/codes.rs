//! Which cell a code names.

use ahash::AHashMap;
use citycell_schemas::{Grid, Level, Place};

/// The cells of a grid by their codes.
///
/// A code of the usual length lies in the table itself: a look-up in a city of a million cells then
/// misses the cache once, not twice.
#[derive(Debug)]
pub struct CodeIndex {
    by_packed: AHashMap<u128, Place>,
    by_long: AHashMap<Box<[u8]>, Place>,
}

impl CodeIndex {
    /// The cells of `grid`; the levels above are not in it.
    #[must_use]
    pub fn new(grid: &Grid) -> Self {
        let (mut by_packed, mut by_long) = (AHashMap::new(), AHashMap::new());
        for (number, entry) in (0u32..).zip(grid.places()) {
            if entry.level != Level::Cell {
                continue;
            }
            let code = entry.code.as_bytes();
            match packed(code) {
                Some(packed) => by_packed.insert(packed, Place(number)),
                None => by_long.insert(code.into(), Place(number)),
            };
        }
        Self { by_packed, by_long }
    }

    /// The cell of exactly this code.
    #[inline]
    #[must_use]
    pub fn locate(&self, code: &[u8]) -> Option<Place> {
        match packed(code) {
            Some(packed) => self.by_packed.get(&packed).copied(),
            None => self.by_long.get(code).copied(),
        }
    }
}

/// The code and its length as one number, if they fit: up to 15 bytes, as the national code has.
#[inline]
fn packed(code: &[u8]) -> Option<u128> {
    let mut bytes = [0; 16];
    bytes.get_mut(..code.len()).filter(|_| code.len() < 16)?.copy_from_slice(code);
    bytes[15] = u8::try_from(code.len()).ok()?;
    Some(u128::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use citycell_schemas::grid::PlaceEntry;

    #[test]
    fn codes_are_told_apart_whatever_their_length() {
        let codes = ["1", "1\0", "430102001001001", "4301020010010010", "43010200100100100000"];
        let entry = |code: &&str| PlaceEntry {
            code: (*code).to_owned(),
            name: String::new(),
            level: Level::Cell,
            parent: None,
            area_m2: 1.0,
        };
        let grid = Grid::new("codes".to_owned(), codes.iter().map(entry).collect());
        let index = CodeIndex::new(&grid);
        for (number, code) in (0u32..).zip(codes) {
            assert_eq!(index.locate(code.as_bytes()), Some(Place(number)), "{code:?}");
        }
        for other in ["", "2", "11", "43010200100100", "4301020010010011"] {
            assert_eq!(index.locate(other.as_bytes()), None, "{other:?}");
        }
    }
}
