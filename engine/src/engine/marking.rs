//! Who writes marks, and who hears of them.

use std::sync::Arc;

use crossbeam_channel::Sender;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    binder::Notice,
    clickhouse::{
        marks::{self, Mark, MarkingParts},
        moments::Moments,
        serving::Marked,
        tables::PipelineTable,
        writer::TaskParts,
    },
    snapshot::KeeperNotice,
};

use super::{EngineConfig, EngineError};

/// Marks, the city's moments, and who hears of them.
pub(super) async fn marking(
    config: &EngineConfig,
    parts: &TaskParts,
    (tables, marked): (&[Arc<PipelineTable>], &Marked),
    notices: &Sender<Notice>,
    keeper: Option<UnboundedSender<KeeperNotice>>,
) -> Result<MarkingParts, EngineError> {
    let (moment, last_committed_ms) = marks::last_moment(&parts.clickhouse).await?;
    let names: Vec<String> = tables.iter().map(|table| table.pipeline.clone()).collect();
    let standing = tables.iter().map(|table| {
        let key = (table.pipeline.clone(), table.version.clone());
        (table.pipeline.clone(), marked.get(&key).copied())
    });
    let moments = Moments::new(standing, moment, config.writing.stale_after);
    let (metrics, of_marks, of_turns) = (parts.metrics.clone(), notices.clone(), notices.clone());
    let written = move |mark: &Mark| {
        metrics.marked(mark);
        let Some(index) = names.iter().position(|name| *name == mark.pipeline) else { return };
        // Nobody listens once the binder is gone, and then nothing depends on it.
        let _ = of_marks.send(Notice::Marked(mark.tick.epoch, index));
        if let Some(keeper) = &keeper {
            let epoch = mark.tick.epoch;
            // A keeper that is gone was fenced out.
            let _ = keeper.send(KeeperNotice::Marked { pipeline: index, epoch });
        }
    };
    let turned = move |turn| {
        let _ = of_turns.send(Notice::Turned(turn));
    };
    Ok(MarkingParts {
        parts: parts.clone(),
        moments,
        last_committed_ms,
        written: Box::new(written),
        turned: Box::new(turned),
    })
}
