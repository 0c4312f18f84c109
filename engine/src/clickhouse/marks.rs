//! Commit marks: the row in `epochs` that makes a pipeline's rows of an epoch visible, and the row
//! in `moments` that shows them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{
        ArrayRef, Int32Array, Int64Array, ListArray, StringArray, StructArray,
        TimestampMillisecondArray, UInt8Array, UInt64Array,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, Fields},
    record_batch::RecordBatch,
};
use citycell_operators::tick::Tick;
use citycell_schemas::{Epoch, EventTime};
use tokio::sync::mpsc;

use crate::{binding::PartitionRange, books::Books, clock::now_ms, crash_point::crash_point};

use super::{
    ClickHouse, ClickHouseError,
    archive::ARCHIVE,
    moments::{Moment, Moments, Turn},
    rows::arrow_stream,
    skipped,
    succession::Successor,
    writer::{self, TableBatch, TaskParts},
};

/// The records of one partition in one epoch.
#[derive(Clone, Debug)]
pub struct MarkedRange {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// Which offsets.
    pub range: PartitionRange,
}

/// One pipeline's mark of one epoch.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The pipeline.
    pub pipeline: String,
    /// Its version.
    pub version: String,
    /// What was decided on the epoch.
    pub tick: Tick,
    /// Whether all live rows were written again.
    pub keyframe: bool,
    /// Rows written to the pipeline's table.
    pub rows: u64,
    /// What became of the records.
    pub books: Books,
    /// The records, and what was skipped before them.
    pub ranges: Vec<MarkedRange>,
}

impl Mark {
    /// Where offsets were skipped, each with the first of them.
    pub(super) fn skipped(&self) -> impl Iterator<Item = (&MarkedRange, i64)> {
        self.ranges.iter().filter_map(|marked| Some((marked, marked.range.skipped_from?)))
    }

    /// Where records were read.
    fn read(&self) -> impl Iterator<Item = &MarkedRange> {
        self.ranges.iter().filter(|marked| marked.range.next_offset > marked.range.from_offset)
    }
}

/// What the task that writes marks starts with.
pub struct MarkingParts {
    /// How it writes.
    pub parts: TaskParts,
    /// The name and the version of each pipeline by index.
    pub versions: Vec<(String, String)>,
    /// The versions that are built, by index.
    pub successors: BTreeMap<usize, Successor>,
    /// Who holds the city's moment back.
    pub moments: Moments,
    /// The last epoch whose records are kept, if records are: nothing later is marked.
    pub archived: Option<Epoch>,
    /// The newest `committed_at` there is, ms since 1970.
    pub last_committed_ms: i64,
    /// Called for each mark of a pipeline, by index, once it is acknowledged, and the moment that
    /// comes with it.
    pub marked: Box<dyn Fn(usize, Epoch) + Send>,
    /// Called when a pipeline becomes stale, or healthy again.
    pub turned: Box<dyn Fn(Turn) + Send>,
    /// Called when a version that was built serves, by index.
    pub succeeded: Box<dyn Fn(usize) + Send>,
}

/// How often standings are judged while no mark comes.
const JUDGE_EVERY: Duration = Duration::from_millis(500);

