//! What of a payload all may read, and what must be put back to have its exact bytes.
//!
//! Shown are the values of fields that a schema lists and none calls personal, and a CloudEvent's
//! own attributes. Everything else is cut out: a personal value and its null stand-in, a key that no
//! schema lists together with its value (either may name a person), and the whole payload where it
//! is no JSON object. What is shown is JSON again, so it can be queried.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::TopicRules;

/// The CloudEvents attributes that are shown; `subject` may name a person.
const ATTRIBUTES: [&str; 8] = [
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "datacontenttype",
    "dataschema",
    "recordedtime",
];

/// What stands for a value.
const VALUE: &[u8] = b"null";
/// What stands for a key and its value.
const MEMBER: &[u8] = br#""":null"#;

/// A payload without what is personal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Redacted<'a> {
    /// What all may read.
    pub(super) shown: Vec<u8>,
    /// What was taken out, from front to back.
    pub(super) cuts: Vec<Cut<'a>>,
}

/// Bytes that were taken out.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cut<'a> {
    /// Where the stand-in begins in what is shown.
    at: usize,
    /// How long it is.
    stand_in_bytes: usize,
    /// What stood there.
    hidden: &'a [u8],
}

/// Takes out of `payload` what `rules` do not show.
pub(super) fn redact<'a>(payload: &'a [u8], rules: &TopicRules) -> Redacted<'a> {
    let mut redacting =
        Redacting { payload, rules, copied: 0, shown: Vec::new(), cuts: Vec::new() };
    let is_json = std::str::from_utf8(payload)
        .is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    let mut cursor = Cursor { json: payload, at: 0 };
    if is_json && cursor.next() == Some(b'{') {
        redacting.object(&mut cursor, Depth::Top);
    } else if !payload.is_empty() {
        redacting.cut(0, payload.len(), b"");
    }
    redacting.shown.extend_from_slice(&payload[redacting.copied..]);
    Redacted { shown: redacting.shown, cuts: redacting.cuts }
}

/// The payload of which `shown` was left; none if the cuts are not of it.
pub(super) fn restore(shown: &[u8], cuts: &[Cut<'_>]) -> Option<Vec<u8>> {
    let mut payload = Vec::new();
    let mut copied = 0;
    for cut in cuts {
        payload.extend_from_slice(shown.get(copied..cut.at)?);
        payload.extend_from_slice(cut.hidden);
        copied = cut.at.checked_add(cut.stand_in_bytes)?;
    }
    payload.extend_from_slice(shown.get(copied..)?);
    Some(payload)
}

/// Where an object stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// It is the payload: an event's fields, or a CloudEvent.
    Top,
    /// It is a CloudEvent's data.
    Data,
}

struct Redacting<'a, 'b> {
    payload: &'a [u8],
    rules: &'b TopicRules,
    /// Everything before this is shown or cut out.
    copied: usize,
    shown: Vec<u8>,
    cuts: Vec<Cut<'a>>,
}

impl<'a> Redacting<'a, '_> {
    /// Goes through the object whose bracket the cursor has passed, up to its end.
    fn object(&mut self, cursor: &mut Cursor<'a>, depth: Depth) {
        while let Some(b'"' | b',') = cursor.peek() {
            if cursor.next() == Some(b',') {
                cursor.next();
            }
            let key_start = cursor.at - 1;
            cursor.string();
            let key = &self.payload[key_start..cursor.at];
            let key: Cow<'_, str> = serde_json::from_slice(key).map_or("".into(), Key::into);
            cursor.next();
            let first = cursor.peek();
            let start = cursor.at;
            if depth == Depth::Top && key == "data" && first == Some(b'{') {
                cursor.next();
                self.object(cursor, Depth::Data);
                continue;
            }
            cursor.value();
            let is_scalar = !matches!(first, Some(b'{' | b'['));
            let is_listed = self.rules.listed.contains(&*key);
            let is_attribute = depth == Depth::Top && ATTRIBUTES.contains(&&*key);
            let is_shown = if is_listed { self.rules.shows(&key) } else { is_attribute };
            if is_shown && is_scalar {
                continue;
            }
            if is_listed || is_attribute {
                self.cut(start, cursor.at, VALUE);
            } else {
                self.cut(key_start, cursor.at, MEMBER);
            }
        }
        // Its closing bracket.
        cursor.next();
    }

    fn cut(&mut self, start: usize, end: usize, stand_in: &[u8]) {
        self.shown.extend_from_slice(&self.payload[self.copied..start]);
        let at = self.shown.len();
        self.shown.extend_from_slice(stand_in);
        let hidden = &self.payload[start..end];
        self.cuts.push(Cut { at, stand_in_bytes: stand_in.len(), hidden });
        self.copied = end;
    }
}

/// A key, with its escapes undone.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> From<Key<'a>> for Cow<'a, str> {
    fn from(key: Key<'a>) -> Self {
        key.0
    }
}

