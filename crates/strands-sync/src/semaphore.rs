//! A counting semaphore.
//!
//! # The protocol
//!
//! One word, and a line of waiters with its own small lock. The word has the free permits and two
//! bits: `CLOSED`, and `WAITERS`: somebody may be in line. Without contention, an acquire and a
//! release are one compare-exchange each. Invariants:
//!
//! 1. While somebody is in line the word has `WAITERS`. It is set by a waiter that finds too few
//!    permits and gets in line, in one step under the line's lock; and cleared under that lock.
//! 2. While the word has `WAITERS`, permits are taken from it under the line's lock only.
//! 3. While the word has `WAITERS`, permits are given back under the line's lock too, and who gives back *hands out*: it
//!    grants requests from the front of the line while they fit, and adds to the word only what is left. So does a waiter
//!    that gives up, as it may have been the first.
//!
//! # Fairness
//!
//! Strict: first come, first served. By 2 nobody who comes by takes what those in line wait for, and a
//! large request at the front is not overtaken by small ones behind it, which could keep it waiting for ever; the
//! permits it still lacks stay free meanwhile and count as available. Permits are granted,
//! not announced: the waiter that is woken has them. Fibers of one worker take turns, as each acquire
//! spends the common budget (before it acquires, so nobody is suspended by that with a permit in hand).
//!
//! A select may stand in line for two requests. They hold up others, not each other: while the first in line does not
//! fit, another request of the same party is granted if that does.
//!
//! Turned down: to give the first in line what there is, bit by bit (permits that nobody can use nor see,
//! to be given back when it gives up), and to let others barge as a mutex does (a
//! request for many would starve).

use std::cell::Cell;
use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strands_sched::{
    About, Arm, Op, Operation, Outcome, Place, WaitQueue, Wake, cancel_unwind, charge,
};

use crate::atomic::{Acquire, AtomicUsize, Relaxed, Release};
use crate::deadline;

/// A number of permits that parties take and give back, for fibers and plain threads alike.
///
/// Who asks for permits waits until there are enough and all who asked before have theirs: first
/// come, first served, also when the one who comes later wants less. Permits are given back when
/// a [`SemaphorePermit`] is dropped. A cancelled fiber unwinds from a wait, unless it has been granted its permits.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
/// use strands_sync::Semaphore;
///
/// let (semaphore, inside) = (Semaphore::new(2), AtomicUsize::new(0));
/// std::thread::scope(|scope| {
///     for _ in 0..5 {
///         scope.spawn(|| {
///             let _permit = semaphore.acquire().unwrap();
///             assert!(inside.fetch_add(1, SeqCst) < 2);
///             inside.fetch_sub(1, SeqCst);
///         });
///     }
/// });
/// assert_eq!(semaphore.available_permits(), 2);
/// ```
pub struct Semaphore {
    /// Free permits in units of `ONE`, and the two bits.
    word: AtomicUsize,
    line: WaitQueue<(), Waiter>,
}

/// Acquiring fails from here on.
const CLOSED: usize = 1;
/// Somebody may be in line.
const WAITERS: usize = 2;
const ONE: usize = 4;

/// What who grants sees of a waiter.
struct Waiter {
    needed: usize,
    /// The permits are the waiter's. On its frame.
    granted: *const Cell<bool>,
}

// SAFETY: `granted` is written by who chooses the waiter, under the line's lock, and read by the waiter after
// it was chosen, which orders the two.
unsafe impl Send for Waiter {}

/// Permits of a [`Semaphore`]. Dropping this gives them back.
///
/// # Examples
///
/// ```
/// use strands_sync::{Semaphore, SemaphorePermit};
///
/// let semaphore = Semaphore::new(3);
/// let permit: SemaphorePermit<'_> = semaphore.acquire_many(2).unwrap();
/// assert_eq!(semaphore.available_permits(), 1);
/// drop(permit);
/// assert_eq!(semaphore.available_permits(), 3);
/// ```
#[must_use = "if unused the permits are given back at once"]
#[clippy::has_significant_drop]
#[derive(Debug)]
pub struct SemaphorePermit<'a> {
    semaphore: &'a Semaphore,
    permits: usize,
}

/// Permits of a [`Semaphore`] that is shared by an [`Arc`]. Dropping this gives them back.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use strands_sync::{OwnedSemaphorePermit, Semaphore};
///
/// let semaphore = Arc::new(Semaphore::new(1));
/// let permit: OwnedSemaphorePermit = semaphore.acquire_owned().unwrap();
/// std::thread::spawn(move || drop(permit)).join().unwrap();
/// assert_eq!(semaphore.available_permits(), 1);
/// ```
#[must_use = "if unused the permits are given back at once"]
#[clippy::has_significant_drop]
#[derive(Debug)]
pub struct OwnedSemaphorePermit {
    semaphore: Arc<Semaphore>,
    permits: usize,
}

