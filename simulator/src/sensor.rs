//! The sensors, and what each of them says.

use jiff::Timestamp;
use jiff::tz::Offset;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::District;
use crate::district::rounded;
use crate::record::{Planted, SimulatedRecord};
use crate::rhythm::activity;
use crate::stream::Stream;

const PLACES: [&str; 4] = ["mall", "metro", "square", "street"];
const SPACES: [&str; 4] = ["public", "resident", "disabled", "charging"];
const VEHICLES: [&str; 4] = ["car", "bus", "lorry", "van"];
const POLLUTANTS: [(&str, f64); 6] =
    [("pm25", 60.0), ("pm10", 110.0), ("no2", 45.0), ("so2", 12.0), ("o3", 130.0), ("co", 900.0)];

/// Something that is somewhere in the district and reports.
#[derive(Clone, Debug)]
pub(crate) struct Sensor {
    pub(crate) stream: Stream,
    pub(crate) id: String,
    pub(crate) partition: i32,
    /// How far its clock runs ahead.
    pub(crate) clock_ahead_ms: i64,
    cell_code: String,
    lon: f64,
    lat: f64,
    number: u32,
    /// How much goes on where it stands, about 1.
    size: f64,
    occupied: bool,
    events: u64,
}

impl Sensor {
    /// Sensor `number` of `stream`, somewhere in the district.
    pub(crate) fn place(
        stream: Stream,
        number: u32,
        district: &District,
        rng: &mut StdRng,
    ) -> Self {
        let cell = &district.cells()[rng.random_range(0..district.cells().len())];
        // A tenth of a cell from its border: what the coordinates' detour over GCJ-02 costs in
        // precision can then never move a sensor to the neighbour.
        let (east, south) = (rng.random_range(0.1..0.9), rng.random_range(0.1..0.9));
        let (lon, lat) = sent_as(stream, district.point_in(cell, east, south));
        Self {
            stream,
            id: format!("{}-{number:05}", stream.schema()),
            partition: 0,
            clock_ahead_ms: if number % 100 == 17 { 20_000 } else { 0 },
            cell_code: cell.code.clone(),
            lon,
            lat,
            number,
            size: rng.random_range(0.2_f64..2.0).powi(2),
            occupied: rng.random_bool(0.5),
            events: 0,
        }
    }

    /// Its next event, which happened at `event_time_ms` and is sent at `now_ms`.
    pub(crate) fn event(
        &mut self,
        event_time_ms: i64,
        now_ms: i64,
        rng: &mut StdRng,
    ) -> (SimulatedRecord, Value) {
        self.events += 1;
        let payload = self.payload(event_time_ms, rng);
        let recorded_ms = event_time_ms + rng.random_range(0..200);
        let headers = vec![
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", format!("{}-{}", self.id, self.events)),
            ("ce_source", format!("/simulator/{}", self.stream.schema())),
            ("ce_type", self.stream.topic().to_owned()),
            ("ce_time", utc(event_time_ms)),
            ("ce_recordedtime", utc(recorded_ms)),
            ("content-type", "application/json".to_owned()),
        ];
        let record = SimulatedRecord {
            topic: self.stream.topic(),
            partition: self.partition,
            key: self.id.clone(),
            payload: Some(payload.to_string().into_bytes()),
            headers,
            broker_time_ms: now_ms,
            planted: Planted::OnTime,
        };
        (record, payload)
    }

    /// What it says of the moment `event_time_ms`.
    pub(crate) fn payload(&mut self, event_time_ms: i64, rng: &mut StdRng) -> Value {
        let mut payload = json!({
            self.stream.sensor_field(): self.id,
            "dateObserved": local(event_time_ms),
            "lon": self.lon,
            "lat": self.lat,
            "gridCode": self.cell_code,
        });
        let busy = activity(event_time_ms) * self.size * rng.random_range(0.7..1.3);
        let measured = match self.stream {
            Stream::CrowdFlow => self.people(busy, rng),
            Stream::Parking => self.space(busy, rng),
            Stream::Environment => self.air(busy, rng),
            Stream::Traffic => self.vehicles(busy, rng),
        };
        for (name, value) in measured.as_object().into_iter().flatten() {
            payload[name] = value.clone();
        }
        payload
    }

    fn people(&self, busy: f64, rng: &mut StdRng) -> Value {
        let count = (120.0 * busy) as i64;
        let towards = rng.random_range(0..=count);
        json!({
            "category": PLACES[self.number as usize % 4],
            "status": if self.number % 50 == 49 { "test" } else { "actual" },
            "peopleCount": count,
            "peopleCountTowards": towards,
            "peopleCountAway": count - towards,
            "capacity": 100 + i64::from(self.number % 10) * 50,
        })
    }

    fn space(&mut self, busy: f64, rng: &mut StdRng) -> Value {
        if rng.random_bool(0.3) {
            self.occupied = rng.random_bool((0.3 + 0.4 * busy).min(0.95));
        }
        let status = match (rng.random_range(0..200), self.occupied) {
            (0, _) => "closed",
            (1, _) => "unknown",
            (_, true) => "occupied",
            (_, false) => "free",
        };
        json!({
            "siteId": format!("site-{:03}", self.number / 20),
            "status": status,
            "category": SPACES[self.number as usize % 4],
        })
    }

    fn air(&self, busy: f64, rng: &mut StdRng) -> Value {
        let (pollutant, usual) = POLLUTANTS[rng.random_range(0..POLLUTANTS.len())];
        let value = usual * (0.4 + 0.6 * busy);
        let quality = match rng.random_range(0..100) {
            0 => "suspect",
            1 => "calibration",
            _ => "valid",
        };
        json!({
            "pollutant": pollutant,
            "value": (value * 1_000.0).round() / 1_000.0,
            "unit": "ug/m3",
            "quality": quality,
        })
    }

    fn vehicles(&self, busy: f64, rng: &mut StdRng) -> Value {
        let intensity = (40.0 * busy) as i64;
        let speed = (60.0 - 25.0 * busy + rng.random_range(-4.0..4.0)).max(3.0);
        json!({
            "laneId": self.number % 4,
            "vehicleType": VEHICLES[rng.random_range(0..4)],
            "intensity": intensity,
            "averageVehicleSpeed": (speed * 1_000.0).round() / 1_000.0,
            "occupancy": (busy / 8.0 * 1e6).round() / 1e6,
            "congested": speed < 20.0,
        })
    }
}

/// A WGS 84 point in the coordinate system of its stream.
fn sent_as(stream: Stream, (lon, lat): (f64, f64)) -> (f64, f64) {
    match stream {
        Stream::CrowdFlow | Stream::Parking | Stream::Traffic => {
            let (lon, lat) = coordtransform::wgs84_to_gcj02(lon, lat);
            (rounded(lon), rounded(lat))
        }
        Stream::Environment => (lon, lat),
    }
}

/// RFC 3339 in UTC. The simulator's clock keeps to the years that jiff knows.
pub(crate) fn utc(time_ms: i64) -> String {
    Timestamp::from_millisecond(time_ms).unwrap_or_default().to_string()
}

/// RFC 3339 in Changsha's own time.
pub(crate) fn local(time_ms: i64) -> String {
    let timestamp = Timestamp::from_millisecond(time_ms).unwrap_or_default();
    timestamp.display_with_offset(Offset::constant(8)).to_string()
}
