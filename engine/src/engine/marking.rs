//! Who writes marks, and who hears of them.

use crossbeam_channel::Sender;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    binder::Notice,
    clickhouse::{
        archive::ARCHIVE,
        marks::{self, MarkingParts},
        moments::{AtStart, Moments},
        versions::Marked,
        writer::TaskParts,
    },
    snapshot::KeeperNotice,
};

use super::{EngineConfig, EngineError, deployed::Deployed};

/// Who hears of marks.
pub(super) struct Listeners<'a> {
    /// The binder.
    pub(super) binder: &'a Sender<Notice>,
    /// Who hands bindings to the versions that are built.
    pub(super) follower: &'a Sender<Notice>,
    /// Who makes manifests.
    pub(super) keeper: Option<UnboundedSender<KeeperNotice>>,
}

/// Marks, the city's moments, and who hears of them.
pub(super) async fn marking(
    config: &EngineConfig,
    parts: &TaskParts,
    (deployed, marked): (&Deployed, &Marked),
    listeners: Listeners<'_>,
) -> Result<MarkingParts, EngineError> {
    let (moment, last_committed_ms) = marks::last_moment(&parts.clickhouse).await?;
    let at_start = |pipeline: Option<usize>, name: &String, version: &String| AtStart {
        name: name.clone(),
        pipeline,
        marked: marked.get(&(name.clone(), version.clone())).copied(),
    };
    let running = deployed.tables.iter().enumerate();
    let mut serving: Vec<AtStart> = running
        .map(|(index, table)| at_start(Some(index), &table.pipeline, &table.version))
        .collect();
    let building = serving.split_off(deployed.serving);
    let standing_still = deployed.standing_still.iter();
    serving.extend(standing_still.map(|(name, version)| at_start(None, name, version)));
    let moments = Moments::new(serving, building, moment, config.writing.stale_after);

    let archived = marked.get(&(ARCHIVE.to_owned(), config.deployment.clone())).copied();
    let first_built = deployed.serving;
    let Listeners { binder, follower, keeper } = listeners;
    let [binder, of_turns, of_swaps] = [(); 3].map(|()| binder.clone());
    let follower = follower.clone();
    let marked = move |index, epoch| {
        tell(if index < first_built { &binder } else { &follower }, Notice::Marked(epoch, index));
        if let Some(keeper) = &keeper {
            // A keeper that is gone was fenced out.
            let _ = keeper.send(KeeperNotice::Marked { pipeline: index, epoch });
        }
    };
    let versions = deployed.tables.iter();
    let versions = versions.map(|table| (table.pipeline.clone(), table.version.clone()));
    Ok(MarkingParts {
        parts: parts.clone(),
        versions: versions.collect(),
        successors: deployed.successors(),
        moments,
        archived: config.archive.map(|_| archived.unwrap_or_default()),
        last_committed_ms,
        marked: Box::new(marked),
        turned: Box::new(move |turn| tell(&of_turns, Notice::Turned(turn))),
        succeeded: Box::new(move |pipeline| tell(&of_swaps, Notice::Succeeded(pipeline))),
    })
}

fn tell(notices: &Sender<Notice>, notice: Notice) {
    // Nobody listens once the engine is stopping, and then nothing depends on it.
    let _ = notices.send(notice);
}
