//! The time that one thread computed, so that other work on the machine does not count.

use std::time::Instant;

/// A stopwatch over the calling thread's CPU time; where the kernel does not tell it, over time.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    cpu_s: Option<f64>,
    started: Instant,
}

impl Stopwatch {
    /// Started now.
    #[must_use]
    pub fn start() -> Self {
        Self { cpu_s: cpu_s(), started: Instant::now() }
    }

    /// The seconds since, on the thread that started it.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        match (self.cpu_s, cpu_s()) {
            (Some(before), Some(now)) => now - before,
            _ => self.started.elapsed().as_secs_f64(),
        }
    }
}

/// What `f` took and gave.
pub fn timed<T>(f: impl FnOnce() -> T) -> (f64, T) {
    let watch = Stopwatch::start();
    let result = f();
    (watch.seconds(), result)
}

/// The middle of `values`; of an even number the larger of both.
///
/// # Panics
/// Without values, or if one is no number.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(|one, other| one.partial_cmp(other).expect("times are numbers"));
    values[values.len() / 2]
}

fn cpu_s() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = text.split(' ').next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(super::median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
