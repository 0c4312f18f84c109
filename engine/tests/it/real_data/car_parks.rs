//! Three days of German car parks: one column per car park, one row per reading time.
//!
//! Dirty as they are. An empty value was not recorded, so it is no event. A negative one is outside
//! the schema's range, one of a car park without a location has no place, one whose longitude and
//! latitude are swapped lies outside the grid: all are rejects. One above the capacity is filtered. The last reading of each car park counts: of each hour in one pipeline,
//! of all time in another. Every reading is sent twice, to two partitions, and counts once.

use std::{collections::BTreeMap, fs, path::Path};

use geo::Coord;

use crate::{broker::unique, store::TestStore};

use super::{assert_same_rows, data_folder, grid_around, pipeline, produce, run};

const SCHEMA: &str = include_str!("car_park_schema.yaml");
const HOURLY: &str = include_str!("parking_hourly.yaml");
const NOW: &str = include_str!("parking_now.yaml");
const DAYS: [&str; 3] = ["2020-07-01", "2020-07-02", "2020-07-03"];

/// A car park as its operator describes it.
#[derive(Clone, Copy)]
struct CarPark {
    at: Option<Coord>,
    capacity: Option<u32>,
}

#[tokio::test(flavor = "multi_thread")]
async fn german_car_parks_per_cell_equal_sql_over_the_raw_files() {
    let Some(folder) = data_folder("German car parks") else { return };
    let folder = folder.join("parking_de");
    let store = TestStore::start();
    load_raw(&folder, &store).await;
    let car_parks = car_parks(&store).await;
    let points: Vec<Coord> = car_parks.values().filter_map(|car_park| car_park.at).collect();
    let points: Vec<Coord> = points.into_iter().filter(|at| at.x < at.y).collect();
    let grid = grid_around(&points, 10_000.0, &store).await;
    write_readings(&store).await;

    let topic = unique("car-parks");
    let days = DAYS.map(|day| fs::read_to_string(folder.join(format!("{day}.csv"))).unwrap());
    let events: Vec<String> = days.iter().flat_map(|day| events(day, &car_parks)).collect();
    produce(&topic, events.into_iter().flat_map(|event| [event.clone(), event])).await;
    let pipelines = [HOURLY, NOW].map(|text| pipeline(SCHEMA, text, &topic));
    run(&topic, &store, &grid, pipelines.to_vec()).await;

    let hour = "toDateTime64(toStartOfHour(at), 3, 'UTC')";
    for (view, window) in [("parking_hourly", hour), ("parking_now", "toDateTime64(0, 3, 'UTC')")] {
        let per_place = |level: &str, place: &str| {
            format!(
                "SELECT '{level}' AS level, {place} AS cell, window_start, count() AS car_parks, \
                 sum(last) AS free FROM (SELECT {window} AS window_start, place_id, any(cell) AS \
                 cell, argMax(free, at) AS last FROM readings WHERE outcome = 'counted' \
                 GROUP BY window_start, place_id) AS latest GROUP BY window_start, cell"
            )
        };
        let oracle = format!(
            "{} UNION ALL {}",
            per_place("cell", "latest.cell"),
            per_place("city", "'9900'")
        );
        let ours = format!(
            "SELECT toString(level) AS level, cell, window_start, \
             toUInt64(assumeNotNull(car_parks)) AS car_parks, \
             toInt64(assumeNotNull(free)) AS free FROM {view}"
        );
        let columns = "level, cell, window_start, car_parks, free";
        let rows = assert_same_rows(&store, columns, &ours, &oracle).await;
        println!("{view}: {rows} rows, all as in SQL over the raw files");
    }
    for pipeline in ["parking_hourly", "parking_now"] {
        assert_everything_is_accounted_for(&store, pipeline).await;
    }
}

async fn assert_everything_is_accounted_for(store: &TestStore, pipeline: &str) {
    let expected = "SELECT outcome, 2 * count() FROM readings \
        WHERE outcome NOT IN ('counted', 'filtered') GROUP BY outcome ORDER BY outcome";
    let rejects = format!(
        "SELECT reason, count() FROM rejects WHERE pipeline = '{pipeline}' \
         GROUP BY reason ORDER BY reason"
    );
    assert_eq!(store.lines(&rejects).await, store.lines(expected).await, "{pipeline}");
    let expected = "SELECT 2 * count(), countIf(outcome = 'counted'), \
        2 * countIf(outcome = 'filtered'), 2 * countIf(outcome NOT IN ('counted', 'filtered')), \
        0, countIf(outcome = 'counted'), 0 FROM readings";
    let books = format!(
        "SELECT sum(records), sum(counted), sum(filtered), sum(rejected), sum(diverted), \
         sum(duplicates), sum(withdrawals) FROM epochs WHERE pipeline = '{pipeline}'"
    );
    let books = store.lines(&books).await;
    assert_eq!(books, store.lines(expected).await, "{pipeline}");
    println!(
        "{pipeline}: records, counted, filtered, rejected, diverted, duplicates, withdrawals: {books:?}"
    );
}

