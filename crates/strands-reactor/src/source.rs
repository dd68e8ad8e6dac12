//! A descriptor with its waiters.
//!
//! Promise: whoever waits at a source, fiber or plain thread, on whatever worker, is woken when
//! what it waits for may have become possible, however many others wait, take part of it, give up
//! or close the source.
//!
//! # How fibers wait
//!
//! A fiber tries, sees `EAGAIN`, has the source registered with *its own worker's* reactor if it
//! is not yet (on Windows each time: see `EDGES_STOP` in `backend`), enrols in the source's queue
//! under its direction and reactor, and parks. An edge
//! that the reactor of worker w reports wakes one waiter of w in that direction (all, if the
//! descriptor is broken). Only w's thread handles w's events, and only on its own stack, so
//! between a fiber's system call and its park no event of its worker is handled.
//!
//! # The races that could lose a waiter
//!
//! **An edge between `EAGAIN` and the enrolment.** If the source was registered before, the edge
//! stays in the kernel until the worker polls, which it does after the fiber has parked. If not,
//! the registration comes after the try and reports what is possible at that time.
//!
//! **Somebody else takes what the edge announced**: a fiber of another worker, a plain thread, or
//! one that has just come. The waiter that was woken tries, sees `EAGAIN` and waits again; what
//! comes later is a new edge for every reactor the source is registered with.
//!
//! **The turn.** One edge may carry two connections, or data for two readers. A waiter that is
//! woken holds the turn. If its try says `EAGAIN`, there is nothing left and the turn is over:
//! whatever comes later is a new edge. With any other result, an error too (`EMFILE` leaves the
//! connection where it is), there may be more, so it wakes the next waiter of its direction and
//! reactor. Fibers that enrol after the wake need no turn: they have seen `EAGAIN` later than
//! that. So the waker notes in `more` whether any stayed behind, and who reads 0 there need not
//! lock. A turn cannot get lost on the way: between the wake and the try nothing can unwind or
//! suspend, and a waiter that gave up first is passed over by the waker in the same step.
//!
//! **Time runs out, or a cancel comes, at the same moment as the wake.** The parker's word
//! decides: either the waiter was woken, and then it tries; or it gave up, and then the wake went
//! to the next.
//!
//! **A stale event** of a closed source whose number and slot have a new owner carries the old
//! generation.
//!
//! **A close** sets the mark and wakes all under the lock; a waiter looks at the mark under the
//! same lock before it enrols, a plain thread after it has put its bell there.
//!
//! # The hint
//!
//! A read from a TCP socket that returns less than it asked for has emptied it (unless urgent
//! data, the peer's end or an error stopped it), so the next read may wait without asking the
//! kernel first. The mark DRAINED belongs to one worker, the one whose reactor was registered
//! first (`home`), and only its thread sets, clears or uses it:
//!
//! - it is set right after the short read, without a suspension between, and only if `home` is
//!   this worker's reactor: as only this thread registers with it, the registration is older than
//!   the read. So whatever comes after the read is an edge that this thread has not handled when
//!   it sets the mark;
//! - handling any edge of the source clears it, on the same thread;
//! - so while it is set, whatever came after the read is an edge still to be handled, and will
//!   wake the reader that has parked by then.
//!
//! The end may come with the last data in one edge, *before* the short read, with no edge to
//! follow. Therefore an edge that tells of an end, an error or urgent data forbids the mark for
//! good (SPECIAL). If that edge has not been handled at the time of the read, it is still to
//! come, and clears the mark. Other workers, plain threads and clones of the descriptor never
//! look at the mark: they ask the kernel. What they take away from under a set mark leaves the
//! socket empty, which is what the mark says.
//!
//! Turned down: the hint for pipes and unix sockets (a short read may stop at a boundary, with more
//! behind it), and one registration with a shared epoll instance (every wake would cross workers).

use std::io;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::Instant;

use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use strands_sched::{
    Detail, Op, Outcome, error_or_unwind, fallible, while_waiting_for, with_current_task,
};

use crate::backend::{EDGES_STOP, cannot_watch, fork};
use crate::descriptor::Descriptor;
use crate::reactor::{self, Reactor};
use crate::slot::{self, Direction, Slot, State, Tag};
use crate::thread_wait;

