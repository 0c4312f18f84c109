//! What holds for pipeline files of any text; `make fuzz` looks for some that break it.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::Schema;
use citycell_operators::{
    locate::LocatedGrid,
    plan::{Crs, Plan},
    prepare::Prepare,
};
use citycell_schemas::{EventSchema, Grid, event::shipped};

use super::{ConfigError, ConfigErrors, columns_of, error::lines, parse_pipeline};
use crate::{clickhouse::tables::PipelineTable, pipeline::Pipeline};

/// Reads `data` as a pipeline file over the shipped schemas.
///
/// # Panics
/// If a file that is found good cannot be run, or a fault stands nowhere in the file.
pub fn hold(data: &[u8]) {
    static SCHEMAS: LazyLock<Vec<EventSchema>> = LazyLock::new(shipped);
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse_pipeline("p.yaml", text, &SCHEMAS) {
        Ok(pipeline) => {
            assert_eq!(pipeline.text, text);
            assert!(pipeline.fields.iter().all(|field| pipeline.schema.field(field).is_some()));
            runs(&pipeline.into());
        }
        Err(ConfigErrors(errors)) => {
            assert!(!errors.is_empty(), "refused without a word");
            errors.iter().for_each(|error| stands_in(text, error));
        }
    }
}

/// A plan survives the way into a manifest and back, and everything it is run with can be made.
fn runs(pipeline: &Pipeline) {
    static NOWHERE: LazyLock<Arc<LocatedGrid>> = LazyLock::new(|| {
        let grid = Arc::new(Grid::new("none".into(), Vec::new()));
        Arc::new(LocatedGrid::new(grid, Crs::Wgs84, Vec::new()))
    });
    let plan = &pipeline.plan;
    let json = serde_json::to_string(plan).expect("a plan is always JSON");
    let back: Plan = serde_json::from_str(&json).expect("what was written is read");
    assert_eq!(back, *plan);
    let columns: Schema = columns_of(&pipeline.schema);
    pipeline.decoder().expect("a checked pipeline's events are decoded");
    Prepare::new(plan, &columns, Arc::clone(&NOWHERE)).expect("a checked pipeline is prepared");
    let grid = NOWHERE.grid();
    let table = PipelineTable::new(plan, &pipeline.version(grid), pipeline.groups.clone(), grid);
    let columns = table.columns();
    for (index, (name, _)) in columns.iter().enumerate() {
        let is_taken = columns[..index].iter().any(|(other, _)| other == name);
        assert!(!is_taken, "the table has two columns {name}");
    }
}

/// A fault names a line and a column of the file, and shows that line; line 0 is the whole file.
fn stands_in(text: &str, error: &ConfigError) {
    assert!(!error.message.is_empty() && !error.to_string().is_empty());
    if error.line == 0 {
        return;
    }
    let line = usize::try_from(error.line).expect("a small number") - 1;
    let source_line = lines(text).nth(line).unwrap_or_default();
    let lines = lines(text).count().max(1);
    assert!(line < lines, "line {} of {lines}: {}", error.line, error.message);
    assert_eq!(error.source_line, source_line, "{}", error.message);
    let columns = source_line.chars().count() as u64 + 1;
    assert!((1..=columns).contains(&error.column), "{error}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn inputs_that_once_broke_it_do_no_more() {
        for input in std::fs::read_dir("../fuzz/inputs/config").expect("kept inputs") {
            let input = input.expect("a file").path();
            super::hold(&std::fs::read(&input).expect("its bytes"));
        }
    }
}
