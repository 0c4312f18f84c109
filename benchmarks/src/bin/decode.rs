//! Prints how fast decoding is beside typed `serde_json`. Argument: how many events (1,000,000).

fn main() {
    let events = std::env::args().nth(1).and_then(|argument| argument.parse().ok());
    let report = citycell_benchmarks::decode::measure(events.unwrap_or(1_000_000), 5);
    println!(
        "decode: {} events of {} bytes: columns {:.2} M/s, typed serde_json {:.2} M/s (borrowed \
         {:.2}), ratio {:.2} ({:.2}), hash {:016x}",
        report.events,
        report.bytes_per_event,
        report.columns_m_per_s,
        report.typed_m_per_s,
        report.typed_borrowed_m_per_s,
        report.columns_m_per_s / report.typed_m_per_s,
        report.columns_m_per_s / report.typed_borrowed_m_per_s,
        report.hash
    );
}