/// Starts the task that writes marks and the city's moments.
#[must_use]
pub fn start(marking: MarkingParts) -> mpsc::UnboundedSender<Mark> {
    let (queue, mut marks) = mpsc::unbounded_channel::<Mark>();
    let MarkingParts { parts, versions, mut successors, mut moments, .. } = marking;
    let MarkingParts { mut archived, mut last_committed_ms, .. } = marking;
    let MarkingParts { marked, turned, succeeded, .. } = marking;
    let runtime = parts.runtime.clone();
    let index_of = move |mark: &Mark| {
        let is_its =
            |(name, version): &(String, String)| (name, version) == (&mark.pipeline, &mark.version);
        versions.iter().position(is_its)
    };
    runtime.spawn(async move {
        // Empty at first: an engine that ended between a mark and its moment left that to us.
        let mut batch = Vec::new();
        let mut held_back = Vec::new();
        loop {
            if let Some(archived) = &mut archived {
                batch.append(&mut held_back);
                held_back = not_archived(&mut batch, archived);
            }
            if !batch.is_empty() {
                // Before the marks: no marked epoch may have a gap that nobody explains.
                if let Some(rows) = skipped::rows(&batch) {
                    writer::insert(&parts, "skipped", rows).await;
                }
                crash_point("before_mark");
                // Wall time may step back; "at T" must not change its answer when it does.
                last_committed_ms = now_ms().max(last_committed_ms);
                let data = arrow_stream(&columns(&batch, last_committed_ms));
                let rows = TableBatch { table: "epochs".into(), data };
                writer::insert(&parts, "epochs", rows).await;
                crash_point("after_mark");
            }
            for mark in &batch {
                // The archive's marks hold no moment back: a pipeline's mark waits for them.
                if let Some(index) = index_of(mark) {
                    moments.marked(index, mark.tick.epoch);
                }
            }
            moments.turns(Instant::now()).into_iter().for_each(&turned);
            if let Some(moment) = moments.advance(Instant::now()) {
                let new = moment.successors.iter();
                let new: Vec<_> = new.filter_map(|index| successors.remove_entry(index)).collect();
                for (_, successor) in &new {
                    successor.succeed(&parts, moment.epoch).await;
                }
                last_committed_ms = now_ms().max(last_committed_ms);
                let data = arrow_stream(&moment_columns(&moment, last_committed_ms));
                let rows = TableBatch { table: "moments".into(), data };
                writer::insert(&parts, "moments", rows).await;
                crash_point("after_moment");
                for (index, successor) in new {
                    successor.settle(&parts).await;
                    succeeded(index);
                }
            }
            for mark in batch.drain(..) {
                let index = index_of(&mark);
                match index.filter(|index| successors.contains_key(index)) {
                    Some(_) => parts.metrics.built(&mark),
                    None => parts.metrics.marked(&mark),
                }
                if let Some(index) = index {
                    marked(index, mark.tick.epoch);
                }
            }
            match tokio::time::timeout(JUDGE_EVERY, marks.recv()).await {
                Ok(Some(first)) => batch.push(first),
                Ok(None) => return,
                Err(_nothing_came) => continue,
            }
            while let Ok(next) = marks.try_recv() {
                batch.push(next);
            }
        }
    });
    queue
}

/// Takes out the marks of epochs whose records are not kept yet. Those of the pipelines that serve come
/// after the archive's; those of versions that are built may come before.
fn not_archived(batch: &mut Vec<Mark>, archived: &mut Epoch) -> Vec<Mark> {
    let of_archive = batch.iter().filter(|mark| mark.pipeline == ARCHIVE);
    *archived = of_archive.map(|mark| mark.tick.epoch).fold(*archived, Epoch::max);
    let is_later = |mark: &mut Mark| mark.pipeline != ARCHIVE && mark.tick.epoch > *archived;
    batch.extract_if(.., is_later).collect()
}

/// The moment shown last and when the last mark or moment was committed, ms since 1970.
///
/// # Errors
/// ClickHouse's.
pub async fn last_moment(clickhouse: &ClickHouse) -> Result<(Epoch, i64), ClickHouseError> {
    let sql = "SELECT (SELECT max(epoch) FROM moments), toUnixTimestamp64Milli(greatest( \
               (SELECT max(committed_at) FROM moments), (SELECT max(committed_at) FROM epochs)))";
    let answer = clickhouse.query("read the moment", sql, "TabSeparated").await?;
    let text = String::from_utf8_lossy(&answer);
    let mut fields = text.trim().split('\t');
    let mut next = || fields.next().unwrap_or_default();
    Ok((Epoch(next().parse().unwrap_or_default()), next().parse().unwrap_or_default()))
}

fn moment_columns(moment: &Moment, committed_at_ms: i64) -> RecordBatch {
    let names = StringArray::from_iter_values(&moment.stale);
    let item = Arc::new(Field::new("item", DataType::Utf8, false));
    let lengths = OffsetBuffer::from_lengths([moment.stale.len()]);
    let committed_at = TimestampMillisecondArray::from_iter_values([committed_at_ms]);
    let columns: [(&str, ArrayRef); 3] = [
        ("epoch", Arc::new(UInt64Array::from_iter_values([moment.epoch.0]))),
        ("committed_at", Arc::new(committed_at.with_timezone("UTC"))),
        ("stale", Arc::new(ListArray::new(item, lengths, Arc::new(names), None))),
    ];
    RecordBatch::try_from_iter(columns).expect("all columns have one value")
}

