//! One value that some change and others follow: a state, a configuration.
//!
//! # The design
//!
//! The value is under an [`RwLock`], so a borrow is a read lock, and setting the value is a write lock. Every change
//! counts up a version, under the write lock; each receiver remembers the version that it has seen. So a receiver sees the latest
//! value, never an older one than before, and not each one in between. A sender that has changed the value takes the lock of the line of
//! receivers *after* the version was counted up, and wakes all; a receiver looks at the version under that lock
//! before it gets in line. One of them sees the other.
//!
//! # Fairness
//!
//! All receivers that wait are woken by each change, in the order in which they came. Borrows and changes are as fair
//! as the lock: a change waits for the borrows that are held, and borrows that come meanwhile wait
//! behind it.
//!
//! # Do not hold a borrow for long
//!
//! A [`Ref`] is a read lock. While one is held, changes wait, and so do borrows that come after those. A fiber may be suspended while it holds one; but a
//! party that holds one and changes the value, or borrows once more while somebody wants to change it, may wait for
//! ever.
//!
//! Turned down: a snapshot (`Arc<T>`) for each borrow: every change would allocate, and could not be made in
//! place unless `T: Clone`.

use std::cell::RefCell;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use strands_sched::{About, Arm, Op, Operation, Outcome, WaitQueue, Waiter, cancel_unwind, charge};

use crate::atomic::{AcqRel, Acquire, Arc, AtomicUsize, Relaxed, Release};
use crate::rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::{PoisonError, deadline};

pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError};

/// A value to follow, which the receiver counts as seen.
///
/// # Examples
///
/// ```
/// use strands_sync::watch;
///
/// let (sender, mut receiver) = watch::channel("starting");
/// let follows = std::thread::spawn(move || {
///     while *receiver.borrow_and_update() != "stopped" {
///         receiver.changed().unwrap();
///     }
/// });
/// sender.send("running").unwrap();
/// sender.send("stopped").unwrap();
/// follows.join().unwrap();
/// ```
#[must_use]
pub fn channel<T>(initial: T) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        value: RwLock::new(initial),
        version: AtomicUsize::new(0),
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
        changed: WaitQueue::new(()),
        closed: WaitQueue::new(()),
    });
    (Sender { shared: shared.clone() }, Receiver { shared, seen: 0 })
}

/// Changes the value. Clones change the same one.
///
/// # Examples
///
/// ```
/// use strands_sync::watch::{self, Sender};
///
/// let (sender, receiver) = watch::channel(1);
/// let second: Sender<u32> = sender.clone();
/// second.send_modify(|value| *value += 1);
/// assert_eq!(*receiver.borrow(), 2);
/// ```
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// Follows the value. Each has a version of its own that it has seen; a clone has seen the same.
///
/// # Examples
///
/// ```
/// use strands_sync::watch::{self, Receiver};
///
/// let (sender, mut receiver): (_, Receiver<u32>) = watch::channel(1);
/// sender.send(2).unwrap();
/// let mut clone = receiver.clone();
/// receiver.changed().unwrap();
/// clone.changed().unwrap();
/// assert_eq!((*receiver.borrow(), *clone.borrow()), (2, 2));
/// ```
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: usize,
}

/// Access to the value, which does not change meanwhile. See the [module](self) about holding it for long.
///
/// # Examples
///
/// ```
/// use strands_sync::watch::{self, Ref};
///
/// let (sender, receiver) = watch::channel(1);
/// sender.send(2).unwrap();
/// let value: Ref<'_, u32> = receiver.borrow();
/// assert!(value.has_changed() && *value == 2);
/// ```
#[must_use = "if unused nothing is looked at"]
#[clippy::has_significant_drop]
pub struct Ref<'a, T> {
    value: RwLockReadGuard<'a, T>,
    has_changed: bool,
}

struct Shared<T> {
    value: RwLock<T>,
    /// Counts changes, in units of `CHANGE`.
    version: AtomicUsize,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    /// Receivers that wait for a change.
    changed: WaitQueue<()>,
    /// Senders that wait until no receiver is left.
    closed: WaitQueue<()>,
}

