//! What is reckoned: derived columns, the condition, the published numbers.

use arrow::datatypes::{DataType, Schema};
use citycell_operators::expression::Expression;
use citycell_operators::measures::{DecimalsOf, MeasureParser};
use citycell_operators::plan::{Argument, Derived, Measure, Slot};
use citycell_operators::select::{condition, with_column};
use citycell_schemas::EventSchema;

use super::{Checker, NAME_HINT, RESERVED, is_identifier, reserved};
use crate::config::columns_of;
use crate::config::file::{PipelineFile, Text};

/// The decimals of a schema's numbers.
#[derive(Debug)]
struct Decimals<'a>(&'a EventSchema);

impl DecimalsOf for Decimals<'_> {
    fn decimals_of(&self, column: &str) -> Option<u8> {
        self.0.field(column).map(|field| field.decimals)
    }
}

impl Checker<'_, '_> {
    pub(super) fn derive(&mut self, entries: &[(String, Text)]) -> (Vec<Derived>, Schema) {
        let mut columns = columns_of(self.schema);
        let mut derive = Vec::new();
        for (name, sql) in entries {
            if columns.index_of(name).is_ok() || !is_identifier(name) {
                let message = format!("`{name}` cannot name a derived column");
                let hint = format!("{NAME_HINT}, and no field may have it");
                self.faults.at(sql.referenced, message, Some(hint));
                continue;
            }
            match Expression::parse(&sql.value, &columns) {
                Ok(expression) => {
                    self.read.extend(expression.columns().iter().cloned());
                    if expression.columns().iter().any(|column| self.direct.contains(column)) {
                        self.direct.insert(name.clone());
                    }
                    columns = with_column(&columns, name, expression.data_type());
                }
                Err(error) => {
                    self.faults.expression(sql.referenced, error);
                    // A number, most likely: so that what reads it is checked all the same.
                    columns = with_column(&columns, name, &DataType::Float64);
                }
            }
            derive.push(Derived { name: name.clone(), expression: sql.value.clone() });
        }
        (derive, columns)
    }

    pub(super) fn filter(&mut self, sql: &Text, columns: &Schema) -> Option<String> {
        match condition(&sql.value, columns) {
            Ok(expression) => self.read.extend(expression.columns().iter().cloned()),
            Err(error) => self.faults.expression(sql.referenced, error),
        }
        Some(sql.value.clone())
    }

    pub(super) fn measures(
        &mut self,
        entries: &PipelineFile,
        columns: &Schema,
    ) -> (Vec<Argument>, Vec<Slot>, Vec<Measure>) {
        let decimals = Decimals(self.schema);
        let mut parser = MeasureParser::new(columns, &decimals);
        let mut measures = Vec::new();
        for (name, sql) in &entries.aggregate.0 {
            if self.is_taken(name, entries) || !is_identifier(name) {
                let message = format!("`{name}` cannot name a number");
                let hint = format!("{NAME_HINT}; rows have {}", reserved());
                self.faults.at(sql.referenced, message, Some(hint));
            }
            let known = parser.arguments.len();
            match parser.measure(name, &sql.value) {
                Ok(measure) => measures.push(measure),
                Err(error) => self.faults.expression(sql.referenced, error),
            }
            for argument in &parser.arguments[known..] {
                self.speaks_of_no_person(&argument.expression, columns, sql);
            }
        }
        let (arguments, slots) = (parser.arguments, parser.slots);
        if entries.aggregate.0.is_empty() {
            let hint = "write aggregate: {reports: count()}".to_owned();
            let message = "a pipeline publishes at least one number";
            self.faults.at(entries.pipeline.referenced, message, Some(hint));
        }
        for argument in &arguments {
            if let Ok(expression) = Expression::parse(&argument.expression, columns) {
                self.read.extend(expression.columns().iter().cloned());
            }
        }
        (arguments, slots, measures)
    }

    /// Whether the table has a column of this name for something else.
    fn is_taken(&self, name: &str, entries: &PipelineFile) -> bool {
        // Beside each number stands a column that says whether it has a value.
        let flag = name.strip_suffix("_valid");
        let is_flag = |of: &str| entries.aggregate.0.iter().any(|(other, _)| other == of);
        RESERVED.contains(&name)
            || entries.group_by.iter().any(|group| {
                group.value == name || group.value.strip_suffix("_valid") == Some(name)
            })
            || flag.is_some_and(is_flag)
    }
}
