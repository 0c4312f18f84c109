//! What a user of Kafka must be granted (`deploy/kafka-grant`), and what an engine says without it.
//!
//! The broker's user `granted` was granted just that, where names begin with `granted`; the user
//! `stranger` nothing. `make test` says how they get in.

use crate::{
    broker::{Sender, create_topic, unique},
    city::event,
    program::Program,
    secure_kafka::{Listener, failure},
    store::TestStore,
};

/// The listener as one of the users.
fn listener(variable: &str) -> Option<Listener> {
    Listener::find_as(variable)
}

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
    let Some(granted) = listener("CITYCELL_KAFKA_GRANTED_SETTINGS") else { return };
    let store = TestStore::start();
    let topic = topic("granted").await;
    let program = Program::new(&topic, &store.settings().url);
    // The second takes over from the first and reads its bindings.
    for _ in 0..2 {
        let output = granted.run(&program, &granted.settings);
        assert!(output.status.success(), "{output:?}");
    }
    let people = store.lines("SELECT people FROM crowd_flow WHERE level = 'city'").await;
    assert_eq!(people, ["42"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_grants_is_told_what_it_lacks() {
    let Some(stranger) = listener("CITYCELL_KAFKA_STRANGER_SETTINGS") else { return };
    let store = TestStore::start();
    let topic = topic("granted").await;
    let program = Program::new(&topic, &store.settings().url);
    let said = failure(&stranger.run(&program, &stranger.settings));
    let bindings = format!("citycell.{topic}.bindings");
    assert!(said.contains(&bindings), "{said}");
}
