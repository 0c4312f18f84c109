//! The stateless left side of one pipeline: decoded batches become observations in their window,
//! place and group, and everything that does not become one is entered in the books.
//!
//! The order is fixed, and each row has exactly one outcome: an event too far in the future is a
//! reject whatever else it is; then `derive` and `where` (see [`crate::select`]); then the place;
//! then lateness.

use std::{rc::Rc, sync::Arc};

use arrow::{
    array::{Array, AsArray, Decimal128Array, TimestampMillisecondArray, UInt32Array},
    compute::take_record_batch,
    datatypes::{Float64Type, Schema, TimestampMillisecondType},
    record_batch::RecordBatch,
};
use citycell_schemas::{EventTime, Offset, Place};
use serde::{Deserialize, Serialize};

use crate::{
    decode::Decoded,
    events::{Events, Observation, Outcome, Position, Reason, Reject},
    expression::ExpressionError,
    keys::{Key, Values},
    lateness::{Horizon, Timeliness},
    locate::{LocatedGrid, Locator},
    plan::{Location, Plan},
    records::Records,
    select::{RowCodec, Select, Selected},
    tick::Tick,
};

/// Decoded records of one partition with the decisions of their epoch.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The decisions.
    pub tick: Tick,
    /// The records as they came, for the bytes of rejects.
    pub records: Rc<Records>,
    /// What decoding made of them.
    pub decoded: Rc<Decoded>,
}

/// An event that came too late to be counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Late {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
    /// The record's offset.
    pub offset: Offset,
    /// When it happened.
    pub time: EventTime,
    /// The watermark it was judged by.
    pub watermark: EventTime,
}

/// What a batch became, apart from observations.
#[derive(Clone, Debug, Default)]
pub struct Aside {
    /// Records that cannot be counted.
    pub rejects: Vec<Reject>,
    /// Events that came too late.
    pub late: Vec<Late>,
    /// Records by outcome, as far as it is decided here.
    pub books: Vec<(Outcome, u64)>,
    /// The newest event time that was not in the future.
    pub reached: Option<EventTime>,
}

/// One pipeline's left side.
pub struct Prepare {
    /// The pipeline's topics, sorted: their order decides between equal times, and their numbers
    /// outlive a restart with other pipelines beside this one.
    topics: Vec<String>,
    select: Select,
    locator: Locator,
    location: Location,
    event_time: String,
    horizon: Horizon,
    identified: bool,
}

impl Prepare {
    /// The left side of `plan` over decoded columns of `schema`.
    ///
    /// # Errors
    /// Those of [`Select::new`]; none for a plan that was checked.
    pub fn new(
        plan: &Plan,
        schema: &Schema,
        grid: Arc<LocatedGrid>,
    ) -> Result<Self, ExpressionError> {
        let mut topics = plan.topics.clone();
        topics.sort_unstable();
        Ok(Self {
            topics,
            select: Select::new(plan, schema)?,
            locator: Locator::new(grid),
            location: plan.location.clone(),
            event_time: plan.event_time.clone(),
            horizon: Horizon::of(plan),
            identified: plan.identified,
        })
    }

    /// Decodes the groups of the observations' keys.
    #[must_use]
    pub fn group_codec(&self) -> &RowCodec {
        self.select.group_codec()
    }

    /// Hands each observation of `batch` to `observe` and returns what else became of it.
    pub fn prepare(&self, batch: &Batch, mut observe: impl FnMut(Observation)) -> Aside {
        self.each(batch, |row| observe(row.observation()))
    }

