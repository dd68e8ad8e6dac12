//! `std::sync`, for fibers and plain threads alike.
//!
//! [`Mutex`], [`Condvar`] and [`mpsc`] have std's names, signatures and corner cases, poisoning
//! included. Who waits for one is suspended if it is a fiber, and blocked if it is a plain thread;
//! both may use the same one. What never waits (`Arc`, atomics) and the plain types of the
//! signatures are std's own.
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
pub use strands_sync::{Condvar, Mutex, MutexGuard, WaitTimeoutResult, mpsc};
