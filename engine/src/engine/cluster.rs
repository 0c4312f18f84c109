//! Several processes as one dataflow: they find each other, make sure that they fit together, and
//! end together.
//!
//! Each process connects to those of smaller numbers, in their order, and then waits for the others.
//! So nobody is talked to before process 0 has agreed, which is the one that is right.

mod connection;
mod greeting;

use std::{
    any::Any,
    io,
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use socket2::{SockRef, TcpKeepalive};
use timely::communication::{
    AllocatorBuilder, Hooks,
    allocator::{
        ProcessBuilder, zero_copy::initialize::initialize_networking_from_sockets as networking,
    },
};

use crate::alarm::Alarm;

use super::{Cluster, EngineError};
pub(super) use connection::CutIfStopped;
use connection::{Connection, Messages, Streams};
pub(super) use greeting::Greeting;

/// From one try to the next.
const PAUSE: Duration = Duration::from_millis(100);
/// From one line of the log that says who is missing to the next.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Whoever connects and says nothing for so long is none of us.
const GREETING_WITHIN: Duration = Duration::from_secs(2);
/// A process that nobody hears of for so long is gone, though no end of its connection arrived.
const GONE_AFTER: Duration = Duration::from_secs(30);

/// The processes once they are connected.
pub(super) struct Connected {
    sockets: Vec<Option<TcpStream>>,
    process: usize,
    alarm: Alarm,
}

/// Listens for the others.
///
/// # Errors
/// When this process cannot listen on its address.
pub(super) fn listen(cluster: &Cluster) -> Result<TcpListener, EngineError> {
    let address = &cluster.addresses[cluster.process];
    let listen = || {
        let listener = TcpListener::bind(&**address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| EngineError::Listen { address: address.clone(), source })
}

/// Connects to all others, however long they take to come; none if the engine is stopped before.
///
/// # Errors
/// When this process was started otherwise than process 0.
pub(super) fn connect(
    (cluster, listener): (&Cluster, &TcpListener),
    greeting: &Greeting,
    alarm: &Alarm,
) -> Result<Option<Connected>, EngineError> {
    let Cluster { process, addresses } = cluster;
    let mut meeting = Meeting { greeting, alarm, addresses, said: Instant::now() };
    let mut sockets: Vec<Option<TcpStream>> = Vec::new();
    for other in 0..*process {
        match meeting.call(other)? {
            Some(socket) => sockets.push(Some(socket)),
            None => return Ok(None),
        }
    }
    sockets.resize_with(addresses.len(), || None);
    while let Some(missing) = (process + 1..addresses.len()).find(|other| sockets[*other].is_none())
    {
        if alarm.is_stopped() {
            return Ok(None);
        }
        if let Some((other, socket)) = meeting.answer(listener, missing) {
            sockets[other] = Some(socket);
        }
        forget_gone(&mut sockets, *process)?;
    }
    Ok(Some(Connected { sockets, process: *process, alarm: alarm.clone() }))
}

/// A later process that is gone again is waited for; an earlier one has to be called anew.
fn forget_gone(sockets: &mut [Option<TcpStream>], process: usize) -> Result<(), EngineError> {
    for (other, socket) in sockets.iter_mut().enumerate() {
        if socket.take_if(|socket| is_gone(socket)).is_some() {
            if other < process {
                return Err(EngineError::ProcessGone(other));
            }
            tracing::warn!(process = other, "a process is gone again, waiting for it");
        }
    }
    Ok(())
}

fn is_gone(socket: &TcpStream) -> bool {
    let look = || {
        socket.set_nonblocking(true)?;
        let looked = socket.peek(&mut [0]);
        socket.set_nonblocking(false)?;
        looked
    };
    match look() {
        Ok(count) => count == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// How one process meets the others.
struct Meeting<'a> {
    greeting: &'a Greeting,
    alarm: &'a Alarm,
    addresses: &'a [String],
    /// When the log said last who is missing.
    said: Instant,
}

impl Meeting<'_> {
    /// Connects to a process of a smaller number and hears what it says.
    fn call(&mut self, other: usize) -> Result<Option<TcpStream>, EngineError> {
        while !self.alarm.is_stopped() {
            let called = TcpStream::connect(&*self.addresses[other]);
            let heard = called.and_then(|socket| {
                prepare(&socket)?;
                self.greeting.write(&socket)?;
                Ok((self.hear(&socket)?, socket))
            });
            match heard {
                Ok((first, socket)) => {
                    self.check(&first)?;
                    return Ok(Some(socket));
                }
                Err(_) => self.wait_for(other),
            }
        }
        Ok(None)
    }

    /// It answers once those before us are there.
    fn hear(&self, socket: &TcpStream) -> io::Result<Greeting> {
        socket.set_read_timeout(Some(PAUSE))?;
        while !self.alarm.is_stopped() {
            match socket.peek(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => break,
            }
        }
        socket.set_read_timeout(Some(GREETING_WITHIN))?;
        let greeting = Greeting::read(socket)?;
        socket.set_read_timeout(None)?;
        Ok(greeting)
    }

    fn check(&self, other: &Greeting) -> Result<(), EngineError> {
        let process = other.process;
        if let Some(what) = self.greeting.difference(other) {
            return Err(EngineError::OtherConfig { process, what });
        }
        if process == 0 && !self.greeting.goes_on_beside(other) {
            return Err(EngineError::OtherStart);
        }
        Ok(())
    }

    /// Takes a connection of a process of a greater number, if one comes.
    fn answer(&mut self, listener: &TcpListener, missing: usize) -> Option<(usize, TcpStream)> {
        let Ok((socket, from)) = listener.accept() else {
            self.wait_for(missing);
            return None;
        };
        let greet = || {
            prepare(&socket)?;
            socket.set_read_timeout(Some(GREETING_WITHIN))?;
            let other = Greeting::read(&socket)?;
            socket.set_read_timeout(None)?;
            // Also to one that does not fit: it ends when it hears how it should be.
            self.greeting.write(&socket)?;
            Ok::<_, io::Error>(other)
        };
        match greet() {
            Ok(other) => {
                let process = other.process;
                let is_later = (self.greeting.process + 1..self.addresses.len()).contains(&process);
                match self.greeting.difference(&other) {
                    None if is_later => return Some((process, socket)),
                    what => {
                        let what = what.unwrap_or("--process");
                        tracing::warn!(process, %from, what, "another process was started otherwise");
                    }
                }
            }
            Err(error) => tracing::warn!(%from, %error, "whoever connected is no citycell process"),
        }
        None
    }

    fn wait_for(&mut self, process: usize) {
        if self.said.elapsed() >= SAY_EVERY {
            tracing::info!(process, address = self.addresses[process], "waiting for a process");
            self.said = Instant::now();
        }
        thread::sleep(PAUSE);
    }
}

/// Sends at once, and notices when the other machine is gone without a word.
fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(GONE_AFTER / 3).with_interval(GONE_AFTER / 6);
    SockRef::from(socket).set_tcp_keepalive(&probes.with_retries(4))?;
    #[cfg(target_os = "linux")]
    SockRef::from(socket).set_tcp_user_timeout(Some(GONE_AFTER))?;
    Ok(())
}

impl Connected {
    /// What timely makes workers of: these, what goes with them, and the connections that workers
    /// which do not end in good order have to cut.
    pub(super) fn into_timely(
        self,
        threads: usize,
    ) -> io::Result<(Vec<AllocatorBuilder>, Box<dyn Any + Send>, Streams)> {
        let Self { sockets, process, alarm } = self;
        let streams =
            sockets.iter().flatten().map(TcpStream::try_clone).collect::<Result<_, _>>()?;
        let (working, workers) = crossbeam_channel::bounded(0);
        let streams = Streams { streams, alarm: alarm.clone(), _workers: working };
        let connection = |(process, socket): (usize, Option<TcpStream>)| {
            let (alarm, workers, messages) = (alarm.clone(), workers.clone(), Messages::default());
            socket.map(|stream| Connection { stream, process, alarm, workers, messages })
        };
        let connections = sockets.into_iter().enumerate().map(connection).collect();
        let hooks = Hooks::default();
        let local = ProcessBuilder::new_typed_vector(threads, hooks.refill.clone(), None);
        let (builders, guard) = networking(local, connections, process, threads, hooks)?;
        let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
        Ok((builders, Box::new(guard), streams))
    }
}
