//! Rows as Arrow streams.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, Float64Array, Int32Array, Int64Array, StringArray,
        TimestampMillisecondArray, UInt8Array, UInt64Array,
    },
    datatypes::Schema,
    ipc::{reader::StreamReader, writer::StreamWriter},
    record_batch::RecordBatch,
};
use bytes::{Buf, Bytes};
use citycell_operators::{
    accumulators::finish, changes::Version, events::Reject, expression::ExpressionError,
    measures::Measures, plan::Plan, prepare::Late, select::RowCodec,
};
use citycell_schemas::{Epoch, Grid};

use crate::{
    dataflow::Output,
    personal::{Kept, KeysError, Sealing},
};

use super::{
    tables::{PipelineTable, level_name},
    writer::TableBatch,
};

/// Turns what a pipeline puts out in one epoch into batches for its tables.
pub struct RowEncoder {
    table: Arc<PipelineTable>,
    plan: Plan,
    groups: RowCodec,
    measures: Measures,
    grid: Arc<Grid>,
    /// Seals what is personal in rejects, if any topic has that.
    sealing: Option<Arc<Sealing>>,
}

impl RowEncoder {
    /// An encoder for this table.
    ///
    /// # Errors
    /// None for a plan that was checked.
    pub fn new(
        table: Arc<PipelineTable>,
        plan: &Plan,
        grid: Arc<Grid>,
    ) -> Result<Self, ExpressionError> {
        let columns = Schema::new(table.groups.clone());
        Ok(Self {
            groups: RowCodec::new(&plan.group_by, &columns)?,
            measures: Measures::new(plan)?,
            plan: plan.clone(),
            table,
            grid,
            sealing: None,
        })
    }

    /// The same, sealing what is personal in rejects.
    #[must_use]
    pub fn sealing(self, sealing: Option<Arc<Sealing>>) -> Self {
        Self { sealing, ..self }
    }

    /// The batches of one epoch; none for a table that gets no rows.
    ///
    /// # Errors
    /// When the key of a reject's day cannot be had.
    pub fn encode(&self, epoch: Epoch, outputs: Vec<Output>) -> Result<Vec<TableBatch>, KeysError> {
        let (mut rows, mut rejects, mut late) = (Vec::new(), Vec::new(), Vec::new());
        for output in outputs {
            match output {
                Output::Row(row) => rows.push(row),
                Output::Reject(reject) => rejects.push(reject),
                Output::Late(event) => late.push(event),
            }
        }
        let mut batches = Vec::new();
        let mut add = |table: &str, batch: RecordBatch| {
            batches.push(TableBatch { table: table.to_owned(), data: arrow_stream(&batch) });
        };
        if !rows.is_empty() {
            add(&self.table.history(), self.rows(epoch, &rows));
        }
        if !rejects.is_empty() {
            add("rejects", self.rejects(epoch, &rejects)?);
        }
        if !late.is_empty() {
            add("late", self.late(epoch, &late));
        }
        Ok(batches)
    }

