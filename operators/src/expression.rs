//! SQL expressions over Arrow batches, checked before they run.
//!
//! An expression is parsed and type-checked once, by DataFusion's crates; unknown columns, unknown
//! functions and type errors are found then, with line and column, never on data. What differs from
//! DataFusion's own SQL, because here a wrong number costs more than an error:
//!
//! - names are case-sensitive, as the fields of a schema are;
//! - `/` of two integers is a Float64, as in ClickHouse, not a whole number;
//! - text and numbers are never converted into each other without a `cast`;
//! - integer arithmetic that overflows is an error of the row, not a wrapped number;
//! - functions that read a clock or a random source do not exist.
//!
//! What a row can still do wrong (`x % 0`, an overflow, `cast('a' as int)`) is found for that row
//! alone by [`Expression::evaluate_rows`].

mod check;
mod context;
mod error;
mod rows;

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{DFSchema, DataFusionError};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{Expr, ExprSchemable, cast};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::expressions::BinaryExpr;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::parser::DFParserBuilder;
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::Expr as SqlExpr;

pub(crate) use check::position_of;
pub(crate) use context::FUNCTIONS;
pub use error::ExpressionError;
pub use error::closest;
pub(crate) use error::plain_message;
pub use rows::{EvaluatedRows, FailedRow};

/// An expression ready to run over batches that have the columns it was checked against.
#[derive(Clone, Debug)]
pub struct Expression {
    sql: String,
    physical: Arc<dyn PhysicalExpr>,
    data_type: DataType,
    columns: Vec<String>,
    schema: Arc<Schema>,
}

impl Expression {
    /// Checks `sql` against the columns of `schema`.
    ///
    /// # Errors
    /// Says what is wrong and where, in lines and columns of `sql`.
    pub fn parse(sql: &str, schema: &Schema) -> Result<Self, ExpressionError> {
        Self::from_ast(&parse_sql(sql)?, schema)
    }

    /// Checks an expression that is parsed already; positions are those of the text it came from.
    pub(crate) fn from_ast(sql: &SqlExpr, schema: &Schema) -> Result<Self, ExpressionError> {
        check::names(sql, schema)?;
        let logical = plan(sql, schema).map_err(|error| check::locate(sql, schema, &error))?;
        let columns = check::columns(sql, schema);
        let nullable = nullable(schema).map_err(|error| check::locate(sql, schema, &error))?;
        let data_type =
            logical.get_type(&nullable).map_err(|error| check::locate(sql, schema, &error))?;
        let physical =
            compile(&logical, &nullable).map_err(|error| check::locate(sql, schema, &error))?;
        Ok(Self {
            sql: sql.to_string(),
            physical,
            data_type,
            columns,
            schema: Arc::new(schema.clone()),
        })
    }

    /// The type of its values: Utf8, Int64, Float64, Boolean, a Timestamp in ms or a Decimal128.
    #[must_use]
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The columns that it reads, each once, in the schema's order.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The expression as SQL text, in one spelling for all ways to write it.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The value of every row.
    ///
    /// # Errors
    /// When one row fails, or when the batch lacks columns of the schema it was checked against.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, EvaluationError> {
        self.physical
            .evaluate(batch)
            .and_then(|values| values.into_array(batch.num_rows()))
            .map_err(|error| EvaluationError { message: plain_message(&error) })
    }

    /// The value of every row, and the rows that have none because the expression fails on them.
    #[must_use]
    pub fn evaluate_rows(&self, batch: &RecordBatch) -> EvaluatedRows {
        rows::evaluate(self, batch)
    }

    /// The columns, and their order, that batches must have.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }
}

/// An expression failed on at least one row of a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvaluationError {
    /// What went wrong.
    pub message: String,
}

/// The syntax tree of one expression.
pub(crate) fn parse_sql(sql: &str) -> Result<SqlExpr, ExpressionError> {
    let parsed = DFParserBuilder::new(sql)
        .build()
        .and_then(|mut parser| parser.parse_into_expr())
        .map_err(|error| error::of_syntax(&error))?;
    match parsed.alias {
        None => Ok(parsed.expr),
        Some(alias) => Err(ExpressionError {
            message: format!("unexpected `{alias}` after the expression"),
            line: alias.span.start.line.max(1),
            column: alias.span.start.column.max(1),
            hint: None,
        }),
    }
}

/// Parsed SQL as a typed logical expression, its result in one of our column types.
fn plan(sql: &SqlExpr, schema: &Schema) -> Result<Expr, DataFusionError> {
    let schema = Arc::new(nullable(schema)?);
    let context = context::Functions::new();
    let options = ParserOptions {
        enable_ident_normalization: false,
        map_string_types_to_utf8view: false,
        collect_spans: true,
        ..ParserOptions::new()
    };
    let planned = SqlToRel::new_with_options(&context, options).sql_to_expr(
        sql.clone(),
        &schema,
        &mut PlannerContext::new(),
    )?;
    let simplifier =
        ExprSimplifier::new(SimplifyContext::builder().with_schema(Arc::clone(&schema)).build());
    let coerced = simplifier.coerce(planned.clone(), &schema)?;
    check::no_silent_casts(&planned, &coerced, &schema)?;
    let result_type = column_type(&coerced.get_type(&schema)?)?;
    let typed = if coerced.get_type(&schema)? == result_type {
        coerced
    } else {
        cast(coerced, result_type)
    };
    simplifier.simplify(typed)
}

/// Every field may be null: events are data, and simplifications that rely on more are wrong here.
fn nullable(schema: &Schema) -> Result<DFSchema, DataFusionError> {
    let fields: Vec<_> =
        schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    DFSchema::try_from(Schema::new(fields))
}

fn column_type(computed: &DataType) -> Result<DataType, DataFusionError> {
    match computed {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(DataType::Utf8),
        DataType::Timestamp(_, None) => Ok(DataType::Timestamp(TimeUnit::Millisecond, None)),
        computed if computed.is_integer() => Ok(DataType::Int64),
        computed if computed.is_floating() => Ok(DataType::Float64),
        DataType::Boolean | DataType::Decimal128(..) => Ok(computed.clone()),
        DataType::Null => Err(DataFusionError::Plan("the expression is always null".to_owned())),
        other => Err(DataFusionError::Plan(format!("a value of type {other} is no column"))),
    }
}

fn compile(logical: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    create_physical_expr(
        logical,
        schema,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )?
    .transform_up(|node| {
        Ok(match node.downcast_ref::<BinaryExpr>() {
            Some(binary) => Transformed::yes(Arc::new(
                BinaryExpr::new(
                    Arc::clone(binary.left()),
                    *binary.op(),
                    Arc::clone(binary.right()),
                )
                .with_fail_on_overflow(true),
            ) as Arc<dyn PhysicalExpr>),
            None => Transformed::no(node),
        })
    })
    .data()
}
