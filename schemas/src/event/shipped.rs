//! The schemas that come with the program.

use super::EventSchema;

/// File name and text of every shipped schema, sorted by name.
const FILES: [(&str, &str); 5] = [
    ("crowd_flow.yaml", include_str!("../../events/crowd_flow.yaml")),
    ("environment.yaml", include_str!("../../events/environment.yaml")),
    ("parking_site.yaml", include_str!("../../events/parking_site.yaml")),
    ("parking_space.yaml", include_str!("../../events/parking_space.yaml")),
    ("traffic.yaml", include_str!("../../events/traffic.yaml")),
];

/// The schemas that come with the program, sorted by name.
///
/// # Panics
/// If a file of this crate is no schema: our own bug, which the tests find.
#[must_use]
pub fn shipped() -> Vec<EventSchema> {
    FILES
        .iter()
        .map(|(file, text)| EventSchema::from_yaml(file, text).expect("shipped schemas are valid"))
        .collect()
}

/// The YAML text of a shipped schema, to start one's own from.
#[must_use]
pub fn shipped_yaml(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(file, _)| file.strip_suffix(".yaml") == Some(name)).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_schema_is_named_like_its_file_and_says_where_and_when() {
        for schema in shipped() {
            assert!(shipped_yaml(&schema.name).is_some(), "{}", schema.name);
            for field in ["lon", "lat", "gridCode"] {
                assert!(schema.field(field).is_some(), "{} lacks {field}", schema.name);
            }
            assert!(
                schema
                    .fields
                    .iter()
                    .any(|field| field.required && field.kind == crate::event::FieldType::Time)
            );
            assert!(schema.cloudevents_type.is_some());
        }
    }
}
