//! Some columns of a row as one comparable string of bytes, and back.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, Rows, SortField};

use crate::expression::{ExpressionError, closest};

/// Encodes fixed columns of a batch as Arrow rows: equal bytes mean equal values, and bytes sort as
/// the values do, nulls first. Without columns every row is the empty string and nothing is built.
#[derive(Debug)]
pub struct RowCodec {
    fields: Vec<Arc<Field>>,
    indices: Vec<usize>,
    converter: RowConverter,
}

/// One string of bytes per row of a batch.
#[derive(Debug)]
pub struct EncodedRows {
    rows: Option<Rows>,
}

impl EncodedRows {
    /// The bytes of row `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> &[u8] {
        match &self.rows {
            Some(rows) => rows.row(index).data(),
            None => &[],
        }
    }
}

impl RowCodec {
    /// A codec of these columns of `schema`.
    ///
    /// # Errors
    /// A column that does not exist, or one of a type that cannot be compared exactly.
    pub fn new(columns: &[String], schema: &Schema) -> Result<Self, ExpressionError> {
        let indices: Vec<usize> =
            columns.iter().map(|name| index_of(name, schema)).collect::<Result<_, _>>()?;
        let fields: Vec<_> =
            indices.iter().map(|&index| Arc::new(schema.field(index).clone())).collect();
        let sort_fields = fields.iter().map(|field| SortField::new(field.data_type().clone()));
        let converter = RowConverter::new(sort_fields.collect())
            .map_err(|error| column_error(error.to_string(), None))?;
        Ok(Self { fields, indices, converter })
    }

    /// The columns, in order.
    #[must_use]
    pub fn fields(&self) -> &[Arc<Field>] {
        &self.fields
    }

    /// The column's index in the batches that are encoded.
    pub(super) fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// The bytes of every row of `batch`.
    ///
    /// # Panics
    /// If `batch` lacks the columns: our own bug.
    #[must_use]
    pub fn encode(&self, batch: &RecordBatch) -> EncodedRows {
        if self.fields.is_empty() {
            return EncodedRows { rows: None };
        }
        let columns: Vec<_> =
            self.indices.iter().map(|&index| Arc::clone(batch.column(index))).collect();
        let rows = self.converter.convert_columns(&columns).expect("columns of the codec's types");
        EncodedRows { rows: Some(rows) }
    }

    /// The columns of encoded rows, one array per field; no arrays without columns.
    ///
    /// # Panics
    /// May panic on bytes that [`RowCodec::encode`] did not make.
    #[must_use]
    pub fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Vec<ArrayRef> {
        if self.fields.is_empty() {
            return Vec::new();
        }
        let parser = self.converter.parser();
        self.converter
            .convert_rows(rows.into_iter().map(|bytes| parser.parse(bytes)))
            .expect("bytes that this codec made")
    }
}

fn index_of(name: &str, schema: &Schema) -> Result<usize, ExpressionError> {
    let index = schema.index_of(name).map_err(|_| {
        let known = schema.fields().iter().map(|field| field.name().as_str());
        let hint = closest(name, known).map(|meant| format!("did you mean `{meant}`?"));
        column_error(format!("there is no column `{name}`"), hint)
    })?;
    if schema.field(index).data_type().is_floating() {
        let hint =
            format!("derive a text or a whole number from it: cast(round({name}) as bigint)");
        let message = format!("`{name}` is a fractional number, which names nothing exactly");
        return Err(column_error(message, Some(hint)));
    }
    Ok(index)
}

fn column_error(message: String, hint: Option<String>) -> ExpressionError {
    ExpressionError { message, line: 1, column: 1, hint }
}
