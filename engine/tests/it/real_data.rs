//! Real data through the real Kafka: every row equals plain SQL over the raw files, and what was not
//! counted is accounted for.
//!
//! The data is not part of the project. These tests run when `CITYCELL_DATA` names its folder, and
//! say that they are skipped when it does not.

mod car_parks;
mod melbourne;

use std::{path::PathBuf, sync::Arc, time::Instant};

use citycell::{
    config::parse_pipeline,
    engine::{self, EngineConfig},
    grid::{
        boundaries::Boundary,
        file::City,
        generate::{GenerateOptions, generate},
        layout::Layout,
        load::{LoadedGrid, load},
    },
    pipeline::Pipeline,
};
use citycell_operators::plan::Crs;
use citycell_schemas::EventSchema;
use geo::{Coord, Rect};

use crate::{
    broker::{Sender, create_topic},
    city,
    store::TestStore,
};

/// The topics' partitions: the records of a file go round them in turn.
const PARTITIONS: i32 = 4;

/// The data's folder; without one, says which test is skipped.
fn data_folder(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("CITYCELL_DATA").map(PathBuf::from);
    if folder.is_none() {
        println!("{test}: skipped, CITYCELL_DATA does not name the data's folder");
    }
    folder
}

/// A pipeline of these texts on this topic.
fn pipeline(schema: &str, pipeline: &str, topic: &str) -> Arc<Pipeline> {
    let schema = EventSchema::from_yaml("schema.yaml", schema).unwrap();
    let text = pipeline.replace("TOPIC", topic);
    let parsed = parse_pipeline("pipeline.yaml", &text, &[schema]);
    Arc::new(parsed.unwrap_or_else(|errors| panic!("{errors}")).into())
}

/// A grid of squares over the rectangle that holds all points, and its cells as the table `shapes`.
async fn grid_around(points: &[Coord], cell_m: f64, store: &TestStore) -> LoadedGrid {
    let margin = cell_m / 100_000.0;
    let all = points.iter().fold(Rect::new(points[0], points[0]), |all, point| {
        let (min, max) = (all.min(), all.max());
        Rect::new(
            Coord { x: min.x.min(point.x), y: min.y.min(point.y) },
            Coord { x: max.x.max(point.x), y: max.y.max(point.y) },
        )
    });
    let margin = Coord { x: margin, y: margin };
    let shape = Rect::new(all.min() - margin, all.max() + margin).to_polygon().into();
    let options = GenerateOptions {
        crs: Crs::Wgs84,
        city: City { code: "9900".into(), name: "all".into() },
        layout: Layout::default(),
        cell_m,
        community_cells: 10,
        street_communities: 3,
        valid_from: None,
    };
    let boundary = Boundary { code: "990001".into(), name: "all".into(), shape };
    let file = generate(&[boundary], &options).unwrap();
    let written = tempfile::NamedTempFile::new().unwrap();
    file.write(&mut written.as_file()).unwrap();
    let grid = load(written.path()).unwrap();
    write_shapes(&grid, store).await;
    grid
}

async fn write_shapes(grid: &LoadedGrid, store: &TestStore) {
    let shapes = grid.cells.iter().fold(String::new(), |text, cell| {
        let ring = cell.shape.0[0].exterior().points();
        let ring: Vec<String> =
            ring.map(|point| format!("({},{})", point.x(), point.y())).collect();
        text + &format!("{}\t[{}]\n", cell.code, ring.join(","))
    });
    store
        .execute(
            "CREATE TABLE shapes (cell String, ring Array(Tuple(Float64, Float64))) \
             ENGINE = MergeTree ORDER BY cell",
        )
        .await;
    store.insert("shapes", "TabSeparated", shapes.into_bytes()).await;
}

/// Sends records to the topic, round its partitions in turn.
async fn produce(topic: &str, records: impl Iterator<Item = String>) {
    let started = Instant::now();
    create_topic(topic, PARTITIONS).await;
    let sender = Sender::new();
    let mut count = 0;
    for (record, partition) in records.zip((0..PARTITIONS).cycle()) {
        sender.send(topic, partition, Some(record.as_bytes()));
        count += 1;
    }
    sender.flush();
    println!("{topic}: {count} records produced in {:.1?}", started.elapsed());
}

/// Runs the pipelines over everything in their topics.
async fn run(topic: &str, store: &TestStore, grid: &LoadedGrid, pipelines: Vec<Arc<Pipeline>>) {
    let started = Instant::now();
    let config = city::config(topic, store.settings(), pipelines);
    let config = EngineConfig { grid: Arc::clone(&grid.located), ..config };
    let engine = engine::start(config).await.unwrap();
    engine.drain();
    tokio::task::spawn_blocking(|| engine.wait()).await.unwrap().unwrap();
    println!("{topic}: counted, written and marked in {:.1?}", started.elapsed());
}

/// Two queries with these columns have the same rows, each of them once. Returns how many.
async fn assert_same_rows(store: &TestStore, columns: &str, ours: &str, oracle: &str) -> u64 {
    let both = format!(
        "(SELECT {columns}, 1 AS side FROM ({ours}) UNION ALL \
         SELECT {columns}, -1 AS side FROM ({oracle}))"
    );
    let different = format!(
        "SELECT {columns}, sum(side), count() FROM {both} \
         GROUP BY {columns} HAVING sum(side) != 0 OR count() != 2 ORDER BY {columns} LIMIT 10"
    );
    assert_eq!(store.lines(&different).await, Vec::<String>::new());
    store.lines(&format!("SELECT count() FROM ({ours})")).await[0].parse().unwrap()
}
