//! Decode: bytes to columns, or to a reject that says what is wrong.
//!
//! A record becomes one row of [`Events`], one [`Withdrawal`] or one [`Reject`]; nothing else and
//! nothing twice: `records = events + withdrawals + rejects`. A bad record leaves no trace in the
//! columns, the rest of its batch is decoded.
//!
//! **What is read.** Only the fields asked for (and those that make up an id) are decoded and
//! checked; of all others only the JSON itself is. A key that occurs twice is refused if it is one
//! of the fields read.
//!
//! **Envelopes.** With [`IdSource::CloudEvents`] a record with CloudEvents headers is in binary
//! mode (its payload is the data), any other record in structured mode (its payload is the whole
//! CloudEvent). Without data both are withdrawals. Otherwise the payload is plain JSON. Where the
//! schema names a CloudEvents type, an event of another type is refused; one that states none is
//! read.
//!
//! **Order of judgement**, so that a record has one reason however it is stored: size, headers,
//! emptiness, UTF-8, depth, JSON, type, fields as they stand in the document, id, missing fields.
//!
//! **Limits.** Payload bytes and depth as in [`DecodeOptions`]; 2 GiB of text per column and batch
//! (a record beyond it is a reject); 64 fields.

mod column;
mod envelope;
mod fault;
mod field;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod identity;
mod judge;
mod payload;
mod plain;
mod text;
mod time;

use std::sync::Arc;

use arrow::array::RecordBatchOptions;
use arrow::datatypes::{Field as ArrowField, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use citycell_schemas::EventSchema;
use citycell_schemas::event::{FIELDS_MAX, FieldType};

use crate::events::{EventId, Events, Reject, Withdrawal};
use crate::records::Records;

use column::Column;
use field::FieldReader;
use judge::Judgement;
use payload::KeyOrder;

pub use column::arrow_type;
pub use identity::event_id;
pub use time::parse_rfc3339_ms;

/// Where an event's identity comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IdSource {
    /// Events have no identity: copies are counted twice, nothing can be withdrawn.
    #[default]
    None,
    /// The CloudEvents attributes `source` and `id`.
    CloudEvents,
    /// These fields of the payload together, each a text or an integer.
    Fields(Vec<String>),
}

/// How a topic is decoded, besides its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Where an event's identity comes from.
    pub ids: IdSource,
    /// A larger payload is a reject.
    pub payload_bytes_max: usize,
    /// JSON nested deeper is a reject.
    pub depth_max: usize,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { ids: IdSource::None, payload_bytes_max: 1 << 20, depth_max: 32 }
    }
}

/// A decoder that cannot be: its configuration's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecoderError {
    /// A field is asked for that the schema does not have.
    #[error("schema {schema} has no field {field}")]
    UnknownField {
        /// The schema's name.
        schema: String,
        /// The field asked for.
        field: String,
    },
    /// A field is to be part of the id and is neither text nor integer.
    #[error("field {field} of schema {schema} cannot be part of an id: it is a {kind}")]
    BadIdField {
        /// The schema's name.
        schema: String,
        /// The field.
        field: String,
        /// Its type.
        kind: &'static str,
    },
    /// The id is to be made of no field.
    #[error("an id needs at least one field")]
    NoIdField,
    /// More fields than decoding can tell apart.
    #[error("schema {schema} has more than {FIELDS_MAX} fields")]
    TooManyFields {
        /// The schema's name.
        schema: String,
    },
}

/// What became of a batch of records.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The good ones.
    pub events: Events,
    /// Those that take an event back.
    pub withdrawals: Vec<Withdrawal>,
    /// Those that cannot be counted.
    pub rejects: Vec<Reject>,
}

/// Decodes the records of one topic. It keeps buffers and nothing that decides a result.
#[derive(Debug)]
pub struct Decoder {
    cloudevents_type: Option<String>,
    options: DecodeOptions,
    id_columns: Vec<usize>,
    readers: Vec<FieldReader>,
    /// The set of required fields among `readers`.
    required: u64,
    arrow_schema: SchemaRef,
    columns: Vec<Column>,
    order: KeyOrder,
    envelope: envelope::Attributes,
    digits: String,
}

