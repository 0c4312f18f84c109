//! The short way through a plain payload: one object of numbers, texts, booleans and nulls, without
//! escapes.
//!
//! Nearly every event is that plain, and a parser that may stop at the first byte it does not expect
//! is several times faster than one that must name the error. So this one decides nothing: what it
//! does not read, for whatever reason, is read again by the full parser, which alone makes faults.
//! Both hand a value to the same [`ValueSeed`], so a row is the same either way.

use super::column::Column;
use super::field::{FieldReader, ValueSeed};
use super::payload::KeyOrder;

/// Up to here a decimal's digits are exact in a float, and dividing them by a power of ten rounds
/// once: to the float nearest to what is written.
const DIGITS_MAX: u64 = 1 << 53;

/// More digits may not fit an `i64`.
const DIGITS_COUNT_MAX: usize = 18;

const POWERS_OF_TEN: [f64; DIGITS_COUNT_MAX + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18,
];

/// Where the values of an object go.
pub(crate) struct PlainRow<'a> {
    pub(crate) readers: &'a [FieldReader],
    pub(crate) columns: &'a mut [Column],
    pub(crate) order: &'a mut KeyOrder,
    pub(crate) row: usize,
}

/// One value as it stands in the payload.
enum Plain<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(&'a str),
}

impl PlainRow<'_> {
    /// Writes the row and yields the set of fields that are not null. None if the payload is not
    /// plain or anything is wrong with it: then part of the row may have been written.
    pub(crate) fn read(self, payload: &[u8]) -> Option<u64> {
        let mut cursor = Cursor { bytes: payload, at: 0 };
        let (mut place, mut present) = (0, 0u64);
        cursor.expect(b'{')?;
        loop {
            cursor.expect(b'"')?;
            let found = match self.order.remembered(place, cursor.rest()) {
                Some((length, found)) => {
                    cursor.at += length + 1;
                    found
                }
                None => self.order.find(place, cursor.text()?, self.readers),
            };
            cursor.expect(b':')?;
            let value = cursor.value()?;
            if let Some(index) = found {
                let (reader, column) = (&self.readers[index], &mut self.columns[index]);
                if column.len() > self.row {
                    return None;
                }
                if write(reader, column, &value)? {
                    present |= 1 << index;
                }
            }
            place += 1;
            match cursor.next()? {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
        if cursor.next().is_some() {
            return None;
        }
        let row = self.row;
        for column in self.columns.iter_mut().filter(|column| column.len() == row) {
            column.push_null();
        }
        Some(present)
    }
}

/// Writes one value; whether it is not null.
fn write(reader: &FieldReader, column: &mut Column, value: &Plain<'_>) -> Option<bool> {
    let mut seed = ValueSeed { reader, column, fault: &mut None };
    match *value {
        Plain::Null => {
            seed.column.push_null();
            return Some(false);
        }
        Plain::Boolean(value) => seed.boolean(value),
        Plain::Integer(value) => seed.integer(value),
        Plain::Float(value) => seed.float(value),
        Plain::Text(text) => seed.text(text),
    }
    .ok()
    .map(|()| true)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte that is no white space.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        loop {
            let byte = self.peek()?;
            self.at += 1;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn value(&mut self) -> Option<Plain<'a>> {
        match self.next()? {
            b'"' => self.text().map(Plain::Text),
            b'-' => {
                let first = self.peek()?;
                self.at += 1;
                self.number(first, true)
            }
            byte @ b'0'..=b'9' => self.number(byte, false),
            b't' => self.word(b"rue").map(|()| Plain::Boolean(true)),
            b'f' => self.word(b"alse").map(|()| Plain::Boolean(false)),
            b'n' => self.word(b"ull").map(|()| Plain::Null),
            _ => None,
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest().starts_with(word).then(|| self.at += word.len())
    }

    /// The text up to its closing quote, which is behind the cursor afterwards.
    fn text(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let end = plain_length(rest)?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).ok()
    }

    /// A number without exponent whose digits are few enough to be exact.
    fn number(&mut self, first: u8, is_negative: bool) -> Option<Plain<'a>> {
        let mut digits = u64::from(digit(first)?);
        let mut count = 1 + self.digits(&mut digits);
        if count > 1 && first == b'0' {
            return None;
        }
        let mut decimals = 0;
        let is_decimal = self.peek() == Some(b'.');
        if is_decimal {
            self.at += 1;
            decimals = self.digits(&mut digits);
            count += decimals;
            if decimals == 0 {
                return None;
            }
        }
        if count > DIGITS_COUNT_MAX || matches!(self.peek(), Some(b'e' | b'E')) {
            return None;
        }
        if is_decimal {
            let exact = digits < DIGITS_MAX;
            #[expect(clippy::cast_precision_loss, reason = "checked to be exact")]
            let value = digits as f64 / POWERS_OF_TEN[decimals];
            return exact.then_some(Plain::Float(if is_negative { -value } else { value }));
        }
        let value = i64::try_from(digits).ok()?;
        // A negative zero is a float.
        let is_integer = !is_negative || value != 0;
        is_integer.then_some(Plain::Integer(if is_negative { -value } else { value }))
    }

    /// Appends the digits that come next to `digits`, and says how many.
    fn digits(&mut self, digits: &mut u64) -> usize {
        let start = self.at;
        while let Some(next) = self.peek().and_then(digit) {
            // Whoever asks refuses a number with so many digits that this wraps.
            *digits = digits.wrapping_mul(10).wrapping_add(u64::from(next));
            self.at += 1;
        }
        self.at - start
    }
}

