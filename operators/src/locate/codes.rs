//! Which cell a code names.

use ahash::AHashMap;
use citycell_schemas::{Grid, Level, Place};

/// The cells of a grid by their codes.
#[derive(Debug)]
pub struct CodeIndex {
    by_code: AHashMap<Box<[u8]>, Place>,
}

impl CodeIndex {
    /// The cells of `grid`; the levels above are not in it.
    #[must_use]
    pub fn new(grid: &Grid) -> Self {
        let by_code = (0u32..)
            .zip(grid.places())
            .filter(|(_, entry)| entry.level == Level::Cell)
            .map(|(number, entry)| (entry.code.as_bytes().into(), Place(number)))
            .collect();
        Self { by_code }
    }

    /// The cell of exactly this code.
    #[inline]
    #[must_use]
    pub fn locate(&self, code: &[u8]) -> Option<Place> {
        self.by_code.get(code).copied()
    }
}
