//! Two questions to the brokers for which rdkafka has no call: which topic a name stands for, and
//! where partitions end.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    fmt,
    os::raw::c_int,
    ptr, slice,
};

use rdkafka::{
    ClientContext, Offset as KafkaOffset, TopicPartitionList, bindings as native,
    client::Client,
    error::{IsError, KafkaError},
    types::RDKafkaRespErr,
};
use serde::{Deserialize, Serialize};

/// How long a broker may take to answer.
const TIMEOUT_MS: c_int = 5_000;

/// What Kafka calls a topic besides its name: a topic that is deleted and made again under the same
/// name has another. In the form in which Kafka's own tools show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicId(pub String);

impl fmt::Display for TopicId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Topics' ids by their names.
pub type TopicIds = BTreeMap<String, TopicId>;

/// The topics that exist, each with its id; none of a broker that knows no ids.
///
/// # Errors
/// When no broker answers.
pub(super) fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
) -> Result<BTreeMap<String, Option<TopicId>>, KafkaError> {
    let names: Vec<CString> = topics.iter().filter_map(|name| CString::new(*name).ok()).collect();
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let op = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let answer = ask(client, op, |handle, options, queue| {
        // SAFETY: librdkafka copies the names; the collection is ours until it is destroyed, once.
        unsafe {
            let names = native::rd_kafka_TopicCollection_of_topic_names(
                pointers.as_mut_ptr(),
                pointers.len(),
            );
            native::rd_kafka_DescribeTopics(handle, names, options, queue);
            native::rd_kafka_TopicCollection_destroy(names);
        }
    })?;
    let mut ids = BTreeMap::new();
    // SAFETY: the answer's parts live as long as the answer, and what we keep of them is copied.
    unsafe {
        let result = native::rd_kafka_event_DescribeTopics_result(answer.0);
        let mut count = 0;
        let described = native::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        for topic in array(described, count) {
            let error = native::rd_kafka_TopicDescription_error(*topic);
            if !error.is_null() && native::rd_kafka_error_code(error).is_error() {
                continue;
            }
            let name = CStr::from_ptr(native::rd_kafka_TopicDescription_name(*topic));
            let id = native::rd_kafka_TopicDescription_topic_id(*topic);
            let is_known = !id.is_null()
                && (native::rd_kafka_Uuid_most_significant_bits(id) != 0
                    || native::rd_kafka_Uuid_least_significant_bits(id) != 0);
            let text = || CStr::from_ptr(native::rd_kafka_Uuid_base64str(id)).to_string_lossy();
            let id = is_known.then(|| TopicId(text().into_owned()));
            ids.insert(name.to_string_lossy().into_owned(), id);
        }
    }
    Ok(ids)
}

/// The end of each of these partitions: the offset behind the last record that transactions do not
/// hold back. Partitions whose leader does not say are left out.
///
/// # Errors
/// When no broker answers.
pub(super) fn end_offsets<C: ClientContext>(
    client: &Client<C>,
    partitions: &[(&str, i32)],
) -> Result<BTreeMap<(String, i32), i64>, KafkaError> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::new();
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, KafkaOffset::End)?;
    }
    let op = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
    let answer = ask(client, op, |handle, options, queue| {
        let committed = native::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED;
        // SAFETY: the options are ours; librdkafka copies the list. An error object would be ours
        // too, and destroying none is allowed.
        unsafe {
            let error = native::rd_kafka_AdminOptions_set_isolation_level(options, committed);
            native::rd_kafka_error_destroy(error);
            native::rd_kafka_ListOffsets(handle, list.ptr(), options, queue);
        }
    })?;
    let mut ends = BTreeMap::new();
    // SAFETY: as above.
    unsafe {
        let result = native::rd_kafka_event_ListOffsets_result(answer.0);
        let mut count = 0;
        let infos = native::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
        for info in array(infos, count) {
            let end = &*native::rd_kafka_ListOffsetsResultInfo_topic_partition(*info);
            if !end.err.is_error() {
                let topic = CStr::from_ptr(end.topic).to_string_lossy().into_owned();
                ends.insert((topic, end.partition), end.offset);
            }
        }
    }
    Ok(ends)
}

/// A broker's answer.
struct Answer(*mut native::rd_kafka_event_t);

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: it is ours, and destroyed once.
        unsafe { native::rd_kafka_event_destroy(self.0) };
    }
}

fn ask<C: ClientContext>(
    client: &Client<C>,
    op: native::rd_kafka_admin_op_t,
    send: impl FnOnce(
        *mut native::rd_kafka_t,
        *mut native::rd_kafka_AdminOptions_t,
        *mut native::rd_kafka_queue_t,
    ),
) -> Result<Answer, KafkaError> {
    let handle = client.native_ptr();
    // SAFETY: the client outlives the call; queue and options are made and destroyed here, once. A
    // request that is still under way holds the queue by itself.
    let (answer, code) = unsafe {
        let queue = native::rd_kafka_queue_new(handle);
        let options = native::rd_kafka_AdminOptions_new(handle, op);
        native::rd_kafka_AdminOptions_set_request_timeout(options, TIMEOUT_MS, ptr::null_mut(), 0);
        send(handle, options, queue);
        native::rd_kafka_AdminOptions_destroy(options);
        // It answers by itself when its time is up.
        let answer = native::rd_kafka_queue_poll(queue, 2 * TIMEOUT_MS);
        native::rd_kafka_queue_destroy(queue);
        if answer.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT.into()));
        }
        (Answer(answer), native::rd_kafka_event_error(answer))
    };
    if code.is_error() { Err(KafkaError::AdminOp(code.into())) } else { Ok(answer) }
}

/// # Safety
/// `first` must point to `count` items that live as long as the slice.
unsafe fn array<'items, T>(first: *mut *const T, count: usize) -> &'items [*const T] {
    // SAFETY: by the contract above; of nothing librdkafka may return no pointer.
    if first.is_null() { &[] } else { unsafe { slice::from_raw_parts(first, count) } }
}
