//! The stages of the whole way, each on its own, over the same events.

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use citycell_operators::combine::Combiner;
use citycell_operators::decode::Decoded;
use citycell_operators::events::Observation;
use citycell_operators::locate::Locator;
use citycell_operators::plan::Crs;
use citycell_operators::prepare::{Batch, Prepare};

use crate::city::{City, PlacedBy, Size, plan};
use crate::clock::{median, timed};
use crate::way::decoder;

/// Millions per second of computing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stages {
    /// Events decoded into columns.
    pub decode: f64,
    /// Points of the columns placed into cells.
    pub locate_points: f64,
    /// Codes of the columns placed into cells.
    pub locate_codes: f64,
    /// Decoded events through `where`, arguments, place and lateness.
    pub prepare: f64,
    /// Observations added up by window and cell.
    pub combine: f64,
    /// Over cells and sums; places and contributions must not depend on the run.
    pub hash: u64,
}

/// The median of each stage over `size.rounds` rounds.
#[must_use]
pub fn measure(city: &City, size: Size) -> Stages {
    let rounds: Vec<Stages> = (0..size.rounds).map(|_| round(city, size)).collect();
    let stage = |of: fn(&Stages) -> f64| median(rounds.iter().map(of).collect());
    Stages {
        decode: stage(|round| round.decode),
        locate_points: stage(|round| round.locate_points),
        locate_codes: stage(|round| round.locate_codes),
        prepare: stage(|round| round.prepare),
        combine: stage(|round| round.combine),
        hash: rounds.iter().fold(0, |_, round| round.hash),
    }
}

fn round(city: &City, size: Size) -> Stages {
    let size = Size { warm_up: 0, epochs: size.epochs.div_ceil(2), ..size };
    let events = (size.events_per_epoch * size.epochs) as f64 / 1e6;
    let (decode_s, batches) = decoded(city, size, PlacedBy::Point);
    let locator = Locator::new(Arc::clone(&city.grid));
    let (points_s, by_point) = timed(|| {
        let points = |columns: &RecordBatch| {
            let column = |name| columns.column_by_name(name).expect("decoded");
            let (lon, lat) = (column("lon"), column("lat"));
            let (lon, lat) = (lon.as_primitive::<Float64Type>(), lat.as_primitive::<Float64Type>());
            locator.locate_points(lon, lat, Crs::Gcj02)
        };
        batches.iter().flat_map(|batch| points(&batch.decoded.events.columns)).collect::<Vec<_>>()
    });
    let plan = plan(PlacedBy::Point);
    let prepare = Prepare::new(&plan, decoder(PlacedBy::Point).columns(), Arc::clone(&city.grid));
    let prepare = prepare.expect("a good plan");
    let (prepare_s, ()) = timed(|| {
        for batch in &batches {
            black_box(prepare.prepare(batch, |observation| {
                black_box(observation);
            }));
        }
    });
    let mut observations: Vec<Observation> = Vec::new();
    for batch in &batches {
        let _ = prepare.prepare(batch, |observation| observations.push(observation));
    }
    let mut combiner = Combiner::new(&plan);
    let (combine_s, sums) = timed(|| {
        let mut sums = Vec::new();
        for epoch in observations.chunks(size.events_per_epoch) {
            for Observation { key, values, .. } in epoch {
                combiner.add((key.window_start, key.place, &key.group), values, 1);
            }
            sums.extend(combiner.drain().totals);
        }
        sums
    });
    drop((batches, observations));
    let (_, batches) = decoded(city, size, PlacedBy::Code);
    let (codes_s, by_code) = timed(|| {
        let codes = |columns: &RecordBatch| {
            let codes = columns.column_by_name("gridCode").expect("decoded");
            locator.locate_codes(codes.as_string::<i32>())
        };
        batches.iter().flat_map(|batch| codes(&batch.decoded.events.columns)).collect::<Vec<_>>()
    });
    let apart = by_point.iter().zip(&by_code).filter(|(point, code)| point != code).count();
    assert_eq!((by_point.len(), apart), (by_code.len(), 0), "the same sensors, found in two ways");
    let places = by_point.iter().flatten().map(|place| u64::from(place.0)).sum::<u64>();
    let counted = sums.iter().map(|(_, sums)| sums.contributions().unsigned_abs()).sum::<u64>();
    Stages {
        decode: events / decode_s,
        locate_points: events / points_s,
        locate_codes: events / codes_s,
        prepare: events / prepare_s,
        combine: events / combine_s,
        hash: places ^ counted.rotate_left(32) ^ (sums.len() as u64).rotate_left(48),
    }
}

fn decoded(city: &City, size: Size, placed_by: PlacedBy) -> (f64, Vec<Batch>) {
    let mut decoder = decoder(placed_by);
    let arrivals = city.arrivals(size, placed_by);
    let (seconds, all) = timed(|| {
        let all = arrivals.iter().flat_map(|arrival| &arrival.batches);
        all.map(|records| Rc::new(decoder.decode(0, records))).collect::<Vec<Rc<Decoded>>>()
    });
    let records = arrivals.into_iter().flat_map(|arrival| {
        arrival.batches.into_iter().map(move |records| (arrival.tick, Rc::new(records)))
    });
    let batch = |((tick, records), decoded)| Batch { tick, records, decoded };
    (seconds, records.zip(all).map(batch).collect())
}

#[cfg(test)]
mod tests {
    use crate::city::{City, TINY};

    #[test]
    fn stages_come_to_the_same_every_time() {
        let city = City::new(TINY);
        let hash = super::measure(&city, TINY).hash;
        assert_ne!(hash, 0);
        assert_eq!(hash, super::measure(&city, TINY).hash);
    }
}