/// The semaphore was [closed](Semaphore::close).
///
/// # Examples
///
/// ```
/// use strands_sync::{AcquireError, Semaphore};
///
/// let semaphore = Semaphore::new(1);
/// semaphore.close();
/// let error: AcquireError = semaphore.acquire().unwrap_err();
/// assert_eq!(error.to_string(), "semaphore closed");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcquireError(());

/// Why permits could not be had at once.
///
/// # Examples
///
/// ```
/// use strands_sync::{Semaphore, TryAcquireError};
///
/// let semaphore = Semaphore::new(0);
/// assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::NoPermits);
/// semaphore.close();
/// assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::Closed);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryAcquireError {
    /// The semaphore was [closed](Semaphore::close).
    Closed,
    /// There are too few, or others wait for them already.
    NoPermits,
}

/// Why permits were not had in time.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use strands_sync::{AcquireTimeoutError, Semaphore};
///
/// let semaphore = Semaphore::new(0);
/// let acquired = semaphore.acquire_timeout(Duration::from_millis(1));
/// assert_eq!(acquired.unwrap_err(), AcquireTimeoutError::Timeout);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcquireTimeoutError {
    /// The semaphore was [closed](Semaphore::close).
    Closed,
    /// The time was up.
    Timeout,
}

impl Semaphore {
    /// How many permits a semaphore can have: `usize::MAX >> 3`.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::Semaphore;
    ///
    /// let semaphore = Semaphore::new(Semaphore::MAX_PERMITS);
    /// assert_eq!(semaphore.available_permits(), usize::MAX >> 3);
    /// ```
    pub const MAX_PERMITS: usize = usize::MAX >> 3;

    /// A semaphore with that many permits.
    ///
    /// # Panics
    ///
    /// If `permits` is more than [`MAX_PERMITS`](Self::MAX_PERMITS).
    ///
    /// # Examples
    ///
    /// ```
    /// static UPLOADS: strands_sync::Semaphore = strands_sync::Semaphore::new(8);
    /// let _permit = UPLOADS.acquire().unwrap();
    /// ```
    #[cfg(not(loom))]
    #[must_use]
    #[inline]
    pub const fn new(permits: usize) -> Semaphore {
        assert!(
            permits <= Semaphore::MAX_PERMITS,
            "a semaphore may not have more than MAX_PERMITS permits"
        );
        Semaphore { word: AtomicUsize::new(permits * ONE), line: WaitQueue::new(()) }
    }

    /// A semaphore with that many permits.
    #[cfg(loom)]
    pub fn new(permits: usize) -> Semaphore {
        Semaphore { word: AtomicUsize::new(permits * ONE), line: WaitQueue::new(()) }
    }

    /// Waits for a permit and takes it.
    ///
    /// # Errors
    ///
    /// If the semaphore is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = strands_sync::Semaphore::new(1);
    /// let permit = semaphore.acquire().unwrap();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| drop(semaphore.acquire().unwrap())); // Waits.
    ///     drop(permit);
    /// });
    /// ```
    #[inline]
    pub fn acquire(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.acquire_many(1)
    }

