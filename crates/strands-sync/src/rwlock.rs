//! A lock for many readers or one writer.
//!
//! # The protocol
//!
//! One word, and one line of readers and writers with its own small lock. The word counts the readers, from the
//! lowest bit on, or has the writer's mark; and has at its high end the bits `WRITER`; `WAITERS`: the line may not be empty, so who
//! unlocks must look; and `WOKEN`: one who was chosen from it is on the way, so who unlocks need not. So one comparison
//! says that nobody writes, nobody waits and readers are few. Uncontended, a lock and an unlock are one
//! atomic operation each, for readers too. Invariants:
//!
//! 1. While somebody is in line and nobody who was chosen from it is on the way, `WAITERS` is set and `WOKEN` is not; and
//!    the lock is held, or the last reader has left and is about to look after the line.
//! 2. While it is so nobody joins those who hold the lock, and a writer needs the line's lock to unlock. So who
//!    holds it, and the line's lock too, is alone with it, but for other readers who leave; without others nobody else
//!    changes the word.
//! 3. While readers hold the lock, the first in line is a writer, or somebody is about to look: one is on the
//!    way, or has just come and lets others in.
//! 4. While `WOKEN` is set, the one whose choice set it is on the way: it clears the bit when it comes; or a reader, who
//!    stays meanwhile, lets others in. (So may another,
//!    chosen before it. Then somebody is woken too many, not too few.)
//!
//! A reader leaves first and looks then: if it was the last and somebody waits it comes back as a reader, unless
//! somebody else has taken the lock meanwhile, who finds the waiters in turn. So an unlock that finds waiters and nobody on the
//! way is one thing for all: a writer becomes a reader first; then the first in line is woken. A reader is, whoever
//! else is in, and when it comes it lets in the readers behind it; a writer is when the last reader leaves.
//!
//! A further bit, `TRACKED`, says that the writer, or some of the readers, are [in the books](strands_sched::held). In the
//! latter case the books are one reader more, which leaves as others do when the last of those is out of them.
//!
//! # Fairness
//!
//! As with [`Mutex`](crate::Mutex): an unlock wakes the first in line but does not give it the lock, and while it is
//! on its way newcomers go first, readers beside other readers too. If it comes too late it gets in line again, as the
//! first, and from then on newcomers do not join readers, and the next unlock, or that of the last reader, *hands
//! over*; but who comes just between that reader's leaving and its look goes first. So a worker goes on with its fibers while a waiter wakes up at another, and does not
//! hand the lock to and fro, which takes longer than most critical sections. But a waiter is overtaken only while
//! it is on its way; and as its worker may compute for long, after [`MOST_OVERTAKEN`] unlocks the next in line is woken too:
//! the bound is in uses of the lock, not in time.
//!
//! Otherwise it is first come, first served; readers who stand next to each other in line go in together. So
//! readers cannot starve a writer, nor writers a reader.
//!
//! One exception, which is std's: `downgrade` lets in all readers in line, also those behind a writer.
//!
//! Who gives up in line (a cancel) looks whether it held up others: the readers behind a writer that
//! leaves join those who are in.
//!
//! Turned down: handing over to readers always. A lock that is mostly read, by fibers of two workers, went to and fro with each
//! write: ten times the time for each use. And letting in all readers that wait after each writer: a line is simpler to reason
//! about, and a look through all of it at each unlock costs when many writers wait.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::{self, NonNull};
use std::time::Instant;

use strands_sched::held::{self, Kind};
use strands_sched::owner::{self, TRACKED};
use strands_sched::{Locked, Op, Outcome, Place, WaitQueue, cancel_unwind, charge, mark};

use crate::atomic::{Acquire, AtomicU64, Relaxed, Release, spin};
use crate::poison::{self, LockResult, PoisonError, TryLockError, TryLockResult};

