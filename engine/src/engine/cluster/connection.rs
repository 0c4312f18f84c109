//! A connection to another process, whose end is the end of this engine.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
};

use timely::communication::allocator::zero_copy::stream::Stream;

use crate::{alarm::Alarm, engine::EngineError};

/// Timely ends a connection in good order with a header of nothing, which has this many bytes.
const LAST_HEADER: usize = 48;

/// As timely's threads use it.
pub(super) struct Connection {
    stream: TcpStream,
    /// The process at the other end.
    process: usize,
    alarm: Alarm,
    /// How many of the bytes read last are 0.
    zeros: usize,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, process: usize, alarm: Alarm) -> Self {
        Self { stream, process, alarm, zeros: 0 }
    }

    /// Says so before timely's threads panic over it.
    fn is_gone(&self) {
        self.alarm.ring(EngineError::ProcessGone(self.process));
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer);
        match read {
            Ok(0) if self.zeros >= LAST_HEADER => {}
            Ok(0) | Err(_) => self.is_gone(),
            Ok(count) => {
                let zeros = buffer[..count].iter().rev().take_while(|byte| **byte == 0).count();
                self.zeros = if zeros == count { self.zeros + zeros } else { zeros };
            }
        }
        read
    }
}

impl Write for Connection {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer).inspect_err(|_| self.is_gone())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Stream for Connection {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::new(self.stream.try_clone()?, self.process, self.alarm.clone()))
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.stream.shutdown(how)
    }
}

/// The connections of an engine.
pub(in crate::engine) struct Streams {
    pub(super) streams: Vec<TcpStream>,
    pub(super) alarm: Alarm,
}

/// Cuts the connections, when it is dropped, of an engine that does not end in good order: the other
/// processes must not take its silence for the end of its work, nor wait for it. Each worker holds one
/// and drops it before itself, since timely ends the connections in good order after that.
pub(in crate::engine) struct CutIfStopped<'a>(pub(in crate::engine) &'a Streams);

impl Drop for CutIfStopped<'_> {
    fn drop(&mut self) {
        let Streams { streams, alarm } = self.0;
        if alarm.is_stopped() || thread::panicking() {
            for stream in streams {
                // The other end may have been faster.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}
