//! The way of bindings into the dataflow.

use crossbeam_channel::Sender;

use crate::{binding::Binding, dataflow::source::Waker};

/// Hands durable bindings to the dataflow, which ends when this is dropped.
pub struct HandOut {
    /// To worker 0; taken when this is dropped.
    pub bindings: Option<Sender<Binding>>,
    /// Wakes worker 0.
    pub waker: Waker,
}

impl HandOut {
    pub(crate) fn send(&self, binding: Binding) {
        if let Some(bindings) = &self.bindings {
            // The workers are gone only when the engine is stopping.
            let _ = bindings.send(binding);
        }
        self.waker.wake();
    }
}

impl Drop for HandOut {
    fn drop(&mut self) {
        self.bindings = None;
        self.waker.wake();
    }
}
