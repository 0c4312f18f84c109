//! Running the program until it ends as if it were killed.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a place may take to be met on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);

/// A program that is killed when this is dropped: a test that fails leaves none behind.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }

    /// Waits for it to end by itself, and says whether it did well.
    pub(crate) fn ends_well(mut self) -> bool {
        self.0.wait().unwrap().success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program that ends at `point`, the given time it comes there, and has `send` give it work
/// until it does.
pub(crate) async fn run_until_it_crashes(
    (point, time): (&str, u32),
    mut command: Command,
    mut send: impl FnMut(),
) {
    command.env("CITYCELL_CRASH_AT", format!("{point}:{time}"));
    let mut running = Running::start(command);
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        send();
        tokio::time::sleep(Duration::from_millis(80)).await;
        if let Some(ended) = running.0.try_wait().unwrap() {
            assert!(!ended.success(), "{point}");
            return;
        }
    }
    panic!("{point} is never met");
}
