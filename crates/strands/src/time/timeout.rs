//! A time limit for whatever is called.

use std::time::Duration;

/// What was given a time limit was not done in time: the error of [`timeout`] and [`deadline`].
///
/// As an `io::Error` it is one of kind `TimedOut`.
///
/// ```
/// use std::io;
/// use strands::time::{Duration, Elapsed, timeout};
///
/// fn read() -> io::Result<()> {
///     timeout(Duration::from_millis(1), strands::thread::park)?;
///     Ok(())
/// }
/// assert_eq!(read().unwrap_err().kind(), io::ErrorKind::TimedOut);
/// assert_eq!(Elapsed.to_string(), "the time limit has passed");
/// ```
pub use strands_sched::Elapsed;

/// Runs `f`, for `dur` at most: when the time is over, the first call in `f` that has to wait
/// unwinds to here. See [Cancellation](crate::cancel).
///
/// `f` runs on the calling fiber, so it may borrow, and costs no new stack. Destructors run on the
/// way, and may wait. What an operation has done is not lost: a message that has been received is returned, and
/// the time limit ends the next wait. If `f` comes to its end nevertheless, its value is returned.
///
/// Time limits nest. The one that passes first ends what is below *it*, and its own caller goes on;
/// a cancel of the fiber passes through all of them. Waits that have a limit of their own
/// (`recv_timeout`, a socket's read timeout) end by whichever comes first. Fibers that `f` spawns are
/// not concerned, unless it is in a [`scope`](crate::scope()) that `f` waits for.
///
/// With a `dur` of zero `f` runs to its first wait. One too long for the clock is no limit.
///
/// It works on a plain thread too, for what this crate waits for; what std waits for (its locks, its
/// sockets, its sleep) takes as long as it takes, there and, in [`unblock`](crate::unblock), from a
/// fiber. Where panics abort, nothing can be unwound: I/O in `f` fails instead, with what
/// [`is_cancel_error`](crate::cancel::is_cancel_error) knows. In a fiber it ends no wait inside of a destructor that an unwinding runs,
/// or of a callback from C.
///
/// # Errors
///
/// If it unwound.
///
/// # Panics
///
/// With the panic of `f`.
///
/// ```
/// use std::io::Read;
/// use strands::net::{TcpListener, TcpStream};
/// use strands::time::{Duration, Elapsed, timeout};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut stream = TcpStream::connect(listener.local_addr()?)?; // Nobody will write to it.
/// let answer = timeout(Duration::from_millis(5), || {
///     let mut text = String::new();
///     stream.read_to_string(&mut text).map(|_| text) // However many reads it takes.
/// });
/// assert_eq!(answer.map(Result::unwrap), Err(Elapsed));
/// assert_eq!(timeout(Duration::from_secs(60), || 42), Ok(42));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn timeout<T>(dur: Duration, f: impl FnOnce() -> T) -> Result<T, Elapsed> {
    deadline(super::Deadline::after(dur), f)
}

/// As [`timeout`], until a point in time: an `Instant`, strands' or std's, or a
/// [`Deadline`](crate::time::Deadline).
///
/// # Errors
///
/// As there.
///
/// # Panics
///
/// As there.
///
/// ```
/// use strands::time::{Deadline, Duration, Elapsed, Instant, deadline};
///
/// let soon = Instant::now() + Duration::from_millis(1);
/// assert_eq!(deadline(soon, || strands::sleep(Duration::MAX)), Err(Elapsed));
/// assert_eq!(deadline(soon, strands::yield_now), Err(Elapsed), "it has passed");
/// assert_eq!(deadline(Deadline::never(), strands::yield_now), Ok(()));
/// ```
pub fn deadline<T>(
    at: impl Into<Option<std::time::Instant>>,
    f: impl FnOnce() -> T,
) -> Result<T, Elapsed> {
    match at.into() {
        Some(at) => strands_sched::timeout_at(at, f),
        None => Ok(f()),
    }
}
