//! Cancellation unwinds.
//!
//! A fiber that is cancelled wakes up where it waits and unwinds from there with a [`Cancelled`]
//! payload: destructors run, no panic message is printed, and the join handle gets the payload.
//! It is delivered only where the operation has had no effect; one that has won its race returns
//! normally, and the cancel waits for the next suspension. None is delivered inside
//! [`uncancellable`], nor where an unwinding would abort the process: in a destructor that an
//! unwinding runs, and beneath a function that no panic may leave (`extern "C"`). Inside [`as_error`],
//! and where panics abort, nothing unwinds: what waits for I/O fails instead, all else waits on.
//!
//! A time limit ([`timeout_at`]) and a token ([`CancelToken`](crate::CancelToken)) are the same with
//! a [frame](crate::frame) at which the unwinding stops. There the caller may be a plain thread too.
//!
//! Turned down: a flag that user code must poll (nobody does), and freeing the stack without
//! unwinding it (its borrows may be in use elsewhere).

use std::any::Any;
use std::fmt;
use std::io;
use std::panic;
use std::time::Instant;

use strands_fiber::{CAN_UNWIND, is_cleaning_up};

use crate::current;
use crate::frame::{self, Ask, Shields, Until};
use crate::park;
use crate::task::Header;
use crate::token::CancelReason;
use crate::worker::{CALL_COST, fiber_main};

/// The payload that a cancelled fiber unwinds with, and that its join handle returns. Who unwinds to
/// a time limit or a token has one too, for as long as that takes.
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
    /// The party that counts this payload, see [`cancelling`]; 0, which is nobody, if none does.
    party: u64,
    /// The frame at which the unwinding stops; 0: at the fiber's end.
    pub(crate) frame: u64,
    why: Why,
}

/// What has asked.
pub(crate) enum Why {
    Fiber,
    Time,
    Token(Option<CancelReason>),
    Failure,
}

impl Cancelled {
    /// For the running party to unwind with.
    fn new(me: &Header, frame: u64, why: Why) -> Cancelled {
        me.cancel_payloads.set(me.cancel_payloads.get() + 1);
        Cancelled { party: me.id(), frame, why }
    }

    /// What a fiber ends with whose result is to say that it was cancelled, though nothing has unwound: it
    /// did not start, or its scope has got its error.
    ///
    /// ```
    /// assert!(strands_sched::Cancelled::not_unwound().is::<strands_sched::Cancelled>());
    /// ```
    #[must_use]
    pub fn not_unwound() -> Box<dyn Any + Send> {
        Box::new(Cancelled { party: 0, frame: 0, why: Why::Fiber })
    }