    /// Hands each row of `batch` that counts to `take`, without making an observation of it, and
    /// returns what else became of the batch.
    pub(crate) fn each(&self, batch: &Batch, take: impl FnMut(InTime<'_>)) -> Aside {
        let events = &batch.decoded.events;
        let mut aside = Aside::default();
        aside.rejects.clone_from(&batch.decoded.rejects);
        let rejected = |row: u32, reason, field: &str, detail: String| {
            reject(batch, row, reason, field, detail)
        };
        let times = self.times(&events.columns);
        // 1. The future, before anything else: it must not move the watermark.
        let present = self.present(batch, times, &mut aside);
        let selected = match &present {
            None => self.select.select(&events.columns),
            Some(rows) => self.select.select(&rows_of(&events.columns, rows)),
        };
        // 2. Rows of the selection as rows of the batch.
        let row_of = |row: u32| present.as_ref().map_or(row, |rows| rows.value(row as usize));
        aside.rejects.extend(selected.rejects.iter().map(|fault| {
            rejected(row_of(fault.row), fault.reason, &fault.field, fault.detail.clone())
        }));
        // 3. Place and lateness.
        let rows = Rows { events, times, selected: &selected, row_of: &row_of };
        let counted = self.count(batch, &rows, &mut aside, take);
        let withdrawals = batch.decoded.withdrawals.len() as u64;
        aside.books = vec![
            (Outcome::Filtered, selected.filtered as u64),
            (Outcome::Rejected, aside.rejects.len() as u64),
            (Outcome::Diverted, aside.late.len() as u64),
        ];
        if !self.identified {
            // With ids, `duplicates` decides what is counted and what is a withdrawal.
            aside.books.push((Outcome::Counted, counted));
            aside.books.push((Outcome::Withdrawal, withdrawals));
        }
        aside
    }

    fn times<'a>(&self, columns: &'a RecordBatch) -> &'a TimestampMillisecondArray {
        columns
            .column_by_name(&self.event_time)
            .expect("a checked plan's event time is among the decoded columns")
            .as_primitive::<TimestampMillisecondType>()
    }

    /// The rows that are not in the future; none if that is all of them.
    fn present(
        &self,
        batch: &Batch,
        times: &TimestampMillisecondArray,
        aside: &mut Aside,
    ) -> Option<UInt32Array> {
        let broker_times_ms = &batch.decoded.events.broker_times_ms;
        let mut future = Vec::new();
        for (row, (time, broker_time_ms)) in times.values().iter().zip(broker_times_ms).enumerate()
        {
            let time = EventTime(*time);
            if self.horizon.is_future(time, *broker_time_ms) {
                future.push(row as u32);
            } else {
                aside.reached = aside.reached.max(Some(time));
            }
        }
        if future.is_empty() {
            return None;
        }
        for row in &future {
            let ahead_ms = times.value(*row as usize) - broker_times_ms[*row as usize];
            let detail = format!("{ahead_ms} ms ahead of its broker timestamp");
            aside.rejects.push(reject(batch, *row, Reason::Future, &self.event_time, detail));
        }
        let is_present = |row: &u32| future.binary_search(row).is_err();
        Some(UInt32Array::from_iter_values((0..times.len() as u32).filter(is_present)))
    }

    fn count(
        &self,
        batch: &Batch,
        rows: &Rows<'_>,
        aside: &mut Aside,
        mut take: impl FnMut(InTime<'_>),
    ) -> u64 {
        let (events, selected) = (rows.events, rows.selected);
        let topic = self.topic(&batch.records.topic);
        let places = self.places(&selected.columns);
        let mut counted = 0;
        for (index, (row, place)) in selected.kept.iter().zip(places).enumerate() {
            let row = (rows.row_of)(*row);
            let time = EventTime(rows.times.value(row as usize));
            let Some(place) = place else {
                aside.rejects.push(self.lost(batch, row, &selected.columns, index));
                continue;
            };
            let broker_time_ms = events.broker_times_ms[row as usize];
            match self.horizon.classify(time, broker_time_ms, &batch.tick) {
                Timeliness::InTime(window_start) => {
                    counted += 1;
                    let position = Position {
                        topic,
                        partition: events.partition,
                        offset: events.offsets[row as usize],
                    };
                    take(InTime {
                        events,
                        selected,
                        row,
                        index,
                        position,
                        time,
                        window_start,
                        place,
                    });
                }
                Timeliness::Late | Timeliness::Future => aside.late.push(Late {
                    topic: Arc::clone(&batch.records.topic),
                    partition: batch.records.partition,
                    offset: events.offsets[row as usize],
                    time,
                    watermark: batch.tick.watermark,
                }),
            }
        }
        counted
    }

    /// The number of a topic among the pipeline's own.
    fn topic(&self, name: &str) -> u16 {
        let index = self.topics.iter().position(|topic| topic == name);
        index.and_then(|index| u16::try_from(index).ok()).unwrap_or(u16::MAX)
    }

    fn places(&self, columns: &RecordBatch) -> Vec<Option<Place>> {
        let column = |name: &str| {
            columns
                .column_by_name(name)
                .expect("a checked plan's place is among the decoded columns")
        };
        match &self.location {
            Location::Cell { column: code } => {
                self.locator.locate_codes(column(code).as_string::<i32>())
            }
            Location::Point { lon, lat, crs } => self.locator.locate_points(
                column(lon).as_primitive::<Float64Type>(),
                column(lat).as_primitive::<Float64Type>(),
                *crs,
            ),
        }
    }

    /// The reject of a row without a cell.
    fn lost(&self, batch: &Batch, row: u32, columns: &RecordBatch, index: usize) -> Reject {
        let fields = match &self.location {
            Location::Cell { column } => vec![column],
            Location::Point { lon, lat, .. } => vec![lon, lat],
        };
        let is_missing =
            |name: &&&String| columns.column_by_name(name).is_none_or(|all| all.is_null(index));
        match fields.iter().find(is_missing) {
            Some(field) => {
                let detail = format!("{field} is missing, so the event has no place");
                reject(batch, row, Reason::MissingPlace, field, detail)
            }
            None => {
                let detail = "the place is in no cell of the grid".to_owned();
                reject(batch, row, Reason::OutsideGrid, fields[0], detail)
            }
        }
    }
}

