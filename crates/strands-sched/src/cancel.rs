//! Cancellation unwinds.
//!
//! A fiber that is cancelled wakes up where it waits and unwinds from there with a [`Cancelled`]
//! payload: destructors run, no panic message is printed, and the join handle gets the payload.
//! It is delivered only where the operation has had no effect; one that has won its race returns
//! normally, and the cancel waits for the next suspension. None is delivered while the fiber
//! unwinds, inside [`uncancellable`], nor where panics abort.
//!
//! Turned down: a flag that user code must poll (nobody does), and freeing the stack without
//! unwinding it (its borrows may be in use elsewhere).

use std::fmt;
use std::panic;

use strands_fiber::CAN_UNWIND;

use crate::current;
use crate::task::Header;
use crate::worker::Worker;

/// The payload that a cancelled fiber unwinds with, and that its join handle returns.
pub struct Cancelled {
    /// The fiber that counts this payload, see [`cancelling`]; 0, which is nobody, if none does.
    fiber: u64,
}

impl Cancelled {
    /// For the running fiber to unwind with.
    pub(crate) fn new() -> Cancelled {
        current::with(|me| {
            me.cancel_payloads.set(me.cancel_payloads.get() + 1);
            Cancelled { fiber: me.id() }
        })
    }

    /// What becomes of a fiber that was cancelled before it started: nothing unwinds.
    pub(crate) fn before_start() -> Cancelled {
        Cancelled { fiber: 0 }
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        current::with(|me| {
            if me.id() == self.fiber {
                me.cancel_payloads.set(me.cancel_payloads.get() - 1);
            }
        });
    }
}

impl fmt::Debug for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cancelled")
    }
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fiber was cancelled")
    }
}

impl std::error::Error for Cancelled {}

/// Unwinds from here: what an operation does whose outcome is
/// [`Outcome::Cancelled`](crate::Outcome::Cancelled), after it has undone its enrolment.
#[cold]
pub fn unwind() -> ! {
    panic::resume_unwind(Box::new(Cancelled::new()))
}

/// Whether the running fiber unwinds because it was cancelled, not because of a panic.
///
/// Ask it only where [`panicking`] says that the fiber unwinds. It goes by the payload: one
/// that the fiber unwinds with exists. Who catches it may wait, lock, and go on with `resume_unwind`, as `scope` does:
/// that is the cancel still. Who catches and drops it has ended it, and a panic after that is a
/// panic. The limit: while a fiber *keeps* the payload of its cancel (or forgets it, or has another
/// thread drop it), a panic of that fiber counts as the cancel.
///
/// Turned down: a flag that a suspension or a lock resets (a scope suspends between catching and
/// going on), and to ask whether a cancel was ever requested (a fiber that caught it may go on).
pub fn cancelling() -> bool {
    current::with(|me| me.cancel_payloads.get() != 0)
}

/// Runs `f` with cancellation held back: it is delivered at the first suspension after.
///
/// On a plain thread, which cannot be cancelled, it just runs `f`.
pub fn uncancellable<T>(f: impl FnOnce() -> T) -> T {
    struct Shield;
    impl Drop for Shield {
        fn drop(&mut self) {
            current::with(|me| me.shield.set(me.shield.get() - 1));
        }
    }
    current::with(|me| me.shield.set(me.shield.get() + 1));
    let _shield = Shield;
    f()
}

/// Whether the running party is unwinding because of a panic or a cancel.
///
/// std counts panics by thread, so its own answer on a worker is about all fibers of that worker.
/// This one is about the running fiber, with one limit: a panic that begins while *another*
/// fiber of the worker is suspended in the middle of its unwinding (a destructor of it waits) is
/// not seen until that other fiber has gone on.
pub fn panicking() -> bool {
    current::with(|me| {
        if me.is_thread() {
            return std::thread::panicking();
        }
        // SAFETY: a running fiber has a worker, whose thread this is.
        unsafe { (*me.worker()).is_unwinding(me) }
    })
}

/// What a cancel means for the running party just now.
pub(crate) enum Asked {
    /// None has been asked for.
    No,
    /// It may unwind from here.
    Deliverable,
    /// It is held back, by [`uncancellable`] or because the party unwinds already.
    Held,
}

/// Whether a cancel has been asked of the running party, or is on its way: a shutdown cancels one
/// fiber after the other, and the first to end must not look like failures to the last.
pub(crate) fn asked() -> Asked {
    current::with(|me| match current::worker() {
        Some(worker) if !me.is_thread() => {
            // SAFETY: this is the worker's thread.
            if unsafe { worker.shared() }.is_stopping() {
                me.cancel();
            }
            match me.cancel_requested() {
                false => Asked::No,
                true if deliverable(me, worker) => Asked::Deliverable,
                true => Asked::Held,
            }
        }
        _ => Asked::No,
    })
}

/// Whether a cancel asked of the running fiber may unwind it from here.
pub(crate) fn deliverable(me: &Header, worker: &Worker) -> bool {
    CAN_UNWIND && me.cancel_requested() && me.shield.get() == 0 && !worker.may_be_unwinding(me)
}
