//! What is done to the engine and to all it depends on.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use citycell::crash_point::CRASH_POINTS;
use rand::{Rng, rngs::StdRng};

use tokio::runtime::Handle;

use crate::{
    outage::{refuse_rows, take_rows_again},
    store::TestStore,
};

use super::{
    broker::OwnBroker,
    engines::{Engine, Life, Program},
    proxy::{Mode, Proxy},
    reader::Seen,
};

/// Longer than any engine needs to come back.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// From one epoch to the next, in one engine and another: most bind as fast as may be.
const TICKS: [&str; 5] = ["100ms", "100ms", "100ms", "500ms", "2s"];

const FAULTS: [&str; 14] = [
    "kill engine",
    "crash point",
    "kill ClickHouse",
    "kill Kafka",
    "freeze Kafka",
    "freeze engine",
    "full disk",
    "cut ClickHouse",
    "slow ClickHouse",
    "break pipeline",
    "cut Kafka",
    "slow Kafka",
    "silence Kafka",
    "step clock",
];

/// What lies behind a proxy.
#[derive(Clone, Copy)]
enum Way {
    ToClickHouse,
    ToKafka,
}

pub(super) struct Torturer {
    random: StdRng,
    broker: OwnBroker,
    store: TestStore,
    proxy: Proxy,
    program: Program,
    seen: Arc<Seen>,
    engine: Engine,
    /// How many more faults come until the broken pipeline is mended, if one is broken.
    broken_for: Option<usize>,
    /// The faults in the order in which they come, each kind before any comes again.
    next: usize,
    next_crash_point: usize,
    small_disk: bool,
    clock_ms: i64,
    faults: BTreeMap<&'static str, usize>,
    recoveries_ms: Vec<u64>,
}

/// What is left when it is over.
pub(super) struct Tortured {
    pub(super) broker: OwnBroker,
    pub(super) store: TestStore,
    pub(super) program: Program,
    pub(super) kills: usize,
    pub(super) faults: BTreeMap<&'static str, usize>,
    pub(super) recoveries_ms: Vec<u64>,
}

impl Torturer {
    pub(super) fn new(
        random: StdRng,
        (broker, store, proxy, program): (OwnBroker, TestStore, Proxy, Program),
        seen: Arc<Seen>,
    ) -> Self {
        let small_disk = mount_small(program.snapshots());
        let engine = program.start(&Life { workers: 1, tick: TICKS[0], crash_at: None });
        let mut torturer = Self {
            random,
            broker,
            store,
            proxy,
            program,
            seen,
            engine,
            broken_for: None,
            next: 0,
            next_crash_point: 0,
            small_disk,
            clock_ms: 0,
            faults: BTreeMap::new(),
            recoveries_ms: Vec::new(),
        };
        torturer.recover(0);
        torturer
    }

    /// One fault at a random moment, and the way back.
    pub(super) fn torture(&mut self) {
        self.pause(100..1_500);
        self.mend_in_time();
        let fault = FAULTS[self.next % FAULTS.len()];
        self.next += 1;
        let done = match fault {
            "kill engine" => self.kill_engine(),
            "crash point" => self.crash(),
            "kill ClickHouse" => {
                self.store.kill();
                self.pause(0..1_500);
                self.store.restart();
                true
            }
            "kill Kafka" => {
                let away = self.some(0..2_000);
                self.broker.kill_and_restart(away);
                true
            }
            "freeze Kafka" => {
                let away = self.some(500..4_000);
                self.broker.freeze(away);
                true
            }
            "freeze engine" => self.freeze(),
            "full disk" => self.fill_disk(),
            "cut ClickHouse" => self.disturb(Way::ToClickHouse, Mode::Cut),
            "slow ClickHouse" => self.disturb(Way::ToClickHouse, Mode::Slow),
            "break pipeline" => self.break_pipeline(),
            "cut Kafka" => self.disturb(Way::ToKafka, Mode::Cut),
            "slow Kafka" => self.disturb(Way::ToKafka, Mode::Slow),
            "silence Kafka" => self.disturb(Way::ToKafka, Mode::Silent),
            "step clock" => self.step_clock(),
            other => unreachable!("{other} is no fault"),
        };
        *self.faults.entry(fault).or_default() += usize::from(done);
        let before = self.seen.moment.load(Ordering::Relaxed);
        if self.engine.has_ended() {
            self.start(None);
        }
        self.recover(before);
    }

    /// Ends it.
    pub(super) fn end(mut self, kills: usize) -> Tortured {
        if self.broken_for.is_some() {
            self.mend();
        }
        self.engine.kill();
        self.program.step_clock(0);
        if self.small_disk {
            unmount(self.program.snapshots());
        }
        let Self { broker, store, program, faults, recoveries_ms, .. } = self;
        Tortured { broker, store, program, kills, faults, recoveries_ms }
    }

    fn kill_engine(&mut self) -> bool {
        self.engine.kill();
        self.start(None);
        true
    }