    /// Waits for `n` permits and takes them together.
    ///
    /// None are held while it waits. For no permits it does not wait.
    ///
    /// # Errors
    ///
    /// If the semaphore is closed.
    ///
    /// # Panics
    ///
    /// If `n` is more than [`MAX_PERMITS`](Self::MAX_PERMITS).
    ///
    /// # Examples
    ///
    /// ```
    /// let megabytes = strands_sync::Semaphore::new(100);
    /// let permit = megabytes.acquire_many(64).unwrap();
    /// assert!(megabytes.try_acquire_many(64).is_err());
    /// assert_eq!(permit.num_permits(), 64);
    /// ```
    #[inline]
    pub fn acquire_many(&self, n: u32) -> Result<SemaphorePermit<'_>, AcquireError> {
        let permits = self.take_or_wait(n)?;
        Ok(SemaphorePermit { semaphore: self, permits })
    }

    /// Takes a permit if there is one and nobody waits for it.
    ///
    /// # Errors
    ///
    /// `NoPermits` if there is none for the caller, `Closed` if the semaphore is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::{Semaphore, TryAcquireError};
    ///
    /// let semaphore = Semaphore::new(1);
    /// let permit = semaphore.try_acquire().unwrap();
    /// assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::NoPermits);
    /// drop(permit);
    /// assert!(semaphore.try_acquire().is_ok());
    /// ```
    #[inline]
    pub fn try_acquire(&self) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.try_acquire_many(1)
    }

    /// Takes `n` permits if there are so many and nobody waits for them.
    ///
    /// # Errors
    ///
    /// As for [`try_acquire`](Self::try_acquire).
    ///
    /// # Panics
    ///
    /// If `n` is more than [`MAX_PERMITS`](Self::MAX_PERMITS).
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = strands_sync::Semaphore::new(4);
    /// let three = semaphore.try_acquire_many(3).unwrap();
    /// assert!(semaphore.try_acquire_many(2).is_err());
    /// drop(three);
    /// assert!(semaphore.try_acquire_many(2).is_ok());
    /// ```
    #[inline]
    pub fn try_acquire_many(&self, n: u32) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        let permits = self.take_charged(n)?;
        Ok(SemaphorePermit { semaphore: self, permits })
    }

    /// Waits for a permit for about `timeout`, and takes it.
    ///
    /// A timeout that no `Instant` can tell is none. A permit that is there is taken also when the
    /// timeout is zero.
    ///
    /// # Errors
    ///
    /// `Timeout` if the time was up, `Closed` if the semaphore is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands_sync::{AcquireTimeoutError, Semaphore};
    ///
    /// let semaphore = Semaphore::new(1);
    /// let permit = semaphore.acquire_timeout(Duration::ZERO).unwrap();
    /// let second = semaphore.acquire_timeout(Duration::from_millis(1));
    /// assert_eq!(second.unwrap_err(), AcquireTimeoutError::Timeout);
    /// ```
    pub fn acquire_timeout(
        &self,
        timeout: Duration,
    ) -> Result<SemaphorePermit<'_>, AcquireTimeoutError> {
        self.acquire_many_timeout(1, timeout)
    }

    /// Waits for `n` permits for about `timeout`, and takes them together.
    ///
    /// # Errors
    ///
    /// As for [`acquire_timeout`](Self::acquire_timeout).
    ///
    /// # Panics
    ///
    /// If `n` is more than [`MAX_PERMITS`](Self::MAX_PERMITS).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let semaphore = strands_sync::Semaphore::new(3);
    /// assert!(semaphore.acquire_many_timeout(4, Duration::from_millis(1)).is_err());
    /// assert!(semaphore.acquire_many_timeout(3, Duration::from_millis(1)).is_ok());
    /// ```
    pub fn acquire_many_timeout(
        &self,
        n: u32,
        timeout: Duration,
    ) -> Result<SemaphorePermit<'_>, AcquireTimeoutError> {
        self.acquire_many_deadline(n, deadline::after(timeout))
    }

    /// Waits for a permit until `deadline`, and takes it.
    ///
    /// `deadline` is a point in time, or `None` for never. A permit that is there is taken also when the time has
    /// passed.
    ///
    /// # Errors
    ///
    /// As for [`acquire_timeout`](Self::acquire_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use strands_sync::Semaphore;
    ///
    /// let (first, second) = (Semaphore::new(1), Semaphore::new(0));
    /// let deadline = Instant::now() + Duration::from_millis(1);
    /// let permit = first.acquire_deadline(deadline).unwrap();
    /// assert!(second.acquire_deadline(deadline).is_err());
    /// ```
    pub fn acquire_deadline(
        &self,
        deadline: impl Into<Option<Instant>>,
    ) -> Result<SemaphorePermit<'_>, AcquireTimeoutError> {
        self.acquire_many_deadline(1, deadline)
    }

    /// Waits for `n` permits until `deadline`, and takes them together.
    ///
    /// # Errors
    ///
    /// As for [`acquire_timeout`](Self::acquire_timeout).
    ///
    /// # Panics
    ///
    /// If `n` is more than [`MAX_PERMITS`](Self::MAX_PERMITS).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Instant;
    ///
    /// let semaphore = strands_sync::Semaphore::new(2);
    /// assert!(semaphore.acquire_many_deadline(2, Instant::now()).is_ok());
    /// assert!(semaphore.acquire_many_deadline(3, Instant::now()).is_err());
    /// ```
    pub fn acquire_many_deadline(
        &self,
        n: u32,
        deadline: impl Into<Option<Instant>>,
    ) -> Result<SemaphorePermit<'_>, AcquireTimeoutError> {
        let permits = self.take_until(n, deadline.into())?;
        Ok(SemaphorePermit { semaphore: self, permits })
    }

    /// As [`acquire`](Self::acquire), with a permit that keeps the semaphore.
    ///
    /// # Errors
    ///
    /// If the semaphore is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use strands_sync::Semaphore;
    ///
    /// let semaphore = Arc::new(Semaphore::new(2));
    /// let jobs: Vec<_> = (0..4)
    ///     .map(|_| {
    ///         let permit = semaphore.acquire_owned().unwrap();
    ///         std::thread::spawn(move || drop(permit)) // The job has it.
    ///     })
    ///     .collect();
    /// jobs.into_iter().for_each(|job| job.join().unwrap());
    /// ```
    pub fn acquire_owned(self: &Arc<Self>) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.acquire_many_owned(1)
    }

    /// As [`acquire_many`](Self::acquire_many), with a permit that keeps the semaphore.
    ///
    /// # Errors
    ///
    /// If the semaphore is closed.
    ///
    /// # Panics
    ///
    /// If `n` is more than [`MAX_PERMITS`](Self::MAX_PERMITS).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use strands_sync::Semaphore;
    ///
    /// let semaphore = Arc::new(Semaphore::new(2));
    /// assert_eq!(semaphore.acquire_many_owned(2).unwrap().num_permits(), 2);
    /// ```
    pub fn acquire_many_owned(
        self: &Arc<Self>,
        n: u32,
    ) -> Result<OwnedSemaphorePermit, AcquireError> {
        let permits = self.take_or_wait(n)?;
        Ok(OwnedSemaphorePermit { semaphore: self.clone(), permits })
    }

    /// As [`try_acquire`](Self::try_acquire), with a permit that keeps the semaphore.
    ///
    /// # Errors
    ///
    /// As for [`try_acquire`](Self::try_acquire).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use strands_sync::Semaphore;
    ///
    /// let semaphore = Arc::new(Semaphore::new(1));
    /// let permit = semaphore.try_acquire_owned().unwrap();
    /// assert!(semaphore.try_acquire_owned().is_err());
    /// ```
    pub fn try_acquire_owned(self: &Arc<Self>) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.try_acquire_many_owned(1)
    }

    /// As [`try_acquire_many`](Self::try_acquire_many), with a permit that keeps the semaphore.
    ///
    /// # Errors
    ///
    /// As for [`try_acquire`](Self::try_acquire).
    ///
    /// # Panics
    ///
    /// If `n` is more than [`MAX_PERMITS`](Self::MAX_PERMITS).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use strands_sync::Semaphore;
    ///
    /// let semaphore = Arc::new(Semaphore::new(1));
    /// assert!(semaphore.try_acquire_many_owned(2).is_err());
    /// ```
    pub fn try_acquire_many_owned(
        self: &Arc<Self>,
        n: u32,
    ) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        let permits = self.take_charged(n)?;
        Ok(OwnedSemaphorePermit { semaphore: self.clone(), permits })
    }

    /// As [`acquire_timeout`](Self::acquire_timeout), with a permit that keeps the semaphore.
    ///
    /// # Errors
    ///
    /// As for [`acquire_timeout`](Self::acquire_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use strands_sync::Semaphore;
    ///
    /// let semaphore = Arc::new(Semaphore::new(1));
    /// let permit = semaphore.acquire_owned_timeout(Duration::from_secs(1)).unwrap();
    /// assert!(semaphore.acquire_owned_timeout(Duration::ZERO).is_err());
    /// ```
    pub fn acquire_owned_timeout(
        self: &Arc<Self>,
        timeout: Duration,
    ) -> Result<OwnedSemaphorePermit, AcquireTimeoutError> {
        self.acquire_many_owned_deadline(1, deadline::after(timeout))
    }

    /// As [`acquire_many_timeout`](Self::acquire_many_timeout), with a permit that keeps the
    /// semaphore.
    ///
    /// # Errors
    ///
    /// As for [`acquire_timeout`](Self::acquire_timeout).
    ///
    /// # Panics
    ///
    /// If `n` is more than [`MAX_PERMITS`](Self::MAX_PERMITS).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use strands_sync::Semaphore;
    ///
    /// let semaphore = Arc::new(Semaphore::new(2));
    /// assert!(semaphore.acquire_many_owned_timeout(2, Duration::from_secs(1)).is_ok());
    /// ```
    pub fn acquire_many_owned_timeout(
        self: &Arc<Self>,
        n: u32,
        timeout: Duration,
    ) -> Result<OwnedSemaphorePermit, AcquireTimeoutError> {
        self.acquire_many_owned_deadline(n, deadline::after(timeout))
    }

    /// As [`acquire_deadline`](Self::acquire_deadline), with a permit that keeps the semaphore.
    ///
    /// # Errors
    ///
    /// As for [`acquire_timeout`](Self::acquire_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::time::Instant;
    /// use strands_sync::Semaphore;
    ///
    /// let semaphore = Arc::new(Semaphore::new(1));
    /// assert!(semaphore.acquire_owned_deadline(Instant::now()).is_ok());
    /// ```
    pub fn acquire_owned_deadline(
        self: &Arc<Self>,
        deadline: impl Into<Option<Instant>>,
    ) -> Result<OwnedSemaphorePermit, AcquireTimeoutError> {
        self.acquire_many_owned_deadline(1, deadline)
    }

    /// As [`acquire_many_deadline`](Self::acquire_many_deadline), with a permit that keeps the
    /// semaphore.
    ///
    /// # Errors
    ///
    /// As for [`acquire_timeout`](Self::acquire_timeout).
    ///
    /// # Panics
    ///
    /// If `n` is more than [`MAX_PERMITS`](Self::MAX_PERMITS).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::time::Instant;
    /// use strands_sync::Semaphore;
    ///
    /// let semaphore = Arc::new(Semaphore::new(2));
    /// assert!(semaphore.acquire_many_owned_deadline(2, Instant::now()).is_ok());
    /// ```
    pub fn acquire_many_owned_deadline(
        self: &Arc<Self>,
        n: u32,
        deadline: impl Into<Option<Instant>>,
    ) -> Result<OwnedSemaphorePermit, AcquireTimeoutError> {
        let permits = self.take_until(n, deadline.into())?;
        Ok(OwnedSemaphorePermit { semaphore: self.clone(), permits })
    }

    /// How many permits are free now, those included that a waiter has too few of.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = strands_sync::Semaphore::new(3);
    /// let _permit = semaphore.acquire().unwrap();
    /// assert_eq!(semaphore.available_permits(), 2);
    /// ```
    #[must_use]
    pub fn available_permits(&self) -> usize {
        charge();
        self.word.load(Acquire) / ONE
    }

    /// Adds `n` permits, for good.
    ///
    /// # Panics
    ///
    /// If the free permits would then be more than [`MAX_PERMITS`](Self::MAX_PERMITS). So does giving
    /// a permit back.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = strands_sync::Semaphore::new(0);
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| semaphore.acquire().unwrap().forget());
    ///     semaphore.add_permits(1);
    /// });
    /// assert_eq!(semaphore.available_permits(), 0);
    /// ```
    pub fn add_permits(&self, n: usize) {
        self.give(n);
    }

    /// Takes up to `n` of the free permits away, for good; says how many.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = strands_sync::Semaphore::new(3);
    /// assert_eq!(semaphore.forget_permits(2), 2);
    /// assert_eq!(semaphore.forget_permits(2), 1);
    /// assert_eq!(semaphore.available_permits(), 0);
    /// ```
    pub fn forget_permits(&self, n: usize) -> usize {
        let _line = self.line.lock(); // See invariant 2.
        let mut word = self.word.load(Relaxed);
        loop {
            let taken = n.min(word / ONE);
            match self.word.compare_exchange_weak(word, word - taken * ONE, Acquire, Relaxed) {
                Ok(_) => return taken,
                Err(now) => word = now,
            }
        }
    }

    /// From here on nobody acquires. Those who wait get an error.
    ///
    /// Permits that are held may be kept and given back. A semaphore cannot be opened again.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = strands_sync::Semaphore::new(0);
    /// std::thread::scope(|scope| {
    ///     let waiter = scope.spawn(|| semaphore.acquire().is_err());
    ///     semaphore.close();
    ///     assert!(waiter.join().unwrap());
    /// });
    /// ```
    pub fn close(&self) {
        let line = self.line.lock();
        // Nobody gets in line from here on; those who are find that nothing was granted.
        self.word.fetch_or(CLOSED, Release);
        self.word.fetch_and(!WAITERS, Relaxed);
        line.release_all();
    }

    /// Whether the semaphore was [closed](Self::close).
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = strands_sync::Semaphore::new(1);
    /// assert!(!semaphore.is_closed());
    /// semaphore.close();
    /// assert!(semaphore.is_closed());
    /// ```
    #[must_use]
    pub fn is_closed(&self) -> bool {
        charge();
        self.word.load(Acquire) & CLOSED != 0
    }

    #[inline]
    fn take_charged(&self, n: u32) -> Result<usize, TryAcquireError> {
        charge();
        self.take(needed(n), 0)
    }

    #[inline]
    fn take_or_wait(&self, n: u32) -> Result<usize, AcquireError> {
        self.take_until(n, None).map_err(|_| AcquireError(()))
    }

    #[inline]
    fn take_until(&self, n: u32, deadline: Option<Instant>) -> Result<usize, AcquireTimeoutError> {
        match self.take_charged(n) {
            Ok(permits) => Ok(permits),
            Err(TryAcquireError::Closed) => Err(AcquireTimeoutError::Closed),
            Err(TryAcquireError::NoPermits) => self.wait_until(needed(n), deadline),
        }
    }

    /// Takes `n` permits; if there are too few or somebody is in line, sets `if_refused` in the word.
    #[inline]
    fn take(&self, n: usize, if_refused: usize) -> Result<usize, TryAcquireError> {
        let mut word = self.word.load(Acquire);
        loop {
            if word & CLOSED != 0 {
                return Err(TryAcquireError::Closed);
            }
            let refused = n > word / ONE || (n > 0 && word & WAITERS != 0);
            let wanted = if refused { word | if_refused } else { word - n * ONE };
            if refused && wanted == word {
                return Err(TryAcquireError::NoPermits);
            }
            match self.word.compare_exchange_weak(word, wanted, Acquire, Acquire) {
                Ok(_) if refused => return Err(TryAcquireError::NoPermits),
                Ok(_) => return Ok(n),
                Err(now) => word = now,
            }
        }
    }

    #[cold]
    fn wait_until(
        &self,
        needed: usize,
        deadline: Option<Instant>,
    ) -> Result<usize, AcquireTimeoutError> {
        static ACQUIRE: Op = Op("Semaphore::acquire");
        let granted = Cell::new(false);
        let line = self.line.lock();
        match self.take(needed, WAITERS) {
            Ok(permits) => return Ok(permits),
            Err(TryAcquireError::Closed) => return Err(AcquireTimeoutError::Closed),
            Err(TryAcquireError::NoPermits) => {}
        }
        let waiter = Waiter { needed, granted: &granted };
        match line.wait(Place::Last, &ACQUIRE, deadline, waiter, || {}) {
            Outcome::Woken if granted.get() => Ok(needed),
            Outcome::Woken => Err(AcquireTimeoutError::Closed),
            outcome => {
                self.hand_out(0); // We may have been the first, and what we lacked fits the next.
                if outcome == Outcome::Cancelled {
                    cancel_unwind();
                }
                Err(AcquireTimeoutError::Timeout)
            }
        }
    }

    #[inline]
    fn give(&self, n: usize) {
        if n == 0 {
            return;
        }
        let mut word = self.word.load(Relaxed);
        while word & WAITERS == 0 {
            assert_fits(word, n);
            match self.word.compare_exchange_weak(word, word + n * ONE, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
        self.hand_out(n);
    }

    /// Grants the requests at the front of the line while they fit, of what there is and what is `given` back.
    #[cold]
    fn hand_out(&self, mut given: usize) {
        loop {
            let (chosen, more) = self.grant_first(given);
            drop(chosen); // Wakes, now that the line's lock has been released.
            if !more {
                return;
            }
            given = 0;
        }
    }

    /// Grants the first request in line if it fits; whether the next is worth a look.
    fn grant_first(&self, given: usize) -> (Option<Wake>, bool) {
        let mut line = self.line.lock();
        // Who is in line has seen what was written before permits were given back without this lock: see invariant 3.
        let word = self.word.load(Relaxed);
        assert_fits(word, given);
        let free = word / ONE + given;
        let taken = Cell::new(0);
        let fits = |waiter: &Waiter| waiter.needed <= free;
        let chosen = line.choose_first_if(fits, |waiter| {
            // SAFETY: the waiter's frame stays while it is not chosen and the line's lock is held.
            let granted = unsafe { &*waiter.granted };
            granted.set(!granted.get());
            taken.set(if granted.get() { waiter.needed } else { 0 });
        });
        let left = free - taken.get();
        // By invariants 1 and 2 nobody else has changed the bit, or has taken permits if it is set.
        let last = if line.is_empty() { word & WAITERS } else { 0 };
        let change = (left * ONE).wrapping_sub(word / ONE * ONE).wrapping_sub(last);
        if change != 0 {
            self.word.fetch_add(change, Release);
        }
        let more = chosen.is_some() && !line.is_empty() && left > 0;
        (chosen, more)
    }
}

#[inline]
fn assert_fits(word: usize, n: usize) {
    assert!(
        n <= Semaphore::MAX_PERMITS && word / ONE <= Semaphore::MAX_PERMITS - n,
        "{n} more permits would be more than MAX_PERMITS ({})",
        Semaphore::MAX_PERMITS
    );
}

/// `n` as a number that can be had.
#[inline]
fn needed(n: u32) -> usize {
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    assert!(
        n <= Semaphore::MAX_PERMITS,
        "a semaphore may not have more than MAX_PERMITS permits ({})",
        Semaphore::MAX_PERMITS
    );
    n
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Acquire);
        f.debug_struct("Semaphore")
            .field("available_permits", &(word / ONE))
            .field("closed", &(word & CLOSED != 0))
            .finish_non_exhaustive()
    }
}

