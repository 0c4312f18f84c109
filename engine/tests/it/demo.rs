//! The demo checks itself: what it publishes against SQL over what it sent.

use std::process::Command;

use serde_json::Value;

#[test]
fn every_row_of_a_short_demo_is_what_sql_over_the_raw_records_says() {
    let output = Command::new(env!("CARGO_BIN_EXE_citycell"))
        .args(["demo", "--seconds", "5", "--json", "--listen", "127.0.0.1:0", "--seed", "7"])
        .output()
        .unwrap();
    let (out, log) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{log}");
    let report: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let number = |name: &str| report[name].as_i64().unwrap_or_else(|| panic!("{name}: {report}"));
    assert_eq!(number("oracle_mismatches"), 0, "{report}\n{log}");
    let outcomes = ["counted", "filtered", "rejected", "diverted", "duplicates", "withdrawals"];
    let accounted: i64 = outcomes.iter().map(|outcome| number(outcome)).sum();
    assert_eq!(number("events_in"), accounted, "{report}");
    // Two thousand five hundred events are planned; a busy machine may start late.
    assert!(number("events_in") > 1_000 && number("rejected") > 0, "{report}");
    assert!(number("rows_compared") > 500 && number("cells_live") > 100, "{report}");
    assert!(number("freshness_ms_p50") > 0, "{report}");
    assert!(number("freshness_ms_p99") >= number("freshness_ms_p50"), "{report}");
}