fn digit(byte: u8) -> Option<u8> {
    let digit = byte.wrapping_sub(b'0');
    (digit < 10).then_some(digit)
}

/// How many bytes there are before the closing quote, if no escape and no control character is among
/// them. Eight bytes at a time: a mark's lowest bit is where the first such byte is.
fn plain_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let stop = loop {
        let Some(eight) = bytes[at..].first_chunk::<8>() else {
            break at + bytes[at..].iter().position(|byte| is_stop(*byte))?;
        };
        let stops = stops(u64::from_le_bytes(*eight));
        if stops != 0 {
            break at + stops.trailing_zeros() as usize / 8;
        }
        at += 8;
    };
    (bytes[stop] == b'"').then_some(stop)
}

fn is_stop(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// Marks quotes, backslashes and control characters; what is marked above the lowest may be wrong.
fn stops(eight: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let zero = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes;
    let quote = zero(eight ^ (ONES * 0x22));
    let backslash = zero(eight ^ (ONES * 0x5c));
    let control = eight.wrapping_sub(ONES * 0x20) & !eight;
    (quote | backslash | control) & HIGHS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_ends_where_a_look_at_every_byte_ends_it(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b'a')], 0..40),
        ) {
            let stop = bytes.iter().position(|byte| is_stop(*byte));
            let expected = stop.filter(|stop| bytes[*stop] == b'"');
            prop_assert_eq!(plain_length(&bytes), expected);
        }

        #[test]
        fn a_number_is_what_serde_json_reads(text in "-?[0-9]{1,20}(\\.[0-9]{0,20})?(e1)?") {
            let mut cursor = Cursor { bytes: text.as_bytes(), at: 0 };
            let read = cursor.value();
            let expected = serde_json::from_str::<serde_json::Value>(&text);
            match read {
                Some(Plain::Integer(value)) => {
                    prop_assert_eq!(cursor.at, text.len());
                    prop_assert_eq!(expected.expect("a number").as_i64(), Some(value));
                }
                Some(Plain::Float(value)) => {
                    prop_assert_eq!(cursor.at, text.len());
                    let expected = expected.expect("a number");
                    prop_assert!(expected.is_f64());
                    prop_assert_eq!(expected.as_f64().map(f64::to_bits), Some(value.to_bits()));
                }
                _ => {}
            }
        }
    }
}
