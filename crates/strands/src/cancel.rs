//! Cancellation: ending what waits.
//!
//! ```
//! use strands::cancel::{CancelToken, was_cancelled};
//! use strands::sync::mpsc;
//! use strands::time::{Duration, Elapsed, timeout};
//!
//! let (sender, receiver) = mpsc::channel::<u32>();
//!
//! // A time limit around anything:
//! let late = timeout(Duration::from_millis(1), || receiver.recv());
//! assert_eq!(late, Err(Elapsed));
//!
//! // A fiber:
//! let fiber = strands::spawn(move || receiver.recv());
//! assert!(was_cancelled(&fiber.cancel_and_join()));
//! assert!(sender.send(1).is_err(), "the receiver was dropped when it unwound");
//!
//! // Whoever works on something, wherever:
//! let token = CancelToken::new();
//! let its = token.clone();
//! let fiber = strands::spawn(move || its.run(|| strands::sleep(Duration::MAX)));
//! token.cancel_with("the client has gone");
//! assert_eq!(fiber.join().unwrap().unwrap_err().to_string(), "the client has gone");
//! ```
//!
//! # What happens
//!
//! To cancel is to *ask*. Who is asked is woken if it waits, and **unwinds** from there: no value is
//! returned, destructors run, no panic message is printed. How far depends on who asks:
//!
//! | asks | who unwinds | to where |
//! |---|---|---|
//! | [`JoinHandle::cancel`](crate::thread::JoinHandle::cancel), [`Scope::cancel`](crate::thread::Scope::cancel) | a fiber | its end: [`join`](crate::thread::JoinHandle::join) gives [`Cancelled`] |
//! | a [shutdown](crate::Runtime::shutdown_timeout) | all fibers of the runtime | the same |
//! | a [`timeout`](crate::time::timeout), a [`deadline`](crate::time::deadline()) | who runs below it | the call, which gives [`Elapsed`](crate::time::Elapsed) |
//! | a [`CancelToken`] | who runs below [`run`](CancelToken::run) | that call, which gives the reason |
//! | a failure in a [`try_scope`](crate::try_scope()) | its fibers, and its closure | their ends, and that call, which gives the error |
//!
//! The last three work on plain threads too. Calls nest, and each gets what is meant for it: if several ask, the outermost
//! is obeyed, and of two time limits the one that passed first.
//!
//! A [`scope`](crate::scope()) passes on what its owner is asked: it cancels its fibers, waits for them,
//! and unwinds; so do all of [`group`](crate::group). Other fibers that were spawned are not concerned.
//!
//! # Where
//!
//! At whatever waits: a park, sleep, join, lock, channel, socket, and also at
//! [`yield_now`](crate::yield_now) and [`check_cancelled`]. A loop over operations that need not wait is asked now
//! and then, when it lets others run. What computes is never interrupted; [`is_cancelled`]
//! tells it.
//!
//! It stays asked. Who swallows the unwinding with `catch_unwind` unwinds again from the next wait.
//!
//! # Nothing is half done
//!
//! **One operation** has either happened, then it returns, and the next wait unwinds; or it has had no
//! effect, then it unwinds:
//!
//! - `lock`, `read` and `write` of locks: it is held by you or you have not got it. `Condvar::wait`: it
//!   gives up its place, hands a notification on, and leaves the mutex unlocked.
//! - `send` and `recv` of all channels, `Semaphore::acquire`, `Notify`: no message or permit is lost or
//!   doubled. A message that could not be sent is dropped.
//! - `Barrier::wait`: who unwinds is not counted. `Once`, `OnceLock`: the closure is undone and the next
//!   caller runs its own; `LazyLock`: the closure is not cut short.
//! - `park`: the token stays. `join`: the fiber is detached, as by dropping the handle.
//! - `accept`, `read`, `peek`, `write` (one system call each), and `connect`, whose socket is closed.
//! - [`unblock`](crate::unblock): it unwinds before the closure is begun; then it waits for its end.
//!   [`Runtime::run`](crate::Runtime::run) waits for its end too.
//!
//! **What is made of several operations** can be left between two of them, and what it had done is done:
//! `read_exact`, `read_to_end`, `read_to_string`, `read_line`, `write_all`, `write!`, `BufWriter::flush`, `io::copy`, an
//! iterator over a channel, two `send`s in a row, your own functions. Bytes that `read_exact` has read are in its
//! buffer or gone. So do not read on from a connection after a `timeout` around `read_exact`, unless the
//! protocol can find its place again: close it, or keep what was read in a `BufReader` outside.
//!
//! # Holding it back
//!
//! - [`uncancellable`] shields steps that belong together. A `timeout` *inside* of it works.
//! - [`cancel_as_error`] is for code that must not be unwound, and that handles errors.
//! - In destructors that run because the fiber unwinds, nothing is cancelled: they may lock, send and
//!   join. One that waits for ever holds up who waits for the fiber, so it should use operations with time
//!   limits of their own, such as `recv_timeout`. A [`timeout`](crate::time::timeout) does not end waits there.
//! - Below a callback from C, which no unwinding may pass, a fiber is not cancelled either: see
//!   [Soundness](crate::soundness).
//!
//! # What is left behind
//!
//! What `f` in `timeout(d, f)` borrows and changes can be seen after it was unwound, as with
//! `std::panic::catch_unwind`. No lock of [`sync`](crate::sync) is poisoned by a cancel, so what a guard was
//! about to do may be half done; a `std::sync` lock *is* poisoned, as std takes every unwinding for a panic.
//!
//! # If you come from tokio
//!
//! - `select!` and `timeout` of tokio *drop* a future: what it owns is destroyed without running another line of
//!   it, and whether that loses data depends on each future ("cancel safety"). Here the frames unwind.
//!   For single operations nothing is lost, ever; the list of composite ones above is that
//!   of the futures that are not cancel safe.
//! - Destructors may wait, so there is an "async drop": send the goodbye, flush, join in `Drop`.
//! - `JoinHandle::abort` is [`cancel`](crate::thread::JoinHandle::cancel), `JoinError::is_cancelled` is
//!   [`was_cancelled`], and a `JoinSet` is a [`FiberGroup`](crate::FiberGroup).
//! - `tokio_util`'s `CancellationToken` is [`CancelToken`]: `child_token` is [`child`](CancelToken::child),
//!   `cancelled().await` is [`wait`](CancelToken::wait), `run_until_cancelled` is
//!   [`run`](CancelToken::run). A token has a reason and callbacks besides.
//! - A `timeout` costs no task and no allocation of a stack, and nothing has to be `Send` or `'static`.
//!
//! # Where panics abort
//!
//! With `panic = "abort"` nothing can unwind. A fiber, time limit or token that is cancelled makes I/O
//! below it fail, as [`cancel_as_error`] does; nothing else changes: locks, channels, sleeps and joins go on to
//! wait. A [`select!`](crate::select!) with a socket fails by that arm, any other waits on. A shutdown leaves fibers that wait as they are.

