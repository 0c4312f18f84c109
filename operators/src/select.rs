//! `where`, derived columns and the arguments of the aggregates: what is evaluated per event.
//!
//! The order is fixed. Derived columns come first, each seeing those before it; then `where`; then,
//! for the rows it keeps, group columns, entity columns and arguments. A `where` that is null counts
//! as false.
//!
//! A row that cannot be evaluated is a reject, its batch goes on: an expression that fails
//! (`x % 0`, an overflow), a derived value or an argument that is NaN or infinite (`x / 0`), an
//! argument beyond [`UNITS_MAX`], an entity column that is null. A row that `where` does not keep is
//! filtered, whatever else is wrong with it, unless `where` itself needs the value that failed.

mod codec;
mod fixed_point;
mod passes;

use arrow::array::Decimal128Array;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;

use crate::events::Reason;
use crate::expression::{Expression, ExpressionError};
use crate::plan::{Plan, Window};

pub use codec::{EncodedRows, RowCodec};
pub use fixed_point::UNITS_MAX;

/// A pipeline's expressions, ready to run.
#[derive(Debug)]
pub struct Select {
    derive: Vec<DerivedColumn>,
    filter: Option<Expression>,
    arguments: Vec<FixedPoint>,
    group_codec: RowCodec,
    entity_codec: RowCodec,
    event_columns: usize,
}

#[derive(Debug)]
struct DerivedColumn {
    name: String,
    expression: Expression,
    needed_by_filter: bool,
}

#[derive(Debug)]
struct FixedPoint {
    expression: Expression,
    scale: u8,
}

/// The rows of a batch that a pipeline wants, and what became of the others.
#[derive(Debug)]
pub struct Selected {
    /// The rows kept, as indexes into the batch, ascending. Row `i` of everything below is
    /// `kept[i]` of the batch.
    pub kept: Vec<u32>,
    /// How many rows `where` does not want.
    pub filtered: usize,
    /// The rows that cannot be evaluated, ascending.
    pub rejects: Vec<RowReject>,
    /// The event's columns and the derived ones.
    pub columns: RecordBatch,
    /// One array per argument of the plan, in units of 10^-scale.
    pub arguments: Vec<Decimal128Array>,
    /// The group columns of each row.
    pub groups: EncodedRows,
    /// The entity columns (`by`) of each row.
    pub entities: EncodedRows,
}

/// A row that cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowReject {
    /// The row's index in the batch.
    pub row: u32,
    /// Why.
    pub reason: Reason,
    /// The derived column, the field or the expression at fault.
    pub field: String,
    /// What went wrong.
    pub detail: String,
}

impl Select {
    /// The expressions of `plan` over events with the columns of `schema`, in this order.
    ///
    /// # Errors
    /// Those of [`Expression::parse`], and group or entity columns that do not exist; none for a
    /// plan that was checked against this schema.
    pub fn new(plan: &Plan, schema: &Schema) -> Result<Self, ExpressionError> {
        let mut derive = Vec::new();
        let mut columns = schema.clone();
        for derived in &plan.derive {
            let expression = Expression::parse(&derived.expression, &columns)?;
            columns = with_column(&columns, &derived.name, expression.data_type());
            derive.push(DerivedColumn {
                name: derived.name.clone(),
                expression,
                needed_by_filter: false,
            });
        }
        let filter = plan.filter.as_deref().map(|sql| condition(sql, &columns)).transpose()?;
        mark_needed(&mut derive, filter.as_ref());
        let arguments = plan.arguments.iter().map(|argument| {
            let expression = Expression::parse(&argument.expression, &columns)?;
            Ok(FixedPoint { expression, scale: argument.scale })
        });
        Ok(Self {
            arguments: arguments.collect::<Result<_, _>>()?,
            group_codec: RowCodec::new(&plan.group_by, &columns)?,
            entity_codec: RowCodec::new(entity_columns(plan), &columns)?,
            event_columns: schema.fields().len(),
            derive,
            filter,
        })
    }

    /// Encodes and decodes [`Selected::groups`].
    #[must_use]
    pub fn group_codec(&self) -> &RowCodec {
        &self.group_codec
    }

    /// Evaluates everything over `batch`, whose columns are those of the schema given to `new`.
    ///
    /// # Panics
    /// If `batch` has other columns: our own bug.
    #[must_use]
    pub fn select(&self, batch: &RecordBatch) -> Selected {
        assert_eq!(batch.num_columns(), self.event_columns, "a batch of another schema");
        passes::run(self, batch)
    }
}

/// The columns that name an entity; none for a pipeline of plain events.
fn entity_columns(plan: &Plan) -> &[String] {
    match (&plan.per, &plan.window) {
        (Some(per), _) => &per.by,
        (None, Window::Latest { by, .. }) => by,
        (None, Window::Tumbling { .. }) => &[],
    }
}

/// `schema` with one column more, as it is after a derived column was added.
#[must_use]
pub fn with_column(schema: &Schema, name: &str, data_type: &DataType) -> Schema {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone());
    let fields: Vec<_> = fields.chain([Field::new(name, data_type.clone(), true)]).collect();
    Schema::new(fields)
}

/// A `where` expression: one that is true or false.
///
/// # Errors
/// Those of [`Expression::parse`], and an expression of another type.
pub fn condition(sql: &str, schema: &Schema) -> Result<Expression, ExpressionError> {
    let expression = Expression::parse(sql, schema)?;
    if *expression.data_type() == DataType::Boolean {
        return Ok(expression);
    }
    Err(ExpressionError {
        message: format!("a condition is true or false, not {}", expression.data_type()),
        line: 1,
        column: 1,
        hint: Some("compare it with something, for example `... > 0`".to_owned()),
    })
}

/// Marks the derived columns that `filter` reads, directly or through others.
fn mark_needed(derive: &mut [DerivedColumn], filter: Option<&Expression>) {
    let mut needed: Vec<String> = filter.map_or_else(Vec::new, |filter| filter.columns().to_vec());
    for derived in derive.iter_mut().rev() {
        if needed.contains(&derived.name) {
            derived.needed_by_filter = true;
            needed.extend_from_slice(derived.expression.columns());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
