//! What says who a person is stays out of everything that is published or kept by name.
//!
//! Rows, snapshots and the hashes that tell events apart outlive the key of a day, so a `direct`
//! field may not get there, neither by itself nor within an expression. It may decide which events
//! count (`where`), and coordinates may say in which cell one lies. A `pseudonym` is free.

use std::collections::BTreeSet;

use arrow::datatypes::Schema;
use citycell_operators::expression::Expression;
use citycell_schemas::{EventSchema, event::Personal};

use super::Checker;
use crate::config::file::Text;

/// The fields of a schema that a pipeline may not publish.
pub(super) fn direct_fields(schema: &EventSchema) -> BTreeSet<String> {
    let direct = schema.fields.iter().filter(|field| field.personal == Some(Personal::Direct));
    direct.map(|field| field.name.clone()).collect()
}

impl Checker<'_, '_> {
    /// Refuses a column whose values would stand in rows, in snapshots or in an id.
    pub(super) fn is_no_person(&mut self, name: &Text) {
        if self.direct.contains(&name.value) {
            self.refuse(&name.value, name);
        }
    }

    /// Refuses an argument of a number that would publish such a column.
    pub(super) fn speaks_of_no_person(&mut self, argument: &str, columns: &Schema, sql: &Text) {
        let Ok(expression) = Expression::parse(argument, columns) else { return };
        let named = expression.columns().iter().find(|column| self.direct.contains(*column));
        if let Some(column) = named.cloned() {
            self.refuse(&column, sql);
        }
    }

    /// Refuses an event time that is personal: windows and `late` keep it, and lateness needs it.
    pub(super) fn is_no_personal_time(&mut self, name: &Text) {
        let field = self.schema.field(&name.value);
        if field.is_some_and(|field| field.personal.is_some()) {
            let message = format!("`{}` is personal, and event times are kept", name.value);
            let hint = "take another time, or leave out `personal` in the schema".to_owned();
            self.faults.at(name.referenced, message, Some(hint));
        }
    }

    fn refuse(&mut self, column: &str, at: &Text) {
        let message = format!("`{column}` is personal and would be kept by name");
        let hint = format!(
            "leave it out; if its sender makes it by a keyed hash, write personal: pseudonym in the \
             schema {}",
            self.schema.name
        );
        self.faults.at(at.referenced, message, Some(hint));
    }
}
