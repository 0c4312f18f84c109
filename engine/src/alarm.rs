//! Ends the engine when a part of it panics: the others would wait for ever.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crossbeam_channel::Sender;

use crate::{binder::Notice, engine::EngineError};

/// Every long-lived thread and task holds one; it rings when it is dropped by a panic.
#[derive(Clone)]
pub struct Alarm {
    failure: Arc<Mutex<Option<EngineError>>>,
    stopped: Arc<AtomicBool>,
    notices: Sender<Notice>,
}

impl Alarm {
    /// An alarm that has not rung; the binder hears of it through `notices`.
    #[must_use]
    pub fn new(notices: Sender<Notice>) -> Self {
        Self { failure: Arc::default(), stopped: Arc::default(), notices }
    }

    /// Ends the engine at once; the first reason counts, and none after it was stopped: what falls
    /// apart then is no failure.
    pub fn ring(&self, failure: EngineError) {
        if !self.is_stopped() {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        }
        self.stop();
    }

    /// Ends the engine at once, as a crash would.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        // The binder may be gone already.
        let _ = self.notices.send(Notice::Stop);
    }

    /// Whether the engine is to end at once.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The reason it rang.
    #[must_use]
    pub fn take_failure(&self) -> Option<EngineError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.ring(EngineError::Panicked);
        }
    }
}
