//! Published columns: SQL expressions in which aggregates are called.
//!
//! `100.0 * mean(speed) / max(limit)` is taken apart when a pipeline is read: what stands inside an
//! aggregate is an [`Argument`], evaluated per event; each aggregate is a [`Slot`], kept per key;
//! what remains is an expression over the slots, evaluated per published row. Equal arguments and
//! equal slots are kept once, however often they are written.
//!
//! A measure is null where an aggregate it needs has no value (the mean of no values), and where its
//! arithmetic has none (a division by zero).

mod extract;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;

use crate::expression::{Expression, ExpressionError, position_of};
use crate::plan::{Argument, Measure, Plan, Slot};

pub use extract::AGGREGATES;

/// The column of a measure's expression that holds the area of the row's cell in square metres.
pub const AREA_COLUMN: &str = "cell_area_m2";

/// The aggregates of a pipeline as they are collected from its measures, one after the other.
#[derive(Clone, Debug)]
pub struct MeasureParser<'a> {
    schema: &'a Schema,
    decimals: &'a dyn DecimalsOf,
    /// The distinct arguments so far.
    pub arguments: Vec<Argument>,
    /// The distinct aggregates so far.
    pub slots: Vec<Slot>,
}

/// How many decimals a bare column keeps when it is added up.
pub trait DecimalsOf: std::fmt::Debug {
    /// The decimals of `column`; `None` where the schema states none.
    fn decimals_of(&self, column: &str) -> Option<u8>;
}

impl<'a> MeasureParser<'a> {
    /// A parser for measures over events with these columns (derived ones included).
    #[must_use]
    pub fn new(schema: &'a Schema, decimals: &'a dyn DecimalsOf) -> Self {
        Self { schema, decimals, arguments: Vec::new(), slots: Vec::new() }
    }

    /// Takes one measure apart.
    ///
    /// # Errors
    /// Says what is wrong and where, in lines and columns of `sql`.
    pub fn measure(&mut self, name: &str, sql: &str) -> Result<Measure, ExpressionError> {
        let parsed = crate::expression::parse_sql(sql)?;
        let rewritten = extract::extract(self, parsed)?;
        let expression = Expression::from_ast(&rewritten, &slot_schema(self.slots.len()))
            .map_err(|error| outside_aggregate(error, self.schema))?;
        if !expression.data_type().is_numeric() {
            let (line, column) = position_of(&rewritten);
            return Err(ExpressionError {
                message: format!("a measure is a number, not {}", expression.data_type()),
                line,
                column,
                hint: Some("write case when ... then 1 else 0 end".to_owned()),
            });
        }
        Ok(Measure { name: name.to_owned(), expression: rewritten.to_string() })
    }
}

/// The columns that a measure sees once its aggregates are columns.
fn slot_schema(slots: usize) -> Schema {
    let slots = (0..slots).map(|slot| format!("slot_{slot}"));
    let columns = slots.chain([AREA_COLUMN.to_owned()]);
    Schema::new(columns.map(|name| Field::new(name, DataType::Float64, true)).collect::<Vec<_>>())
}

/// A column of the events that is used outside any aggregate deserves a better hint.
fn outside_aggregate(mut error: ExpressionError, schema: &Schema) -> ExpressionError {
    let named = error.message.split('`').nth(1).unwrap_or_default().to_owned();
    if schema.index_of(&named).is_ok() {
        error.message = format!("column `{named}` stands outside any aggregate");
        error.hint = Some(format!("write sum({named}), mean({named}), max({named}), ..."));
    } else if error.message.starts_with("there is no column") {
        error.hint = Some("a measure is made of aggregates, numbers and cell.area_m2".to_owned());
    }
    error
}

/// The measures of a pipeline, ready to run.
#[derive(Clone, Debug)]
pub struct Measures {
    expressions: Vec<Expression>,
    schema: Arc<Schema>,
}

impl Measures {
    /// The measures of `plan`.
    ///
    /// # Errors
    /// Those of [`Expression::parse`]; a plan made by [`MeasureParser`] has none.
    pub fn new(plan: &Plan) -> Result<Self, ExpressionError> {
        let schema = slot_schema(plan.slots.len());
        let expressions = plan
            .measures
            .iter()
            .map(|measure| Expression::parse(&measure.expression, &schema))
            .collect::<Result<_, _>>()?;
        Ok(Self { expressions, schema: Arc::new(schema) })
    }

    /// The value of every measure in every row, from the row's slots (one array per slot of the
    /// plan) and the area of its cell. Null where there is none.
    ///
    /// # Panics
    /// If the arrays are not one per slot and of one length: our own bug.
    #[must_use]
    pub fn evaluate(&self, slots: &[Float64Array], area: &Float64Array) -> Vec<Float64Array> {
        let slots = slots.iter().chain([area]);
        let columns = slots.map(|slot| Arc::new(slot.clone()) as ArrayRef).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .expect("one Float64 array per slot, all of one length");
        self.expressions.iter().map(|expression| finite_floats(expression, &batch)).collect()
    }
}

