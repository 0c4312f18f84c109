//! `citycell check`, `plan` and `test` over the shipped pipelines and over ones with faults.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// Runs the program in a folder.
fn citycell(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_citycell"));
    command.args(words).current_dir(folder).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn shipped_pipelines_are_good_and_their_cases_hold() {
    let run = |words: &[&str]| {
        let output = citycell(&root(), words);
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout).to_owned()
    };
    assert_eq!(run(&["check", "pipelines"]).matches(": ok\n").count(), 4);

    let plan = run(&["plan", "pipelines/crowd_flow.yaml"]);
    for line in [
        "table crowd_flow_history_<version>, one row per change",
        "  category                LowCardinality(String)",
        "  people_valid            UInt8",
    ] {
        assert!(plan.lines().any(|there| there == line), "{line}\n{plan}");
    }
    let plans = run(&["plan", "pipelines", "--json"]);
    let names = plans.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let names: Vec<_> = names.map(|plan| plan["plan"]["name"].clone()).collect();
    assert_eq!(names, ["crowd_flow", "environment", "parking", "traffic"]);

    let cases = run(&["test", "pipelines"]);
    let last = cases.lines().last().expect("a summary");
    assert!(last.ends_with(" passed, 0 failed") && !last.starts_with('0'), "{cases}");
}

const FAULTY: &str = r#"pipeline: people
source:
  topic: t
  schema: crowd_flow
  event_time: dateObserved
  location: {lon: lon, lat: lat, crs: gcj02}
  late: {allow: 1m}
where: peopleCount > 0
window: {tumbling: 1m}
group_by: [category]
aggregate: {people: sum(peopleCount), density: sum(peopleCount) / cell.area_m2}
roll_up: [street, city]
tests:
  - name: nothing is as expected
    given:
      - {cell: "430102001001001", event: {sensorId: a, category: mall, dateObserved: "2026-03-01T08:00:10+08:00", peopleCount: 5}}
      - {cell: "430102001001002", event: {sensorId: b, category: mall, dateObserved: "2026-03-01T08:09:10+08:00", peopleCount: 2}}
      - {cell: "430102001001001", event: {sensorId: a, dateObserved: "2026-03-01T08:00:20+08:00", peopleCount: 5}}
      - {cell: "430102001001001", id: "1", event: {sensorId: a, category: mall, dateObserved: "2026-03-01T08:09:20+08:00", peopleCount: 5}}
      - {event: {sensorId: a, dateObserved: "2026-03-01T08:09:30+08:00", peopleCount: 0}}
      - {raw: "[1, 2"}
      - {event: {sensorId: a, dateObserved: "2026-03-01T08:09:30+08:00", peopleCount: 1, lon: 1.5, lat: 2}}
    expect:
      - {window_start: "2026-03-01T08:00:00+08:00", cell: "430102001001001", category: mall, people: 6, density: 0.0005}
      - {window_start: "2026-03-01T08:09:00+08:00", cell: "430102001001001", category: null, people: 5}
      - {window_start: "2026-03-01T08:00:00+08:00", level: street, place: "430102001", people: 5, density: 0.00025}
      - {window_start: "2026-03-01T08:09:00+08:00", level: street, place: "430102001", people: 2}
"#;