/// Added to the version: no change will come.
const CLOSED: usize = 1;
const CHANGE: usize = 2;

impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

impl<T> Sender<T> {
    /// Sets the value, and tells all receivers.
    ///
    /// Waits while somebody holds a [`Ref`]. A fiber that is cancelled meanwhile unwinds, and has changed nothing.
    ///
    /// # Errors
    ///
    /// If there is no receiver; the value is as before, and the error has the new one.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::watch::channel(1);
    /// sender.send(2).unwrap();
    /// drop(receiver);
    /// assert_eq!(sender.send(3).unwrap_err().0, 3);
    /// assert_eq!(*sender.borrow(), 2);
    /// ```
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.receivers() == 0 {
            return Err(SendError(value));
        }
        self.send_replace(value);
        Ok(())
    }

    /// Sets the value, and tells all receivers, if there are any; returns the old value.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _) = strands_sync::watch::channel(1);
    /// assert_eq!(sender.send_replace(2), 1);
    /// ```
    pub fn send_replace(&self, value: T) -> T {
        let mut old = None;
        self.send_modify(|current| old = Some(mem::replace(current, value)));
        old.expect("it was called")
    }

    /// Changes the value in place, and tells all receivers, if there are any.
    ///
    /// If `modify` panics, what it has done so far stays, and nobody is told.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::watch::channel(vec![1]);
    /// sender.send_modify(|numbers| numbers.push(2));
    /// assert_eq!(*receiver.borrow(), [1, 2]);
    /// ```
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// Changes the value in place; tells all receivers if `modify` says that there is news. Returns what it said.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut receiver) = strands_sync::watch::channel(10);
    /// let set = |to| {
    ///     sender.send_if_modified(|value| {
    ///         let old = std::mem::replace(value, to);
    ///         old != to
    ///     })
    /// };
    /// assert!(!set(10));
    /// assert!(!receiver.has_changed().unwrap());
    /// assert!(set(11));
    /// assert!(receiver.has_changed().unwrap());
    /// ```
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let mut value: RwLockWriteGuard<'_, T> =
            self.shared.value.write().unwrap_or_else(PoisonError::into_inner);
        let is_news = modify(&mut value);
        if is_news {
            self.shared.version.fetch_add(CHANGE, Release);
        }
        drop(value);
        if is_news {
            self.shared.changed.lock().release_all();
        }
        is_news
    }

    /// The value.
    ///
    /// Waits while somebody changes it, or wants to.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _receiver) = strands_sync::watch::channel(1);
    /// assert_eq!(*sender.borrow(), 1);
    /// ```
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.borrow().1
    }

    /// A new receiver, which has seen the present value.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _) = strands_sync::watch::channel(1);
    /// let receiver = sender.subscribe();
    /// assert!(!receiver.has_changed().unwrap());
    /// sender.send(2).unwrap();
    /// assert!(receiver.has_changed().unwrap());
    /// ```
    pub fn subscribe(&self) -> Receiver<T> {
        self.shared.receivers.fetch_add(1, AcqRel);
        let seen = self.shared.version.load(Acquire) & !CLOSED;
        Receiver { shared: self.shared.clone(), seen }
    }

    /// How many receivers there are.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::watch::channel(1);
    /// let clone = receiver.clone();
    /// assert_eq!(sender.receiver_count(), 2);
    /// # drop(clone);
    /// ```
    #[must_use]
    pub fn receiver_count(&self) -> usize {
        charge();
        self.receivers()
    }

    /// How many senders there are.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _receiver) = strands_sync::watch::channel(1);
    /// let clone = sender.clone();
    /// assert_eq!(clone.sender_count(), 2);
    /// ```
    #[must_use]
    pub fn sender_count(&self) -> usize {
        charge();
        self.shared.senders.load(Relaxed)
    }

    /// Whether there is no receiver.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::watch::channel(1);
    /// assert!(!sender.is_closed());
    /// drop(receiver);
    /// assert!(sender.is_closed());
    /// ```
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.receiver_count() == 0
    }

    fn receivers(&self) -> usize {
        self.shared.receivers.load(Acquire)
    }

    /// Waits until there is no receiver.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::watch::channel(1);
    /// let leaves = std::thread::spawn(move || drop(receiver));
    /// sender.closed();
    /// # leaves.join().unwrap();
    /// ```
    pub fn closed(&self) {
        let closed = self.closed_deadline(None);
        debug_assert!(closed, "there was no deadline");
    }

    /// As [`closed`](Self::closed), for about `timeout`; whether it is so.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (sender, receiver) = strands_sync::watch::channel(1);
    /// assert!(!sender.closed_timeout(Duration::from_millis(1)));
    /// drop(receiver);
    /// assert!(sender.closed_timeout(Duration::ZERO));
    /// ```
    #[must_use = "it may not be closed"]
    pub fn closed_timeout(&self, timeout: Duration) -> bool {
        self.closed_deadline(deadline::after(timeout))
    }

    /// As [`closed`](Self::closed), until `deadline` (`None` for never); whether it is so.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _receiver) = strands_sync::watch::channel(1);
    /// assert!(!sender.closed_deadline(std::time::Instant::now()));
    /// ```
    #[must_use = "it may not be closed"]
    pub fn closed_deadline(&self, deadline: impl Into<Option<Instant>>) -> bool {
        static CLOSED: Op = Op("watch::Sender::closed");
        charge();
        let closed = |(): &mut ()| (self.receivers() == 0).then_some(());
        match self.shared.closed.wait(&CLOSED, deadline.into(), (), closed) {
            Ok(()) | Err(Outcome::Woken) => true,
            Err(Outcome::TimedOut) => false,
            Err(Outcome::Cancelled) => cancel_unwind(),
        }
    }

    /// Whether both change the same value.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _receiver) = strands_sync::watch::channel(1);
    /// assert!(sender.same_channel(&sender.clone()));
    /// ```
    #[must_use]
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<T> Receiver<T> {
    /// The value. It does not count as seen.
    ///
    /// Waits while somebody changes it, or wants to.
    ///
    /// # Examples
    ///
    /// ```
    /// let (_sender, receiver) = strands_sync::watch::channel(1);
    /// assert_eq!(*receiver.borrow(), 1);
    /// ```
    pub fn borrow(&self) -> Ref<'_, T> {
        let (version, mut value) = self.shared.borrow();
        value.has_changed = version != self.seen;
        value
    }

    /// The value, which counts as seen.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut receiver) = strands_sync::watch::channel(1);
    /// sender.send(2).unwrap();
    /// assert_eq!(*receiver.borrow_and_update(), 2);
    /// assert!(!receiver.has_changed().unwrap());
    /// ```
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let (version, mut value) = self.shared.borrow();
        value.has_changed = version != self.seen;
        self.seen = version;
        value
    }

    /// Whether there is a value that it has not seen.
    ///
    /// # Errors
    ///
    /// If there is none and all senders are gone.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::watch::channel(1);
    /// assert_eq!(receiver.has_changed(), Ok(false));
    /// sender.send(2).unwrap();
    /// drop(sender);
    /// assert_eq!(receiver.has_changed(), Ok(true));
    /// ```
    pub fn has_changed(&self) -> Result<bool, RecvError> {
        charge();
        self.shared.look_for_news(&mut { self.seen })
    }

    /// Waits for a value that it has not seen, and counts it as seen.
    ///
    /// A cancelled fiber unwinds from here, unless there is one.
    ///
    /// # Errors
    ///
    /// If there is none and all senders are gone.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut receiver) = strands_sync::watch::channel(1);
    /// let sends = std::thread::spawn(move || sender.send(2).unwrap());
    /// receiver.changed().unwrap();
    /// assert_eq!(*receiver.borrow(), 2);
    /// # sends.join().unwrap();
    /// assert!(receiver.changed().is_err(), "the sender is gone");
    /// ```
    pub fn changed(&mut self) -> Result<(), RecvError> {
        self.changed_deadline(None).map_err(|_| RecvError)
    }

    /// As [`changed`](Self::changed), for about `timeout`.
    ///
    /// A timeout that no `Instant` can tell is none.
    ///
    /// # Errors
    ///
    /// `Timeout` if the time was up, `Disconnected` as for [`changed`](Self::changed).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands_sync::watch::RecvTimeoutError;
    ///
    /// let (_sender, mut receiver) = strands_sync::watch::channel(1);
    /// let soon = Duration::from_millis(1);
    /// assert_eq!(receiver.changed_timeout(soon), Err(RecvTimeoutError::Timeout));
    /// ```
    pub fn changed_timeout(&mut self, timeout: Duration) -> Result<(), RecvTimeoutError> {
        self.changed_deadline(deadline::after(timeout))
    }

    /// As [`changed`](Self::changed), until `deadline`: a point in time, or `None` for never.
    ///
    /// # Errors
    ///
    /// As for [`changed_timeout`](Self::changed_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Instant;
    ///
    /// let (sender, mut receiver) = strands_sync::watch::channel(1);
    /// assert!(receiver.changed_deadline(Instant::now()).is_err());
    /// sender.send(2).unwrap();
    /// assert!(receiver.changed_deadline(Instant::now()).is_ok());
    /// ```
    pub fn changed_deadline(
        &mut self,
        deadline: impl Into<Option<Instant>>,
    ) -> Result<(), RecvTimeoutError> {
        charge();
        self.shared.wait_for_news(&mut self.seen, deadline.into())
    }

    /// Waits for a value that `suits`, which may be the present one; it counts as seen.
    ///
    /// # Errors
    ///
    /// If all senders are gone and the last value does not suit.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut receiver) = strands_sync::watch::channel(1);
    /// let counts = std::thread::spawn(move || (2..=5).for_each(|i| sender.send(i).unwrap()));
    /// assert!(*receiver.wait_for(|&value| value > 3).unwrap() > 3);
    /// # drop(receiver.borrow());
    /// # counts.join().unwrap();
    /// ```
    pub fn wait_for(&mut self, mut suits: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, RecvError> {
        charge();
        loop {
            let (version, mut value) = self.shared.borrow();
            value.has_changed = version != self.seen;
            self.seen = version;
            if suits(&value) {
                return Ok(value);
            }
            drop(value);
            self.shared.wait_for_news(&mut self.seen, None).map_err(|_| RecvError)?;
        }
    }

    /// Whether both follow the same value.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::watch::channel(1);
    /// assert!(receiver.same_channel(&sender.subscribe()));
    /// ```
    #[must_use]
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<T> Shared<T> {
    /// The value and its version. As there is a lock on it, it is this version's.
    fn borrow(&self) -> (usize, Ref<'_, T>) {
        let value = self.value.read().unwrap_or_else(PoisonError::into_inner);
        let version = self.version.load(Acquire) & !CLOSED;
        (version, Ref { value, has_changed: false })
    }

    /// Whether there is a version other than `seen`; it is noted as seen. `Err`: there will be none.
    fn look_for_news(&self, seen: &mut usize) -> Result<bool, RecvError> {
        let version = self.version.load(Acquire);
        let latest = version & !CLOSED;
        if latest == *seen && version & CLOSED != 0 {
            return Err(RecvError);
        }
        Ok(mem::replace(seen, latest) != latest)
    }

    fn wait_for_news(
        &self,
        seen: &mut usize,
        deadline: Option<Instant>,
    ) -> Result<(), RecvTimeoutError> {
        static CHANGED: Op = Op("watch::Receiver::changed");
        let mut news = |(): &mut ()| match self.look_for_news(seen) {
            Ok(false) => None,
            Ok(true) => Some(Ok(())),
            Err(_) => Some(Err(RecvTimeoutError::Disconnected)),
        };
        if let Some(result) = news(&mut ()) {
            return result;
        }
        loop {
            match self.changed.wait(&CHANGED, deadline, (), &mut news) {
                Ok(result) => return result,
                Err(Outcome::Woken) => {}
                Err(Outcome::TimedOut) => return Err(RecvTimeoutError::Timeout),
                Err(Outcome::Cancelled) => cancel_unwind(),
            }
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        // Cannot overflow: each handle has an `Arc`, which sees to that. So is it for receivers.
        self.shared.senders.fetch_add(1, Relaxed);
        Sender { shared: self.shared.clone() }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.shared.receivers.fetch_add(1, Relaxed);
        Receiver { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, AcqRel) == 1 {
            self.shared.version.fetch_or(CLOSED, Release);
            self.shared.changed.lock().release_all();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if self.shared.receivers.fetch_sub(1, AcqRel) == 1 {
            self.shared.closed.lock().release_all();
        }
    }
}

impl<T> Ref<'_, T> {
    /// Whether the receiver had not seen the value before. False for a sender's.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut receiver) = strands_sync::watch::channel(1);
    /// sender.send(2).unwrap();
    /// assert!(receiver.borrow_and_update().has_changed());
    /// assert!(!receiver.borrow().has_changed());
    /// ```
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.has_changed
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

/// To wait for a change, as one of several operations. See [`Receiver::select_changed`].
///
/// # Examples
///
/// ```
/// use strands_sched::{Order, select};
/// use strands_sync::watch::{ChangedOperation, channel};
///
/// let (sender, mut receiver) = channel("old");
/// sender.send("new").unwrap();
/// let changed: ChangedOperation<'_, &str> = receiver.select_changed();
/// select(&[&changed], Order::Fair, None);
/// assert_eq!(changed.take(), Some(Ok(())));
/// assert_eq!(*receiver.borrow(), "new");
/// ```
pub struct ChangedOperation<'a, T> {
    receiver: RefCell<&'a mut Receiver<T>>,
    waiter: Waiter<()>,
}

impl<T> Receiver<T> {
    /// To wait for a change, as one of several operations that a [`select`](strands_sched::select) chooses from.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sched::{Order, try_select};
    ///
    /// let (sender, mut receiver) = strands_sync::watch::channel(1);
    /// assert_eq!(try_select(&[&receiver.select_changed()], Order::Fair), None);
    /// drop(sender);
    /// assert_eq!(try_select(&[&receiver.select_changed()], Order::Fair), Some(0));
    /// ```
    pub fn select_changed(&mut self) -> ChangedOperation<'_, T> {
        ChangedOperation { receiver: RefCell::new(self), waiter: Waiter::new() }
    }
}

impl<T> Receiver<T> {
    fn must_wait(&self) -> bool {
        self.shared.look_for_news(&mut { self.seen }) == Ok(false)
    }
}

impl<T> ChangedOperation<'_, T> {
    /// What [`Receiver::changed`] returns; `None` if that would wait.
    ///
    /// # Examples
    ///
    /// ```
    /// let (_sender, mut receiver) = strands_sync::watch::channel(1);
    /// assert_eq!(receiver.select_changed().take(), None);
    /// ```
    pub fn take(&self) -> Option<Result<(), RecvError>> {
        let receiver = &mut **self.receiver.borrow_mut();
        match receiver.shared.look_for_news(&mut receiver.seen) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

// SAFETY: `withdraw` takes the waiter out of the only line it is put in.
unsafe impl<T> Operation for ChangedOperation<'_, T> {
    fn attempt(&self) -> bool {
        self.waiter.assert_idle();
        !self.receiver.borrow().must_wait()
    }

    unsafe fn enrol(&self, arm: Arm<'_>) -> bool {
        let receiver = self.receiver.borrow();
        let mut line = receiver.shared.changed.lock();
        // SAFETY: `select` borrows us until we are withdrawn.
        receiver.must_wait() && unsafe { line.enrol(&self.waiter, arm, ()) }
    }

    unsafe fn withdraw(&self) {
        self.receiver.borrow().shared.changed.withdraw(&self.waiter);
    }

    /// The wake for a change that was seen already may come late.
    unsafe fn complete(&self) -> bool {
        self.attempt()
    }

    fn about(&self) -> About {
        About {
            operation: "watch::Receiver::changed",
            object: self.waiter.line(),
            descriptor: None,
        }
    }
}