/// The files as they are: lines of the wide table and the descriptions of the car parks.
async fn load_raw(folder: &Path, store: &TestStore) {
    store
        .execute(
            "CREATE TABLE car_parks (place_id String, num_all Nullable(UInt32), \
             latitude Nullable(Float64), longitude Nullable(Float64)) ENGINE = MergeTree ORDER BY ()",
        )
        .await;
    let described = fs::read_to_string(folder.join("meta-data.csv")).unwrap();
    store.insert("car_parks", "CSVWithNames", described.trim_end().into()).await;
    for (number, day) in DAYS.iter().enumerate() {
        let table = format!("day_{number}");
        store.execute(&format!("CREATE TABLE {table} (line String) ENGINE = Memory")).await;
        let lines = fs::read(folder.join(format!("{day}.csv"))).unwrap();
        store.insert(&table, "LineAsString", lines).await;
    }
}

/// The table of all recorded readings, each with what must become of it.
async fn write_readings(store: &TestStore) {
    store
        .execute(
            "CREATE TABLE readings (place_id String, at DateTime('UTC'), free Int64, cell String, \
             outcome String) ENGINE = MergeTree ORDER BY ()",
        )
        .await;
    for number in 0..DAYS.len() {
        let recorded = format!(
            "SELECT parseDateTimeBestEffort(fields[1], 'UTC') AS at, reading.1 AS place_id, \
             toInt64(reading.2) AS free \
             FROM (SELECT splitByChar(',', replaceOne(line, '\\r', '')) AS fields FROM day_{number}) AS lines \
             CROSS JOIN (SELECT splitByChar(',', replaceOne(line, '\\r', '')) AS names FROM day_{number} \
             WHERE startsWith(line, 'timestamp')) AS header \
             ARRAY JOIN arrayZip(arraySlice(names, 2), arraySlice(fields, 2)) AS reading \
             WHERE fields[1] != 'timestamp' AND reading.2 != ''"
        );
        let insert = format!(
            "INSERT INTO readings SELECT place_id, at, free, cell, \
             multiIf(free < 0, 'out_of_range', free > capacity, 'filtered', \
             latitude IS NULL, 'missing_place', cell = '', 'outside_grid', 'counted') \
             FROM ({recorded}) AS recorded LEFT JOIN (SELECT place_id, num_all AS capacity, \
             latitude FROM car_parks) AS described USING place_id \
             LEFT JOIN (SELECT place_id, cell FROM car_parks CROSS JOIN shapes \
             WHERE latitude IS NOT NULL AND pointInPolygon((assumeNotNull(longitude), \
             assumeNotNull(latitude)), ring)) AS located USING place_id"
        );
        store.execute(&insert).await;
    }
}

async fn car_parks(store: &TestStore) -> BTreeMap<String, CarPark> {
    let sql = "SELECT place_id, longitude, latitude, num_all FROM car_parks";
    let car_park = |line: &String| {
        let fields: Vec<&str> = line.split('\t').collect();
        let number = |index: usize| fields[index].parse::<f64>().ok();
        let at = number(1).zip(number(2)).map(|(x, y)| Coord { x, y });
        (fields[0].to_owned(), CarPark { at, capacity: fields[3].parse().ok() })
    };
    store.lines(sql).await.iter().map(car_park).collect()
}

/// The recorded values of one day's file as events.
fn events(day: &str, car_parks: &BTreeMap<String, CarPark>) -> Vec<String> {
    let mut lines = day.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().unwrap();
    let mut events = Vec::new();
    for fields in lines {
        for (name, free) in names.iter().zip(&fields).skip(1).filter(|(_, free)| !free.is_empty()) {
            events.push(event(name, fields[0], free, car_parks.get(*name)));
        }
    }
    events
}

fn event(name: &str, at: &str, free: &str, car_park: Option<&CarPark>) -> String {
    let place = car_park.and_then(|car_park| car_park.at);
    let place = place.map_or(String::new(), |at| format!(r#""lon":{},"lat":{},"#, at.x, at.y));
    let capacity = car_park.and_then(|car_park| car_park.capacity);
    let capacity = capacity.map_or(String::new(), |all| format!(r#""capacity":{all},"#));
    format!(
        r#"{{"placeId":"{name}","readAt":"{at}","dateObserved":"{at}",{place}{capacity}"free":{free}}}"#
    )
}
