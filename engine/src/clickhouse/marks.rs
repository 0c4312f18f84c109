//! Commit marks: the row in `epochs` that makes a pipeline's rows of an epoch visible.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arrow::{
    array::{ArrayRef, StringArray, TimestampMillisecondArray, UInt8Array, UInt64Array},
    record_batch::RecordBatch,
};
use citycell_operators::tick::Tick;
use citycell_schemas::{Epoch, EventTime};
use tokio::{runtime::Handle, sync::mpsc};

use crate::{books::Books, metrics::Metrics};

use super::{
    ClickHouse, ClickHouseError,
    rows::arrow_stream,
    writer::{self, TableBatch},
};

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
}

/// Starts the task that writes marks; `written` is called for each once it is acknowledged.
#[must_use]
pub fn start(
    runtime: &Handle,
    clickhouse: ClickHouse,
    metrics: Metrics,
    written: impl Fn(&Mark) + Send + 'static,
) -> mpsc::UnboundedSender<Mark> {
    let (queue, mut marks) = mpsc::unbounded_channel::<Mark>();
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
            writer::insert(&clickhouse, "epochs", rows, &metrics).await;
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
    ])
    .expect("all columns have one value per mark")
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
