//! The table `skipped`: offsets that were lost before they were read.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, Int32Array, Int64Array, StringArray, TimestampMillisecondArray, UInt64Array,
    },
    record_batch::RecordBatch,
};

use super::{
    marks::{Mark, MarkedRange},
    rows::arrow_stream,
    writer::TableBatch,
};

/// The rows of what these marks' epochs skipped; none if that is nothing.
pub(super) fn rows(marks: &[Mark]) -> Option<TableBatch> {
    let of = |mark| Mark::skipped(mark).map(move |(range, from)| (mark, range, from));
    let all: Vec<(&Mark, &MarkedRange, i64)> = marks.iter().flat_map(of).collect();
    if all.is_empty() {
        return None;
    }
    let texts = |text: fn(&Mark, &MarkedRange) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(
            all.iter().map(|(mark, range, _)| text(mark, range)),
        ))
    };
    let epochs = all.iter().map(|(mark, ..)| mark.tick.epoch.0);
    let times = epochs.clone().map(|epoch| i64::try_from(epoch).unwrap_or(i64::MAX));
    let times = TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC");
    let next = all.iter().map(|(_, marked, _)| marked.range.from_offset);
    let columns = RecordBatch::try_from_iter([
        ("pipeline", texts(|mark, _| mark.pipeline.clone())),
        ("version", texts(|mark, _| mark.version.clone())),
        ("topic", texts(|_, marked| marked.topic.to_string())),
        (
            "partition",
            Arc::new(Int32Array::from_iter_values(
                all.iter().map(|(_, marked, _)| marked.partition),
            )) as ArrayRef,
        ),
        ("from_offset", Arc::new(Int64Array::from_iter_values(all.iter().map(|(.., from)| *from)))),
        ("next_offset", Arc::new(Int64Array::from_iter_values(next))),
        ("epoch", Arc::new(UInt64Array::from_iter_values(epochs))),
        ("skipped_at", Arc::new(times)),
    ]);
    let data = arrow_stream(&columns.expect("all columns have one value per range"));
    Some(TableBatch { table: "skipped".to_owned(), data })
}
