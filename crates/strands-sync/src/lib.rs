//! Mutex, Condvar and channels of strands, over one wait queue.
//!
//! They carry std's names, signatures and corner cases, and work for any mix of fibers and plain OS threads:
//! a fiber that waits suspends itself, a plain thread blocks.
//!
//! Two things differ from std, on purpose. Poisoning goes by the *fiber*: a lock is poisoned by the panic
//! of the fiber that holds it, never by another fiber that unwinds on the same thread, and never by a
//! cancel. And operations that may wait are where a cancelled fiber unwinds, provided that the
//! operation has had no effect: a message already received, a lock already granted are returned.
//!
//! Read in this order: `poison`, `mutex`, `condvar`, [`mpsc`].

mod atomic;
mod condvar;
pub mod mpsc;
mod mutex;
mod poison;

#[cfg(all(test, loom))]
mod models;

pub use condvar::{Condvar, WaitTimeoutResult};
pub use mutex::{Mutex, MutexGuard};
pub use poison::{LockResult, PoisonError, TryLockError, TryLockResult};
