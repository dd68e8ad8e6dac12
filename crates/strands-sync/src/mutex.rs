//! A mutual exclusion lock.
//!
//! # The protocol
//!
//! One word, and a line of waiters with its own small lock. The word has three bits: `LOCKED`; `WAITERS`: the line may
//! not be empty, so who unlocks must look; and `WOKEN`: one who was chosen from it is on the way, so who unlocks need not;
//! and a count of how often that one was overtaken.
//! Uncontended, a lock and an unlock are one compare-exchange each. Invariants:
//!
//! 1. While somebody is in line and nobody who was chosen from it is on the way, the word is
//!    `LOCKED | WAITERS`: a waiter sets `WAITERS` on a word that is `LOCKED`, and gets in line, in one step
//!    under the line's lock.
//! 2. While the word is `LOCKED | WAITERS` and the line's lock is held, nobody else changes the word: to unlock
//!    one needs the line's lock (but its new holder, to say that it is in the books). So it is for who holds both locks, whatever the word is: nobody takes a lock that is
//!    held, and who is on the way needs the line's lock to say that it has come.
//! 3. While `WOKEN` is set, the one whose choice set it is on the way: it clears the bit when it comes. (So may another, chosen
//!    before it. Then somebody is woken too many, not too few.)
//!
//! # Fairness
//!
//! An unlock wakes the first in line but does not give it the lock: who comes by meanwhile may take
//! it. So a party that locks and unlocks in a loop goes on while the woken one is on its
//! way, which is what makes a contended lock fast. A woken waiter that comes too late gets in line again, as the first,
//! and the next unlock *hands over*: the lock stays locked and is the waiter's. So nobody is woken more than twice,
//! and is overtaken only while on its way. Fibers of one worker take turns, as each lock spends the
//! common budget (before it acquires, so nobody is suspended by that with the lock in hand).
//!
//! Only one is woken at a time: more would find the lock taken, and go from worker to worker for that. But a fiber may be on its
//! way for long, as its worker computes; after [`MOST_OVERTAKEN`] unlocks the next in line is woken too.
//!
//! # Who holds it
//!
//! What stands in the word for `LOCKED` is the holder's [mark](strands_sched::mark), for those who would wait for
//! themselves and for reports. It costs nothing: it comes from where a constant would come from. A guard that was handed to
//! another fiber of its worker finds another mark than its own, and unlocks the long way. So does who is [in the
//! books](strands_sched::held), by a fourth bit, `TRACKED`.
//!
//! Turned down: handing over always (a switch for each lock, and a wake-up across threads takes
//! longer than most critical sections); never (a fiber whose lock is always taken when
//! it comes starves); and to wake fibers of the unlocker's own worker first. The line comes to be sorted by workers
//! all by itself, as those of the worker that has lost the lock all get in line one after the other.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr;

use strands_sched::held::{self, Kind};
use strands_sched::owner::{self, TRACKED};
use strands_sched::{Op, Outcome, Place, WaitQueue, cancel_unwind, charge, mark};

use crate::atomic::{Acquire, AtomicU64, Relaxed, Release, spin};
use crate::poison::{self, LockResult, TryLockError, TryLockResult};

/// A mutual exclusion lock, as `std::sync::Mutex`, for fibers and plain threads alike.
///
/// A guard may be held across anything that suspends. A lock is poisoned by a panic of the fiber (or
/// thread) that holds it, not by a cancel.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::thread;
/// use strands_sync::Mutex;
///
/// let counter = Arc::new(Mutex::new(0));
/// let threads: Vec<_> = (0..4)
///     .map(|_| {
///         let counter = counter.clone();
///         thread::spawn(move || *counter.lock().unwrap() += 1)
///     })
///     .collect();
/// threads.into_iter().for_each(|thread| thread.join().unwrap());
/// assert_eq!(*counter.lock().unwrap(), 4);
/// ```
pub struct Mutex<T: ?Sized> {
    raw: RawMutex,
    poison: poison::Flag,
    data: UnsafeCell<T>,
}

// SAFETY: the lock gives out access to the data, mutable too, one party at a time.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: as above; the `T` may be reached, and taken out, from any thread, one at a time.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}
impl<T: ?Sized> UnwindSafe for Mutex<T> {}
impl<T: ?Sized> RefUnwindSafe for Mutex<T> {}

