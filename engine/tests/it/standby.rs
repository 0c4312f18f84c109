//! A second engine stands by: it takes over when the first is killed, frozen or stopped, and no number
//! is wrong.

use std::time::{Duration, Instant};

use crate::{
    broker::{self, create_topic, unique},
    crowd::{Crowd, PARTITIONS},
    oracle::assert_right,
    program::Program,
    restart::{bindings, nothing_is_said_twice_differently},
    secrets::{Running, eventually},
    store::TestStore,
};

const TAKES_OVER: &str = "no engine runs this deployment: taking it over";

struct Deployment {
    topic: String,
    store: TestStore,
    program: Program,
    crowd: Crowd,
}

impl Deployment {
    async fn new() -> Self {
        let topic = unique("standby");
        create_topic(&topic, PARTITIONS as i32).await;
        let store = TestStore::start();
        let program = Program::new(&topic, &store.settings().url);
        let crowd = Crowd::new(&topic, 91, 30 * 60_000);
        Self { topic, store, program, crowd }
    }

    fn start(&self, name: &str, more: &[&str]) -> Running {
        let mut command = self.program.command(&broker::settings().brokers);
        command.args(["--listen", "127.0.0.1:0", "--snapshot-every", "500ms"]).args(more);
        Running::start(&mut command, self.program.folder().join(format!("{name}.log")))
    }

    async fn feed(&mut self, batches: usize) {
        for _ in 0..batches {
            self.crowd.send(60);
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
    }

    async fn marked(&self) -> Vec<String> {
        self.store.lines("SELECT max(epoch) FROM epochs").await
    }

    /// Does something to the engine at work; how long it is until `next` has marked an epoch.
    async fn until_marked_by(&mut self, next: &Running, happens: impl FnOnce()) -> Duration {
        happens();
        let since = Instant::now();
        while !says(next, TAKES_OVER) {
            assert!(since.elapsed() < Duration::from_secs(120), "nobody took over");
            self.feed(1).await;
        }
        // Whoever left marks nothing more.
        let before = self.marked().await;
        while self.marked().await == before {
            assert!(since.elapsed() < Duration::from_secs(120), "nothing is marked");
            self.feed(1).await;
        }
        since.elapsed()
    }
}

fn says(running: &Running, words: &str) -> bool {
    String::from_utf8_lossy(&running.said()).contains(words)
}

fn signal(running: &Running, name: &str) {
    let process = running.child.id().to_string();
    let sent = std::process::Command::new("kill").args([name, &process]).status();
    assert!(sent.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stands_by_takes_over_and_no_number_is_wrong() {
    let mut deployment = Deployment::new().await;
    let mut first = deployment.start("first", &[]);
    deployment.feed(20).await;
    deployment.store.until("SELECT count() > 5 FROM epochs", "1").await;
    let mut second = deployment.start("second", &["--standby"]);
    eventually("a standby", || says(&second, "standing by"));
    // 1. While the first is at work, the second stays where it is.
    deployment.feed(40).await;
    assert!(first.child.try_wait().unwrap().is_none() && !says(&second, TAKES_OVER));
    // 2. The first is killed.
    let killed = deployment.until_marked_by(&second, || signal(&first, "-KILL")).await;
    first.child.wait().unwrap();
    assert!(says(&second, "going on from a snapshot"));
    // 3. The second is frozen: the third takes over, and the second ends when it is thawed.
    let mut third = deployment.start("third", &["--standby"]);
    eventually("a standby", || says(&third, "standing by"));
    let frozen = deployment.until_marked_by(&third, || signal(&second, "-STOP")).await;
    signal(&second, "-CONT");
    deployment.feed(4).await;
    assert!(!second.child.wait().unwrap().success());
    assert!(says(&second, "another engine runs this deployment now"));
    // 4. The third is stopped in good order, and says that it leaves.
    let fourth = deployment.start("fourth", &["--standby"]);
    eventually("a standby", || says(&fourth, "standing by"));
    let stopped = deployment.until_marked_by(&fourth, || signal(&third, "-TERM")).await;
    assert!(third.child.wait().unwrap().success());
    println!("until the next mark: killed {killed:?}, frozen {frozen:?}, stopped {stopped:?}");

    deployment.crowd.send(300);
    let mut last = deployment.start("last", &["--until-end"]);
    assert!(last.child.wait().unwrap().success());
    let bindings = bindings(&deployment.topic).await;
    assert_right(&deployment.store, &deployment.crowd, &bindings).await;
    nothing_is_said_twice_differently(&deployment.store).await;
}