/// A descriptor at which any number of fibers and plain threads may wait.
///
/// It makes no system call of its own until somebody waits, and leaves the descriptor's mode as it
/// is: the operations must be such that they do not block.
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use strands_reactor::{Direction, First, Limit, Request, Source};
/// use strands_sched::Op;
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// listener.set_nonblocking(true)?;
/// let source = Source::new(listener.into());
///
/// static ACCEPT: Op = Op("accept");
/// let (direction, limit, first) = (Direction::Read, Limit::None, First::Try);
/// let request = Request { op: &ACCEPT, direction, limit, first };
/// let client = std::thread::spawn(move || TcpStream::connect(address));
/// let stream: TcpStream = source.perform(&request, |fd| rustix::net::accept(fd))?.into();
/// assert_eq!(stream.peer_addr()?, client.join().unwrap()?.local_addr()?);
/// # std::io::Result::Ok(())
/// ```
pub struct Source {
    // Dropped in this order: out of the reactors before the descriptor is closed.
    tenancy: Tenancy,
    fd: Descriptor,
}

/// The right to a slot, for the descriptor with this number.
struct Tenancy {
    slot: &'static Slot,
    fd: RawFd,
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        // A child must not deregister: it would act on the parent's epoll instance.
        if !fork::in_child() {
            slot::give_back(self.slot, self.fd);
        }
    }
}

/// The error of operations on a handle that was closed.
#[cold]
pub(crate) fn closed_error() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the handle was closed")
}

