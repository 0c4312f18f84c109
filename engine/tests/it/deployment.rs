//! The files of `deploy/`, held to the program as far as that goes without the machines they are for.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use citycell::{
    commands::run::RunArgs,
    http::{self, Readiness},
    metrics::Metrics,
    secret::Secret,
};
use clap::Parser;
use serde_json::Value;

/// `citycell run` without the first two words.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Run {
    #[command(flatten)]
    _args: RunArgs,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join("deploy").join(path)).unwrap()
}

/// The program takes these words, in which variables stand for these values.
fn assert_taken(file: &str, words: &[String], values: &BTreeMap<String, String>) {
    let fill = |word: &String| {
        let fill = |word: String, (name, value): (&String, &String)| word.replace(name, value);
        let word = values.iter().fold(word.clone(), fill);
        assert!(!word.contains(['$', '%']), "{file}: {word} names a variable that is not set");
        word
    };
    let words: Vec<String> = words.iter().map(fill).collect();
    assert_eq!(words[0], "run", "{file}");
    if let Err(error) = Run::try_parse_from(&words[1..]) {
        panic!("{file}: {error}");
    }
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().unwrap_or_else(|| panic!("{value} is no list"));
    items.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// What follows `name=` among the words.
fn argument<'words>(words: &'words [String], name: &str) -> &'words str {
    let mut found = words.iter().filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.next().unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn kubernetes_runs_what_the_program_takes() {
    let documents: Vec<Value> = serde_saphyr::from_multiple(&read("kubernetes.yaml")).unwrap();
    let one = |kind: &str| documents.iter().find(|document| document["kind"] == kind).unwrap();
    let (set, service) = (&one("StatefulSet")["spec"], one("Service"));
    let pod = &set["template"]["spec"];
    let container = &pod["containers"][0];
    let words = texts(&container["args"]);
    assert_eq!(container["env"][1]["name"], "PROCESS");
    assert_taken("kubernetes.yaml", &words, &[("$(PROCESS)".into(), "1".into())].into());

    let name = one("StatefulSet")["metadata"]["name"].as_str().unwrap();
    let domain = set["serviceName"].as_str().unwrap();
    let port = &service["spec"]["ports"][0]["port"];
    let replicas = set["replicas"].as_u64().unwrap();
    let peers: Vec<String> =
        (0..replicas).map(|number| format!("{name}-{number}.{domain}:{port}")).collect();
    assert_eq!(argument(&words, "--peers"), peers.join(","));
    assert_eq!(service["metadata"]["name"], domain);
    let labels = &set["template"]["metadata"]["labels"];
    for selector in [
        &service["spec"]["selector"],
        &set["selector"]["matchLabels"],
        &one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        &one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ] {
        assert_eq!(selector, labels);
    }
    let probe = texts(&container["readinessProbe"]["exec"]["command"]);
    assert_eq!(probe[2], argument(&words, "--token-file"));
    let volumes = pod["volumes"].as_array().unwrap();
    for mount in container["volumeMounts"].as_array().unwrap() {
        assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
    }
}

#[test]
fn compose_runs_what_the_program_takes_and_makes_the_topics() {
    let file: Value = serde_saphyr::from_str(&read("compose.yaml")).unwrap();
    let services = file["services"].as_object().unwrap();
    let citycell = &services["citycell"];
    let words = texts(&citycell["command"]);
    assert_taken("compose.yaml", &words, &BTreeMap::new());
    assert_eq!(texts(&citycell["healthcheck"]["test"])[3], argument(&words, "--token-file"));
    for service in services.values() {
        for secret in service.get("secrets").map(texts).unwrap_or_default() {
            assert!(file["secrets"].get(&secret).is_some(), "{secret}");
        }
    }
    let made = &texts(&services["topics"]["command"])[0];
    for entry in std::fs::read_dir(root().join("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(path).unwrap();
            let topic = text.lines().find_map(|line| line.trim().strip_prefix("topic: ")).unwrap();
            assert!(made.split_whitespace().any(|word| word.trim_end_matches(';') == topic));
        }
    }
}

#[test]
fn systemd_runs_what_the_program_takes() {
    let unit = read("systemd/citycell@.service").replace("\\\n", " ");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let words: Vec<String> = start.split_whitespace().skip(1).map(str::to_owned).collect();
    let settings = read("systemd/citycell.env");
    let settings = settings.lines().filter(|line| !line.starts_with('#'));
    let mut values: BTreeMap<String, String> = settings
        .map(|line| line.split_once('=').unwrap())
        .map(|(name, value)| (format!("${{{name}}}"), value.to_owned()))
        .collect();
    values.extend([("%i", "1"), ("%d", "/run/credentials")].map(|(a, b)| (a.into(), b.into())));
    assert_taken("citycell@.service", &words, &values);
}

#[test]
fn systemd_finds_no_fault_in_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let unit = read("systemd/citycell@.service");
    let unit = unit.replace("/usr/local/bin/citycell", env!("CARGO_BIN_EXE_citycell"));
    let path = folder.path().join("citycell@1.service");
    std::fs::write(&path, unit).unwrap();
    match Command::new("systemd-analyze").arg("verify").arg(&path).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !said.contains("citycell@"), "{said}");
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("systemd-analyze is not there: the unit is not verified");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_image_is_made_of_what_is_there() {
    let mut copied = 0;
    for line in read("Dockerfile").lines() {
        let Some(paths) = line.strip_prefix("COPY ").filter(|paths| !paths.starts_with("--"))
        else {
            continue;
        };
        let from = paths.split_whitespace().next().unwrap();
        assert!(root().join(from).exists(), "{line}");
        copied += 1;
    }
    assert_eq!(copied, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tells_ready_from_not_ready_and_needs_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let token = Secret::new("open sesame");
    let [right, bare, wrong] =
        [("right", "open sesame\n"), ("bare", "open sesame"), ("wrong", "x")]
            .map(|(name, text)| file(name, text));
    let listener = http::Listener::new("127.0.0.1:0".parse().unwrap(), Some(&token)).unwrap();
    let readiness = Readiness::default();
    let served = http::serve(listener, Metrics::default(), readiness.clone());
    let address = served.await.unwrap().to_string();
    let is_ready = async |token: Option<&PathBuf>| {
        let mut probe = Command::new(root().join("deploy/is-ready"));
        probe.arg(&address).args(token);
        let output = tokio::task::spawn_blocking(move || probe.output().unwrap()).await.unwrap();
        output.status.success()
    };
    assert!(!is_ready(Some(&right)).await);
    readiness.set(true);
    assert!(is_ready(Some(&right)).await);
    assert!(is_ready(Some(&bare)).await);
    assert!(!is_ready(Some(&wrong)).await);
    assert!(!is_ready(None).await);
}
