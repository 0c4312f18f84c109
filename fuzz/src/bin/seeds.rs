//! Writes the inputs to start from: what the repository's own pipelines, schemas and simulator make.
//!
//! `fuzz_seeds FOLDER`, run where the repository is, fills `FOLDER/<target>`; `FOLDER/config.dict` is
//! libFuzzer's dictionary of the words of pipelines.

use std::{collections::BTreeSet, fs, path::Path};

use citycell_schemas::event::shipped;
use citycell_simulator::{City, SimulatedRecord, SimulatorConfig};

fn main() {
    let folder = std::env::args().nth(1).expect("the folder to write to");
    let folder = Path::new(&folder);
    let pipelines = pipelines();
    write(&folder.join("decode"), records());
    write(&folder.join("grid"), grids());
    write(&folder.join("snapshot"), snapshots());
    write(&folder.join("requests"), requests());
    fs::write(folder.join("config.dict"), dictionary(&pipelines)).expect("a file");
    write(&folder.join("config"), pipelines.into_iter().map(String::into_bytes));
}

fn write(folder: &Path, inputs: impl IntoIterator<Item = Vec<u8>>) {
    fs::create_dir_all(folder).expect("a folder that can be written");
    for (number, input) in inputs.into_iter().enumerate() {
        fs::write(folder.join(format!("seed-{number:03}")), input).expect("a file");
    }
}

/// Records of the simulated city as `decode::fuzzing` reads them, in threes of one stream.
fn records() -> Vec<Vec<u8>> {
    let mut city = City::new(7, SimulatorConfig::default()).expect("a good city");
    let records = city.next_batch(city.now_ms() + 2_000);
    let mut inputs = Vec::new();
    for (number, schema) in (0_u8..).zip(shipped()) {
        let kind = schema.cloudevents_type.unwrap_or_default();
        let of_kind = |record: &&SimulatedRecord| record.header("ce_type") == Some(&kind);
        let of_kind: Vec<_> = records.iter().filter(of_kind).take(30).collect();
        for records in of_kind.chunks(3) {
            for ids in 0..3 {
                let mut input = vec![number * 3 + ids];
                let records: Vec<Vec<u8>> = records.iter().map(|record| bytes(record)).collect();
                input.extend(records.join(&0x1e));
                inputs.push(input);
            }
        }
    }
    inputs
}

fn bytes(record: &SimulatedRecord) -> Vec<u8> {
    let header = |name| record.header(name).unwrap_or("-").as_bytes();
    let payload = record.payload.as_deref().unwrap_or(b"\0");
    [header("ce_id"), header("ce_source"), header("ce_type"), payload].join(&0x1f)
}

/// The pipelines that come with citycell: whole, and without the cases, which are most of their text.
fn pipelines() -> Vec<String> {
    let files = fs::read_dir("pipelines").expect("the repository's folder");
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    let mut texts = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).expect("a text");
        let short = text.split("\ntests:").next().unwrap_or_default();
        texts.extend([format!("{short}\n"), text]);
    }
    texts
}

fn dictionary(texts: &[String]) -> String {
    let words = texts.iter().flat_map(|text| {
        text.split(|letter: char| !letter.is_ascii_alphanumeric() && !"_: ".contains(letter))
    });
    let words: BTreeSet<&str> =
        words.map(str::trim).filter(|word| (2..24).contains(&word.len())).collect();
    words.iter().map(|word| format!("\"{word}\"\n")).collect()
}

/// Grid files of a few cells of the simulated district.
fn grids() -> Vec<Vec<u8>> {
    let sizes = [1, 4, 9].map(|cells| SimulatorConfig { cells, ..SimulatorConfig::default() });
    let cities = sizes.map(|config| City::new(7, config).expect("a good city"));
    cities.map(|city| city.district().to_geojson().to_string().into_bytes()).to_vec()
}

/// Runs and manifests as `snapshot::fuzzing` reads them.
fn snapshots() -> Vec<Vec<u8>> {
    let frame = |entry: &[u8]| [&(entry.len() as u32).to_le_bytes(), entry].concat();
    let entry = |part| frame(&[&[part, 4], &b"\x02\0ke"[..], &[1, 2, 7, 7]].concat());
    let entries = (0..6).map(entry);
    let run: Vec<u8> = [0, 6].into_iter().chain(entries.flatten()).collect();
    let written = b"\x01\x00\x00\x01\x00\x00\x03\x02keyva\x83\x01\x00x\x02\x00\x00".to_vec();
    let manifest = r#"{"format": 1, "number": 2, "program": "0.1.0", "pipelines": {"crowd_flow": {
        "version": "v", "epoch": 5, "binding_offset": 1, "binding": {}, "reached": {"t": [[0, 7]]},
        "runs": [{"file": "f", "epoch": 5, "entries": 1, "bytes": 2, "sha256": "00"}]}}}"#;
    let manifest = [b"\x02", manifest.as_bytes()].concat();
    vec![run, written, manifest, b"\x03\x00\x00\x01\x00crowd\x00parking".to_vec()]
}

/// Requests as the store's `fuzzing` reads them.
fn requests() -> Vec<Vec<u8>> {
    let form = "--b\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT {a:UInt8}\r\n\
                --b\r\nContent-Disposition: form-data; name=\"param_a\"\r\n\r\n1\r\n--b--\r\n";
    let requests = [
        ["\x01", "query=SELECT+1&max_threads=1&output_format_pretty_color=0", "", ""],
        [
            "\x08",
            "database=city&default_format=JSON",
            "X-ClickHouse-User: writer",
            "SELECT 1 FORMAT CSV",
        ],
        [
            "\x10",
            "query=INSERT%20INTO%20t%20FORMAT%20TSV",
            "Authorization: Basic d3JpdGVyOg==",
            "1\ttwo\n",
        ],
        ["\x20", "user=writer&password=", "", "INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y;')"],
        ["\x40", "query_id=q", "Content-Type: multipart/form-data; boundary=b", form],
        ["\x02", "param_f=lower", "", "SELECT arrayMap({f:Identifier}, ['A']) /* x */ -- y"],
        [
            "\x00",
            "format_schema=x&readonly=0&session_id=s&compress=1",
            "",
            "(WITH 1 AS a SELECT a)",
        ],
        ["\x00", "", "", "EXPLAIN SELECT * APPLY `f\\x69le` FROM t INTO OUTFILE 'x' # comment\n"],
    ];
    requests.map(|parts| parts.join("\x1e").into_bytes()).to_vec()
}