impl Decoder {
    /// A decoder that reads `fields` of `schema`; the order of columns is the schema's.
    ///
    /// # Errors
    /// A field that the schema does not have, or an id that cannot be.
    pub fn new(
        schema: &EventSchema,
        fields: &[&str],
        options: DecodeOptions,
    ) -> Result<Self, DecoderError> {
        if schema.fields.len() > FIELDS_MAX {
            return Err(DecoderError::TooManyFields { schema: schema.name.clone() });
        }
        let id_fields = check_id_fields(schema, &options.ids)?;
        if let Some(field) = fields.iter().find(|name| schema.field(name).is_none()) {
            return Err(unknown_field(schema, field));
        }
        let readers: Vec<FieldReader> = schema
            .fields
            .iter()
            .filter(|field| {
                fields.contains(&field.name.as_str()) || id_fields.contains(&field.name)
            })
            .map(FieldReader::new)
            .collect();
        let id_columns = id_fields
            .iter()
            .filter_map(|name| readers.iter().position(|reader| reader.name == *name))
            .collect();
        let arrow_fields: Vec<ArrowField> = readers
            .iter()
            .map(|reader| ArrowField::new(&reader.name, arrow_type(reader.kind), !reader.required))
            .collect();
        Ok(Self {
            cloudevents_type: schema.cloudevents_type.clone(),
            options,
            id_columns,
            columns: readers.iter().map(|reader| Column::new(reader.kind)).collect(),
            order: KeyOrder::default(),
            envelope: envelope::Attributes::default(),
            digits: String::new(),
            required: required_set(&readers),
            arrow_schema: Arc::new(Schema::new(arrow_fields)),
            readers,
        })
    }

    /// The columns of the events that this decoder makes.
    #[must_use]
    pub fn columns(&self) -> &SchemaRef {
        &self.arrow_schema
    }

    /// Decodes `records`, those of the topic that stands at `topic` among the sorted names.
    pub fn decode(&mut self, topic: u16, records: &Records) -> Decoded {
        self.columns.iter_mut().for_each(|column| column.reserve(records.len()));
        let mut batch = Batch::new(topic, records);
        for index in 0..records.len() {
            match self.judge(records, index, batch.offsets.len()) {
                Ok(Judgement::Event(id)) => batch.push_event(index, id),
                Ok(Judgement::Withdrawal(id)) => batch.push_withdrawal(index, id),
                Err(fault) => batch.rejects.push(fault.into_reject(records, index)),
            }
        }
        let columns = self.finish_columns(batch.offsets.len());
        batch.finish(columns)
    }

    fn finish_columns(&mut self, rows: usize) -> RecordBatch {
        let arrays = self.columns.iter_mut().map(Column::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.arrow_schema), arrays, &options)
            .expect("columns are as long as there are rows and required ones have no nulls")
    }
}

/// The id's fields, checked.
fn check_id_fields(schema: &EventSchema, ids: &IdSource) -> Result<Vec<String>, DecoderError> {
    let IdSource::Fields(names) = ids else { return Ok(Vec::new()) };
    if names.is_empty() {
        return Err(DecoderError::NoIdField);
    }
    for name in names {
        let field = schema.field(name).ok_or_else(|| unknown_field(schema, name))?;
        if !matches!(field.kind, FieldType::Text | FieldType::Integer) {
            return Err(DecoderError::BadIdField {
                schema: schema.name.clone(),
                field: name.clone(),
                kind: field.kind.as_str(),
            });
        }
    }
    Ok(names.clone())
}

fn required_set(readers: &[FieldReader]) -> u64 {
    (0..).zip(readers).filter(|(_, reader)| reader.required).map(|(index, _)| 1u64 << index).sum()
}

fn unknown_field(schema: &EventSchema, field: &str) -> DecoderError {
    DecoderError::UnknownField { schema: schema.name.clone(), field: field.to_owned() }
}

/// What of a batch is settled, besides the columns.
struct Batch<'a> {
    topic: u16,
    records: &'a Records,
    offsets: Vec<citycell_schemas::Offset>,
    broker_times_ms: Vec<i64>,
    ids: Vec<EventId>,
    withdrawals: Vec<Withdrawal>,
    rejects: Vec<Reject>,
}

impl<'a> Batch<'a> {
    fn new(topic: u16, records: &'a Records) -> Self {
        Self {
            topic,
            records,
            offsets: Vec::with_capacity(records.len()),
            broker_times_ms: Vec::with_capacity(records.len()),
            ids: Vec::new(),
            withdrawals: Vec::new(),
            rejects: Vec::new(),
        }
    }

    fn push_event(&mut self, index: usize, id: Option<EventId>) {
        self.offsets.push(self.records.offsets[index]);
        self.broker_times_ms.push(self.records.broker_times_ms[index]);
        self.ids.extend(id);
    }

    fn push_withdrawal(&mut self, index: usize, id: EventId) {
        let position = crate::events::Position {
            topic: self.topic,
            partition: self.records.partition,
            offset: self.records.offsets[index],
        };
        let broker_time_ms = self.records.broker_times_ms[index];
        self.withdrawals.push(Withdrawal { id, position, broker_time_ms });
    }

    fn finish(self, columns: RecordBatch) -> Decoded {
        let events = Events {
            topic: self.topic,
            partition: self.records.partition,
            columns,
            offsets: self.offsets,
            broker_times_ms: self.broker_times_ms,
            ids: self.ids,
        };
        Decoded { events, withdrawals: self.withdrawals, rejects: self.rejects }
    }
}