    /// Whether a payload is one.
    pub(crate) fn is(payload: &(dyn Any + Send)) -> bool {
        payload.is::<Cancelled>()
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        current::with(|me| {
            if me.id() == self.party {
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
        match &self.why {
            Why::Fiber => f.write_str("the fiber was cancelled"),
            Why::Time => f.write_str("cancelled: a time limit around the call has passed"),
            Why::Failure => f.write_str("cancelled: something else in its scope has failed"),
            Why::Token(None) => f.write_str("cancelled by a token"),
            Why::Token(Some(reason)) => write!(f, "cancelled by a token: {reason}"),
        }
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
    panic::resume_unwind(Box::new(current::with(|me| {
        // The reason is still there: none goes away while its frame stands.
        let (frame, why) = frame::look(me).map_or((0, Why::Fiber), |ask| (ask.frame, ask.why));
        Cancelled::new(me, frame, why)
    })))
}

/// What an operation does whose outcome is [`Outcome::Cancelled`](crate::Outcome::Cancelled) and
/// that was [`fallible`], after it has undone its enrolment: it unwinds from here, or the error.
///
/// ```
/// use strands_sched::{
///     Builder, Cancelled, Op, Outcome, SpawnOptions, as_error, error_or_unwind, fallible,
///     wait_until, with_current_task,
/// };
///
/// fn read() -> std::io::Result<()> {
///     static READ: Op = Op("read");
///     match fallible(|| wait_until(&READ, 0, None, || false)) {
///         Outcome::Cancelled => Err(error_or_unwind()), // Nothing was enrolled.
///         _ => unreachable!("it is never ready"),
///     }
/// }
/// let runtime = Builder::new().workers(1).build()?;
/// runtime.run(SpawnOptions::default(), || {
///     with_current_task(|me| me.cancel());
///     let error = as_error(read).unwrap_err();
///     assert!(error.get_ref().unwrap().is::<Cancelled>());
/// })?;
/// # std::io::Result::Ok(())
/// ```
#[cold]
pub fn error_or_unwind() -> io::Error {
    match fallible(|| current::with(frame::look)) {
        Some(Ask { as_error: true, frame, why }) => {
            // Of a kind that is not tried again, as `Interrupted` is, and taken for nothing else.
            io::Error::other(Cancelled { party: 0, frame, why })
        }
        _ => unwind(),
    }
}

/// Marks what `wait` waits for as one that can fail: see [`error_or_unwind`], and the example there.
///
/// `wait` is one wait and calls nothing of others.
///
/// ```
/// assert_eq!(strands_sched::fallible(|| 7), 7);
/// ```
#[inline]
pub fn fallible<T>(wait: impl FnOnce() -> T) -> T {
    struct Fallible;
    impl Drop for Fallible {
        #[inline]
        fn drop(&mut self) {
            current::with(|me| me.fallible.set(false));
        }
    }
    current::with(|me| me.fallible.set(true));
    let _fallible = Fallible;
    wait()
}

/// Runs `f`, on the calling fiber or thread; when `deadline` has come, the first call in it
/// that has to wait unwinds to here.
///
/// # Errors
///
/// If it was unwound.
///
/// ```
/// use std::time::{Duration, Instant};
/// use strands_sched::{Elapsed, sleep_until, timeout_at};
///
/// let soon = Instant::now() + Duration::from_millis(1);
/// assert_eq!(timeout_at(soon, || sleep_until(None)), Err(Elapsed));
/// assert_eq!(timeout_at(soon, || "it need not wait"), Ok("it need not wait"));
/// ```
pub fn timeout_at<T>(deadline: Instant, f: impl FnOnce() -> T) -> Result<T, Elapsed> {
    frame::run(Until::Time(deadline), f).map_err(|_| Elapsed)
}

/// The time was over: the error of what was given a time limit.
///
/// ```
/// use std::io;
/// use strands_sched::Elapsed;
///
/// assert_eq!(io::Error::from(Elapsed).kind(), io::ErrorKind::TimedOut);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time limit has passed")
    }
}

impl std::error::Error for Elapsed {}

/// Of kind `TimedOut`.
impl From<Elapsed> for io::Error {
    fn from(elapsed: Elapsed) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, elapsed)
    }
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
/// What asks from *inside* of it, a time limit or a token around a part of `f`, works.
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
    shielded(Shields { all: 1, as_error: 0 }, f)
}

/// Runs `f` with nothing unwound by a cancel: what is [`fallible`] fails, all else is
/// [`uncancellable`]. Where panics abort it is so everywhere.
///
/// ```
/// use std::time::{Duration, Instant};
/// use strands_sched::{as_error, sleep_until, timeout_at};
///
/// let start = Instant::now();
/// let awake = start + Duration::from_millis(1);
/// let slept = timeout_at(start, || as_error(|| sleep_until(Some(awake))));
/// assert_eq!(slept, Ok(()), "a sleep has no error to return");
/// ```
pub fn as_error<T>(f: impl FnOnce() -> T) -> T {
    shielded(Shields { all: 1, as_error: 1 }, f)
}

fn shielded<T>(shield: Shields, f: impl FnOnce() -> T) -> T {
    struct Shield(Shields);
    impl Drop for Shield {
        fn drop(&mut self) {
            current::with(|me| match me.shields.get().minus(self.0) {
                Some(left) => me.shields.set(left),
                None => me.frames.unshield(self.0),
            });
        }
    }
    current::with(|me| me.shields.set(me.shields.get().plus(shield)));
    let _shield = Shield(shield);
    f()
}

