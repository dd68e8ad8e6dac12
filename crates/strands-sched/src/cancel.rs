//! Cancellation unwinds.
//!
//! A fiber that is cancelled wakes up where it waits and unwinds from there with a [`Cancelled`]
//! payload: destructors run, no panic message is printed, and the join handle gets the payload.
//! It is delivered only where the operation has had no effect; one that has won its race returns
//! normally, and the cancel waits for the next suspension. None is delivered inside
//! [`uncancellable`], nor where an unwinding would abort the process: in a destructor that an
//! unwinding runs, beneath a function that no panic may leave (`extern "C"`), and where panics abort.
//!
//! Whether the fiber unwinds is read from its stack ([`is_cleaning_up`]), as std counts panics by
//! thread and a worker's fibers share one. It is asked only where a cancel is to be delivered, or std
//! says that somebody unwinds.
//!
//! Turned down: a flag that user code must poll (nobody does), and freeing the stack without
//! unwinding it (its borrows may be in use elsewhere).

use std::fmt;
use std::panic;

use strands_fiber::{CAN_UNWIND, is_cleaning_up};

use crate::current;
use crate::task::Header;
use crate::worker::fiber_main;

/// The payload that a cancelled fiber unwinds with, and that its join handle returns.
///
/// ```
/// use strands_sched::{Builder, Cancelled, SpawnOptions, sleep_until, spawn_on};
///
/// let runtime = Builder::new().workers(1).build()?;
/// let sleeper = spawn_on(runtime.shared(), SpawnOptions::default(), || sleep_until(None))?;
/// drop(runtime);
/// assert!(sleeper.join().unwrap_err().is::<Cancelled>());
/// # std::io::Result::Ok(())
/// ```
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
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering::Acquire};
/// use strands_sched::{Builder, Cancelled, Op, Outcome, SpawnOptions};
/// use strands_sched::{cancel_unwind, spawn_on, wait_until};
///
/// fn wait_for(flag: &AtomicBool) {
///     static WAIT: Op = Op("wait_for");
///     match wait_until(&WAIT, 0, None, || flag.load(Acquire)) {
///         Outcome::Woken => {}
///         Outcome::Cancelled => cancel_unwind(), // Nothing was enrolled.
///         Outcome::TimedOut => unreachable!("there is no deadline"),
///     }
/// }
///
/// static NEVER: AtomicBool = AtomicBool::new(false);
/// let runtime = Builder::new().workers(1).build()?;
/// let fiber = spawn_on(runtime.shared(), SpawnOptions::default(), || wait_for(&NEVER))?;
/// fiber.task().cancel();
/// assert!(fiber.join().unwrap_err().is::<Cancelled>());
/// # std::io::Result::Ok(())
/// ```
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
///
/// ```
/// use std::panic::catch_unwind;
/// use strands_sched::{Builder, SpawnOptions, cancelling, with_current_task, yield_now};
///
/// let runtime = Builder::new().workers(1).build()?;
/// runtime.run(SpawnOptions::default(), || {
///     with_current_task(|me| me.cancel());
///     let payload = catch_unwind(yield_now).unwrap_err();
///     assert!(cancelling(), "it may go on with `resume_unwind`");
///     drop(payload);
///     assert!(!cancelling(), "it has ended the cancel");
/// })?;
/// # std::io::Result::Ok(())
/// ```
pub fn cancelling() -> bool {
    current::with(|me| me.cancel_payloads.get() != 0)
}

/// Runs `f` with cancellation held back: it is delivered at the first suspension after.
///
/// On a plain thread, which cannot be cancelled, it just runs `f`.
///
/// ```
/// use strands_sched::{Builder, SpawnOptions, uncancellable, with_current_task, yield_now};
///
/// let runtime = Builder::new().workers(1).build()?;
/// let steps = runtime.run(SpawnOptions::default(), || {
///     with_current_task(|me| me.cancel());
///     uncancellable(|| {
///         yield_now(); // Would unwind.
///         "both steps"
///     })
/// })?;
/// assert_eq!(steps, "both steps");
/// # std::io::Result::Ok(())
/// ```
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
/// This one is about the running fiber. If somebody on the thread unwinds, it walks the fiber's
/// stack, which takes some microseconds.
///
/// Limits: while another fiber of the worker is suspended in its unwinding, one that runs in a
/// callback from C is taken to unwind; inside a `catch_unwind` in a destructor the unwinding around it
/// may not be seen; and on Windows with the MSVC tools this is std's answer.
///
/// ```
/// use std::cell::Cell;
/// use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
/// use strands_sched::panicking;
///
/// struct Lock<'a>(&'a Cell<bool>);
/// impl Drop for Lock<'_> {
///     fn drop(&mut self) {
///         self.0.set(panicking());
///     }
/// }
///
/// let poisoned = Cell::new(false);
/// let result = catch_unwind(AssertUnwindSafe(|| {
///     let _lock = Lock(&poisoned);
///     resume_unwind(Box::new("a panic without a message"));
/// }));
/// assert!(result.is_err() && poisoned.get());
/// assert!(!panicking());
/// ```
pub fn panicking() -> bool {
    std::thread::panicking() && current::with(|me| me.is_thread() || no_unwinding_may_pass())
}

/// Of the running fiber.
fn no_unwinding_may_pass() -> bool {
    is_cleaning_up(fiber_main as *const ())
}

/// What a cancel means for the running party just now.
pub(crate) enum Asked {
    /// None has been asked for.
    No,
    /// It may unwind from here.
    Deliverable,
    /// It is held back, by [`uncancellable`] or because no unwinding may begin here.
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
                true if deliverable(me) => Asked::Deliverable,
                true => Asked::Held,
            }
        }
        _ => Asked::No,
    })
}

/// Whether a cancel asked of the running fiber may unwind it from here.
#[inline]
pub(crate) fn deliverable(me: &Header) -> bool {
    CAN_UNWIND && me.cancel_requested() && me.shield.get() == 0 && !no_unwinding_may_pass()
}
