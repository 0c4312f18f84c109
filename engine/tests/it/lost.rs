//! What was to be read is no longer there: retention was faster, or the topic is another.

use std::time::Duration;

use citycell::{
    audit::Audit,
    binder::OnLostOffsets,
    clickhouse::{ClickHouse, ClickHouseSettings},
    engine::{self, EngineConfig, RunningEngine},
    snapshot::SnapshotSettings,
};
use tempfile::TempDir;

use crate::{
    broker::{self, Sender, add_partitions, create_topic, delete_before, delete_topic, unique},
    city::{config, crowd_flow, event},
    program::Program,
    restart::{left_behind, wait},
    store::TestStore,
};

/// One partition, with snapshots, so that a restart need not read everything again.
struct Deployment {
    store: TestStore,
    topic: String,
    sender: Sender,
    folder: TempDir,
    sent: i64,
}

impl Deployment {
    async fn new(name: &str) -> Self {
        let topic = unique(name);
        create_topic(&topic, 1).await;
        let (store, folder) = (TestStore::start(), tempfile::tempdir().unwrap());
        Self { store, topic, sender: Sender::new(), folder, sent: 0 }
    }

    /// Events of one person each, whose ids are their numbers.
    fn say(&mut self, count: i64) {
        for number in self.sent..self.sent + count {
            let payload = event(&number.to_string(), number % 50, 0, &format!("s{number}"), 1);
            self.sender.send(&self.topic, 0, Some(payload.as_bytes()));
        }
        self.sender.flush();
        self.sent += count;
    }

    fn config(&self, on_lost_offsets: OnLostOffsets) -> EngineConfig {
        let mut config = config(&self.topic, self.store.settings(), vec![crowd_flow(&self.topic)]);
        config.limits.on_lost_offsets = on_lost_offsets;
        config.snapshots = Some(SnapshotSettings {
            location: self.folder.path().to_str().unwrap().to_owned(),
            every: Duration::from_millis(200),
        });
        config
    }

    async fn start(&self, on_lost_offsets: OnLostOffsets) -> RunningEngine {
        engine::start(self.config(on_lost_offsets)).await.unwrap()
    }

    /// Counts everything and ends; a snapshot of it is there.
    async fn count_everything(&self) {
        let engine = self.start(OnLostOffsets::Stop).await;
        self.counts(self.sent).await;
        let marked = "SELECT count() FROM epochs";
        let marks: u64 = self.store.lines(marked).await.concat().parse().unwrap();
        let more = format!("SELECT count() > {} FROM epochs", marks + 8);
        self.store.until(&more, "1").await;
        engine.stop();
        wait(engine).await;
    }

    async fn counts(&self, people: i64) {
        let sum = "SELECT sum(people) FROM crowd_flow WHERE level = 'city'";
        self.store.until(sum, &people.to_string()).await;
    }

    async fn fails(&self, on_lost_offsets: OnLostOffsets) -> String {
        let engine = self.start(on_lost_offsets).await;
        error_of(engine).await
    }

    async fn audited(&self) {
        let audit = Audit::begin(ClickHouse::new(&self.store.settings())).await.unwrap();
        audit.check(|outcome| assert_eq!(outcome.first, None, "{outcome:?}")).await.unwrap();
        let bindings = audit.check_bindings(&broker::settings(), &self.topic).await.unwrap();
        assert_eq!(bindings.first, None, "{bindings:?}");
    }
}

