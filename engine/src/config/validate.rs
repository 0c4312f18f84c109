//! From entries to a plan: every name exists, every expression has its type.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Schema};
use citycell_operators::decode::IdSource;
use citycell_operators::expression::{Expression, closest};
use citycell_operators::measures::{DecimalsOf, MeasureParser};
use citycell_operators::plan::{Argument, Derived, Location, Measure, Per, Plan, Slot, Window};
use citycell_operators::select::{RowCodec, condition, with_column};
use citycell_schemas::event::FieldType;
use citycell_schemas::{EventSchema, Level};
use serde_saphyr::Spanned;

use super::cases;
use super::duration::parse_duration_ms;
use super::error::{ConfigErrors, Faults};
use super::file::{IdentityEntry, LocationEntry, PerEntry, PipelineFile, SourceEntry, Text};
use super::{Pipeline, columns_of};

/// How far an event may be ahead of its broker timestamp where the file does not say.
const FUTURE_DEFAULT_MS: i64 = 300_000;

/// Columns that every table of rows has already.
const RESERVED: &[&str] =
    &["window", "window_start", "cell", "level", "place", "epoch", "is_deleted", "grid", "version"];

/// The decimals of a schema's numbers.
#[derive(Debug)]
struct Decimals<'a>(&'a EventSchema);

impl DecimalsOf for Decimals<'_> {
    fn decimals_of(&self, column: &str) -> Option<u8> {
        self.0.field(column).map(|field| field.decimals)
    }
}

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
    let pipeline =
        Checker { schema, faults: &mut faults, read: BTreeSet::new() }.pipeline(entries, text);
    faults.into_result(pipeline)
}

