//! A seeded city for the benchmarks: irregular cells, sensors in them and their events as JSON.

use std::sync::Arc;

use citycell_operators::locate::LocatedGrid;
use citycell_operators::plan::{Argument, Crs, Location, Per, Plan, Slot, Take, Window};
use citycell_operators::records::Records;
use citycell_operators::tick::Tick;
use citycell_schemas::grid::PlaceEntry;
use citycell_schemas::{Epoch, EventTime, Grid, Level, Offset, Place};
use geo::{Coord, MapCoords, MultiPolygon, coord};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::locate::{STEPS, tiling};

/// How many records a batch from Kafka has.
pub(crate) const BATCH: usize = 10_000;
/// 2026-03-01T08:00:00+08:00.
pub(crate) const START_MS: i64 = 1_772_323_200_000;
/// The city's time that an epoch covers: with the full numbers, each sensor sends every 10 s.
const EPOCH_MS: i64 = 20_000;
/// Windows last three epochs and close three epochs after their end.
const WINDOW_MS: i64 = 60_000;

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Cells from west to east.
    pub columns: usize,
    /// Cells from south to north.
    pub rows: usize,
    /// Sensors, each at its place.
    pub sensors: usize,
    /// Events in every epoch.
    pub events_per_epoch: usize,
    /// Epochs before time counts; from the seventh on, windows retire.
    pub warm_up: usize,
    /// Epochs that are timed.
    pub epochs: usize,
    /// How often everything is timed.
    pub rounds: usize,
}

/// What the figures are stated for.
pub const FULL: Size = Size {
    columns: 200,
    rows: 100,
    sensors: 50_000,
    events_per_epoch: 100_000,
    warm_up: 6,
    epochs: 9,
    rounds: 5,
};

/// What a test can afford.
pub const TINY: Size = Size {
    columns: 6,
    rows: 5,
    sensors: 50,
    events_per_epoch: 200,
    warm_up: 2,
    epochs: 6,
    rounds: 1,
};

/// How events say where they happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacedBy {
    /// By coordinates.
    Point,
    /// By their cell's code.
    Code,
}

impl PlacedBy {
    /// The fields of an event, all of which are decoded.
    #[must_use]
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Point => {
                &["sensorId", "dateObserved", "lon", "lat", "category", "peopleCount", "capacity"]
            }
            Self::Code => {
                &["sensorId", "dateObserved", "gridCode", "category", "peopleCount", "capacity"]
            }
        }
    }
}

/// What arrives in one epoch.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its decisions.
    pub tick: Tick,
    /// Its records.
    pub batches: Vec<Records>,
}

/// A city.
#[derive(Debug)]
pub struct City {
    /// Its cells.
    pub grid: Arc<LocatedGrid>,
    sensors: Vec<Sensor>,
}

#[derive(Debug)]
struct Sensor {
    lon: f64,
    lat: f64,
    code: String,
}

impl City {
    /// The city of this size, always the same.
    ///
    /// # Panics
    /// If a sensor is in no cell: our own bug.
    #[must_use]
    pub fn new(size: Size) -> Self {
        let mut random = StdRng::seed_from_u64(11);
        let cells = tiling((size.columns, size.rows), &mut random);
        let in_degrees = |cell: MultiPolygon<f64>| cell.map_coords(degrees);
        let cells = cells.into_iter().map(|(place, cell)| (place, in_degrees(cell))).collect();
        let entries = (0..size.columns * size.rows).map(entry).collect();
        let grid = Grid::new("benchmark".to_owned(), entries);
        let grid = LocatedGrid::new(Arc::new(grid), Crs::Gcj02, cells);
        let extent = |cells: usize| 1.0..(cells * STEPS) as f64 - 1.0;
        let mut sensor = |_| {
            let x = random.random_range(extent(size.columns));
            let y = random.random_range(extent(size.rows));
            // As its events print them: the last decimals decide which side of a border is meant.
            let Coord { x: lon, y: lat } = degrees(coord! {x: x, y: y});
            let (lon, lat) = (printed(lon), printed(lat));
            let place = grid.locate_point(lon, lat, Crs::Gcj02).expect("cells tile the city");
            Sensor { lon, lat, code: grid.grid().entry(place).code.clone() }
        };
        let sensors = (0..size.sensors).map(&mut sensor).collect();
        Self { grid: Arc::new(grid), sensors }
    }

    /// The arrivals of `size.warm_up + size.epochs` epochs.
    #[must_use]
    pub fn arrivals(&self, size: Size, placed_by: PlacedBy) -> Vec<Arrival> {
        let mut random = StdRng::seed_from_u64(13);
        let mut offset = 0;
        (0..size.warm_up + size.epochs)
            .map(|number| {
                let tick = tick(number);
                let mut batches = Vec::new();
                for event in 0..size.events_per_epoch {
                    if event % BATCH == 0 {
                        batches.push(Records::new(Arc::from("city.crowd.flow"), 0));
                    }
                    let payload = self.payload(&mut random, tick.watermark, placed_by);
                    let batch = batches.last_mut().expect("one was pushed");
                    batch.push(Offset(offset), tick.bound_time_ms, Some(payload.as_bytes()), None);
                    offset += 1;
                }
                Arrival { tick, batches }
            })
            .collect()
    }