/// A place in a text that is known to be JSON: it looks for ends only.
struct Cursor<'a> {
    json: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// The next byte that is no white space, before which the cursor then stands.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.json.get(self.at) {
            self.at += 1;
        }
        self.json.get(self.at).copied()
    }

    /// The next byte that is no white space, behind which the cursor then stands.
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Passes the rest of a string whose first quote was passed.
    fn string(&mut self) {
        while let Some(byte) = self.json.get(self.at) {
            self.at += if *byte == b'\\' { 2 } else { 1 };
            if *byte == b'"' {
                return;
            }
        }
    }

    /// Passes a value, whatever it is made of.
    fn value(&mut self) {
        let mut open = 0_usize;
        loop {
            match self.next() {
                Some(b'"') => self.string(),
                Some(b'{' | b'[') => open += 1,
                Some(b'}' | b']') => open = open.saturating_sub(1),
                Some(b',' | b':') => {}
                Some(_) => self.word(),
                None => return,
            }
            if open == 0 {
                return;
            }
        }
    }

    /// Passes the rest of a number, `true`, `false` or `null`.
    fn word(&mut self) {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        while self.json.get(self.at).is_some_and(is_word) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn rules() -> TopicRules {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        TopicRules { listed: set(&["a", "p", "q"]), personal: set(&["p", "q"]) }
    }

    fn shown(payload: &str) -> String {
        let redacted = redact(payload.as_bytes(), &rules());
        assert_eq!(restore(&redacted.shown, &redacted.cuts).as_deref(), Some(payload.as_bytes()));
        String::from_utf8(redacted.shown).expect("text")
    }

    #[test]
    fn only_what_is_listed_and_not_personal_is_shown() {
        for (payload, expected) in [
            (r#"{"a":1,"p":"Li"}"#, r#"{"a":1,"p":null}"#),
            (r#" { "p" : "L\"i" , "a" : "x\\" } "#, r#" { "p" : null , "a" : "x\\" } "#),
            (r#"{"p":null,"p":{"a":[1,"}"]},"a":-1.5e3}"#, r#"{"p":null,"p":null,"a":-1.5e3}"#),
            (r#"{"\u0070":"Li","phone":138,"a":true}"#, r#"{"\u0070":null,"":null,"a":true}"#),
            (r#"{"138":{},"a":{"p":"Li"}}"#, r#"{"":null,"a":null}"#),
            (
                r#"{"id":"7","subject":"Li","data":{"a":1,"id":"Li","q":2,"data":{"a":1}}}"#,
                r#"{"id":"7","":null,"data":{"a":1,"":null,"q":null,"":null}}"#,
            ),
            (r#"{"id":["Li"],"data":"Li"}"#, r#"{"id":null,"":null}"#),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("{}", "{}"),
            (r#"{"a":1,"p":"Li""#, ""),
            (r#"["Li"]"#, ""),
            ("Li", ""),
            ("", ""),
        ] {
            assert_eq!(shown(payload), expected, "{payload}");
        }
        assert_eq!(redact(br#"{"a":1}"#, &rules()).cuts, []);
        assert_eq!(redact(b"\xff", &rules()).cuts.len(), 1);
    }

    #[test]
    fn cuts_of_another_text_restore_nothing() {
        let redacted = redact(br#"{"a":1,"p":"Li"}"#, &rules());
        assert_eq!(restore(b"{", &redacted.cuts), None);
        assert_eq!(restore(b"", &[Cut { at: 0, stand_in_bytes: usize::MAX, hidden: b"" }]), None);
    }

    /// Any JSON, with the word `Secret` wherever nobody may see it.
    fn secretive() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!("Secret")),
            Just(json!("Se\"cret Secret\\")),
            any::<i32>().prop_map(|number| json!(number)),
            Just(Value::Null),
        ];
        leaf.prop_recursive(3, 24, 5, |inner| {
            let key = prop_oneof![Just("p"), Just("q"), Just("Secret"), Just("data"), Just("b")];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..5).prop_map(|members| {
                    let members = members.into_iter().map(|(key, value)| (key.to_owned(), value));
                    Value::Object(members.collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn bytes_come_back_and_no_secret_is_shown(value in secretive(), pretty in any::<bool>()) {
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            let redacted = redact(text.as_bytes(), &rules());
            let restored = restore(&redacted.shown, &redacted.cuts);
            prop_assert_eq!(restored.as_deref(), Some(text.as_bytes()));
            let shown = String::from_utf8(redacted.shown).expect("text");
            prop_assert!(!shown.contains("cret"), "{}", shown);
            prop_assert!(shown.is_empty() || serde_json::from_str::<Value>(&shown).is_ok());
        }

        #[test]
        fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let redacted = redact(&bytes, &rules());
            prop_assert_eq!(restore(&redacted.shown, &redacted.cuts), Some(bytes));
        }
    }
}
