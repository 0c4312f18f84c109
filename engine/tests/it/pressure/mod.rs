//! Everything the engine depends on is away or slow for long, and a hundred times as much comes as
//! usual: memory stays bounded, nothing is lost, nobody is declared silent, and it catches up by
//! itself.
//!
//! `make pressure` runs it with two minutes of each; its last line is JSON. `make test` runs it with a
//! few seconds of each, in which all the same must hold.

mod judge;
mod load;
mod process;

use std::time::{Duration, Instant};

use crate::{
    broker::{create_topic_at, unique},
    crowd::PARTITIONS,
    restart::bindings_at,
    store::TestStore,
    torture::{
        broker::OwnBroker,
        proxy::{Mode, Proxy},
    },
};

use load::Load;
use process::Process;

/// How long.
pub(super) struct Settings {
    /// Of each outage; the burst takes half of it.
    outage: Duration,
    /// How long a sensor may be silent before it is unknown: less than an outage.
    pub(super) expire: Duration,
    pub(super) idle_after: Duration,
    pub(super) tick: Duration,
}

impl Settings {
    /// `CITYCELL_PRESSURE` says how many seconds an outage takes.
    fn read() -> Self {
        let said = std::env::var("CITYCELL_PRESSURE").ok().filter(|text| !text.is_empty());
        match said {
            Some(seconds) => Self {
                outage: Duration::from_secs(seconds.parse().expect("a number of seconds")),
                expire: Duration::from_secs(60),
                idle_after: Duration::from_secs(10),
                tick: Duration::from_millis(200),
            },
            None => Self {
                outage: Duration::from_secs(6),
                expire: Duration::from_secs(5),
                idle_after: Duration::from_secs(2),
                tick: Duration::from_millis(100),
            },
        }
    }

    /// So many epochs may wait for their marks that half an outage fills it.
    pub(super) fn unmarked_max(&self) -> u128 {
        self.outage.as_millis() / self.tick.as_millis() / 2
    }
}

/// What happened in one phase.
struct Phase {
    name: &'static str,
    peak_mib: u64,
    caught_up: Duration,
}

struct Pressed {
    process: Process,
    load: Load,
    store: TestStore,
    phases: Vec<Phase>,
}

impl Pressed {
    /// Notes how much memory was taken since the phase before, and how long it takes from now until
    /// all that was sent so far is visible.
    async fn catch_up(&mut self, name: &'static str) {
        let started = Instant::now();
        let sent = self.load.sent();
        while self.counted().await < sent {
            assert!(self.process.is_running(), "the engine ended: {}", self.process.said());
            assert!(started.elapsed() < Duration::from_secs(900), "{name}: it does not catch up");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let caught_up = started.elapsed();
        self.process.look_at_state().await;
        let peak_mib = self.process.peak_mib();
        println!("{name}: peak {peak_mib} MiB, caught up after {:.1} s", caught_up.as_secs_f64());
        self.phases.push(Phase { name, peak_mib, caught_up });
    }

    async fn counted(&self) -> u64 {
        let counted = "SELECT sum(records) FROM (SELECT DISTINCT epoch, records FROM epochs \
                       WHERE pipeline = 'crowd_flow')";
        self.store.lines(counted).await.concat().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_outages_and_bursts_cost_no_number_and_no_memory_without_bound() {
    let (settings, began) = (Settings::read(), Instant::now());
    let outage = settings.outage;
    let broker = OwnBroker::start().await;
    let store = TestStore::start();
    let topic = unique("pressure");
    create_topic_at(&broker.address(), &topic, PARTITIONS as i32).await;
    let target = store.settings().url.trim_start_matches("http://").to_owned();
    let proxy = Proxy::start(target).await;
    let clickhouse = format!("http://{}", proxy.address);
    let process = Process::start(&settings, &topic, (&broker.address(), &clickhouse));
    store.until_there("epochs").await;
    let load = Load::start(&broker.address(), &topic);
    let mut pressed = Pressed { process, load, store, phases: Vec::new() };
    tokio::time::sleep(outage / 2).await;
    pressed.catch_up("as usual").await;
    let usual_insert = pressed.process.insert_seconds().await;

    pressed.store.kill();
    tokio::time::sleep(outage).await;
    pressed.store.restart();
    pressed.catch_up("ClickHouse away").await;

    let broker = tokio::task::spawn_blocking(move || {
        broker.kill_and_restart(outage);
        broker
    });
    let broker = broker.await.unwrap();
    pressed.catch_up("Kafka away").await;

    pressed.load.times(100);
    tokio::time::sleep(outage / 2).await;
    pressed.load.times(1);
    pressed.catch_up("burst").await;

    pressed.process.insert_seconds().await;
    proxy.set(Mode::Slower);
    tokio::time::sleep(outage).await;
    let slow_insert = pressed.process.insert_seconds().await;
    proxy.set(Mode::Open);
    pressed.catch_up("ClickHouse slow").await;
    println!(
        "an insert took {usual_insert:.4} s, and {slow_insert:.4} s while ClickHouse was slow"
    );

    pressed.load.end();
    pressed.catch_up("the end").await;
    let bound_mib = pressed.process.bound_mib();
    let Pressed { mut process, load, store, phases } = pressed;
    let sent = tokio::task::spawn_blocking(move || load.sent_in_all()).await.unwrap();
    while process.is_running() {
        process.stop_once();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let bindings = bindings_at(&broker.address(), &topic).await;
    println!("judging after {} s", began.elapsed().as_secs());
    let verdict = judge::judge(&store, &broker.address(), &sent, (&bindings, &settings)).await;
    verdict.lines.iter().for_each(|line| println!("{line}"));

    let figures = phases.iter().map(|phase| {
        let caught_up_s = (phase.caught_up.as_secs_f64() * 10.0).round() / 10.0;
        let Phase { name, peak_mib, .. } = phase;
        serde_json::json!({ "phase": name, "peak_mib": peak_mib, "caught_up_s": caught_up_s })
    });
    println!(
        "{}",
        serde_json::json!({
            "seconds": began.elapsed().as_secs(),
            "outage_s": outage.as_secs(),
            "events": sent.count(),
            "epochs": bindings.len(),
            "rows": verdict.rows,
            "mismatches": verdict.mismatches,
            "bound_mib": bound_mib,
            "phases": figures.collect::<Vec<_>>(),
        })
    );
    assert_eq!(verdict.mismatches, 0);
    for Phase { name, peak_mib, .. } in &phases {
        assert!(*peak_mib < bound_mib, "{name}: {peak_mib} MiB");
    }
}
