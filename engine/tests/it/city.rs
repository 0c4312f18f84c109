//! A small city and a pipeline over it.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use citycell::{
    binder::BinderLimits, clickhouse::ClickHouseSettings, engine::EngineConfig, pipeline::Pipeline,
};
use citycell_operators::{
    decode::{DecodeOptions, IdSource},
    locate::LocatedGrid,
    plan::{Argument, Crs, Location, Measure, Per, Plan, Slot, Take, Window},
};
use citycell_schemas::{EventSchema, Grid, Level, Place, event::shipped, grid::PlaceEntry};
use geo::{MultiPolygon, Rect, coord};

use crate::broker;

/// 2026-11-20T06:00:00Z.
pub(crate) const NOON_MS: i64 = 1_795_154_400_000;

/// Four cells of 0.001 degrees in a row from (113, 28), in two communities of one street.
pub(crate) fn grid() -> Arc<LocatedGrid> {
    let place = |code: &str, level, parent| PlaceEntry {
        code: code.to_owned(),
        name: String::new(),
        level,
        parent: Some(Place(parent)),
        area_m2: 10_000.0,
    };
    let mut places = vec![
        place("430102001001001", Level::Cell, 4),
        place("430102001001002", Level::Cell, 4),
        place("430102001002001", Level::Cell, 5),
        place("430102001002002", Level::Cell, 5),
        place("430102001001", Level::Community, 6),
        place("430102001002", Level::Community, 6),
        place("430102001", Level::Street, 7),
        place("430102", Level::District, 8),
        place("4301", Level::City, 0),
    ];
    places[8].parent = None;
    let cell = |number: u32| {
        let west = 113.0 + 0.001 * f64::from(number);
        let square = Rect::new(coord! { x: west, y: 28.0 }, coord! { x: west + 0.001, y: 28.001 });
        (Place(number), MultiPolygon::from(square.to_polygon()))
    };
    let grid = Arc::new(Grid::new("four-cells".into(), places));
    Arc::new(LocatedGrid::new(grid, Crs::Wgs84, (0..4).map(cell).collect()))
}

fn schema() -> Arc<EventSchema> {
    Arc::new(shipped().into_iter().find(|schema| schema.name == "crowd_flow").unwrap())
}

/// People per cell and minute: one value per sensor, events with ids, all levels.
pub(crate) fn crowd_flow(topic: &str) -> Arc<Pipeline> {
    let column =
        |name: &str, slot| Measure { name: name.into(), expression: format!("slot_{slot}") };
    let plan = Plan {
        name: "crowd_flow".into(),
        topics: vec![topic.into()],
        schema: "crowd_flow".into(),
        event_time: "dateObserved".into(),
        location: Location::Point { lon: "lon".into(), lat: "lat".into(), crs: Crs::Wgs84 },
        allow_ms: 10 * 60_000,
        future_ms: 5 * 60_000,
        identified: true,
        filter: Some("status is null or status <> 'test'".into()),
        derive: vec![],
        window: Window::Tumbling { size_ms: 60_000 },
        per: Some(Per { by: vec!["sensorId".into()], take: Take::Last }),
        group_by: vec!["category".into()],
        arguments: vec![Argument { expression: "peopleCount".into(), scale: 0 }],
        slots: vec![Slot::Sum(0), Slot::Max(0), Slot::Mean(0)],
        measures: vec![column("people", 0), column("peak", 1), column("average", 2)],
        roll_up: vec![Level::Community, Level::Street, Level::District, Level::City],
        publish_every_ms: 0,
    };
    let decode = DecodeOptions { ids: IdSource::CloudEvents, ..DecodeOptions::default() };
    Arc::new(Pipeline::new(plan, schema(), decode).unwrap())
}

/// An engine on the test broker and this ClickHouse.
pub(crate) fn config(
    deployment: &str,
    clickhouse: ClickHouseSettings,
    pipelines: Vec<Arc<Pipeline>>,
) -> EngineConfig {
    EngineConfig {
        deployment: deployment.to_owned(),
        kafka: broker::settings(),
        clickhouse,
        pipelines,
        grid: grid(),
        workers: NonZeroUsize::new(2).unwrap(),
        limits: BinderLimits {
            tick: Duration::from_millis(100),
            idle_after: Duration::from_secs(2),
            unmarked_max: 8,
        },
        buffer_bytes_max: 16 << 20,
    }
}

/// A structured CloudEvent of one sensor in the cell of this number.
pub(crate) fn event(id: &str, second: i64, cell: u32, sensor: &str, people: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(NOON_MS + 1000 * second).unwrap();
    let lon = 113.0005 + 0.001 * f64::from(cell);
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"city.crowd.flow","data":{{"sensorId":"{sensor}","dateObserved":"{time}","lon":{lon},"lat":28.0005,"category":"mall","peopleCount":{people}}}}}"#
    )
}

/// Takes an event back.
pub(crate) fn withdrawal(id: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"city.crowd.flow"}}"#)
}
