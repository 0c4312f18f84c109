//! What is checked of a payload before it is parsed.

use crate::events::Reason;

use super::fault::Fault;

/// The payload as text, if its size and depth are within the limits.
pub(crate) fn check(payload: &[u8], depth_max: usize) -> Result<&str, Fault> {
    if payload.is_empty() {
        return Err(Fault::of_record(Reason::Empty, "the payload is empty"));
    }
    let text = std::str::from_utf8(payload).map_err(|error| {
        Fault::of_record(Reason::NotUtf8, format!("not UTF-8 from byte {}", error.valid_up_to()))
    })?;
    // Most payloads have fewer brackets than the limit, wherever they stand.
    if brackets(payload) > depth_max && depth(payload) > depth_max {
        return Err(Fault::of_record(
            Reason::TooDeep,
            format!("nested more than {depth_max} deep"),
        ));
    }
    Ok(text)
}

/// How many brackets open, wherever they stand; they differ in one bit. Counted in bytes, which the
/// compiler turns into a few wide additions.
fn brackets(payload: &[u8]) -> usize {
    let in_chunk =
        |chunk: &[u8]| chunk.iter().fold(0u8, |count, byte| count + u8::from(byte | 0x20 == b'{'));
    payload.chunks(usize::from(u8::MAX)).map(|chunk| usize::from(in_chunk(chunk))).sum()
}

/// How deep brackets outside of strings are nested.
fn depth(payload: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in payload {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_count_only_outside_of_strings() {
        assert_eq!(depth(br#"{"a": "[[[{{{\"[", "b": [[]]}"#), 3);
        assert!(check(br#"{"a": "[[[[[["}"#, 1).is_ok());
        assert_eq!(brackets(&[b'['; 700]), 700);
        let fault = check(br#"{"a": [1]}"#, 1).expect_err("two deep");
        assert_eq!(fault.reason, Reason::TooDeep);
    }
}
