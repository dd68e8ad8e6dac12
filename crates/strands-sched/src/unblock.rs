//! Blocking work for the pool, by a fiber that waits for it.

use std::cell::UnsafeCell;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::thread;

use crate::about::{Detail, while_waiting_for};
use crate::blocking::Job;
use crate::cancel;
use crate::current;
use crate::fork;
use crate::latch::Latch;
use crate::no_unwind::AbortOnUnwind;
use crate::park::Op;

/// Runs `f` on a thread that may be blocked, and waits for it; `f` may borrow.
///
/// From a fiber it runs on the runtime's pool of threads while the fiber is suspended; a cancel is
/// delivered before it starts or waits until it has ended. From a plain thread, which may block, it
/// just runs. If no pool thread can be started it runs here, and holds up the worker.
///
/// # Panics
///
/// Goes on with the panic of `f`.
///
/// ```
/// use strands_sched::{Builder, SpawnOptions, unblock};
///
/// let runtime = Builder::new().workers(1).build()?;
/// let path = std::env::current_exe()?;
/// let length = runtime.run(SpawnOptions::default(), || {
///     unblock(|| std::fs::metadata(&path)).map(|metadata| metadata.len())
/// })??;
/// assert!(length > 0);
/// # std::io::Result::Ok(())
/// ```
pub fn unblock<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    static UNBLOCK: Op = Op("unblock");
    let worker = match current::worker() {
        Some(worker) if current::with(|me| !me.is_thread()) && !fork::in_forked_child() => worker,
        _ => return f(),
    };
    current::with(|me| {
        if cancel::deliverable(me) {
            cancel::unwind();
        }
    });
    struct Slot<T> {
        result: UnsafeCell<Option<thread::Result<T>>>,
        done: Latch,
    }
    // SAFETY: `result` is the job's until it sets the latch, and ours after; so it moves once, from
    // one thread to the other, for which `T: Send` is enough.
    unsafe impl<T: Send> Sync for Slot<T> {}
    let slot = Slot { result: UnsafeCell::new(None), done: Latch::new() };
    let its = &slot;
    let job: Box<dyn FnOnce() + Send + '_> = Box::new(move || {
        let result = panic::catch_unwind(AssertUnwindSafe(f));
        if fork::in_forked_child() {
            fork::end_child(result.is_err());
        }
        // SAFETY: nobody looks before the latch is set, which is next.
        unsafe { *its.result.get() = Some(result) };
        its.done.set();
    });
    let lent = AbortOnUnwind("a panic would leave a frame that a pool thread uses");
    // SAFETY: only the lifetime changes. The job is run (here or by the pool, which drops none)
    // and the latch, set at its very end, is awaited before this frame is left: the wait below
    // cannot be cancelled, and while `lent` lives no panic leaves the frame.
    let job = unsafe { mem::transmute::<Box<dyn FnOnce() + Send + '_>, Job>(job) };
    // SAFETY: this is the worker's thread.
    if let Err(job) = unsafe { worker.shared() }.pool.submit(job) {
        job();
    }
    let object = std::ptr::from_ref(&slot).addr();
    let wait = || slot.done.wait(&UNBLOCK, object);
    cancel::uncancellable(|| while_waiting_for(Detail::Thread, wait));
    lent.disarm();
    match slot.result.into_inner().expect("the latch is set after the result") {
        Ok(value) => value,
        Err(payload) => panic::resume_unwind(payload),
    }
}
