//! Evaluation in which a row that fails does not take its batch with it.

use arrow::array::{Array, ArrayRef, Float64Array, new_null_array};
use arrow::compute::concat;
use arrow::record_batch::RecordBatch;

use super::Expression;

/// A row on which an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRow {
    /// The row's index in the batch.
    pub row: usize,
    /// What went wrong.
    pub detail: String,
}

/// Every row's value, null where it failed, and the rows that failed, ascending.
#[derive(Clone, Debug)]
pub struct EvaluatedRows {
    /// One value per row of the batch.
    pub values: ArrayRef,
    /// The rows that failed.
    pub failed: Vec<FailedRow>,
}

/// Halves a batch that fails until the failing rows stand alone: k of them in n rows cost about
/// k log n evaluations, and none of them costs nothing.
pub(super) fn evaluate(expression: &Expression, batch: &RecordBatch) -> EvaluatedRows {
    let mut failed = Vec::new();
    let values = values_of(expression, batch, 0, &mut failed);
    EvaluatedRows { values, failed }
}

fn values_of(
    expression: &Expression,
    batch: &RecordBatch,
    first_row: usize,
    failed: &mut Vec<FailedRow>,
) -> ArrayRef {
    let error = match expression.evaluate(batch) {
        Ok(values) => return values,
        Err(error) => error,
    };
    let nulls = || new_null_array(expression.data_type(), batch.num_rows());
    if batch.num_rows() <= 1 {
        failed.extend(
            (0..batch.num_rows())
                .map(|row| FailedRow { row: first_row + row, detail: error.message.clone() }),
        );
        return nulls();
    }
    let half = batch.num_rows() / 2;
    let left = values_of(expression, &batch.slice(0, half), first_row, failed);
    let rest = batch.slice(half, batch.num_rows() - half);
    let right = values_of(expression, &rest, first_row + half, failed);
    concat(&[left.as_ref(), right.as_ref()]).unwrap_or_else(|_| nulls())
}

impl EvaluatedRows {
    /// Counts NaN and infinity as failures too: `x / 0` is no number that a city can add up.
    #[must_use]
    pub fn finite(mut self) -> Self {
        let Some(floats) = self.values.as_any().downcast_ref::<Float64Array>() else {
            return self;
        };
        let not_finite: Vec<_> = (0..floats.len())
            .filter(|&row| floats.is_valid(row) && !floats.value(row).is_finite())
            .map(|row| FailedRow { row, detail: format!("the value is {}", floats.value(row)) })
            .collect();
        if not_finite.is_empty() {
            return self;
        }
        let finite = floats.iter().map(|value| value.filter(|value| value.is_finite()));
        self.values = std::sync::Arc::new(finite.collect::<Float64Array>());
        self.failed.extend(not_finite);
        self.failed.sort_by_key(|failed| failed.row);
        self
    }
}
