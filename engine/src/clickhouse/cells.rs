//! The table `cells`: the places of the grid by code, for the views to join.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float64Array, StringArray},
    record_batch::RecordBatch,
};
use citycell_schemas::{Grid, Level, Place};

use super::{ClickHouse, ClickHouseError, rows::arrow_stream, tables::level_name};

/// Writes all places of this grid; a place written twice is the same row.
///
/// # Errors
/// ClickHouse's.
pub async fn write(clickhouse: &ClickHouse, grid: &Grid) -> Result<(), ClickHouseError> {
    clickhouse.insert_arrow("cells", arrow_stream(&columns(grid))).await
}

fn columns(grid: &Grid) -> RecordBatch {
    let places = || (0u32..).zip(grid.places()).map(|(number, entry)| (Place(number), entry));
    let code_at = |level: Level| -> ArrayRef {
        let code = |place| grid.at_level(place, level).map_or("", |above| &grid.entry(above).code);
        Arc::new(StringArray::from_iter_values(places().map(|(place, _)| code(place))))
    };
    let grids = places().map(|_| grid.version());
    let levels = places().map(|(_, entry)| level_name(entry.level));
    let codes = places().map(|(_, entry)| &entry.code);
    let names = places().map(|(_, entry)| &entry.name);
    let areas = places().map(|(_, entry)| entry.area_m2);
    RecordBatch::try_from_iter([
        ("grid", Arc::new(StringArray::from_iter_values(grids)) as ArrayRef),
        ("level", Arc::new(StringArray::from_iter_values(levels))),
        ("cell", Arc::new(StringArray::from_iter_values(codes))),
        ("name", Arc::new(StringArray::from_iter_values(names))),
        ("community", code_at(Level::Community)),
        ("street", code_at(Level::Street)),
        ("district", code_at(Level::District)),
        ("area_m2", Arc::new(Float64Array::from_iter_values(areas))),
    ])
    .expect("all columns have one value per place")
}
