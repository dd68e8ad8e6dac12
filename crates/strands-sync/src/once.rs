//! Something that is done once.
//!
//! One word and a line of waiters. The word says how far it is, or *who* is at it, so that one who comes back to what
//! it is doing itself is told, where std's waits for itself for ever. Who finds it done has looked at one
//! word. Who is at it unlocks nothing and wakes nobody unless somebody has said, by a bit in the word, that it waits.
//!
//! # Cancels
//!
//! A panic in the closure poisons, as std's. A cancel does not, as with locks: it is delivered at waits only, which
//! the closure chose. It undoes the attempt: the next one runs its own closure. So a request that
//! is given up while it is the first to open the database spoils nothing for the others. What has a
//! closure of its own, which can run once only ([`LazyLock`](crate::LazyLock)), holds the cancel back instead.
//!
//! # Fairness
//!
//! All who wait are woken when the attempt has ended. If it was not done, one of them is next: the first to run.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr;

use strands_sched::{
    Op, Outcome, Place, WaitQueue, cancel_unwind, cancelling, charge, with_current_task,
};

use crate::atomic::{Acquire, AtomicUsize, Relaxed, Release};

/// Runs one closure of many, as `std::sync::Once`, for fibers and plain threads alike.
///
/// # Examples
///
/// ```
/// use strands_sync::Once;
///
/// static START: Once = Once::new();
/// let mut calls = 0;
/// START.call_once(|| calls += 1);
/// START.call_once(|| calls += 1);
/// assert_eq!(calls, 1);
/// ```
pub struct Once {
    /// `INCOMPLETE`, `POISONED` or the address of who runs, each with or without `QUEUED`; or `COMPLETE`.
    word: AtomicUsize,
    line: WaitQueue<()>,
}

const COMPLETE: usize = 0;
/// Somebody waits.
const QUEUED: usize = 1;
const INCOMPLETE: usize = 2;
const POISONED: usize = 4;

impl UnwindSafe for Once {}
impl RefUnwindSafe for Once {}

/// What a closure given to [`Once::call_once_force`] may ask.
///
/// # Examples
///
/// ```
/// use strands_sync::{Once, OnceState};
///
/// Once::new().call_once_force(|state: &OnceState| assert!(!state.is_poisoned()));
/// ```
pub struct OnceState {
    poisoned: bool,
    /// As std's, it is for the closure alone.
    not_sync: PhantomData<Cell<()>>,
}

/// A [`Once`] that nobody has called.
///
/// # Examples
///
/// ```
/// # #![allow(deprecated)]
/// static START: strands_sync::Once = strands_sync::ONCE_INIT;
/// assert!(!START.is_completed());
/// ```
#[cfg(not(loom))]
#[deprecated(since = "0.1.0", note = "as in std: the `Once::new()` function is now preferred")]
#[expect(clippy::declare_interior_mutable_const, reason = "as in std")]
pub const ONCE_INIT: Once = Once::new();

impl Once {
    /// Nothing done yet.
    ///
    /// # Examples
    ///
    /// ```
    /// static START: strands_sync::Once = strands_sync::Once::new();
    /// assert!(!START.is_completed());
    /// ```
    #[cfg(not(loom))]
    #[inline]
    #[must_use]
    #[expect(clippy::new_without_default, reason = "as std's")]
    pub const fn new() -> Once {
        Once { word: AtomicUsize::new(INCOMPLETE), line: WaitQueue::new(()) }
    }

