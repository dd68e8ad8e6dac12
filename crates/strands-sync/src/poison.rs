//! Poisoning: a lock remembers that a holder panicked, as what it guards may be half-changed.
//!
//! As std's, but by the fiber. A guard notes whether its maker was unwinding already; one that is
//! dropped by an unwinding which began under it poisons. An unwinding that is a cancel does not: it is
//! delivered at waits only, which the holder chose, and a shutdown that poisoned every lock on its way would
//! make panics of what is no fault.

use crate::atomic::{AtomicBool, Relaxed};

pub use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

/// Whether a holder panicked. Ordered by the lock it belongs to.
pub(crate) struct Flag {
    poisoned: AtomicBool,
}

impl Flag {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Flag {
        Flag { poisoned: AtomicBool::new(false) }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Flag {
        Flag { poisoned: AtomicBool::new(false) }
    }

    #[inline]
    pub(crate) fn get(&self) -> bool {
        self.poisoned.load(Relaxed)
    }

    #[inline]
    pub(crate) fn clear(&self) {
        self.poisoned.store(false, Relaxed);
    }

    /// Called by a guard that is dropped, with what [`panicking`] said when it was made.
    #[inline]
    pub(crate) fn guard_dropped(&self, was_panicking: bool) {
        // In this order, as what is nearly always so is the first.
        if panicking() && !was_panicking && !strands_sched::cancelling() {
            self.poisoned.store(true, Relaxed);
        }
    }
}

/// Whether the running party unwinds.
#[inline]
pub(crate) fn panicking() -> bool {
    // Where nobody on this thread unwinds, which is nearly always, one load says so.
    std::thread::panicking() && strands_sched::panicking()
}

/// `value`, as an error if `poisoned`.
#[inline]
pub(crate) fn wrap<T>(poisoned: bool, value: T) -> LockResult<T> {
    if poisoned { Err(PoisonError::new(value)) } else { Ok(value) }
}
