//! Readiness of a source as one of several operations of a select.
//!
//! It is [`op`](crate::Source::perform)'s contract with a look in place of the system call: `poll`, which takes nothing.
//! The races are those of `source`, with one difference: who was woken and finds the source ready has not taken
//! anything, so it always passes the turn on.
//!
//! A plain thread is in the line too, so that [`Source::close`] finds it, but under no reactor: no event is for it. It waits
//! in `poll` for all descriptors of the select at once, see `thread_wait`.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use rustix::fd::AsRawFd;
use strands_sched::{
    About, Arm, IoOperation, Operation, Outcome, ThreadWait, Waiter, Watched, with_current_task,
};

use crate::backend::{Ready, poll_one};
use crate::reactor;
use crate::slot::{Direction, Tag};
use crate::source::{Source, closed_error, no_reactor};
use crate::thread_wait;

/// To wait until a source is ready, as one of several operations. See [`Source::select_ready`].
///
/// ```
/// use strands_reactor::{Direction, ReadyOperation, Source};
/// use strands_sched::{Order, try_select};
///
/// let source = Source::new(std::net::TcpListener::bind("127.0.0.1:0")?.into());
/// let ready: ReadyOperation<'_> = source.select_ready(Direction::Read);
/// assert_eq!(try_select(&[&ready], Order::Fair), None, "nobody connects");
/// assert!(ready.take().is_none());
/// # std::io::Result::Ok(())
/// ```
pub struct ReadyOperation<'a> {
    source: &'a Source,
    direction: Direction,
    outcome: Cell<Option<io::Result<()>>>,
    waiter: Waiter<Tag>,
}

impl Source {
    /// To wait until an operation in `direction` may have become possible, as one of several operations that a
    /// [`select`](strands_sched::select) chooses from. Nothing is read or written.
    ///
    /// ```
    /// use std::net::{TcpListener, TcpStream};
    /// use strands_reactor::{Backend, Direction, Source, driver_factory};
    /// use strands_sched::{Builder, Order, SpawnOptions, Timer, select};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let source = Source::new(listener.into());
    /// let runtime = Builder::new().workers(1).driver(driver_factory(Backend::Auto)).build()?;
    /// let chosen = std::thread::scope(|scope| {
    ///     scope.spawn(|| TcpStream::connect(address));
    ///     runtime.run(SpawnOptions::default(), || {
    ///         let ready = source.select_ready(Direction::Read);
    ///         select(&[&Timer::at(None), &ready], Order::Fair, None)
    ///     })
    /// })?;
    /// assert_eq!(chosen, Some(1));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn select_ready(&self, direction: Direction) -> ReadyOperation<'_> {
        let (outcome, waiter) = (Cell::new(None), Waiter::new());
        ReadyOperation { source: self, direction, outcome, waiter }
    }
}

impl ReadyOperation<'_> {
    /// The outcome, if it was performed. After that it can be performed again.
    ///
    /// # Errors
    ///
    /// `NotConnected` once the source is [closed](Source::close); that of a cancel, inside [`as_error`](strands_sched::as_error);
    /// `Unsupported` if a fiber of a runtime without a reactor had to wait; what the system returns when it cannot watch
    /// the descriptor.
    ///
    /// ```
    /// use strands_reactor::{Direction, Source};
    /// use strands_sched::{Order, select};
    ///
    /// let source = Source::new(std::net::TcpListener::bind("127.0.0.1:0")?.into());
    /// let ready = source.select_ready(Direction::Read);
    /// source.close();
    /// select(&[&ready], Order::Fair, None);
    /// assert_eq!(ready.take().unwrap().unwrap_err().kind(), std::io::ErrorKind::NotConnected);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn take(&self) -> Option<io::Result<()>> {
        self.waiter.assert_idle();
        self.outcome.take()
    }

    /// Looks, and notes what there is; whether it is an outcome.
    fn look(&self) -> bool {
        let outcome = self.outcome.take().or_else(|| {
            if self.source.is_closed() {
                return Some(Err(closed_error()));
            }
            let fd = self.source.raw_borrow();
            match poll_one(fd, self.direction, None, Some(Duration::ZERO)) {
                Ok(Ready::No) => None,
                Ok(Ready::Fd) => Some(Ok(())),
                Err(error) => Some(Err(error)),
            }
        });
        let is_outcome = outcome.is_some();
        self.outcome.set(outcome);
        is_outcome
    }
}

// SAFETY: `withdraw` takes the waiter out of the only line it is put in.
unsafe impl Operation for ReadyOperation<'_> {
    fn attempt(&self) -> bool {
        self.waiter.assert_idle();
        self.look()
    }

    unsafe fn enrol(&self, arm: Arm<'_>) -> bool {
        let fail = |error: io::Error| {
            self.outcome.set(Some(Err(error)));
            false
        };
        let is_thread = with_current_task(|me| me.is_thread());
        let Some(reactor) = (if is_thread { Some(NONE) } else { reactor::local_id() }) else {
            return fail(no_reactor());
        };
        let mut queue = self.source.slot().queue.lock();
        let may_wait = match is_thread {
            true => Ok(!self.source.is_closed()),
            false => self.source.prepare_to_park(&mut queue, reactor),
        };
        match may_wait {
            // SAFETY: `select` borrows us until we are withdrawn.
            Ok(true) => unsafe {
                queue.enrol(&self.waiter, arm, Tag { direction: self.direction, reactor })
            },
            Ok(false) => false, // Closed.
            Err(error) => fail(error),
        }
    }

    unsafe fn withdraw(&self) {
        self.source.slot().queue.withdraw(&self.waiter);
    }

    unsafe fn complete(&self) -> bool {
        let ready = self.look();
        if ready {
            self.source.pass_turn(self.direction);
        }
        ready
    }

    fn about(&self) -> About {
        About {
            operation: match self.direction {
                Direction::Read => "readable",
                Direction::Write => "writable",
            },
            object: self.waiter.line(),
            descriptor: Some(self.source.number()),
        }
    }

    fn as_io(&self) -> Option<&dyn IoOperation> {
        Some(self)
    }
}

/// No event is of this reactor: they count from 1.
const NONE: u32 = 0;

// SAFETY: the source, which is borrowed, keeps its descriptor open.
unsafe impl IoOperation for ReadyOperation<'_> {
    fn watched(&self) -> Watched {
        let descriptor = self.source.raw_borrow().as_raw_fd() as u64;
        Watched { descriptor, write: self.direction == Direction::Write }
    }

    fn block(&self, wait: &ThreadWait<'_>) -> Outcome {
        thread_wait::wait_for_any(wait)
    }

    fn fail(&self, error: io::Error) {
        self.outcome.set(Some(Err(error)));
    }
}
