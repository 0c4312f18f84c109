//! Which events may still change the numbers, and when a window can no longer change.
//!
//! Everything is judged against the watermark that the epoch's binding recorded, so it comes out
//! the same on every worker and after every restart. One rule decides three things: what
//! [`Horizon::closes_at`] says of an event's time is when an event of that time is late, when a
//! copy or a withdrawal no longer changes anything, and when its window's state leaves memory.

use citycell_schemas::EventTime;

use crate::plan::{Plan, Window};
use crate::tick::Tick;

/// How long events of a pipeline may correct its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    pub(crate) window_ms: Option<i64>,
    pub(crate) allow_ms: i64,
    pub(crate) future_ms: i64,
}

/// What an event's time means for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeliness {
    /// It counts in the window of this start; 0 without windows.
    InTime(EventTime),
    /// Its window is closed: it goes to `late`.
    Late,
    /// It is further ahead of its broker timestamp than allowed: a reject.
    Future,
}

impl Horizon {
    /// The horizon that `plan` states.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let window_ms = match plan.window {
            Window::Tumbling { size_ms } => Some(size_ms),
            Window::Latest { .. } => None,
        };
        Self { window_ms, allow_ms: plan.allow_ms, future_ms: plan.future_ms }
    }

    /// What becomes of an event of this time in the epoch of `tick`.
    #[must_use]
    pub fn classify(&self, time: EventTime, broker_time_ms: i64, tick: &Tick) -> Timeliness {
        if self.is_future(time, broker_time_ms) {
            Timeliness::Future
        } else if self.is_closed(time, tick.watermark) {
            Timeliness::Late
        } else {
            Timeliness::InTime(self.window_start(time))
        }
    }

    /// Whether an event is too far ahead of its broker timestamp. Such an event must not move the
    /// watermark, so this is asked before `where` and before anything else of a decoded event.
    #[must_use]
    pub fn is_future(&self, time: EventTime, broker_time_ms: i64) -> bool {
        time > EventTime(broker_time_ms).plus_ms(self.future_ms)
    }

    /// The start of the window in which an event of this time counts; 0 without windows.
    #[must_use]
    pub fn window_start(&self, time: EventTime) -> EventTime {
        let start = |size_ms| time.0.div_euclid(size_ms).saturating_mul(size_ms);
        EventTime(self.window_ms.map_or(0, start))
    }

    /// The watermark at which nothing of this time can change the numbers any more: the end of its
    /// window (without windows, the time itself) and the allowed lateness.
    #[must_use]
    pub fn closes_at(&self, time: EventTime) -> EventTime {
        let end = match self.window_ms {
            Some(size_ms) => self.window_start(time).plus_ms(size_ms),
            None => time,
        };
        end.plus_ms(self.allow_ms)
    }

    /// Whether nothing of this time can change the numbers under this watermark.
    #[must_use]
    pub fn is_closed(&self, time: EventTime, watermark: EventTime) -> bool {
        self.closes_at(time) <= watermark
    }

    /// Whether the window of this start is closed under this watermark; without windows, never:
    /// the one "window" that starts at 0 is not a time.
    #[must_use]
    pub fn window_is_closed(&self, window_start: EventTime, watermark: EventTime) -> bool {
        self.window_ms.is_some() && self.is_closed(window_start, watermark)
    }

    /// The times between which an event lies that was in time under a watermark of at least
    /// `watermark` and was sent at `sent_ms` at the latest: the start of the first window, or none
    /// if nothing was known of time, and the end of the last one.
    #[must_use]
    pub fn times_in_time(
        &self,
        watermark: EventTime,
        sent_ms: i64,
    ) -> (Option<EventTime>, EventTime) {
        let start = |time| if self.window_ms.is_some() { self.window_start(time) } else { time };
        let first = (watermark != EventTime::MIN).then(|| start(watermark.plus_ms(-self.allow_ms)));
        let last = start(EventTime(sent_ms).plus_ms(self.future_ms));
        (first, last.plus_ms(self.window_ms.unwrap_or(0)))
    }

    /// The watermark up to which a withdrawal is remembered.
    ///
    /// What it takes back happened before it was withdrawn, but the event's clock may be ahead by
    /// as much as a future event's may: until then the event may still come and be in time.
    #[must_use]
    pub fn withdrawal_closes_at(&self, broker_time_ms: i64) -> EventTime {
        let newest = EventTime(broker_time_ms).plus_ms(self.future_ms);
        newest.plus_ms(self.window_ms.unwrap_or(0)).plus_ms(self.allow_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use citycell_schemas::Epoch;

    fn minutes() -> Horizon {
        Horizon { window_ms: Some(60_000), allow_ms: 5_000, future_ms: 1_000 }
    }

    fn latest() -> Horizon {
        Horizon { window_ms: None, ..minutes() }
    }

    fn tick(watermark: i64) -> Tick {
        Tick {
            epoch: Epoch(1),
            bound_time_ms: 0,
            previous_bound_time_ms: 0,
            watermark: EventTime(watermark),
            snapshot: false,
        }
    }

    #[test]
    fn an_event_is_late_when_the_watermark_reached_its_windows_end_and_the_allowance() {
        let classify = |watermark| minutes().classify(EventTime(59_999), 60_000, &tick(watermark));
        assert_eq!(classify(64_999), Timeliness::InTime(EventTime(0)));
        assert_eq!(classify(65_000), Timeliness::Late);
    }

    #[test]
    fn without_windows_lateness_counts_from_the_event_itself() {
        let classify = |watermark| latest().classify(EventTime(59_999), 60_000, &tick(watermark));
        assert_eq!(classify(64_998), Timeliness::InTime(EventTime(0)));
        assert_eq!(classify(64_999), Timeliness::Late);
    }

    #[test]
    fn what_was_in_time_lies_between_the_windows_that_were_open_and_the_future() {
        let times = |horizon: Horizon, watermark| horizon.times_in_time(watermark, 300_000);
        let watermark = EventTime(124_000);
        // 1. The window before the watermark's is still open: its lateness is not over.
        assert_eq!(times(minutes(), watermark), (Some(EventTime(60_000)), EventTime(360_000)));
        assert!(!minutes().is_closed(EventTime(60_000), watermark));
        assert!(minutes().is_closed(EventTime(59_999), watermark));
        assert_eq!(times(latest(), watermark), (Some(EventTime(119_000)), EventTime(301_000)));
        // 2. Nothing was known of time.
        assert_eq!(times(minutes(), EventTime::MIN), (None, EventTime(360_000)));
    }

    #[test]
    fn an_event_ahead_of_its_broker_time_is_future_even_if_its_window_is_closed() {
        let classify = |time| minutes().classify(EventTime(time), 10_000, &tick(i64::MAX));
        assert_eq!(classify(11_000), Timeliness::Late);
        assert_eq!(classify(11_001), Timeliness::Future);
    }

    #[test]
    fn windows_before_1970_start_at_multiples_of_their_size_too() {
        assert_eq!(minutes().window_start(EventTime(-1)), EventTime(-60_000));
        assert_eq!(minutes().window_start(EventTime(-60_000)), EventTime(-60_000));
    }

    #[test]
    fn times_at_the_ends_of_the_calendar_do_not_overflow() {
        for time in [EventTime::MIN, EventTime(i64::MAX)] {
            for horizon in [minutes(), latest()] {
                assert!(!horizon.is_future(time, i64::MAX));
                assert_eq!(horizon.is_future(time, i64::MIN), time != EventTime::MIN);
                assert_eq!(horizon.is_closed(time, EventTime(0)), time == EventTime::MIN);
            }
        }
    }

    #[test]
    fn a_withdrawal_outlives_every_event_that_is_in_time_and_not_newer_than_it() {
        let horizon = minutes();
        for time in (0..200_000).step_by(777) {
            let waiting = horizon.withdrawal_closes_at(time - 1_000);
            assert!(horizon.closes_at(EventTime(time)) <= waiting, "event of {time}");
        }
    }
}
