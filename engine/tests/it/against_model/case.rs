//! What a case is, drawn from its seed.

use std::time::Duration;

use citycell::crash_point::CRASH_POINTS;
use citycell_operators::plan::Take;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::model::{Grouping, Rules};

/// A pipeline, and the engines that run it one after the other.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) seed: u64,
    pub(super) rules: Rules,
    /// How much the times of copies differ, ms.
    pub(super) copies_differ_by: i64,
    pub(super) lives: Vec<Life>,
    /// The last engine, which reads all that was written and ends.
    pub(super) last: Start,
}

/// How an engine is started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) workers: usize,
    pub(super) keeps_snapshots: bool,
}

/// One engine up to its violent end.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) start: Start,
    pub(super) end: End,
    /// Whether ClickHouse is killed meanwhile too.
    pub(super) store_dies: bool,
}

/// How an engine ends.
#[derive(Debug)]
pub(super) enum End {
    /// Killed some time after it has marked so many epochs.
    Killed { epochs: u64, then: Duration },
    /// By itself, when it comes to a place for the so-manieth time.
    Crashed { point: &'static str, times: u32 },
}

impl Case {
    pub(super) fn draw(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        Self {
            seed,
            rules: rules(seed, &mut random),
            copies_differ_by: random.random_range(0..3_000),
            lives: (0..random.random_range(2..=4)).map(|_| life(&mut random)).collect(),
            last: start(&mut random),
        }
    }

    /// Its pipeline's file.
    pub(super) fn file(&self, topic: &str) -> String {
        let Rules { allow, future, .. } = self.rules;
        let kind = match self.rules.grouping {
            Grouping::Events { window } => format!("window: {{tumbling: {window}ms}}"),
            Grouping::PerEntity { window, take } => {
                let take = if take == Take::Max { "max" } else { "last" };
                format!("window: {{tumbling: {window}ms}}\nper: {{by: [sensorId], take: {take}}}")
            }
            Grouping::Latest { expire, forget } => {
                format!("latest: {{by: [sensorId], expire: {expire}ms, forget: {forget}ms}}")
            }
        };
        format!(
            "
pipeline: crowd
source:
  topic: {topic}
  schema: crowd_flow
  event_time: dateObserved
  location: {{cell: gridCode}}
  late: {{allow: {allow}ms}}
  future: {future}ms
where: status = 'actual'
{kind}
aggregate:
  total: sum(peopleCountTowards)
"
        )
    }
}

/// Three seeds in a row try all that may count.
fn rules(seed: u64, random: &mut StdRng) -> Rules {
    let window = random.random_range(500..3_000);
    let expire = random.random_range(300..2_000);
    let forget = expire + random.random_range(500..4_000);
    let take = if random.random() { Take::Last } else { Take::Max };
    let grouping = match seed % 3 {
        0 => Grouping::Events { window },
        1 => Grouping::PerEntity { window, take },
        _ => Grouping::Latest { expire, forget },
    };
    let (allow, future) = (random.random_range(200..4_000), random.random_range(200..2_000));
    Rules { grouping, allow, future, idle_after: super::IDLE_AFTER_MS }
}

fn start(random: &mut StdRng) -> Start {
    Start { workers: random.random_range(1..=3), keeps_snapshots: random.random_bool(0.7) }
}

fn life(random: &mut StdRng) -> Life {
    let start = start(random);
    let can_come = |point: &&'static str| start.keeps_snapshots || !of_snapshots(point);
    let points: Vec<&'static str> = CRASH_POINTS.into_iter().filter(can_come).collect();
    let end = if random.random() {
        let point = *points.choose(random).expect("there are some");
        End::Crashed { point, times: random.random_range(1..=4) }
    } else {
        let then = Duration::from_millis(random.random_range(0..150));
        End::Killed { epochs: random.random_range(0..12), then }
    };
    Life { start, end, store_dies: random.random_bool(0.3) }
}

/// Whether an engine comes there only when it keeps snapshots.
fn of_snapshots(point: &str) -> bool {
    point.contains("snapshot") || point.contains("manifest")
}
