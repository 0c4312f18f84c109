//! What is checked on the syntax tree, where positions are still known.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Schema};
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError, Result};
use datafusion_expr::{Expr, ExprSchemable};
use datafusion_sql::sqlparser::ast::{
    Expr as SqlExpr, Ident, Spanned, Visit, Visitor, visit_expressions,
};

use super::context::FUNCTIONS;
use super::error::{ExpressionError, closest, plain_message};
use super::plan;

/// Where an expression begins in the text it was parsed from, as line and column from 1.
pub(crate) fn position_of(sql: &SqlExpr) -> (u64, u64) {
    let start = sql.span().start;
    (start.line.max(1), start.column.max(1))
}

/// Every column and function exists.
pub(super) fn names(sql: &SqlExpr, schema: &Schema) -> Result<(), ExpressionError> {
    let found = visit_expressions(sql, |part| match name_error(part, schema) {
        Some(error) => ControlFlow::Break(error),
        None => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn name_error(part: &SqlExpr, schema: &Schema) -> Option<ExpressionError> {
    let (line, column) = position_of(part);
    let (message, hint) = match part {
        SqlExpr::Identifier(name) if schema.index_of(&name.value).is_err() => {
            (format!("there is no column `{}`", name.value), column_hint(&name.value, schema))
        }
        SqlExpr::CompoundIdentifier(names) => {
            let name = dotted(names);
            (format!("there is no column `{name}`"), column_hint(&name, schema))
        }
        SqlExpr::Function(call)
            if !FUNCTIONS.contains(&call.name.to_string().to_lowercase().as_str()) =>
        {
            let name = call.name.to_string();
            (format!("there is no function `{name}`"), function_hint(&name))
        }
        SqlExpr::Subquery(_) | SqlExpr::Exists { .. } | SqlExpr::InSubquery { .. } => (
            "an expression cannot contain a query".to_owned(),
            "it sees one event at a time".to_owned(),
        ),
        _ => return None,
    };
    Some(ExpressionError { message, line, column, hint: Some(hint) })
}

fn dotted(names: &[Ident]) -> String {
    names.iter().map(|name| name.value.as_str()).collect::<Vec<_>>().join(".")
}

fn column_hint(written: &str, schema: &Schema) -> String {
    let known: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    match closest(written, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "there are no columns here".to_owned(),
        None => format!("the columns are {}", known.join(", ")),
    }
}

fn function_hint(written: &str) -> String {
    match closest(written, FUNCTIONS.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("the functions are {}", FUNCTIONS.join(", ")),
    }
}

/// The columns that `sql` names, in the schema's order.
pub(super) fn columns(sql: &SqlExpr, schema: &Schema) -> Vec<String> {
    let mut named = Vec::new();
    let _: ControlFlow<()> = visit_expressions(sql, |part| {
        if let SqlExpr::Identifier(name) = part {
            named.push(name.value.clone());
        }
        ControlFlow::Continue(())
    });
    let fields = schema.fields().iter().map(|field| field.name());
    fields.filter(|name| named.contains(name)).cloned().collect()
}

/// Points at the smallest part of `sql` that fails by itself.
pub(super) fn locate(sql: &SqlExpr, schema: &Schema, error: &DataFusionError) -> ExpressionError {
    let mut finder = SmallestFault { schema };
    let (message, (line, column)) = match sql.visit(&mut finder) {
        ControlFlow::Break(found) => found,
        ControlFlow::Continue(()) => (plain_message(error), position_of(sql)),
    };
    let hint = message.contains("text and numbers").then(|| {
        "write cast(... as double), cast(... as bigint) or cast(... as varchar)".to_owned()
    });
    ExpressionError { message, line, column, hint }
}

struct SmallestFault<'a> {
    schema: &'a Schema,
}

impl Visitor for SmallestFault<'_> {
    type Break = (String, (u64, u64));

    fn post_visit_expr(&mut self, part: &SqlExpr) -> ControlFlow<Self::Break> {
        match plan(part, self.schema) {
            Err(error) if !is_always_null(part) => {
                ControlFlow::Break((plain_message(&error), position_of(part)))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// A bare NULL has no type by itself, but gets one from what surrounds it.
fn is_always_null(part: &SqlExpr) -> bool {
    part.to_string().eq_ignore_ascii_case("null")
}

/// Coercion has made no text out of numbers, nor numbers out of text, that the writer did not ask
/// for: such a conversion fails on data, or compares '10' < '9'.
pub(super) fn no_silent_casts(written: &Expr, coerced: &Expr, schema: &DFSchema) -> Result<()> {
    if casts(coerced, schema)? > casts(written, schema)? {
        return Err(DataFusionError::Plan("text and numbers do not mix".to_owned()));
    }
    Ok(())
}

fn casts(expression: &Expr, schema: &DFSchema) -> Result<usize> {
    let mut count = 0;
    expression.apply(|part| {
        let (from, to) = match part {
            Expr::Cast(cast) => (cast.expr.get_type(schema)?, cast.field.data_type().clone()),
            Expr::TryCast(cast) => (cast.expr.get_type(schema)?, cast.field.data_type().clone()),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        count += usize::from(is_text(&from) != is_text(&to) && is_number(&from) != is_number(&to));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(count)
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric() || *data_type == DataType::Boolean
}