impl SemaphorePermit<'_> {
    /// Takes the permits away from the semaphore, for good.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = strands_sync::Semaphore::new(2);
    /// semaphore.acquire().unwrap().forget();
    /// assert_eq!(semaphore.available_permits(), 1);
    /// ```
    pub fn forget(mut self) {
        self.permits = 0;
    }

    /// Makes one of two.
    ///
    /// # Panics
    ///
    /// If they are of different semaphores.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = strands_sync::Semaphore::new(3);
    /// let mut permit = semaphore.acquire().unwrap();
    /// permit.merge(semaphore.acquire_many(2).unwrap());
    /// assert_eq!(permit.num_permits(), 3);
    /// ```
    #[track_caller]
    pub fn merge(&mut self, mut other: Self) {
        assert!(
            ptr::eq(self.semaphore, other.semaphore),
            "merging permits from different semaphore instances"
        );
        self.permits += std::mem::take(&mut other.permits);
    }

    /// Splits `n` permits off; `None` if there are fewer.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = strands_sync::Semaphore::new(3);
    /// let mut permit = semaphore.acquire_many(3).unwrap();
    /// let two = permit.split(2).unwrap();
    /// assert!(permit.split(2).is_none());
    /// drop(two);
    /// assert_eq!(semaphore.available_permits(), 2);
    /// ```
    pub fn split(&mut self, n: usize) -> Option<Self> {
        self.permits = self.permits.checked_sub(n)?;
        Some(SemaphorePermit { semaphore: self.semaphore, permits: n })
    }

    /// How many permits these are.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = strands_sync::Semaphore::new(3);
    /// assert_eq!(semaphore.acquire_many(3).unwrap().num_permits(), 3);
    /// ```
    #[must_use]
    pub fn num_permits(&self) -> usize {
        self.permits
    }
}

