//! Waiting for others to be done.
//!
//! A count of handles, and a line of those who wait for it to become zero. A waiter's own handle is
//! given up when its wait begins: the count is zero when nobody is left but waiters, and it is zero for good, as only who
//! has a handle makes more. Who lowers it to zero takes the line's lock after that and wakes all; a waiter lowers it and gets
//! in line in one step under that lock, so it is seen. A waiter whose time is up takes a handle again, unless the count has
//! become zero meanwhile: then the wait has ended well.
//!
//! All waiters are woken together, in the order in which they came.
//!
//! Turned down: Go's `Add`, `Done` and `Wait`, which go wrong if one is called once too
//! often, too late, or not on the way of a panic.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strands_sched::{Op, Outcome, Place, WaitQueue, cancel_unwind, charge};

use crate::atomic::{AcqRel, Acquire, AtomicUsize, Relaxed};
use crate::deadline;

/// Waits until all its clones are dropped, by fibers and plain threads alike.
///
/// Who works keeps a clone until it is done, also if that is by a panic or a cancel. Several may wait for the
/// same group: a handle that waits does not count.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
/// use strands_sync::WaitGroup;
///
/// let (group, done) = (WaitGroup::new(), Arc::new(AtomicUsize::new(0)));
/// for _ in 0..4 {
///     let (group, done) = (group.clone(), done.clone());
///     std::thread::spawn(move || {
///         done.fetch_add(1, Relaxed);
///         drop(group);
///     });
/// }
/// group.wait();
/// assert_eq!(done.load(Relaxed), 4);
/// ```
pub struct WaitGroup {
    group: Arc<Group>,
    /// Whether this handle is counted. It is not while it waits.
    counts: bool,
}

struct Group {
    /// The handles that do not wait.
    handles: AtomicUsize,
    line: WaitQueue<()>,
}

impl WaitGroup {
    /// A group of one handle.
    ///
    /// # Examples
    ///
    /// ```
    /// strands_sync::WaitGroup::new().wait(); // For nobody.
    /// ```
    #[must_use]
    pub fn new() -> WaitGroup {
        let group = Group { handles: AtomicUsize::new(1), line: WaitQueue::new(()) };
        WaitGroup { group: Arc::new(group), counts: true }
    }

    /// Drops this handle, and waits until all others are dropped or wait too.
    ///
    /// A cancelled fiber unwinds from here, unless they are.
    ///
    /// # Examples
    ///
    /// ```
    /// let group = strands_sync::WaitGroup::new();
    /// let other = group.clone();
    /// std::thread::spawn(move || drop(other));
    /// group.wait();
    /// ```
    pub fn wait(self) {
        let waited = self.wait_deadline(None);
        debug_assert!(waited.is_ok(), "there was no deadline");
    }

    /// As [`wait`](Self::wait), for about `timeout`.
    ///
    /// A timeout that no `Instant` can tell is none.
    ///
    /// # Errors
    ///
    /// If the time was up; the error is the handle.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands_sync::WaitGroup;
    ///
    /// let group = WaitGroup::new();
    /// let other = group.clone();
    /// let group = group.wait_timeout(Duration::from_millis(1)).unwrap_err();
    /// drop(other);
    /// assert!(group.wait_timeout(Duration::ZERO).is_ok());
    /// ```
    pub fn wait_timeout(self, timeout: Duration) -> Result<(), WaitGroup> {
        self.wait_deadline(deadline::after(timeout))
    }

    /// As [`wait`](Self::wait), until `deadline`, which is a point in time or `None` for never.
    ///
    /// # Errors
    ///
    /// If the time was up; the error is the handle.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Instant;
    ///
    /// let group = strands_sync::WaitGroup::new();
    /// let other = group.clone();
    /// assert!(group.wait_deadline(Instant::now()).is_err());
    /// assert!(other.wait_deadline(Instant::now()).is_ok());
    /// ```
    pub fn wait_deadline(mut self, deadline: impl Into<Option<Instant>>) -> Result<(), WaitGroup> {
        static WAIT: Op = Op("WaitGroup::wait");
        charge();
        let deadline = deadline.into();
        let line = self.group.line.lock();
        self.counts = false;
        if self.group.handles.fetch_sub(1, AcqRel) == 1 {
            drop(line);
            self.group.wake_all();
            return Ok(());
        }
        match line.wait(Place::Last, &WAIT, deadline, (), || {}) {
            Outcome::Woken => Ok(()),
            Outcome::Cancelled => cancel_unwind(),
            Outcome::TimedOut if self.group.enter_again() => {
                self.counts = true;
                Err(self)
            }
            Outcome::TimedOut => Ok(()),
        }
    }
}

impl Clone for WaitGroup {
    fn clone(&self) -> WaitGroup {
        // Cannot overflow: each handle has an `Arc`, which sees to that.
        let group = self.group.clone();
        group.handles.fetch_add(1, Relaxed);
        WaitGroup { group, counts: true }
    }
}

impl Drop for WaitGroup {
    fn drop(&mut self) {
        if self.counts && self.group.handles.fetch_sub(1, AcqRel) == 1 {
            self.group.wake_all();
        }
    }
}

impl Group {
    fn wake_all(&self) {
        self.line.lock().release_all();
    }

    /// Counts a handle again, unless there is none.
    fn enter_again(&self) -> bool {
        let mut handles = self.handles.load(Acquire);
        while handles > 0 {
            match self.handles.compare_exchange_weak(handles, handles + 1, Relaxed, Acquire) {
                Ok(_) => return true,
                Err(now) => handles = now,
            }
        }
        false
    }
}

impl Default for WaitGroup {
    fn default() -> WaitGroup {
        WaitGroup::new()
    }
}

impl fmt::Debug for WaitGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handles = self.group.handles.load(Relaxed);
        f.debug_struct("WaitGroup").field("handles", &handles).finish()
    }
}
