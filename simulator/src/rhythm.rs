//! How busy the city is over a day.

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Changsha is eight hours ahead of UTC, all year.
const ZONE_MS: i64 = 8 * HOUR_MS;

/// How busy the city is, from about 0.05 at night to 1 in the evening's rush.
///
/// Smooth but for working days, which have a second peak in the morning; at weekends the city wakes
/// late and stays out.
pub(crate) fn activity(time_ms: i64) -> f64 {
    let local_ms = time_ms + ZONE_MS;
    let hour = local_ms.rem_euclid(DAY_MS) as f64 / HOUR_MS as f64;
    let day = peak(hour, 14.0, 4.5) * 0.55;
    let rush = if is_weekend(local_ms) {
        peak(hour, 20.0, 2.5) * 0.6
    } else {
        peak(hour, 8.0, 1.0) * 0.7 + peak(hour, 18.0, 1.2) * 0.6
    };
    (0.05 + day + rush).min(1.0)
}

fn is_weekend(local_ms: i64) -> bool {
    // 1970-01-01 was a Thursday.
    matches!((local_ms.div_euclid(DAY_MS) + 3).rem_euclid(7), 5 | 6)
}

/// A bell around `hour_of_peak`, on the clock's circle.
fn peak(hour: f64, hour_of_peak: f64, width_hours: f64) -> f64 {
    let apart = (hour - hour_of_peak).abs();
    let apart = apart.min(24.0 - apart) / width_hours;
    (-0.5 * apart * apart).exp()
}

#[cfg(test)]
mod tests {
    use super::{DAY_MS, HOUR_MS, activity};

    /// Monday 2026-03-02, midnight in Changsha.
    const MONDAY_MS: i64 = 1_772_380_800_000;

    #[test]
    fn rush_hours_are_busier_than_noon_and_noon_than_night() {
        let at = |hour: i64| activity(MONDAY_MS + hour * HOUR_MS);
        assert!(at(8) > at(11) && at(18) > at(12));
        assert!(at(12) > 4.0 * at(3));
    }

    #[test]
    fn weekends_have_no_morning_rush() {
        let at_eight = |day: i64| activity(MONDAY_MS + day * DAY_MS + 8 * HOUR_MS);
        assert!(at_eight(5) < 0.6 * at_eight(4) && at_eight(6) < 0.6 * at_eight(4));
    }
}
