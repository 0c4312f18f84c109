//! Selection held against a naive evaluation of one row at a time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use proptest::prelude::*;

use super::*;
use crate::plan::{Argument, Derived, Location, Per, Take};

pub(crate) fn plan() -> Plan {
    Plan {
        name: "test".to_owned(),
        topics: vec!["test".to_owned()],
        schema: "test".to_owned(),
        event_time: "at".to_owned(),
        location: Location::Cell { column: "cell".to_owned() },
        allow_ms: 0,
        future_ms: 0,
        identified: false,
        filter: None,
        derive: Vec::new(),
        window: Window::Tumbling { size_ms: 60_000 },
        per: None,
        group_by: Vec::new(),
        arguments: Vec::new(),
        slots: Vec::new(),
        measures: Vec::new(),
        roll_up: Vec::new(),
        publish_every_ms: 0,
    }
}

type Row = (Option<i64>, Option<i64>, Option<&'static str>);

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("people", DataType::Int64, true),
        Field::new("capacity", DataType::Int64, true),
        Field::new("kind", DataType::Utf8, true),
    ])
}

fn batch(rows: &[Row]) -> RecordBatch {
    let people: Int64Array = rows.iter().map(|row| row.0).collect();
    let capacity: Int64Array = rows.iter().map(|row| row.1).collect();
    let kind: StringArray = rows.iter().map(|row| row.2).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(people), Arc::new(capacity), Arc::new(kind)];
    RecordBatch::try_new(Arc::new(schema()), columns).expect("equal lengths")
}

fn argument(expression: &str, scale: u8) -> Argument {
    Argument { expression: expression.to_owned(), scale }
}

fn loads() -> Plan {
    Plan {
        filter: Some("people >= 0 and kind <> 'test'".to_owned()),
        derive: vec![Derived { name: "load".into(), expression: "people / capacity".into() }],
        per: Some(Per { by: vec!["kind".to_owned()], take: Take::Last }),
        group_by: vec!["kind".to_owned()],
        arguments: vec![argument("load", 2), argument("people", 0)],
        ..plan()
    }
}

/// What the plan `loads` says of one row, in plain Rust.
#[derive(Debug, PartialEq)]
enum Expected {
    Filtered,
    Rejected,
    Kept(Option<i128>, i128),
}