/// Whether the running party has been asked to unwind, by a cancel, a time limit or a token; also
/// where that is held back.
///
/// A loop that asks until it is so lets others run: see [`charge`](crate::charge). It does not
/// unwind from here.
///
/// ```
/// use strands_sched::{Builder, SpawnOptions, is_asked, with_current_task};
///
/// let runtime = Builder::new().workers(1).build()?;
/// runtime.run(SpawnOptions::default(), || {
///     assert!(!is_asked());
///     with_current_task(|me| me.cancel());
///     assert!(is_asked());
/// })?;
/// # std::io::Result::Ok(())
/// ```
pub fn is_asked() -> bool {
    uncancellable(park::charge);
    current::with(frame::is_asked_behind_shields)
}

/// Unwinds from here if the running party is asked to, as a call would that has to wait.
///
/// ```
/// use std::time::Instant;
/// use strands_sched::{Elapsed, check, timeout_at};
///
/// assert_eq!(timeout_at(Instant::now(), check), Err(Elapsed));
/// ```
pub fn check() {
    park::charge();
    if current::with(deliverable) {
        unwind();
    }
}

/// As [`check`], for what is [`fallible`].
///
/// # Errors
///
/// That of [`error_or_unwind`].
///
/// ```
/// assert!(strands_sched::check_fallible().is_ok(), "nobody asks");
/// ```
pub fn check_fallible() -> io::Result<()> {
    match fallible(|| current::with(deliverable)) {
        false => Ok(()),
        true => Err(error_or_unwind()),
    }
}

/// As [`charge`](crate::charge), for a system call, which is [`fallible`] and counts for several operations.
///
/// # Errors
///
/// That of [`error_or_unwind`].
///
/// ```
/// assert!(strands_sched::charge_fallible().is_ok(), "nobody asks");
/// ```
#[inline]
pub fn charge_fallible() -> io::Result<()> {
    match current::spend_budget(CALL_COST) {
        true => Ok(()),
        false => let_others_run_fallible(),
    }
}

#[cold]
pub(crate) fn let_others_run_fallible() -> io::Result<()> {
    uncancellable(park::exhausted);
    check_fallible()
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

/// Of the running party; of a thread, it is what std says.
fn no_unwinding_may_pass() -> bool {
    is_cleaning_up(fiber_main as *const ())
}

/// Takes a shutdown of the running fiber's runtime for a cancel of it, which is on its way: one
/// fiber is cancelled after the other, and the first to end must not look like failures to the last.
///
/// Says whether it is so.
pub(crate) fn expect_shutdown() -> bool {
    current::with(|me| {
        let worker = current::worker().filter(|_| CAN_UNWIND && !me.is_thread());
        // SAFETY: this is the worker's thread.
        let is_stopping = worker.is_some_and(|worker| unsafe { worker.shared() }.is_stopping());
        if is_stopping {
            me.cancel();
        }
        is_stopping
    })
}

/// Unwinds from here if the running fiber's runtime is shutting down, as the fiber is about to be cancelled.
///
/// ```
/// use strands_sched::{Builder, SpawnOptions, check_shutdown};
///
/// let runtime = Builder::new().workers(1).build()?;
/// runtime.run(SpawnOptions::default(), check_shutdown)?; // It is not.
/// # std::io::Result::Ok(())
/// ```
pub fn check_shutdown() {
    if expect_shutdown() && current::with(deliverable) {
        unwind();
    }
}

/// Whether what asks the running party to unwind, or to fail, may do so here.
#[inline]
pub(crate) fn deliverable(me: &Header) -> bool {
    frame::is_asked(me) && (!CAN_UNWIND || fails_instead(me) || !no_unwinding_may_pass())
}

/// What asks becomes an error: nothing unwinds, so nothing is in its way.
#[cold]
fn fails_instead(me: &Header) -> bool {
    me.fallible.get() && frame::look(me).is_some_and(|ask| ask.as_error)
}