impl Source {
    /// A source that nobody waits at yet.
    ///
    /// ```
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let source = strands_reactor::Source::new(listener.into());
    /// assert!(!source.is_closed());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new(fd: OwnedFd) -> Source {
        let tenancy = Tenancy { slot: slot::take(), fd: fd.as_raw_fd() };
        Source { tenancy, fd: Descriptor::new(fd) }
    }

    /// Gives the descriptor back, out of all reactors.
    ///
    /// ```
    /// use std::net::TcpListener;
    /// use strands_reactor::Source;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let listener = TcpListener::from(Source::new(listener.into()).into_fd());
    /// assert_eq!(listener.local_addr()?, address);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn into_fd(self) -> OwnedFd {
        let Source { tenancy, fd } = self;
        drop(tenancy);
        fd.into_fd()
    }

    /// Says that others know the descriptor, knew it, or have one for the same socket: they may make it
    /// linger. If it does when it is closed, in a fiber that is done on a thread that may be blocked.
    ///
    /// ```
    /// use strands_reactor::Source;
    ///
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let stream = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// let clone = stream.try_clone()?;
    /// let source = Source::new(stream.into());
    /// source.expose(); // The other may set `SO_LINGER`.
    /// assert!(source.is_exposed());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn expose(&self) {
        self.fd.expose();
    }

    /// Whether it was [exposed](Self::expose).
    ///
    /// ```
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// assert!(!strands_reactor::Source::new(listener.into()).is_exposed());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn is_exposed(&self) -> bool {
        self.fd.is_exposed()
    }

    /// Closes the descriptor now, though others share this handle: all that wait at it, and all
    /// operations that begin later, fail with an error of kind `NotConnected`.
    ///
    /// Its number stays taken until the source is dropped. On Windows it is only shut down now,
    /// and closed then: a listener goes on to listen.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use rustix::io::Errno;
    /// use strands_reactor::{Direction, First, Limit, Request, Source};
    /// use strands_sched::Op;
    ///
    /// static WAIT: Op = Op("an example");
    /// let (direction, limit, first) = (Direction::Read, Limit::None, First::Try);
    /// let request = Request { op: &WAIT, direction, limit, first };
    /// let source = Source::new(std::net::TcpListener::bind("127.0.0.1:0")?.into());
    /// let result = std::thread::scope(|scope| {
    ///     let waiter = scope.spawn(|| source.perform(&request, |_| Err::<(), _>(Errno::AGAIN)));
    ///     source.close(); // Whether it waits already or not.
    ///     waiter.join().unwrap()
    /// });
    /// assert_eq!(result.unwrap_err().kind(), ErrorKind::NotConnected);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn close(&self) {
        if fork::in_child() {
            return self.fd.close_early();
        }
        let slot = self.slot();
        let threads = {
            let mut locked = slot.queue.lock();
            if slot.closed.swap(true, AcqRel) {
                return;
            }
            slot.deregister(&mut locked, self.tenancy.fd);
            locked.wake_all(|_| true);
            locked.threads.clone()
        };
        threads.iter().for_each(|thread| thread.raise());
        self.fd.close_early();
    }

    /// Whether it was [closed](Self::close).
    ///
    /// ```
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let source = strands_reactor::Source::new(listener.into());
    /// source.close();
    /// assert!(source.is_closed());
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.slot().closed.load(Acquire)
    }

    /// The descriptor.
    ///
    /// # Errors
    ///
    /// `NotConnected` if it was [closed](Self::close).
    ///
    /// ```
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let source = strands_reactor::Source::new(listener.into());
    /// assert!(rustix::net::getsockname(source.open_fd()?).is_ok());
    /// source.close();
    /// assert_eq!(source.open_fd().unwrap_err().kind(), std::io::ErrorKind::NotConnected);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn open_fd(&self) -> io::Result<BorrowedFd<'_>> {
        if self.is_closed() { Err(closed_error()) } else { Ok(self.fd.as_fd()) }
    }

    /// Says that the read just made, on a TCP socket, got less than it asked for and more than
    /// nothing. To be called before anything else that may suspend: inside the attempt.
    ///
    /// ```
    /// use std::io::Write;
    /// use std::net::{TcpListener, TcpStream};
    /// use rustix::net::{RecvFlags, recv};
    /// use strands_reactor::{Direction, First, Limit, Request, Source};
    /// use strands_sched::Op;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let mut client = TcpStream::connect(listener.local_addr()?)?;
    /// let (server, _) = listener.accept()?;
    /// server.set_nonblocking(true)?;
    /// let server = Source::new(server.into());
    /// client.write_all(b"hello")?;
    ///
    /// static READ: Op = Op("read");
    /// let (direction, limit, first) = (Direction::Read, Limit::None, First::TryUnlessDrained);
    /// let request = Request { op: &READ, direction, limit, first };
    /// let mut buffer = [0; 8];
    /// let bytes = server.perform(&request, |fd| {
    ///     let (_, bytes) = recv(fd, &mut buffer[..], RecvFlags::empty())?;
    ///     if 0 < bytes && bytes < 8 {
    ///         server.note_drained(); // In a fiber, the next read waits before it tries.
    ///     }
    ///     Ok(bytes)
    /// })?;
    /// assert!(bytes > 0);
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn note_drained(&self) {
        if let Some(reactor) = reactor::local_id() {
            self.slot().note_drained(reactor);
        }
    }

    #[inline]
    pub(crate) fn is_drained(&self) -> bool {
        self.slot().is_drained(reactor::local_id)
    }

    #[inline]
    pub(crate) fn pass_turn(&self, direction: Direction) {
        if let Some(reactor) = reactor::local_id() {
            self.slot().pass_turn(direction, reactor);
        }
    }

    pub(crate) fn slot(&self) -> &'static Slot {
        self.tenancy.slot
    }

    #[inline]
    pub(crate) fn raw_borrow(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The descriptor, for reports.
    pub(crate) fn number(&self) -> u64 {
        self.tenancy.fd as u64
    }

    /// Waits until an operation in `direction` may have become possible; the caller has seen that
    /// it was not. Never returns `Cancelled`: it unwinds, or that is the error.
    pub(crate) fn wait(
        &self,
        op: &'static Op,
        direction: Direction,
        deadline: Option<Instant>,
    ) -> io::Result<Outcome> {
        if with_current_task(|me| me.is_thread()) {
            return match thread_wait::wait(self, op, direction, deadline)? {
                Outcome::Cancelled => Err(error_or_unwind()),
                outcome => Ok(outcome),
            };
        }
        let reactor = reactor::local_id().ok_or_else(no_reactor)?;
        let enrol = |state: &mut State| match self.prepare_to_park(state, reactor) {
            Ok(true) => None,
            Ok(false) => Some(Ok(Outcome::Woken)),
            Err(error) => Some(Err(error)),
        };
        let tag = Tag { direction, reactor };
        let wait = || self.slot().queue.wait(op, deadline, tag, enrol);
        match fallible(|| while_waiting_for(Detail::Descriptor(self.number()), wait)) {
            Ok(not_parked) => not_parked,
            Err(Outcome::Cancelled) => Err(error_or_unwind()),
            Err(outcome) => Ok(outcome),
        }
    }

    /// Under the lock: false if there is nothing to wait for any more.
    pub(crate) fn prepare_to_park(&self, state: &mut State, reactor: u32) -> io::Result<bool> {
        let slot = self.slot();
        if slot.closed.load(Relaxed) {
            return Ok(false);
        }
        let registered = state.is_registered(reactor);
        if !registered || EDGES_STOP {
            let registrar = reactor::with_local(Reactor::registrar_clone).ok_or_else(no_reactor)?;
            registrar.add(self.tenancy.fd, slot.token(state)).map_err(cannot_watch)?;
            if !registered {
                slot.add_registrar(state, reactor, &registrar);
            }
        }
        Ok(true)
    }
}

#[cold]
pub(crate) fn no_reactor() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "this runtime has no reactor to wait in; build it with strands_reactor::driver_factory",
    )
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("fd", &self.tenancy.fd)
            .field("closed", &self.is_closed())
            .finish()
    }
}
