//! The whole way, from bytes to changes, when equally many cells change but many more are alive.
//!
//! Both runs read as many events of as many different cells in every epoch, over one grid; before
//! they are timed, one loads every hundredth cell and the other all of them.

use std::sync::Arc;

use citycell_operators::locate::LocatedGrid;
use citycell_operators::plan::Crs;
use citycell_operators::records::Records;
use citycell_operators::tick::Tick;
use citycell_schemas::{Epoch, EventTime, Grid, Offset};
use rand::rngs::StdRng;
use rand::seq::index::sample;
use rand::{Rng, SeedableRng};

use crate::city::{Arrival, BATCH, PlacedBy, START_MS, entry, payload_by_code, plan};
use crate::clock::median;
use crate::live_cells::LiveCells;
use crate::way::Way;

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// The few live cells.
    pub few: usize,
    /// The many live cells, which are all of the grid's.
    pub many: usize,
    /// Cells that change in every epoch.
    pub changed: usize,
    /// Events of each of them in an epoch.
    pub events_per_cell: usize,
    /// Epochs that are timed, after half as many that are not.
    pub epochs: u64,
    /// How often everything is timed, in turns.
    pub rounds: usize,
}

/// What the floor is stated for: 100,000 events per epoch.
pub const FULL: Size = Size {
    few: 10_000,
    many: 1_000_000,
    changed: 10_000,
    events_per_cell: 10,
    epochs: 20,
    rounds: 3,
};

/// What a test can afford.
pub const TINY: Size =
    Size { few: 50, many: 1_000, changed: 50, events_per_cell: 3, epochs: 4, rounds: 1 };

/// Measures both.
#[must_use]
pub fn measure(size: Size) -> LiveCells {
    let grid = Grid::new("benchmark".to_owned(), (0..size.many).map(entry).collect());
    let grid = Arc::new(LocatedGrid::new(Arc::new(grid), Crs::Gcj02, Vec::new()));
    let events = (size.changed * size.events_per_cell) as f64 * size.epochs as f64 / 1e6;
    let (mut few, mut many, mut ratios, mut hash) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..size.rounds {
        let (few_s, few_hash) = run(&grid, size.few, size);
        let (many_s, many_hash) = run(&grid, size.many, size);
        few.push(few_s / events);
        many.push(many_s / events);
        ratios.push(many_s / few_s);
        hash = few_hash ^ many_hash;
    }
    LiveCells { few_s_per_m: median(few), many_s_per_m: median(many), ratio: median(ratios), hash }
}

fn run(grid: &Arc<LocatedGrid>, live: usize, size: Size) -> (f64, u64) {
    let grid = Arc::clone(grid);
    timely::execute_directly(move |worker| {
        let mut way = Way::new(worker, &grid, &plan(PlacedBy::Code), PlacedBy::Code);
        let mut random = StdRng::seed_from_u64(19);
        let (mut seconds, warm_up) = (0.0, size.epochs / 2);
        for epoch in 1..=1 + warm_up + size.epochs {
            let mut cells = match epoch {
                1 => (0..live).collect(),
                _ => {
                    sample(&mut random, live, size.changed).into_vec().repeat(size.events_per_cell)
                }
            };
            cells.iter_mut().for_each(|cell| *cell *= size.many / live);
            let took_s = way.run(worker, &arrival(&mut random, epoch, &cells));
            if epoch > 1 + warm_up {
                seconds += took_s;
            }
        }
        (seconds, way.hash)
    })
}

/// One event of each of `cells`, all in the first window. The watermark stays, so that nothing
/// retires.
fn arrival(random: &mut StdRng, epoch: u64, cells: &[usize]) -> Arrival {
    let now_ms = START_MS + i64::try_from(epoch).expect("a small number");
    let tick = Tick {
        epoch: Epoch(epoch),
        bound_time_ms: now_ms,
        previous_bound_time_ms: now_ms - 1,
        watermark: EventTime(START_MS),
        snapshot: false,
    };
    let mut offset = i64::try_from(epoch << 32).expect("a small number");
    let batch = |cells: &[usize]| {
        let mut records = Records::new(Arc::from("city.crowd.flow"), 0);
        for cell in cells {
            let sensor = cell % 100_000;
            let second = random.random_range(0..60);
            let payload = payload_by_code(random, sensor, second, &entry(*cell).code);
            records.push(Offset(offset), now_ms, Some(payload.as_bytes()), None);
            offset += 1;
        }
        records
    };
    Arrival { tick, batches: cells.chunks(BATCH).map(batch).collect() }
}

#[cfg(test)]
mod tests {
    use super::{TINY, measure};

    #[test]
    fn the_same_rows_come_out_every_time() {
        let hash = measure(TINY).hash;
        assert_ne!(hash, 0);
        assert_eq!(hash, measure(TINY).hash);
    }
}
