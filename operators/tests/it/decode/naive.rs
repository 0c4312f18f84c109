//! The naive decoder: the whole document as a tree, every rule by itself.

use std::collections::HashSet;
use std::fmt;

use citycell_operators::decode::{DecodeOptions, IdSource, event_id};
use citycell_operators::events::{EventId, Reason};
use citycell_operators::records::CloudEventHeaders;
use citycell_schemas::EventSchema;
use citycell_schemas::event::{Field, FieldType, TimeFormat};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::Row;

/// What became of one record.
pub(super) enum Verdict {
    Event(Row, Option<EventId>),
    Withdrawal(EventId),
    Reject(Reason, String),
}

type Refusal = (Reason, String);

fn refuse<T>(reason: Reason, field: &str) -> Result<T, Refusal> {
    Err((reason, field.to_owned()))
}

pub(super) struct Naive {
    schema: EventSchema,
    fields: HashSet<String>,
    options: DecodeOptions,
}

impl Naive {
    pub(super) fn new(schema: EventSchema, fields: &[&str], options: DecodeOptions) -> Self {
        let fields = fields.iter().map(|&field| field.to_owned()).collect();
        Self { schema, fields, options }
    }

    pub(super) fn judge(
        &mut self,
        payload: Option<&[u8]>,
        headers: Option<&CloudEventHeaders>,
    ) -> Verdict {
        self.read(payload, headers).unwrap_or_else(|(reason, field)| Verdict::Reject(reason, field))
    }

    fn read(
        &self,
        payload: Option<&[u8]>,
        headers: Option<&CloudEventHeaders>,
    ) -> Result<Verdict, Refusal> {
        if payload.is_some_and(|payload| payload.len() > self.options.payload_bytes_max) {
            return refuse(Reason::TooLarge, "");
        }
        self.check_type(headers.and_then(|headers| headers.kind.as_deref()))?;
        if let (IdSource::CloudEvents, Some(headers)) = (&self.options.ids, headers) {
            let id = ce_id(headers.source.as_deref(), headers.id.as_deref());
            let Some(payload) = payload else {
                return id.map(Verdict::Withdrawal).or(refuse(Reason::Empty, ""));
            };
            let id = id?;
            let row = self.row(&object(&self.tree(payload)?)?)?;
            self.check_required(&row)?;
            return Ok(Verdict::Event(row, Some(id)));
        }
        let Some(payload) = payload else { return refuse(Reason::Empty, "") };
        let tree = self.tree(payload)?;
        if self.options.ids == IdSource::CloudEvents {
            return self.structured(&object(&tree)?);
        }
        let row = self.row(&object(&tree)?)?;
        let id = self.field_id(&row)?;
        self.check_required(&row)?;
        Ok(Verdict::Event(row, id))
    }

    fn structured(&self, envelope: &[(String, Tree)]) -> Result<Verdict, Refusal> {
        let get = |name: &str| envelope.iter().find(|(key, _)| key == name).map(|(_, tree)| tree);
        let text = |name| match get(name) {
            Some(Tree::Leaf(Value::String(text))) => Some(text.as_str()),
            _ => None,
        };
        self.check_type(text("type"))?;
        let mut data = None;
        for (key, tree) in envelope {
            let attribute = ["id", "source", "type"].contains(&key.as_str());
            match tree {
                Tree::Leaf(Value::Null | Value::String(_)) if attribute => {}
                _ if attribute => return refuse(Reason::WrongType, key),
                Tree::Leaf(Value::Null) => {}
                tree if key == "data" => data = Some(self.row(&object(tree)?)?),
                _ => {}
            }
        }
        let id = ce_id(text("source"), text("id"))?;
        let Some(row) = data else { return Ok(Verdict::Withdrawal(id)) };
        self.check_required(&row)?;
        Ok(Verdict::Event(row, Some(id)))
    }

    fn tree(&self, payload: &[u8]) -> Result<Tree, Refusal> {
        if payload.is_empty() {
            return refuse(Reason::Empty, "");
        }
        let Ok(text) = str::from_utf8(payload) else { return refuse(Reason::NotUtf8, "") };
        match serde_json::from_str::<Tree>(text) {
            Ok(tree) if tree.depth() > self.options.depth_max => refuse(Reason::TooDeep, ""),
            Ok(tree) => Ok(tree),
            Err(_) => refuse(Reason::NotJson, ""),
        }
    }

    fn check_type(&self, kind: Option<&str>) -> Result<(), Refusal> {
        match kind {
            Some(kind) if Some(kind) != self.schema.cloudevents_type.as_deref() => {
                refuse(Reason::UnknownSchema, "type")
            }
            _ => Ok(()),
        }
    }

    fn wanted(&self) -> impl Iterator<Item = &Field> {
        self.schema.fields.iter().filter(|field| self.fields.contains(&field.name))
    }

