//! A pipeline ready to run: its plan, the schema of its events and how they are decoded.

use std::{fmt::Write, sync::Arc};

use arrow::datatypes::Field;
use citycell_operators::{
    decode::{DecodeOptions, Decoder, DecoderError},
    plan::Plan,
};
use citycell_schemas::{EventSchema, Grid};
use sha2::{Digest, Sha256};

use crate::config;

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
    /// Its group columns.
    pub groups: Vec<Field>,
}

impl From<config::Pipeline> for Pipeline {
    fn from(file: config::Pipeline) -> Self {
        Self {
            plan: file.plan,
            schema: Arc::new(file.schema),
            decode: DecodeOptions { ids: file.ids, ..DecodeOptions::default() },
            groups: file.groups,
        }
    }
}

impl Pipeline {
    /// A decoder of its events. It reads every field of the schema: what is a reject follows from
    /// the schema alone, whichever pipelines read the topic.
    ///
    /// # Errors
    /// When the schema cannot be decoded with; none for a pipeline that was checked.
    pub fn decoder(&self) -> Result<Decoder, DecoderError> {
        let fields: Vec<&str> =
            self.schema.fields.iter().map(|field| field.name.as_str()).collect();
        Decoder::new(&self.schema, &fields, self.decode.clone())
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
