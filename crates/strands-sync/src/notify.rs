//! A notification without data.
//!
//! A line of waiters, and under its lock one stored permit and a count of the calls that woke all. The permit is
//! stored only when nobody waits, and nobody gets in line while it is stored. So a notification is
//! spent on one party that returns from its wait because of it: a waiter that gave up in the same moment is passed over
//! in the same step, and one that was chosen first returns normally, whatever time or cancel say.
//!
//! First come, first served.
//!
//! Between looking at a condition and getting in line, a call that wakes all could be missed, as it stores nothing. A
//! [`Listener`] remembers how many there had been. Turned down: waiters that enrol when the
//! listener is made (they would have to be chosen, and to pass it on, while they do not wait).

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use strands_sched::{About, Arm, Op, Operation, Outcome, WaitQueue, Waiter, cancel_unwind, charge};

use crate::deadline;

/// Tells one party, or all that wait, that something has happened; for fibers and plain threads alike.
///
/// It is a semaphore with at most one permit, which [`notify_one`](Self::notify_one) makes available and
/// [`notified`](Self::notified) takes; and [`notify_waiters`](Self::notify_waiters) ends the wait of
/// all who wait, and leaves no permit. Parties are notified in the order in which they came. A cancelled fiber unwinds from a wait,
/// unless it has been notified.
///
/// # Examples
///
/// ```
/// use std::collections::VecDeque;
/// use strands_sync::{Mutex, Notify};
///
/// let (queue, filled) = (Mutex::new(VecDeque::new()), Notify::new());
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         queue.lock().unwrap().push_back("job");
///         filled.notify_one();
///     });
///     let job = loop {
///         if let Some(job) = queue.lock().unwrap().pop_front() {
///             break job;
///         }
///         filled.notified();
///     };
///     assert_eq!(job, "job");
/// });
/// ```
pub struct Notify {
    line: WaitQueue<State>,
}

struct State {
    /// A notification that nobody has got yet.
    permit: bool,
    /// How often all waiters were notified.
    broadcasts: usize,
}

/// From here on no [`notify_waiters`](Notify::notify_waiters) is missed: see [`Notify::listen`].
///
/// # Examples
///
/// ```
/// use strands_sync::{Listener, Notify};
///
/// let notify = Notify::new();
/// let listener: Listener<'_> = notify.listen();
/// notify.notify_waiters();
/// listener.wait(); // At once.
/// ```
#[derive(Debug)]
#[must_use = "it does not wait until it is told to"]
pub struct Listener<'a> {
    notify: &'a Notify,
    /// How often all waiters had been notified when it was made.
    broadcasts: usize,
}

impl Notify {
    const STATE: State = State { permit: false, broadcasts: 0 };

    /// One without a permit.
    ///
    /// # Examples
    ///
    /// ```
    /// static CHANGED: strands_sync::Notify = strands_sync::Notify::new();
    /// CHANGED.notify_one();
    /// CHANGED.notified();
    /// ```
    #[cfg(not(loom))]
    #[must_use]
    #[inline]
    pub const fn new() -> Notify {
        Notify { line: WaitQueue::new(Notify::STATE) }
    }

    /// One without a permit.
    #[cfg(loom)]
    pub fn new() -> Notify {
        Notify { line: WaitQueue::new(Notify::STATE) }
    }

    /// Takes the permit; waits for a notification if there is none.
    ///
    /// # Examples
    ///
    /// ```
    /// let notify = strands_sync::Notify::new();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| notify.notify_one());
    ///     notify.notified();
    /// });
    /// ```
    pub fn notified(&self) {
        self.listen().wait();
    }

