//! What readers see now, what they saw, what a fresh run says and what the books say, beside plain SQL.

use citycell::{audit::Audit, clickhouse::ClickHouse, kafka::KafkaSettings};

use crate::{
    crowd::Crowd,
    oracle::{Moment, differences, prepare},
    restart::{bindings_at, left_behind},
    store::TestStore,
};

#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Rows compared.
    pub(super) rows: u64,
    /// Rows that are not what they should be, and faults that an audit finds.
    pub(super) mismatches: u64,
    /// Events in no epoch's books.
    pub(super) lost: u64,
    /// Rows said twice and differently, and events in the books twice.
    pub(super) duplicated: u64,
    pub(super) lines: Vec<String>,
}

pub(super) async fn judge(
    store: &TestStore,
    crowd: &Crowd,
    (brokers, deployment): (&str, &str),
) -> Verdict {
    let mut verdict = Verdict::default();
    let bindings = bindings_at(brokers, deployment).await;
    prepare(store, crowd, &bindings).await;
    // 1. What is seen now, and what was seen at every tenth mark.
    let marks = store.lines("SELECT DISTINCT epoch FROM moments ORDER BY epoch").await;
    let last: u64 = marks.last().and_then(|epoch| epoch.parse().ok()).unwrap_or_default();
    let tenths = marks.iter().step_by(10).filter_map(|epoch| epoch.parse().ok());
    // Each comparison takes a moment: of a long run, a hundred of them.
    let tenths: Vec<u64> = tenths.collect();
    let step = tenths.len().div_ceil(100).max(1);
    let past = tenths.into_iter().step_by(step).filter(|epoch| *epoch > 0).map(Moment::AsOf);
    for moment in past.chain([Moment::AsOf(last), Moment::Now]) {
        let (rows, differing) = differences(store, moment).await;
        verdict.add(&format!("{moment:?}"), rows, differing);
    }
    let same = "SELECT count() FROM (SELECT * FROM crowd_flow EXCEPT SELECT * FROM other)";
    verdict.add("the other pipeline", 0, number(store, same).await);
    // 2. A fresh run over the same bindings, which has bound some more since.
    let histories = ["crowd_flow_history", "other_history"];
    let run = left_behind(store, "city", &histories, last).await;
    let fresh = left_behind(store, "fresh", &histories, last).await;
    for ((table, run), (_, fresh)) in run.iter().zip(&fresh) {
        let differing = run.len().abs_diff(fresh.len())
            + run.iter().zip(fresh).filter(|(run, fresh)| run != fresh).count();
        verdict.add(&format!("{table} of a fresh run"), run.len() as u64, differing as u64);
    }
    // 3. Every event in the books of exactly one epoch, every row said once.
    let sent = crowd.sent() as u64;
    let counted = "SELECT sum(records) FROM (SELECT DISTINCT epoch, records FROM epochs \
                   WHERE pipeline = 'crowd_flow')";
    let counted = number(store, counted).await;
    verdict.lost = sent.saturating_sub(counted);
    verdict.duplicated = counted.saturating_sub(sent);
    let twice = "SELECT count() FROM (SELECT window_start, level, cell, category, epoch \
                 FROM (SELECT DISTINCT * FROM crowd_flow_history) GROUP BY ALL HAVING count() > 1)";
    verdict.duplicated += number(store, twice).await;
    // 4. The books of all epochs.
    let audit = Audit::begin(ClickHouse::new(&store.settings())).await.unwrap();
    let mut outcomes = vec![audit.check_bindings(&KafkaSettings::new(brokers), deployment).await];
    audit.check(|outcome| outcomes.push(Ok(outcome))).await.unwrap();
    for outcome in outcomes {
        let outcome = outcome.unwrap();
        verdict.add(&format!("audit: {outcome:?}"), 0, outcome.faults);
    }
    verdict
}

impl Verdict {
    fn add(&mut self, what: &str, rows: u64, differing: u64) {
        self.rows += rows;
        self.mismatches += differing;
        if differing > 0 {
            self.lines.push(format!("{what}: {differing} of {rows} rows differ"));
        }
    }
}

async fn number(store: &TestStore, sql: &str) -> u64 {
    store.lines(sql).await.concat().parse().unwrap()
}
