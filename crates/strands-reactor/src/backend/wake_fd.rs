//! A descriptor to wake somebody who waits in a system call, and how a plain thread waits in one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};
use strands_sched::{Alarm, DriverWaker};

use super::fork;
use crate::slot::Direction;

/// An eventfd.
pub(crate) struct WakeFd {
    fd: OwnedFd,
    /// Whether there is something to [`drain`](Self::drain).
    raised: AtomicBool,
}

impl WakeFd {
    pub(crate) fn new() -> io::Result<WakeFd> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(WakeFd { fd, raised: AtomicBool::new(false) })
    }

    /// Ends the wait that goes on, or the next.
    pub(crate) fn raise(&self) {
        if fork::in_child() {
            return; // It is the parent's.
        }
        self.raised.store(true, Ordering::Release);
        // It fails only when the counter is at its end; then it is readable anyway.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    /// Forgets that it was raised.
    pub(crate) fn drain(&self) {
        if self.raised.swap(false, Ordering::Acquire) {
            let _ = rustix::io::read(&self.fd, &mut [0; 8]);
        }
    }
}

impl AsFd for WakeFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Alarm for WakeFd {
    fn ring(&self) {
        self.raise();
    }
}

impl DriverWaker for WakeFd {
    fn wake(&self) {
        self.raise();
    }
}

/// How a [`poll_one`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// The descriptor is ready, or broken.
    Fd,
    /// Time is up, somebody rang, or a signal came.
    No,
}

/// Blocks the thread until `fd` is ready, `bell` is raised or the time is up.
pub(crate) fn poll_one(
    fd: BorrowedFd<'_>,
    direction: Direction,
    bell: Option<&WakeFd>,
    timeout: Option<Duration>,
) -> io::Result<Ready> {
    let interest = match direction {
        Direction::Read => PollFlags::IN | PollFlags::RDHUP,
        Direction::Write => PollFlags::OUT,
    };
    let timeout = timeout.map(to_timespec);
    // Without a bell the same descriptor twice.
    let bell_fd = bell.map_or(fd, |bell| bell.as_fd());
    let mut fds =
        [PollFd::from_borrowed_fd(fd, interest), PollFd::from_borrowed_fd(bell_fd, PollFlags::IN)];
    let used = if bell.is_some() { 2 } else { 1 };
    match rustix::event::poll(&mut fds[..used], timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    if let Some(bell) = bell.filter(|_| !fds[1].revents().is_empty()) {
        bell.drain();
    }
    Ok(if fds[0].revents().is_empty() { Ready::No } else { Ready::Fd })
}

/// A time that the kernel accepts: at most some thousand years.
pub(crate) fn to_timespec(time: Duration) -> Timespec {
    const MOST_SECONDS: u64 = 1 << 36;
    Timespec { tv_sec: time.as_secs().min(MOST_SECONDS) as _, tv_nsec: time.subsec_nanos() as _ }
}

/// Makes the number of `fd` lead to a socket on which every operation fails, so that what it led
/// to is closed now although others may be about to use the number.
pub(crate) fn replace_by_dead_end(fd: BorrowedFd<'_>) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    static DEAD_END: std::sync::OnceLock<OwnedFd> = std::sync::OnceLock::new();
    let dead_end = match DEAD_END.get() {
        Some(dead_end) => dead_end,
        None => {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let made = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            DEAD_END.get_or_init(|| made)
        }
    };
    // SAFETY: plain system call. The number stays open, and its owner owns what it now leads to.
    let done = unsafe { libc::dup3(dead_end.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
