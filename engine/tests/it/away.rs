//! A pipeline that does not run for a while reads on where it was, once.

use std::sync::Arc;

use citycell::{audit::Audit, clickhouse::ClickHouse, engine, pipeline::Pipeline};

use crate::{
    broker::{self, Sender, create_topic, unique},
    city::{config, event, named},
    restart::wait,
    store::TestStore,
};

/// Events of one second each, so that all rounds lie in one minute.
const ROUND: i64 = 15;

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_was_away_reads_on_where_it_was() {
    let store = TestStore::start();
    let (stays, leaves) = (unique("stays"), unique("leaves"));
    create_topic(&stays, 1).await;
    create_topic(&leaves, 1).await;
    let sender = Sender::new();
    let both = || vec![named("stays", &stays), named("leaves", &leaves)];
    let alone = || vec![named("stays", &stays)];
    for (round, pipelines) in (0..).zip([both(), alone(), both(), both()]) {
        say_something(&sender, &[&stays, &leaves], round);
        run(&store, &stays, pipelines).await;
    }
    let books = "SELECT pipeline, sum(records), sum(counted), max(arrayMax(range -> range.4, ranges)) \
                 FROM epochs WHERE records > 0 GROUP BY pipeline ORDER BY pipeline";
    assert_eq!(store.lines(books).await, ["leaves\t60\t60\t60", "stays\t60\t60\t60"]);
    for view in ["stays", "leaves"] {
        let people = format!("SELECT sum(people) FROM {view} WHERE level = 'city'");
        assert_eq!(store.lines(&people).await, ["60"], "{view}");
    }
    let audit = Audit::begin(ClickHouse::new(&store.settings())).await.unwrap();
    audit.check(|outcome| assert_eq!(outcome.first, None, "{outcome:?}")).await.unwrap();
    let bindings = audit.check_bindings(&broker::settings(), &stays).await.unwrap();
    assert_eq!(bindings.first, None, "{bindings:?}");
}

fn say_something(sender: &Sender, topics: &[&String], round: i64) {
    for second in round * ROUND..(round + 1) * ROUND {
        for topic in topics {
            let payload = event(&second.to_string(), second, 0, &format!("s{second}"), 1);
            sender.send(topic, 0, Some(payload.as_bytes()));
        }
    }
    sender.flush();
}

async fn run(store: &TestStore, deployment: &str, pipelines: Vec<Arc<Pipeline>>) {
    let engine = engine::start(config(deployment, store.settings(), pipelines)).await.unwrap();
    engine.drain();
    wait(engine).await;
}