/// A row that counts.
pub(crate) struct InTime<'a> {
    events: &'a Events,
    selected: &'a Selected,
    /// Its index in the batch.
    row: u32,
    /// Its index in the selection.
    index: usize,
    position: Position,
    time: EventTime,
    pub(crate) window_start: EventTime,
    pub(crate) place: Place,
}

impl<'a> InTime<'a> {
    /// Its group columns, encoded.
    pub(crate) fn group(&self) -> &'a [u8] {
        self.selected.groups.get(self.index)
    }

    /// One value per argument of the plan.
    pub(crate) fn values(&self) -> Values {
        values(&self.selected.arguments, self.index)
    }

    fn observation(&self) -> Observation {
        Observation {
            id: self.events.ids.get(self.row as usize).copied(),
            time: self.time,
            position: self.position,
            key: Key {
                window_start: self.window_start,
                place: self.place,
                group: self.group().into(),
            },
            entity: self.selected.entities.get(self.index).into(),
            values: self.values(),
        }
    }
}

/// The rows of a batch that `where` kept.
struct Rows<'a> {
    events: &'a Events,
    times: &'a TimestampMillisecondArray,
    selected: &'a Selected,
    row_of: &'a dyn Fn(u32) -> u32,
}

fn rows_of(columns: &RecordBatch, rows: &UInt32Array) -> RecordBatch {
    take_record_batch(columns, rows).expect("the rows are rows of the batch")
}

fn values(arguments: &[Decimal128Array], row: usize) -> Values {
    let value = |array: &Decimal128Array| array.is_valid(row).then(|| array.value(row));
    match arguments {
        [only] => Values::from_buf([value(only)]),
        _ => arguments.iter().map(value).collect(),
    }
}

fn reject(batch: &Batch, row: u32, reason: Reason, field: &str, detail: String) -> Reject {
    let offset = batch.decoded.events.offsets[row as usize];
    let record = batch.records.offsets.binary_search(&offset);
    let payload = record.ok().and_then(|record| batch.records.payload(record));
    Reject {
        topic: Arc::clone(&batch.records.topic),
        partition: batch.records.partition,
        offset,
        broker_time_ms: batch.decoded.events.broker_times_ms[row as usize],
        reason,
        field: field.to_owned(),
        detail,
        payload: payload.unwrap_or_default().to_vec(),
    }
}