fn naive((people, capacity, kind): Row) -> Expected {
    match (people, kind) {
        (Some(people), Some(kind)) if people >= 0 && kind != "test" => match capacity {
            None => Expected::Kept(None, i128::from(people)),
            Some(0) => Expected::Rejected,
            Some(capacity) => {
                let load = people as f64 / capacity as f64;
                Expected::Kept(Some((load * 100.0).round() as i128), i128::from(people))
            }
        },
        _ => Expected::Filtered,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn equals_a_naive_evaluation_row_by_row(
        rows in prop::collection::vec(
            (
                prop::option::of(-2_i64..50),
                prop::option::of(-1_i64..4),
                prop::option::of(prop::sample::select(vec!["mall", "test", "square"])),
            ),
            0..60,
        ),
    ) {
        let select = Select::new(&loads(), &schema()).expect("a good plan");
        let selected = select.select(&batch(&rows));
        let mut kept = Vec::new();
        let mut rejected = Vec::new();
        for (number, row) in (0_u32..).zip(&rows) {
            match naive(*row) {
                Expected::Filtered => {}
                Expected::Rejected => rejected.push(number),
                Expected::Kept(load, people) => kept.push((number, load, people)),
            }
        }
        prop_assert_eq!(selected.filtered, rows.len() - kept.len() - rejected.len());
        let rejects: Vec<_> = selected.rejects.iter().map(|reject| reject.row).collect();
        prop_assert_eq!(rejects, rejected);
        let found: Vec<_> = selected.kept.iter().enumerate().map(|(index, &row)| {
            let load = &selected.arguments[0];
            let load = load.is_valid(index).then(|| load.value(index));
            (row, load, selected.arguments[1].value(index))
        }).collect();
        prop_assert_eq!(found, kept);
        let groups = select.group_codec()
            .decode((0..selected.kept.len()).map(|index| selected.groups.get(index)));
        let kinds: Vec<_> = groups[0].as_string::<i32>().iter().collect();
        let expected: Vec<_> = selected.kept.iter().map(|&row| rows[row as usize].2).collect();
        prop_assert_eq!(kinds, expected);
    }
}

#[test]
fn a_failing_row_does_not_take_its_batch_with_it() {
    let plan = Plan { arguments: vec![argument("people % capacity", 0)], ..plan() };
    let rows: Vec<Row> =
        (0..100).map(|row| (Some(row), Some(i64::from(row != 42 && row != 77)), None)).collect();
    let selected = Select::new(&plan, &schema()).expect("good").select(&batch(&rows));
    let rejects: Vec<_> = selected.rejects.iter().map(|reject| reject.row).collect();
    assert_eq!((rejects, selected.kept.len()), (vec![42, 77], 98));
    assert_eq!(selected.rejects[0].reason, Reason::Expression);
    assert_eq!(selected.rejects[0].field, "people % capacity");
    assert!(selected.arguments[0].iter().all(|units| units == Some(0)));
}

#[test]
fn overflow_is_a_reject_and_not_a_wrapped_number() {
    let plan = Plan { arguments: vec![argument("people + people", 0)], ..plan() };
    let select = Select::new(&plan, &schema()).expect("good");
    let selected = select.select(&batch(&[(Some(i64::MAX), None, None), (Some(1), None, None)]));
    assert_eq!((selected.rejects[0].row, selected.kept), (0, vec![1]));
    assert!(selected.rejects[0].detail.contains("verflow"), "{:?}", selected.rejects);
}

#[test]
fn where_that_needs_a_failed_value_does_not_hide_it() {
    let plan = Plan { filter: Some("load < 2".to_owned()), ..loads() };
    let select = Select::new(&plan, &schema()).expect("good");
    let selected = select.select(&batch(&[(Some(1), Some(0), Some("mall"))]));
    assert_eq!((selected.rejects.len(), selected.filtered), (1, 0));
    assert_eq!(selected.rejects[0].field, "load");
}

#[test]
fn an_entity_without_a_name_is_a_reject() {
    let plan = Plan { filter: None, derive: Vec::new(), arguments: Vec::new(), ..loads() };
    let select = Select::new(&plan, &schema()).expect("good");
    let selected = select.select(&batch(&[(None, None, None), (None, None, Some("mall"))]));
    assert_eq!((selected.rejects[0].reason, selected.kept), (Reason::MissingField, vec![1]));
}

#[test]
fn a_fractional_number_names_no_group() {
    let plan = Plan { group_by: vec!["load".to_owned()], ..loads() };
    let error = Select::new(&plan, &schema()).expect_err("a float");
    assert!(error.message.contains("fractional"), "{error}");
}

#[test]
fn expressions_are_checked_before_they_run() {
    let cases = [
        ("peple > 1", 1, 1, "there is no column `peple`", "did you mean `people`?"),
        ("people > 1 and\n kind > 5", 2, 2, "text and numbers do not mix", "cast"),
        ("kind + 1", 1, 1, "", ""),
        ("people >", 1, 1, "", ""),
        ("lower(people) = 'a'", 1, 1, "", ""),
        ("rund(people) > 1", 1, 1, "there is no function `rund`", "did you mean `round`?"),
        ("random() > 1", 1, 1, "there is no function `random`", "the functions are"),
        ("people in (select 1)", 1, 1, "an expression cannot contain a query", "one event"),
        ("people", 1, 1, "a condition is true or false, not Int64", "compare"),
    ];
    for (sql, line, column, message, hint) in cases {
        let error = condition(sql, &schema()).expect_err(sql);
        assert_eq!((error.line, error.column), (line, column), "{sql}: {error:?}");
        assert!(error.message.contains(message), "{sql}: {error:?}");
        assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{sql}: {error:?}");
    }
}

#[test]
fn functions_and_coercions_work_as_they_say() {
    let rows = [(Some(7), Some(2), Some(" Mall "))];
    let cases = [
        ("people / capacity", 3.5),
        ("round(people / capacity, 0)", 4.0),
        ("coalesce(nullif(people, 7), 9)", 9.0),
        ("case when lower(btrim(kind)) = 'mall' then 1 else 0 end", 1.0),
        ("abs(people - 10) * 1.5", 4.5),
        ("case when kind like '%al%' and people between 1 and 8 then 2 end", 2.0),
        ("cast('12' as bigint) + people", 19.0),
        ("greatest(people, capacity, 3)", 7.0),
    ];
    for (sql, expected) in cases {
        let expression = Expression::parse(sql, &schema()).expect(sql);
        let values = expression.evaluate(&batch(&rows)).expect(sql);
        let values = arrow::compute::cast(&values, &DataType::Float64).expect("a number");
        assert_eq!(
            values.as_primitive::<arrow::datatypes::Float64Type>(),
            &Float64Array::from(vec![expected]),
            "{sql}"
        );
    }
}