use std::any::Any;
use std::io;

use crate::thread;

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
#[doc(inline)]
pub use strands_sched::{CancelReason, CancelToken, OnCancel, TokenOperation};

/// Whether a fiber ended because it was cancelled: to be asked of what its join handle gave.
///
/// The payload of a panic that one has caught is asked with `payload.is::<Cancelled>()`.
///
/// ```
/// use strands::cancel::was_cancelled;
///
/// let result = strands::spawn(strands::thread::park).cancel_and_join();
/// match result {
///     Ok(()) => unreachable!("nobody unparks it"),
///     Err(_) if was_cancelled(&result) => println!("cancelled"),
///     Err(payload) => std::panic::resume_unwind(payload),
/// }
/// ```
pub fn was_cancelled<T>(result: &thread::Result<T>) -> bool {
    result.as_ref().is_err_and(|payload: &Box<dyn Any + Send>| payload.is::<Cancelled>())
}

/// Runs `f` with cancellation held back: it is delivered at the first suspension after.
///
/// For steps that must not be cut in two, and for waiting below foreign frames that cannot be
/// unwound: see [Soundness](crate::soundness). It holds back what asks from outside of `f`, a cancel of
/// the fiber, a time limit or a token; a [`timeout`](crate::time::timeout) inside of it works.
///
/// ```
/// use std::time::Duration;
/// use strands::time::{Elapsed, timeout};
/// use strands::cancel::uncancellable;
///
/// let mut steps = 0;
/// let result = timeout(Duration::ZERO, || {
///     uncancellable(|| {
///         strands::sleep(Duration::from_millis(1));
///         steps += 1;
///         assert_eq!(timeout(Duration::ZERO, strands::thread::park), Err(Elapsed));
///         steps += 1;
///     });
///     strands::yield_now();
///     steps += 1;
/// });
/// assert_eq!((result, steps), (Err(Elapsed), 2));
/// ```
pub fn uncancellable<T>(f: impl FnOnce() -> T) -> T {
    strands_sched::uncancellable(f)
}