    /// The published rows; the columns of the pipeline's table in its order.
    #[must_use]
    pub fn rows(&self, epoch: Epoch, rows: &[Version]) -> RecordBatch {
        let entries = || rows.iter().map(|row| self.grid.entry(row.key.place));
        let window_starts = rows.iter().map(|row| row.key.window_start.0);
        let deleted = rows.iter().map(|row| u8::from(row.state.is_none()));
        let events = rows.iter().map(|row| {
            let count = row.state.as_ref().map_or(0, |state| state.totals.contributions());
            u64::try_from(count).unwrap_or(0)
        });
        let levels = entries().map(|entry| level_name(entry.level));
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("window_start", utc(TimestampMillisecondArray::from_iter_values(window_starts))),
            ("level", Arc::new(StringArray::from_iter_values(levels))),
            ("cell", Arc::new(StringArray::from_iter_values(entries().map(|entry| &entry.code)))),
            ("epoch", Arc::new(UInt64Array::from_value(epoch.0, rows.len()))),
            ("is_deleted", Arc::new(UInt8Array::from_iter_values(deleted))),
            ("events", Arc::new(UInt64Array::from_iter_values(events))),
        ];
        let groups = self.groups.decode(rows.iter().map(|row| &*row.key.group));
        columns.extend(self.table.groups.iter().map(|field| field.name().as_str()).zip(groups));
        let values = self.measure_values(rows);
        let valid_names: Vec<String> =
            self.table.measures.iter().map(|name| format!("{name}_valid")).collect();
        for ((name, valid_name), values) in
            self.table.measures.iter().zip(&valid_names).zip(&values)
        {
            let valid = (0..values.len()).map(|row| u8::from(values.is_valid(row)));
            let plain = values.iter().map(Option::unwrap_or_default);
            columns.push((name, Arc::new(Float64Array::from_iter_values(plain))));
            columns.push((valid_name, Arc::new(UInt8Array::from_iter_values(valid))));
        }
        batch(columns)
    }

    fn measure_values(&self, rows: &[Version]) -> Vec<Float64Array> {
        let nothing = vec![None; self.plan.slots.len()];
        let slots: Vec<Vec<Option<f64>>> = rows
            .iter()
            .map(|row| {
                row.state.as_ref().map_or(nothing.clone(), |state| finish(&self.plan, state))
            })
            .collect();
        let slots: Vec<Float64Array> = (0..self.plan.slots.len())
            .map(|slot| slots.iter().map(|values| values[slot]).collect())
            .collect();
        let areas = rows.iter().map(|row| self.grid.entry(row.key.place).area_m2);
        self.measures.evaluate(&slots, &Float64Array::from_iter_values(areas))
    }

    fn rejects(&self, epoch: Epoch, rejects: &[Reject]) -> Result<RecordBatch, KeysError> {
        let text = |text: fn(&Reject) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rejects.iter().map(text)))
        };
        let broker_times = rejects.iter().map(|reject| reject.broker_time_ms);
        let mut columns = self.pipeline_columns(rejects.len());
        columns.extend([
            ("topic", text(|reject| &reject.topic)),
            ("partition", int32(rejects.iter().map(|reject| reject.partition))),
            ("record_offset", int64(rejects.iter().map(|reject| reject.offset.0))),
            ("epoch", Arc::new(UInt64Array::from_value(epoch.0, rejects.len())) as ArrayRef),
            ("broker_time", utc(TimestampMillisecondArray::from_iter_values(broker_times))),
            ("reason", text(|reject| reject.reason.as_str())),
            ("field", text(|reject| &reject.field)),
        ]);
        match &self.sealing {
            None => columns.extend([
                ("detail", text(|reject| &reject.detail)),
                ("payload", binary(rejects.iter().map(|reject| reject.payload.as_slice()))),
            ]),
            Some(sealing) => {
                let kept = rejects.iter().map(|reject| sealing.reject(reject));
                let kept = kept.collect::<Result<Vec<Kept<'_>>, _>>()?;
                let details = kept.iter().map(|kept| &*kept.detail);
                columns.extend([
                    ("detail", Arc::new(StringArray::from_iter_values(details)) as ArrayRef),
                    ("payload", binary(kept.iter().map(|kept| &*kept.payload))),
                    ("sealed", binary(kept.iter().map(|kept| kept.sealed.as_slice()))),
                ]);
            }
        }
        Ok(batch(columns))
    }

    fn late(&self, epoch: Epoch, late: &[Late]) -> RecordBatch {
        let time = |time: fn(&Late) -> i64| {
            utc(TimestampMillisecondArray::from_iter_values(late.iter().map(time)))
        };
        let topics = late.iter().map(|event| &*event.topic);
        let mut columns = self.pipeline_columns(late.len());
        columns.extend([
            ("topic", Arc::new(StringArray::from_iter_values(topics)) as ArrayRef),
            ("partition", int32(late.iter().map(|event| event.partition))),
            ("record_offset", int64(late.iter().map(|event| event.offset.0))),
            ("epoch", Arc::new(UInt64Array::from_value(epoch.0, late.len()))),
            ("event_time", time(|event| event.time.0)),
            ("watermark", time(|event| event.watermark.0)),
        ]);
        batch(columns)
    }

    fn pipeline_columns(&self, rows: usize) -> Vec<(&'static str, ArrayRef)> {
        let repeated = |text: &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, rows)))
        };
        vec![
            ("pipeline", repeated(&self.table.pipeline)),
            ("version", repeated(&self.table.version)),
        ]
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).expect("all columns have one value per row")
}

fn utc(times: TimestampMillisecondArray) -> ArrayRef {
    Arc::new(times.with_timezone("UTC"))
}

pub(super) fn binary<'a>(values: impl Iterator<Item = &'a [u8]>) -> ArrayRef {
    Arc::new(BinaryArray::from_iter_values(values))
}

fn int32(values: impl Iterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

fn int64(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// One batch as an Arrow IPC stream, the form in which ClickHouse takes it.
///
/// # Panics
/// Never on data: writing to memory fails only for types that we do not use.
#[must_use]
pub fn arrow_stream(batch: &RecordBatch) -> Bytes {
    let mut bytes = Vec::new();
    let mut writer =
        StreamWriter::try_new(&mut bytes, &batch.schema()).expect("the schema fits Arrow IPC");
    writer.write(batch).expect("memory takes all bytes");
    writer.finish().expect("memory takes all bytes");
    drop(writer);
    Bytes::from(bytes)
}

/// Arrow streams of one table as few: those that follow each other with the same columns are one.
///
/// # Panics
/// Never on streams that [`arrow_stream`] made.
#[must_use]
pub fn joined_streams(mut streams: Vec<Bytes>) -> Vec<Bytes> {
    if streams.len() <= 1 {
        return streams;
    }
    let batches = streams.drain(..).flat_map(|stream| {
        StreamReader::try_new(stream.reader(), None).expect("it begins with its schema")
    });
    let batches: Vec<RecordBatch> = batches.map(|batch| batch.expect("it is whole")).collect();
    let alike = batches.chunk_by(|one, next| one.schema() == next.schema());
    alike.map(stream_of).collect()
}

fn stream_of(batches: &[RecordBatch]) -> Bytes {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &batches[0].schema())
        .expect("the batch was a stream before");
    batches.iter().for_each(|batch| writer.write(batch).expect("memory takes all bytes"));
    writer.finish().expect("memory takes all bytes");
    drop(writer);
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_streams_hold_the_rows_of_all_in_order() {
        let batch = |name: &str, numbers: [u64; 2]| {
            let column: ArrayRef = Arc::new(UInt64Array::from_iter_values(numbers));
            RecordBatch::try_from_iter([(name, column)]).unwrap()
        };
        let batches = [
            batch("epoch", [1, 2]),
            batch("epoch", [3, 4]),
            batch("other", [5, 6]),
            batch("epoch", [7, 8]),
        ];
        let joined = joined_streams(batches.iter().map(arrow_stream).collect());
        assert_eq!(joined.len(), 3, "columns that differ stay apart");
        let read = |stream: Bytes| StreamReader::try_new(stream.reader(), None).unwrap();
        let read = joined.into_iter().flat_map(read).map(Result::unwrap);
        assert_eq!(read.collect::<Vec<_>>(), batches);
    }
}
