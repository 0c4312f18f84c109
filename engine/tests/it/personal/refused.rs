//! What is refused before any record is read: no key, a wrong one, a person's name in a table.

use std::process::Command;

use citycell::clickhouse::{ClickHouse, ClickHouseSettings};

use crate::store::TestStore;

use super::visits::{SCHEMA, Visits, pipeline_text};

fn says(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_master_key_nothing_starts() {
    let store = TestStore::start();
    let visits = Visits::new("personal-refused").await;
    let file = visits.folder().join("master.key");
    for (key, expected) in [
        ("0f\n", "64 hexadecimal digits"),
        ("\n", "holds no secret"),
        (&"0g".repeat(32), "openssl rand -hex 32"),
    ] {
        std::fs::write(&file, key).unwrap();
        let said = says(&mut visits.command(&store, &[]));
        assert!(said.contains(expected), "{said}");
        assert!(key.len() < 5 || !said.contains(key), "{said}");
    }
    let mut keyless = Command::new(env!("CARGO_BIN_EXE_citycell"));
    let command = visits.command(&store, &[]);
    let words = command.get_args().map(|word| word.to_str().unwrap());
    let words: Vec<&str> =
        words.filter(|word| !["--master-key-file", "master.key"].contains(word)).collect();
    let said = says(keyless.current_dir(visits.folder()).args(words));
    for part in ["schema visit", "personal field guide", "CITYCELL_MASTER_KEY"] {
        assert!(said.contains(part), "{said}");
    }
    // Nothing was written before that.
    let default = ClickHouseSettings { database: "default".into(), ..store.settings() };
    let databases = ClickHouse::new(&default).query("look", "SHOW DATABASES", "TabSeparated").await;
    let databases = String::from_utf8(databases.unwrap().to_vec()).unwrap();
    assert!(databases.lines().all(|database| database != "city"), "{databases}");
}

#[test]
fn what_says_who_a_person_is_cannot_be_published() {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
    std::fs::create_dir(folder.path().join("schemas")).unwrap();
    write("schemas/visit.yaml", SCHEMA);
    let good = pipeline_text("visits");
    let check = |text: &str| {
        write("visits.yaml", text);
        let mut command = Command::new(env!("CARGO_BIN_EXE_citycell"));
        let command = command.current_dir(&folder).args(["check", "visits.yaml"]);
        command.args(["--schemas", "schemas"]).output().unwrap()
    };
    assert!(check(&good).status.success());
    for (old, new, at) in [
        ("group_by: [category]", "group_by: [guide]", "`guide` is personal"),
        ("by: [sensorId]", "by: [guide]", "`guide` is personal"),
        (
            "window: {tumbling: 1m}\nper: {by: [sensorId], take: last}",
            "latest: {by: [guide], expire: 1h, forget: 1d}",
            "`guide` is personal",
        ),
        ("sum(peopleCount)", "sum(peopleCount) / mean(age)", "`age` is personal"),
        ("sum(peopleCount)", "max(digits)", "`digits` is personal"),
        ("group_by: [category]", "group_by: [digits]", "`digits` is personal"),
        (
            "location: {lon: lon, lat: lat, crs: wgs84}",
            "location: {cell: guide}",
            "`guide` is personal",
        ),
        (
            "late: {allow: 10m}",
            "late: {allow: 10m}\n  identity: {fields: [guide]}",
            "`guide` is personal",
        ),
    ] {
        assert!(good.contains(old), "{old}");
        let output = check(&good.replace(old, new));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{new}: {said}");
        assert!(said.contains(at) && said.contains("personal: pseudonym"), "{new}: {said}");
        assert!(
            check(
                &good.replace(
                    old,
                    &new.replace("guide", "wristband")
                        .replace("age", "peopleCount")
                        .replace("digits", "peopleCount")
                )
            )
            .status
            .success(),
            "{new}"
        );
    }
    let personal_time = SCHEMA.replace(
        "required: true, meaning: When.",
        "required: true, personal: pseudonym, meaning: When.",
    );
    write("schemas/visit.yaml", &personal_time);
    let output = check(&good);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("event times are kept"), "{said}");
}