impl OwnedSemaphorePermit {
    /// Takes the permits away from the semaphore, for good.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = std::sync::Arc::new(strands_sync::Semaphore::new(2));
    /// semaphore.acquire_owned().unwrap().forget();
    /// assert_eq!(semaphore.available_permits(), 1);
    /// ```
    pub fn forget(mut self) {
        self.permits = 0;
    }

    /// Makes one of two.
    ///
    /// # Panics
    ///
    /// If they are of different semaphores.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = std::sync::Arc::new(strands_sync::Semaphore::new(3));
    /// let mut permit = semaphore.acquire_owned().unwrap();
    /// permit.merge(semaphore.acquire_many_owned(2).unwrap());
    /// assert_eq!(permit.num_permits(), 3);
    /// ```
    #[track_caller]
    pub fn merge(&mut self, mut other: Self) {
        assert!(
            Arc::ptr_eq(&self.semaphore, &other.semaphore),
            "merging permits from different semaphore instances"
        );
        self.permits += std::mem::take(&mut other.permits);
    }

    /// Splits `n` permits off; `None` if there are fewer.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = std::sync::Arc::new(strands_sync::Semaphore::new(3));
    /// let mut permit = semaphore.acquire_many_owned(3).unwrap();
    /// let two = permit.split(2).unwrap();
    /// assert_eq!((permit.num_permits(), two.num_permits()), (1, 2));
    /// ```
    pub fn split(&mut self, n: usize) -> Option<Self> {
        self.permits = self.permits.checked_sub(n)?;
        Some(OwnedSemaphorePermit { semaphore: self.semaphore.clone(), permits: n })
    }