struct Checker<'a, 'b> {
    schema: &'a EventSchema,
    faults: &'b mut Faults<'a>,
    /// The fields that the pipeline reads.
    read: BTreeSet<String>,
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
        self.columns_exist(&entries.group_by, &columns);
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
        let tests = cases::read(&entries.tests, self.faults);
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
    }

    fn topics(&mut self, source: &SourceEntry) -> Vec<String> {
        let mut topics: Vec<String> =
            source.topic.iter().chain(&source.topics).map(|topic| topic.value.clone()).collect();
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

    fn event_time(&mut self, name: &Text) -> String {
        self.field(name, &[FieldType::Time])
    }

    fn location(&mut self, entry: &Spanned<LocationEntry>) -> Option<Location> {
        const NUMBERS: &[FieldType] = &[FieldType::Number, FieldType::Integer];
        let LocationEntry { cell, lon, lat, crs } = &entry.value;
        match (cell, lon, lat, crs) {
            (Some(cell), None, None, None) => {
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

    fn ids(&mut self, entry: Option<&Spanned<IdentityEntry>>) -> IdSource {
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
                IdSource::Fields(fields.iter().map(|name| self.field(name, &types)).collect())
            }
        }
    }

    fn derive(&mut self, entries: &[(String, Text)]) -> (Vec<Derived>, Schema) {
        let mut columns = columns_of(self.schema);
        let mut derive = Vec::new();
        for (name, sql) in entries {
            if columns.index_of(name).is_ok() || !is_identifier(name) {
                let message = format!("`{name}` cannot name a derived column");
                let hint = format!("{NAME_HINT}, and no field may have it");
                self.faults.at(sql.referenced, message, Some(hint));
                continue;
            }
            match Expression::parse(&sql.value, &columns) {
                Ok(expression) => {
                    self.read.extend(expression.columns().iter().cloned());
                    columns = with_column(&columns, name, expression.data_type());
                }
                Err(error) => {
                    self.faults.expression(sql.referenced, error);
                    // A number, most likely: so that what reads it is checked all the same.
                    columns = with_column(&columns, name, &DataType::Float64);
                }
            }
            derive.push(Derived { name: name.clone(), expression: sql.value.clone() });
        }
        (derive, columns)
    }

    fn filter(&mut self, sql: &Text, columns: &Schema) -> Option<String> {
        match condition(&sql.value, columns) {
            Ok(expression) => self.read.extend(expression.columns().iter().cloned()),
            Err(error) => self.faults.expression(sql.referenced, error),
        }
        Some(sql.value.clone())
    }

    fn window(&mut self, entries: &PipelineFile, columns: &Schema) -> Option<Window> {
        match (&entries.window, &entries.latest) {
            (Some(window), None) => {
                let size = &window.value.tumbling;
                let size_ms = self.duration(size)?;
                if size_ms == 0 {
                    self.faults.at(size.referenced, "a window has a size", None);
                }
                Some(Window::Tumbling { size_ms })
            }
            (None, Some(latest)) => {
                let latest = &latest.value;
                self.columns_exist(&latest.by, columns);
                let expire_ms = self.duration(&latest.expire)?;
                let forget_ms = self.duration(&latest.forget)?;
                if forget_ms < expire_ms || expire_ms == 0 {
                    let message = "an entity expires after some time, and is forgotten after that";
                    let hint = "write for example expire: 10m, forget: 30d".to_owned();
                    self.faults.at(latest.forget.referenced, message, Some(hint));
                }
                Some(Window::Latest { by: values(&latest.by), expire_ms, forget_ms })
            }
            _ => {
                let message = "a pipeline has either `window` or `latest`";
                let hint = "write window: {tumbling: 1m}".to_owned();
                self.faults.at(entries.pipeline.referenced, message, Some(hint));
                None
            }
        }
    }

    fn per(&mut self, per: &Spanned<PerEntry>, entries: &PipelineFile, columns: &Schema) -> Per {
        if entries.latest.is_some() {
            let message = "`latest` takes each entity's latest event already";
            let hint = "leave `per` out, or write `window` instead of `latest`".to_owned();
            self.faults.at(per.referenced, message, Some(hint));
        }
        self.columns_exist(&per.value.by, columns);
        Per { by: values(&per.value.by), take: per.value.take }
    }

    /// Columns that name groups or entities: they exist and compare exactly.
    fn columns_exist(&mut self, names: &[Text], columns: &Schema) {
        for name in names {
            self.read.insert(name.value.clone());
            if let Err(error) = RowCodec::new(std::slice::from_ref(&name.value), columns) {
                self.faults.expression(name.referenced, error);
            }
        }
    }

    fn measures(
        &mut self,
        entries: &PipelineFile,
        columns: &Schema,
    ) -> (Vec<Argument>, Vec<Slot>, Vec<Measure>) {
        let decimals = Decimals(self.schema);
        let mut parser = MeasureParser::new(columns, &decimals);
        let mut measures = Vec::new();
        for (name, sql) in &entries.aggregate.0 {
            let taken = entries.group_by.iter().any(|group| group.value == *name);
            if taken || RESERVED.contains(&name.as_str()) || !is_identifier(name) {
                let message = format!("`{name}` cannot name a number");
                let hint = format!("{NAME_HINT}; rows have {} already", RESERVED.join(", "));
                self.faults.at(sql.referenced, message, Some(hint));
            }
            match parser.measure(name, &sql.value) {
                Ok(measure) => measures.push(measure),
                Err(error) => self.faults.expression(sql.referenced, error),
            }
        }
        let (arguments, slots) = (parser.arguments, parser.slots);
        if entries.aggregate.0.is_empty() {
            let hint = "write aggregate: {events: count()}".to_owned();
            let message = "a pipeline publishes at least one number";
            self.faults.at(entries.pipeline.referenced, message, Some(hint));
        }
        for argument in &arguments {
            if let Ok(expression) = Expression::parse(&argument.expression, columns) {
                self.read.extend(expression.columns().iter().cloned());
            }
        }
        (arguments, slots, measures)
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

fn values(texts: &[Text]) -> Vec<String> {
    texts.iter().map(|text| text.value.clone()).collect()
}