#[test]
fn a_failing_case_says_what_differs_where_and_which_records_are_not_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("people.yaml"), FAULTY).expect("written");

    let output = citycell(folder.path(), &["test", "people.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = r#"people.yaml:14: FAILED: nothing is as expected
  people.yaml:24: another row: {window_start: "2026-03-01T00:00:00Z", cell: "430102001001001", category: "mall", people: 5, density: 0.0005}
    people: expected 6, is 5
  people.yaml:25: no such row: {window_start: "2026-03-01T00:09:00Z", cell: "430102001001001", category: null, people: 5}
  a row that is not expected: {window_start: "2026-03-01T00:09:00Z", cell: "430102001001002", category: "mall", people: 2, density: 0.0002}
  record 2 is not counted: late: the watermark is 2026-03-01T00:09:10Z
  record 3 is not counted: a copy of an event that is counted
  record 4 is not counted: filtered by `where`
  record 5 is not counted: rejected as not_json: the record: EOF while parsing a list at line 1 column 5
  record 6 is not counted: rejected as outside_grid: lon: the place is in no cell of the grid
0 passed, 1 failed
"#;
    assert_eq!(text(&output.stdout), expected);

    let output = citycell(folder.path(), &["test", ".", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["ok"], &report["failed"]), (&Value::from(false), &Value::from(1)));
    let mismatches = &report["cases"][0]["mismatches"];
    assert_eq!(mismatches[0]["kind"], "different");
    assert_eq!(mismatches[0]["columns"][0]["actual"], 5);
    assert_eq!(report["cases"][0]["not_counted"][2]["record"], 4);
}

/// Spaces that fall silent, over a schema of one's own whose coordinates are those of one city.
const OWN_SCHEMA: &str = "
name: own
version: 1
description: d
fields:
  - {name: at, type: time, required: true, meaning: m, format: epoch_ms}
  - {name: space, type: text, required: true, meaning: m}
  - {name: cars, type: integer, meaning: m}
  - {name: x, type: number, range: {min: 144.9, max: 145}, meaning: m}
  - {name: y, type: number, range: {min: -38, max: -37.9}, meaning: m}
";

const OWN_PIPELINE: &str = r#"
pipeline: own
source:
  topic: t
  schema: own
  event_time: at
  location: {lon: x, lat: y, crs: wgs84}
  late: {allow: 1m}
  identity: {fields: [space, cars]}
latest: {by: [space], expire: 1h, forget: 2h}
aggregate: {spaces: count(), cars: sum(cars)}
tests:
  - name: a silent space is unknown
    given:
      - {cell: c1, event: {at: 0, space: a, cars: 3}}
      - {cell: c2, event: {at: 3600001, space: b, cars: 1}}
    expect:
      - {cell: c1, spaces: 1, cars: null}
      - {cell: c2, spaces: 1, cars: 1}
  - name: a space that is silent for longer is gone
    given:
      - {cell: c1, event: {at: 0, space: a, cars: 3}}
      - {raw: nothing, at: "1970-01-01T02:00:01Z"}
    expect: []
"#;

#[test]
fn pipelines_of_ones_own_are_read_with_schemas_of_ones_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let schemas = folder.path().join("schemas");
    std::fs::create_dir(&schemas).expect("a folder");
    std::fs::write(schemas.join("own.yaml"), OWN_SCHEMA).expect("written");
    std::fs::write(folder.path().join("own.yaml"), OWN_PIPELINE).expect("written");

    let output = citycell(folder.path(), &["check", "."]);
    assert!(text(&output.stderr).contains("there is no schema `own`"), "{output:?}");
    let output = citycell(folder.path(), &["test", ".", "--schemas", "schemas"]);
    let (said, wrong) = (text(&output.stdout), text(&output.stderr));
    assert!(said.ends_with("2 passed, 0 failed\n"), "{said}{wrong}");

    std::fs::write(folder.path().join("again.yaml"), OWN_PIPELINE).expect("written");
    let output = citycell(folder.path(), &["check", ".", "--schemas", "schemas"]);
    assert_eq!(output.status.code(), Some(1));
    let fault = "error: ./again.yaml describes a pipeline own too\n  --> ./own.yaml";
    assert!(text(&output.stderr).contains(fault), "{output:?}");

    let output = citycell(folder.path(), &["plan", "nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    let output = citycell(&schemas, &["test", "/dev/null/nothing"]);
    assert!(text(&output.stderr).contains("cannot read the file"), "{output:?}");
}

#[test]
fn an_output_that_nobody_reads_is_no_panic() {
    for words in [["check", "--json-schema"], ["test", "pipelines"], ["schema", "traffic"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_citycell"));
        let output = command.args(words).current_dir(root()).stdout(writer).output();
        let output = output.expect("the program runs");
        assert_eq!(output.status.code(), Some(141), "{words:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "");
    }
}