    /// How many permits these are.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = std::sync::Arc::new(strands_sync::Semaphore::new(3));
    /// assert_eq!(semaphore.acquire_many_owned(3).unwrap().num_permits(), 3);
    /// ```
    #[must_use]
    pub fn num_permits(&self) -> usize {
        self.permits
    }

    /// The semaphore that they are of.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = std::sync::Arc::new(strands_sync::Semaphore::new(3));
    /// let permit = semaphore.acquire_owned().unwrap();
    /// assert_eq!(permit.semaphore().available_permits(), 2);
    /// ```
    #[must_use]
    pub fn semaphore(&self) -> &Arc<Semaphore> {
        &self.semaphore
    }
}

impl Drop for SemaphorePermit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.semaphore.give(self.permits);
    }
}

impl Drop for OwnedSemaphorePermit {
    fn drop(&mut self) {
        self.semaphore.give(self.permits);
    }
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("semaphore closed")
    }
}

impl fmt::Display for TryAcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryAcquireError::Closed => "semaphore closed",
            TryAcquireError::NoPermits => "no permits available",
        })
    }
}

impl fmt::Display for AcquireTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AcquireTimeoutError::Closed => "semaphore closed",
            AcquireTimeoutError::Timeout => "timed out waiting for permits",
        })
    }
}

