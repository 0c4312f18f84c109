//! Running the program until it ends as if it were killed.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

/// Starts a program that ends at `point`, the fourth time it comes there, and has `send` give it work
/// until it does.
pub(crate) async fn run_until_it_crashes(
    point: &str,
    mut command: Command,
    mut send: impl FnMut(),
) {
    command.env("CITYCELL_CRASH_AT", format!("{point}:4")).stderr(Stdio::null());
    let mut running = command.spawn().unwrap();
    for batch in 0.. {
        assert!(batch < 400, "{point} is never met");
        send();
        tokio::time::sleep(Duration::from_millis(80)).await;
        if let Some(ended) = running.try_wait().unwrap() {
            assert!(!ended.success(), "{point}");
            return;
        }
    }
}
