//! librdkafka's batch call: one crossing of the language border for many messages.
//!
//! The safe wrapper's `poll` per message costs more than decoding the message, and hides which
//! topic's partition has reached its end; the batch call does neither.

use std::{ffi::CStr, os::raw::c_char, ptr, slice, time::Duration};

use rdkafka::{
    bindings as native,
    consumer::{BaseConsumer, Consumer},
    types::RDKafkaRespErr,
};

use citycell_operators::records::CloudEventHeaders;

/// What the queue holds next.
pub(super) enum Delivery<'message> {
    /// A record.
    Record(Message<'message>),
    /// The reader stands at the partition's end, which is this offset.
    End { topic: &'message str, partition: i32, next_offset: i64 },
    /// Kafka reports a failure; the text is librdkafka's.
    Failed {
        topic: Option<&'message str>,
        partition: i32,
        offset: i64,
        code: RDKafkaRespErr,
        text: String,
    },
}

/// One record, borrowed from librdkafka.
pub(super) struct Message<'message> {
    pub(super) topic: &'message str,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) broker_time_ms: i64,
    pub(super) payload: Option<&'message [u8]>,
    pub(super) headers: Option<Box<CloudEventHeaders>>,
}

/// A consumer's queue, read in batches.
pub(super) struct BatchQueue {
    consumer: BaseConsumer,
    queue: *mut native::rd_kafka_queue_t,
    messages: Vec<*mut native::rd_kafka_message_t>,
}

// SAFETY: librdkafka's handles may be used from any thread; this one is used by one at a time.
unsafe impl Send for BatchQueue {}

impl BatchQueue {
    pub(super) fn new(consumer: BaseConsumer, batch: usize) -> Self {
        // SAFETY: the consumer's handle lives as long as `consumer`, which we keep.
        let queue = unsafe { native::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Self { consumer, queue, messages: vec![ptr::null_mut(); batch] }
    }

    pub(super) fn consumer(&self) -> &BaseConsumer {
        &self.consumer
    }

    /// Waits at most `timeout` and hands over what arrived; returns how much that was.
    pub(super) fn consume(
        &mut self,
        timeout: Duration,
        mut receive: impl FnMut(Delivery<'_>),
    ) -> usize {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: `messages` has room for the number of messages we ask for.
        let count = unsafe {
            native::rd_kafka_consume_batch_queue(
                self.queue,
                timeout_ms,
                self.messages.as_mut_ptr(),
                self.messages.len(),
            )
        };
        let count = usize::try_from(count).unwrap_or(0);
        for message in &self.messages[..count] {
            // SAFETY: librdkafka filled the first `count` entries with messages that are ours
            // until we destroy them, once, after the last borrow.
            unsafe {
                receive(delivery(&**message));
                native::rd_kafka_message_destroy(*message);
            }
        }
        count
    }
}

impl Drop for BatchQueue {
    fn drop(&mut self) {
        // SAFETY: the reference taken in `new`, given back before the consumer goes.
        unsafe { native::rd_kafka_queue_destroy(self.queue) };
    }
}

/// # Safety
/// `message` must be a live message of librdkafka.
unsafe fn delivery(message: &native::rd_kafka_message_t) -> Delivery<'_> {
    // SAFETY: by the contract above; librdkafka keeps topic names as long as the client.
    unsafe {
        let topic = if message.rkt.is_null() {
            None
        } else {
            CStr::from_ptr(native::rd_kafka_topic_name(message.rkt)).to_str().ok()
        };
        match (message.err, topic) {
            (RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR, Some(topic)) => {
                Delivery::Record(record(message, topic))
            }
            (RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF, Some(topic)) => {
                Delivery::End { topic, partition: message.partition, next_offset: message.offset }
            }
            (code, topic) => Delivery::Failed {
                topic,
                partition: message.partition,
                offset: message.offset,
                code,
                text: CStr::from_ptr(native::rd_kafka_message_errstr(message))
                    .to_string_lossy()
                    .into_owned(),
            },
        }
    }
}

/// # Safety
/// `message` must be a live record of librdkafka.
unsafe fn record<'message>(
    message: &'message native::rd_kafka_message_t,
    topic: &'message str,
) -> Message<'message> {
    let mut kind = native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: by the contract above; a null payload is Kafka's null value.
    unsafe {
        Message {
            topic,
            partition: message.partition,
            offset: message.offset,
            broker_time_ms: native::rd_kafka_message_timestamp(message, &raw mut kind),
            payload: (!message.payload.is_null())
                .then(|| slice::from_raw_parts(message.payload.cast::<u8>(), message.len)),
            headers: headers(message),
        }
    }
}

/// # Safety
/// `message` must be a live record of librdkafka.
unsafe fn headers(message: &native::rd_kafka_message_t) -> Option<Box<CloudEventHeaders>> {
    let mut list = ptr::null_mut();
    // SAFETY: by the contract above; the list belongs to the message.
    unsafe {
        if native::rd_kafka_message_headers(message, &raw mut list)
            != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return None;
        }
        let mut found = CloudEventHeaders::default();
        for index in 0.. {
            let (mut name, mut value, mut size): (*const c_char, *const _, usize) =
                (ptr::null(), ptr::null(), 0);
            if native::rd_kafka_header_get_all(
                list,
                index,
                &raw mut name,
                &raw mut value,
                &raw mut size,
            ) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                break;
            }
            if !value.is_null() {
                let bytes = slice::from_raw_parts(value.cast::<u8>(), size);
                keep(&mut found, CStr::from_ptr(name).to_bytes(), bytes);
            }
        }
        (found != CloudEventHeaders::default()).then(|| Box::new(found))
    }
}

fn keep(headers: &mut CloudEventHeaders, name: &[u8], value: &[u8]) {
    let attribute = match name {
        b"ce_id" => &mut headers.id,
        b"ce_source" => &mut headers.source,
        b"ce_type" => &mut headers.kind,
        b"ce_time" => &mut headers.time,
        b"ce_recordedtime" => &mut headers.recorded_time,
        _ => return,
    };
    *attribute = Some(String::from_utf8_lossy(value).into_owned());
}
