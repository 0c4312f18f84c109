//! Pipelines as YAML files, read into validated plans.
//!
//! Unknown keys are errors, durations carry their unit, and what would be dangerous to assume (a
//! coordinate system, how late an event may be) has no default. Every expression is checked against
//! the event schema here, so that nothing about a pipeline is found wrong while it runs. All faults
//! of a file's content are reported together; a file that is no YAML, or has unknown or missing keys,
//! is reported by its first.

mod cases;
mod duration;
mod error;
mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod syntax;
mod validate;

use std::path::Path;

use arrow::datatypes::{Field, Schema};
use citycell_operators::decode::{IdSource, arrow_type};
use citycell_operators::plan::Plan;
use citycell_schemas::EventSchema;

pub use cases::{ExpectedRow, GivenEvent, GivenRecord, TestCase};
pub use duration::{format_duration, parse_duration_ms};
pub use error::{ConfigError, ConfigErrors};

/// A pipeline file that was read and found good.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// What the dataflow does.
    pub plan: Plan,
    /// What its numbers mean, for those who read them.
    pub description: String,
    /// The schema of its events.
    pub schema: EventSchema,
    /// What names an event.
    pub ids: IdSource,
    /// The fields that it reads, in the schema's order.
    pub fields: Vec<String>,
    /// The group columns with their types.
    pub groups: Vec<Field>,
    /// The cases of `citycell test`.
    pub tests: Vec<TestCase>,
    /// The file's text, which names the version of the pipeline.
    pub text: String,
}

/// Reads the pipeline file at `path`; its schema is one of `schemas`.
///
/// # Errors
/// A file that cannot be read, and every fault of its content.
pub fn load_pipeline(path: &Path, schemas: &[EventSchema]) -> Result<Pipeline, ConfigErrors> {
    let file = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse_pipeline(&file, &text, schemas),
        Err(error) => Err(ConfigErrors::of_file(file, format!("cannot read the file: {error}"))),
    }
}

/// Reads a pipeline from `text`; `file` names it in errors.
///
/// # Errors
/// Every fault of its content.
pub fn parse_pipeline(
    file: &str,
    text: &str,
    schemas: &[EventSchema],
) -> Result<Pipeline, ConfigErrors> {
    let entries = syntax::read(file, text)?;
    validate::pipeline(file, text, entries, schemas)
}

/// The columns of a schema's events.
#[must_use]
pub fn columns_of(schema: &EventSchema) -> Schema {
    let fields = schema.fields.iter();
    Schema::new(
        fields
            .map(|field| Field::new(&field.name, arrow_type(field.kind), true))
            .collect::<Vec<_>>(),
    )
}

/// The JSON Schema of pipeline files, for editors.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(file::PipelineFile).to_value()
}

#[cfg(test)]
mod tests;
