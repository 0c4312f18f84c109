//! A connection to another process, whose end is the end of this engine.
//!
//! Timely's threads panic when a connection breaks, and so do workers that are still at work then, some
//! of them while they are dropped, which aborts the process. So a thread that meets a broken connection
//! stops the engine and waits for its workers to be gone before it learns of it.

use std::{
    convert::Infallible,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
};

use crossbeam_channel::{Receiver, Sender};
use timely::communication::allocator::zero_copy::stream::Stream;

use crate::{alarm::Alarm, engine::EngineError};

/// As timely's threads use it.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// The process at the other end.
    pub(super) process: usize,
    pub(super) alarm: Alarm,
    /// Closed when the last worker is gone.
    pub(super) workers: Receiver<Infallible>,
    pub(super) messages: Messages,
}

impl Connection {
    fn is_gone(&self) -> io::Error {
        self.alarm.ring(EngineError::ProcessGone(self.process));
        let _closed = self.workers.recv();
        io::Error::other(format!("process {} is gone", self.process))
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(buffer) {
            Ok(0) if self.messages.is_last => Ok(0),
            Ok(0) | Err(_) => Err(self.is_gone()),
            Ok(count) => {
                self.messages.pass(&buffer[..count]);
                Ok(count)
            }
        }
    }
}

impl Write for Connection {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer).map_err(|_| self.is_gone())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Where messages begin and end in what is read: a header, whose fifth number is the length of what
/// follows. One of length 0 is the last.
#[derive(Default)]
pub(super) struct Messages {
    header: Vec<u8>,
    body_left: u64,
    is_last: bool,
}

const HEADER_BYTES: usize = 6 * size_of::<u64>();

impl Messages {
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let wanted = match self.body_left {
                0 => HEADER_BYTES - self.header.len(),
                left => usize::try_from(left).unwrap_or(usize::MAX),
            };
            let (passed, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            if self.body_left > 0 {
                self.body_left -= passed.len() as u64;
                continue;
            }
            self.header.extend(passed);
            if let Some((_, [length, _])) = self.header.as_chunks().0.split_at_checked(4) {
                self.body_left = u64::from_be_bytes(*length);
                self.is_last = self.body_left == 0;
                self.header.clear();
            }
        }
    }
}

impl Stream for Connection {
    fn try_clone(&self) -> io::Result<Self> {
        let (alarm, workers) = (self.alarm.clone(), self.workers.clone());
        let stream = self.stream.try_clone()?;
        Ok(Self { stream, process: self.process, alarm, workers, messages: Messages::default() })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.stream.shutdown(how)
    }
}

/// The connections of an engine; dropped once all its workers are.
pub(in crate::engine) struct Streams {
    pub(super) streams: Vec<TcpStream>,
    pub(super) alarm: Alarm,
    pub(super) _workers: Sender<Infallible>,
}

/// Cuts the connections, when it is dropped, of an engine that does not end in good order: the other
/// processes must not take its silence for the end of its work, nor wait for it. Each worker holds one
/// and drops it before itself, since timely ends the connections in good order after that.
pub(in crate::engine) struct CutIfStopped<'a>(pub(in crate::engine) &'a Streams);

impl Drop for CutIfStopped<'_> {
    fn drop(&mut self) {
        let Streams { streams, alarm, .. } = self.0;
        if alarm.is_stopped() || thread::panicking() {
            for stream in streams {
                // The other end may have been faster.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use timely::communication::networking::MessageHeader;

    use super::*;

    #[test]
    fn the_last_message_is_known_however_bytes_arrive_and_whatever_they_are() {
        let message = |length| {
            let header = MessageHeader {
                channel: 0,
                source: 0,
                target_lower: 0,
                target_upper: 0,
                length,
                seqno: 0,
            };
            let mut bytes = Vec::new();
            header.write_to(&mut bytes).unwrap();
            bytes.resize(bytes.len() + length, 0);
            bytes
        };
        let all = [message(100), message(HEADER_BYTES), message(0)].concat();
        for step in [1, 7, HEADER_BYTES, 1_000] {
            let mut messages = Messages::default();
            let mut passed = 0;
            for part in all.chunks(step) {
                assert!(!messages.is_last, "after {passed} bytes of {}", all.len());
                messages.pass(part);
                passed += part.len();
            }
            assert!(messages.is_last, "in steps of {step}");
        }
    }
}
