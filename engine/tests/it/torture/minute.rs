//! Epochs a minute apart, with an engine that is killed around each of them.
//!
//! The engines' clock is put a few seconds before a full minute, later with every engine, so nobody
//! waits for it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    broker::{create_topic, settings, unique},
    crowd::{Crowd, PARTITIONS},
    store::TestStore,
};

use super::{
    Feeding,
    engines::{Engine, Life, Program},
    judge,
    reader::{Reader, Seen},
    run_to_the_end,
};

const MINUTE_MS: i64 = 60_000;
/// Time for an engine to start before its minute is full.
const AHEAD_MS: i64 = 6_000;

/// Where every other engine ends in its first new epoch; the one after it ends when readers see
/// something new.
const ENDS: [&str; 5] =
    ["after_binding:1", "before_rows:1", "after_rows:1", "after_mark:1", "before_manifest:1"];

#[tokio::test(flavor = "multi_thread")]
async fn no_epoch_of_a_minute_is_seen_half() {
    let store = TestStore::start();
    let topic = unique("minute");
    create_topic(&topic, PARTITIONS as i32).await;
    let program = Program::new("minute.log", &topic, settings().brokers, store.settings().url);
    if !program.step_clock(0) {
        println!("minute: nothing here moves an engine's clock, and an hour is too long");
        return;
    }
    let reader = Reader::start(&store.settings());
    let feeding = Feeding::start(Crowd::new(&topic, 77, 30 * 60_000));
    let seen = Arc::clone(&reader.seen);
    let program = tokio::task::spawn_blocking(move || live_and_die(program, &seen)).await.unwrap();
    let crowd = tokio::task::spawn_blocking(move || feeding.stop()).await.unwrap();
    run_to_the_end(program).await;
    let seen = reader.stop().await;
    let verdict = judge::judge(&store, &crowd, (&settings().brokers, &topic)).await;
    let looked = [&seen.looks, &seen.half_epochs, &seen.steps_back]
        .map(|count| count.load(Ordering::Relaxed));
    assert!(looked[0] > 100 && verdict.rows > 100, "too little was looked at");
    assert_eq!((looked[1], looked[2]), (0, 0), "half epochs, steps back");
    let wrong = (verdict.mismatches, verdict.lost, verdict.duplicated);
    assert_eq!(wrong, (0, 0, 0), "{:?}", verdict.lines);
}

fn live_and_die(program: Program, seen: &Seen) -> Program {
    let mut random = StdRng::seed_from_u64(7);
    for (minute, crash_at) in (1..).zip(ENDS.into_iter().flat_map(|end| [Some(end), None])) {
        let now_ms = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
        program.step_clock(minute * MINUTE_MS - AHEAD_MS - now_ms % MINUTE_MS);
        let before = seen.moment.load(Ordering::Relaxed);
        let life = Life { workers: random.random_range(1..4), tick: "1m", crash_at };
        let mut engine = program.start(&life);
        // One that is too slow meets the next minute.
        let deadline = Instant::now() + Duration::from_secs(180);
        let is_over = |engine: &mut Engine| match crash_at {
            Some(_) => engine.has_ended(),
            None => seen.moment.load(Ordering::Relaxed) > before,
        };
        while !is_over(&mut engine) {
            assert!(Instant::now() < deadline, "{}", program.log().display());
            std::thread::sleep(Duration::from_millis(20));
        }
        engine.kill();
    }
    program.step_clock(0);
    program
}
