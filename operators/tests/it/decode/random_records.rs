//! Batches of random records, about half of them broken in one way.

use citycell_operators::decode::IdSource;
use citycell_operators::records::{CloudEventHeaders, Records};
use citycell_schemas::Offset;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

/// Values that are wrong for most fields and right for some.
const ODD_VALUES: [&str; 24] = [
    "null",
    "true",
    "[1]",
    "{}",
    "-1",
    "101",
    "1.0",
    "-0",
    "1e2",
    "1e300",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "99999999999999999999999",
    "\"\"",
    "\"NaN\"",
    "\"-Infinity\"",
    "\"5\"",
    "\"blue\"",
    "\"\\u0072ed\"",
    "\"2026-03-01T08:00:00\"",
    "\"2026-02-30T08:00:00Z\"",
    "\"2026-03-01T08:00:00.999999+08:00\"",
    "253402300800000",
];

/// Texts that are no JSON, to stand where a value should.
const NO_VALUES: [&str; 7] = ["NaN", "Infinity", "-", "01", "'a'", "\"\\x\"", ""];

type Pairs = Vec<(&'static str, String)>;

/// `count` random records as their source would send them.
pub(super) fn batch(rng: &mut StdRng, ids: &IdSource, count: i64) -> Records {
    let mut records = Records::new("city.test".into(), 7);
    for offset in 0..count {
        let payload = payload(rng);
        let (payload, headers) = match ids {
            IdSource::CloudEvents if rng.random() => {
                (Some(payload).filter(|_| rng.random_ratio(9, 10)), Some(headers(rng)))
            }
            IdSource::CloudEvents => {
                (Some(structured(rng, payload)).filter(|_| rng.random_ratio(39, 40)), None)
            }
            _ => (Some(payload).filter(|_| rng.random_ratio(39, 40)), None),
        };
        let payload = payload.map(|payload| break_bytes(rng, payload));
        records.push(Offset(offset * 2), 1_000 + offset, payload.as_deref(), headers);
    }
    records
}

fn payload(rng: &mut StdRng) -> String {
    let mut pairs = good_pairs(rng);
    let target = rng.random_range(0..pairs.len());
    match rng.random_range(0..12) {
        0 | 1 => pairs[target].1 = (*ODD_VALUES.choose(rng).expect("some")).to_owned(),
        2 => pairs[target].1 = (*NO_VALUES.choose(rng).expect("some")).to_owned(),
        3 => pairs.push(pairs[target].clone()),
        4 => drop(pairs.remove(target)),
        5 => pairs.push(("tree", "[".repeat(20) + &"]".repeat(20))),
        6 => pairs.push(("padding", format!("\"{}\"", "x".repeat(3_000)))),
        _ => {}
    }
    pairs.shuffle(rng);
    object(&pairs)
}

fn good_pairs(rng: &mut StdRng) -> Pairs {
    let mut pairs: Pairs = vec![
        ("name", format!("\"s{}\\n市\"", rng.random_range(0..5))),
        ("kind", (*["\"red\"", "\"green\"", "null"].choose(rng).expect("some")).to_owned()),
        ("count", rng.random_range(0..=100).to_string()),
        ("serial", rng.random::<i64>().to_string()),
        ("share", format!("{:.9}", rng.random_range(-1.5..1.5))),
        ("level", format!("{}e{}", rng.random::<f64>(), rng.random_range(-30..30))),
        ("open", rng.random::<bool>().to_string()),
        ("at", format!("\"{}\"", moment(rng))),
        ("at_ms", rng.random_range(-1_000_000_000_000i64..2_000_000_000_000).to_string()),
        ("unread", "{\"name\": [1, \"]\", {\"name\": null}]}".to_owned()),
    ];
    pairs.retain(|(key, _)| ["name", "at"].contains(key) || rng.random_ratio(5, 6));
    pairs
}

fn moment(rng: &mut StdRng) -> String {
    let ms = rng.random_range(0..4_000_000_000_000);
    let offset = jiff::tz::Offset::from_hours(rng.random_range(-12..=14)).expect("a real offset");
    let moment = jiff::Timestamp::from_millisecond(ms).expect("in range");
    moment.display_with_offset(offset).to_string()
}

fn headers(rng: &mut StdRng) -> Box<CloudEventHeaders> {
    let mut some = |text: &str| rng.random_ratio(14, 15).then(|| text.to_owned());
    let (id, source, kind) = (some("e1"), some("//sensors"), some("test.all"));
    let kind = kind.map(|kind| if rng.random_ratio(1, 15) { "other".to_owned() } else { kind });
    Box::new(CloudEventHeaders { id, source, kind, time: None, recorded_time: None })
}

fn structured(rng: &mut StdRng, data: String) -> String {
    let mut pairs: Pairs = vec![
        ("specversion", "\"1.0\"".to_owned()),
        ("id", "\"e1\"".to_owned()),
        ("source", "\"//sensors\"".to_owned()),
        ("type", "\"test.all\"".to_owned()),
        ("data", data),
    ];
    let target = rng.random_range(0..pairs.len());
    match rng.random_range(0..12) {
        0 => drop(pairs.remove(target)),
        1 => pairs[3].1 = "\"other\"".to_owned(),
        2 => pairs[target].1 = "null".to_owned(),
        3 => pairs[1].1 = "17".to_owned(),
        _ => {}
    }
    pairs.shuffle(rng);
    object(&pairs)
}

fn object(pairs: &Pairs) -> String {
    let pairs: Vec<String> =
        pairs.iter().map(|(key, value)| format!("\"{key}\" : {value}")).collect();
    format!(" {{{}}}\n", pairs.join(", "))
}

fn break_bytes(rng: &mut StdRng, payload: String) -> Vec<u8> {
    let too_deep = payload.contains("[[");
    let mut bytes = payload.into_bytes();
    if too_deep {
        // What is no JSON either has no depth that the naive decoder could see.
        return bytes;
    }
    let at = rng.random_range(0..bytes.len());
    match rng.random_range(0..40) {
        0 => bytes.truncate(at),
        1 => bytes[at] = 0xff,
        2 => bytes.extend_from_slice(b" {}"),
        3 => bytes = b"[1, 2]".to_vec(),
        4 => bytes.clear(),
        _ => {}
    }
    bytes
}