    /// As [`notified`](Self::notified), for about `timeout`; whether it was notified.
    ///
    /// A timeout that no `Instant` can tell is none.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let notify = strands_sync::Notify::new();
    /// assert!(!notify.notified_timeout(Duration::from_millis(1)));
    /// notify.notify_one();
    /// assert!(notify.notified_timeout(Duration::ZERO));
    /// ```
    #[must_use = "it may not have been notified"]
    pub fn notified_timeout(&self, timeout: Duration) -> bool {
        self.listen().wait_timeout(timeout)
    }

    /// As [`notified`](Self::notified), until `deadline`; whether it was notified.
    ///
    /// `deadline` is a point in time, or `None` for never.
    ///
    /// # Examples
    ///
    /// ```
    /// let notify = strands_sync::Notify::new();
    /// assert!(!notify.notified_deadline(std::time::Instant::now()));
    /// ```
    #[must_use = "it may not have been notified"]
    pub fn notified_deadline(&self, deadline: impl Into<Option<Instant>>) -> bool {
        self.listen().wait_deadline(deadline)
    }

    /// For a wait that begins later and yet misses nothing that happens from here on.
    ///
    /// Make it, look whether there is a need to wait, and only then wait. Only what
    /// [`notify_waiters`](Self::notify_waiters) says could be missed otherwise: a permit is kept.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    ///
    /// let (open, notify) = (AtomicBool::new(false), strands_sync::Notify::new());
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         open.store(true, SeqCst);
    ///         notify.notify_waiters();
    ///     });
    ///     loop {
    ///         let listener = notify.listen();
    ///         if open.load(SeqCst) {
    ///             break;
    ///         }
    ///         listener.wait();
    ///     }
    /// });
    /// ```
    pub fn listen(&self) -> Listener<'_> {
        Listener { notify: self, broadcasts: self.line.lock().broadcasts }
    }

    /// Ends the wait of the one who has waited longest; if nobody waits, stores a permit for who comes next.
    ///
    /// At most one permit is stored.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let notify = strands_sync::Notify::new();
    /// notify.notify_one();
    /// notify.notify_one();
    /// notify.notified();
    /// assert!(!notify.notified_timeout(Duration::ZERO), "there was one permit");
    /// ```
    pub fn notify_one(&self) {
        let mut line = self.line.lock();
        let chosen = line.choose_first(|()| {});
        if chosen.is_none() {
            line.permit = true;
        }
        drop(line);
        drop(chosen);
    }

    /// Ends the wait of all who wait now, or who have a [`Listener`] from before; stores no permit.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let notify = strands_sync::Notify::new();
    /// let listener = notify.listen();
    /// notify.notify_waiters();
    /// listener.wait();
    /// assert!(!notify.notified_timeout(Duration::ZERO), "it came later");
    /// ```
    pub fn notify_waiters(&self) {
        let mut line = self.line.lock();
        line.broadcasts = line.broadcasts.wrapping_add(1);
        line.release_all();
    }
}

impl Listener<'_> {
    /// Waits, as [`Notify::notified`]; at once, if all have been notified since it was made.
    ///
    /// # Examples
    ///
    /// ```
    /// let notify = strands_sync::Notify::new();
    /// let listener = notify.listen();
    /// notify.notify_one();
    /// listener.wait();
    /// ```
    pub fn wait(self) {
        let notified = self.wait_deadline(None);
        debug_assert!(notified, "there was no deadline");
    }

    /// Waits for about `timeout`; whether it was notified.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let notify = strands_sync::Notify::new();
    /// assert!(!notify.listen().wait_timeout(Duration::from_millis(1)));
    /// ```
    #[must_use = "it may not have been notified"]
    pub fn wait_timeout(self, timeout: Duration) -> bool {
        self.wait_deadline(deadline::after(timeout))
    }

    /// Waits until `deadline`; whether it was notified.
    ///
    /// # Examples
    ///
    /// ```
    /// let notify = strands_sync::Notify::new();
    /// let listener = notify.listen();
    /// notify.notify_waiters();
    /// assert!(listener.wait_deadline(std::time::Instant::now()));
    /// ```
    #[must_use = "it may not have been notified"]
    pub fn wait_deadline(self, deadline: impl Into<Option<Instant>>) -> bool {
        static NOTIFIED: Op = Op("Notify::notified");
        charge();
        let attempt = |state: &mut State| {
            let told = state.broadcasts != self.broadcasts || std::mem::take(&mut state.permit);
            told.then_some(())
        };
        match self.notify.line.wait(&NOTIFIED, deadline.into(), (), attempt) {
            Ok(()) | Err(Outcome::Woken) => true,
            Err(Outcome::TimedOut) => false,
            Err(Outcome::Cancelled) => cancel_unwind(),
        }
    }
}

