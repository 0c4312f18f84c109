//! What is wrong with one record.

use std::sync::Arc;

use crate::events::{Reason, Reject};
use crate::records::Records;

/// The most characters of an offending value that a reject's detail quotes.
const QUOTED_CHARS_MAX: usize = 60;

/// What is wrong with one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: Reason,
    pub(crate) field: String,
    pub(crate) detail: String,
}

impl Fault {
    /// A fault of the record as a whole.
    pub(crate) fn of_record(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, field: String::new(), detail: detail.into() }
    }

    /// A fault of one field.
    pub(crate) fn of_field(reason: Reason, field: &str, detail: impl Into<String>) -> Self {
        Self { reason, field: field.to_owned(), detail: detail.into() }
    }

    pub(crate) fn into_reject(self, records: &Records, index: usize) -> Reject {
        Reject {
            topic: Arc::clone(&records.topic),
            partition: records.partition,
            offset: records.offsets[index],
            broker_time_ms: records.broker_times_ms[index],
            reason: self.reason,
            field: self.field,
            detail: self.detail,
            payload: records.payload(index).unwrap_or_default().to_vec(),
        }
    }
}

/// A value as a reject's detail quotes it: escaped and shortened.
pub(crate) fn quoted(value: &str) -> String {
    match value.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{:?}...", &value[..end]),
        None => format!("{value:?}"),
    }
}