/// Access to what a [`Mutex`] guards. Dropping it unlocks.
///
/// # Examples
///
/// ```
/// use strands_sync::{Mutex, MutexGuard};
///
/// let names = Mutex::new(vec!["a"]);
/// let mut guard: MutexGuard<'_, Vec<&str>> = names.lock().unwrap();
/// guard.push("b");
/// drop(guard);
/// assert_eq!(names.into_inner().unwrap(), ["a", "b"]);
/// ```
#[must_use = "if unused the Mutex will immediately unlock"]
#[clippy::has_significant_drop]
pub struct MutexGuard<'a, T: ?Sized + 'a> {
    mutex: &'a Mutex<T>,
    was_panicking: bool,
    /// As std's: whoever locked unlocks.
    not_send: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives out `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

impl<T> Mutex<T> {
    /// An unlocked mutex.
    ///
    /// # Examples
    ///
    /// ```
    /// static TOTAL: strands_sync::Mutex<u64> = strands_sync::Mutex::new(0);
    /// *TOTAL.lock().unwrap() += 1;
    /// ```
    #[cfg(not(loom))]
    #[inline]
    pub const fn new(value: T) -> Mutex<T> {
        Mutex { raw: RawMutex::new(), poison: poison::Flag::new(), data: UnsafeCell::new(value) }
    }

    /// An unlocked mutex.
    #[cfg(loom)]
    pub fn new(value: T) -> Mutex<T> {
        Mutex { raw: RawMutex::new(), poison: poison::Flag::new(), data: UnsafeCell::new(value) }
    }

    /// What was guarded.
    ///
    /// # Errors
    ///
    /// If the mutex is poisoned; the error has the value.
    ///
    /// # Examples
    ///
    /// ```
    /// let mutex = strands_sync::Mutex::new(3);
    /// assert_eq!(mutex.into_inner().unwrap(), 3);
    /// ```
    pub fn into_inner(self) -> LockResult<T> {
        let poisoned = self.poison.get();
        poison::wrap(poisoned, self.data.into_inner())
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits until nobody else holds the lock, and takes it.
    ///
    /// A cancelled fiber unwinds from here, unless it has been given the lock.
    ///
    /// # Panics
    ///
    /// If the caller holds the lock, which would wait for itself for ever: below a time limit, say, it waits until that
    /// ends it. The holder is who took the lock, even if its guard lies with another fiber of the same worker by now.
    ///
    /// # Errors
    ///
    /// If the mutex is poisoned; the error has the guard.
    ///
    /// # Examples
    ///
    /// ```
    /// let mutex = strands_sync::Mutex::new(0);
    /// *mutex.lock().unwrap() = 10;
    /// assert_eq!(*mutex.lock().unwrap(), 10);
    /// ```
    #[inline]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        charge();
        if self.raw.lock() == Outcome::Cancelled {
            cancel_unwind();
        }
        self.locked(poison::panicking())
    }

