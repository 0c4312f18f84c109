//! A CloudEvent in structured mode: attributes beside the data.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::events::Reason;

use super::fault::Fault;
use super::payload::{ObjectSeed, repeated};

/// The attributes of one CloudEvent that decoding needs. The buffers are used again and again.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) id: Attribute,
    pub(crate) source: Attribute,
    pub(crate) kind: Attribute,
}

/// One attribute; empty where it is missing or null.
#[derive(Debug, Default)]
pub(crate) struct Attribute {
    pub(crate) text: String,
    seen: bool,
}

impl Attributes {
    fn clear(&mut self) {
        for attribute in [&mut self.id, &mut self.source, &mut self.kind] {
            attribute.text.clear();
            attribute.seen = false;
        }
    }
}

/// The `type` of a CloudEvent in structured mode, whatever its data look like.
pub(crate) fn type_of(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct TypeOnly {
        #[serde(rename = "type")]
        kind: Option<String>,
    }
    serde_json::from_str::<TypeOnly>(text).ok()?.kind
}

/// Reads the CloudEvent that comes next; yields what its data have, none if it has no data.
pub(crate) struct EnvelopeSeed<'a> {
    pub(crate) attributes: &'a mut Attributes,
    pub(crate) data: ObjectSeed<'a>,
}

impl<'de> DeserializeSeed<'de> for EnvelopeSeed<'_> {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeSeed<'_> {
    type Value = Option<u64>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a CloudEvent")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Self { attributes, data } = self;
        let ObjectSeed { readers, columns, order, row, fault } = data;
        attributes.clear();
        let (mut data_seen, mut present) = (false, None);
        while let Some(key) = map.next_key::<Key>()? {
            let attribute = match key {
                Key::Id => &mut attributes.id,
                Key::Source => &mut attributes.source,
                Key::Type => &mut attributes.kind,
                Key::Data if data_seen => return Err(refuse(fault, repeated("data"))),
                Key::Data => {
                    data_seen = true;
                    let (columns, order, fault) = (&mut *columns, &mut *order, &mut *fault);
                    let data = ObjectSeed { readers, columns, order, row, fault };
                    present = map.next_value_seed(DataSeed(data))?;
                    continue;
                }
                Key::DataBase64 => {
                    let detail = "binary data are not read";
                    let unread = Fault::of_field(Reason::WrongType, "data_base64", detail);
                    return Err(refuse(fault, unread));
                }
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if std::mem::replace(&mut attribute.seen, true) {
                return Err(refuse(fault, repeated(key.name())));
            }
            let text = &mut attribute.text;
            map.next_value_seed(AttributeSeed { name: key.name(), text, fault: &mut *fault })?;
        }
        Ok(present)
    }
}

fn refuse<E: Error>(slot: &mut Option<Fault>, fault: Fault) -> E {
    *slot = Some(fault);
    E::custom("refused")
}

#[derive(Clone, Copy, Deserialize)]
enum Key {
    #[serde(rename = "id")]
    Id,
    #[serde(rename = "source")]
    Source,
    #[serde(rename = "type")]
    Type,
    #[serde(rename = "data")]
    Data,
    #[serde(rename = "data_base64")]
    DataBase64,
    #[serde(other)]
    Other,
}

impl Key {
    const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Source => "source",
            Self::Type => "type",
            Self::Data => "data",
            Self::DataBase64 => "data_base64",
            Self::Other => "",
        }
    }
}

/// The data, or null.
struct DataSeed<'a>(ObjectSeed<'a>);

impl<'de> DeserializeSeed<'de> for DataSeed<'_> {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for DataSeed<'_> {
    type Value = Option<u64>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object or null")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

/// One attribute: a text or null.
struct AttributeSeed<'a> {
    name: &'static str,
    text: &'a mut String,
    fault: &'a mut Option<Fault>,
}

impl<'de> DeserializeSeed<'de> for AttributeSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { name, text, fault } = self;
        let seed = AttributeSeed { name, text, fault: &mut *fault };
        deserializer.deserialize_any(seed).inspect_err(|_| {
            *fault = Some(Fault::of_field(Reason::WrongType, name, "the attribute is no text"));
        })
    }
}

impl Visitor<'_> for AttributeSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.text.push_str(text);
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}
