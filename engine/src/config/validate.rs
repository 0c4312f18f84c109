//! From entries to a plan: every name exists, every expression has its type.

mod numbers;
mod personal;
mod source;
mod windows;

use std::collections::BTreeSet;

use arrow::datatypes::Schema;
use citycell_operators::decode::IdSource;
use citycell_operators::expression::closest;
use citycell_operators::plan::Plan;
use citycell_operators::select::RowCodec;
use citycell_schemas::{EventSchema, Level, tables};
use serde_saphyr::Spanned;

use super::Pipeline;
use super::cases::{self, CaseRules};
use super::duration::parse_duration_ms;
use super::error::{ConfigErrors, Faults};
use super::file::{PipelineFile, Text};

/// How far an event may be ahead of its broker timestamp where the file does not say.
const FUTURE_DEFAULT_MS: i64 = 300_000;

/// Columns that every table or view of rows has already, and words that cases and views need.
const RESERVED: &[&str] = &[
    "window",
    "window_start",
    "cell",
    "level",
    "place",
    "epoch",
    "known_epoch",
    "is_deleted",
    "events",
    "name",
    "community",
    "street",
    "district",
    "area_m2",
    "grid",
    "version",
];

/// What the names of tables and views beside a pipeline's own end in.
const RESERVED_ENDINGS: &[&str] = &["_history", "_as_of"];

pub(super) fn pipeline(
    file: &str,
    text: &str,
    entries: PipelineFile,
    schemas: &[EventSchema],
) -> Result<Pipeline, ConfigErrors> {
    let mut faults = Faults::new(file, text);
    let known = schemas.iter().find(|schema| schema.name == entries.source.schema.value);
    let Some(schema) = known else {
        let wanted = &entries.source.schema;
        let names = || schemas.iter().map(|schema| schema.name.as_str());
        let hint = match closest(&wanted.value, names()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("there is {}", names().collect::<Vec<_>>().join(", ")),
        };
        faults.at(wanted.referenced, format!("there is no schema `{}`", wanted.value), Some(hint));
        return faults.into_result(None);
    };
    let direct = personal::direct_fields(schema);
    let pipeline = Checker { schema, faults: &mut faults, read: BTreeSet::new(), direct }
        .pipeline(entries, text);
    faults.into_result(pipeline)
}

struct Checker<'a, 'b> {
    schema: &'a EventSchema,
    faults: &'b mut Faults<'a>,
    /// The fields that the pipeline reads.
    read: BTreeSet<String>,
    /// The columns that say who a person is, or something about one.
    direct: BTreeSet<String>,
}

impl Checker<'_, '_> {
    /// The pipeline, or nothing where a part of it could not even be guessed.
    fn pipeline(mut self, entries: PipelineFile, text: &str) -> Option<Pipeline> {
        self.name(&entries.pipeline);
        let topics = self.topics(&entries.source);
        let event_time = self.event_time(&entries.source.event_time);
        let location = self.location(&entries.source.location);
        let ids = self.ids(entries.source.identity.as_ref());
        let (derive, columns) = self.derive(&entries.derive.0);
        let filter = entries.filter.as_ref().and_then(|sql| self.filter(sql, &columns));
        let window = self.window(&entries, &columns);
        let per = entries.per.as_ref().map(|per| self.per(per, &entries, &columns));
        self.groups(&entries.group_by, &columns);
        let (arguments, slots, measures) = self.measures(&entries, &columns);
        let group_by: Vec<String> = values(&entries.group_by);
        let allow_ms = self.duration(&entries.source.late.allow)?;
        let future_ms = match &entries.source.future {
            Some(future) => self.duration(future)?,
            None => FUTURE_DEFAULT_MS,
        };
        let publish_every_ms = match &entries.publish {
            Some(publish) => self.duration(&publish.every)?,
            None => 0,
        };
        let roll_up = self.roll_up(&entries.roll_up);
        let published = measures.iter().map(|measure| measure.name.as_str());
        let rules = CaseRules {
            columns: group_by.iter().map(String::as_str).chain(published).collect(),
            windowed: entries.window.is_some(),
            withdrawable: ids == IdSource::CloudEvents,
        };
        let tests = cases::read(&entries.tests, &rules, self.faults);
        let groups = group_by
            .iter()
            .filter_map(|name| columns.field_with_name(name).ok().cloned())
            .collect();
        let fields = self.schema.fields.iter().map(|field| field.name.clone());
        let fields = fields.filter(|name| self.read.contains(name)).collect();
        Some(Pipeline {
            plan: Plan {
                name: entries.pipeline.value,
                topics,
                schema: self.schema.name.clone(),
                event_time,
                location: location?,
                allow_ms,
                future_ms,
                identified: ids != IdSource::None,
                filter,
                derive,
                window: window?,
                per,
                group_by,
                arguments,
                slots,
                measures,
                roll_up,
                publish_every_ms,
            },
            description: entries.description.trim().to_owned(),
            schema: self.schema.clone(),
            ids,
            fields,
            groups,
            tests,
            text: text.to_owned(),
        })
    }

