//! One field's value, from the JSON parser straight into its column.

use std::fmt;

use citycell_schemas::event::{Field, FieldType, Range, TimeFormat};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::events::Reason;

use super::column::{Column, Values};
use super::fault::{Fault, quoted};
use super::time::{MOMENTS_MS, parse_rfc3339_ms};

/// How one field is read.
#[derive(Clone, Debug)]
pub(crate) struct FieldReader {
    pub(crate) name: String,
    pub(crate) kind: FieldType,
    pub(crate) required: bool,
    range: Option<Range>,
    values: Vec<String>,
    time_format: TimeFormat,
}

impl FieldReader {
    pub(crate) fn new(field: &Field) -> Self {
        Self {
            name: field.name.clone(),
            kind: field.kind,
            required: field.required,
            range: field.range,
            values: field.values.clone(),
            time_format: field.time_format,
        }
    }

    fn check_range(&self, value: f64, written: impl fmt::Display) -> Result<(), Fault> {
        match &self.range {
            Some(range) if !range.contains(value) => {
                let min = range.min.map_or("any".to_owned(), |min| min.to_string());
                let max = range.max.map_or("any".to_owned(), |max| max.to_string());
                let detail = format!("{written} is not within {min} and {max}");
                Err(Fault::of_field(Reason::OutOfRange, &self.name, detail))
            }
            _ => Ok(()),
        }
    }

    fn wrong_type(&self, found: &str) -> Fault {
        let expected = match (self.kind, self.time_format) {
            (FieldType::Time, TimeFormat::EpochMs) => "a time in ms since 1970",
            (FieldType::Time, TimeFormat::Rfc3339) => "a time after RFC 3339",
            (kind, _) => kind.as_str(),
        };
        let detail = format!("expected {expected}, found {found}");
        Fault::of_field(Reason::WrongType, &self.name, detail)
    }
}

/// Reads the value that comes next into `column`. Whether it was present: null is not.
pub(crate) struct ValueSeed<'a> {
    pub(crate) reader: &'a FieldReader,
    pub(crate) column: &'a mut Column,
    pub(crate) fault: &'a mut Option<Fault>,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        let Self { reader, column, fault } = self;
        let seed = ValueSeed { reader, column, fault: &mut *fault };
        deserializer.deserialize_any(seed).inspect_err(|error| {
            // The parser itself refuses numbers beyond 64-bit floats and broken escapes.
            if fault.is_none() {
                let detail = error.to_string();
                let too_large = detail.starts_with("number out of range");
                let reason = if too_large { Reason::OutOfRange } else { Reason::NotJson };
                *fault = Some(Fault::of_field(reason, &reader.name, detail));
            }
        })
    }
}

impl ValueSeed<'_> {
    fn settle<E: Error>(self, read: Result<(), Fault>) -> Result<bool, E> {
        match read {
            Ok(()) => Ok(true),
            Err(fault) => {
                *self.fault = Some(fault);
                Err(E::custom("refused"))
            }
        }
    }

    pub(crate) fn integer(&mut self, value: i64) -> Result<(), Fault> {
        let reader = self.reader;
        #[expect(clippy::cast_precision_loss, reason = "a range's limits are floats")]
        let float = value as f64;
        match &mut self.column.values {
            Values::Integer(values) => {
                reader.check_range(float, value)?;
                values.push(value);
            }
            Values::Number(values) => {
                reader.check_range(float, value)?;
                values.push(float);
            }
            Values::Time(values) if reader.time_format == TimeFormat::EpochMs => {
                if !MOMENTS_MS.contains(&value) {
                    let detail = format!("{value} ms is not within the years 0 to 9999");
                    return Err(Fault::of_field(Reason::OutOfRange, &reader.name, detail));
                }
                values.push(value);
            }
            _ => return Err(reader.wrong_type("a number")),
        }
        self.column.present();
        Ok(())
    }

    pub(crate) fn float(&mut self, value: f64) -> Result<(), Fault> {
        let reader = self.reader;
        match &mut self.column.values {
            Values::Number(values) => {
                reader.check_range(value, value)?;
                values.push(value);
            }
            // Integers beyond 64 bits arrive as floats.
            Values::Integer(_) if value.abs() >= 9_223_372_036_854_775_807.0 => {
                let detail = format!("{value} does not fit 64 bits");
                return Err(Fault::of_field(Reason::OutOfRange, &reader.name, detail));
            }
            _ => return Err(reader.wrong_type("a number with a fraction or an exponent")),
        }
        self.column.present();
        Ok(())
    }

    pub(crate) fn boolean(&mut self, value: bool) -> Result<(), Fault> {
        let Values::Boolean(values) = &mut self.column.values else {
            return Err(self.reader.wrong_type("a boolean"));
        };
        values.push(value);
        self.column.present();
        Ok(())
    }

    pub(crate) fn text(&mut self, text: &str) -> Result<(), Fault> {
        let reader = self.reader;
        match reader.kind {
            FieldType::Text => {
                if !reader.values.is_empty() && !reader.values.iter().any(|value| value == text) {
                    let detail = format!("{} is not in the schema's list", quoted(text));
                    return Err(Fault::of_field(Reason::UnknownValue, &reader.name, detail));
                }
                if self.column.push_text(text) {
                    return Ok(());
                }
                let detail = "more than 2 GiB of text in one batch";
                Err(Fault::of_field(Reason::TooLarge, &reader.name, detail))
            }
            FieldType::Time if reader.time_format == TimeFormat::Rfc3339 => self.time(text),
            FieldType::Integer | FieldType::Number if is_not_finite(text) => {
                let detail = format!("{} is not a finite number", quoted(text));
                Err(Fault::of_field(Reason::OutOfRange, &reader.name, detail))
            }
            _ => Err(reader.wrong_type("a text")),
        }
    }

    fn time(&mut self, text: &str) -> Result<(), Fault> {
        let Some(ms) = parse_rfc3339_ms(text) else {
            let detail = format!("{} is no time after RFC 3339 with a zone", quoted(text));
            return Err(Fault::of_field(Reason::BadTime, &self.reader.name, detail));
        };
        if let Values::Time(values) = &mut self.column.values {
            values.push(ms);
            self.column.present();
        }
        Ok(())
    }
}

/// The ways in which programs write what is no number into a JSON string.
fn is_not_finite(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    ["nan", "inf", "infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word))
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.reader.kind.as_str())
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<bool, E> {
        let read = self.boolean(value);
        self.settle(read)
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<bool, E> {
        let read = self.integer(value);
        self.settle(read)
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<bool, E> {
        #[expect(clippy::cast_precision_loss, reason = "beyond 63 bits it is as good as a float")]
        let read = match i64::try_from(value) {
            Ok(value) => self.integer(value),
            Err(_) if self.reader.kind == FieldType::Time => self.integer(i64::MAX),
            Err(_) => self.float(value as f64),
        };
        self.settle(read)
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<bool, E> {
        let read = self.float(value);
        self.settle(read)
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<bool, E> {
        let read = self.text(text);
        self.settle(read)
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        self.column.push_null();
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<bool, A::Error> {
        let fault = self.reader.wrong_type("an array");
        self.settle(Err(fault))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<bool, A::Error> {
        let fault = self.reader.wrong_type("an object");
        self.settle(Err(fault))
    }
}
