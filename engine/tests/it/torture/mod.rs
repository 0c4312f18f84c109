//! Kills, freezes, cuts and fills everything at random, then holds what a reader sees, and saw, to
//! plain SQL and to a run that nobody disturbed.
//!
//! `make torture KILLS=200 SEED=7` or `make torture SECONDS=3600` runs it long; its last line is
//! JSON.

pub(crate) mod broker;
mod engines;
mod faults;
mod judge;
mod minute;
pub(crate) mod proxy;
mod reader;

use std::{
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};

use crate::{
    broker::{create_topic_at, unique},
    crowd::{Crowd, PARTITIONS},
    store::TestStore,
};

use broker::OwnBroker;
use engines::Program;
use faults::Torturer;
use proxy::Proxy;
use reader::Reader;

/// How long and how hard.
struct Settings {
    kills: usize,
    seconds: u64,
    seed: u64,
}

impl Settings {
    /// From `CITYCELL_TORTURE`, for example "kills=200 seconds= seed=7"; each kind of fault and some
    /// twice where it says nothing.
    fn read() -> Self {
        let text = std::env::var("CITYCELL_TORTURE").unwrap_or_default();
        let number = |name: &str, usual| {
            let said = text.split_whitespace().filter_map(|word| word.split_once('='));
            let mut said = said.filter(|(key, value)| *key == name && !value.is_empty());
            let value = said.next_back();
            value.map_or(usual, |(_, value)| {
                value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number"))
            })
        };
        Self {
            kills: usize::try_from(number("kills", 20)).unwrap(),
            seconds: number("seconds", 0),
            seed: number("seed", 1),
        }
    }
}

/// Events that come all the time.
struct Feeding {
    crowd: Arc<Mutex<Crowd>>,
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Feeding {
    fn start(crowd: Crowd) -> Self {
        let crowd = Arc::new(Mutex::new(crowd));
        let stopped = Arc::new(AtomicBool::new(false));
        let (fed, over) = (Arc::clone(&crowd), Arc::clone(&stopped));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                fed.lock().unwrap().send(20);
                std::thread::sleep(Duration::from_millis(60));
            }
        });
        Self { crowd, stopped, thread }
    }

    fn stop(self) -> Crowd {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        Arc::into_inner(self.crowd).unwrap().into_inner().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_no_number_changes() {
    let Settings { kills, seconds, seed } = Settings::read();
    let started = Instant::now();
    let broker = OwnBroker::start().await;
    let store = TestStore::start();
    let topic = unique("torture");
    create_topic_at(&broker.address(), &topic, PARTITIONS as i32).await;
    let target = store.settings().url.trim_start_matches("http://").to_owned();
    let proxy = Proxy::start(target).await;
    let ways = [broker.proxy.address.to_string(), format!("http://{}", proxy.address)];
    let [brokers, clickhouse] = ways;
    let program = Program::new("torture.log", &topic, brokers, clickhouse);
    let reader = Reader::start(&store.settings());
    let feeding = Feeding::start(Crowd::at(&broker.address(), &topic, seed, 30 * 60_000));

    let random = StdRng::seed_from_u64(seed);
    let seen = Arc::clone(&reader.seen);
    let tortured = tokio::task::spawn_blocking(move || {
        let mut torturer = Torturer::new(random, (broker, store, proxy, program), seen);
        let deadline = (seconds > 0).then(|| started + Duration::from_secs(seconds));
        let over = |done| deadline.map_or(done >= kills, |deadline| Instant::now() >= deadline);
        let mut done = 0;
        while !over(done) {
            torturer.torture();
            done += 1;
        }
        torturer.end(done)
    });
    let tortured = tortured.await.unwrap();
    let crowd = tokio::task::spawn_blocking(move || feeding.stop()).await.unwrap();
    run_to_the_end(tortured.program).await;
    let seen = reader.stop().await;
    let log = (&*tortured.broker.address(), &*topic);
    let verdict = judge::judge(&tortured.store, &crowd, log).await;

    let mut recoveries = tortured.recoveries_ms;
    recoveries.sort_unstable();
    let looked = [&seen.looks, &seen.half_epochs, &seen.steps_back]
        .map(|count| count.load(Ordering::Relaxed));
    println!("faults: {:?}", tortured.faults);
    println!(
        "a reader looked {} times: {} half epochs, {} steps back",
        looked[0], looked[1], looked[2]
    );
    verdict.lines.iter().for_each(|line| println!("{line}"));
    println!(
        "{}",
        serde_json::json!({
            "kills": tortured.kills,
            "seconds": started.elapsed().as_secs(),
            "events": crowd.sent(),
            "rows": verdict.rows,
            "mismatches": verdict.mismatches + looked[1] + looked[2],
            "lost": verdict.lost,
            "duplicated": verdict.duplicated,
            "recovery_ms_p50": recoveries.get(recoveries.len() / 2),
            "recovery_ms_max": recoveries.last(),
        })
    );
    assert_eq!((verdict.mismatches, verdict.lost, verdict.duplicated), (0, 0, 0));
    assert_eq!((looked[1], looked[2]), (0, 0), "half epochs, steps back");
    assert!(looked[0] > 10 && verdict.rows > 100, "too little was looked at");
}

/// Reads everything that came, and all of it again into another database.
async fn run_to_the_end(program: Program) {
    let run = move || {
        program.run_to_the_end("city", "snapshots");
        program.run_to_the_end("fresh", "none");
    };
    tokio::task::spawn_blocking(run).await.unwrap();
}

pub(crate) fn signal(pid: u32, name: &str) {
    // The process may be gone already.
    let _ = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
}
