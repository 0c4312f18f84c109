//! A small city and a pipeline over it.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use citycell::{
    binder::{BinderLimits, OnLostOffsets},
    clickhouse::ClickHouseSettings,
    config::parse_pipeline,
    engine::{EngineConfig, WritingLimits},
    pipeline::Pipeline,
};
use citycell_operators::{locate::LocatedGrid, plan::Crs};
use citycell_schemas::{Grid, Level, Place, event::shipped, grid::PlaceEntry};
use geo::{MultiPolygon, Rect, coord};

use crate::broker;

/// 2026-11-20T06:00:00Z.
pub(crate) const NOON_MS: i64 = 1_795_154_400_000;

/// Four cells of 0.001 degrees in a row from (113, 28), in two communities of one street.
pub(crate) fn grid() -> Arc<LocatedGrid> {
    grid_of_version("four-cells")
}

/// The same as another version.
pub(crate) fn grid_of_version(version: &str) -> Arc<LocatedGrid> {
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
    let grid = Arc::new(Grid::new(version.to_owned(), places));
    Arc::new(LocatedGrid::new(grid, Crs::Wgs84, (0..4).map(cell).collect()))
}

/// The same four cells as a grid file.
pub(crate) fn grid_file() -> String {
    let codes = ["430102001001001", "430102001001002", "430102001002001", "430102001002002"];
    let cell = |(number, code): (u32, &str)| {
        let west = 113.0 + 0.001 * f64::from(number);
        let east = west + 0.001;
        format!(
            r#"{{"type":"Feature","properties":{{"code":"{code}","area_m2":10000}},"geometry":{{"type":"Polygon","coordinates":[[[{west},28],[{east},28],[{east},28.001],[{west},28.001],[{west},28]]]}}}}"#
        )
    };
    let cells: Vec<String> = (0..).zip(codes).map(cell).collect();
    format!(
        r#"{{"type":"FeatureCollection","citycell":{{"crs":"wgs84","city":{{"code":"4301"}}}},"features":[{}]}}"#,
        cells.join(",")
    )
}

/// A pipeline from the text of its file.
pub(crate) fn pipeline(text: &str) -> Arc<Pipeline> {
    let parsed = parse_pipeline("test.yaml", text, &shipped());
    Arc::new(parsed.unwrap_or_else(|errors| panic!("{errors}")).into())
}

/// People per cell and minute: one value per sensor, events with ids, all levels.
pub(crate) fn crowd_flow(topic: &str) -> Arc<Pipeline> {
    named("crowd_flow", topic)
}

/// The same under another name.
pub(crate) fn named(name: &str, topic: &str) -> Arc<Pipeline> {
    pipeline(&text(name, topic))
}

/// Its file.
pub(crate) fn text(name: &str, topic: &str) -> String {
    format!(
        "
pipeline: {name}
source:
  topic: {topic}
  schema: crowd_flow
  event_time: dateObserved
  location: {{lon: lon, lat: lat, crs: wgs84}}
  late: {{allow: 10m}}
where: status is null or status <> 'test'
window: {{tumbling: 1m}}
per: {{by: [sensorId], take: last}}
group_by: [category]
aggregate:
  people: sum(peopleCount)
  peak: max(peopleCount)
  average: mean(peopleCount)
roll_up: [community, street, district, city]
"
    )
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
        cluster: None,
        limits: BinderLimits {
            tick: Duration::from_millis(100),
            idle_after: Duration::from_secs(2),
            unmarked_max: 8,
            on_lost_offsets: OnLostOffsets::Stop,
        },
        buffer_bytes_max: 16 << 20,
        writing: WritingLimits::default(),
        snapshots: None,
        archive: None,
        keys: None,
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
