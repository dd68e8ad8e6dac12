//! Atomics, locks and thread-locals: std's, or loom's under `--cfg loom`.
//!
//! Every protocol of this crate that runs between threads is written against this module, so that
//! the models in `models.rs` check the code that ships.

#[cfg(not(loom))]
mod imp {
    use std::sync::TryLockError;
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, fence,
    };
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::thread::{Thread, current as this_thread, park_timeout};
    pub(crate) use std::thread_local;

    /// Waits for another thread that is between two instructions: spins, then lets others run.
    pub(crate) fn backoff(round: u32) {
        if round < 64 { std::hint::spin_loop() } else { std::thread::yield_now() }
    }

    /// Locks `mutex`. Its critical sections do not panic, so poisoning says nothing.
    ///
    /// # Panics
    ///
    /// In a forked child, if the lock was held by a thread that is not there.
    #[inline]
    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        try_lock(mutex).unwrap_or_else(|| contended(mutex))
    }

    #[inline]
    fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        match mutex.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    #[cold]
    fn contended<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        lock_if_there(mutex).unwrap_or_else(|| crate::fork::refuse())
    }

    /// As [`lock`]. None: this is a forked child, and who has locked it is not there.
    pub(crate) fn lock_if_there<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        /// Far more than a critical section takes: a child may have threads of its own.
        const ROUNDS: u32 = 10_000;
        if !crate::fork::in_forked_child() {
            return Some(mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        }
        (0..ROUNDS).find_map(|round| {
            backoff(round);
            try_lock(mutex)
        })
    }
}

#[cfg(loom)]
mod imp {
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, fence,
    };
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use loom::thread::{Thread, current as this_thread};
    pub(crate) use loom::thread_local;

    /// Loom has no clock.
    pub(crate) fn park_timeout(_limit: std::time::Duration) {
        loom::thread::park();
    }

    pub(crate) fn backoff(_round: u32) {
        loom::thread::yield_now();
    }

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn lock_if_there<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        Some(lock(mutex))
    }
}

pub(crate) use imp::*;
pub(crate) use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

/// What others did before they lowered `count` is done, for the one who has lowered it to zero.
#[inline(always)]
pub(crate) fn acquire_last(count: &AtomicU32) {
    if cfg!(strands_sanitizer = "thread") {
        count.load(Acquire); // ThreadSanitizer does not follow fences.
    } else {
        fence(Acquire);
    }
}
