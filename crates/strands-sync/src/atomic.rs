//! Atomics: std's, or loom's under `--cfg loom`, so that the models check the code that ships.

#[cfg(loom)]
pub(crate) use loom::sync::Arc;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
#[cfg(loom)]
pub(crate) use loom::{cell::UnsafeCell, thread::yield_now};
#[cfg(not(loom))]
pub(crate) use std::sync::Arc;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
#[cfg(not(loom))]
pub(crate) use std::thread::yield_now;

pub(crate) use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// std's cell with the face of loom's, which sees who looks into it when.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Looks a little longer whether `lock` succeeds, on a plain thread, as sleeping takes it microseconds. A fiber does
/// not look: its worker has better to do, and the holder may be a fiber of the same worker.
pub(crate) fn spin(lock: impl Fn() -> bool) -> bool {
    const LOOKS: u32 = 100;
    cfg!(not(loom))
        && strands_sched::worker_index().is_none()
        && (0..LOOKS).any(|_| {
            std::hint::spin_loop();
            lock()
        })
}

/// Waits for another thread that is between two instructions: spins, then lets others run.
pub(crate) fn backoff(round: &mut u32) {
    *round += 1;
    if *round < 64 && cfg!(not(loom)) { std::hint::spin_loop() } else { yield_now() }
}
