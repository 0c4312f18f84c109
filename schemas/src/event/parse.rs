//! An event schema from its YAML text.
//!
//! Unknown keys are refused, and so is what has no meaning for a field's type (a range of a text,
//! say). Every error names file, line and column.

use std::collections::HashSet;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::{EventSchema, Field, FieldType, Personal, Range, TimeFormat};

/// The most fields of one schema: decoding marks fields seen in one 64-bit word.
pub const FIELDS_MAX: usize = 64;

/// The most decimals of a number; more than a 64-bit float carries is noise.
pub const DECIMALS_MAX: u8 = 12;

/// The decimals of a number that states none.
const DECIMALS_DEFAULT: u8 = 6;

/// A schema file that cannot be used: its author's fault, trying again does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct SchemaError {
    /// The file's name as given.
    pub file: String,
    /// The line, from 1; 0 where the file as a whole is at fault.
    pub line: u64,
    /// The column in characters, from 1; 0 where the file as a whole is at fault.
    pub column: u64,
    /// What is wrong.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemaFile {
    name: Spanned<String>,
    version: Spanned<u32>,
    description: String,
    #[serde(default)]
    cloudevents_type: Option<String>,
    fields: Spanned<Vec<FieldEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldEntry {
    name: Spanned<String>,
    #[serde(rename = "type")]
    kind: FieldType,
    #[serde(default)]
    unit: String,
    meaning: String,
    #[serde(default)]
    required: bool,
    #[serde(default)]
    range: Option<Spanned<Range>>,
    #[serde(default)]
    decimals: Option<Spanned<u8>>,
    #[serde(default)]
    values: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    format: Option<Spanned<TimeFormat>>,
    #[serde(default)]
    personal: Option<Personal>,
}

/// A message and where in the file it belongs.
type Fault = (Location, String);

impl EventSchema {
    /// The schema that `text` describes; `file_name` is for messages only.
    ///
    /// # Errors
    /// Text that is not YAML, an unknown or missing key, a name that is empty, repeated or not made
    /// of letters, digits and `_`, or a setting that its field's type does not have.
    pub fn from_yaml(file_name: &str, text: &str) -> Result<Self, SchemaError> {
        let options = serde_saphyr::options! { with_snippet: false };
        let file: SchemaFile =
            serde_saphyr::from_str_with_options(text, options).map_err(|error| {
                let location = error.location().unwrap_or(Location::UNKNOWN);
                schema_error(file_name, (location, message_of(&error)))
            })?;
        file.check().map_err(|fault| schema_error(file_name, fault))
    }
}

