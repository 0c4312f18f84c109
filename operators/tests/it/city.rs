//! A random small city for oracle tests: what happens in each epoch, and the plan it is read by.

use std::collections::BTreeMap;

use citycell_operators::keys::{Key, Values};
use citycell_operators::plan::{Argument, Location, Plan, Slot, Window};
use citycell_operators::tick::Tick;
use citycell_schemas::grid::PlaceEntry;
use citycell_schemas::{Epoch, EventTime, Grid, Level, Place};
use rand::Rng;
use rand::rngs::StdRng;

pub(crate) const WINDOW_MS: i64 = 1_000;
pub(crate) const ALLOW_MS: i64 = 1_500;

/// One event counted (`count` 1) or taken back (-1).
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) key: Key,
    pub(crate) values: Values,
    pub(crate) count: isize,
}

/// One epoch: its tick and its events.
#[derive(Clone, Debug)]
pub(crate) struct Happening {
    pub(crate) tick: Tick,
    pub(crate) events: Vec<Event>,
}

/// A plan of these slots over two arguments.
pub(crate) fn plan(slots: Vec<Slot>, window: Window) -> Plan {
    let argument = |expression: &str, scale| Argument { expression: expression.to_owned(), scale };
    Plan {
        name: "people".to_owned(),
        topics: Vec::new(),
        schema: String::new(),
        event_time: String::new(),
        location: Location::Cell { column: String::new() },
        allow_ms: ALLOW_MS,
        future_ms: 0,
        identified: true,
        filter: None,
        derive: Vec::new(),
        window,
        per: None,
        group_by: Vec::new(),
        arguments: vec![argument("people", 0), argument("load", 2)],
        slots,
        measures: Vec::new(),
        roll_up: Vec::new(),
        publish_every_ms: 0,
    }
}

/// Six cells in two communities, under one street; the other levels are left out.
pub(crate) fn grid() -> Grid {
    let entry = |code: usize, level, parent| PlaceEntry {
        code: format!("{code}"),
        name: String::new(),
        level,
        parent,
        area_m2: 10_000.0,
    };
    let cell = |code: usize| entry(code, Level::Cell, Some(Place(6 + (code as u32 % 2))));
    let mut places: Vec<_> = (0..6).map(cell).collect();
    places.push(entry(6, Level::Community, Some(Place(8))));
    places.push(entry(7, Level::Community, Some(Place(8))));
    places.push(entry(8, Level::Street, None));
    Grid::new("test".to_owned(), places)
}

/// Whether a window can no longer change, by its definition.
pub(crate) fn is_closed(window_start: EventTime, tick: &Tick) -> bool {
    window_start.0 + WINDOW_MS + ALLOW_MS <= tick.watermark.0
}

/// `epochs` epochs of inserts and retractions, out of order, never of a closed window.
pub(crate) fn happenings(random: &mut StdRng, epochs: u64, windowed: bool) -> Vec<Happening> {
    let mut live: BTreeMap<usize, Event> = BTreeMap::new();
    let mut watermark = EventTime(-10_000);
    let mut bound_time_ms = 0;
    let mut number = 0;
    let mut all = Vec::new();
    for epoch in 1..=epochs {
        let previous_bound_time_ms = bound_time_ms;
        bound_time_ms += random.random_range(0..700);
        let tick = Tick {
            epoch: Epoch(epoch * 10),
            bound_time_ms,
            previous_bound_time_ms,
            watermark,
            snapshot: false,
        };
        live.retain(|_, event| !windowed || !is_closed(event.key.window_start, &tick));
        let mut events = Vec::new();
        for _ in 0..random.random_range(0..12) {
            let chosen = random.random_range(0..live.len().max(1) * 2);
            if let Some(number) = live.keys().nth(chosen).copied()
                && let Some(event) = live.remove(&number)
            {
                events.push(Event { count: -1, ..event });
                continue;
            }
            let key = Key {
                window_start: if windowed {
                    let time = bound_time_ms - random.random_range(0..3_000);
                    EventTime(time.div_euclid(WINDOW_MS) * WINDOW_MS)
                } else {
                    EventTime(0)
                },
                place: Place(random.random_range(0..6)),
                group: vec![0; random.random_range(0..2)].into(),
            };
            if windowed && is_closed(key.window_start, &tick) {
                continue;
            }
            let mut value = || random.random_bool(0.9).then(|| random.random_range(-3..4));
            let values = [value(), value()].into_iter().collect();
            let event = Event { key, values, count: 1 };
            live.insert(number, event.clone());
            number += 1;
            events.push(event);
        }
        all.push(Happening { tick, events });
        watermark = watermark.max(EventTime(bound_time_ms - random.random_range(0..800)));
    }
    all
}
