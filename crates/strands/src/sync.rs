//! `std::sync`, for fibers and plain threads alike.
//!
//! [`Mutex`], [`RwLock`], [`Condvar`], [`Barrier`], [`Once`], [`OnceLock`], [`LazyLock`] and [`mpsc`] have
//! std's names, signatures and corner cases, poisoning included. Who waits for one is suspended if it is a
//! fiber, and blocked if it is a plain thread; both may use the same one. What never waits (`Arc`,
//! atomics) and the plain types of the signatures are std's own.
//!
//! # Where they differ from std's
//!
//! | | std | here |
//! |---|---|---|
//! | poisoned by | a panic on the thread | a panic of the fiber, or of the thread that is none; not by a cancel |
//! | a wait that is [cancelled](crate::cancel) | | unwinds, unless it has got what it waited for |
//! | `Once`, called from within its own closure | waits for ever | panics |
//! | a cancel inside the closure of a `Once` or `OnceLock` | | undoes the attempt: the next runs its own |
//! | a cancel inside the closure of a `LazyLock` | | is held back until the value is there |
//! | [`RwLock`] | writers first | first come, first served; see below |
//!
//! # Who is served when
//!
//! - [`Mutex`]: first come, first served, but who comes by while the first is on its way may be
//!   faster, once: then the lock is handed over.
//! - [`RwLock`]: the same, readers who stand next to each other together. Neither readers nor writers starve the others.
//! - [`Condvar`]: `notify_one` wakes who has waited longest.
//! - [`Barrier`], [`Once`]: all are released together.
//! - [`mpsc`]: messages, and senders that wait for room, in the order in which they came.
//!
//! std's own locks and channels work too, as long as no fiber is suspended while it holds or waits
//! for one: they block the worker. See [Soundness](crate::soundness).
//!
//! ```
//! use strands::sync::{Arc, Mutex};
//!
//! let count = Arc::new(Mutex::new(0));
//! let handles: Vec<_> = (0..10)
//!     .map(|_| {
//!         let count = count.clone();
//!         strands::spawn(move || *count.lock().unwrap() += 1)
//!     })
//!     .collect();
//! handles.into_iter().for_each(|handle| handle.join().unwrap());
//! assert_eq!(*count.lock().unwrap(), 10);
//! ```

pub use std::sync::{Arc, LockResult, PoisonError, TryLockError, TryLockResult, Weak, atomic};

#[doc(inline)]
#[allow(deprecated)]
pub use strands_sync::ONCE_INIT;
#[doc(inline)]
pub use strands_sync::{
    AcquireError, AcquireOperation, AcquireTimeoutError, Listener, Message, NotifiedOperation,
    Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit, TryAcquireError, WaitGroup,
};
#[doc(inline)]
pub use strands_sync::{
    Barrier, BarrierWaitResult, Condvar, LazyLock, Mutex, MutexGuard, Once, OnceLock, OnceState,
    RwLock, RwLockReadGuard, RwLockWriteGuard, WaitTimeoutResult, mpsc,
};
#[doc(inline)]
pub use strands_sync::{broadcast, channel, oneshot, watch};
