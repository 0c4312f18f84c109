//! Columns under construction, from which the last row can be taken back.
//!
//! A row is written field by field in the order of the document. While a row is being written a
//! column has either `rows` values (its field has not come yet) or `rows + 1`.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, NullBufferBuilder, StringArray,
    TimestampMillisecondArray,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, TimeUnit};
use citycell_schemas::event::FieldType;

/// The Arrow type of a field's column. Times are UTC milliseconds without a zone.
#[must_use]
pub fn arrow_type(kind: FieldType) -> DataType {
    match kind {
        FieldType::Text => DataType::Utf8,
        FieldType::Integer => DataType::Int64,
        FieldType::Number => DataType::Float64,
        FieldType::Boolean => DataType::Boolean,
        FieldType::Time => DataType::Timestamp(TimeUnit::Millisecond, None),
    }
}

/// One column under construction.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) values: Values,
    nulls: NullBufferBuilder,
}

/// The values of a column under construction; a null has a default value here.
#[derive(Debug)]
pub(crate) enum Values {
    Text { bytes: Vec<u8>, ends: Vec<i32> },
    Integer(Vec<i64>),
    Number(Vec<f64>),
    Boolean(Vec<bool>),
    Time(Vec<i64>),
}

impl Column {
    pub(crate) fn new(kind: FieldType) -> Self {
        let values = match kind {
            FieldType::Text => Values::Text { bytes: Vec::new(), ends: vec![0] },
            FieldType::Integer => Values::Integer(Vec::new()),
            FieldType::Number => Values::Number(Vec::new()),
            FieldType::Boolean => Values::Boolean(Vec::new()),
            FieldType::Time => Values::Time(Vec::new()),
        };
        Self { values, nulls: NullBufferBuilder::new(0) }
    }

    pub(crate) fn reserve(&mut self, rows: usize) {
        match &mut self.values {
            Values::Text { ends, .. } => ends.reserve(rows),
            Values::Integer(values) | Values::Time(values) => values.reserve(rows),
            Values::Number(values) => values.reserve(rows),
            Values::Boolean(values) => values.reserve(rows),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Marks the value just pushed onto [`Column::values`] as present.
    pub(crate) fn present(&mut self) {
        self.nulls.append_non_null();
    }

    pub(crate) fn push_null(&mut self) {
        match &mut self.values {
            Values::Text { ends, bytes } => ends.push(end_of(bytes)),
            Values::Integer(values) | Values::Time(values) => values.push(0),
            Values::Number(values) => values.push(0.0),
            Values::Boolean(values) => values.push(false),
        }
        self.nulls.append_null();
    }

    /// Appends a text, unless the column would outgrow its 32-bit offsets.
    #[must_use]
    pub(crate) fn push_text(&mut self, text: &str) -> bool {
        let Values::Text { bytes, ends } = &mut self.values else {
            unreachable!("only text fields read texts")
        };
        let Ok(end) = i32::try_from(bytes.len() + text.len()) else { return false };
        bytes.extend_from_slice(text.as_bytes());
        ends.push(end);
        self.nulls.append_non_null();
        true
    }

    /// Takes back what was written after the first `rows` rows.
    pub(crate) fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Text { bytes, ends } => {
                ends.truncate(rows + 1);
                bytes.truncate(usize::try_from(ends[rows]).unwrap_or_default());
            }
            Values::Integer(values) | Values::Time(values) => values.truncate(rows),
            Values::Number(values) => values.truncate(rows),
            Values::Boolean(values) => values.truncate(rows),
        }
        self.nulls.truncate(rows);
    }

    /// What row `row` adds to an id: a text, or an integer's digits; none if it is null.
    pub(crate) fn id_part<'a>(&'a self, row: usize, digits: &'a mut String) -> Option<&'a [u8]> {
        if !self.nulls.is_valid(row) {
            return None;
        }
        match &self.values {
            Values::Text { bytes, ends } => {
                let end = |index: usize| usize::try_from(ends[index]).unwrap_or_default();
                Some(&bytes[end(row)..end(row + 1)])
            }
            Values::Integer(values) | Values::Time(values) => {
                digits.clear();
                let _ = write!(digits, "{}", values[row]);
                Some(digits.as_bytes())
            }
            Values::Number(_) | Values::Boolean(_) => None,
        }
    }

    /// The finished array; the column is empty afterwards.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        let nulls = self.nulls.finish();
        match &mut self.values {
            Values::Text { bytes, ends } => {
                let ends = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(ends, vec![0])));
                let bytes = Buffer::from_vec(std::mem::take(bytes));
                Arc::new(
                    StringArray::try_new(ends, bytes, nulls)
                        .expect("made of str, cut at their ends"),
                )
            }
            Values::Integer(values) => {
                Arc::new(Int64Array::new(std::mem::take(values).into(), nulls))
            }
            Values::Number(values) => {
                Arc::new(Float64Array::new(std::mem::take(values).into(), nulls))
            }
            Values::Boolean(values) => {
                Arc::new(BooleanArray::new(std::mem::take(values).into(), nulls))
            }
            Values::Time(values) => {
                Arc::new(TimestampMillisecondArray::new(std::mem::take(values).into(), nulls))
            }
        }
    }
}

/// Where the last text ends; `push_text` keeps it within 32 bits.
fn end_of(bytes: &[u8]) -> i32 {
    i32::try_from(bytes.len()).expect("push_text stops before")
}
