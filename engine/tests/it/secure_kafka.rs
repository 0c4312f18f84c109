//! Kafka over TLS, with a user by SASL (SCRAM-SHA-512): the broker's secure listener.
//!
//! `make test` names it in `CITYCELL_KAFKA_SECURE`, and how to get in there in
//! `CITYCELL_KAFKA_SECURE_SETTINGS`; beside somebody else's broker these tests check nothing.

use std::{path::PathBuf, process::Output};

use crate::{
    broker::{Sender, create_topic, unique},
    city::event,
    program::Program,
    store::TestStore,
};

/// The listener's address, and the lines that a client needs.
pub(crate) struct Listener {
    pub(crate) address: String,
    pub(crate) settings: String,
}

impl Listener {
    pub(crate) fn find() -> Option<Self> {
        Self::find_as("CITYCELL_KAFKA_SECURE_SETTINGS")
    }

    /// As the user whose settings are in the file that this variable names.
    pub(crate) fn find_as(user: &str) -> Option<Self> {
        let variable = |name| std::env::var(name).ok();
        let (address, settings) = (variable("CITYCELL_KAFKA_SECURE"), variable(user));
        let Some((address, settings)) = address.zip(settings) else {
            eprintln!("CITYCELL_KAFKA_SECURE or {user} is not set: nothing is checked");
            return None;
        };
        Some(Self { address, settings: std::fs::read_to_string(settings).unwrap() })
    }

    pub(crate) fn setting(&self, key: &str) -> &str {
        let lines = self.settings.lines().filter_map(|line| line.split_once('='));
        let mut found = lines.filter(|(name, _)| *name == key).map(|(_, value)| value);
        found.next().unwrap_or_else(|| panic!("no {key} among the settings"))
    }

    /// `citycell run` to the end of the topics, with these settings.
    pub(crate) fn run(&self, program: &Program, settings: &str) -> Output {
        let file: PathBuf = program.folder().join("kafka.settings");
        std::fs::write(&file, settings).unwrap();
        let mut command = program.command(&self.address);
        command.args(["--listen", "127.0.0.1:0", "--until-end", "--kafka-settings"]).arg(file);
        command.output().unwrap()
    }
}

/// What the program wrote to standard error before it failed.
pub(crate) fn failure(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_right_over_tls_and_sasl() {
    let Some(listener) = Listener::find() else { return };
    let store = TestStore::start();
    let topic = unique("secure");
    create_topic(&topic, 2).await;
    let sender = Sender::new();
    sender.send(&topic, 0, Some(event("1", 0, 0, "a", 10).as_bytes()));
    sender.send(&topic, 1, Some(event("2", 1, 1, "b", 32).as_bytes()));
    sender.flush();
    let program = Program::new(&topic, &store.settings().url);
    let output = listener.run(&program, &listener.settings);
    assert!(output.status.success(), "{output:?}");
    let people = store.lines("SELECT people FROM crowd_flow WHERE level = 'city'").await;
    assert_eq!(people, ["42"]);
}

#[test]
fn a_wrong_password_fails_naming_the_broker_and_no_password() {
    let Some(listener) = Listener::find() else { return };
    let program = Program::new("nothing", "http://127.0.0.1:9");
    let right = listener.setting("sasl.password");
    let settings = listener.settings.replace(right, "not-this-one");
    let said = failure(&listener.run(&program, &settings));
    let reason = format!("because: sasl_ssl://{}/bootstrap: SASL auth", listener.address);
    for part in [&format!("cannot use Kafka at {}\n", listener.address), &reason] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    assert!(!said.contains("not-this-one") && !said.contains(right), "{said}");
}

#[test]
fn a_certificate_that_nobody_vouches_for_fails_naming_the_broker() {
    let Some(listener) = Listener::find() else { return };
    let program = Program::new("nothing", "http://127.0.0.1:9");
    let lines = listener.settings.lines().filter(|line| !line.starts_with("ssl.ca.location"));
    let said = failure(&listener.run(&program, &lines.collect::<Vec<_>>().join("\n")));
    let reason =
        format!("because: sasl_ssl://{}/bootstrap: SSL handshake failed", listener.address);
    for part in [&reason, "certificate verify failed"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    assert!(!said.contains(listener.setting("sasl.password")), "{said}");
}