    /// Every named point in turn, at its first, second or third time.
    fn crash(&mut self) -> bool {
        let point = CRASH_POINTS[self.next_crash_point % CRASH_POINTS.len()];
        self.next_crash_point += 1;
        self.engine.kill();
        let times = self.random.random_range(1..4);
        self.start(Some(&format!("{point}:{times}")));
        let ended = self.engine.ends_within(Duration::from_secs(30));
        assert!(ended, "the engine never came to {point}: {}", self.program.log().display());
        true
    }

    /// Another engine takes over from a frozen one, which must notice when it is thawed.
    fn freeze(&mut self) -> bool {
        self.engine.signal("STOP");
        let other = self.life(None);
        let mut frozen = std::mem::replace(&mut self.engine, other);
        let before = self.seen.moment.load(Ordering::Relaxed);
        self.recover(before);
        frozen.signal("CONT");
        assert!(frozen.ends_within(RECOVERY_MAX), "a thawed engine goes on beside another");
        true
    }

    fn fill_disk(&mut self) -> bool {
        if !self.small_disk {
            return false;
        }
        let full = self.program.snapshots().join("full");
        // Fails when the disk is full, as it is to be.
        let _ = std::fs::write(&full, vec![0; 64 << 20]);
        self.pause(500..3_000);
        if self.random.random_bool(0.5) {
            self.kill_engine();
            self.pause(200..1_000);
        }
        std::fs::remove_file(full).unwrap();
        true
    }

    fn disturb(&mut self, way: Way, mode: Mode) -> bool {
        self.way(way).set(mode);
        self.pause(500..4_000);
        if mode == Mode::Silent {
            // What was silent for so long stays dead, as behind a router that has forgotten it.
            self.way(way).set(Mode::Cut);
            self.pause(50..500);
        }
        self.way(way).set(Mode::Open);
        true
    }

    fn way(&self, way: Way) -> &Proxy {
        match way {
            Way::ToClickHouse => &self.proxy,
            Way::ToKafka => &self.broker.proxy,
        }
    }

    /// ClickHouse refuses one pipeline's rows, which readers are told, until some faults later.
    fn break_pipeline(&mut self) -> bool {
        if self.broken_for.is_some() {
            return false;
        }
        Handle::current().block_on(refuse_rows(&self.store, "other"));
        self.until("the broken pipeline said to be stale", |seen| {
            seen.stale.load(Ordering::Relaxed)
        });
        self.broken_for = Some(self.random.random_range(1..5));
        true
    }

    fn mend_in_time(&mut self) {
        match self.broken_for {
            Some(0) => self.mend(),
            Some(left) => self.broken_for = Some(left - 1),
            None => {}
        }
    }

    /// Its rows are taken again: it catches up.
    fn mend(&mut self) {
        self.broken_for = None;
        Handle::current().block_on(take_rows_again(&self.store, "other"));
        self.until("the mended pipeline caught up", |seen| !seen.stale.load(Ordering::Relaxed));
    }

    fn step_clock(&mut self) -> bool {
        self.clock_ms += self.random.random_range(-3_600_000..3_600_000);
        self.program.step_clock(self.clock_ms)
    }

    fn start(&mut self, crash_at: Option<&str>) {
        self.engine = self.life(crash_at);
    }

    /// Another engine, run in another way.
    fn life(&mut self, crash_at: Option<&str>) -> Engine {
        let workers = self.random.random_range(1..4);
        let tick = TICKS[self.random.random_range(0..TICKS.len())];
        self.program.start(&Life { workers, tick, crash_at })
    }

    /// Waits until readers see something newer than `before`, and notes how long that took.
    fn recover(&mut self, before: u64) {
        let took = self.until("anything new", |seen| seen.moment.load(Ordering::Relaxed) > before);
        self.recoveries_ms.push(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    }

    /// Waits until readers see it; yields for how long. An engine that met a fault may end; the next
    /// one counts too.
    fn until(&mut self, what: &str, is_seen: impl Fn(&Seen) -> bool) -> Duration {
        let started = Instant::now();
        while !is_seen(&self.seen) {
            if self.engine.has_ended() {
                self.start(None);
            }
            let log = self.program.log().display();
            assert!(started.elapsed() < RECOVERY_MAX, "nobody sees {what}: {log}");
            std::thread::sleep(Duration::from_millis(10));
        }
        started.elapsed()
    }

    fn some(&mut self, ms: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(ms))
    }

    fn pause(&mut self, ms: std::ops::Range<u64>) {
        std::thread::sleep(self.some(ms));
    }
}

/// Makes the folder a small disk of its own; only root may.
fn mount_small(folder: &Path) -> bool {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]).arg(folder);
    let mounted = command.stderr(std::process::Stdio::null()).status();
    let mounted = mounted.is_ok_and(|status| status.success());
    if !mounted {
        println!("torture: a small disk cannot be mounted here, so none is filled");
    }
    mounted
}

fn unmount(folder: &Path) {
    // What it held stays usable for the last run.
    let kept = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &Path| {
        let copied = Command::new("cp").arg("-r").arg(from.join(".")).arg(to).status();
        assert!(copied.unwrap().success());
    };
    copy(folder, kept.path());
    assert!(Command::new("umount").arg(folder).status().unwrap().success());
    copy(kept.path(), folder);
}