    /// An event of 158 bytes in the 20 s from `start`.
    fn payload(&self, random: &mut StdRng, start: EventTime, placed_by: PlacedBy) -> String {
        let number = random.random_range(0..self.sensors.len());
        let sensor = &self.sensors[number];
        let second = (start.0 + random.random_range(0..EPOCH_MS) - START_MS) / 1_000;
        let people = random.random_range(100..1_000);
        let place = match placed_by {
            PlacedBy::Point => {
                let Sensor { lon, lat, .. } = sensor;
                format!("\"lon\":{lon:.6},\"lat\":{lat:.6},\"category\":\"shopping mall\"")
            }
            PlacedBy::Code => by_code(&sensor.code),
        };
        payload(number, second, &place, people)
    }
}

/// An event of 158 bytes, `second` seconds after the first, in the cell of this code.
pub(crate) fn payload_by_code(
    random: &mut StdRng,
    sensor: usize,
    second: i64,
    code: &str,
) -> String {
    payload(sensor, second, &by_code(code), random.random_range(100..1_000))
}

fn by_code(code: &str) -> String {
    format!("\"gridCode\":\"{code}\",\"category\":\"a shopping mall..\"")
}

fn payload(sensor: usize, second: i64, place: &str, people: i64) -> String {
    let (hour, minute, second) = (8 + second / 3_600, second / 60 % 60, second % 60);
    format!(
        "{{\"sensorId\":\"s{sensor:05}\",\
         \"dateObserved\":\"2026-03-01T{hour:02}:{minute:02}:{second:02}+08:00\",\
         {place},\"peopleCount\":{people},\"capacity\":5000}}"
    )
}

/// The decisions of epoch `number`: all that came before is at the watermark.
fn tick(number: usize) -> Tick {
    let start_ms = START_MS + i64::try_from(number).expect("a small number") * EPOCH_MS;
    Tick {
        epoch: Epoch(number as u64 + 1),
        bound_time_ms: start_ms + EPOCH_MS,
        previous_bound_time_ms: start_ms,
        watermark: EventTime(start_ms),
        snapshot: false,
    }
}

/// Cells of about 100 m near Changsha.
fn degrees(point: Coord<f64>) -> Coord<f64> {
    const STEP: f64 = 0.001 / STEPS as f64;
    coord! {x: 112.8 + point.x * STEP, y: 28.1 + point.y * STEP}
}

/// The coordinate as an event's six decimals write it.
fn printed(degrees: f64) -> f64 {
    format!("{degrees:.6}").parse().expect("a number just printed")
}

/// A cell of this number.
pub(crate) fn entry(number: usize) -> PlaceEntry {
    PlaceEntry {
        code: format!("430102{number:09}"),
        name: String::new(),
        level: Level::Cell,
        parent: None,
        area_m2: 10_000.0,
    }
}

/// Events, people and mean people per cell and minute, without tests.
#[must_use]
pub fn plan(placed_by: PlacedBy) -> Plan {
    Plan {
        name: "crowd_flow".to_owned(),
        topics: vec!["city.crowd.flow".to_owned()],
        schema: "crowd_flow".to_owned(),
        event_time: "dateObserved".to_owned(),
        location: match placed_by {
            PlacedBy::Point => {
                Location::Point { lon: "lon".to_owned(), lat: "lat".to_owned(), crs: Crs::Gcj02 }
            }
            PlacedBy::Code => Location::Cell { column: "gridCode".to_owned() },
        },
        allow_ms: WINDOW_MS,
        future_ms: 5 * 60 * 1_000,
        identified: false,
        filter: Some("peopleCount >= 0 AND category <> 'test'".to_owned()),
        derive: Vec::new(),
        window: Window::Tumbling { size_ms: WINDOW_MS },
        per: None,
        group_by: Vec::new(),
        arguments: vec![Argument { expression: "peopleCount".to_owned(), scale: 0 }],
        slots: vec![Slot::Count, Slot::Sum(0), Slot::Mean(0)],
        measures: Vec::new(),
        roll_up: Vec::new(),
        publish_every_ms: 0,
    }
}

/// The same with the last event of each sensor and minute only.
#[must_use]
pub fn plan_per_sensor(placed_by: PlacedBy) -> Plan {
    let per = Per { by: vec!["sensorId".to_owned()], take: Take::Last };
    Plan { per: Some(per), ..plan(placed_by) }
}

/// A place of the benchmarks that have no grid.
#[must_use]
pub fn place(number: usize) -> Place {
    Place(u32::try_from(number).expect("fewer places than a u32 counts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_size_that_figures_are_stated_for() {
        let city = City::new(TINY);
        for placed_by in [PlacedBy::Point, PlacedBy::Code] {
            let arrivals = city.arrivals(TINY, placed_by);
            assert_eq!(arrivals.len(), 8);
            let batch = &arrivals[3].batches[0];
            assert_eq!((batch.len(), batch.bytes()), (200, 200 * 158), "{placed_by:?}");
        }
    }
}
