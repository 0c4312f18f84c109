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

use crate::store::TestStore;

use super::{
    broker::OwnBroker,
    engines::{Engine, Program},
    proxy::{Mode, Proxy},
    reader::Seen,
};

/// Longer than any engine needs to come back.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

const FAULTS: [&str; 10] = [
    "kill engine",
    "crash point",
    "kill ClickHouse",
    "kill Kafka",
    "freeze Kafka",
    "freeze engine",
    "full disk",
    "cut ClickHouse",
    "slow ClickHouse",
    "step clock",
];

pub(super) struct Torturer {
    random: StdRng,
    broker: OwnBroker,
    store: TestStore,
    proxy: Proxy,
    program: Program,
    seen: Arc<Seen>,
    engine: Engine,
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
        let engine = Engine::new(program.start(1, None));
        let mut torturer = Self {
            random,
            broker,
            store,
            proxy,
            program,
            seen,
            engine,
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
            "cut ClickHouse" => self.disturb(Mode::Cut),
            "slow ClickHouse" => self.disturb(Mode::Slow),
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
        let ended = self.engine.ends_within(Duration::from_secs(20));
        assert!(ended, "the engine never came to {point}: {}", self.program.log().display());
        true
    }

    /// Another engine takes over from a frozen one, which must notice when it is thawed.
    fn freeze(&mut self) -> bool {
        self.engine.signal("STOP");
        let other = Engine::new(self.program.start(self.random.random_range(1..4), None));
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

    fn disturb(&mut self, mode: Mode) -> bool {
        self.proxy.set(mode);
        self.pause(500..4_000);
        self.proxy.set(Mode::Open);
        true
    }

    fn step_clock(&mut self) -> bool {
        self.clock_ms += self.random.random_range(-3_600_000..3_600_000);
        self.program.step_clock(self.clock_ms)
    }

    fn start(&mut self, crash_at: Option<&str>) {
        let workers = self.random.random_range(1..4);
        self.engine = Engine::new(self.program.start(workers, crash_at));
    }

    /// Waits until readers see something newer than `before`, and notes how long that took. An
    /// engine that met the fault may end; the next one counts too.
    fn recover(&mut self, before: u64) {
        let started = Instant::now();
        while self.seen.moment.load(Ordering::Relaxed) <= before {
            if self.engine.has_ended() {
                self.start(None);
            }
            let log = self.program.log();
            assert!(started.elapsed() < RECOVERY_MAX, "nothing new to see: {}", log.display());
            std::thread::sleep(Duration::from_millis(10));
        }
        let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.recoveries_ms.push(took);
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
