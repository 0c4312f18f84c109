//! Melbourne's pedestrian counts: 656,823 hourly counts of 39 sensors over three years, in no order,
//! two of them of no sensor.
//!
//! The file says local wall time, which skips an hour and repeats another every year; here, in the
//! events as in the SQL, it is taken for UTC. A count of `NaN` is sent as it is written, which is no
//! JSON; a count of a sensor without a location is sent without one. Both are rejects.

use std::{collections::BTreeMap, fs, path::Path};

use geo::Coord;
use jiff::civil::Date;

use crate::{broker::unique, store::TestStore};

use super::{assert_same_rows, data_folder, grid_around, pipeline, produce, run};

const SCHEMA: &str = include_str!("pedestrian_count_schema.yaml");
const PIPELINE: &str = include_str!("pedestrians.yaml");

/// The raw counts with their hours; the cell is empty where the sensor has no location.
const COUNTS: &str = "SELECT parseDateTimeBestEffort(Date, 'UTC') + toIntervalHour(Hour) AS hour, \
    PedestrianCount AS people, located.cell AS cell \
    FROM counts LEFT JOIN (SELECT `Sensor ID` AS sensor, cell FROM sensors CROSS JOIN shapes \
    WHERE pointInPolygon((Longitude, Latitude), ring)) AS located ON SensorID = located.sensor";

#[tokio::test(flavor = "multi_thread")]
async fn melbournes_pedestrians_per_cell_and_hour_equal_sql_over_the_raw_file() {
    let Some(folder) = data_folder("Melbourne's pedestrians") else { return };
    let folder = folder.join("melbourne_pedestrian");
    let store = TestStore::start();
    load_raw(&folder, &store).await;
    let sensors = sensors(&store).await;
    let points: Vec<Coord> = sensors.values().copied().collect();
    let grid = grid_around(&points, 100.0, &store).await;

    let topic = unique("pedestrians");
    let file = fs::read_to_string(folder.join("pedestriancounts_melbourne.csv")).unwrap();
    produce(&topic, file.lines().skip(1).map(|line| event(line, &sensors))).await;
    run(&topic, &store, &grid, vec![pipeline(SCHEMA, PIPELINE, &topic)]).await;

    let per_place = |level: &str, place: &str| {
        format!(
            "SELECT '{level}' AS level, {place} AS cell, toDateTime64(hour, 3, 'UTC') AS \
             window_start, count() AS events, sum(toFloat64(raw.people)) AS people, \
             max(toFloat64(raw.people)) AS busiest FROM ({COUNTS}) AS raw \
             WHERE raw.cell != '' AND raw.people != 'NaN' GROUP BY window_start, cell"
        )
    };
    let oracle =
        format!("{} UNION ALL {}", per_place("cell", "raw.cell"), per_place("city", "'9900'"));
    let ours = "SELECT toString(level) AS level, cell, window_start, events, \
        assumeNotNull(people) AS people, assumeNotNull(busiest) AS busiest FROM pedestrians";
    let columns = "level, cell, window_start, events, people, busiest";
    let rows = assert_same_rows(&store, columns, ours, &oracle).await;
    assert_rejects_are_accounted_for(&store).await;
    println!("Melbourne's pedestrians: {rows} rows, all as in SQL over the raw file");
}

async fn assert_rejects_are_accounted_for(store: &TestStore) {
    let expected = "SELECT if(people = 'NaN', 'not_json', 'missing_place') AS reason, count() AS rows \
        FROM (COUNTS) WHERE people = 'NaN' OR cell = '' GROUP BY reason ORDER BY reason";
    let expected = store.lines(&expected.replace("COUNTS", COUNTS)).await;
    let rejects = "SELECT reason, count() FROM rejects GROUP BY reason ORDER BY reason";
    assert_eq!(store.lines(rejects).await, expected);
    let expected = "SELECT count(), countIf(people != 'NaN' AND cell != ''), 0, \
        countIf(people = 'NaN' OR cell = ''), 0, 0, 0 FROM (COUNTS)";
    let expected = store.lines(&expected.replace("COUNTS", COUNTS)).await;
    let books = "SELECT sum(records), sum(counted), sum(filtered), sum(rejected), sum(diverted), \
        sum(duplicates), sum(withdrawals) FROM epochs";
    assert_eq!(store.lines(books).await, expected);
    println!("Melbourne's pedestrians: records, counted, filtered, rejected, ...: {expected:?}");
}

async fn load_raw(folder: &Path, store: &TestStore) {
    let counts = "CREATE TABLE counts (Date String, Day_of_week String, Hour UInt8, \
        SensorID String, SensorName String, PedestrianCount String) ENGINE = MergeTree ORDER BY ()";
    store.execute(counts).await;
    let sensors = "CREATE TABLE sensors (`Sensor ID` String, Latitude Float64, \
        Longitude Float64) ENGINE = MergeTree ORDER BY ()";
    store.execute(sensors).await;
    for (table, file) in
        [("counts", "pedestriancounts_melbourne.csv"), ("sensors", "sensor_locations.csv")]
    {
        store.insert(table, "CSVWithNames", fs::read(folder.join(file)).unwrap()).await;
    }
}

/// Where each sensor stands.
async fn sensors(store: &TestStore) -> BTreeMap<String, Coord> {
    let lines = store.lines("SELECT `Sensor ID`, Longitude, Latitude FROM sensors").await;
    let sensor = |line: &String| {
        let fields: Vec<&str> = line.split('\t').collect();
        let at = Coord { x: fields[1].parse().unwrap(), y: fields[2].parse().unwrap() };
        (fields[0].to_owned(), at)
    };
    lines.iter().map(sensor).collect()
}

/// One line of the file as an event.
fn event(line: &str, sensors: &BTreeMap<String, Coord>) -> String {
    let fields: Vec<&str> = line.split(',').collect();
    let [date, _, hour, sensor, _, people] = fields[..] else { panic!("six fields: {line}") };
    let date = Date::strptime("%d-%b-%Y", date).unwrap();
    let place = match sensors.get(sensor) {
        Some(at) => format!(r#""lon":{},"lat":{},"#, at.x, at.y),
        None => String::new(),
    };
    format!(
        r#"{{"sensorId":"{sensor}","dateObserved":"{date}T{hour:0>2}:00:00Z",{place}"people":{people}}}"#
    )
}
