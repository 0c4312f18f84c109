//! The passes of a selection over one batch.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;

use super::{RowReject, Select, Selected, fixed_point, with_column};
use crate::events::Reason;
use crate::expression::FailedRow;

/// What is known of a batch's rows so far; every pass may reject more of them.
struct Rows {
    rejects: Vec<RowReject>,
    /// Per row of the batch: the derived column that failed on it although nobody asked yet.
    failed_early: Vec<RowReject>,
}

pub(super) fn run(select: &Select, batch: &RecordBatch) -> Selected {
    let mut rows = Rows { rejects: Vec::new(), failed_early: Vec::new() };
    let columns = derived(select, batch, &mut rows);
    let kept = filtered(select, &columns, &mut rows);
    let filtered = batch.num_rows() - kept.len() - rows.rejects.len();
    let (kept, columns) = rest(columns, kept);
    let (kept, columns, arguments) = arguments(select, kept, columns, &mut rows.rejects);
    rows.rejects.sort_by_key(|reject| reject.row);
    Selected {
        filtered,
        groups: select.group_codec.encode(&columns),
        entities: select.entity_codec.encode(&columns),
        rejects: rows.rejects,
        kept,
        columns,
        arguments,
    }
}

/// Adds the derived columns. Rows that fail are null, and rejects unless `where` filters them.
fn derived(select: &Select, batch: &RecordBatch, rows: &mut Rows) -> RecordBatch {
    let mut columns = batch.clone();
    for derived in &select.derive {
        let evaluated = derived.expression.evaluate_rows(&columns).finite();
        let failed = evaluated.failed.into_iter().map(|failed| reject(failed, &derived.name));
        if derived.needed_by_filter {
            rows.rejects.extend(failed);
        } else {
            rows.failed_early.extend(failed);
        }
        columns = push_column(&columns, &derived.name, evaluated.values);
    }
    columns
}

fn push_column(batch: &RecordBatch, name: &str, values: ArrayRef) -> RecordBatch {
    let schema = with_column(&batch.schema(), name, values.data_type());
    let columns = batch.columns().iter().cloned().chain([values]).collect();
    RecordBatch::try_new(Arc::new(schema), columns).expect("a column of the batch's length")
}

/// The rows that `where` keeps and that have not failed.
fn filtered(select: &Select, columns: &RecordBatch, rows: &mut Rows) -> Vec<u32> {
    let mut keep = vec![true; columns.num_rows()];
    if let Some(filter) = &select.filter {
        let evaluated = filter.evaluate_rows(columns);
        let wanted = evaluated.values.as_boolean();
        for (row, keep) in keep.iter_mut().enumerate() {
            *keep = wanted.is_valid(row) && wanted.value(row);
        }
        rows.rejects.extend(evaluated.failed.into_iter().map(|failed| reject(failed, "where")));
    }
    let late: Vec<_> =
        rows.failed_early.drain(..).filter(|reject| keep[reject.row as usize]).collect();
    rows.rejects.extend(late);
    one_reject_per_row(&mut rows.rejects);
    for reject in &rows.rejects {
        keep[reject.row as usize] = false;
    }
    (0_u32..).zip(keep).filter(|(_, keep)| *keep).map(|(row, _)| row).collect()
}

/// Only the rows `kept` of a batch; nothing is copied when that is all of them.
fn rest(columns: RecordBatch, kept: Vec<u32>) -> (Vec<u32>, RecordBatch) {
    if kept.len() == columns.num_rows() {
        return (kept, columns);
    }
    let indices = UInt32Array::from(kept);
    let columns = take_record_batch(&columns, &indices).expect("indexes of this batch");
    (indices.values().to_vec(), columns)
}

/// The arguments of all rows; a row that has none is rejected and leaves the other columns too.
fn arguments(
    select: &Select,
    kept: Vec<u32>,
    columns: RecordBatch,
    rejects: &mut Vec<RowReject>,
) -> (Vec<u32>, RecordBatch, Vec<Decimal128Array>) {
    let (arguments, mut failed) = evaluate_arguments(select, &columns);
    failed.extend(nameless_entities(select, &columns));
    if failed.is_empty() {
        return (kept, columns, arguments);
    }
    one_reject_per_row(&mut failed);
    let mut keep = vec![true; kept.len()];
    for mut reject in failed {
        keep[reject.row as usize] = false;
        reject.row = kept[reject.row as usize];
        rejects.push(reject);
    }
    let positions: Vec<u32> =
        (0_u32..).zip(keep).filter(|(_, keep)| *keep).map(|(position, _)| position).collect();
    let kept = positions.iter().map(|&position| kept[position as usize]).collect();
    let (_, columns) = rest(columns, positions);
    // The rows that are left have all their values, so this second pass rejects none.
    let (arguments, _) = evaluate_arguments(select, &columns);
    (kept, columns, arguments)
}

fn evaluate_arguments(
    select: &Select,
    columns: &RecordBatch,
) -> (Vec<Decimal128Array>, Vec<RowReject>) {
    let mut rejects = Vec::new();
    let arguments = select.arguments.iter().map(|argument| {
        let evaluated = argument.expression.evaluate_rows(columns).finite();
        let (units, failed) = fixed_point::fixed_point(evaluated, argument.scale);
        let sql = argument.expression.sql();
        rejects.extend(failed.into_iter().map(|failed| reject(failed, sql)));
        units
    });
    (arguments.collect(), rejects)
}

/// Rows without a value in a column that names their entity: they cannot be told apart.
fn nameless_entities(select: &Select, columns: &RecordBatch) -> Vec<RowReject> {
    let mut rejects = Vec::new();
    for &index in select.entity_codec.indices() {
        let column = columns.column(index);
        if column.null_count() == 0 {
            continue;
        }
        let nulls = (0_u32..).take(column.len()).filter(|&row| column.is_null(row as usize));
        rejects.extend(nulls.map(|row| RowReject {
            row,
            reason: Reason::MissingField,
            field: columns.schema().field(index).name().clone(),
            detail: "it names the entity and is null".to_owned(),
        }));
    }
    rejects
}

/// A row is rejected once, for the first thing that is wrong with it.
fn one_reject_per_row(rejects: &mut Vec<RowReject>) {
    rejects.sort_by_key(|reject| reject.row);
    rejects.dedup_by_key(|reject| reject.row);
}

fn reject(failed: FailedRow, field: &str) -> RowReject {
    RowReject {
        row: u32::try_from(failed.row).unwrap_or(u32::MAX),
        reason: Reason::Expression,
        field: field.to_owned(),
        detail: failed.detail,
    }
}
