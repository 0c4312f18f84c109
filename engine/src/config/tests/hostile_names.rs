//! Names become SQL identifiers and topics: whatever is more than a name is refused where it stands.

use proptest::prelude::*;

use super::*;

/// A pipeline whose every name is the same text, and where each of them stands.
fn named(name: &str) -> (String, [(u64, u64); 4]) {
    let name = serde_json::to_string(name).expect("a JSON text, which YAML reads too");
    let text = format!(
        "\
pipeline: {name}
source:
  topic: {name}
  schema: crowd_flow
  event_time: dateObserved
  location: {{cell: gridCode}}
  late: {{allow: 10m}}
derive:
  {name}: peopleCount * 2
window: {{tumbling: 1m}}
aggregate:
  {name}: sum(peopleCount)
"
    );
    // Of a derived column and a number the expression's place is named, not the key's.
    let after = u64::try_from(name.chars().count()).expect("a small number") + 5;
    (text, [(1, 11), (3, 10), (9, after), (12, after)])
}

#[test]
fn hostile_names_are_refused_with_file_line_and_column() {
    for name in [
        "a`; DROP TABLE epochs; --",
        "a' OR 1 = 1",
        "a\"b",
        "a\\",
        "a/**/b",
        "a b",
        "a;b",
        "{x:Identifier}",
        "../a",
        "a\nb",
        "a\0b",
        "\u{ff41}",
        "a\u{2019}",
        "",
    ] {
        let (text, places) = named(name);
        let errors = parse_pipeline("p.yaml", &text, &shipped()).expect_err(name).0;
        for (line, column) in places {
            let here = |error: &&ConfigError| (error.line, error.column) == (line, column);
            let found = errors.iter().find(here);
            let found = found.unwrap_or_else(|| panic!("{name:?} at {line}:{column}: {errors:?}"));
            assert!(found.to_string().contains(&format!("--> p.yaml:{line}:{column}")), "{found}");
        }
    }
}

#[test]
fn a_field_with_a_hostile_name_is_in_no_schema() {
    let text =
        "name: s\nversion: 1\ndescription: d\nfields:\n  - {name: \"a`b\", type: text, meaning: m}";
    let error = EventSchema::from_yaml("s.yaml", text).expect_err("refused").to_string();
    assert!(error.starts_with("s.yaml:5:12: "), "{error}");
}

#[test]
fn no_pipeline_takes_the_name_of_anothers_table() {
    let found = faults(&GOOD.replace("pipeline: p", "pipeline: p_history_0f"));
    assert!(found[0].starts_with("1:11 `p_history_0f` is the name of another table"), "{found:?}");
}

proptest! {
    #[test]
    fn an_accepted_name_needs_no_quoting(name in "[a-cA-C0-9_.'`\"\\\\;# -]{0,6}") {
        let (text, _) = named(&name);
        let pieces = [
            text.clone(),
            GOOD.replace("pipeline: p", text.lines().next().expect("a line")),
            GOOD.replace("  topic: t", text.lines().nth(2).expect("a line")),
            GOOD.replace("window:", &format!("derive:\n{}\nwindow:", text.lines().nth(8).expect("a line"))),
            GOOD.replace("  people: sum(peopleCount)", text.lines().last().expect("a line")),
        ];
        for text in pieces {
            let Ok(Pipeline { plan, .. }) = parse_pipeline("p.yaml", &text, &shipped()) else { continue };
            let columns = plan.derive.iter().map(|one| &one.name);
            let names = columns.chain(plan.measures.iter().map(|one| &one.name)).chain([&plan.name]);
            for name in names {
                let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                prop_assert!(!name.is_empty() && name.bytes().all(word), "{}", name);
            }
            for topic in &plan.topics {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
                prop_assert!(!topic.is_empty() && topic.bytes().all(plain), "{}", topic);
            }
        }
    }
}
