//! A pipeline ready to run: its plan, the schema of its events and how they are decoded.

use std::{fmt::Write, sync::Arc};

use arrow::datatypes::Field;
use citycell_operators::{
    decode::{DecodeOptions, Decoder, DecoderError},
    plan::Plan,
};
use citycell_schemas::{EventSchema, Grid};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{self, ConfigErrors};

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
    /// The text of its file.
    pub text: String,
}

/// What a pipeline is made of again once its file says something else.
#[derive(Serialize, Deserialize)]
struct Definition {
    text: String,
    schema: EventSchema,
}

/// Why a definition yields no pipeline.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// It is not what [`Pipeline::definition`] writes.
    #[error("not a definition")]
    Unreadable(#[from] serde_json::Error),
    /// This program no longer takes the file.
    #[error(transparent)]
    Refused(#[from] ConfigErrors),
}

impl From<config::Pipeline> for Pipeline {
    fn from(file: config::Pipeline) -> Self {
        Self {
            plan: file.plan,
            schema: Arc::new(file.schema),
            decode: DecodeOptions { ids: file.ids, ..DecodeOptions::default() },
            groups: file.groups,
            text: file.text,
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

    /// Everything that [`Self::from_definition`] needs, as JSON.
    #[must_use]
    pub fn definition(&self) -> String {
        let (text, schema) = (self.text.clone(), (*self.schema).clone());
        let definition = Definition { text, schema };
        serde_json::to_string(&definition).expect("text and a schema are always JSON")
    }

    /// The pipeline that was defined so, as this program understands it: its version may be another
    /// than it was to the program that wrote the definition.
    ///
    /// # Errors
    /// When this program does not take it.
    pub fn from_definition(definition: &str) -> Result<Self, DefinitionError> {
        let Definition { text, schema } = serde_json::from_str(definition)?;
        let name = format!("the pipeline over {} that served", schema.name);
        Ok(config::parse_pipeline(&name, &text, &[schema])?.into())
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