    /// Nothing done yet.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Once {
        Once { word: AtomicUsize::new(INCOMPLETE), line: WaitQueue::new(()) }
    }

    /// Runs `f`, unless one was run; waits while one is running. What it did is done and seen on return.
    ///
    /// A fiber that is cancelled while it waits unwinds. If it is cancelled inside `f`, the next runs its own.
    ///
    /// # Panics
    ///
    /// If one has panicked, or if called from within `f`.
    ///
    /// # Examples
    ///
    /// ```
    /// static START: strands_sync::Once = strands_sync::Once::new();
    /// START.call_once(|| println!("printed once"));
    /// START.call_once(|| unreachable!());
    /// ```
    #[inline]
    #[track_caller]
    pub fn call_once<F>(&self, f: F)
    where
        F: FnOnce(),
    {
        if !self.is_done() {
            let mut f = Some(f);
            self.call(false, &mut |_| f.take().expect("it is called once")());
        }
    }

    /// As [`call_once`](Self::call_once), also if one has panicked.
    ///
    /// # Panics
    ///
    /// If called from within `f`.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::Once;
    ///
    /// let once = Once::new();
    /// std::thread::scope(|scope| {
    ///     assert!(scope.spawn(|| once.call_once(|| panic!("poisons"))).join().is_err());
    /// });
    /// once.call_once_force(|state| assert!(state.is_poisoned()));
    /// once.call_once(|| unreachable!("it is done"));
    /// ```
    #[inline]
    #[track_caller]
    pub fn call_once_force<F>(&self, f: F)
    where
        F: FnOnce(&OnceState),
    {
        if !self.is_done() {
            let mut f = Some(f);
            self.call(true, &mut |state| f.take().expect("it is called once")(state));
        }
    }

    /// Whether one was run to its end.
    ///
    /// # Examples
    ///
    /// ```
    /// let once = strands_sync::Once::new();
    /// once.call_once(|| assert!(!once.is_completed()));
    /// assert!(once.is_completed());
    /// ```
    #[inline]
    pub fn is_completed(&self) -> bool {
        if !self.is_done() {
            charge(); // For a loop that asks until it is so.
        }
        self.is_done()
    }

    /// As `is_completed`, for who does not come back to ask again.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.word.load(Acquire) == COMPLETE
    }

    /// Waits until one was run to its end.
    ///
    /// A cancelled fiber unwinds from here.
    ///
    /// # Panics
    ///
    /// If one has panicked, or if called from within the closure.
    ///
    /// # Examples
    ///
    /// ```
    /// let once = strands_sync::Once::new();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| once.call_once(|| println!("first this")));
    ///     once.wait();
    ///     println!("then that");
    /// });
    /// ```
    #[track_caller]
    pub fn wait(&self) {
        if !self.is_done() {
            self.wait_until_completed(false);
        }
    }

    /// As [`wait`](Self::wait); panics of closures are ignored.
    ///
    /// # Panics
    ///
    /// If called from within the closure.
    ///
    /// # Examples
    ///
    /// ```
    /// let once = strands_sync::Once::new();
    /// std::thread::scope(|scope| {
    ///     let waiter = scope.spawn(|| once.wait_force());
    ///     assert!(scope.spawn(|| once.call_once(|| panic!("on purpose"))).join().is_err());
    ///     once.call_once_force(|_| ());
    ///     waiter.join().unwrap();
    /// });
    /// ```
    #[track_caller]
    pub fn wait_force(&self) {
        if !self.is_done() {
            self.wait_until_completed(true);
        }
    }

    /// As after a call.
    pub(crate) fn new_complete() -> Once {
        Once { word: AtomicUsize::new(COMPLETE), line: WaitQueue::new(()) }
    }

    #[cold]
    #[track_caller]
    fn call(&self, ignore_poison: bool, f: &mut dyn FnMut(&OnceState)) {
        static CALL: Op = Op("Once::call_once");
        let me = party();
        let mut word = self.word.load(Acquire);
        loop {
            match word & !QUEUED {
                COMPLETE => return,
                POISONED if !ignore_poison => poisoned(),
                before @ (INCOMPLETE | POISONED) => {
                    let mine = me | (word & QUEUED);
                    match self.word.compare_exchange(word, mine, Acquire, Acquire) {
                        Ok(_) => return self.run(before, f),
                        Err(now) => word = now,
                    }
                }
                runs if runs == me && !cfg!(loom) => recursive(),
                _ => word = self.wait_for_change(word, &CALL),
            }
        }
    }

    /// Runs `f`, for who has put itself into the word in place of `before`.
    fn run(&self, before: usize, f: &mut dyn FnMut(&OnceState)) {
        let mut attempt =
            Attempt { once: self, before, was_cancelling: cancelling(), completed: false };
        f(&OnceState { poisoned: before == POISONED, not_sync: PhantomData });
        attempt.completed = true;
    }

    #[cold]
    #[track_caller]
    fn wait_until_completed(&self, ignore_poison: bool) {
        static WAIT: Op = Op("Once::wait");
        let me = party();
        let mut word = self.word.load(Acquire);
        loop {
            match word & !QUEUED {
                COMPLETE => return,
                POISONED if !ignore_poison => poisoned(),
                runs if runs == me && !cfg!(loom) => recursive(),
                _ => word = self.wait_for_change(word, &WAIT),
            }
        }
    }

    /// Waits, unless the word is not `seen` any more; what it is then.
    fn wait_for_change(&self, seen: usize, op: &'static Op) -> usize {
        let line = self.line.lock();
        // In line before the line is unlocked: who takes our bit out of the word finds us.
        if let Err(now) = self.word.compare_exchange(seen, seen | QUEUED, Relaxed, Acquire) {
            return now;
        }
        match line.wait(Place::Last, op, None, (), || {}) {
            Outcome::Cancelled => cancel_unwind(), // All are woken, so nobody misses us.
            _ => self.word.load(Acquire),
        }
    }
}

/// While a closure runs. However it ends, those who wait hear of it.
struct Attempt<'a> {
    once: &'a Once,
    /// What the word was.
    before: usize,
    was_cancelling: bool,
    completed: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let after = match () {
            () if self.completed => COMPLETE,
            // No cancel is delivered amid another, so this would be a panic.
            () if cancelling() && !self.was_cancelling => self.before,
            () => POISONED,
        };
        if self.once.word.swap(after, Release) & QUEUED != 0 {
            self.once.line.lock().release_all();
        }
    }
}

/// The running party, as it is in the word: no other has the same while it runs a closure.
///
/// A party that has ended may have had the same address, but it has left the word by then, and who gets
/// its memory sees that. (Loom does not know what an allocator orders, so there nobody is recognized.)
fn party() -> usize {
    let address = with_current_task(|me| ptr::from_ref(me).addr());
    debug_assert!(address > POISONED && address & QUEUED == 0);
    address
}

#[cold]
#[track_caller]
fn poisoned() -> ! {
    panic!("Once instance has previously been poisoned")
}

#[cold]
#[track_caller]
fn recursive() -> ! {
    panic!("one-time initialization may not be performed recursively")
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

impl OnceState {
    /// Whether a closure before this one has panicked.
    ///
    /// # Examples
    ///
    /// ```
    /// let once = strands_sync::Once::new();
    /// once.call_once_force(|state| assert!(!state.is_poisoned(), "it is the first"));
    /// ```
    #[inline]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }
}

impl fmt::Debug for OnceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceState").field("poisoned", &self.is_poisoned()).finish()
    }
}
