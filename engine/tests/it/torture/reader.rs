//! A reader that looks at the city all the time, whatever is killed meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use citycell::clickhouse::{ClickHouse, ClickHouseSettings};
use tokio::task::JoinHandle;

/// In one query: the moment, and of both pipelines the cells' sums beside the city's. Half an epoch
/// would show in a sum.
const LOOK: &str = "
    SELECT (SELECT max(epoch) FROM crowd_flow),
           (SELECT (sumIf(events, level = 'cell'), sumIf(people, level = 'cell'))
                   = (sumIf(events, level = 'city'), sumIf(people, level = 'city'))
            FROM crowd_flow),
           (SELECT (sumIf(events, level = 'cell'), sumIf(people, level = 'cell'))
                   = (sumIf(events, level = 'city'), sumIf(people, level = 'city'))
            FROM other),
           (SELECT epoch FROM city_moment),
           (SELECT has(stale, 'other') FROM city_moment)";

/// What a reader saw.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) moment: AtomicU64,
    pub(super) looks: AtomicU64,
    pub(super) half_epochs: AtomicU64,
    pub(super) steps_back: AtomicU64,
    /// Whether the other pipeline is said to be stale.
    pub(super) stale: AtomicBool,
    stopped: AtomicBool,
}

pub(super) struct Reader {
    pub(super) seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Reader {
    pub(super) fn start(settings: &ClickHouseSettings) -> Self {
        let clickhouse = ClickHouse::new(settings);
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while !shared.stopped.load(Ordering::Relaxed) {
                // While ClickHouse is away, or has no views yet, there is nothing to see.
                if let Ok(answer) = clickhouse.query("look", LOOK, "TabSeparated").await {
                    shared.note(&String::from_utf8_lossy(&answer));
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        });
        Self { seen, task }
    }

    pub(super) async fn stop(self) -> Arc<Seen> {
        self.seen.stopped.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.seen
    }
}

impl Seen {
    fn note(&self, answer: &str) {
        let fields: Vec<&str> = answer.trim().split('\t').collect();
        let [_, crowd, other, moment, stale] = fields[..] else { return };
        self.stale.store(stale == "1", Ordering::Relaxed);
        self.looks.fetch_add(1, Ordering::Relaxed);
        // Before the first row there is nothing to add up.
        if crowd == "0" || other == "0" {
            self.half_epochs.fetch_add(1, Ordering::Relaxed);
        }
        let moment = moment.parse().unwrap_or_default();
        if moment < self.moment.fetch_max(moment, Ordering::Relaxed) {
            self.steps_back.fetch_add(1, Ordering::Relaxed);
        }
    }
}