    fn name(&mut self, name: &Text) {
        if !is_identifier(&name.value) {
            let message = format!("`{}` is no name", name.value);
            self.faults.at(name.referenced, message, Some(NAME_HINT.to_owned()));
        }
        let mut shared = tables::SHARED.iter().chain([&tables::ARCHIVE]);
        let shared = shared.any(|(table, _)| *table == name.value);
        let ending = RESERVED_ENDINGS.iter().any(|ending| name.value.ends_with(ending));
        // A view of such a name could replace the table of another pipeline's version.
        let history = name.value.contains("_history_");
        if shared || ending || history || name.value == "city_moment" {
            let message = format!("`{}` is the name of another table or view", name.value);
            self.faults.at(name.referenced, message, None);
        }
    }

    fn groups(&mut self, names: &[Text], columns: &Schema) {
        self.columns_exist(names, columns);
        for (index, name) in names.iter().enumerate() {
            if RESERVED.contains(&name.value.as_str()) {
                let message = format!("`{}` cannot name a group", name.value);
                let hint = format!("derive it under another name; rows have {}", reserved());
                self.faults.at(name.referenced, message, Some(hint));
            } else if names[..index].iter().any(|other| other.value == name.value) {
                let message = format!("`{}` is named twice", name.value);
                self.faults.at(name.referenced, message, None);
            }
        }
    }

    /// Columns that name groups or entities: they exist and compare exactly.
    fn columns_exist(&mut self, names: &[Text], columns: &Schema) {
        for name in names {
            self.read.insert(name.value.clone());
            self.is_no_person(name);
            if let Err(error) = RowCodec::new(std::slice::from_ref(&name.value), columns) {
                self.faults.expression(name.referenced, error);
            }
        }
    }

    fn duration(&mut self, text: &Text) -> Option<i64> {
        match parse_duration_ms(&text.value) {
            Ok(ms) => Some(ms),
            Err(message) => {
                self.faults.at(text.referenced, message, None);
                None
            }
        }
    }

    fn roll_up(&mut self, entries: &[Spanned<Level>]) -> Vec<Level> {
        let mut levels = Vec::new();
        for entry in entries {
            if entry.value == Level::Cell {
                let message = "cells are published anyway; roll_up names levels above them";
                self.faults.at(entry.referenced, message, None);
            } else if !levels.contains(&entry.value) {
                levels.push(entry.value);
            }
        }
        levels.sort_unstable();
        levels
    }
}

const NAME_HINT: &str = "a name is made of letters, digits and _, and begins with a letter";

fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        && name.len() <= 60
}

fn reserved() -> String {
    format!("{} already", RESERVED.join(", "))
}

fn values(texts: &[Text]) -> Vec<String> {
    texts.iter().map(|text| text.value.clone()).collect()
}
