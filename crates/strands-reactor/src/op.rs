//! The shape of an I/O operation: try, enrol, park, retry.
//!
//! An operation is a closure that makes one system call that does not block. [`Source::perform`]
//! runs it, and waits while it answers `EAGAIN`; after `EINTR` it runs it again at once. What the closure returns
//! else, an error included, is the operation's result. So a cancel, which is delivered only while the fiber
//! waits (or before the first try), never hits an operation that had an effect; and an operation
//! that could be done at once is done at once, whatever its time limit.
//!
//! After a time-out the call is made once more: a worker that was busy when data came may fire the
//! timer before it polls, and what has come in time is not denied.

use std::io;
use std::time::{Duration, Instant};

use rustix::fd::BorrowedFd;
use rustix::io::{Errno, retry_on_intr};
use strands_sched::{Op, Outcome, charge_fallible, now};

use crate::backend::fork;
use crate::slot::Direction;
use crate::source::{Source, closed_error};

/// How long an operation may wait.
///
/// ```
/// use std::io::ErrorKind;
/// use std::time::Duration;
/// use rustix::io::Errno;
/// use strands_reactor::{Direction, First, Limit, Request, Source};
/// use strands_sched::Op;
///
/// static WAIT: Op = Op("an example");
/// let source = Source::new(std::net::TcpListener::bind("127.0.0.1:0")?.into());
/// for limit in [Limit::Now, Limit::Within(Duration::from_millis(1))] {
///     let request = Request { op: &WAIT, direction: Direction::Read, limit, first: First::Try };
///     let error = source.perform(&request, |_| Err::<(), _>(Errno::AGAIN)).unwrap_err();
///     assert_eq!(error.kind(), ErrorKind::WouldBlock);
/// }
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// As long as it takes.
    None,
    /// Not at all: it fails with `WouldBlock`.
    Now,
    /// So long, from when it begins to wait; then it fails with `WouldBlock`.
    Within(Duration),
    /// Until then; then it fails with `WouldBlock`.
    Until(Instant),
}

/// What an operation does before it waits.
///
/// ```
/// use rustix::io::Errno;
/// use strands_reactor::{Direction, First, Limit, Request, Source};
/// use strands_sched::Op;
///
/// static WAIT: Op = Op("an example");
/// let source = Source::new(std::net::TcpListener::bind("127.0.0.1:0")?.into());
/// let tries = |first| {
///     let request = Request { op: &WAIT, direction: Direction::Read, limit: Limit::Now, first };
///     let mut tries = 0;
///     let attempt = |_: rustix::fd::BorrowedFd<'_>| {
///         tries += 1;
///         Err::<(), _>(Errno::AGAIN)
///     };
///     assert!(source.perform(&request, attempt).is_err());
///     tries
/// };
/// assert_eq!(tries(First::Try), 1);
/// assert_eq!(tries(First::Wait), 0);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// It tries.
    Try,
    /// It tries, unless the source is known to be [drained](Source::note_drained).
    TryUnlessDrained,
    /// It waits: it has been begun, and is not done yet.
    Wait,
}

/// One operation.
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use strands_reactor::{Direction, First, Limit, Request, Source};
/// use strands_sched::Op;
///
/// static CONNECT: Op = Op("TcpStream::connect");
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let source = Source::new(TcpStream::connect(listener.local_addr()?)?.into());
/// // A connection that was begun is made, or has failed, as soon as it can be written to.
/// let direction = Direction::Write;
/// let request = Request { op: &CONNECT, direction, limit: Limit::None, first: First::Wait };
/// source.perform(&request, |fd| rustix::net::getpeername(fd).map(drop))?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// For reports.
    pub op: &'static Op,
    /// What it waits for.
    pub direction: Direction,
    /// How long it may wait.
    pub limit: Limit,
    /// What it does before it waits.
    pub first: First,
}

impl Source {
    /// Does `attempt` as soon as it does not answer `EAGAIN`. From a fiber this suspends the
    /// fiber; from a plain thread it blocks the thread.
    ///
    /// `attempt` must neither block nor panic, as it may have to wake the next in line. A cancel
    /// unwinds from here while `attempt` has had no effect; inside
    /// [`as_error`](strands_sched::as_error) it is an error instead.
    ///
    /// # Errors
    ///
    /// What `attempt` returns; `WouldBlock` when the limit is reached; `NotConnected` once the
    /// source is [closed](Source::close); that of a cancel; `Unsupported` if it has to wait in a forked child, or
    /// in a runtime that was built without a reactor; what the system returns when it cannot
    /// watch the descriptor.
    ///
    /// ```
    /// use std::io::Write;
    /// use std::net::{TcpListener, TcpStream};
    /// use rustix::net::{RecvFlags, recv};
    /// use strands_reactor::{Backend, Direction, First, Limit, Request, Source, driver_factory};
    /// use strands_sched::{Builder, Op, SpawnOptions};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let mut client = TcpStream::connect(listener.local_addr()?)?;
    /// let (server, _) = listener.accept()?;
    /// server.set_nonblocking(true)?; // So that no attempt blocks.
    /// let server = Source::new(server.into());
    ///
    /// static READ: Op = Op("read");
    /// let (direction, limit, first) = (Direction::Read, Limit::None, First::Try);
    /// let request = Request { op: &READ, direction, limit, first };
    /// let runtime = Builder::new().workers(1).driver(driver_factory(Backend::Auto)).build()?;
    /// let mut buffer = [0; 8];
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| client.write_all(b"hello"));
    ///     runtime.run(SpawnOptions::default(), || {
    ///         server.perform(&request, |fd| recv(fd, &mut buffer[..], RecvFlags::empty()).map(drop))
    ///     })
    /// })??;
    /// assert_eq!(buffer[0], b'h');
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn perform<T>(
        &self,
        request: &Request,
        mut attempt: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        let mut attempt = |fd: BorrowedFd<'_>| retry_on_intr(|| attempt(fd));
        let forked = fork::in_child();
        if !forked {
            // Here it can be cancelled, and others can run: nothing has happened yet.
            charge_fallible()?;
        }
        if self.is_closed() {
            return Err(closed_error());
        }
        let try_first = match request.first {
            First::Try => true,
            First::Wait => false,
            First::TryUnlessDrained => matches!(request.limit, Limit::Now) || !self.is_drained(),
        };
        if try_first {
            match attempt(self.raw_borrow()) {
                Err(Errno::AGAIN) => {}
                result => return self.result(result),
            }
        }
        let deadline = match request.limit {
            Limit::Now => return Err(Errno::AGAIN.into()),
            _ if forked => return Err(fork::error()),
            Limit::None => None,
            Limit::Until(deadline) => Some(deadline),
            Limit::Within(time) => now().checked_add(time),
        };
        loop {
            let outcome = self.wait(request.op, request.direction, deadline)?;
            if self.is_closed() {
                return Err(closed_error());
            }
            match (attempt(self.raw_borrow()), outcome) {
                (Err(Errno::AGAIN), Outcome::Woken) => {}
                (Err(Errno::AGAIN), _) => return Err(Errno::AGAIN.into()),
                (result, _) => {
                    // We have not seen the end of what there is: the next in line shall look.
                    self.pass_turn(request.direction);
                    return self.result(result);
                }
            }
        }
    }

    #[inline]
    fn result<T>(&self, result: rustix::io::Result<T>) -> io::Result<T> {
        result.map_err(|error| if self.is_closed() { closed_error() } else { error.into() })
    }
}
