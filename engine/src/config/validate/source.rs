//! Where events come from: topics, time, place and identity.

use citycell_operators::decode::IdSource;
use citycell_operators::expression::closest;
use citycell_operators::plan::Location;
use citycell_schemas::event::FieldType;
use serde_saphyr::Spanned;

use super::Checker;
use crate::config::file::{IdentityEntry, LocationEntry, SourceEntry, Text};

const TOPIC_HINT: &str = "Kafka's topics are named by letters, digits, `.`, `_` and `-`";

/// Whether Kafka takes it as a topic's name.
fn is_topic(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=249).contains(&name.len()) && name.bytes().all(plain) && !matches!(name, "." | "..")
}

impl Checker<'_, '_> {
    pub(super) fn topics(&mut self, source: &SourceEntry) -> Vec<String> {
        let named = || source.topic.iter().chain(&source.topics);
        for topic in named().filter(|topic| !is_topic(&topic.value)) {
            let message = format!("`{}` is no name of a topic", topic.value);
            self.faults.at(topic.referenced, message, Some(TOPIC_HINT.to_owned()));
        }
        let mut topics: Vec<String> = named().map(|topic| topic.value.clone()).collect();
        if topics.is_empty() {
            let hint = "write topic: city.crowd.flow".to_owned();
            self.faults.at(source.schema.referenced, "the source has no topic", Some(hint));
        }
        topics.sort();
        topics.dedup();
        topics
    }

    /// Marks a field as read; a fault where it does not exist or has another type.
    fn field(&mut self, name: &Text, types: &[FieldType]) -> String {
        self.read.insert(name.value.clone());
        match self.schema.field(&name.value) {
            None => {
                let message = format!("schema {} has no field `{}`", self.schema.name, name.value);
                let names = self.schema.fields.iter().map(|field| field.name.as_str());
                let hint =
                    closest(&name.value, names).map(|meant| format!("did you mean `{meant}`?"));
                self.faults.at(name.referenced, message, hint);
            }
            Some(field) if !types.contains(&field.kind) => {
                let wanted: Vec<_> = types.iter().map(|kind| kind.as_str()).collect();
                let message = format!(
                    "`{}` is of type {}, not {}",
                    name.value,
                    field.kind.as_str(),
                    wanted.join(" or ")
                );
                self.faults.at(name.referenced, message, None);
            }
            Some(_) => {}
        }
        name.value.clone()
    }

    pub(super) fn event_time(&mut self, name: &Text) -> String {
        if self.schema.field(&name.value).is_some_and(|field| !field.required) {
            let message = format!("`{}` may be missing, but every event has its time", name.value);
            let hint = format!("write required: true in the schema {}", self.schema.name);
            self.faults.at(name.referenced, message, Some(hint));
        }
        self.is_no_personal_time(name);
        self.field(name, &[FieldType::Time])
    }

    pub(super) fn location(&mut self, entry: &Spanned<LocationEntry>) -> Option<Location> {
        const NUMBERS: &[FieldType] = &[FieldType::Number];
        let LocationEntry { cell, lon, lat, crs } = &entry.value;
        match (cell, lon, lat, crs) {
            (Some(cell), None, None, None) => {
                self.is_no_person(cell);
                Some(Location::Cell { column: self.field(cell, &[FieldType::Text]) })
            }
            (None, Some(lon), Some(lat), Some(crs)) => Some(Location::Point {
                lon: self.field(lon, NUMBERS),
                lat: self.field(lat, NUMBERS),
                crs: *crs,
            }),
            (None, Some(_), Some(_), None) => {
                let hint = "write crs: wgs84, gcj02 or bd09; a wrong one is hundreds of metres off";
                let message = "coordinates without a coordinate system";
                self.faults.at(entry.referenced, message, Some(hint.to_owned()));
                None
            }
            _ => {
                let hint = "write {cell: field} or {lon: field, lat: field, crs: wgs84}";
                let message = "a location is a cell's code, or coordinates";
                self.faults.at(entry.referenced, message, Some(hint.to_owned()));
                None
            }
        }
    }

    pub(super) fn ids(&mut self, entry: Option<&Spanned<IdentityEntry>>) -> IdSource {
        let Some(entry) = entry else { return IdSource::CloudEvents };
        match &entry.value {
            IdentityEntry::None => IdSource::None,
            IdentityEntry::Cloudevents => IdSource::CloudEvents,
            IdentityEntry::Fields(fields) => {
                if fields.is_empty() {
                    self.faults.at(entry.referenced, "an id is made of at least one field", None);
                }
                // Times too would have to be compared as they were written: the decoder refuses.
                let types = [FieldType::Text, FieldType::Integer];
                fields.iter().for_each(|name| self.is_no_person(name));
                IdSource::Fields(fields.iter().map(|name| self.field(name, &types)).collect())
            }
        }
    }
}
