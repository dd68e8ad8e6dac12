//! The operating system's interface: what each backend must define.
//!
//! A backend is made for one worker, on its thread. It
//!
//! - keeps a set of descriptors, each with a [`Token`]: [`Registrar::add`] puts one in, from
//!   the worker's thread; [`Registrar::remove`] takes it out, from any thread, and is called before
//!   the descriptor is closed;
//! - reports **edges**, in both directions, through [`deliver`](crate::slot::deliver): after
//!   `add` each thing that makes an operation possible that was not (data, a connection, room,
//!   the end, an error) is reported by a [`poll`](Backend::poll) that begins or ends later, once
//!   or more often; what is possible at the time of `add` is reported too. Several edges may be
//!   reported as one. An event that was on its way when `remove` was called may still be
//!   delivered: the token is stale by then. Where [`EDGES_STOP`], a direction is reported once
//!   and then no more until the next `add`, so whoever begins to wait calls it again;
//! - waits: [`poll`](Backend::poll) ends at the latest when the time is up, or when its
//!   [`waker`](Backend::waker) has been used since the last one began. It never rounds a time down,
//!   and it never returns early time after time: errors that go on are fatal, not a busy loop.
//!
//! [`Readiness::broken`] wakes everybody, so it is for what ends all operations; `special` says
//! that a short read no longer proves the socket empty (the peer's end, urgent data, errors).
//!
//! | backend | where | waits to the |
//! |---|---|---|
//! | `epoll` | Linux; what [`Auto`](crate::Backend::Auto) means there | nanosecond (`epoll_pwait2`, Linux 5.11), else millisecond |
//! | `mio` | kqueue: what `Auto` means on macOS and the BSDs | nanosecond |
//! | `mio` | AFD: what `Auto` means on Windows | millisecond |
//! | `mio` | epoll: on Linux, if asked for | millisecond |
//!
//! All code that knows the operating system's event interface is below this module. Elsewhere a
//! descriptor is what `rustix::fd` calls one: on Windows that is a socket. Backends are chosen at
//! run time, so that one machine tests all.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use rustix::fd::RawFd;
use rustix::io::Errno;
use strands_sched::DriverWaker;

use crate::slot::Token;

#[cfg(target_os = "linux")]
mod epoll;
pub(crate) mod fork;
mod mio;
mod wake_fd;

pub(crate) use mio::EDGES_STOP;
pub(crate) use wake_fd::{Ready, WakeFd, poll_any, poll_fd, poll_one, replace_by_dead_end};

/// Makes the backend of one worker, on its thread.
pub(crate) fn make(chosen: crate::Backend, reactor: u32) -> io::Result<Box<dyn Backend>> {
    match chosen {
        #[cfg(target_os = "linux")]
        crate::Backend::Auto | crate::Backend::Epoll => Ok(Box::new(epoll::Epoll::new(reactor)?)),
        #[cfg(not(target_os = "linux"))]
        crate::Backend::Epoll => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this system has no epoll: choose the backend auto or mio",
        )),
        _ => Ok(Box::new(mio::Mio::new(reactor)?)),
    }
}

/// What has become possible.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// Everything that waits must look.
    pub(crate) broken: bool,
    /// A short read does not mean "empty" from here on.
    pub(crate) special: bool,
}

/// One worker's events. Used by the worker's thread only.
pub(crate) trait Backend: 'static {
    /// Waits for events and delivers them. See the module's head.
    fn poll(&self, timeout: Option<Duration>);

    /// What ends a `poll`, from any thread. Does nothing in a forked child.
    fn waker(&self) -> Arc<dyn DriverWaker>;

    /// Through which descriptors are registered. It ends with the backend, but for a moment in
    /// which another thread uses it.
    fn registrar(&self) -> &Arc<dyn Registrar>;

    /// For people.
    fn name(&self) -> &'static str;
}

/// A backend's set of descriptors.
pub(crate) trait Registrar: Send + Sync + 'static {
    /// Starts to report edges of `fd`. On the worker's thread.
    ///
    /// May be called for a descriptor that is in only where [`EDGES_STOP`].
    fn add(&self, fd: RawFd, token: Token) -> io::Result<()>;

    /// Stops. From any thread, before `fd` is closed.
    fn remove(&self, fd: RawFd);
}

/// `error`, which came up when `what` was to be made, with what can be done about it.
#[cold]
fn cannot_make(what: &'static str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), SetUpError { what, error })
}

/// `error`, which came up when a descriptor was to be put into a backend's set.
#[cold]
pub(crate) fn cannot_watch(error: io::Error) -> io::Error {
    match Errno::from_io_error(&error) {
        // By itself it speaks of a device without space.
        #[cfg(unix)]
        Some(Errno::NOSPC) => cannot_make("a registration with a worker's reactor", error),
        _ => error,
    }
}

