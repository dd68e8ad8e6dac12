//! Every other system, through the `mio` crate: kqueue on macOS and the BSDs, AFD on Windows. On
//! Linux, where it uses epoll, it is there to be tested.
//!
//! mio waits to the nanosecond on kqueue; on Windows and Linux it rounds up to whole milliseconds.
//! What it calls an event may be none (Windows ends a wait also for what was deregistered, and up
//! to a clock's tick early), so a `poll` goes on until there is an event or the time is up.
//!
//! An edge is always `special`, so the hint (see `source`) is not used: kqueue and AFD do not tell
//! of urgent data, at which a short read stops.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::mio::{Events, Interest, Poll, Registry, Waker};
use rustix::fd::RawFd;
use strands_sched::DriverWaker;

use super::{Backend, Readiness, Registrar, cannot_make, fatal, fork};
use crate::slot::{self, Token};

// Defines `Members`, the descriptors that are in, with `new`, `add` and `remove`; and `EDGES_STOP`.
#[cfg_attr(windows, path = "mio/socket.rs")]
#[cfg_attr(unix, path = "mio/fd.rs")]
mod members;

pub(crate) use members::EDGES_STOP;
use members::Members;

/// Events taken at a time.
const BATCH: usize = 256;

/// The longest wait in one call. Systems differ in what they take; some answer `EINVAL`.
const LONGEST: Duration = Duration::from_secs(1 << 20);

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

pub(crate) struct Mio {
    poll: RefCell<(Poll, Events)>,
    registrar: Arc<dyn Registrar>,
    waker: Arc<Alarm>,
    reactor: u32,
}

/// mio's selector, and what is in.
struct Set {
    members: Members,
    registry: Registry,
}

struct Alarm(Waker);

impl Mio {
    pub(crate) fn new(reactor: u32) -> io::Result<Mio> {
        let failed = |error| cannot_make("what a worker waits in", error);
        let poll = Poll::new().map_err(failed)?;
        let registry = poll.registry().try_clone().map_err(failed)?;
        let waker = Waker::new(&registry, word(Token::NONE)).map_err(failed)?;
        Ok(Mio {
            poll: RefCell::new((poll, Events::with_capacity(BATCH))),
            registrar: Arc::new(Set { members: Members::new(), registry }),
            waker: Arc::new(Alarm(waker)),
            reactor,
        })
    }
}

impl Backend for Mio {
    fn poll(&self, timeout: Option<Duration>) {
        let (poll, events) = &mut *self.poll.borrow_mut();
        let until = timeout.and_then(|time| Instant::now().checked_add(time));
        let mut left = timeout;
        loop {
            match poll.poll(events, left.map(|time| time.min(LONGEST))) {
                Ok(()) if !events.is_empty() => break,
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => fatal(&error),
            }
            if let Some(until) = until {
                left = Some(until.saturating_duration_since(Instant::now()));
                if left == Some(Duration::ZERO) {
                    return;
                }
            }
        }
        for event in events.iter() {
            let token = Token::from_word(event.token().0);
            if token != Token::NONE {
                slot::deliver(self.reactor, token, readiness(event));
            }
        }
    }

    fn waker(&self) -> Arc<dyn DriverWaker> {
        self.waker.clone()
    }

    fn registrar(&self) -> &Arc<dyn Registrar> {
        &self.registrar
    }

    fn name(&self) -> &'static str {
        if cfg!(windows) {
            "mio (AFD, whole milliseconds)"
        } else if cfg!(any(target_os = "linux", target_os = "android")) {
            "mio (epoll, whole milliseconds)"
        } else {
            "mio (kqueue)"
        }
    }
}

fn readiness(event: &::mio::event::Event) -> Readiness {
    let (read_closed, write_closed) = (event.is_read_closed(), event.is_write_closed());
    Readiness {
        readable: event.is_readable() || read_closed,
        writable: event.is_writable() || write_closed,
        broken: event.is_error() || (read_closed && write_closed),
        special: true,
    }
}

fn word(token: Token) -> ::mio::Token {
    ::mio::Token(token.to_word())
}

impl DriverWaker for Alarm {
    fn wake(&self) {
        if fork::in_child() {
            return; // It is the parent's.
        }
        while let Err(error) = self.0.wake() {
            if error.kind() != io::ErrorKind::Interrupted {
                fatal(&error);
            }
        }
    }
}

impl Registrar for Set {
    fn add(&self, fd: RawFd, token: Token) -> io::Result<()> {
        self.members.add(&self.registry, fd, token)
    }

    fn remove(&self, fd: RawFd) {
        self.members.remove(&self.registry, fd);
    }
}
