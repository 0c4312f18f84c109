//! Engines that are started, fed and ended as a case says.

use std::{
    fs::File,
    os::unix::process::ExitStatusExt,
    process::{Child, Command},
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};
use rdkafka::producer::BaseRecord;

use super::{
    case::{Case, End, Life, Start},
    now_ms, payload,
};
use crate::{
    broker::{Sender, settings},
    model::{Log, PARTITIONS, sensors::Sensors},
    program::Program,
    store::TestStore,
};

/// An engine that does not come to its end by then hangs.
const LIFE_MAX: Duration = Duration::from_secs(60);

/// What writes, and what it has written.
pub(super) struct Writer<'a> {
    topic: &'a str,
    sender: Sender,
    sensors: Sensors,
    random: StdRng,
    seed: u64,
    pub(super) log: Log,
    sent: [usize; PARTITIONS],
}

impl<'a> Writer<'a> {
    pub(super) fn new(topic: &'a str, case: &Case) -> Self {
        let writer = Self {
            topic,
            sender: Sender::new(),
            sensors: Sensors::new(case.rules, case.copies_differ_by),
            random: StdRng::seed_from_u64(case.seed),
            seed: case.seed,
            log: Log::default(),
            sent: [0; PARTITIONS],
        };
        File::create(writer.says()).unwrap();
        writer
    }

    /// Where the engines' words go; they outlive the test.
    fn says(&self) -> String {
        format!("{}/model-{}.log", env!("CARGO_TARGET_TMPDIR"), self.seed)
    }

    /// Some records of each partition, then a pause.
    pub(super) async fn write(&mut self) {
        self.sensors.write(&mut self.log, now_ms(), &mut self.random);
        for (partition, records) in self.log.iter().enumerate() {
            for stored in &records[self.sent[partition]..] {
                let payload = payload(&stored.record);
                let record = BaseRecord::<(), [u8]>::to(self.topic).partition(partition as i32);
                self.sender.post(record.timestamp(stored.broker_time).payload(payload.as_bytes()));
            }
            self.sent[partition] = records.len();
        }
        self.sender.flush();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

/// An engine that is killed when dropped.
struct Engine(Child);

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts an engine, writes while it runs, and sees it end as `life` says.
pub(super) async fn live(
    life: &Life,
    program: &Program,
    store: &mut TestStore,
    writer: &mut Writer<'_>,
) {
    let mut command = command(program, life.start, writer);
    if let End::Crashed { point, times } = life.end {
        command.env("CITYCELL_CRASH_AT", format!("{point}:{times}"));
    }
    let already = marked(store).await;
    let mut engine = Engine(command.spawn().unwrap());
    let started = Instant::now();
    let mut store_dies = life.store_dies;
    loop {
        writer.write().await;
        let marked = marked(store).await - already;
        // An engine that finds no ClickHouse when it starts says so and ends.
        if marked > 0 && std::mem::take(&mut store_dies) {
            store.kill_and_restart();
        }
        match life.end {
            End::Crashed { .. } => {
                if let Some(status) = engine.0.try_wait().unwrap() {
                    let aborted = status.signal() == Some(6);
                    assert!(aborted, "{status} before its crash point, see {}", writer.says());
                    return;
                }
            }
            End::Killed { epochs, then } => {
                if marked >= epochs {
                    tokio::time::sleep(then).await;
                    let ended = engine.0.try_wait().unwrap();
                    assert_eq!(ended, None, "ended before it was killed, see {}", writer.says());
                    return;
                }
            }
        }
        let hangs = started.elapsed() > LIFE_MAX;
        assert!(!hangs, "it does not come to {:?}, see {}", life.end, writer.says());
    }
}

/// Has an engine read everything.
pub(super) fn read_all(program: &Program, start: Start, writer: &Writer<'_>) {
    let ended = command(program, start, writer).arg("--until-end").status().unwrap();
    assert!(ended.success(), "{ended}, see {}", writer.says());
}

fn command(program: &Program, start: Start, writer: &Writer<'_>) -> Command {
    let mut command = program.command(&settings().brokers);
    command.args(["--listen", "127.0.0.1:0", "--workers", &start.workers.to_string()]);
    command.args(["--snapshot-every", "300ms"]);
    command.args(["--snapshots", if start.keeps_snapshots { "snapshots" } else { "none" }]);
    let says = File::options().append(true).open(writer.says()).unwrap();
    command.env("RUST_LOG", "info").stderr(says);
    command
}

/// How many marks there are; a mark may be there twice.
async fn marked(store: &TestStore) -> u64 {
    // The table is not there before the first engine.
    let sql =
        "SELECT sum(total_rows) FROM system.tables WHERE database = 'city' AND name = 'epochs'";
    store.execute("SELECT 1").await;
    store.lines(sql).await[0].parse().unwrap_or_default()
}
