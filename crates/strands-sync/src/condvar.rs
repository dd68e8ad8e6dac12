//! A condition variable.
//!
//! A line of waiters and nothing else. A waiter gets in line before it unlocks the mutex, so a
//! notifier that changed the state under the mutex finds it. A notification is spent on a waiter that
//! returns from its wait: one that gave up in the same moment is passed over, and one that is cancelled after it was
//! chosen, while it waits for the mutex, passes the notification on before it unwinds.
//!
//! A cancelled waiter unwinds without the mutex. Turned down: to lock it first as POSIX does for its
//! cleanup handlers. Here the guard was moved in, so no frame on the way relies on the lock, and a mutex that
//! is held for long would hold up the cancel.

use std::fmt;
use std::time::{Duration, Instant};

use strands_sched::{Op, Outcome, Place, WaitQueue, assert_may_wait};

use crate::deadline;
use crate::mutex::{Cancel, MutexGuard};
use crate::poison::{LockResult, PoisonError};

/// A condition variable, as `std::sync::Condvar`, for fibers and plain threads alike.
///
/// As std's on Linux, it may be used with several mutexes. Waits may end without a notification, so wait in a
/// loop or by [`wait_while`](Self::wait_while).
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use strands_sync::{Condvar, Mutex};
///
/// let pair = Arc::new((Mutex::new(false), Condvar::new()));
/// let other = pair.clone();
/// let thread = std::thread::spawn(move || {
///     *other.0.lock().unwrap() = true;
///     other.1.notify_one();
/// });
/// let (mutex, condvar) = &*pair;
/// let mut started = mutex.lock().unwrap();
/// while !*started {
///     started = condvar.wait(started).unwrap();
/// }
/// thread.join().unwrap();
/// ```
pub struct Condvar {
    line: WaitQueue<()>,
}

