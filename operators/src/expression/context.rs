//! The functions that expressions may call, and what `/` means.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DFSchema, DataFusionError, Result, TableReference, plan_err};
use datafusion_expr::planner::{ContextProvider, ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion_expr::{
    AggregateUDF, Expr, ExprSchemable, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF, cast,
};
use datafusion_sql::sqlparser::ast::BinaryOperator;

/// The functions that exist, in the order in which hints list them. All are pure: none reads a
/// clock or a random source, and none looks into Arrow's types.
pub(crate) const FUNCTIONS: &[&str] = &[
    "abs",
    "acos",
    "asin",
    "atan",
    "atan2",
    "btrim",
    "cbrt",
    "ceil",
    "coalesce",
    "concat",
    "concat_ws",
    "contains",
    "cos",
    "degrees",
    "ends_with",
    "exp",
    "floor",
    "gcd",
    "greatest",
    "isnan",
    "lcm",
    "least",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "ltrim",
    "nanvl",
    "nullif",
    "nvl",
    "pi",
    "power",
    "radians",
    "replace",
    "round",
    "rtrim",
    "signum",
    "sin",
    "split_part",
    "sqrt",
    "starts_with",
    "tan",
    "trunc",
    "upper",
];

/// What DataFusion's planner asks: [`FUNCTIONS`], no tables, no variables, default options.
pub(super) struct Functions {
    scalar: Vec<Arc<ScalarUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    options: ConfigOptions,
}

impl Functions {
    pub(super) fn new() -> Self {
        let all = [
            datafusion_functions::core::functions(),
            datafusion_functions::math::functions(),
            datafusion_functions::string::functions(),
        ];
        let scalar = all
            .into_iter()
            .flatten()
            .filter(|function| FUNCTIONS.contains(&function.name()))
            .collect();
        Self { scalar, planners: vec![Arc::new(FloatDivision)], options: ConfigOptions::default() }
    }
}

impl ContextProvider for Functions {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        plan_err!("there are no tables in an expression, and no `{name}`")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let name = name.to_lowercase();
        self.scalar.iter().find(|function| function.name() == name).cloned()
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        FUNCTIONS.iter().map(|&name| name.to_owned()).collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// `/` of two integers is a Float64, as in ClickHouse: a ratio of counts is no whole number.
#[derive(Debug)]
struct FloatDivision;

impl ExprPlanner for FloatDivision {
    fn plan_binary_op(
        &self,
        raw: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        if !matches!(raw.op, BinaryOperator::Divide) {
            return Ok(PlannerResult::Original(raw));
        }
        let is_integer =
            |side: &Expr| Ok::<_, DataFusionError>(side.get_type(schema)?.is_integer());
        if is_integer(&raw.left)? && is_integer(&raw.right)? {
            let left = cast(raw.left, DataType::Float64);
            return Ok(PlannerResult::Planned(left / cast(raw.right, DataType::Float64)));
        }
        Ok(PlannerResult::Original(raw))
    }
}