    fn row(&self, pairs: &[(String, Tree)]) -> Result<Row, Refusal> {
        let mut seen = HashSet::new();
        let mut row = vec![None; self.fields.len()];
        for (key, tree) in pairs {
            let Some(column) = self.wanted().position(|field| field.name == *key) else { continue };
            if !seen.insert(key) {
                return refuse(Reason::RepeatedField, key);
            }
            let field = self.schema.field(key).expect("wanted");
            row[column] = match tree {
                Tree::Leaf(value) => cell(field, value).or_else(|reason| refuse(reason, key))?,
                _ => return refuse(Reason::WrongType, key),
            };
        }
        Ok(row)
    }

    fn check_required(&self, row: &Row) -> Result<(), Refusal> {
        match self.wanted().zip(row).find(|(field, cell)| field.required && cell.is_none()) {
            Some((field, _)) => refuse(Reason::MissingField, &field.name),
            None => Ok(()),
        }
    }

    fn field_id(&self, row: &Row) -> Result<Option<EventId>, Refusal> {
        let IdSource::Fields(names) = &self.options.ids else { return Ok(None) };
        let mut parts = Vec::new();
        for name in names {
            let column = self.wanted().position(|field| field.name == *name).expect("wanted");
            let Some(part) = &row[column] else { return refuse(Reason::MissingId, name) };
            parts.push(part.as_bytes());
        }
        Ok(Some(event_id(&parts)))
    }
}

fn ce_id(source: Option<&str>, id: Option<&str>) -> Result<EventId, Refusal> {
    let Some(id) = id else { return refuse(Reason::MissingId, "id") };
    let Some(source) = source else { return refuse(Reason::MissingId, "source") };
    Ok(event_id(&[source.as_bytes(), id.as_bytes()]))
}

fn object(tree: &Tree) -> Result<Vec<(String, Tree)>, Refusal> {
    match tree {
        Tree::Object(pairs) => Ok(pairs.clone()),
        _ => refuse(Reason::WrongType, ""),
    }
}

fn cell(field: &Field, value: &Value) -> Result<Option<String>, Reason> {
    let in_range = |value: f64| field.range.is_none_or(|range| range.contains(value));
    let known = |text: &String| field.values.is_empty() || field.values.contains(text);
    match (field.kind, field.time_format, value) {
        (_, _, Value::Null) => Ok(None),
        (FieldType::Boolean, _, Value::Bool(value)) => Ok(Some(value.to_string())),
        (FieldType::Number, _, Value::Number(number)) => match number.as_f64() {
            Some(value) if in_range(value) => Ok(Some(value.to_string())),
            _ => Err(Reason::OutOfRange),
        },
        (FieldType::Integer, _, Value::Number(number)) => {
            match (number.as_i64(), number.as_f64()) {
                (Some(value), Some(float)) if in_range(float) => Ok(Some(value.to_string())),
                (None, Some(float)) if float.abs() < 2f64.powi(63) => Err(Reason::WrongType),
                _ => Err(Reason::OutOfRange),
            }
        }
        (FieldType::Time, TimeFormat::EpochMs, Value::Number(number)) => match number.as_i64() {
            Some(ms) if (0..=9999).contains(&year(ms)) => Ok(Some(ms.to_string())),
            None if number.is_f64() => Err(Reason::WrongType),
            _ => Err(Reason::OutOfRange),
        },
        (FieldType::Text, _, Value::String(text)) if known(text) => Ok(Some(text.clone())),
        (FieldType::Text, _, Value::String(_)) => Err(Reason::UnknownValue),
        (FieldType::Time, TimeFormat::Rfc3339, Value::String(text)) => text
            .parse::<jiff::Timestamp>()
            .map(|moment| Some(moment.as_millisecond().to_string()))
            .map_err(|_| Reason::BadTime),
        (FieldType::Integer | FieldType::Number, _, Value::String(text))
            if ["NaN", "-Infinity"].contains(&text.as_str()) =>
        {
            Err(Reason::OutOfRange)
        }
        _ => Err(Reason::WrongType),
    }
}

/// The year of a moment; -1 where it is beyond the calendar.
fn year(ms: i64) -> i16 {
    jiff::Timestamp::from_millisecond(ms)
        .map_or(-1, |moment| moment.to_zoned(jiff::tz::TimeZone::UTC).year())
}

/// A JSON document with repeated keys kept.
#[derive(Clone, Debug)]
enum Tree {
    Leaf(Value),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    fn depth(&self) -> usize {
        match self {
            Self::Leaf(_) => 0,
            Self::Array(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(pairs) => {
                1 + pairs.iter().map(|(_, tree)| tree.depth()).max().unwrap_or(0)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut tree = Vec::new();
        while let Some(item) = items.next_element()? {
            tree.push(item);
        }
        Ok(Tree::Array(tree))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Tree::Object(pairs))
    }
}