/// Keeps the system's error as its source.
struct SetUpError {
    what: &'static str,
    error: io::Error,
}

impl std::fmt::Display for SetUpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SetUpError { what, error } = self;
        write!(f, "cannot make {what}: {error}")?;
        match Errno::from_io_error(error) {
            Some(Errno::MFILE) => f.write_str(
                "; this process has as many open files as it may: raise its limit (`ulimit -n`), \
                 or use fewer workers, which need up to three files each",
            ),
            #[cfg(unix)]
            Some(Errno::NFILE) => f.write_str(
                "; the system has as many open files as it may: raise its limit (on Linux \
                 `sysctl fs.file-max`), or end what holds them",
            ),
            #[cfg(unix)]
            Some(Errno::NOSPC) => f.write_str(
                "; this user has as many registrations as they may: raise the limit (on Linux \
                 `sysctl fs.epoll.max_user_watches`), or use fewer sockets or workers",
            ),
            _ => Ok(()),
        }
    }
}

/// What `unwrap` shows: the help too.
impl std::fmt::Debug for SetUpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl std::error::Error for SetUpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// A worker that cannot wait would turn in circles, and one that cannot be woken would sleep for
/// ever: in either case fibers would be lost without a word.
#[cold]
fn fatal(error: &io::Error) -> ! {
    // Not `eprintln!`, which panics if nobody reads it.
    let _ = writeln!(
        io::stderr(),
        "strands: a worker cannot wait for events any more: {error}\n\
         help: somebody has probably closed a file descriptor that was not theirs"
    );
    std::process::abort()
}

/// By the name that std has for it here.
#[cfg(unix)]
impl std::os::fd::AsFd for crate::Source {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.raw_borrow()
    }
}

/// By the name that std has for it here.
#[cfg(windows)]
impl std::os::windows::io::AsSocket for crate::Source {
    fn as_socket(&self) -> std::os::windows::io::BorrowedSocket<'_> {
        self.raw_borrow()
    }
}

/// What all backends promise, on those that there are here.
#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;

    fn all(test: fn(&dyn Backend)) {
        for chosen in [crate::Backend::Auto, crate::Backend::Epoll, crate::Backend::Mio] {
            match make(chosen, 1) {
                Ok(backend) => test(&*backend),
                Err(error) => {
                    let epoll_is_missing = chosen == crate::Backend::Epoll;
                    assert!(epoll_is_missing && error.kind() == io::ErrorKind::Unsupported);
                }
            }
        }
    }

    pub(super) fn waits_no_shorter_than_asked(backend: &dyn Backend) {
        for time in [Duration::from_nanos(1), Duration::from_micros(100), Duration::from_millis(2)]
        {
            let start = Instant::now();
            backend.poll(Some(time));
            assert!(start.elapsed() >= time, "{time:?}, {}", backend.name());
        }
    }

    pub(super) fn huge_times_are_accepted(backend: &dyn Backend) {
        for time in [Duration::from_secs(1 << 40), Duration::MAX] {
            backend.waker().wake();
            backend.poll(Some(time));
        }
    }

    #[test]
    fn times_are_neither_rounded_down_nor_refused() {
        all(|backend| {
            backend.poll(Some(Duration::ZERO));
            waits_no_shorter_than_asked(backend);
            huge_times_are_accepted(backend);
        });
    }

    #[test]
    fn a_wake_before_the_poll_ends_it_and_every_wake_is_an_edge() {
        all(|backend| {
            for _ in 0..3 {
                backend.waker().wake();
                backend.poll(None);
            }
            let waker = backend.waker();
            let other = std::thread::spawn(move || waker.wake());
            backend.poll(None);
            other.join().unwrap();
        });
    }

    #[test]
    fn a_descriptor_is_taken_out_by_another_thread_and_a_number_is_used_again() {
        all(|backend| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            for _ in 0..3 {
                let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let fd = rustix::fd::AsRawFd::as_raw_fd(&stream);
                backend.registrar().add(fd, Token::NONE).unwrap();
                // It can be written to, so this ends though nobody wakes.
                backend.poll(None);
                let registrar = backend.registrar().clone();
                std::thread::spawn(move || registrar.remove(fd)).join().unwrap();
                // Out twice does no harm, as after a `close(2)` behind our back.
                backend.registrar().remove(fd);
            }
        });
    }

    #[test]
    fn what_could_not_be_made_is_told_with_the_fix() {
        let error = cannot_make("something", Errno::MFILE.into());
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(text.contains("make something") && text.contains("ulimit -n"), "{text}");
        }
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref());
        assert_eq!(cause.and_then(Errno::from_io_error), Some(Errno::MFILE));
        let error = cannot_make("something", io::ErrorKind::OutOfMemory.into());
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    }
}
