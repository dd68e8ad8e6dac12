//! Cancellation: a fiber that shall end unwinds from where it waits.
//!
//! The [shutdown](crate::Runtime::shutdown_timeout) of a runtime cancels its fibers. A cancelled
//! fiber is woken and unwinds from its suspension point with a payload of type [`Cancelled`]:
//! destructors run, the panic hook is not called, no lock of [`sync`](crate::sync) is poisoned (a
//! `std::sync` lock is), and its join handle gets the payload.
//!
//! It is delivered only where the operation has had no effect: a message that has been received,
//! bytes that have been read and a lock that has been taken are returned, and the cancel waits for
//! the next suspension. None is delivered while the fiber unwinds already, and none to plain
//! threads.

/// The payload that a cancelled fiber unwinds with.
///
/// ```
/// use std::time::Duration;
/// use strands::cancel::Cancelled;
///
/// let runtime = strands::Runtime::builder().workers(1).build()?;
/// let sleeper = runtime.spawn(|| strands::sleep(Duration::MAX));
/// drop(runtime);
/// assert!(sleeper.join().unwrap_err().is::<Cancelled>());
/// # Ok::<(), std::io::Error>(())
/// ```
pub use strands_sched::Cancelled;

/// Runs `f` with cancellation held back: it is delivered at the first suspension after.
///
/// For steps that must not be cut in two, and for waiting below foreign frames that cannot be
/// unwound: see [Soundness](crate::soundness). On a plain thread, which cannot be cancelled, it
/// just runs `f`.
///
/// ```
/// use std::sync::mpsc;
/// use std::time::Duration;
///
/// let runtime = strands::Runtime::builder().workers(1).build()?;
/// let (started, has_started) = mpsc::channel();
/// let careful = runtime.spawn(move || {
///     strands::cancel::uncancellable(|| {
///         started.send(()).unwrap();
///         strands::sleep(Duration::from_millis(1));
///     });
///     "the whole step was done"
/// });
/// has_started.recv().unwrap();
/// drop(runtime);
/// assert_eq!(careful.join().unwrap(), "the whole step was done");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn uncancellable<T>(f: impl FnOnce() -> T) -> T {
    strands_sched::uncancellable(f)
}