    /// Takes the lock if nobody holds it.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if somebody holds the lock; `Poisoned`, with the guard, if it was free and is
    /// poisoned.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::{Mutex, TryLockError};
    ///
    /// let mutex = Mutex::new(0);
    /// let guard = mutex.try_lock().unwrap();
    /// assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
    /// drop(guard);
    /// assert!(mutex.try_lock().is_ok());
    /// ```
    #[inline]
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        charge();
        self.try_lock_uncharged()
    }

    /// Whether a holder has panicked.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::Mutex;
    ///
    /// let mutex = Mutex::new(0);
    /// let panicked = std::thread::scope(|scope| {
    ///     scope
    ///         .spawn(|| {
    ///             let _guard = mutex.lock().unwrap();
    ///             panic!("the mutex is locked now, and will be poisoned");
    ///         })
    ///         .join()
    /// });
    /// assert!(panicked.is_err() && mutex.is_poisoned());
    /// ```
    #[inline]
    pub fn is_poisoned(&self) -> bool {
        self.poison.get()
    }

    /// Forgets that a holder has panicked.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::Mutex;
    ///
    /// let mutex = Mutex::new(0);
    /// std::thread::scope(|scope| {
    ///     let panicking = scope.spawn(|| {
    ///         let _guard = mutex.lock().unwrap();
    ///         panic!("poisons");
    ///     });
    ///     assert!(panicking.join().is_err());
    /// });
    /// let mut guard = mutex.lock().unwrap_or_else(|poisoned| {
    ///     mutex.clear_poison();
    ///     poisoned.into_inner()
    /// });
    /// *guard = 1; // It is as it should be again.
    /// assert!(!mutex.is_poisoned());
    /// ```
    #[inline]
    pub fn clear_poison(&self) {
        self.poison.clear();
    }

    /// What is guarded. No lock is needed, as the exclusive borrow is one.
    ///
    /// # Errors
    ///
    /// If the mutex is poisoned; the error has the reference.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut mutex = strands_sync::Mutex::new(0);
    /// *mutex.get_mut().unwrap() = 10;
    /// assert_eq!(*mutex.lock().unwrap(), 10);
    /// ```
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        let poisoned = self.poison.get();
        poison::wrap(poisoned, self.data.get_mut())
    }

    /// As `try_lock`, for where the caller must not be suspended.
    #[inline]
    fn try_lock_uncharged(&self) -> TryLockResult<MutexGuard<'_, T>> {
        if self.raw.try_lock() {
            Ok(self.locked(poison::panicking())?)
        } else {
            Err(TryLockError::WouldBlock)
        }
    }

    /// The guard, for who has just locked.
    #[inline]
    fn locked(&self, was_panicking: bool) -> LockResult<MutexGuard<'_, T>> {
        let guard = MutexGuard { mutex: self, was_panicking, not_send: PhantomData };
        poison::wrap(self.poison.get(), guard)
    }
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// Lets `wait` unlock, wait and lock again. If it says that it was cancelled, the lock is not held.
    ///
    /// Poisoning is noted for the whole time of the guard, as std does.
    pub(crate) fn wait_with(
        self,
        wait: impl FnOnce(&RawMutex) -> Result<(), Cancel>,
    ) -> LockResult<MutexGuard<'a, T>> {
        let (mutex, was_panicking) = (self.mutex, self.was_panicking);
        std::mem::forget(self);
        match wait(&mutex.raw) {
            Ok(()) => mutex.locked(was_panicking),
            Err(Cancel) => cancel_unwind(),
        }
    }
}