/// Whether a wait with a time limit ended by it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use strands_sync::{Condvar, Mutex};
///
/// let mutex = Mutex::new(());
/// let condvar = Condvar::new();
/// let guard = mutex.lock().unwrap();
/// let (_guard, result) = condvar.wait_timeout(guard, Duration::ZERO).unwrap();
/// assert!(result.timed_out());
/// ```
#[derive(Debug, PartialEq, Eq, Copy, Clone)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the time was up.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands_sync::{Condvar, Mutex};
    ///
    /// let (mutex, condvar) = (Mutex::new(()), Condvar::new());
    /// let limit = Duration::from_millis(1);
    /// let (_guard, result) = condvar.wait_timeout(mutex.lock().unwrap(), limit).unwrap();
    /// assert!(result.timed_out(), "nobody has notified");
    /// ```
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// A condition variable that nobody waits for.
    ///
    /// # Examples
    ///
    /// ```
    /// static CHANGED: strands_sync::Condvar = strands_sync::Condvar::new();
    /// CHANGED.notify_all();
    /// ```
    #[cfg(not(loom))]
    #[must_use]
    #[inline]
    pub const fn new() -> Condvar {
        Condvar { line: WaitQueue::new(()) }
    }

    /// A condition variable that nobody waits for.
    #[cfg(loom)]
    pub fn new() -> Condvar {
        Condvar { line: WaitQueue::new(()) }
    }

    /// Unlocks, waits for a notification, and locks again.
    ///
    /// # Errors
    ///
    /// If the mutex is poisoned when it is locked again; the error has the guard.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::thread;
    /// use strands_sync::{Condvar, Mutex};
    ///
    /// let (full, condvar) = (Mutex::new(false), Condvar::new());
    /// thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         *full.lock().unwrap() = true;
    ///         condvar.notify_one();
    ///     });
    ///     let mut guard = full.lock().unwrap();
    ///     while !*guard {
    ///         guard = condvar.wait(guard).unwrap();
    ///     }
    ///     *guard = false; // Emptied.
    /// });
    /// assert!(!full.into_inner().unwrap());
    /// ```
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        static WAIT: Op = Op("Condvar::wait");
        self.wait_until(guard, &WAIT, None).0
    }

    /// Waits until `condition`, which is asked with the lock held, is false.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::{Condvar, Mutex};
    ///
    /// let (pending, condvar) = (Mutex::new(true), Condvar::new());
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         *pending.lock().unwrap() = false;
    ///         condvar.notify_one();
    ///     });
    ///     let guard = pending.lock().unwrap();
    ///     let guard = condvar.wait_while(guard, |pending| *pending).unwrap();
    ///     assert!(!*guard);
    /// });
    /// ```
    pub fn wait_while<'a, T, F>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: F,
    ) -> LockResult<MutexGuard<'a, T>>
    where
        F: FnMut(&mut T) -> bool,
    {
        while condition(&mut *guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// As [`wait_timeout`](Self::wait_timeout), with the time in milliseconds; false if it was up.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::{Condvar, Mutex};
    ///
    /// let (mutex, condvar) = (Mutex::new(()), Condvar::new());
    /// # #[allow(deprecated)]
    /// let (_guard, notified) = condvar.wait_timeout_ms(mutex.lock().unwrap(), 0).unwrap();
    /// assert!(!notified);
    /// ```
    #[deprecated(since = "0.1.0", note = "replaced by `Condvar::wait_timeout`, as in std")]
    pub fn wait_timeout_ms<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        ms: u32,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        match self.wait_timeout(guard, Duration::from_millis(ms.into())) {
            Ok((guard, result)) => Ok((guard, !result.timed_out())),
            Err(poisoned) => {
                let (guard, result) = poisoned.into_inner();
                Err(PoisonError::new((guard, !result.timed_out())))
            }
        }
    }

    /// Unlocks, waits for a notification for about `timeout`, and locks again.
    ///
    /// A timeout that no `Instant` can tell is none.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands_sync::{Condvar, Mutex};
    ///
    /// let (queue, condvar) = (Mutex::new(Vec::<u32>::new()), Condvar::new());
    /// let limit = Duration::from_millis(1);
    /// let (guard, result) = condvar.wait_timeout(queue.lock().unwrap(), limit).unwrap();
    /// assert!(guard.is_empty() && result.timed_out());
    /// ```
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        self.wait_deadline(guard, deadline::after(timeout))
    }

    /// Waits until `condition`, which is asked with the lock held, is false, for about `timeout`.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands_sync::{Condvar, Mutex};
    ///
    /// let (pending, condvar) = (Mutex::new(true), Condvar::new());
    /// let guard = pending.lock().unwrap();
    /// let limit = Duration::from_millis(1);
    /// let (guard, result) = condvar.wait_timeout_while(guard, limit, |pending| *pending).unwrap();
    /// assert!(*guard && result.timed_out());
    /// ```
    pub fn wait_timeout_while<'a, T, F>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: F,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)>
    where
        F: FnMut(&mut T) -> bool,
    {
        let deadline = deadline::after(timeout);
        let mut result = WaitTimeoutResult(false);
        while condition(&mut *guard) {
            if result.timed_out() {
                return Ok((guard, result));
            }
            (guard, result) = self.wait_deadline(guard, deadline)?;
        }
        Ok((guard, WaitTimeoutResult(false)))
    }

    /// Ends the wait of the one who has waited longest, if anybody waits.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::thread;
    /// use strands_sync::{Condvar, Mutex};
    ///
    /// let (queue, condvar) = (Mutex::new(Vec::new()), Condvar::new());
    /// thread::scope(|scope| {
    ///     let consumer = scope.spawn(|| {
    ///         let queue = condvar.wait_while(queue.lock().unwrap(), |queue| queue.is_empty());
    ///         queue.unwrap().pop()
    ///     });
    ///     queue.lock().unwrap().push("one item");
    ///     condvar.notify_one();
    ///     assert_eq!(consumer.join().unwrap(), Some("one item"));
    /// });
    /// ```
    pub fn notify_one(&self) {
        let mut line = self.line.lock();
        let chosen = line.choose_first(|()| {});
        drop(line);
        drop(chosen);
    }

    /// Ends the wait of all who wait now.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::{Condvar, Mutex};
    ///
    /// let (open, condvar) = (Mutex::new(false), Condvar::new());
    /// std::thread::scope(|scope| {
    ///     for _ in 0..3 {
    ///         scope.spawn(|| drop(condvar.wait_while(open.lock().unwrap(), |open| !*open)));
    ///     }
    ///     *open.lock().unwrap() = true;
    ///     condvar.notify_all();
    /// });
    /// ```
    pub fn notify_all(&self) {
        self.line.lock().release_all();
    }

    fn wait_deadline<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        static WAIT: Op = Op("Condvar::wait_timeout");
        let (locked, outcome) = self.wait_until(guard, &WAIT, deadline);
        let result = WaitTimeoutResult(outcome == Outcome::TimedOut);
        match locked {
            Ok(guard) => Ok((guard, result)),
            Err(poisoned) => Err(PoisonError::new((poisoned.into_inner(), result))),
        }
    }

    fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        op: &'static Op,
        deadline: Option<Instant>,
    ) -> (LockResult<MutexGuard<'a, T>>, Outcome) {
        assert_may_wait(deadline); // Now, as the guard unlocks.
        let mut outcome = Outcome::Cancelled;
        let locked = guard.wait_with(|mutex| {
            outcome = self.line.lock().wait(Place::Last, op, deadline, (), || mutex.unlock());
            if outcome == Outcome::Cancelled {
                return Err(Cancel);
            }
            if mutex.lock() == Outcome::Cancelled {
                if outcome == Outcome::Woken {
                    self.notify_one();
                }
                return Err(Cancel);
            }
            Ok(())
        });
        (locked, outcome)
    }
}

impl Default for Condvar {
    fn default() -> Condvar {
        Condvar::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}

impl std::panic::UnwindSafe for Condvar {}
impl std::panic::RefUnwindSafe for Condvar {}
