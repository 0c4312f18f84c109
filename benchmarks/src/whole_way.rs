//! The whole way, from bytes to changes, on one core, beside typed `serde_json` decoding alone.
//!
//! Both sides read all fields of the same records. The whole way also parses times, checks ranges,
//! evaluates `where`, finds the cell, adds up by window and cell, retires windows and hands over
//! the rows to publish. What is timed is the thread's computing; rounds of both sides alternate.

use std::sync::Arc;

use citycell_operators::plan::Plan;
use citycell_operators::records::Records;

use crate::city::{Arrival, City, PlacedBy, Size, plan, plan_per_sensor};
use crate::clock::{median, timed};
use crate::decode::typed;
use crate::way::Way;

/// One pipeline's figures, in millions of events per second of computing.
#[derive(Clone, Copy, Debug)]
pub struct WholeWay {
    /// What is measured.
    pub name: &'static str,
    /// Bytes to changes.
    pub whole_m_per_s: f64,
    /// Typed `serde_json` with owned strings.
    pub typed_m_per_s: f64,
    /// The first by the second.
    pub ratio: f64,
    /// Rows published, in all epochs.
    pub rows: u64,
    /// Over all rows.
    pub hash: u64,
}

/// The pipelines that are measured, the floor's first.
#[must_use]
pub fn measure(city: &City, size: Size) -> Vec<WholeWay> {
    let arrivals = Arc::new(city.arrivals(size, PlacedBy::Point));
    let point = Events { size, arrivals, placed_by: PlacedBy::Point };
    let by_point = one("by point", city, &point, &plan(PlacedBy::Point));
    let per_sensor = plan_per_sensor(PlacedBy::Point);
    let per_sensor = one("by point, last of each sensor", city, &point, &per_sensor);
    drop(point);
    let arrivals = Arc::new(city.arrivals(size, PlacedBy::Code));
    let code = Events { size, arrivals, placed_by: PlacedBy::Code };
    let by_code = one("by code", city, &code, &plan(PlacedBy::Code));
    vec![by_point, by_code, per_sensor]
}

/// What both sides read.
struct Events {
    size: Size,
    arrivals: Arc<Vec<Arrival>>,
    placed_by: PlacedBy,
}

fn one(name: &'static str, city: &City, events: &Events, plan: &Plan) -> WholeWay {
    let Events { size, arrivals, placed_by } = events;
    let timed_batches: Vec<&Records> =
        arrivals[size.warm_up..].iter().flat_map(|arrival| &arrival.batches).collect();
    let millions = (size.events_per_epoch * size.epochs) as f64 / 1e6;
    let (mut whole_s, mut typed_s, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen = None;
    for _ in 0..size.rounds {
        let (decoding_s, _) = timed(|| typed(timed_batches.iter().copied(), *placed_by));
        let (way_s, rows) = whole_way(city, events, plan);
        assert!(seen.is_none_or(|before| before == rows), "every round publishes the same rows");
        seen = Some(rows);
        ratios.push(decoding_s / way_s);
        typed_s.push(decoding_s);
        whole_s.push(way_s);
    }
    let (rows, hash) = seen.unwrap_or_default();
    WholeWay {
        name,
        whole_m_per_s: millions / median(whole_s),
        typed_m_per_s: millions / median(typed_s),
        ratio: median(ratios),
        rows,
        hash,
    }
}

/// The seconds of the timed epochs, and how many rows came out with a hash of all of them.
fn whole_way(city: &City, events: &Events, plan: &Plan) -> (f64, (u64, u64)) {
    let (size, placed_by) = (events.size, events.placed_by);
    let arrivals = Arc::clone(&events.arrivals);
    let (grid, plan) = (Arc::clone(&city.grid), plan.clone());
    timely::execute_directly(move |worker| {
        let mut way = Way::new(worker, &grid, &plan, placed_by);
        let seconds = arrivals.iter().map(|arrival| way.run(worker, arrival));
        let timed_s = seconds.skip(size.warm_up).sum();
        (timed_s, (way.count, way.hash))
    })
}

#[cfg(test)]
mod tests {
    use crate::city::{City, TINY};

    #[test]
    fn points_and_codes_come_to_the_same_rows_every_time() {
        let city = City::new(TINY);
        let (one, other) = (super::measure(&city, TINY), super::measure(&city, TINY));
        let hashes = |all: &[super::WholeWay]| all.iter().map(|w| w.hash).collect::<Vec<_>>();
        assert_eq!(hashes(&one), hashes(&other));
        assert_eq!(one[0].hash, one[1].hash, "the same sensors, found in two ways");
        assert_ne!(one[0].hash, one[2].hash, "a sensor counts once");
        assert!(one[0].rows > 100);
    }
}