impl std::error::Error for AcquireError {}
impl std::error::Error for TryAcquireError {}
impl std::error::Error for AcquireTimeoutError {}

/// To acquire permits, as one of several operations. See [`Semaphore::select_acquire`].
///
/// # Examples
///
/// ```
/// use strands_sched::{Order, select};
/// use strands_sync::{AcquireOperation, Semaphore};
///
/// let semaphore = Semaphore::new(3);
/// let acquire: AcquireOperation<'_> = semaphore.select_acquire_many(2);
/// select(&[&acquire], Order::Fair, None);
/// let permit = acquire.take().unwrap().unwrap();
/// assert_eq!(permit.num_permits(), 2);
/// ```
pub struct AcquireOperation<'a> {
    semaphore: &'a Semaphore,
    needed: usize,
    /// The permits are here.
    granted: Cell<bool>,
    /// It was performed, and the outcome not taken.
    done: Cell<bool>,
    waiter: strands_sched::Waiter<Waiter>,
}

impl Semaphore {
    /// To acquire a permit, as one of several operations that a [`select`](strands_sched::select) chooses from.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sched::{Order, try_select};
    ///
    /// let semaphore = strands_sync::Semaphore::new(0);
    /// let acquire = semaphore.select_acquire();
    /// assert_eq!(try_select(&[&acquire], Order::Fair), None);
    /// semaphore.add_permits(1);
    /// assert_eq!(try_select(&[&acquire], Order::Fair), Some(0));
    /// ```
    pub fn select_acquire(&self) -> AcquireOperation<'_> {
        self.select_acquire_many(1)
    }

    /// As [`select_acquire`](Self::select_acquire), for `n` permits.
    ///
    /// # Panics
    ///
    /// If `n` is more than [`MAX_PERMITS`](Self::MAX_PERMITS).
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sched::{Order, try_select};
    ///
    /// let semaphore = strands_sync::Semaphore::new(1);
    /// assert_eq!(try_select(&[&semaphore.select_acquire_many(2)], Order::Fair), None);
    /// ```
    pub fn select_acquire_many(&self, n: u32) -> AcquireOperation<'_> {
        AcquireOperation {
            semaphore: self,
            needed: needed(n),
            granted: Cell::new(false),
            done: Cell::new(false),
            waiter: strands_sched::Waiter::new(),
        }
    }

    /// Sets `WAITERS`, under the line's lock, for a request that must wait. False: it need not.
    fn announce(&self, needed: usize) -> bool {
        let mut word = self.word.load(Acquire);
        loop {
            let must_wait = needed > word / ONE || (needed > 0 && word & WAITERS != 0);
            if word & CLOSED != 0 || !must_wait {
                return false; // Since the select looked.
            }
            match self.word.compare_exchange_weak(word, word | WAITERS, Acquire, Acquire) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }
}