/// The error's sentence; the location, which its Display repeats, is said by [`SchemaError`].
fn message_of(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn schema_error(file_name: &str, (location, message): Fault) -> SchemaError {
    SchemaError {
        file: file_name.to_owned(),
        line: location.line(),
        column: location.column(),
        message,
    }
}

impl SchemaFile {
    fn check(self) -> Result<EventSchema, Fault> {
        check_name(&self.name)?;
        if self.version.value == 0 {
            return fault(&self.version, "versions count from 1".to_owned());
        }
        if self.fields.value.is_empty() || self.fields.value.len() > FIELDS_MAX {
            return fault(&self.fields, format!("a schema has 1 to {FIELDS_MAX} fields"));
        }
        let mut seen = HashSet::new();
        for field in &self.fields.value {
            if !seen.insert(field.name.value.clone()) {
                return fault(&field.name, format!("field {:?} occurs twice", field.name.value));
            }
        }
        Ok(EventSchema {
            name: self.name.value,
            version: self.version.value,
            description: self.description.trim().to_owned(),
            cloudevents_type: self.cloudevents_type,
            fields: self
                .fields
                .value
                .into_iter()
                .map(FieldEntry::check)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl FieldEntry {
    fn check(self) -> Result<Field, Fault> {
        check_name(&self.name)?;
        self.check_settings()?;
        self.check_limits()?;
        let decimals = match self.kind {
            FieldType::Number => self.decimals.map_or(DECIMALS_DEFAULT, |entry| entry.value),
            _ => 0,
        };
        Ok(Field {
            name: self.name.value,
            kind: self.kind,
            unit: self.unit,
            meaning: self.meaning.trim().to_owned(),
            required: self.required,
            range: self.range.map(|entry| entry.value),
            decimals,
            values: self.values.map(|entry| entry.value).unwrap_or_default(),
            time_format: self.format.map(|entry| entry.value).unwrap_or_default(),
            personal: self.personal,
        })
    }

    /// Refuses settings that belong to another type.
    fn check_settings(&self) -> Result<(), Fault> {
        let numeric = matches!(self.kind, FieldType::Integer | FieldType::Number);
        let settings = [
            ("range", location_of(&self.range), numeric),
            ("decimals", location_of(&self.decimals), self.kind == FieldType::Number),
            ("values", location_of(&self.values), self.kind == FieldType::Text),
            ("format", location_of(&self.format), self.kind == FieldType::Time),
        ];
        for (setting, location, fits) in settings {
            if let (Some(location), false) = (location, fits) {
                let kind = self.kind.as_str();
                return Err((location, format!("a field of type {kind} has no {setting}")));
            }
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), Fault> {
        if let Some(entry) = &self.range {
            let Range { min, max } = entry.value;
            if min.is_some_and(f64::is_nan) || max.is_some_and(f64::is_nan) {
                return fault(entry, "a range's limits are numbers".to_owned());
            }
            if let (Some(min), Some(max)) = (min, max)
                && min > max
            {
                return fault(entry, format!("the range is empty: {min} is more than {max}"));
            }
        }
        if let Some(entry) = self.decimals.as_ref().filter(|entry| entry.value > DECIMALS_MAX) {
            return fault(entry, format!("at most {DECIMALS_MAX} decimals"));
        }
        if let Some(entry) = self.values.as_ref().filter(|entry| entry.value.is_empty()) {
            return fault(entry, "no value is allowed: list some, or leave the key out".to_owned());
        }
        Ok(())
    }
}

/// Names are column names and SQL identifiers, so they are kept to what needs no quoting.
fn check_name(name: &Spanned<String>) -> Result<(), Fault> {
    let mut chars = name.value.chars();
    let starts_well = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if starts_well && chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    let value = &name.value;
    fault(name, format!("{value:?} is no name: letters, digits and _, not starting with a digit"))
}

fn fault<T, R>(at: &Spanned<T>, message: String) -> Result<R, Fault> {
    Err((at.referenced, message))
}

fn location_of<T>(entry: &Option<Spanned<T>>) -> Option<Location> {
    entry.as_ref().map(|entry| entry.referenced)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name: noise\nversion: 1\ndescription: A sound level.\nfields:\n";

    fn parse(fields: &str) -> Result<EventSchema, SchemaError> {
        EventSchema::from_yaml("noise.yaml", &format!("{HEAD}{fields}"))
    }

    #[test]
    fn a_field_gets_its_settings_and_defaults() {
        let schema = parse(
            "  - {name: level, type: number, unit: dB, meaning: How loud., range: {min: 0}}\n  \
             - {name: caller, type: text, meaning: Who., personal: direct}\n  \
             - {name: at, type: time, meaning: When., required: true, format: epoch_ms}\n",
        )
        .expect("a good schema");
        let level = schema.field("level").expect("a field");
        assert_eq!((level.decimals, level.required), (6, false));
        assert_eq!(level.range, Some(Range { min: Some(0.0), max: None }));
        assert_eq!(schema.field("at").map(|at| at.time_format), Some(TimeFormat::EpochMs));
        assert_eq!(schema.field("none"), None);
        assert_eq!(level.personal, None);
        let personal: Vec<_> = schema.personal_fields().map(|field| field.personal).collect();
        assert_eq!(personal, [Some(Personal::Direct)]);
    }

    #[test]
    fn faults_name_file_line_and_column() {
        let cases = [
            ("  - {name: a, type: text, meaning: m, colour: red}\n", "5:", "colour"),
            ("  - {name: a, type: float, meaning: m}\n", "5:", "float"),
            ("  - {name: a, type: text, meaning: m, personal: true}\n", "5:", "pseudonym"),
            ("  - {name: a, type: text}\n", "5:", "meaning"),
            (
                "  - name: a\n    type: text\n    meaning: m\n    range: {min: 1}\n",
                "8:12:",
                "range",
            ),
            ("  - {name: a, type: time, meaning: m, values: [b]}\n", "5:", "values"),
            ("  - {name: 1a, type: text, meaning: m}\n", "5:12:", "1a"),
            ("  - {name: a, type: number, meaning: m, range: {min: 2, max: 1}}\n", "5:", "empty"),
            ("  - {name: a, type: number, meaning: m, range: {min: .nan}}\n", "5:", "limits"),
            ("  - {name: a, type: number, meaning: m, decimals: 13}\n", "5:", "12"),
            ("  - {name: a, type: text, meaning: m, values: []}\n", "5:", "no value"),
            (
                "  - {name: a, type: text, meaning: m}\n  - {name: a, type: text, meaning: m}\n",
                "6:12:",
                "twice",
            ),
            ("  []\n", "5:", "1 to 64"),
            ("  - {name: [\n", "", ""),
        ];
        for (fields, place, word) in cases {
            let message = parse(fields).expect_err(fields).to_string();
            assert!(message.starts_with(&format!("noise.yaml:{place}")), "{message}");
            assert!(message.contains(word), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