/// The last marked epoch of each (pipeline, version).
///
/// # Errors
/// ClickHouse's.
pub async fn last_marked(
    clickhouse: &ClickHouse,
) -> Result<BTreeMap<(String, String), Epoch>, ClickHouseError> {
    let sql =
        "SELECT pipeline, version, toString(max(epoch)) FROM epochs GROUP BY pipeline, version";
    let answer = clickhouse.query("read the marks", sql, "TabSeparated").await?;
    let text = String::from_utf8_lossy(&answer);
    let marks = text.lines().filter_map(|line| {
        let mut fields = line.split('\t').map(str::to_owned);
        let key = (fields.next()?, fields.next()?);
        Some((key, Epoch(fields.next()?.parse().ok()?)))
    });
    Ok(marks.collect())
}

fn columns(marks: &[Mark], committed_at_ms: i64) -> RecordBatch {
    let texts = |text: fn(&Mark) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(marks.iter().map(text)))
    };
    let numbers = |number: fn(&Mark) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(marks.iter().map(number)))
    };
    let times = |time: &dyn Fn(&Mark) -> Option<i64>| -> ArrayRef {
        let values: TimestampMillisecondArray = marks.iter().map(time).collect();
        Arc::new(values.with_timezone("UTC"))
    };
    let keyframes = marks.iter().map(|mark| u8::from(mark.keyframe));
    RecordBatch::try_from_iter([
        ("pipeline", texts(|mark| &mark.pipeline)),
        ("version", texts(|mark| &mark.version)),
        ("epoch", numbers(|mark| mark.tick.epoch.0)),
        ("bound_time", times(&|mark| Some(mark.tick.bound_time_ms.max(0)))),
        (
            "watermark",
            times(&|mark| {
                Some(mark.tick.watermark).filter(|time| *time > EventTime::MIN).map(|time| time.0)
            }),
        ),
        ("committed_at", times(&|_| Some(committed_at_ms))),
        ("keyframe", Arc::new(UInt8Array::from_iter_values(keyframes))),
        ("rows", numbers(|mark| mark.rows)),
        ("records", numbers(|mark| mark.books.records())),
        ("counted", numbers(|mark| mark.books.counted)),
        ("filtered", numbers(|mark| mark.books.filtered)),
        ("rejected", numbers(|mark| mark.books.rejected)),
        ("diverted", numbers(|mark| mark.books.diverted)),
        ("duplicates", numbers(|mark| mark.books.duplicates)),
        ("withdrawals", numbers(|mark| mark.books.withdrawals)),
        ("ranges", ranges(marks)),
    ])
    .expect("all columns have one value per mark")
}

/// One list of (topic, partition, from_offset, next_offset) per mark.
fn ranges(marks: &[Mark]) -> ArrayRef {
    let all: Vec<&MarkedRange> = marks.iter().flat_map(Mark::read).collect();
    let offsets = |offset: fn(&PartitionRange) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(all.iter().map(|marked| offset(&marked.range))))
    };
    let topics = StringArray::from_iter_values(all.iter().map(|marked| &*marked.topic));
    let partitions = Int32Array::from_iter_values(all.iter().map(|marked| marked.partition));
    let fields = Fields::from(vec![
        Field::new("topic", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("from_offset", DataType::Int64, false),
        Field::new("next_offset", DataType::Int64, false),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(topics),
        Arc::new(partitions),
        offsets(|range| range.from_offset),
        offsets(|range| range.next_offset),
    ];
    let item = Arc::new(Field::new("item", DataType::Struct(fields.clone()), false));
    let lengths = OffsetBuffer::from_lengths(marks.iter().map(|mark| mark.read().count()));
    let ranges = StructArray::new(fields, columns, None);
    Arc::new(ListArray::new(item, lengths, Arc::new(ranges), None))
}
