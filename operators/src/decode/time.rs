//! Moments after RFC 3339, zone included.
//!
//! Strict: `2026-03-01T08:00:00.250+08:00`, with `T` and `Z` in either case. Digits beyond
//! milliseconds are cut off; a leap second (`:60`) reads as the second before it. Written by hand
//! because a time in every event makes it the decoder's most expensive text.

/// The first and last moment that four-digit years can write, ms since 1970.
pub(crate) const MOMENTS_MS: std::ops::RangeInclusive<i64> =
    -62_167_219_200_000..=253_402_300_799_999;

/// The moment that `text` writes, in ms since 1970; none if it is not RFC 3339 with a zone.
#[must_use]
pub fn parse_rfc3339_ms(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (date_time, rest) = bytes.split_at_checked(19)?;
    let punctuated = date_time[4] == b'-'
        && date_time[7] == b'-'
        && date_time[10].eq_ignore_ascii_case(&b'T')
        && date_time[13] == b':'
        && date_time[16] == b':';
    if !punctuated {
        return None;
    }
    let year = two_digits(date_time, 0)? * 100 + two_digits(date_time, 2)?;
    let (month, day) = (two_digits(date_time, 5)?, two_digits(date_time, 8)?);
    let (hour, minute) = (two_digits(date_time, 11)?, two_digits(date_time, 14)?);
    let second = two_digits(date_time, 17)?;
    let in_range = (1..=12).contains(&month)
        && (1..=days_of_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range {
        return None;
    }
    let (fraction_ms, zone) = fraction_ms(rest)?;
    let seconds =
        days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second.min(59)
            - zone_seconds(zone)?;
    Some(seconds * 1_000 + fraction_ms)
}

fn two_digits(bytes: &[u8], at: usize) -> Option<i64> {
    let (tens, ones) = (bytes[at].wrapping_sub(b'0'), bytes[at + 1].wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens * 10 + ones))
}

/// The milliseconds of an optional `.digits`, and what follows it.
fn fraction_ms(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = rest.strip_prefix(b".") else { return Some((0, rest)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let digit = |at: usize| if at < count { i64::from(digits[at] - b'0') } else { 0 };
    Some((digit(0) * 100 + digit(1) * 10 + digit(2), &digits[count..]))
}

/// What a zone is ahead of UTC, in seconds.
fn zone_seconds(zone: &[u8]) -> Option<i64> {
    match zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (two_digits(zone, 1)?, two_digits(zone, 4)?);
            let seconds = hours * 3_600 + minutes * 60;
            let signed = if *sign == b'+' { seconds } else { -seconds };
            (hours < 24 && minutes < 60).then_some(signed)
        }
        _ => None,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar; the year is counted from March, so that the leap
/// day is its last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_moments_with_a_zone_are_read() {
        let good = [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01t00:00:00.0019z", 1),
            ("1969-12-31T23:59:59.999-00:00", -1),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
            ("2024-02-29T08:00:00.25+08:00", 1_709_164_800_250),
            ("0000-01-01T00:00:00Z", *MOMENTS_MS.start()),
            ("9999-12-31T23:59:59.999Z", *MOMENTS_MS.end()),
        ];
        for (text, ms) in good {
            assert_eq!(parse_rfc3339_ms(text), Some(ms), "{text}");
        }
        let bad = [
            "",
            "2024-02-29T08:00:00",
            "2024-02-29 08:00:00Z",
            "2023-02-29T08:00:00Z",
            "2024-13-01T08:00:00Z",
            "2024-02-29T24:00:00Z",
            "2024-02-29T08:00:00.Z",
            "2024-02-29T08:00:00+0800",
            "2024-02-29T08:00:00+24:00",
            "2024-02-29T08:00:00Z ",
            "2024-02-2９T08:00:00Z",
            "+024-02-29T08:00:00Z",
        ];
        for text in bad {
            assert_eq!(parse_rfc3339_ms(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_jiff(ms in MOMENTS_MS, hours in -12i8..=14) {
            let offset = jiff::tz::Offset::from_hours(hours).expect("a real offset");
            let moment = jiff::Timestamp::from_millisecond(ms).expect("in range");
            let text = moment.display_with_offset(offset).to_string();
            prop_assume!(text.as_bytes()[0].is_ascii_digit() && text.as_bytes()[4] == b'-');
            prop_assert_eq!(parse_rfc3339_ms(&text), Some(ms));
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = parse_rfc3339_ms(&text);
        }
    }
}
