//! Why brokers do not let us in: librdkafka says that beside its calls, which only time out.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::{
    ClientContext, client::DefaultClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext,
};

/// The first complaint of a client about one of its brokers, whose address it names.
#[derive(Clone, Default)]
pub(super) struct Complaints(Arc<Mutex<Option<String>>>);

impl Complaints {
    /// The first, if there is one.
    pub(super) fn first(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Complaints {
    /// Logs as every client does. Each connection that fails is logged, with the reason; not each is
    /// reported as an error.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            // The name of librdkafka's thread comes first.
            let reason = message.split_once("]: ").map_or(message, |(_, reason)| reason);
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| reason.to_owned());
        }
        DefaultClientContext.log(level, facility, message);
    }
}

impl ConsumerContext for Complaints {}
