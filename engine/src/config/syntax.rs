//! From text to entries: the faults that the YAML reader finds.

use serde_saphyr::{Error, Location};

use super::error::{ConfigErrors, Faults};
use super::file::PipelineFile;

/// Keys of later versions, which deserve a better answer than "unknown".
const LATER: &[&str] = &["alerts", "hopping", "session", "device", "open_case", "max_staleness"];

/// Words that people try, and ours for them.
const SYNONYMS: &[(&str, &str)] = &[
    ("name", "pipeline"),
    ("filter", "where"),
    ("measures", "aggregate"),
    ("aggregates", "aggregate"),
    ("group", "group_by"),
    ("rollup", "roll_up"),
    ("timestamp", "event_time"),
    ("id", "identity"),
];

pub(super) fn read(file: &str, text: &str) -> Result<PipelineFile, ConfigErrors> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let mut faults = Faults::new(file, text);
        let location = error.location().unwrap_or(Location::UNKNOWN);
        let (message, hint) = explain(error.without_snippet());
        faults.at(location, message, hint);
        match faults.into_result::<()>(None) {
            Ok(()) => ConfigErrors(Vec::new()),
            Err(errors) => errors,
        }
    })
}

fn explain(error: &Error) -> (String, Option<String>) {
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            if LATER.contains(&field.as_str()) {
                return (format!("`{field}` is not supported yet"), Some(list(expected)));
            }
            (format!("unknown key `{field}`"), Some(did_you_mean(field, expected)))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("unknown value `{variant}`"), Some(did_you_mean(variant, expected)))
        }
        Error::SerdeMissingField { field, .. } => {
            (format!("the key `{field}` is missing"), missing_hint(field).map(str::to_owned))
        }
        Error::DuplicateMappingKey { key, .. } => {
            (format!("the key `{}` occurs twice", key.as_deref().unwrap_or_default()), None)
        }
        other => {
            let text = other.to_string();
            let message = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
            (message.lines().next().unwrap_or_default().to_owned(), None)
        }
    }
}

fn did_you_mean(written: &str, expected: &[&str]) -> String {
    let synonym = SYNONYMS
        .iter()
        .find(|(other, ours)| *other == written.to_lowercase() && expected.contains(ours));
    let meant = synonym
        .map(|(_, ours)| *ours)
        .or_else(|| citycell_operators::expression::closest(written, expected.iter().copied()));
    meant.map_or_else(|| list(expected), |meant| format!("did you mean `{meant}`?"))
}

fn list(expected: &[&str]) -> String {
    format!("there is {}", expected.join(", "))
}

fn missing_hint(field: &str) -> Option<&'static str> {
    Some(match field {
        "late" | "allow" => {
            "say how late an event may still correct its window: late: {allow: 10m}"
        }
        "location" => "say where events happened: location: {cell: gridCode}",
        "event_time" => "name the field that says when the event happened",
        "schema" => "name the event schema; `citycell schema` lists them",
        "aggregate" => "name at least one number: aggregate: {reports: count()}",
        "by" => "name the columns that name an entity: by: [sensorId]",
        "take" => "say which value of an entity counts: last, mean, max or sum",
        "expire" | "forget" => "a duration, for example 10m",
        "pipeline" => "name the pipeline: pipeline: crowd_flow",
        _ => return None,
    })
}
