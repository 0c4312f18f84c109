//! Shipped pipelines are good, and bad files are refused with the words their author needs.

mod hostile_names;

use std::path::PathBuf;

use citycell_schemas::event::shipped;

use super::*;

const GOOD: &str = "\
pipeline: p
source:
  topic: t
  schema: crowd_flow
  event_time: dateObserved
  location: {cell: gridCode}
  late: {allow: 10m}
window: {tumbling: 1m}
aggregate:
  people: sum(peopleCount)
";

fn faults(text: &str) -> Vec<String> {
    match parse_pipeline("p.yaml", text, &shipped()) {
        Ok(_) => Vec::new(),
        Err(ConfigErrors(errors)) => errors
            .into_iter()
            .map(|error| {
                let hint = error.hint.unwrap_or_default();
                format!("{}:{} {} [{hint}]", error.line, error.column, error.message)
            })
            .collect(),
    }
}

#[test]
fn shipped_pipelines_are_good_and_tested() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../pipelines");
    for name in ["crowd_flow", "parking", "environment", "traffic"] {
        let pipeline = load_pipeline(&folder.join(format!("{name}.yaml")), &shipped())
            .unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(pipeline.plan.name, name);
        assert!(!pipeline.tests.is_empty());
        for measure in pipeline.tests.iter().flat_map(|case| &case.expect) {
            for column in measure.columns.keys() {
                let published = pipeline.plan.measures.iter().any(|one| one.name == *column)
                    || pipeline.plan.group_by.contains(column);
                assert!(published, "{name} publishes no {column}");
            }
        }
    }
}

#[test]
fn a_pipeline_reads_the_fields_it_names_and_no_others() {
    let text = GOOD.replace("window:", "where: status = 'actual'\nwindow:");
    let pipeline = parse_pipeline("p.yaml", &text, &shipped()).expect("good");
    assert_eq!(pipeline.fields, ["dateObserved", "gridCode", "status", "peopleCount"]);
    assert_eq!((pipeline.plan.allow_ms, pipeline.plan.future_ms), (600_000, 300_000));
    assert_eq!(pipeline.ids, IdSource::CloudEvents);
}

#[test]
fn bad_files_are_refused_with_place_and_hint() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("pipeline: p", "pipelin: p", &["1:1 unknown key `pipelin` [did you mean `pipeline`?]"]),
        (
            "window: {tumbling: 1m}",
            "window: {tumbling: 1m}\nalerts: []",
            &["9:1 `alerts` is not supported yet"],
        ),
        (
            "{tumbling: 1m}",
            "{hopping: 10m}",
            &["`hopping` is not supported yet [there is tumbling]"],
        ),
        ("{tumbling: 1m}", "{tumbling: 1min}", &["8:20 `1min` is no duration"]),
        ("{tumbling: 1m}", "{tumbling: 0m}", &["8:20 a window has a size"]),
        ("  late: {allow: 10m}\n", "", &["the key `late` is missing [say how late"]),
        (
            "{cell: gridCode}",
            "{lon: lon, lat: lat}",
            &["6:13 coordinates without a coordinate system [write crs: wgs84, gcj02 or bd09"],
        ),
        ("{cell: gridCode}", "{cell: lon}", &["6:20 `lon` is of type number, not text"]),
        ("crowd_flow", "crowd_flo", &["4:11 there is no schema `crowd_flo` [did you mean"]),
        (
            "sum(peopleCount)",
            "sum(peopleCont)",
            &["10:15 there is no column `peopleCont` [did you mean `peopleCount`?]"],
        ),
        (
            "sum(peopleCount)",
            "'sum(status)'",
            &["10:16 sum needs a number, not Utf8 [to count what meets a condition"],
        ),
        (
            "sum(peopleCount)",
            "|\n    count()\n    + sum(nothing)",
            &["12:11 there is no column `nothing`"],
        ),
        ("  people:", "  epoch:", &["`epoch` cannot name a number"]),
        ("  people:", "  events:", &["`events` cannot name a number"]),
        ("  people:", "  n: count()\n  n_valid:", &["`n_valid` cannot name a number"]),
        ("pipeline: p", "pipeline: epochs", &["`epochs` is the name of another table"]),
        ("pipeline: p", "pipeline: p_as_of", &["`p_as_of` is the name of another table"]),
        ("window:", "group_by: [category, category]\nwindow:", &["8:22 `category` is named twice"]),
        ("  topic: t\n", "", &["the source has no topic [write topic: city.crowd.flow]"]),
        (
            "window: {tumbling: 1m}",
            "latest: {by: [sensorId], expire: 1h, forget: 1m}",
            &["8:46 an entity expires after some time"],
        ),
        (
            "window:",
            "where: status > 5\ngroup_by: [lon, categry]\nwindow:",
            &[
                "8:8 text and numbers do not mix [write cast",
                "9:12 `lon` is a fractional number",
                "9:17 there is no column `categry` [did you mean `category`?]",
            ],
        ),
        (
            "window:",
            "tests: [{name: n, given: [{at: now, raw: x}, {}], expect: [{people: 1}]}]\nwindow:",
            &["8:32 `now` is no time", "8:46 a record is one of", "8:60 a row names the start"],
        ),
        (
            "window:",
            "tests: [{name: n, given: [], expect: [{window_start: \"1970-01-01T00:00:00Z\", peple: 1, cell: c}, {window_start: \"1970-01-01T00:00:00Z\"}]}]\nwindow:",
            &[
                "8:39 rows have no column `peple` [did you mean `people`?]",
                "8:98 a row has a cell's code",
            ],
        ),
    ];
    assert_eq!(faults(GOOD), Vec::<String>::new());
    for (good, bad, expected) in cases {
        let found = faults(&GOOD.replacen(good, bad, 1));
        assert_eq!(found.len(), expected.len(), "{bad}: {found:#?}");
        for (found, expected) in found.iter().zip(*expected) {
            assert!(found.contains(expected), "{found}\n  lacks {expected}");
        }
    }
}

#[test]
fn an_event_time_that_may_be_missing_is_refused() {
    let mut schemas = shipped();
    let schema = schemas.iter_mut().find(|schema| schema.name == "crowd_flow").expect("shipped");
    let time = schema.fields.iter_mut().find(|field| field.name == "dateObserved");
    time.expect("a field").required = false;
    let errors = parse_pipeline("p.yaml", GOOD, &schemas).expect_err("a fault").0;
    assert_eq!((errors.len(), errors[0].line), (1, 5));
    assert!(errors[0].message.contains("may be missing"), "{}", errors[0]);
}

#[test]
fn what_has_no_id_cannot_be_withdrawn() {
    let text = GOOD.replace("  late:", "  identity: none\n  late:");
    let withdrawing =
        |text: &str| format!("{text}tests: [{{name: n, given: [{{withdraw: a}}], expect: []}}]\n");
    assert_eq!(faults(&withdrawing(GOOD)), Vec::<String>::new());
    let found = faults(&withdrawing(&text));
    assert!(found[0].contains("only events with CloudEvents ids"), "{found:?}");
}

#[test]
fn an_error_looks_like_a_compilers() {
    let text = GOOD.replace("sum(peopleCount)", "sum(peopleCont)");
    let errors = parse_pipeline("p.yaml", &text, &shipped()).expect_err("a fault");
    let expected = "\
error: there is no column `peopleCont`
  --> p.yaml:10:15
   |
10 |   people: sum(peopleCont)
   |               ^
  = help: did you mean `peopleCount`?";
    assert_eq!(errors.to_string(), expected);
}
