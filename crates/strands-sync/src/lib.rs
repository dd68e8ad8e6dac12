//! Locks, barriers, what is done once, and channels of strands, over one wait queue.
//!
//! They carry std's names, signatures and corner cases, and work for any mix of fibers and plain OS threads:
//! a fiber that waits suspends itself, a plain thread blocks.
//!
//! Two things differ from std, on purpose. Poisoning goes by the *fiber*: a lock is poisoned by the panic
//! of the fiber that holds it, never by another fiber that unwinds on the same thread, and never by a
//! cancel. And operations that may wait are where a cancelled fiber unwinds, provided that the
//! operation has had no effect: a message already received, a lock already granted are returned.
//!
//! Read in this order: `poison`, `mutex`, `rwlock`, `condvar`, `barrier`, `once`, `once_lock`, `lazy_lock`, [`mpsc`];
//! then what std has no word for.

mod atomic;
mod barrier;
pub mod broadcast;
pub mod channel;
mod condvar;
mod deadline;
mod lazy_lock;
pub mod mpsc;
mod mutex;
mod notify;
mod once;
mod once_lock;
pub mod oneshot;
mod poison;
mod rwlock;
mod select;
mod semaphore;
mod wait_group;
pub mod watch;

#[cfg(all(test, loom))]
mod models;

pub use barrier::{Barrier, BarrierWaitResult};
pub use condvar::{Condvar, WaitTimeoutResult};
pub use lazy_lock::LazyLock;
pub use mutex::{Mutex, MutexGuard};
pub use notify::{Listener, NotifiedOperation, Notify};
#[cfg(not(loom))]
#[allow(deprecated)]
pub use once::ONCE_INIT;
pub use once::{Once, OnceState};
pub use once_lock::OnceLock;
pub use poison::{LockResult, PoisonError, TryLockError, TryLockResult};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use select::Message;
pub use semaphore::{
    AcquireError, AcquireOperation, AcquireTimeoutError, OwnedSemaphorePermit, Semaphore,
    SemaphorePermit, TryAcquireError,
};
pub use wait_group::WaitGroup;
