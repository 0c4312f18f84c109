//! One JSON object into one row of the columns.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::events::Reason;

use super::column::Column;
use super::fault::Fault;
use super::field::{FieldReader, ValueSeed};

/// How many keys of one object are remembered, and how long one may be.
const REMEMBERED_MAX: usize = 64;

/// The keys of the object before, in order. Senders write every event alike, so a key is mostly
/// found by one comparison.
#[derive(Debug, Default)]
pub(crate) struct KeyOrder {
    keys: Vec<(String, Option<usize>)>,
}

impl KeyOrder {
    /// If `rest` goes on with the key that was at this place before and a quote: the key's length,
    /// and what reads it.
    pub(crate) fn remembered(&self, place: usize, rest: &[u8]) -> Option<(usize, Option<usize>)> {
        let (key, found) = self.keys.get(place)?;
        let is_same = rest.get(key.len()) == Some(&b'"') && rest.starts_with(key.as_bytes());
        is_same.then_some((key.len(), *found))
    }

    /// Which of `readers` reads the key at this place of the object; none if it is not wanted.
    pub(crate) fn find(
        &mut self,
        place: usize,
        key: &str,
        readers: &[FieldReader],
    ) -> Option<usize> {
        if let Some((remembered, found)) = self.keys.get(place)
            && remembered == key
        {
            return *found;
        }
        let found = readers.iter().position(|reader| reader.name == key);
        if key.len() <= REMEMBERED_MAX && is_written_as_it_is(key) {
            self.remember(place, key, found);
        }
        found
    }

    fn remember(&mut self, place: usize, key: &str, found: Option<usize>) {
        if let Some((remembered, reader)) = self.keys.get_mut(place) {
            remembered.clear();
            remembered.push_str(key);
            *reader = found;
        } else if place == self.keys.len() && place < REMEMBERED_MAX {
            self.keys.push((key.to_owned(), found));
        }
    }
}

/// Whether JSON text cannot be told from the key itself: nothing in it needs an escape.
fn is_written_as_it_is(key: &str) -> bool {
    !key.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\')
}

/// Writes the object that comes next as row `row`; yields the set of fields that are not null.
pub(crate) struct ObjectSeed<'a> {
    pub(crate) readers: &'a [FieldReader],
    pub(crate) columns: &'a mut [Column],
    pub(crate) order: &'a mut KeyOrder,
    pub(crate) row: usize,
    pub(crate) fault: &'a mut Option<Fault>,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_> {
    type Value = u64;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u64, A::Error> {
        let Self { readers, columns, order, row, fault } = self;
        let (mut place, mut present) = (0, 0u64);
        while let Some(found) = map.next_key_seed(KeySeed { order: &mut *order, place, readers })? {
            place += 1;
            let Some(index) = found else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let (reader, column) = (&readers[index], &mut columns[index]);
            if column.len() > row {
                *fault = Some(repeated(&reader.name));
                return Err(A::Error::custom("refused"));
            }
            if map.next_value_seed(ValueSeed { reader, column, fault: &mut *fault })? {
                present |= 1 << index;
            }
        }
        for column in columns.iter_mut().filter(|column| column.len() == row) {
            column.push_null();
        }
        Ok(present)
    }
}

/// The fault of a key that occurs twice.
pub(crate) fn repeated(key: &str) -> Fault {
    Fault::of_field(Reason::RepeatedField, key, "the key occurs more than once")
}

struct KeySeed<'a> {
    order: &'a mut KeyOrder,
    place: usize,
    readers: &'a [FieldReader],
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.order.find(self.place, key, self.readers))
    }
}
