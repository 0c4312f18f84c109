//! A pipeline whose file has changed is built beside the version that serves, takes its place at one
//! moment, and can be taken back; what was shown at a moment is shown as of it ever after.

use std::{
    num::NonZeroUsize,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use citycell::{
    audit::Audit,
    clickhouse::{ClickHouse, ClickHouseSettings},
    crash_point::SWAP_CRASH_POINTS,
    engine::{self, Cluster, EngineConfig, RunningEngine, WritingLimits},
    pipeline::Pipeline,
    snapshot::SnapshotSettings,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::{
    broker::{self, create_topic, unique},
    city::{config, crowd_flow, grid, grid_file, grid_of_version, pipeline, text},
    crash::{Running, run_until_it_crashes},
    crowd::{Crowd, PARTITIONS},
    oracle::{self, Moment},
    processes::free_addresses,
    restart::{bindings, wait},
    snapshots::slow,
    store::TestStore,
};

/// The columns that both versions have, as one number.
const ROWS: &str = "count(), sum(cityHash64(window_start, level, cell, category, events, people))";
/// The version that readers see.
const SERVES: &str = "SELECT argMax(version, (from_epoch, recorded_at)) FROM versions \
                      WHERE pipeline = 'crowd_flow'";

/// Counts events of status `test` too, and shows other columns.
fn changed_text(topic: &str) -> String {
    text("crowd_flow", topic).replace("where: status is null or status <> 'test'\n", "").replace(
        "  average: mean(peopleCount)\n",
        "  average: mean(peopleCount)\n  lowest: min(peopleCount)\n",
    )
}

/// How long a new version may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);

struct City {
    topic: String,
    store: TestStore,
    folder: TempDir,
    crowd: Crowd,
}

impl City {
    async fn new(name: &str) -> Self {
        let topic = unique(name);
        create_topic(&topic, PARTITIONS as i32).await;
        let crowd = Crowd::new(&topic, 8, 30 * 60_000);
        Self { topic, store: TestStore::start(), folder: tempfile::tempdir().unwrap(), crowd }
    }

    fn first(&self) -> Arc<Pipeline> {
        crowd_flow(&self.topic)
    }

    fn changed(&self) -> Arc<Pipeline> {
        pipeline(&changed_text(&self.topic))
    }

    fn config(&self, pipelines: Vec<Arc<Pipeline>>) -> EngineConfig {
        let location = self.folder.path().to_str().unwrap().to_owned();
        let every = Duration::from_millis(400);
        EngineConfig {
            snapshots: Some(SnapshotSettings { location, every }),
            // The moment waits for a new version that is two seconds behind.
            writing: WritingLimits { stale_after: Duration::from_secs(4), ..Default::default() },
            ..config(&self.topic, self.store.settings(), pipelines)
        }
    }

    async fn start(&self, pipelines: Vec<Arc<Pipeline>>) -> RunningEngine {
        engine::start(self.config(pipelines)).await.unwrap()
    }

    async fn feed(&mut self, batches: usize) {
        for _ in 0..batches {
            self.crowd.send(60);
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
    }

    async fn serves(&self) -> String {
        self.store.lines(SERVES).await.concat()
    }

    async fn moment(&self) -> u64 {
        self.store.lines("SELECT max(epoch) FROM moments").await[0].parse().unwrap()
    }

    /// Feeds until this version serves; yields the moments that were shown meanwhile.
    async fn feed_until_served(&mut self, version: &str) -> usize {
        let started = Instant::now();
        let mut moments = std::collections::BTreeSet::new();
        while self.serves().await != version {
            if started.elapsed() > PATIENCE {
                let marked = "SELECT version, count(), max(epoch) FROM epochs GROUP BY version";
                let versions = "SELECT version, from_epoch FROM versions ORDER BY recorded_at";
                let (marked, versions) =
                    (self.store.lines(marked).await, self.store.lines(versions).await);
                let moment = self.store.lines("SELECT * FROM city_moment").await;
                panic!("{version} never serves: {marked:?}, {versions:?}, {moment:?}");
            }
            moments.insert(self.moment().await);
            self.feed(1).await;
        }
        moments.len()
    }

    async fn audit_is_clean(&self) {
        let audit = Audit::begin(ClickHouse::new(&self.store.settings())).await.unwrap();
        audit.check(|outcome| assert_eq!(outcome.first, None, "{outcome:?}")).await.unwrap();
        let bindings = audit.check_bindings(&broker::settings(), &self.topic).await.unwrap();
        assert_eq!(bindings.first, None, "{bindings:?}");
    }

    /// Every moment that a reader saw is as it was seen.
    async fn is_as_it_was_seen(&self, seen: &[(u64, String)]) {
        for (moment, rows) in seen {
            let as_of = format!("SELECT {ROWS} FROM crowd_flow_as_of(epoch = {moment})");
            assert_eq!(&self.store.lines(&as_of).await.concat(), rows, "as of {moment}");
        }
    }
}

/// Notes what is shown at each moment, all the time.
struct Reader {
    stopped: Arc<AtomicBool>,
    task: JoinHandle<Vec<(u64, String)>>,
}

impl Reader {
    fn start(settings: &ClickHouseSettings) -> Self {
        let clickhouse = ClickHouse::new(settings);
        let stopped = Arc::new(AtomicBool::default());
        let is_stopped = Arc::clone(&stopped);
        let task = tokio::spawn(async move {
            let mut seen: Vec<(u64, String)> = Vec::new();
            let ask = async |sql: &str| {
                let answer = clickhouse.query("look", sql, "TabSeparated").await.ok()?;
                Some(String::from_utf8_lossy(&answer).trim().to_owned())
            };
            while !is_stopped.load(Ordering::Relaxed) {
                let moment = "SELECT max(epoch) FROM moments";
                let before = ask(moment).await;
                let rows = ask(&format!("SELECT {ROWS} FROM crowd_flow")).await;
                let after = ask(moment).await;
                if let (true, Some(rows), Some(moment)) = (before == after, rows, after) {
                    seen.push((moment.parse().unwrap_or_default(), rows));
                    seen.dedup();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            seen
        });
        Self { stopped, task }
    }

    async fn stop(self) -> Vec<(u64, String)> {
        self.stopped.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_takes_the_place_of_the_one_that_serves_and_is_taken_back() {
    let mut city = City::new("new-version").await;
    let reader = Reader::start(&city.store.settings());
    let (first, changed) = (city.first(), city.changed());
    let [one, two] = [&first, &changed].map(|pipeline| pipeline.version(grid().grid()));
    // 1. A history.
    let engine = city.start(vec![first.clone(), slow(&city.topic)]).await;
    city.feed(80).await;
    engine.abandon();
    wait(engine).await;
    assert_eq!(city.serves().await, one);
    // 2. The new version is built while the first goes on, with a crash before it is complete and
    // another after it serves.
    let engine = city.start(vec![changed.clone(), slow(&city.topic)]).await;
    city.feed(3).await;
    engine.abandon();
    wait(engine).await;
    let engine = city.start(vec![changed.clone(), slow(&city.topic)]).await;
    let shown = city.feed_until_served(&two).await;
    assert!(shown > 2, "{shown} moments were shown while the new version was built");
    let metrics = engine.metrics.encode();
    assert!(metrics.contains(&format!("version=\"{two}\"")), "{metrics}");
    city.feed(25).await;
    engine.abandon();
    wait(engine).await;
    let engine = city.start(vec![changed.clone(), slow(&city.topic)]).await;
    let state = format!("crowd_flow@{two}");
    assert!(engine.started_at.contains_key(&state), "{:?}", engine.started_at);
    city.feed(5).await;
    engine.drain();
    wait(engine).await;
    let changed_until = city.moment().await;
    // 3. The first is taken back in the same way.
    let engine = city.start(vec![first, slow(&city.topic)]).await;
    city.feed_until_served(&one).await;
    city.feed(5).await;
    engine.drain();
    wait(engine).await;

    let seen = reader.stop().await;
    assert!(seen.len() > 20, "only {} moments were seen", seen.len());
    city.is_as_it_was_seen(&seen).await;
    oracle::prepare(&city.store, &city.crowd, &bindings(&city.topic).await).await;
    let (rows, wrong) = oracle::differences(&city.store, Moment::Now).await;
    assert!(rows > 100 && wrong == 0, "{wrong} of {rows}");
    let as_of = Moment::AsOf(changed_until);
    let (rows, wrong) = oracle::differences_with_tests(&city.store, as_of).await;
    assert!(rows > 100 && wrong == 0, "{wrong} of {rows}");
    let (_, wrong) = oracle::differences(&city.store, as_of).await;
    assert!(wrong > 0, "both versions show the same");
    let swaps = "SELECT groupArray(version) FROM (SELECT version FROM versions \
                 WHERE pipeline = 'crowd_flow' ORDER BY from_epoch, recorded_at)";
    assert_eq!(city.store.lines(swaps).await, [format!("['{one}','{two}','{one}']")]);
    let lowest = format!("SELECT count(lowest) FROM crowd_flow_as_of(epoch = {changed_until})");
    assert_ne!(city.store.lines(&lowest).await, ["0"]);
    city.audit_is_clean().await;
    as_a_fresh_run(&city, changed, &two).await;
}

/// The new version left behind what it would have left behind alone.
async fn as_a_fresh_run(city: &City, changed: Arc<Pipeline>, version: &str) {
    let clickhouse = ClickHouseSettings { database: "replayed".into(), ..city.store.settings() };
    let fresh = EngineConfig { snapshots: None, clickhouse, ..city.config(vec![changed]) };
    let engine = engine::start(fresh).await.unwrap();
    engine.drain();
    wait(engine).await;
    let last = format!("SELECT max(epoch) FROM city.epochs WHERE version = '{version}'");
    let last = city.store.lines(&last).await.concat();
    let history = format!("SELECT DISTINCT * FROM DB.crowd_flow_history_{version}");
    let marks =
        format!("SELECT DISTINCT * EXCEPT committed_at FROM DB.epochs WHERE version = '{version}'");
    for sql in [history, marks] {
        let sql = format!("SELECT * FROM ({sql}) WHERE epoch <= {last} ORDER BY ALL");
        let run = city.store.lines(&sql.replace("DB", "city")).await;
        assert!(!run.is_empty());
        assert_eq!(run, city.store.lines(&sql.replace("DB", "replayed")).await, "{sql}");
    }
}

/// The program with the file as it is in the folder.
fn program(city: &City) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_citycell"));
    program
        .current_dir(city.folder.path())
        .args(["run", "crowd_flow.yaml", "--grid", "grid.geojson", "--workers", "2"])
        .args(["--tick", "100ms", "--idle-after", "2s", "--snapshot-every", "300ms"])
        .args(["--listen", "127.0.0.1:0"])
        .args(["--deployment", &city.topic, "--clickhouse", &city.store.settings().url])
        .args(["--brokers", &broker::settings().brokers]);
    program
}

/// What the program says of a start with the file as it is.
fn plan(city: &City) -> String {
    let plan = Command::new(env!("CARGO_BIN_EXE_citycell"))
        .current_dir(city.folder.path())
        .args(["plan", "crowd_flow.yaml", "--grid", "grid.geojson"])
        .args(["--clickhouse", &city.store.settings().url])
        .output()
        .unwrap();
    assert!(plan.status.success(), "{}", String::from_utf8_lossy(&plan.stderr));
    String::from_utf8(plan.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_the_swap_readers_see_one_version_or_the_other() {
    let mut city = City::new("swap-killed").await;
    let folder = city.folder.path().to_owned();
    std::fs::write(folder.join("grid.geojson"), grid_file()).unwrap();
    let files = [text("crowd_flow", &city.topic), changed_text(&city.topic)];
    let write = |index: usize| std::fs::write(folder.join("crowd_flow.yaml"), &files[index % 2]);
    write(0).unwrap();
    let reader = Reader::start(&city.store.settings());
    let running = Running::start(program(&city));
    city.feed(25).await;
    drop(running);
    let unchanged = plan(&city);
    assert!(unchanged.contains("serves: nothing is built anew"), "{unchanged}");
    write(1).unwrap();
    let changed = plan(&city);
    let serves = city.serves().await;
    for part in [
        &format!("is built anew and takes the place of {serves}"),
        &format!("until then {serves} goes on"),
        "pipeline.filter: \"status is null or status <> 'test'\" -> null",
        " epochs since 20",
    ] {
        assert!(changed.contains(part), "{part} is not in\n{changed}");
    }
    // There and back, killed once at each place of the swap.
    for (index, point) in SWAP_CRASH_POINTS.iter().enumerate() {
        write(index + 1).unwrap();
        let killed = program(&city);
        run_until_it_crashes((point, 1), killed, || city.crowd.send(60)).await;
        let mut to_the_end = program(&city);
        to_the_end.arg("--until-end");
        let running = Running::start(to_the_end);
        city.feed(5).await;
        assert!(running.ends_well());
    }
    city.is_as_it_was_seen(&reader.stop().await).await;
    oracle::prepare(&city.store, &city.crowd, &bindings(&city.topic).await).await;
    let (rows, wrong) = oracle::differences(&city.store, Moment::Now).await;
    assert!(rows > 100 && wrong == 0, "{wrong} of {rows}");
    city.audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_build_a_new_version_and_a_new_pipeline_as_one_does() {
    let mut city = City::new("new-version-cluster").await;
    let engine = city.start(vec![city.first()]).await;
    city.feed(25).await;
    engine.abandon();
    wait(engine).await;
    let addresses = free_addresses(2);
    let start = |process| {
        let cluster = Some(Cluster { process, addresses: addresses.clone() });
        let workers = NonZeroUsize::new(1).unwrap();
        let pipelines = vec![city.changed(), slow(&city.topic)];
        engine::start(EngineConfig { cluster, workers, ..city.config(pipelines) })
    };
    let engine = start(0).await.unwrap();
    let other = start(1).await.unwrap();
    let two = city.changed().version(grid().grid());
    city.feed_until_served(&two).await;
    engine.drain();
    wait(engine).await;
    wait(other).await;
    oracle::prepare(&city.store, &city.crowd, &bindings(&city.topic).await).await;
    let (rows, wrong) = oracle::differences_with_tests(&city.store, Moment::Now).await;
    assert!(rows > 100 && wrong == 0, "{wrong} of {rows}");
    assert_ne!(city.store.lines("SELECT count() FROM slow").await, ["0"]);
    city.audit_is_clean().await;
    as_a_fresh_run(&city, city.changed(), &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_another_grid_the_old_rows_stand_still_until_the_new_are_complete() {
    let mut city = City::new("new-grid").await;
    let reader = Reader::start(&city.store.settings());
    let engine = city.start(vec![city.first()]).await;
    city.feed(25).await;
    engine.abandon();
    wait(engine).await;
    let stood_at = city.moment().await;
    let redrawn = grid_of_version("four-cells-again");
    let two = city.first().version(redrawn.grid());
    let grid = redrawn;
    let engine = EngineConfig { grid, ..city.config(vec![city.first()]) };
    let engine = engine::start(engine).await.unwrap();
    city.feed_until_served(&two).await;
    engine.drain();
    wait(engine).await;
    let seen = reader.stop().await;
    city.is_as_it_was_seen(&seen).await;
    assert!(seen.iter().any(|(moment, _)| *moment <= stood_at));
    let grids = "SELECT groupUniqArray(grid) FROM versions WHERE version != ''";
    assert_eq!(city.store.lines(grids).await, ["['four-cells','four-cells-again']"]);
    oracle::prepare(&city.store, &city.crowd, &bindings(&city.topic).await).await;
    let (rows, wrong) = oracle::differences(&city.store, Moment::Now).await;
    assert!(rows > 100 && wrong == 0, "{wrong} of {rows}");
    city.audit_is_clean().await;
}
