//! Visitors of a small city: events with personal fields of every kind, good and bad.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use citycell::{
    clickhouse::ClickHouseSettings,
    config::parse_pipeline,
    engine::EngineConfig,
    event_schemas, grid,
    personal::{KeySettings, MasterKey},
    pipeline::Pipeline,
    secret::Secret,
};
use rdkafka::producer::BaseRecord;
use tempfile::TempDir;

use crate::{
    broker::{self, Sender, create_topic, unique},
    city::{config, grid_file, text},
    store::TestStore,
};

/// The days on which visitors come.
pub(super) const DAYS: [&str; 2] = ["2020-03-05", "2020-03-06"];

/// Partitions of the topic.
const PARTITIONS: i32 = 2;

pub(super) const SCHEMA: &str = "
name: visit
version: 1
description: A group of people, seen with its guide.
cloudevents_type: city.visit
fields:
  - {name: sensorId, type: text, required: true, meaning: The sensor.}
  - {name: dateObserved, type: time, required: true, meaning: When.}
  - {name: lon, type: number, meaning: Longitude.}
  - {name: lat, type: number, meaning: Latitude.}
  - {name: category, type: text, meaning: The kind of place.}
  - {name: peopleCount, type: integer, required: true, range: {min: 0}, meaning: How many.}
  - {name: guide, type: text, personal: direct, meaning: The guide's name.}
  - {name: age, type: integer, range: {min: 0, max: 150}, personal: direct, meaning: The guide's age.}
  - {name: number, type: text, personal: direct, meaning: The guide's number.}
  - {name: wristband, type: text, personal: pseudonym, meaning: A keyed hash of the guide.}
";

pub(super) fn pipeline_text(topic: &str) -> String {
    format!(
        "
pipeline: visits
source:
  topic: {topic}
  schema: visit
  event_time: dateObserved
  location: {{lon: lon, lat: lat, crs: wgs84}}
  late: {{allow: 10m}}
derive:
  digits: cast(number as bigint)
where: guide is not null and (digits is null or digits > 0)
window: {{tumbling: 1m}}
per: {{by: [sensorId], take: last}}
group_by: [category]
aggregate:
  people: sum(peopleCount)
roll_up: [city]
"
    )
}

/// A record that was sent.
pub(super) struct Sent {
    pub(super) payload: Vec<u8>,
    pub(super) day: &'static str,
    /// Whether there is anything to hide in it.
    pub(super) is_personal: bool,
}

/// A deployment of two pipelines on one topic: of visits, and of crowds, which rejects all visits.
pub(super) struct Visits {
    folder: TempDir,
    topic: String,
    sender: Sender,
    /// What nobody may read, in every personal value.
    pub(super) secret: String,
    /// What everybody may read.
    pub(super) plain: String,
    /// What was sent, by partition and offset.
    pub(super) records: BTreeMap<(i64, i64), Sent>,
}

impl Visits {
    pub(super) async fn new(name: &str) -> Self {
        let topic = unique(name);
        create_topic(&topic, PARTITIONS).await;
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(folder.path().join(file), text).unwrap();
        fs::create_dir(folder.path().join("schemas")).unwrap();
        write("schemas/visit.yaml", SCHEMA);
        write("grid.geojson", &grid_file());
        write("visits.yaml", &pipeline_text(&topic));
        write("crowd.yaml", &text("crowd_flow", &topic));
        write("master.key", &format!("{}\n", "0123456789abcdef".repeat(4)));
        let (sender, records) = (Sender::new(), BTreeMap::new());
        Self { folder, topic, sender, secret: unique("Li"), plain: unique("s"), records }
    }

    /// Where its keys lie.
    pub(super) fn key_folder(&self) -> PathBuf {
        self.folder.path().join("citycell-keys").join(&self.topic)
    }

    /// The digits of its master key.
    pub(super) fn master_key(&self) -> String {
        let text = fs::read_to_string(self.folder.path().join("master.key")).unwrap();
        text.trim().to_owned()
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sends this many records of each kind on each day and partition.
    pub(super) fn send_each_kind(&mut self, times: usize) {
        for (day, partition) in (0..times).flat_map(|_| DAYS).flat_map(|day| [(day, 0), (day, 1)]) {
            for payload in self.payloads(day) {
                self.send(day, partition, payload);
            }
        }
        self.sender.flush();
    }

    fn send(&mut self, day: &'static str, partition: i32, payload: Vec<u8>) {
        let time: jiff::Timestamp = format!("{day}T06:00:00Z").parse().unwrap();
        let record = BaseRecord::<(), [u8]>::to(&self.topic)
            .partition(partition)
            .timestamp(time.as_millisecond())
            .payload(&payload);
        self.sender.post(record);
        let mine = self.records.range((i64::from(partition), 0)..(i64::from(partition) + 1, 0));
        let offset = mine.count() as i64;
        let is_personal = payload != b"{}" && payload != br#"{"type":"city.visit"}"#;
        let sent = Sent { payload, day, is_personal };
        self.records.insert((i64::from(partition), offset), sent);
    }

    /// One record of each kind.
    fn payloads(&self, day: &str) -> Vec<Vec<u8>> {
        let Self { secret, plain, records, .. } = self;
        let good = |id: usize| {
            format!(
                r#"{{ "specversion":"1.0","id":"{id}","source":"test","type":"city.visit","subject":"{secret}","data":{{"sensorId":"{plain}","dateObserved":"{day}T06:00:00Z","lon":113.0005,"lat":28.0005,"category":"mall","guide":"{secret} of {day}","age":42,"number":null,"wristband":"{secret}\"\u00e9","phone":["{secret}"],"peopleCount":7 }} }}"#
            )
        };
        let first = records.len();
        let good = |number: usize| good(first + number);
        let with = |number: usize, old: &str, new: &str| {
            let good = good(number);
            assert!(good.contains(old), "{old}");
            good.replacen(old, new, 1).into_bytes()
        };
        let name = format!(r#""number":"{secret} of {day}""#);
        let number = format!(r#""age":"{secret} of {day}""#);
        let mut broken = good(1).into_bytes();
        broken.push(0xff);
        vec![
            good(0).into_bytes(),
            broken,
            good(2).into_bytes()[..300].to_vec(),
            with(3, r#""age":42"#, r#""age":8675309"#),
            with(4, r#""age":42"#, &number),
            with(5, r#""number":null"#, &name),
            with(6, r#""lon":113.0005"#, r#""lon":10"#),
            with(7, r#""peopleCount":7"#, r#""peopleCount":-7"#),
            with(8, r#""type":"city.visit""#, r#""type":"city.other""#),
            with(9, "06:00:00Z", "05:00:00Z"),
            br#"{"type":"city.visit"}"#.to_vec(),
            b"{}".to_vec(),
        ]
    }

    /// `citycell run` with an archive.
    pub(super) fn command(&self, store: &TestStore, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_citycell"));
        command
            .current_dir(&self.folder)
            .args(["run", "visits.yaml", "crowd.yaml", "--schemas", "schemas"])
            .args(["--grid", "grid.geojson", "--archive", "30d", "--listen", "127.0.0.1:0"])
            .args(["--tick", "100ms", "--idle-after", "2s", "--workers", "2"])
            .args(["--snapshot-every", "300ms", "--master-key-file", "master.key"])
            .args(["--deployment", &self.topic, "--clickhouse", &store.settings().url])
            .args(["--brokers", &broker::settings().brokers])
            .args(more)
            .stdin(Stdio::null());
        command
    }

    /// Runs it until everything is written, saying all it can; what it said.
    pub(super) fn run_until_end(&self, store: &TestStore, more: &[&str]) -> Vec<u8> {
        let logs = tempfile::tempdir().unwrap();
        let log = logs.path().join("run.log");
        let mut command = self.command(store, more);
        command.arg("--until-end").env("RUST_LOG", "trace").stderr(File::create(&log).unwrap());
        let ended = command.status().unwrap();
        let said = fs::read(&log).unwrap();
        let end = said.len().saturating_sub(2000);
        assert!(ended.success(), "{}", String::from_utf8_lossy(&said[end..]));
        said
    }

    /// The same as an engine in this process, without snapshots.
    pub(super) fn config(&self, clickhouse: ClickHouseSettings, workers: usize) -> EngineConfig {
        let schemas = event_schemas::load(Some(&self.folder.path().join("schemas"))).unwrap();
        let read = |file: &str| -> Arc<Pipeline> {
            let text = fs::read_to_string(self.folder.path().join(file)).unwrap();
            Arc::new(parse_pipeline(file, &text, &schemas).unwrap().into())
        };
        let master = Secret::read(Some(&self.folder.path().join("master.key")), "NONE");
        let master = MasterKey::new(&master.unwrap().unwrap()).unwrap();
        let location = self.folder.path().join("citycell-keys").to_str().unwrap().to_owned();
        let grid = grid::load::load(&self.folder.path().join("grid.geojson")).unwrap();
        EngineConfig {
            grid: Arc::clone(&grid.located),
            workers: NonZeroUsize::new(workers).unwrap(),
            archive: Some(Duration::from_secs(30 * 86_400)),
            keys: Some(KeySettings { location, master }),
            ..config(&self.topic, clickhouse, vec![read("visits.yaml"), read("crowd.yaml")])
        }
    }

    fn ask(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_citycell"));
        command.current_dir(&self.folder).args(words).output().unwrap()
    }

    /// `citycell archive show`.
    pub(super) fn show(&self, store: &TestStore, more: &[&str]) -> Output {
        let url = store.settings().url;
        let words = ["archive", "show", &self.topic, "--deployment", &self.topic];
        let with = ["--clickhouse", url.as_str(), "--master-key-file", "master.key"];
        self.ask(&[&words[..], &with, more].concat())
    }

    /// `citycell archive verify`, which asks Kafka too.
    pub(super) fn verify(&self, store: &TestStore) -> Output {
        let (url, brokers) = (store.settings().url, broker::settings().brokers);
        let words = ["archive", "verify", "--clickhouse", &url, "--brokers", &brokers];
        self.ask(&[&words[..], &["--deployment", &self.topic]].concat())
    }

    /// What `citycell keys` says.
    pub(super) fn keys(&self, words: &[&str]) -> String {
        let output = self.ask(&[&["keys"], words, &["--deployment", &self.topic]].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Puts another master key in the place of the old one, whose file is returned.
    pub(super) fn replace_master_key(&self) -> String {
        let file = self.folder.path().join("master.key");
        fs::rename(&file, self.folder.path().join("old.key")).unwrap();
        fs::write(file, "f".repeat(64)).unwrap();
        "old.key".to_owned()
    }

    pub(super) fn master_key_file(&self) -> String {
        "master.key".to_owned()
    }
}
