//! The whole way, from bytes to changes, on one core, beside typed `serde_json` decoding alone.
//!
//! Both sides read all fields of the same records. The whole way also parses times, checks ranges,
//! evaluates `where`, finds the cell, adds up by window and cell, retires windows and hands over
//! the rows to publish. What is timed is the thread's computing; rounds of both sides alternate.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use citycell_operators::changes::Version;
use citycell_operators::decode::{DecodeOptions, Decoder};
use citycell_operators::pipeline::{self, Memory};
use citycell_operators::plan::Plan;
use citycell_operators::prepare::{Batch, Prepare};
use citycell_operators::records::Records;
use citycell_operators::tick::Tick;
use citycell_schemas::event::shipped;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Input as _;
use timely::dataflow::operators::{Inspect, Probe};

use crate::city::{Arrival, City, PlacedBy, Size, plan, plan_per_sensor};
use crate::clock::{Stopwatch, median, timed};
use crate::decode::typed;

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
        let rows = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&rows);
        let (mut records, mut ticks, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (records_handle, records) = scope.new_input::<(Tick, Rc<Records>)>();
            let (ticks_handle, ticks) = scope.new_input::<Tick>();
            let mut decoder = decoder(placed_by);
            let prepare = Prepare::new(&plan, decoder.columns(), Arc::clone(&grid));
            let prepare = prepare.expect("a good plan");
            let batches = records.unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(
                Pipeline,
                "decode",
                |_, _| {
                    move |input, output| {
                        input.for_each(|capability, arrived| {
                            let batch = |(tick, records): (Tick, Rc<Records>)| {
                                let decoded = Rc::new(decoder.decode(0, &records));
                                Batch { tick, records, decoded }
                            };
                            output.session(&capability).give_iterator(arrived.drain(..).map(batch));
                        });
                    }
                },
            );
            let streams =
                pipeline::build(&plan, prepare, grid.grid(), batches, ticks, Memory::default());
            let rows = streams.rows.inspect_core(move |event| {
                if let Ok((_, rows)) = event {
                    seen.borrow_mut().append(&mut rows.clone());
                }
            });
            let probe = rows.probe().0;
            streams.rejects.inspect(|reject| panic!("our own event is refused: {reject:?}"));
            streams.late.inspect(|late| panic!("our own event is late: {late:?}"));
            (records_handle, ticks_handle, probe)
        });
        let (mut seconds, mut count, mut hash) = (0.0, 0, 0);
        for (number, arrival) in arrivals.iter().enumerate() {
            let batches: Vec<_> = arrival.batches.iter().map(|all| Rc::new(all.clone())).collect();
            let epoch = arrival.tick.epoch.0;
            let watch = Stopwatch::start();
            records.advance_to(epoch);
            ticks.advance_to(epoch);
            ticks.send(arrival.tick);
            batches.into_iter().for_each(|batch| records.send((arrival.tick, batch)));
            records.advance_to(epoch + 1);
            ticks.advance_to(epoch + 1);
            worker.step_while(|| probe.less_than(&(epoch + 1)));
            if number >= size.warm_up {
                seconds += watch.seconds();
            }
            for row in rows.borrow_mut().drain(..) {
                count += 1;
                hash = mix(hash, epoch, &row);
            }
        }
        (seconds, (count, hash))
    })
}

/// A decoder of all fields, as the typed side reads them.
pub(crate) fn decoder(placed_by: PlacedBy) -> Decoder {
    let schema = shipped().into_iter().find(|schema| schema.name == "crowd_flow").expect("shipped");
    Decoder::new(&schema, placed_by.fields(), DecodeOptions::default()).expect("its own fields")
}

/// Adds a row to a hash that does not depend on the order of an epoch's rows.
fn mix(hash: u64, epoch: u64, row: &Version) -> u64 {
    let mut hasher = DefaultHasher::new();
    (epoch, &row.key, &row.state).hash(&mut hasher);
    hash.wrapping_add(hasher.finish())
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
