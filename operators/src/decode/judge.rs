//! What one record is: an event, a withdrawal, or a fault.

use serde::de::{DeserializeSeed, IgnoredAny};

use crate::events::{EventId, Reason};
use crate::records::{CloudEventHeaders, Records};

use super::envelope::{EnvelopeSeed, type_of};
use super::fault::{Fault, quoted};
use super::identity::{IdHasher, event_id};
use super::payload::ObjectSeed;
use super::plain::PlainRow;
use super::{Decoder, IdSource, text};

/// What a good record is.
pub(crate) enum Judgement {
    Event(Option<EventId>),
    Withdrawal(EventId),
}

impl Decoder {
    /// Judges record `index`; an event's fields become row `row`, anything else leaves no row.
    pub(crate) fn judge(
        &mut self,
        records: &Records,
        index: usize,
        row: usize,
    ) -> Result<Judgement, Fault> {
        let judgement = self.read(records, index, row);
        if !matches!(judgement, Ok(Judgement::Event(_))) {
            self.columns.iter_mut().for_each(|column| column.truncate(row));
        }
        judgement
    }

    fn read(&mut self, records: &Records, index: usize, row: usize) -> Result<Judgement, Fault> {
        let (payload, headers) = (records.payload(index), records.headers[index].as_deref());
        let (bytes, bytes_max) = (payload.map_or(0, <[u8]>::len), self.options.payload_bytes_max);
        if bytes > bytes_max {
            let detail = format!("{bytes} bytes, the limit is {bytes_max}");
            return Err(Fault::of_record(Reason::TooLarge, detail));
        }
        self.check_type(headers.and_then(|headers| headers.kind.as_deref()).unwrap_or_default())?;
        match (&self.options.ids, headers, payload) {
            (IdSource::CloudEvents, Some(headers), payload) => {
                self.read_binary(headers, payload, row)
            }
            (_, _, None) => Err(Fault::of_record(Reason::Empty, "null without an id to withdraw")),
            (IdSource::CloudEvents, None, Some(payload)) => self.read_structured(payload, row),
            (_, _, Some(payload)) => {
                let present = self.read_data(payload, row)?;
                let id = self.id_of_row(row)?;
                self.check_required(present)?;
                Ok(Judgement::Event(id))
            }
        }
    }

    fn read_binary(
        &mut self,
        headers: &CloudEventHeaders,
        payload: Option<&[u8]>,
        row: usize,
    ) -> Result<Judgement, Fault> {
        let source = headers.source.as_deref().unwrap_or_default();
        let id = cloud_event_id(source, headers.id.as_deref().unwrap_or_default());
        let Some(payload) = payload else {
            let nothing = |_| Fault::of_record(Reason::Empty, "null without an id to withdraw");
            return id.map(Judgement::Withdrawal).map_err(nothing);
        };
        let id = id?;
        let present = self.read_data(payload, row)?;
        self.check_required(present)?;
        Ok(Judgement::Event(Some(id)))
    }

    fn read_structured(&mut self, payload: &[u8], row: usize) -> Result<Judgement, Fault> {
        let text = text::check(payload, self.options.depth_max)?;
        let mut fault = None;
        let (readers, columns, order) = (&self.readers, &mut self.columns, &mut self.order);
        let data = ObjectSeed { readers, columns, order, row, fault: &mut fault };
        let seed = EnvelopeSeed { attributes: &mut self.envelope, data };
        let present = parse(text, seed).map_err(|error| diagnose(text, fault, &error));
        if let Err(fault) = &present
            && fault.reason != Reason::NotJson
        {
            self.check_type(&type_of(text).unwrap_or_default())?;
        }
        let present = present?;
        self.check_type(&self.envelope.kind.text)?;
        let id = cloud_event_id(&self.envelope.source.text, &self.envelope.id.text)?;
        let Some(present) = present else { return Ok(Judgement::Withdrawal(id)) };
        self.check_required(present)?;
        Ok(Judgement::Event(Some(id)))
    }

    /// Reads an object of fields; yields the set of those that are not null.
    fn read_data(&mut self, payload: &[u8], row: usize) -> Result<u64, Fault> {
        if let Some(present) = self.read_plain(payload, row) {
            return Ok(present);
        }
        self.columns.iter_mut().for_each(|column| column.truncate(row));
        let text = text::check(payload, self.options.depth_max)?;
        let mut fault = None;
        let (readers, columns, order) = (&self.readers, &mut self.columns, &mut self.order);
        let seed = ObjectSeed { readers, columns, order, row, fault: &mut fault };
        parse(text, seed).map_err(|error| diagnose(text, fault, &error))
    }

    fn read_plain(&mut self, payload: &[u8], row: usize) -> Option<u64> {
        if self.options.depth_max == 0 {
            return None;
        }
        let (readers, columns, order) = (&self.readers, &mut self.columns, &mut self.order);
        PlainRow { readers, columns, order, row }.read(payload)
    }

    /// Refuses events of another type; an empty `kind` is none.
    fn check_type(&self, kind: &str) -> Result<(), Fault> {
        match &self.cloudevents_type {
            Some(expected) if !kind.is_empty() && kind != expected => {
                let detail = format!("type {}, expected {expected}", quoted(kind));
                Err(Fault::of_field(Reason::UnknownSchema, "type", detail))
            }
            _ => Ok(()),
        }
    }

    fn check_required(&self, present: u64) -> Result<(), Fault> {
        if present & self.required == self.required {
            return Ok(());
        }
        let missing = |index: &usize| (self.required & !present) >> index & 1 == 1;
        let index = (0..self.readers.len()).find(missing).unwrap_or_default();
        let detail = "required, but missing or null";
        Err(Fault::of_field(Reason::MissingField, &self.readers[index].name, detail))
    }

    /// The id that the fields of row `row` make up, where the source's ids are fields.
    fn id_of_row(&mut self, row: usize) -> Result<Option<EventId>, Fault> {
        if self.id_columns.is_empty() {
            return Ok(None);
        }
        let mut hasher = IdHasher::default();
        for index in &self.id_columns {
            let Some(part) = self.columns[*index].id_part(row, &mut self.digits) else {
                let name = &self.readers[*index].name;
                let detail = "part of the id, but missing or null";
                return Err(Fault::of_field(Reason::MissingId, name, detail));
            };
            hasher.part(part);
        }
        Ok(Some(hasher.finish()))
    }
}

/// The identity of a CloudEvent; both attributes must say something.
fn cloud_event_id(source: &str, id: &str) -> Result<EventId, Fault> {
    for (name, text) in [("id", id), ("source", source)] {
        if text.is_empty() {
            return Err(Fault::of_field(Reason::MissingId, name, "a CloudEvent without it"));
        }
    }
    Ok(event_id(&[source.as_bytes(), id.as_bytes()]))
}

fn parse<'de, S: DeserializeSeed<'de>>(
    text: &'de str,
    seed: S,
) -> Result<S::Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// What is wrong with a text that could not be read: what is wrong with it as JSON comes before what
/// is wrong with a field.
fn diagnose(text: &str, fault: Option<Fault>, error: &serde_json::Error) -> Fault {
    if let Err(broken) = serde_json::from_str::<IgnoredAny>(text) {
        return Fault::of_record(Reason::NotJson, broken.to_string());
    }
    match fault {
        Some(fault) => fault,
        None if error.is_data() => Fault::of_record(Reason::WrongType, "an event is a JSON object"),
        None => Fault::of_record(Reason::NotJson, error.to_string()),
    }
}
