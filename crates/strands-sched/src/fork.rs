//! Forked children: a process that was forked without `exec` from one that runs a runtime.
//!
//! Such a child has one thread: the one that forked. The workers, and whoever else could end a
//! wait, are in the parent. What the child has of the parent's is a copy, but for descriptors,
//! which are shared. So in a child
//!
//! - nothing waits: I/O returns [`error`], all else panics with the same words, before it has
//!   enrolled anywhere; what would wait for no time just times out;
//! - no fiber runs but the one that forked: a yield returns, a spawn fails, and work for the pool
//!   is done in place;
//! - wakes go nowhere;
//! - the fiber (or the pool's closure, or the hook) that forked does not return to its worker: when
//!   it ends, the process ends.
//!
//! One word tells. It lies where the system changes it in a child; the layer that knows the system
//! hands it in before the first worker is made. Where no runtime was started before the fork there
//! is no such word, and all works in the child as anywhere.
//!
//! Turned down: letting a child start a runtime of its own beside the remains of the parent's. A
//! plain thread cannot tell a lock of the one from a lock of the other, so its waits would hang
//! where now they say why they cannot end.

use std::io;
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::time::Instant;

/// Where no runtime has been started.
static NOT_ZERO: AtomicU32 = AtomicU32::new(1);
/// A word that is zero in a child and nowhere else.
static WORD: AtomicPtr<AtomicU32> = AtomicPtr::new((&raw const NOT_ZERO).cast_mut());

const TEXT: &str = "this process was forked from one that runs strands, and has no workers: \
                    nothing can wait or be spawned here; exec, do the work in the parent, \
                    or fork before the first runtime is started";

/// Says that this is a child if, from now on, `word` is found to be zero.
///
/// # Safety
///
/// It is zero in no process but a forked child: there a wait ends in a panic though others may still
/// use what the waiter has lent them, because they are not there.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use strands_sched::{in_forked_child, watch_forks};
///
/// // On Linux: in a page that was given MADV_WIPEONFORK.
/// static WORD: AtomicU32 = AtomicU32::new(0);
/// WORD.store(1, Relaxed);
/// // SAFETY: nobody writes to it any more.
/// unsafe { watch_forks(&WORD) };
/// assert!(!in_forked_child());
/// # std::io::Result::Ok(())
/// ```
pub unsafe fn watch_forks(word: &'static AtomicU32) {
    WORD.store(ptr::from_ref(word).cast_mut(), Ordering::Release);
}

/// Whether this is a child forked from a process that had started a runtime.
///
/// ```
/// use strands_sched::{forked_error, in_forked_child};
///
/// fn read_or_wait() -> std::io::Result<()> {
///     match in_forked_child() {
///         true => Err(forked_error()),
///         false => Ok(()),
///     }
/// }
/// assert!(read_or_wait().is_ok());
/// ```
#[inline(always)]
pub fn in_forked_child() -> bool {
    // SAFETY: it points at `NOT_ZERO` or at what `watch_forks` was given: both are `'static`.
    unsafe { &*WORD.load(Ordering::Acquire) }.load(Ordering::Relaxed) == 0
}

/// What an operation that could fail is answered with in a child.
///
/// ```
/// assert_eq!(strands_sched::forked_error().kind(), std::io::ErrorKind::Unsupported);
/// ```
#[cold]
pub fn forked_error() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, TEXT)
}

/// What an operation that cannot fail asks before it enrols, or lets go of what it holds, to wait
/// until `deadline`.
///
/// # Panics
///
/// In a child, unless the deadline has passed: then there is nothing to wait for.
///
/// ```
/// use std::sync::{Condvar, Mutex, MutexGuard};
///
/// /// A wait that lets go of what it holds first: there it is too late to refuse.
/// fn wait<'a, T>(changed: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
///     strands_sched::assert_may_wait(None);
///     changed.wait(guard).unwrap()
/// }
///
/// let (ready, changed) = (Mutex::new(false), Condvar::new());
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         *ready.lock().unwrap() = true;
///         changed.notify_one();
///     });
///     let mut guard = ready.lock().unwrap();
///     while !*guard {
///         guard = wait(&changed, guard);
///     }
/// });
/// ```
#[inline]
#[track_caller]
pub fn assert_may_wait(deadline: Option<Instant>) {
    if in_forked_child() && deadline.is_none_or(|deadline| deadline > Instant::now()) {
        refuse();
    }
}

#[cold]
#[track_caller]
pub(crate) fn refuse() -> ! {
    panic!("{TEXT}")
}

/// Ends a child: its last party has ended. As where a main thread ends, so that who waits for
/// the process learns of a panic.
#[cold]
pub(crate) fn end_child(panicked: bool) -> ! {
    process::exit(if panicked { 101 } else { 0 })
}