/// The wait was cancelled; the lock is not held.
pub(crate) struct Cancel;

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: while the guard lives the lock is held.
        unsafe { &*self.mutex.data.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: while the guard lives the lock is held, and the guard is borrowed exclusively.
        unsafe { &mut *self.mutex.data.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.poison.guard_dropped(self.was_panicking);
        self.mutex.raw.unlock();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Mutex<T> {
        Mutex::new(value)
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Mutex");
        match self.try_lock_uncharged() {
            Ok(guard) => debug.field("data", &&*guard),
            Err(TryLockError::Poisoned(error)) => debug.field("data", &&**error.get_ref()),
            Err(TryLockError::WouldBlock) => debug.field("data", &"<locked>"), // With quotes, as std.
        };
        debug.field("poisoned", &self.poison.get()).finish_non_exhaustive()
    }
}

/// The lock without the data. See the module's head.
pub(crate) struct RawMutex {
    word: AtomicU64,
    line: WaitQueue<(), Waiter>,
}

const LOCKED: u64 = owner::HELD;
/// With who has locked it, and whether that is written down.
const HOLDER: u64 = owner::MARK | TRACKED;
const WAITERS: u64 = 1;
const WOKEN: u64 = 2;
/// One unlock while `WOKEN`; they are counted from this bit on.
const OVERTAKEN: u64 = 1 << 48;
const _: () = assert!(HOLDER & (WAITERS | WOKEN | (MOST_OVERTAKEN * OVERTAKEN)) == 0);
/// After so many of them somebody else is woken too.
const MOST_OVERTAKEN: u64 = if cfg!(loom) { 1 } else { 1024 };

/// What an unlocker sees of a waiter.
struct Waiter {
    /// It was woken before and found the lock taken: hand over.
    late: bool,
    mark: u64,
    /// The lock is the waiter's. On its frame.
    granted: *const Cell<bool>,
}

// SAFETY: `granted` is written by who chooses the waiter, under the line's lock, and read by the waiter after
// it was chosen, which orders the two.
unsafe impl Send for Waiter {}

impl RawMutex {
    #[cfg(not(loom))]
    const fn new() -> RawMutex {
        RawMutex { word: AtomicU64::new(0), line: WaitQueue::new(()) }
    }

    #[cfg(loom)]
    fn new() -> RawMutex {
        RawMutex { word: AtomicU64::new(0), line: WaitQueue::new(()) }
    }

    /// `Woken`: the lock is the caller's. `Cancelled`: it is not.
    #[inline]
    pub(crate) fn lock(&self) -> Outcome {
        match self.word.compare_exchange(held::free(), mark(), Acquire, Relaxed) {
            Ok(_) => Outcome::Woken,
            Err(_) => self.lock_contended(),
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        match self.word.compare_exchange(held::free(), mark(), Acquire, Relaxed) {
            Ok(_) => true,
            Err(word) => word & LOCKED == 0 && self.try_lock_slowly(word),
        }
    }

    /// Nobody holds it, but there are some in line, or who locks is written down.
    #[cold]
    fn try_lock_slowly(&self, mut word: u64) -> bool {
        while word & LOCKED == 0 {
            match self.word.compare_exchange_weak(word, word | mark(), Acquire, Relaxed) {
                Ok(_) => {
                    self.note_holder();
                    return true;
                }
                Err(now) => word = now,
            }
        }
        false
    }

    /// Called by who has just locked, unless nobody wants to know.
    fn note_holder(&self) {
        held::note(&self.word, ptr::from_ref(&self.line).addr(), Kind::Mutex);
    }

    #[inline]
    pub(crate) fn unlock(&self) {
        if self.word.compare_exchange(mark(), 0, Release, Relaxed).is_err() {
            self.unlock_contended();
        }
    }

    #[cold]
    fn lock_contended(&self) -> Outcome {
        static LOCK: Op = Op("Mutex::lock");
        if self.try_lock() {
            return Outcome::Woken;
        }
        owner::assert_not_me(&self.word, "Mutex", &self.line);
        // Others in line mean that the wait is long.
        if spin(|| self.word.load(Relaxed) == 0 && self.try_lock()) {
            return Outcome::Woken;
        }
        let mut place = Place::Last;
        loop {
            let granted = Cell::new(false);
            let woken = place == Place::First;
            let line = self.line.lock();
            if self.lock_or_announce(woken) {
                drop(line);
                self.note_holder();
                return Outcome::Woken;
            }
            let waiter = Waiter { late: woken, mark: mark(), granted: &granted };
            let wait = || line.wait(place, &LOCK, None, waiter, || {});
            match owner::while_waiting(&self.word, wait) {
                Outcome::Woken if granted.get() => {
                    self.note_holder();
                    return Outcome::Woken;
                }
                Outcome::Woken => place = Place::First,
                // Nobody chose us, so we owe nobody a wake-up.
                outcome => return outcome,
            }
        }
    }

    /// Takes the lock, or says that somebody waits. Under the line's lock.
    ///
    /// If `woken` the caller has been on the way, and is no more.
    fn lock_or_announce(&self, woken: bool) -> bool {
        let mut word = self.word.load(Relaxed);
        loop {
            let locks = word & LOCKED == 0;
            let mut wanted = word | if locks { mark() } else { WAITERS };
            if woken {
                wanted &= HOLDER | WAITERS;
            }
            if wanted == word {
                return false;
            }
            match self.word.compare_exchange_weak(word, wanted, Acquire, Relaxed) {
                Ok(_) => return locks,
                Err(now) => word = now,
            }
        }
    }

    #[cold]
    fn unlock_contended(&self) {
        held::forget(&self.word);
        let mut word = self.word.load(Relaxed);
        while word & WOKEN != 0 && (word & !HOLDER) / OVERTAKEN < MOST_OVERTAKEN {
            let wanted = (word & !HOLDER) + OVERTAKEN;
            match self.word.compare_exchange_weak(word, wanted, Release, Relaxed) {
                Ok(_) => return, // Who is on the way will look after the line.
                Err(now) => word = now,
            }
        }
        let mut line = self.line.lock();
        let handed_to = Cell::new(0);
        let chosen = line.choose_first(|waiter| {
            // SAFETY: the waiter's frame stays while it is not chosen and the line's lock is held.
            let granted = unsafe { &*waiter.granted };
            granted.set(waiter.late && !granted.get());
            handed_to.set(if granted.get() { waiter.mark } else { 0 });
        });
        let others = match () {
            () if handed_to.get() != 0 => handed_to.get(),
            () if chosen.is_some() => WOKEN,
            // The line is empty. By invariant 2 nobody has changed the word since we came here.
            () => self.word.load(Relaxed) & WOKEN,
        };
        let waiters = if line.is_empty() { 0 } else { WAITERS };
        // Who has been given the lock may be in the books already.
        let wanted = |word| Some(others | waiters | (word & TRACKED));
        let _ = self.word.fetch_update(Release, Relaxed, wanted);
        drop(line);
        drop(chosen);
    }
}