/// Runs `f` with cancellation turned into errors: nothing is unwound, but I/O that has to wait fails.
///
/// For code that must not be unwound, or that is better at errors than at destructors.
///
/// - What returns an `io::Result` and has to wait (`accept`, `connect`, `read`, `write`, `peek` of
///   [`net`](crate::net)) fails, each time, with an error that [`is_cancel_error`] knows. It is of
///   kind `Other`: helpers like `read_exact` and `write_all`, which try again what was `Interrupted`, return it.
///   Its text says what has asked.
/// - What has no error to say it with (locks, channels, `sleep`, `park`, `join`, `scope`, `yield_now`, …) goes on
///   to wait, as in [`uncancellable`].
///
/// What asks from inside of `f`, a [`timeout`](crate::time::timeout) around a part of it, unwinds to there as
/// usual.
///
/// ```
/// use std::io::Read;
/// use strands::cancel::{cancel_as_error, is_cancel_error};
/// use strands::net::{TcpListener, TcpStream};
/// use strands::time::{Duration, timeout};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut stream = TcpStream::connect(listener.local_addr()?)?; // Nobody will write to it.
/// let read = timeout(Duration::from_millis(1), || {
///     cancel_as_error(|| stream.read_exact(&mut [0; 4]))
/// });
/// let error = read.expect("nothing was unwound").unwrap_err();
/// assert!(is_cancel_error(&error));
/// assert_eq!(error.to_string(), "cancelled: a time limit around the call has passed");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn cancel_as_error<T>(f: impl FnOnce() -> T) -> T {
    strands_sched::as_error(f)
}

/// Whether an I/O error says that the operation was cancelled: see [`cancel_as_error`].
///
/// ```
/// use strands::cancel::is_cancel_error;
///
/// assert!(!is_cancel_error(&std::io::ErrorKind::TimedOut.into()));
/// ```
pub fn is_cancel_error(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<Cancelled>())
}

/// Unwinds from here if the caller is asked to, as a call would that has to wait.
///
/// For long computations. It lets others run when it is called often, so it serves for
/// [`yield_now`](crate::yield_now) too, and costs less.
///
/// ```
/// use strands::cancel::{check_cancelled, was_cancelled};
///
/// let endless = strands::spawn(|| {
///     loop {
///         check_cancelled();
///     }
/// });
/// assert!(was_cancelled(&endless.cancel_and_join().map(|(): ()| ())));
/// ```
pub fn check_cancelled() {
    strands_sched::check();
}

/// Whether the caller is asked to unwind, by a cancel, a time limit or a token; also where that is held
/// back, as in [`uncancellable`] and in destructors.
///
/// It lets others run when it is called often, and does not unwind.
///
/// ```
/// use strands::cancel::is_cancelled;
/// use strands::time::{Duration, timeout};
///
/// let mut best = 0;
/// let searched = timeout(Duration::from_millis(1), || {
///     while !is_cancelled() {
///         best += 1;
///     }
/// });
/// assert!(searched.is_ok(), "it came to its end by itself, and `best` is what it found so far");
/// ```
pub fn is_cancelled() -> bool {
    strands_sched::is_asked()
}