impl<'a> AcquireOperation<'a> {
    /// What [`Semaphore::acquire`] returns, if it was performed. After that it can be performed again.
    ///
    /// # Errors
    ///
    /// If the semaphore is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(strands_sync::Semaphore::new(1).select_acquire().take().is_none());
    /// ```
    pub fn take(&self) -> Option<Result<SemaphorePermit<'a>, AcquireError>> {
        self.waiter.assert_idle();
        let (semaphore, permits) = (self.semaphore, self.needed);
        // Made only if it was granted: one that is dropped gives its permits back.
        let granted =
            || self.granted.replace(false).then(|| SemaphorePermit { semaphore, permits });
        self.done.replace(false).then(|| granted().ok_or(AcquireError(())))
    }
}

impl Drop for AcquireOperation<'_> {
    fn drop(&mut self) {
        if self.granted.get() {
            self.semaphore.give(self.needed);
        }
    }
}

// SAFETY: `withdraw` takes the waiter out of the only line it is put in.
unsafe impl Operation for AcquireOperation<'_> {
    fn attempt(&self) -> bool {
        self.waiter.assert_idle();
        if !self.done.get() {
            match self.semaphore.take(self.needed, 0) {
                Ok(_) => self.granted.set(true),
                Err(TryAcquireError::Closed) => {}
                Err(TryAcquireError::NoPermits) => return false,
            }
            self.done.set(true);
        }
        true
    }

    unsafe fn enrol(&self, arm: Arm<'_>) -> bool {
        // Twice in one select: it is in line already, and must not announce one that is not.
        if self.waiter.is_enrolled() {
            return true;
        }
        let mut line = self.semaphore.line.lock();
        let waiter = Waiter { needed: self.needed, granted: &self.granted };
        // SAFETY: `select` borrows us, and so the cell, until we are withdrawn.
        let enrolled = self.semaphore.announce(self.needed)
            && unsafe { line.enrol(&self.waiter, arm, waiter) };
        drop(line);
        if enrolled && arm.may_share_a_line() {
            self.semaphore.hand_out(0); // What is too little for our other request may do for this one.
        }
        enrolled
    }

    unsafe fn withdraw(&self) {
        if self.waiter.is_enrolled() {
            self.semaphore.line.withdraw(&self.waiter);
            if !self.granted.get() {
                self.semaphore.hand_out(0); // We may have been the first, and what we lacked fits the next.
            }
        }
    }

    unsafe fn complete(&self) -> bool {
        self.done.set(true);
        true
    }

    fn about(&self) -> About {
        About { operation: "Semaphore::acquire", object: self.waiter.line(), descriptor: None }
    }
}
