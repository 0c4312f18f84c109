//! A pipeline ready to run: its plan, the schema of its events and how they are decoded.

use std::{collections::BTreeSet, fmt::Write, sync::Arc};

use arrow::datatypes::{Field, Schema};
use citycell_operators::{
    decode::{DecodeOptions, arrow_type},
    expression::{Expression, ExpressionError},
    plan::{Location, Plan, Window},
    select::{RowCodec, with_column},
};
use citycell_schemas::{EventSchema, Grid};
use sha2::{Digest, Sha256};

/// Part of every version: a change of it says that the program computes other numbers from the
/// same plan and records.
const SEMANTICS: u32 = 1;

/// A pipeline ready to run.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// What it computes.
    pub plan: Plan,
    /// Its events.
    pub schema: Arc<EventSchema>,
    /// How they are decoded.
    pub decode: DecodeOptions,
    /// The event fields that it reads.
    pub fields: BTreeSet<String>,
    /// Its group columns.
    pub groups: Vec<Field>,
}

impl Pipeline {
    /// A pipeline of this plan over events of this schema.
    ///
    /// # Errors
    /// When an expression does not fit the schema; none for a plan that was checked.
    pub fn new(
        plan: Plan,
        schema: Arc<EventSchema>,
        decode: DecodeOptions,
    ) -> Result<Self, ExpressionError> {
        let fields = schema.fields.iter();
        let mut columns = Schema::new(
            fields
                .map(|field| Field::new(&field.name, arrow_type(field.kind), !field.required))
                .collect::<Vec<_>>(),
        );
        let mut read: BTreeSet<String> = [plan.event_time.clone()].into();
        match &plan.location {
            Location::Cell { column } => read.extend([column.clone()]),
            Location::Point { lon, lat, .. } => read.extend([lon.clone(), lat.clone()]),
        }
        for derived in &plan.derive {
            let expression = Expression::parse(&derived.expression, &columns)?;
            read.extend(expression.columns().iter().cloned());
            columns = with_column(&columns, &derived.name, expression.data_type());
        }
        let arguments = plan.arguments.iter().map(|argument| argument.expression.as_str());
        for sql in plan.filter.as_deref().into_iter().chain(arguments) {
            read.extend(Expression::parse(sql, &columns)?.columns().iter().cloned());
        }
        read.extend(plan.group_by.iter().cloned());
        read.extend(plan.per.iter().flat_map(|per| per.by.iter().cloned()));
        if let Window::Latest { by, .. } = &plan.window {
            read.extend(by.iter().cloned());
        }
        let groups = RowCodec::new(&plan.group_by, &columns)?;
        let groups = groups.fields().iter().map(|field| field.as_ref().clone()).collect();
        // Derived columns are made of fields, which are counted already.
        read.retain(|name| schema.field(name).is_some());
        Ok(Self { plan, schema, decode, fields: read, groups })
    }

    /// Names what this pipeline computes from given records: a hash over everything that the
    /// numbers depend on. Another version has another table and computes its history anew.
    #[must_use]
    pub fn version(&self, grid: &Grid) -> String {
        let mut hash = Sha256::new();
        hash.update(SEMANTICS.to_le_bytes());
        hash.update(serde_json::to_vec(&self.plan).expect("a plan is always JSON"));
        hash.update(format!("{:?}{:?}", self.schema, self.decode));
        hash.update(grid.version());
        hash.finalize().iter().take(4).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The numbers of its topics among all topics of the deployment.
    pub fn topic_numbers<'a>(&'a self, topics: &'a [Arc<str>]) -> impl Iterator<Item = u16> + 'a {
        let is_mine = |topic: &Arc<str>| self.plan.topics.iter().any(|name| **name == **topic);
        (0u16..).zip(topics).filter(move |(_, topic)| is_mine(topic)).map(|(number, _)| number)
    }
}