fn finite_floats(expression: &Expression, batch: &RecordBatch) -> Float64Array {
    let values = expression.evaluate_rows(batch).values;
    let floats = cast(&values, &DataType::Float64)
        .unwrap_or_else(|_| new_null_array(&DataType::Float64, values.len()));
    let floats = floats.as_any().downcast_ref::<Float64Array>().expect("just cast to Float64");
    floats.iter().map(|value| value.filter(|value| value.is_finite())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct ThreeDecimals;

    impl DecimalsOf for ThreeDecimals {
        fn decimals_of(&self, column: &str) -> Option<u8> {
            (column == "value").then_some(3)
        }
    }

    fn events() -> Schema {
        Schema::new(vec![
            Field::new("people", DataType::Int64, true),
            Field::new("value", DataType::Float64, true),
            Field::new("status", DataType::Utf8, true),
        ])
    }

    type Parts = (Vec<Argument>, Vec<Slot>, Vec<String>);

    fn parse(measures: &[&str]) -> Result<Parts, ExpressionError> {
        let schema = events();
        let mut parser = MeasureParser::new(&schema, &ThreeDecimals);
        let measures = measures
            .iter()
            .map(|sql| parser.measure("m", sql).map(|measure| measure.expression))
            .collect::<Result<_, _>>()?;
        Ok((parser.arguments, parser.slots, measures))
    }

    fn argument(expression: &str, scale: u8) -> Argument {
        Argument { expression: expression.to_owned(), scale }
    }

    #[test]
    fn aggregates_become_slots_and_equal_ones_are_kept_once() {
        let (arguments, slots, measures) = parse(&[
            "sum(people) / cell.area_m2",
            "100.0 * AVG(people) / max(value) + sum( people )",
            "count() + count(*) + count(status)",
            "mean(people / 2)",
        ])
        .expect("good measures");
        assert_eq!(
            arguments,
            [
                argument("people", 0),
                argument("value", 3),
                argument("CASE WHEN status IS NOT NULL THEN 1 END", 0),
                argument("people / 2", 6),
            ]
        );
        assert_eq!(
            slots,
            [
                Slot::Sum(0),
                Slot::Mean(0),
                Slot::Max(1),
                Slot::Count,
                Slot::CountOf(2),
                Slot::Mean(3)
            ]
        );
        assert_eq!(
            measures,
            [
                "slot_0 / cell_area_m2",
                "100.0 * slot_1 / slot_2 + slot_0",
                "slot_3 + slot_3 + slot_4",
                "slot_5"
            ]
        );
    }

    #[test]
    fn faults_say_where_and_what_to_do() {
        let cases = [
            ("sum(peple)", 1, 5, "there is no column `peple`", "did you mean `people`?"),
            ("1 + people", 1, 5, "column `people` stands outside any aggregate", "sum(people)"),
            ("cell.area", 1, 1, "there is no column `cell.area`", "cell.area_m2"),
            ("summ(people)", 1, 1, "there is no aggregate or function `summ`", "`sum`"),
            (
                "quantile(people)",
                1,
                1,
                "there is no aggregate or function `quantile`",
                "count, sum",
            ),
            ("sum(status)", 1, 5, "sum needs a number, not Utf8", "case when"),
            ("sum(max(people))", 1, 5, "an aggregate cannot contain another", "derive"),
            ("sum()", 1, 1, "sum needs one argument", "sum(x)"),
            ("count(distinct people)", 1, 1, "count cannot do this yet", "plain"),
            ("count() > 3", 1, 1, "a measure is a number, not Boolean", "case when"),
        ];
        for (sql, line, column, message, hint) in cases {
            let error = parse(&[sql]).expect_err(sql);
            assert_eq!((error.message.as_str(), error.line, error.column), (message, line, column));
            assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{error:?}");
        }
    }

    #[test]
    fn a_measure_without_a_value_is_null() {
        let (arguments, slots, measures) =
            parse(&["sum(people) / count(value)", "sum(people) / cell.area_m2"]).expect("good");
        let plan = Plan {
            arguments,
            slots,
            measures: measures
                .into_iter()
                .map(|expression| Measure { name: "m".to_owned(), expression })
                .collect(),
            ..crate::select::tests::plan()
        };
        let values = Measures::new(&plan).expect("good measures").evaluate(
            &[
                Float64Array::from(vec![Some(6.0), Some(6.0), None]),
                Float64Array::from(vec![2.0, 0.0, 1.0]),
            ],
            &Float64Array::from(vec![Some(3.0), None, Some(1.0)]),
        );
        assert_eq!(values[0], Float64Array::from(vec![Some(3.0), None, None]));
        assert_eq!(values[1], Float64Array::from(vec![Some(2.0), None, None]));
    }
}
