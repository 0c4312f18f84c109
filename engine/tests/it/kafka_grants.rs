//! What a user of Kafka must be granted (`deploy/kafka-grant`), and what an engine says without it.
//!
//! The broker's user `granted` was granted just that, where names begin with `granted`; the user
//! `stranger` nothing. `make test` says how they get in.

use crate::{
    broker::{Sender, create_topic, unique},
    city::{event, text},
    program::Program,
    secure_kafka::{Listener, failure},
    store::TestStore,
};

/// A topic with 42 people in it.
async fn topic(name: &str) -> String {
    let topic = unique(name);
    create_topic(&topic, 1).await;
    let sender = Sender::new();
    sender.send(&topic, 0, Some(event("1", 0, 0, "a", 42).as_bytes()));
    sender.flush();
    topic
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_granted_is_enough() {
    let Some(granted) = Listener::find_as("CITYCELL_KAFKA_GRANTED_SETTINGS") else { return };
    let store = TestStore::start();
    let topic = topic("granted").await;
    let program = Program::new(&topic, &store.settings().url);
    // The second takes over from the first and reads its bindings.
    for _ in 0..2 {
        let output = granted.run(&program, &granted.settings);
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.to_lowercase().contains("authorization"), "{said}");
    }
    let people = store.lines("SELECT people FROM crowd_flow WHERE level = 'city'").await;
    assert_eq!(people, ["42"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_read_a_topic_is_told_which() {
    let Some(stranger) = Listener::find_as("CITYCELL_KAFKA_STRANGER_SETTINGS") else { return };
    let topic = topic("granted").await;
    let program = Program::new(&topic, "http://127.0.0.1:9");
    let said = failure(&stranger.run(&program, &stranger.settings));
    let refused = format!(
        "Kafka at {} does not let our user read the topic {topic}: it must be granted the \
         operations Describe and Read\n",
        stranger.address
    );
    assert!(said.contains(&refused), "{said}");
    assert!(!said.contains(stranger.setting("sasl.password")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_hold_the_deployment_is_told_which() {
    let Some(granted) = Listener::find_as("CITYCELL_KAFKA_GRANTED_SETTINGS") else { return };
    let store = TestStore::start();
    let topic = topic("granted").await;
    let other = unique("other");
    let program = Program::new(&other, &store.settings().url);
    std::fs::write(program.folder().join("crowd.yaml"), text("crowd_flow", &topic)).unwrap();
    let said = failure(&granted.run(&program, &granted.settings));
    let tried = format!("cannot create the topic of bindings citycell.{other}.bindings\n");
    for part in [&tried, "TopicAuthorizationFailed"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
}
