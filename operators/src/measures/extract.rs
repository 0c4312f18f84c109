//! Finds the aggregate calls of a measure and puts columns in their place.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion_sql::sqlparser::ast::{
    Expr as SqlExpr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, VisitMut,
    VisitorMut, visit_expressions,
};

use super::{AREA_COLUMN, MeasureParser};
use crate::expression::{Expression, ExpressionError, FUNCTIONS, closest, parse_sql, position_of};
use crate::plan::{Argument, Slot};

/// The aggregates that exist, as hints list them. `avg` is another name of `mean`.
pub const AGGREGATES: &[&str] = &["count", "sum", "mean", "avg", "min", "max"];

/// The decimals kept of what no schema states the decimals of.
const DECIMALS_DEFAULT: u8 = 6;

/// The measure with `slot_i` for every aggregate call and one name for the cell's area.
pub(super) fn extract(
    parser: &mut MeasureParser<'_>,
    mut measure: SqlExpr,
) -> Result<SqlExpr, ExpressionError> {
    match measure.visit(&mut Extractor { parser }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(measure),
    }
}

struct Extractor<'a, 'b> {
    parser: &'a mut MeasureParser<'b>,
}

impl VisitorMut for Extractor<'_, '_> {
    type Break = ExpressionError;

    // Before its children: an aggregate's argument is not part of the measure any more.
    fn pre_visit_expr(&mut self, part: &mut SqlExpr) -> ControlFlow<ExpressionError> {
        match self.replacement(part) {
            Ok(Some(column)) => {
                *part = SqlExpr::Identifier(column);
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Extractor<'_, '_> {
    fn replacement(&mut self, part: &SqlExpr) -> Result<Option<Ident>, ExpressionError> {
        match part {
            SqlExpr::CompoundIdentifier(names)
                if names.len() == 2 && names[0].value == "cell" && names[1].value == "area_m2" =>
            {
                Ok(Some(Ident::with_span(names[0].span, AREA_COLUMN)))
            }
            SqlExpr::Function(call) => {
                let name = call.name.to_string().to_lowercase();
                if AGGREGATES.contains(&name.as_str()) {
                    let slot = self.slot(&name, call, part)?;
                    let span = call_span(call);
                    return Ok(Some(Ident::with_span(span, format!("slot_{slot}"))));
                }
                if FUNCTIONS.contains(&name.as_str()) {
                    Ok(None)
                } else {
                    Err(unknown(&name, part))
                }
            }
            _ => Ok(None),
        }
    }

    fn slot(
        &mut self,
        name: &str,
        call: &Function,
        part: &SqlExpr,
    ) -> Result<usize, ExpressionError> {
        let slot = match (name, argument_of(name, call, part)?) {
            ("count", None) => Slot::Count,
            ("count", Some(argument)) => Slot::CountOf(self.counted(argument)?),
            (_, None) => {
                let hint = format!("write {name}(x)");
                return Err(error_at(part, format!("{name} needs one argument"), hint));
            }
            ("sum", Some(argument)) => Slot::Sum(self.number(name, argument)?),
            ("min", Some(argument)) => Slot::Min(self.number(name, argument)?),
            ("max", Some(argument)) => Slot::Max(self.number(name, argument)?),
            (_, Some(argument)) => Slot::Mean(self.number(name, argument)?),
        };
        Ok(position_or_push(&mut self.parser.slots, slot))
    }

    /// The index of the argument `sql`, which must be a number.
    fn number(&mut self, aggregate: &str, sql: &SqlExpr) -> Result<usize, ExpressionError> {
        let expression = Expression::from_ast(sql, self.parser.schema)?;
        let scale = match expression.data_type() {
            DataType::Int64 => 0,
            DataType::Decimal128(_, scale) => u8::try_from(*scale).unwrap_or(0),
            DataType::Float64 => match sql {
                SqlExpr::Identifier(column) => self.parser.decimals.decimals_of(&column.value),
                _ => None,
            }
            .unwrap_or(DECIMALS_DEFAULT),
            other => {
                let hint = "to count what meets a condition, write \
                            sum(case when ... then 1 else 0 end)";
                let message = format!("{aggregate} needs a number, not {other}");
                return Err(error_at(sql, message, hint.to_owned()));
            }
        };
        let argument = Argument { expression: expression.sql().to_owned(), scale };
        Ok(position_or_push(&mut self.parser.arguments, argument))
    }

    /// The index of an argument of which only matters whether it is null.
    fn counted(&mut self, sql: &SqlExpr) -> Result<usize, ExpressionError> {
        let expression = Expression::from_ast(sql, self.parser.schema)?;
        if expression.data_type().is_numeric() {
            return self.number("count", sql);
        }
        self.number("count", &parse_sql(&format!("CASE WHEN {sql} IS NOT NULL THEN 1 END"))?)
    }
}

fn position_or_push<T: PartialEq>(all: &mut Vec<T>, one: T) -> usize {
    all.iter().position(|other| *other == one).unwrap_or_else(|| {
        all.push(one);
        all.len() - 1
    })
}

/// The only argument of an aggregate; none for `count()` and `count(*)`.
fn argument_of<'a>(
    name: &str,
    call: &'a Function,
    part: &SqlExpr,
) -> Result<Option<&'a SqlExpr>, ExpressionError> {
    let unsupported = || {
        let message = format!("{name} cannot do this yet");
        let hint = format!("write a plain {name}(x), without distinct, filter, over or order by");
        error_at(part, message, hint)
    };
    let FunctionArguments::List(list) = &call.args else { return Err(unsupported()) };
    let plain = call.filter.is_none()
        && call.over.is_none()
        && call.within_group.is_empty()
        && list.duplicate_treatment.is_none()
        && list.clauses.is_empty();
    match list.args.as_slice() {
        _ if !plain => Err(unsupported()),
        [] => Ok(None),
        [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] if name == "count" => Ok(None),
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] => {
            no_aggregate_in(argument)?;
            Ok(Some(argument))
        }
        _ => Err(error_at(part, format!("{name} needs one argument"), format!("write {name}(x)"))),
    }
}

fn no_aggregate_in(argument: &SqlExpr) -> Result<(), ExpressionError> {
    let found = visit_expressions(argument, |part| match part {
        SqlExpr::Function(call)
            if AGGREGATES.contains(&call.name.to_string().to_lowercase().as_str()) =>
        {
            ControlFlow::Break(error_at(
                part,
                "an aggregate cannot contain another".to_owned(),
                "compute what it adds up per event, for example in derive".to_owned(),
            ))
        }
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn unknown(name: &str, part: &SqlExpr) -> ExpressionError {
    let known = AGGREGATES.iter().chain(FUNCTIONS).copied();
    let hint = match closest(name, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!(
            "the aggregates are {}; the functions are {}",
            AGGREGATES.join(", "),
            FUNCTIONS.join(", ")
        ),
    };
    error_at(part, format!("there is no aggregate or function `{name}`"), hint)
}

fn error_at(part: &SqlExpr, message: String, hint: String) -> ExpressionError {
    let (line, column) = position_of(part);
    ExpressionError { message, line, column, hint: Some(hint) }
}

fn call_span(call: &Function) -> datafusion_sql::sqlparser::tokenizer::Span {
    datafusion_sql::sqlparser::ast::Spanned::span(&call.name)
}