/// A lock for many readers or one writer, as `std::sync::RwLock`, for fibers and plain threads alike.
///
/// A guard may be held across anything that suspends. A lock is poisoned by a panic of the fiber (or
/// thread) that holds it for *writing*, not by a cancel.
///
/// It serves in the order of arrival, readers next to each other together; who comes while the first in line is on its way
/// may be faster, as with [`Mutex`](crate::Mutex). So a reader that locks again, beside its
/// own guard, may wait for ever: for a writer that waits for the first guard.
///
/// # Examples
///
/// ```
/// use strands_sync::RwLock;
///
/// let lock = RwLock::new(5);
/// {
///     let one = lock.read().unwrap();
///     let two = lock.read().unwrap();
///     assert_eq!((*one, *two), (5, 5));
/// }
/// *lock.write().unwrap() += 1;
/// assert_eq!(lock.into_inner().unwrap(), 6);
/// ```
pub struct RwLock<T: ?Sized> {
    raw: RawRwLock,
    poison: poison::Flag,
    data: UnsafeCell<T>,
}

// SAFETY: who has the lock may take the data out, as with a `T`.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}
// SAFETY: one party at a time gets `&mut T`, for which `T: Send` is enough; many at a time get `&T`.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}
impl<T: ?Sized> UnwindSafe for RwLock<T> {}
impl<T: ?Sized> RefUnwindSafe for RwLock<T> {}

/// Shared access to what an [`RwLock`] guards. Dropping it unlocks.
///
/// # Examples
///
/// ```
/// use strands_sync::{RwLock, RwLockReadGuard};
///
/// let names = RwLock::new(vec!["a"]);
/// let guard: RwLockReadGuard<'_, Vec<&str>> = names.read().unwrap();
/// assert_eq!(guard[0], "a");
/// assert!(names.try_write().is_err(), "it is being read");
/// ```
#[must_use = "if unused the RwLock will immediately unlock"]
#[clippy::has_significant_drop]
pub struct RwLockReadGuard<'a, T: ?Sized + 'a> {
    /// Not the lock: as std's, it can be had as a guard of a supertype.
    data: NonNull<T>,
    raw: &'a RawRwLock,
}

// SAFETY: a shared guard gives out `&T` only. (It is not `Send`, by its pointer: whoever locked unlocks.)
unsafe impl<T: ?Sized + Sync> Sync for RwLockReadGuard<'_, T> {}

/// Exclusive access to what an [`RwLock`] guards. Dropping it unlocks.
///
/// # Examples
///
/// ```
/// use strands_sync::{RwLock, RwLockWriteGuard};
///
/// let names = RwLock::new(vec!["a"]);
/// let mut guard: RwLockWriteGuard<'_, Vec<&str>> = names.write().unwrap();
/// guard.push("b");
/// drop(guard);
/// assert_eq!(*names.read().unwrap(), ["a", "b"]);
/// ```
#[must_use = "if unused the RwLock will immediately unlock"]
#[clippy::has_significant_drop]
pub struct RwLockWriteGuard<'a, T: ?Sized + 'a> {
    lock: &'a RwLock<T>,
    was_panicking: bool,
    /// As std's: whoever locked unlocks.
    not_send: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives out `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for RwLockWriteGuard<'_, T> {}

impl<T> RwLock<T> {
    /// An unlocked lock.
    ///
    /// # Examples
    ///
    /// ```
    /// static CONFIG: strands_sync::RwLock<u64> = strands_sync::RwLock::new(0);
    /// *CONFIG.write().unwrap() = 7;
    /// assert_eq!(*CONFIG.read().unwrap(), 7);
    /// ```
    #[cfg(not(loom))]
    #[inline]
    pub const fn new(value: T) -> RwLock<T> {
        RwLock { raw: RawRwLock::new(), poison: poison::Flag::new(), data: UnsafeCell::new(value) }
    }

    /// An unlocked lock.
    #[cfg(loom)]
    pub fn new(value: T) -> RwLock<T> {
        RwLock { raw: RawRwLock::new(), poison: poison::Flag::new(), data: UnsafeCell::new(value) }
    }

