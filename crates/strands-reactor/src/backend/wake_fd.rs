//! A descriptor to wake somebody who waits in a system call, and how a plain thread waits in one.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::BorrowedFd;
use strands_sched::Alarm;

use super::fork;
use crate::slot::Direction;

// Defines `Signal`: a descriptor that is readable from `raise` until `drain`; and
// `replace_by_dead_end`.
#[cfg_attr(target_os = "linux", path = "wake_fd/linux.rs")]
#[cfg_attr(all(unix, not(target_os = "linux")), path = "wake_fd/unix.rs")]
#[cfg_attr(windows, path = "wake_fd/windows.rs")]
mod signal;

use signal::Signal;
pub(crate) use signal::replace_by_dead_end;

/// A descriptor that threads raise to end another's wait.
pub(crate) struct WakeFd {
    signal: Signal,
    /// False only if there is nothing to drain, or somebody is just about to raise it.
    raised: AtomicBool,
}

impl WakeFd {
    pub(crate) fn new() -> io::Result<WakeFd> {
        Ok(WakeFd { signal: Signal::new()?, raised: AtomicBool::new(false) })
    }

    /// Ends the wait that goes on, or the next.
    pub(crate) fn raise(&self) {
        if fork::in_child() {
            return; // It is the parent's.
        }
        self.raised.store(true, Ordering::Release);
        self.signal.raise();
    }

    /// Forgets that it was raised. A raise that is under way may be left for the next wait.
    pub(crate) fn drain(&self) {
        if self.raised.swap(false, Ordering::Acquire) {
            self.signal.drain();
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }
}

impl Alarm for WakeFd {
    fn ring(&self) {
        self.raise();
    }
}

#[cfg(target_os = "linux")]
impl strands_sched::DriverWaker for WakeFd {
    fn wake(&self) {
        self.raise();
    }
}

/// How a [`poll_one`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// The descriptor is ready, or broken.
    Fd,
    /// Time is up, somebody rang, or a signal came. Rarely also without a reason.
    No,
}

/// Blocks the thread until `fd` is ready, `bell` is raised or the time is up. See [`poll_any`].
pub(crate) fn poll_one(
    fd: BorrowedFd<'_>,
    direction: Direction,
    bell: Option<&WakeFd>,
    timeout: Option<Duration>,
) -> io::Result<Ready> {
    // Without a bell the same descriptor twice, of which the second is not used.
    let bell_fd = bell.map_or(fd, |bell| bell.as_fd());
    let mut fds = [poll_fd(fd, direction), poll_fd(bell_fd, Direction::Read)];
    poll_any(&mut fds[..1 + usize::from(bell.is_some())], bell, timeout)
}

/// What [`poll_any`] is asked for `fd`.
pub(crate) fn poll_fd(fd: BorrowedFd<'_>, direction: Direction) -> PollFd<'_> {
    let interest = match direction {
        Direction::Read => PollFlags::IN,
        Direction::Write => PollFlags::OUT,
    };
    PollFd::from_borrowed_fd(fd, interest)
}

/// Blocks the thread until one of `fds` is ready, `bell`, whose descriptor is the last of them, is raised or the
/// time is up. Where the system has no `ppoll` (macOS, Windows) the time is rounded up to whole milliseconds.
///
/// On Windows before 10, version 2004, a connection that is refused is not noticed by this.
pub(crate) fn poll_any(
    fds: &mut [PollFd<'_>],
    bell: Option<&WakeFd>,
    timeout: Option<Duration>,
) -> io::Result<Ready> {
    // Some systems refuse more. The caller asks again.
    const LONGEST: Duration = Duration::from_secs(1 << 20);
    let timeout = timeout.map(|time| to_timespec(time.min(LONGEST)));
    match rustix::event::poll(fds, timeout.as_ref()) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(Ready::No),
        Err(error) => return Err(error.into()),
    }
    let (fds, bell_fd) = fds.split_at(fds.len() - usize::from(bell.is_some()));
    if let Some(bell) = bell.filter(|_| !bell_fd[0].revents().is_empty()) {
        // Whatever the mark says: two raises and a drain may have crossed, and left it readable.
        bell.raised.store(false, Ordering::Release);
        bell.signal.drain();
    }
    Ok(if fds.iter().all(|fd| fd.revents().is_empty()) { Ready::No } else { Ready::Fd })
}

/// A time that the kernel accepts: at most some thousand years.
pub(crate) fn to_timespec(time: Duration) -> Timespec {
    const MOST_SECONDS: u64 = 1 << 36;
    Timespec { tv_sec: time.as_secs().min(MOST_SECONDS) as _, tv_nsec: time.subsec_nanos() as _ }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_raise_ends_one_wait() {
        let (quiet, bell) = (quiet(), WakeFd::new().unwrap());
        for _ in 0..3 {
            bell.raise();
            bell.raise();
            assert_eq!(wait(&quiet, &bell, None), Ready::No);
            let start = Instant::now();
            wait(&quiet, &bell, Some(Duration::from_millis(2)));
            assert!(start.elapsed() >= Duration::from_millis(2), "it was not drained");
        }
        bell.raise();
        bell.drain();
        let start = Instant::now();
        wait(&quiet, &bell, Some(Duration::from_micros(100)));
        assert!(start.elapsed() >= Duration::from_micros(100));
    }

    #[test]
    fn raises_that_crossed_a_drain_do_not_end_every_wait() {
        let (quiet, bell) = (quiet(), WakeFd::new().unwrap());
        // As when a drain comes between the two steps of a raise.
        bell.signal.raise();
        assert!(!bell.raised.load(Ordering::Relaxed));
        wait(&quiet, &bell, None);
        let start = Instant::now();
        wait(&quiet, &bell, Some(Duration::from_millis(2)));
        assert!(start.elapsed() >= Duration::from_millis(2), "it turns in circles");
    }

    #[test]
    fn huge_times_are_accepted() {
        let bell = WakeFd::new().unwrap();
        bell.raise();
        wait(&quiet(), &bell, Some(Duration::MAX));
    }

    /// Nothing comes here.
    fn quiet() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").unwrap()
    }

    fn wait(quiet: &UdpSocket, bell: &WakeFd, timeout: Option<Duration>) -> Ready {
        let fd = rustix::fd::AsFd::as_fd(quiet);
        poll_one(fd, Direction::Read, Some(bell), timeout).unwrap()
    }
}
