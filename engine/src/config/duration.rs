//! Durations as people write them: `10m`, `1h30m`, `500ms`. A number without a unit is an error.

/// The milliseconds of a duration such as `1h30m`: whole numbers, each with its unit (`d`, `h`, `m`,
/// `s`, `ms`), the larger first.
///
/// # Errors
/// Says what is wrong, in a sentence.
pub fn parse_duration_ms(text: &str) -> Result<i64, String> {
    let fault = || format!("`{text}` is no duration: write for example 10m, 1h30m or 500ms");
    let mut rest = text.trim();
    let mut total_ms: i64 = 0;
    let mut unit_before_ms = i64::MAX;
    if rest.is_empty() {
        return Err(fault());
    }
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).ok_or_else(fault)?;
        let count: i64 = rest[..digits].parse().map_err(|_| fault())?;
        let after = &rest[digits..];
        let unit = after.find(|character: char| character.is_ascii_digit()).unwrap_or(after.len());
        let unit_ms =
            unit_ms(&after[..unit]).filter(|ms| *ms < unit_before_ms).ok_or_else(fault)?;
        total_ms = count
            .checked_mul(unit_ms)
            .and_then(|ms| ms.checked_add(total_ms))
            .ok_or_else(|| format!("`{text}` is too long"))?;
        unit_before_ms = unit_ms;
        rest = &after[unit..];
    }
    Ok(total_ms)
}

fn unit_ms(unit: &str) -> Option<i64> {
    match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    }
}

/// The duration of so many milliseconds as people write it.
#[must_use]
pub fn format_duration(mut ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for unit in ["d", "h", "m", "s", "ms"] {
        let length_ms = unit_ms(unit).unwrap_or(1);
        if ms >= length_ms {
            text.push_str(&format!("{}{unit}", ms / length_ms));
            ms %= length_ms;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn faults_are_refused() {
        for text in ["", "10", "m", "10 m", "10min", "-1s", "1m1h", "1m1m", "99999999999999999999d"]
        {
            assert!(parse_duration_ms(text).is_err(), "{text}");
        }
        assert!(parse_duration_ms("9223372036854775807d").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ms in 0_i64..10_000_000_000) {
            prop_assert_eq!(parse_duration_ms(&format_duration(ms)), Ok(ms));
        }
    }
}
