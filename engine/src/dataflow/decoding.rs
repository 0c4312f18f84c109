//! Decodes each record once for all pipelines that read it.
//!
//! Pipelines of one schema and one kind of ids share a decoder, whatever topics they read. It reads
//! every field of the schema: what is a reject follows from the schema alone, so that a pipeline's
//! numbers never depend on which others run beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use arrow::datatypes::SchemaRef;
use citycell_operators::{
    decode::{Decoded, DecoderError},
    records::Records,
};
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{StreamVec, channels::pact::Pipeline as Local, operators::generic::Operator},
};

use crate::{binding::Binding, pipeline::Pipeline};

use super::{Work, source::BoundRecords};

/// Decoded records of one partition and their binding.
#[derive(Clone)]
pub(super) struct DecodedRecords {
    pub(super) binding: Rc<Binding>,
    pub(super) records: Rc<Records>,
    pub(super) decoded: Rc<Decoded>,
}

/// What one decoder makes.
#[derive(Clone)]
pub(super) struct DecodedStream<'scope> {
    pub(super) columns: SchemaRef,
    pub(super) stream: StreamVec<'scope, u64, DecodedRecords>,
}

/// What pipelines must agree in to share a decoder: the schema and the kind of ids.
pub(super) fn sharing(pipeline: &Pipeline) -> (String, String) {
    (pipeline.schema.name.clone(), format!("{:?}", pipeline.decode))
}

/// One decoder per schema and kind of ids.
pub(super) fn decode<'scope>(
    records: &StreamVec<'scope, u64, BoundRecords>,
    work: &Work,
) -> Result<BTreeMap<(String, String), DecodedStream<'scope>>, DecoderError> {
    let mut groups: BTreeMap<_, Vec<&Pipeline>> = BTreeMap::new();
    for work in &work.pipelines {
        groups.entry(sharing(&work.pipeline)).or_default().push(&work.pipeline);
    }
    groups
        .into_iter()
        .map(|(key, pipelines)| Ok((key, decode_shared(records.clone(), &pipelines, work)?)))
        .collect()
}

fn decode_shared<'scope>(
    records: StreamVec<'scope, u64, BoundRecords>,
    pipelines: &[&Pipeline],
    work: &Work,
) -> Result<DecodedStream<'scope>, DecoderError> {
    let topics: BTreeSet<u16> =
        pipelines.iter().flat_map(|pipeline| pipeline.topic_numbers(&work.topics)).collect();
    let mut decoder = pipelines[0].decoder()?;
    let columns = decoder.columns().clone();
    let name = format!("{}: decode", pipelines[0].schema.name);
    let stream =
        records.unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(Local, &name, |_, _| {
            move |input, output| {
                input.for_each(|capability, batches| {
                    let mut session = output.session(&capability);
                    for batch in batches.drain(..).filter(|batch| topics.contains(&batch.topic)) {
                        let decoded = Rc::new(decoder.decode(batch.topic, &batch.records));
                        let BoundRecords { binding, records, .. } = batch;
                        session.give(DecodedRecords { binding, records, decoded });
                    }
                });
            }
        });
    Ok(DecodedStream { columns, stream })
}
