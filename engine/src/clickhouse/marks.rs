//! Commit marks: the row in `epochs` that makes a pipeline's rows of an epoch visible.

use std::{collections::BTreeMap, sync::Arc};

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

use crate::{binding::PartitionRange, books::Books, clock::now_ms};

use super::{
    ClickHouse, ClickHouseError,
    rows::arrow_stream,
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
    /// The records.
    pub ranges: Vec<MarkedRange>,
}

/// Starts the task that writes marks; `written` is called for each once it is acknowledged.
#[must_use]
pub fn start(
    parts: TaskParts,
    written: impl Fn(&Mark) + Send + 'static,
) -> mpsc::UnboundedSender<Mark> {
    let (queue, mut marks) = mpsc::unbounded_channel::<Mark>();
    let runtime = parts.runtime.clone();
    runtime.spawn(async move {
        let mut last_committed_ms = 0;
        while let Some(first) = marks.recv().await {
            let mut batch = vec![first];
            while let Ok(next) = marks.try_recv() {
                batch.push(next);
            }
            // Wall time may step back; "at T" must not change its answer when it does.
            last_committed_ms = now_ms().max(last_committed_ms);
            let data = arrow_stream(&columns(&batch, last_committed_ms));
            let rows = TableBatch { table: "epochs".into(), data };
            writer::insert(&parts, "epochs", rows).await;
            batch.iter().for_each(&written);
        }
    });
    queue
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
    let all: Vec<&MarkedRange> = marks.iter().flat_map(|mark| &mark.ranges).collect();
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
    let lengths = OffsetBuffer::from_lengths(marks.iter().map(|mark| mark.ranges.len()));
    let ranges = StructArray::new(fields, columns, None);
    Arc::new(ListArray::new(item, lengths, Arc::new(ranges), None))
}