impl Default for Notify {
    fn default() -> Notify {
        Notify::new()
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let permit = self.line.lock().permit;
        f.debug_struct("Notify").field("permit", &permit).finish_non_exhaustive()
    }
}

/// To be notified, as one of several operations. See [`Notify::select_notified`].
///
/// # Examples
///
/// ```
/// use strands_sched::{Order, select};
/// use strands_sync::{NotifiedOperation, Notify};
///
/// let notify = Notify::new();
/// let notified: NotifiedOperation<'_> = notify.select_notified();
/// notify.notify_waiters();
/// select(&[&notified], Order::Fair, None);
/// assert_eq!(notified.take(), Some(()));
/// ```
pub struct NotifiedOperation<'a> {
    notify: &'a Notify,
    broadcasts: Cell<usize>,
    done: Cell<bool>,
    waiter: Waiter<()>,
}

impl Notify {
    /// To be [notified](Self::notified), as one of several operations that a [`select`](strands_sched::select) chooses from.
    /// Like a [`Listener`], it does not miss what is told to all from here on.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sched::{Order, try_select};
    ///
    /// let notify = strands_sync::Notify::new();
    /// let notified = notify.select_notified();
    /// assert_eq!(try_select(&[&notified], Order::Fair), None);
    /// notify.notify_one();
    /// assert_eq!(try_select(&[&notified], Order::Fair), Some(0));
    /// ```
    pub fn select_notified(&self) -> NotifiedOperation<'_> {
        NotifiedOperation {
            notify: self,
            broadcasts: Cell::new(self.line.lock().broadcasts),
            done: Cell::new(false),
            waiter: Waiter::new(),
        }
    }
}

impl NotifiedOperation<'_> {
    /// Says that it was notified, if so; from here on it can be so again.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(strands_sync::Notify::new().select_notified().take(), None);
    /// ```
    pub fn take(&self) -> Option<()> {
        self.waiter.assert_idle();
        self.done.replace(false).then_some(())
    }
}

// SAFETY: `withdraw` takes the waiter out of the only line it is put in.
unsafe impl Operation for NotifiedOperation<'_> {
    fn attempt(&self) -> bool {
        self.waiter.assert_idle();
        if !self.done.get() {
            let mut line = self.notify.line.lock();
            let heard = self.broadcasts.replace(line.broadcasts) != line.broadcasts;
            self.done.set(heard || std::mem::take(&mut line.permit));
        }
        self.done.get()
    }

    unsafe fn enrol(&self, arm: Arm<'_>) -> bool {
        let mut line = self.notify.line.lock();
        let told = line.broadcasts != self.broadcasts.get() || line.permit;
        // SAFETY: `select` borrows us until we are withdrawn.
        !told && unsafe { line.enrol(&self.waiter, arm, ()) }
    }

    unsafe fn withdraw(&self) {
        self.notify.line.withdraw(&self.waiter);
    }

    unsafe fn complete(&self) -> bool {
        // Told to all, perhaps: that is not to be heard once more.
        self.broadcasts.set(self.notify.line.lock().broadcasts);
        self.done.set(true);
        true
    }

    fn about(&self) -> About {
        About { operation: "Notify::notified", object: self.waiter.line(), descriptor: None }
    }
}
