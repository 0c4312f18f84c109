//! Small inputs for this crate's unit tests.

use citycell_schemas::{Epoch, EventTime, Offset, Place};
use smallvec::smallvec;

use crate::events::{EventId, Observation, Position, Withdrawal};
use crate::keys::Key;
use crate::lateness::Horizon;
use crate::plan::{Argument, Location, Plan, Slot, Window};
use crate::tick::Tick;

/// Windows of 1 s, 2 s of lateness, 1 s ahead at most.
pub(crate) fn horizon() -> Horizon {
    Horizon { window_ms: Some(1_000), allow_ms: 2_000, future_ms: 1_000 }
}

pub(crate) fn tick(watermark: i64, bound_time_ms: i64) -> Tick {
    Tick {
        epoch: Epoch(1),
        bound_time_ms,
        previous_bound_time_ms: i64::MIN,
        watermark: EventTime(watermark),
        snapshot: false,
    }
}

/// An observation in its window of 1 s, at place 0, with its offset as its value.
pub(crate) fn observation(id: u128, offset: i64, time: i64) -> Observation {
    let time = EventTime(time);
    Observation {
        id: Some(EventId(id)),
        time,
        position: position(offset),
        key: Key { window_start: horizon().window_start(time), ..Key::default() },
        entity: Box::from([0]),
        values: smallvec![Some(i128::from(offset))],
    }
}

/// An observation of an entity at a place.
pub(crate) fn seen(entity: u8, place: u32, time: i64, value: Option<i128>) -> Observation {
    let mut seen = observation(0, time, time);
    seen.entity = Box::from([entity]);
    seen.key.place = Place(place);
    seen.values = smallvec![value];
    seen
}

pub(crate) fn withdrawal(id: u128, broker_time_ms: i64) -> Withdrawal {
    Withdrawal { id: EventId(id), position: position(broker_time_ms), broker_time_ms }
}

fn position(offset: i64) -> Position {
    Position { offset: Offset(offset), ..Position::default() }
}

/// A plan of these slots over two arguments, of no and of two decimals.
pub(crate) fn plan(slots: Vec<Slot>) -> Plan {
    let argument = |expression: &str, scale| Argument { expression: expression.to_owned(), scale };
    Plan {
        name: "people".to_owned(),
        topics: Vec::new(),
        schema: String::new(),
        event_time: String::new(),
        location: Location::Cell { column: String::new() },
        allow_ms: 2_000,
        future_ms: 1_000,
        identified: false,
        filter: None,
        derive: Vec::new(),
        window: Window::Tumbling { size_ms: 1_000 },
        per: None,
        group_by: Vec::new(),
        arguments: vec![argument("people", 0), argument("load", 2)],
        slots,
        measures: Vec::new(),
        roll_up: Vec::new(),
        publish_every_ms: 0,
    }
}