    /// What was guarded.
    ///
    /// # Errors
    ///
    /// If the lock is poisoned; the error has the value.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = strands_sync::RwLock::new(3);
    /// assert_eq!(lock.into_inner().unwrap(), 3);
    /// ```
    pub fn into_inner(self) -> LockResult<T> {
        let poisoned = self.poison.get();
        poison::wrap(poisoned, self.data.into_inner())
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until nobody writes, and takes the lock for reading. If others wait it waits behind them, but while the first of
    /// these is on its way.
    ///
    /// A cancelled fiber unwinds from here, unless it has been given the lock.
    ///
    /// # Errors
    ///
    /// If the lock is poisoned; the error has the guard.
    ///
    /// # Panics
    ///
    /// If half a billion guards are alive, as forgotten ones are. If the caller has the lock for writing, which would wait for
    /// itself for ever: below a time limit, say, it waits until that ends it.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = strands_sync::RwLock::new(1);
    /// std::thread::scope(|scope| {
    ///     let guard = lock.read().unwrap();
    ///     // Readers do not wait for each other.
    ///     assert_eq!(scope.spawn(|| *lock.read().unwrap()).join().unwrap(), *guard);
    /// });
    /// ```
    #[inline]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        charge();
        if self.raw.read_until(None) == Outcome::Cancelled {
            cancel_unwind();
        }
        self.reads()
    }

