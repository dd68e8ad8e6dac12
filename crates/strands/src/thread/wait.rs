//! What a fiber or thread does to itself: waiting, and a look around.

use std::io;
use std::num::NonZero;
use std::time::Duration;

use crate::time;

/// Waits until somebody [unparks](crate::thread::Thread::unpark) the caller, as
/// `std::thread::park`.
///
/// Returns at once if that has happened since the last `park`. It may also return without a reason,
/// so callers look at what they wait for.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use strands::thread;
///
/// static READY: AtomicBool = AtomicBool::new(false);
/// let waiter = thread::spawn(|| {
///     while !READY.load(Ordering::Acquire) {
///         thread::park();
///     }
/// });
/// READY.store(true, Ordering::Release);
/// waiter.thread().unpark();
/// waiter.join().unwrap();
/// ```
pub fn park() {
    strands_sched::park_token(None);
}

/// As [`park`], for `dur` at most, as `std::thread::park_timeout`.
///
/// With a `dur` of zero it only takes the token. A `dur` too long for the clock is no limit.
///
/// ```
/// use std::time::Duration;
/// use strands::thread;
///
/// thread::park_timeout(Duration::from_millis(1)); // Nobody unparks us.
/// thread::current().unpark();
/// thread::park_timeout(Duration::MAX); // Returns at once.
/// ```
pub fn park_timeout(dur: Duration) {
    strands_sched::park_token(time::deadline_in(dur));
}

/// As [`park_timeout`], in milliseconds.
///
/// ```
/// #[allow(deprecated)]
/// strands::thread::park_timeout_ms(1);
/// ```
#[deprecated(note = "replaced by `strands::thread::park_timeout`")]
pub fn park_timeout_ms(ms: u32) {
    park_timeout(Duration::from_millis(ms.into()));
}

/// Waits for `dur` at least, as `std::thread::sleep`.
///
/// Nothing is rounded down, and short times are kept as well as the kernel can: tens of
/// microseconds. With a `dur` of zero it is [`yield_now`]. A `dur` too long for the clock sleeps
/// for ever, where std would do so in parts.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// strands::sleep(Duration::from_micros(100));
/// assert!(start.elapsed() >= Duration::from_micros(100));
/// ```
pub fn sleep(dur: Duration) {
    if dur.is_zero() {
        return yield_now();
    }
    strands_sched::sleep_until(time::deadline_in(dur));
}

/// As [`sleep`], in milliseconds.
///
/// ```
/// #[allow(deprecated)]
/// strands::thread::sleep_ms(1);
/// ```
#[deprecated(note = "replaced by `strands::thread::sleep`")]
pub fn sleep_ms(ms: u32) {
    sleep(Duration::from_millis(ms.into()));
}

/// Lets the other ready fibers of this worker run, and looks at timers and I/O when it is time; on
/// a plain thread, `std::thread::yield_now`.
///
/// Fibers are not preempted: one that computes for long delays the others of its worker, and a call
/// now and then lets them run.
///
/// ```
/// let mut sum = 0u64;
/// for i in 0..10_000 {
///     sum += i;
///     if i % 1_000 == 0 {
///         strands::yield_now();
///     }
/// }
/// assert_eq!(sum, 49_995_000);
/// ```
pub fn yield_now() {
    strands_sched::yield_now();
}

/// Whether the calling fiber (on a plain thread, the thread) is unwinding because of a panic or a
/// cancel.
///
/// `std::thread::panicking` goes by the OS thread, that is by all fibers of a worker. This goes by
/// the fiber, with one limit: a panic that begins, or is caught, while *another* fiber of
/// the worker is suspended in the middle of its own unwinding is not seen until that one has gone on.
///
/// ```
/// struct Report;
/// impl Drop for Report {
///     fn drop(&mut self) {
///         if strands::thread::panicking() {
///             println!("not finished");
///         }
///     }
/// }
/// let _report = Report;
/// ```
pub fn panicking() -> bool {
    strands_sched::panicking()
}

/// How many threads can run at once here, as `std::thread::available_parallelism`; the default
/// runtime has as many workers.
///
/// # Errors
///
/// As std's: if it is not known.
///
/// ```
/// assert!(strands::thread::available_parallelism()?.get() >= 1);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn available_parallelism() -> io::Result<NonZero<usize>> {
    std::thread::available_parallelism()
}