async fn error_of(engine: RunningEngine) -> String {
    let ended = tokio::task::spawn_blocking(|| engine.wait());
    let ended = tokio::time::timeout(Duration::from_secs(30), ended).await;
    ended.expect("the engine goes on").unwrap().unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_retention_removed_stop_the_engine_unless_told_to_skip_them() {
    let mut city = Deployment::new("retention").await;
    let program = Program::new(&city.topic, &city.store.settings().url);
    let run = |more: &[&str], crash_at: &str| {
        let mut command = program.command(&broker::settings().brokers);
        command.args(["--listen", "127.0.0.1:0", "--snapshot-every", "200ms"]).args(more);
        let output = command.env("CITYCELL_CRASH_AT", crash_at).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    city.say(40);
    // Everything is counted and in a snapshot, so that nothing of it needs to be read again.
    assert!(!run(&[], "after_manifest:9").0);
    city.counts(40).await;
    city.say(60);
    delete_before(&city.topic, 0, 70).await;
    // 1. By default it stops, and again.
    for _ in 0..2 {
        let (ended_well, said) = run(&[], "");
        let expected = format!(
            "topic {} partition 0: Kafka has removed the offsets 40 to before 70",
            city.topic
        );
        assert!(!ended_well && said.contains(&expected), "{said}");
        assert!(said.contains("--on-lost-offsets skip"), "{said}");
    }
    // 2. It skips them, crashes wherever the skip may be by then, and skips the same.
    let skip = ["--on-lost-offsets", "skip"];
    for times in 1..=6 {
        assert!(!run(&skip, &format!("after_binding:{times}")).0);
    }
    assert!(!run(&skip, "before_mark:1").0);
    let (ended_well, said) = run(&["--until-end", "--on-lost-offsets", "skip"], "");
    assert!(ended_well, "{said}");
    city.counts(70).await;
    let skipped =
        "SELECT DISTINCT pipeline, topic, partition, from_offset, next_offset FROM skipped";
    let expected = format!("crowd_flow\t{}\t0\t40\t70", city.topic);
    assert_eq!(city.store.lines(skipped).await, [expected]);
    let whens = "SELECT count(DISTINCT epoch, skipped_at) FROM skipped";
    assert_eq!(city.store.lines(whens).await, ["1"], "a skip sent again is the same skip");
    city.audited().await;
    // 3. Without its row the gap is one.
    city.store.execute("TRUNCATE TABLE skipped").await;
    let audit = Audit::begin(ClickHouse::new(&city.store.settings())).await.unwrap();
    let mut faulty = Vec::new();
    audit.check(|outcome| faulty.extend(outcome.first.map(|_| outcome.check))).await.unwrap();
    assert_eq!(faulty, ["ranges"]);
    let bindings = audit.check_bindings(&broker::settings(), &city.topic).await.unwrap();
    assert_eq!(bindings.faults, 1, "{bindings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bound_records_that_are_gone_are_no_matter_of_skipping() {
    let mut city = Deployment::new("overtaken").await;
    let mut config = city.config(OnLostOffsets::Skip);
    config.snapshots = None;
    city.say(10);
    delete_before(&city.topic, 0, 10).await;
    // It starts where Kafka begins, and nothing is lost by that.
    let engine = engine::start(config.clone()).await.unwrap();
    city.store.until("SELECT count() > 5 FROM epochs", "1").await;
    city.say(5);
    city.counts(5).await;
    engine.abandon();
    wait(engine).await;
    city.say(20);
    delete_before(&city.topic, 0, 30).await;
    // Not all that is bound can be read again, which is no matter of skipping.
    let error = engine::start(config).await.err().expect("records are missing").to_string();
    assert!(error.contains("no longer has records that must be read again"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skip_is_replayed_as_it_was() {
    let mut city = Deployment::new("again").await;
    // Nothing before the gap needs to be read again.
    let engine = city.start(OnLostOffsets::Skip).await;
    city.store.until("SELECT count() > 5 FROM epochs", "1").await;
    engine.abandon();
    wait(engine).await;
    city.say(50);
    delete_before(&city.topic, 0, 20).await;
    let engine = city.start(OnLostOffsets::Skip).await;
    city.counts(30).await;
    let metrics = engine.metrics.encode();
    let skipped = format!(r#"skipped_offsets_total{{topic="{}",partition="0"}} 20"#, city.topic);
    assert!(metrics.contains(&skipped), "{metrics}");
    city.say(10);
    engine.drain();
    wait(engine).await;
    city.audited().await;

    let last = city.store.lines("SELECT max(epoch) FROM epochs").await.concat().parse().unwrap();
    let elsewhere = ClickHouseSettings { database: "replayed".into(), ..city.store.settings() };
    let mut config = city.config(OnLostOffsets::Stop);
    (config.snapshots, config.clickhouse) = (None, elsewhere);
    let engine = engine::start(config).await.unwrap();
    engine.drain();
    wait(engine).await;
    let histories = ["crowd_flow_history", "skipped"];
    let run = left_behind(&city.store, "city", &histories, last).await;
    assert_eq!(run, left_behind(&city.store, "replayed", &histories, last).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_partition_that_was_never_seen_are_lost_too() {
    let mut city = Deployment::new("unseen").await;
    city.say(3);
    city.count_everything().await;
    add_partitions(&city.topic, 2).await;
    let sender = Sender::new();
    for number in 100..110 {
        let payload = event(&number.to_string(), number, 0, "s", 1);
        sender.send(&city.topic, 1, Some(payload.as_bytes()));
    }
    sender.flush();
    delete_before(&city.topic, 1, 4).await;
    let error = city.fails(OnLostOffsets::Stop).await;
    assert!(error.contains("partition 1: Kafka has removed the offsets 0 to before 4"), "{error}");
    let engine = city.start(OnLostOffsets::Skip).await;
    engine.drain();
    wait(engine).await;
    let counted = "SELECT sum(records) FROM epochs";
    assert_eq!(city.store.lines(counted).await, ["9"]);
    city.audited().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_again_is_not_taken_for_the_one_before() {
    let mut city = Deployment::new("remade").await;
    city.say(40);
    city.count_everything().await;
    let engine = city.start(OnLostOffsets::Skip).await;
    city.store.until("SELECT count() > 5 FROM epochs", "1").await;
    // 1. While it runs, with fewer records than were read; it does not take them for new ones.
    remake(&mut city, 30).await;
    let error = error_of(engine).await;
    says_what_is_wrong(&error, &city.topic, "");
    // 2. At the start, with more: librdkafka would read on.
    remake(&mut city, 90).await;
    let error = city.fails(OnLostOffsets::Skip).await;
    says_what_is_wrong(&error, &city.topic, "90.");
    // 3. While it runs with more than were read, there is no moment at which it takes one.
    let mut other = Deployment::new("overwritten").await;
    other.say(3);
    let engine = other.start(OnLostOffsets::Skip).await;
    other.counts(3).await;
    remake(&mut other, 500).await;
    let error = error_of(engine).await;
    assert!(error.contains("Everything before offset 3 was read"), "{error}");
    for city in [&city, &other] {
        let people = city.store.lines("SELECT sum(people) FROM crowd_flow WHERE level = 'city'");
        let counted =
            city.store.lines("SELECT max(arrayMax(range -> range.4, ranges)) FROM epochs");
        assert_eq!(people.await, counted.await, "records of the new topic are counted");
        city.audited().await;
    }
}

/// Deletes the topic, makes it again and says this much in it.
async fn remake(city: &mut Deployment, records: i64) {
    delete_topic(&city.topic).await;
    create_topic(&city.topic, 1).await;
    city.sender = Sender::new();
    city.say(records);
}

/// `end` is the offset that the new topic has come to, if nothing is being written to it.
fn says_what_is_wrong(error: &str, topic: &str, end: &str) {
    for part in [
        format!("topic {topic} partition 0: the topic was deleted and made again"),
        "Everything before offset 40 was read of the topic whose id is".to_owned(),
        format!("with the offsets 0 to before {end}"),
        "--deployment".to_owned(),
    ] {
        assert!(error.contains(&part), "{part}: {error}");
    }
}
