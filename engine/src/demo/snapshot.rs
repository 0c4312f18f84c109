//! What the demo is doing, at one moment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    clickhouse::ClickHouse,
    clock::now_ms,
    metrics::{Figures, Metrics},
    pipeline::Pipeline,
};

use super::oracle;

/// How far back the freshness that is shown reaches.
const FRESHNESS_OVER_MS: i64 = 30_000;

const FRESHNESS_EVERY: Duration = Duration::from_secs(3);

/// Events and time between two rates.
const RATE_OVER: Duration = Duration::from_secs(2);

/// One moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// Where ClickHouse answers.
    pub(super) url: String,
    /// How long the demo has been running.
    pub(super) elapsed: Duration,
    /// Records sent.
    pub(super) sent: u64,
    /// Records sent per second lately.
    pub(super) per_second: f64,
    /// From the broker to the mark, in ms: the middle and the slowest hundredth.
    pub(super) freshness_ms: Option<(i64, i64)>,
    /// Each pipeline's name and figures.
    pub(super) pipelines: Vec<(String, Figures)>,
}

/// Takes snapshots.
pub(super) struct Snapshots {
    last: Snapshot,
    rated: Option<(Instant, u64)>,
    measured: Option<Instant>,
}

impl Snapshots {
    pub(super) fn new(url: String, pipelines: &[Arc<Pipeline>]) -> Self {
        let pipelines = pipelines.iter().map(|pipeline| pipeline.plan.name.clone());
        let pipelines = pipelines.map(|name| (name, Figures::default())).collect();
        Self {
            last: Snapshot { url, pipelines, ..Snapshot::default() },
            rated: None,
            measured: None,
        }
    }

    /// The newest.
    pub(super) fn last(&self) -> &Snapshot {
        &self.last
    }

    /// Looks again.
    pub(super) async fn take(
        &mut self,
        clickhouse: &ClickHouse,
        metrics: &Metrics,
        sent: u64,
        started: Instant,
    ) {
        let last = &mut self.last;
        last.elapsed = started.elapsed();
        last.sent = sent;
        for (name, figures) in &mut last.pipelines {
            *figures = metrics.figures(name);
        }
        let (since, before) = *self.rated.get_or_insert((Instant::now(), sent));
        if since.elapsed() >= RATE_OVER {
            #[expect(clippy::cast_precision_loss, reason = "a rate is shown, not counted")]
            let records = (sent - before) as f64;
            last.per_second = records / since.elapsed().as_secs_f64();
            self.rated = Some((Instant::now(), sent));
        }
        if self.measured.is_none_or(|measured| measured.elapsed() >= FRESHNESS_EVERY) {
            self.measured = Some(Instant::now());
            // What cannot be read now is read three seconds later.
            let since_ms = now_ms() - FRESHNESS_OVER_MS;
            if let Ok(Some(measured)) = oracle::freshness(clickhouse, since_ms).await {
                last.freshness_ms = Some(measured);
            }
        }
    }
}