    /// Takes the lock for reading if nobody writes and [`read`](Self::read) would not wait behind others.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if `read` would wait; `Poisoned`, with the guard, if not and the lock is poisoned.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::{RwLock, TryLockError};
    ///
    /// let lock = RwLock::new(1);
    /// assert_eq!(*lock.try_read().unwrap(), 1);
    /// let _writes = lock.write().unwrap();
    /// assert!(matches!(lock.try_read(), Err(TryLockError::WouldBlock)));
    /// ```
    #[inline]
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        charge();
        self.try_read_uncharged()
    }

    /// Waits until nobody reads or writes, and takes the lock for writing.
    ///
    /// A cancelled fiber unwinds from here, unless it has been given the lock.
    ///
    /// # Errors
    ///
    /// If the lock is poisoned; the error has the guard.
    ///
    /// # Panics
    ///
    /// If the caller has the lock for writing already, as for [`read`](Self::read). One that has it for reading waits for
    /// itself for ever.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = strands_sync::RwLock::new(1);
    /// *lock.write().unwrap() = 2;
    /// assert_eq!(*lock.read().unwrap(), 2);
    /// ```
    #[inline]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        charge();
        if self.raw.write_until(None) == Outcome::Cancelled {
            cancel_unwind();
        }
        self.writes()
    }

    /// Takes the lock for writing if nobody reads or writes.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if somebody does; `Poisoned`, with the guard, if not and the lock is poisoned.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::{RwLock, TryLockError};
    ///
    /// let lock = RwLock::new(1);
    /// *lock.try_write().unwrap() += 1;
    /// let reads = lock.read().unwrap();
    /// assert!(matches!(lock.try_write(), Err(TryLockError::WouldBlock)));
    /// assert_eq!(*reads, 2);
    /// ```
    #[inline]
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        charge();
        if self.raw.try_write() { Ok(self.writes()?) } else { Err(TryLockError::WouldBlock) }
    }

    /// Whether somebody has panicked while writing.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::RwLock;
    ///
    /// let lock = RwLock::new(0);
    /// std::thread::scope(|scope| {
    ///     let panicking = scope.spawn(|| {
    ///         let _guard = lock.write().unwrap();
    ///         panic!("the lock is held for writing, and will be poisoned");
    ///     });
    ///     assert!(panicking.join().is_err());
    /// });
    /// assert!(lock.is_poisoned());
    /// ```
    #[inline]
    pub fn is_poisoned(&self) -> bool {
        self.poison.get()
    }

    /// Forgets that somebody has panicked while writing.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::RwLock;
    ///
    /// let lock = RwLock::new(0);
    /// std::thread::scope(|scope| {
    ///     let panicking = scope.spawn(|| {
    ///         let _guard = lock.write().unwrap();
    ///         panic!("poisons");
    ///     });
    ///     assert!(panicking.join().is_err());
    /// });
    /// assert_eq!(*lock.read().unwrap_err().into_inner(), 0);
    /// lock.clear_poison(); // It is as it should be.
    /// assert_eq!(*lock.read().unwrap(), 0);
    /// ```
    #[inline]
    pub fn clear_poison(&self) {
        self.poison.clear();
    }

    /// What is guarded. No lock is needed, as the exclusive borrow is one.
    ///
    /// # Errors
    ///
    /// If the lock is poisoned; the error has the reference.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut lock = strands_sync::RwLock::new(0);
    /// *lock.get_mut().unwrap() = 10;
    /// assert_eq!(*lock.read().unwrap(), 10);
    /// ```
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        let poisoned = self.poison.get();
        poison::wrap(poisoned, self.data.get_mut())
    }

    /// As `try_read`, for where the caller must not be suspended.
    #[inline]
    fn try_read_uncharged(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        if self.raw.try_read() { Ok(self.reads()?) } else { Err(TryLockError::WouldBlock) }
    }

    /// The guard, for who has just locked for reading.
    #[inline]
    fn reads(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        // SAFETY: the address of a field is not null.
        let data = unsafe { NonNull::new_unchecked(self.data.get()) };
        poison::wrap(self.poison.get(), RwLockReadGuard { data, raw: &self.raw })
    }

    /// The guard, for who has just locked for writing.
    #[inline]
    fn writes(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        let was_panicking = poison::panicking();
        let guard = RwLockWriteGuard { lock: self, was_panicking, not_send: PhantomData };
        poison::wrap(self.poison.get(), guard)
    }
}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// Goes on as a reader; nobody writes in between. Lets in all readers that wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::{RwLock, RwLockWriteGuard};
    ///
    /// let lock = RwLock::new(1);
    /// let mut writes = lock.write().unwrap();
    /// *writes = 2;
    /// let reads = RwLockWriteGuard::downgrade(writes);
    /// assert_eq!((*reads, *lock.read().unwrap()), (2, 2));
    /// ```
    pub fn downgrade(s: Self) -> RwLockReadGuard<'a, T> {
        let lock = s.lock;
        std::mem::forget(s);
        lock.raw.downgrade();
        lock.reads().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: while the guard lives the lock is held for reading, and the data lives.
        unsafe { self.data.as_ref() }
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: while the guard lives the lock is held for writing.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: while the guard lives the lock is held for writing, and the guard is borrowed exclusively.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.raw.read_unlock();
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.poison.guard_dropped(self.was_panicking);
        self.lock.raw.write_unlock();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> From<T> for RwLock<T> {
    fn from(value: T) -> RwLock<T> {
        RwLock::new(value)
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> RwLock<T> {
        RwLock::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("RwLock");
        match self.try_read_uncharged() {
            Ok(guard) => debug.field("data", &&*guard),
            Err(TryLockError::Poisoned(error)) => debug.field("data", &&**error.get_ref()),
            Err(TryLockError::WouldBlock) => debug.field("data", &format_args!("<locked>")),
        };
        debug.field("poisoned", &self.poison.get()).finish_non_exhaustive()
    }
}

/// The lock without the data. See the module's head.
pub(crate) struct RawRwLock {
    word: AtomicU64,
    line: WaitQueue<(), Waiter>,
}

/// With the writer's mark, as in a [`Mutex`](crate::Mutex); readers are many, and only counted.
const WRITER: u64 = owner::HELD;
const WAITERS: u64 = 1 << 62;
const WOKEN: u64 = 1 << 60;
/// One unlock while `WOKEN`; they are counted from this bit on.
const OVERTAKEN: u64 = 1 << 48;
/// After so many of them somebody else is woken too.
const MOST_OVERTAKEN: u64 = if cfg!(loom) { 1 } else { 1024 };
const COUNT: u64 = OVERTAKEN * (2 * MOST_OVERTAKEN - 1);
/// One reader, where there is no writer.
const READER: u64 = 1;
/// Newcomers are refused from here on. The room above is for those in line, who have a stack each. It also bounds the
/// words that say that nobody writes or waits.
const MANY_READERS: u64 = held::FEW;
/// Who holds it: the writer, or so many readers.
const HOLDERS: u64 = WRITER | (OVERTAKEN - 1);
const _: () =
    assert!(owner::MARK & !HOLDERS == 0 && COUNT < WOKEN && WOKEN < TRACKED && TRACKED < WAITERS);

/// Whether a newcomer may join as a reader.
#[inline]
fn may_read(word: u64) -> bool {
    let goes_before_others = word & WAITERS == 0 || word & WOKEN != 0 || is_unlocked(word);
    goes_before_others && may_read_as_the_first(word)
}

#[inline]
fn may_read_as_the_first(word: u64) -> bool {
    word & HOLDERS < MANY_READERS
}

#[inline]
fn is_unlocked(word: u64) -> bool {
    word & HOLDERS == 0
}

/// What others see of a waiter.
struct Waiter {
    writes: bool,
    /// It was woken before and found the lock taken: hand over.
    late: bool,
    mark: u64,
    /// The lock is the waiter's. On its frame.
    granted: *const Cell<bool>,
}

// SAFETY: `granted` is written by who chooses the waiter, under the line's lock, and read by the waiter after
// it was chosen, which orders the two.
unsafe impl Send for Waiter {}

impl Waiter {
    /// Exchanges whether the lock is the waiter's, if `grant`; whether it is now.
    fn exchange(&self, grant: bool) -> bool {
        // SAFETY: called as `exchange` of `choose_…` only: the waiter's frame stays while it is not
        // chosen and the line's lock is held.
        let granted = unsafe { &*self.granted };
        granted.set(grant && !granted.get());
        granted.get()
    }
}

type Line<'a> = Locked<'a, (), Waiter>;

impl RawRwLock {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> RawRwLock {
        RawRwLock { word: AtomicU64::new(0), line: WaitQueue::new(()) }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> RawRwLock {
        RawRwLock { word: AtomicU64::new(0), line: WaitQueue::new(()) }
    }

    /// `Woken`: the lock is the caller's. Else it is not. So is it for `write_until`.
    #[inline]
    pub(crate) fn read_until(&self, deadline: Option<Instant>) -> Outcome {
        if self.join_readers() { Outcome::Woken } else { self.read_contended(deadline) }
    }

    #[inline]
    pub(crate) fn write_until(&self, deadline: Option<Instant>) -> Outcome {
        match self.word.compare_exchange(held::free(), mark(), Acquire, Relaxed) {
            Ok(_) => Outcome::Woken,
            Err(_) => self.write_contended(deadline),
        }
    }

    #[inline]
    pub(crate) fn try_read(&self) -> bool {
        self.join_readers() || self.try_read_contended()
    }

    #[inline]
    pub(crate) fn try_write(&self) -> bool {
        match self.word.compare_exchange(held::free(), mark(), Acquire, Relaxed) {
            Ok(_) => true,
            Err(word) => is_unlocked(word) && self.try_write_slowly(),
        }
    }

    #[inline]
    pub(crate) fn read_unlock(&self) {
        let word = self.word.fetch_sub(READER, Release);
        if word >= OVERTAKEN {
            self.reader_has_left(word - READER);
        }
    }

    #[inline]
    pub(crate) fn write_unlock(&self) {
        if self.word.compare_exchange(mark(), 0, Release, Relaxed).is_err() {
            self.write_unlock_contended();
        }
    }

    pub(crate) fn downgrade(&self) {
        if self.word.compare_exchange(mark(), READER, Release, Relaxed).is_ok() {
            return;
        }
        let line = self.line.lock();
        let become_readers = || {
            let _ = self.change(Release, |word| Some((word & !HOLDERS) | (2 * READER)));
        };
        if !held::downgrade(&self.word, become_readers) {
            self.become_reader();
        }
        self.let_in(line, |line, admit| line.choose_suiting(|w| !w.writes, admit));
    }

    /// From a writer that is in no books, under the line's lock.
    fn become_reader(&self) {
        let become_reader = |word| Some((word & !(HOLDERS | TRACKED)) | READER);
        let _ = self.change(Release, become_reader);
    }

    /// What usually goes: nobody writes, nobody waits, and nobody changes the word beside us.
    #[inline]
    fn join_readers(&self) -> bool {
        let word = self.word.load(Relaxed);
        let simple = word < held::few();
        simple && self.word.compare_exchange(word, word + READER, Acquire, Relaxed).is_ok()
    }

    #[cold]
    fn try_read_contended(&self) -> bool {
        let joined = self.change(Acquire, |word| may_read(word).then_some(word + READER)).is_ok();
        if joined {
            self.note_reader();
        }
        joined
    }

    #[cold]
    fn try_write_slowly(&self) -> bool {
        let lock = |word| is_unlocked(word).then_some(word | mark());
        let locked = self.change(Acquire, lock).is_ok();
        if locked {
            self.note_writer();
        }
        locked
    }

    /// As if before the books were kept.
    #[cfg(all(test, loom))]
    pub(crate) fn join_unlisted(&self) {
        self.word.fetch_add(READER, Acquire);
    }

    /// Called by who has just become a reader, unless nobody wants to know.
    fn note_reader(&self) {
        held::note_reader(&self.word, ptr::from_ref(&self.line).addr());
    }

    /// Called by who has just become the writer, unless nobody wants to know.
    fn note_writer(&self) {
        held::note(&self.word, ptr::from_ref(&self.line).addr(), Kind::Write);
    }

    /// Called by a reader that has left the word as it is said, and somebody waits or is on the way, or readers are in
    /// the books.
    #[cold]
    fn reader_has_left(&self, word: u64) {
        if word & TRACKED != 0 && held::reader_has_left(&self.word) {
            self.books_leave();
        } else {
            self.look_after_the_line(word);
        }
    }

    /// The share of the books is the caller's.
    fn books_leave(&self) {
        let word = self.word.fetch_sub(READER, Release) - READER;
        // Those of a later reader may count that share as one more reader, which has now left.
        if word & TRACKED != 0 && held::visitor_has_left(&self.word) {
            self.books_leave();
        } else {
            self.look_after_the_line(word);
        }
    }

    /// Called by a reader that has left the word as it is said.
    fn look_after_the_line(&self, word: u64) {
        if word & WOKEN == 0 && word != WAITERS {
            return; // Nobody waits, or it was not the last.
        }
        if self.leave_to_who_is_woken(0) {
            return;
        }
        let line = self.line.lock();
        // Who has taken the lock meanwhile looks after the line when it unlocks.
        let come_back = |word| {
            let nobody_looks = word == WAITERS || word & (WRITER | WOKEN) == WOKEN;
            nobody_looks.then_some(word + READER)
        };
        if self.change(Acquire, come_back).is_ok() {
            self.reader_leaves(line);
        }
    }

    #[cold]
    fn read_contended(&self, deadline: Option<Instant>) -> Outcome {
        static READ: Op = Op("RwLock::read");
        if self.try_read() {
            return Outcome::Woken;
        }
        if deadline.is_none() {
            owner::assert_not_me(&self.word, "RwLock", &self.line);
        }
        if self.spin(RawRwLock::try_read) {
            return Outcome::Woken;
        }
        let word = self.word.load(Relaxed);
        assert!(
            word & WRITER != 0 || word & HOLDERS < MANY_READERS,
            "too many active read locks on RwLock"
        );
        let mut place = Place::Last;
        loop {
            let granted = Cell::new(false);
            let woken = place == Place::First;
            let line = self.line.lock();
            let may = if woken { may_read_as_the_first } else { may_read };
            if self.lock_or_announce(woken, |word| may(word).then_some(word + READER)) {
                if woken {
                    self.let_in_those_behind(line);
                } else {
                    drop(line);
                }
                self.note_reader();
                return Outcome::Woken;
            }
            let waiter = Waiter { writes: false, late: woken, mark: 0, granted: &granted };
            let wait = || line.wait(place, &READ, deadline, waiter, || {});
            match owner::while_waiting(&self.word, wait) {
                Outcome::Woken if granted.get() => {
                    self.note_reader();
                    return Outcome::Woken;
                }
                Outcome::Woken => place = Place::First,
                outcome => return outcome,
            }
        }
    }

    #[cold]
    fn write_contended(&self, deadline: Option<Instant>) -> Outcome {
        static WRITE: Op = Op("RwLock::write");
        if self.try_write() {
            return Outcome::Woken;
        }
        if deadline.is_none() {
            owner::assert_not_me(&self.word, "RwLock", &self.line);
        }
        if self.spin(RawRwLock::try_write) {
            return Outcome::Woken;
        }
        let mut place = Place::Last;
        loop {
            let granted = Cell::new(false);
            let woken = place == Place::First;
            let line = self.line.lock();
            if self.lock_or_announce(woken, |word| is_unlocked(word).then_some(word | mark())) {
                drop(line);
                self.note_writer();
                return Outcome::Woken;
            }
            let waiter = Waiter { writes: true, late: woken, mark: mark(), granted: &granted };
            let wait = || line.wait(place, &WRITE, deadline, waiter, || {});
            match owner::while_waiting(&self.word, wait) {
                Outcome::Woken if granted.get() => {
                    self.note_writer();
                    return Outcome::Woken;
                }
                Outcome::Woken => place = Place::First,
                outcome => {
                    self.left_the_line();
                    return outcome;
                }
            }
        }
    }

    fn spin(&self, lock: impl Fn(&RawRwLock) -> bool) -> bool {
        // Others in line mean that the wait is long.
        spin(|| self.word.load(Relaxed) & WAITERS == 0 && lock(self))
    }

    /// Locks, or says that somebody waits. Under the line's lock.
    ///
    /// If `woken` the caller has been on the way, and is no more.
    fn lock_or_announce(&self, woken: bool, lock: impl Fn(u64) -> Option<u64>) -> bool {
        let mut word = self.word.load(Relaxed);
        loop {
            let locked = lock(word);
            let mut wanted = locked.unwrap_or(word | WAITERS);
            if woken {
                wanted &= !(WOKEN | COUNT);
            }
            if wanted == word {
                return false;
            }
            match self.word.compare_exchange_weak(word, wanted, Acquire, Relaxed) {
                Ok(_) => return locked.is_some(),
                Err(now) => word = now,
            }
        }
    }

    #[cold]
    fn write_unlock_contended(&self) {
        held::forget(&self.word);
        if !self.leave_to_who_is_woken(HOLDERS | TRACKED) {
            let line = self.line.lock();
            self.become_reader();
            self.reader_leaves(line);
        }
    }

    /// Gives up the caller's share of the lock, and sees to it that somebody else goes on.
    ///
    /// Called by the last reader while somebody is in line; by any, if who was chosen has been overtaken too often; and beside
    /// other readers by a writer that has given up.
    #[cold]
    fn reader_leaves<'a>(&'a self, mut line: Line<'a>) {
        loop {
            // One that came too late, and with it those behind it.
            let all = Cell::new(false);
            line = self.let_in(line, |line, admit| {
                let chosen = line.choose_first_if(|w| !w.writes && (w.late || all.get()), admit);
                all.set(all.get() || chosen.is_some());
                chosen
            });
            if line.is_empty() {
                let before = self.word.fetch_sub(READER, Release);
                drop(line);
                return self.visitor_has_left(before);
            }
            let mut chosen = line.choose_first_if(|waiter| !waiter.writes, |_| {});
            let handed_to = Cell::new(0);
            if chosen.is_none() && line.is_empty() {
                continue; // Who was in it has given up.
            }
            if chosen.is_none() {
                // A writer is the first. Only the last reader makes way for it.
                let leave = |word: u64| {
                    (word & WOKEN == 0 && word != READER | WAITERS).then(|| word - READER)
                };
                let word = match self.change(Release, leave) {
                    Ok(before) => {
                        drop(line);
                        return self.visitor_has_left(before);
                    }
                    Err(word) => word,
                };
                // What the other readers have read is read before the writer writes.
                self.word.load(Acquire);
                let is_last = word == READER | WAITERS;
                let hand_over = |waiter: &Waiter| {
                    let handed = waiter.exchange(is_last && waiter.late);
                    handed_to.set(if handed { waiter.mark } else { 0 });
                };
                chosen = line.choose_first_if(|waiter| waiter.writes, hand_over);
            }
            // If nobody was chosen they have given up, and somebody else is the first.
            if chosen.is_some() {
                let waiters = if line.is_empty() { 0 } else { WAITERS };
                let leave = |word| match handed_to.get() {
                    0 => Some(((word & (HOLDERS | TRACKED)) - READER) | WOKEN | waiters),
                    // It may be in the books already.
                    writer => Some(writer | waiters | (word & TRACKED)),
                };
                let before = self.change(Release, leave).expect("it leaves, whatever the word is");
                drop(line);
                drop(chosen);
                return self.visitor_has_left(before);
            }
        }
    }

    /// Called by a reader that was in for a moment, before which the word was what is said.
    fn visitor_has_left(&self, before: u64) {
        if before & TRACKED != 0 && held::visitor_has_left(&self.word) {
            self.books_leave();
        }
    }

    /// Lets in the readers at the head of the line, beside the caller, who has just become one.
    fn let_in_those_behind<'a>(&'a self, line: Line<'a>) {
        self.let_in(line, |line, admit| line.choose_first_if(|w| !w.writes, admit));
    }

    /// Lets in, beside the caller, who is a reader, those readers in line that `choose` chooses.
    ///
    /// The line is unlocked meanwhile, as to wake them may take system calls. Newcomers join until they are in: so those in
    /// line get fewer, however many come.
    fn let_in<'a>(
        &'a self,
        mut line: Line<'a>,
        choose: impl Fn(&mut Line<'a>, &dyn Fn(&Waiter)) -> Option<strands_sched::Wake>,
    ) -> Line<'a> {
        let mut has_let_in = false;
        loop {
            // Counted before it can know, as it may leave at once.
            let admit = |waiter: &Waiter| {
                match waiter.exchange(true) {
                    true => self.word.fetch_add(READER, Relaxed),
                    false => self.word.fetch_sub(READER, Relaxed),
                };
            };
            let Some(chosen) = choose(&mut line, &admit) else { break };
            has_let_in = true;
            self.word.fetch_or(WOKEN, Relaxed);
            drop(line);
            drop(chosen);
            line = self.line.lock();
        }
        let nobody_is_left = if line.is_empty() { WAITERS | COUNT } else { 0 };
        let all_are_in = if has_let_in { WOKEN | COUNT } else { 0 };
        self.word.fetch_and(!(nobody_is_left | all_are_in), Relaxed);
        line
    }

    /// A writer has given up: those whom it held up, readers behind it, may go in now.
    fn left_the_line(&self) {
        let line = self.line.lock();
        // Also if nobody holds it: the last reader is about to look, but may find another who has come meanwhile.
        let nobody_looks = |word| word & (WRITER | WAITERS | WOKEN) == WAITERS;
        let join = |word| nobody_looks(word).then_some(word + READER);
        if self.change(Acquire, join).is_ok() {
            self.reader_leaves(line);
        }
    }

    /// Leaves the line to who is on the way from it, and the lock too, if `holders` are those who hold it. False: nobody is,
    /// or it has been overtaken too often.
    fn leave_to_who_is_woken(&self, holders: u64) -> bool {
        let leave = |word| {
            let relies = word & WOKEN != 0 && word & COUNT < MOST_OVERTAKEN * OVERTAKEN;
            relies.then_some((word & !holders) + OVERTAKEN)
        };
        self.change(Release, leave).is_ok()
    }

    /// Changes the word as `new` says, unless that says `None`; what it was before, or is.
    #[inline]
    fn change(
        &self,
        success: std::sync::atomic::Ordering,
        new: impl Fn(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        let mut word = self.word.load(Relaxed);
        while let Some(wanted) = new(word) {
            match self.word.compare_exchange_weak(word, wanted, success, Relaxed) {
                Ok(before) => return Ok(before),
                Err(now) => word = now,
            }
        }
        Err(word)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn too_many_readers_are_refused() {
        let lock = RwLock::new(());
        lock.raw.word.store(MANY_READERS, Relaxed);
        assert!(matches!(lock.try_read(), Err(TryLockError::WouldBlock)));
        let refused = std::panic::catch_unwind(|| drop(lock.read())).unwrap_err();
        let text = refused.downcast_ref::<&str>().unwrap();
        assert_eq!(*text, "too many active read locks on RwLock");
        lock.raw.word.store(0, Relaxed);
        assert!(lock.try_write().is_ok(), "the line's lock has been released");
    }
}
