//! An event schema as JSON Schema (draft 2020-12), for producers in any language.
//!
//! It describes the payload (the CloudEvent's `data`), not the envelope. What decoding accepts and
//! JSON Schema cannot say is said in words: a number's decimals, a field's unit.

use serde_json::{Map, Value, json};

use super::{EventSchema, Field, FieldType, Range, TimeFormat};

impl EventSchema {
    /// This schema as JSON Schema, draft 2020-12. Fields not listed are allowed and ignored.
    #[must_use]
    pub fn json_schema(&self) -> Value {
        let properties: Map<String, Value> =
            self.fields.iter().map(|field| (field.name.clone(), property(field))).collect();
        let required: Vec<&str> = self
            .fields
            .iter()
            .filter(|field| field.required)
            .map(|field| field.name.as_str())
            .collect();
        let version = self.version;
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": format!("urn:citycell:event:{}:{version}", self.name),
            "title": self.name,
            "description": self.description,
            "type": "object",
            "properties": properties,
            "required": required,
        })
    }
}

fn property(field: &Field) -> Value {
    let mut property = Map::new();
    property.insert("description".to_owned(), json!(description(field)));
    let json_type = match (field.kind, field.time_format) {
        (FieldType::Text, _) | (FieldType::Time, TimeFormat::Rfc3339) => "string",
        (FieldType::Integer, _) | (FieldType::Time, TimeFormat::EpochMs) => "integer",
        (FieldType::Number, _) => "number",
        (FieldType::Boolean, _) => "boolean",
    };
    // An optional field may also be null, which reads like a missing one.
    let types = if field.required { json!(json_type) } else { json!([json_type, "null"]) };
    property.insert("type".to_owned(), types);
    if field.kind == FieldType::Time && field.time_format == TimeFormat::Rfc3339 {
        property.insert("format".to_owned(), json!("date-time"));
    }
    if !field.values.is_empty() {
        property.insert("enum".to_owned(), allowed_values(field));
    }
    if let Some(personal) = field.personal {
        property.insert("x-personal".to_owned(), json!(personal.as_str()));
    }
    if let Some(range) = &field.range {
        insert_limits(&mut property, range, field.kind);
    }
    Value::Object(property)
}

fn description(field: &Field) -> String {
    if field.unit.is_empty() {
        return field.meaning.clone();
    }
    format!("{} Unit: {}.", field.meaning, field.unit)
}

fn allowed_values(field: &Field) -> Value {
    let values = field.values.iter().map(|value| json!(value));
    let null = (!field.required).then_some(Value::Null);
    values.chain(null).collect()
}

fn insert_limits(property: &mut Map<String, Value>, range: &Range, kind: FieldType) {
    for (key, limit) in [("minimum", range.min), ("maximum", range.max)] {
        let Some(limit) = limit else { continue };
        let whole = kind == FieldType::Integer && limit.fract() == 0.0 && limit.abs() < 9e15;
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        let value = if whole { json!(limit as i64) } else { json!(limit) };
        property.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_limits_and_required_fields_are_translated() {
        let schema = EventSchema::from_yaml(
            "noise.yaml",
            "{name: noise, version: 2, description: Sound., fields: [\
             {name: level, type: integer, unit: dB, meaning: Level., range: {min: 0, max: 1.5}},\
             {name: kind, type: text, meaning: Kind., values: [day, night]},\
             {name: device, type: text, meaning: Whose., personal: pseudonym},\
             {name: at, type: time, meaning: When., required: true}]}",
        )
        .expect("a good schema");
        assert_eq!(
            schema.json_schema(),
            json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "$id": "urn:citycell:event:noise:2",
                "title": "noise",
                "description": "Sound.",
                "type": "object",
                "properties": {
                    "level": {"description": "Level. Unit: dB.", "type": ["integer", "null"],
                              "minimum": 0, "maximum": 1.5},
                    "kind": {"description": "Kind.", "type": ["string", "null"],
                             "enum": ["day", "night", null]},
                    "device": {"description": "Whose.", "type": ["string", "null"],
                               "x-personal": "pseudonym"},
                    "at": {"description": "When.", "type": "string", "format": "date-time"},
                },
                "required": ["at"],
            })
        );
    }
}
