//! Linux: one epoll instance a worker, edge-triggered.
//!
//! A descriptor is added once, for both directions, and never modified: two system calls in its
//! life. `epoll_pwait2` waits to the nanosecond; where it is missing or forbidden (the default
//! filters of some containers), times are rounded up to whole milliseconds by `epoll_wait`. Which
//! it is is found out when the worker is made, so that its description tells; a filter that comes
//! later is noticed as well. Turned down for that case: a timerfd, a third descriptor for each
//! worker and another system call for each wait. The eventfd that wakes the worker is
//! edge-triggered too, so it is never read: each write is an edge.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags};
use strands_sched::DriverWaker;

use super::wake_fd::to_timespec;
use super::{Backend, Readiness, Registrar, WakeFd, cannot_make, fatal};
use crate::slot::{self, Token};

/// Events taken from the kernel at a time: enough to amortise the call, and 12 bytes each.
const BATCH: usize = 512;

const INTEREST: i32 =
    libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET;

pub(crate) struct Epoll {
    set: Arc<Set>,
    registrar: Arc<dyn Registrar>,
    wake_fd: Arc<WakeFd>,
    events: UnsafeCell<[MaybeUninit<libc::epoll_event>; BATCH]>,
    /// Whether `epoll_pwait2` is there and allowed.
    precise: Cell<bool>,
    reactor: u32,
}

/// The epoll instance.
struct Set {
    fd: OwnedFd,
}

impl Epoll {
    pub(crate) fn new(reactor: u32) -> io::Result<Epoll> {
        let fd = epoll::create(CreateFlags::CLOEXEC)
            .map_err(|error| cannot_make("the epoll instance of a worker", error.into()))?;
        let wake_fd =
            WakeFd::new().map_err(|error| cannot_make("the eventfd that wakes a worker", error))?;
        let (set, wake_fd) = (Arc::new(Set { fd }), Arc::new(wake_fd));
        let flags = libc::EPOLLIN | libc::EPOLLET;
        set.control_add(wake_fd.as_fd().as_raw_fd(), flags, Token::NONE)
            .map_err(|error| cannot_make("the registration of a worker's eventfd", error))?;
        let epoll = Epoll {
            registrar: set.clone(),
            set,
            wake_fd,
            events: UnsafeCell::new([MaybeUninit::uninit(); BATCH]),
            precise: Cell::new(true),
            reactor,
        };
        // Nothing can have happened yet: this only tells which call there is.
        match epoll.wait(epoll.events.get().cast(), Some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(cannot_make("a worker that can wait for events", error))
            }
            _ => Ok(epoll),
        }
    }

    /// One system call; the number of events.
    fn wait(&self, events: *mut libc::epoll_event, timeout: Option<Duration>) -> io::Result<usize> {
        let fd = self.set.fd.as_raw_fd();
        if self.precise.get() {
            let time = timeout.map(to_timespec);
            let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
            let (no_mask, mask_bytes) = (ptr::null::<u8>(), 8_usize);
            // SAFETY: `events` has room for BATCH, and the time, if any, outlives the call.
            let count = unsafe {
                libc::syscall(libc::SYS_epoll_pwait2, fd, events, BATCH, time, no_mask, mask_bytes)
            };
            match usize::try_from(count) {
                Ok(count) => return Ok(count),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    match error.raw_os_error() {
                        // Absent from the kernel, or forbidden by a filter: not asked again.
                        Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => self.precise.set(false),
                        _ => return Err(error),
                    }
                }
            }
        }
        let time_ms = timeout.map_or(-1, whole_ms);
        // SAFETY: `events` has room for BATCH.
        let count = unsafe { libc::epoll_wait(fd, events, BATCH as i32, time_ms) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

/// Rounded up, so that a wait neither becomes a busy loop nor ends early.
fn whole_ms(time: Duration) -> i32 {
    i32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

impl Backend for Epoll {
    fn poll(&self, timeout: Option<Duration>) {
        let events = self.events.get().cast::<libc::epoll_event>();
        let until =
            timeout.filter(|time| !time.is_zero()).and_then(|t| Instant::now().checked_add(t));
        let mut left = timeout;
        let count = loop {
            match self.wait(events, left) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    left = until.map_or(left, |until| {
                        Some(until.saturating_duration_since(Instant::now()))
                    });
                }
                Err(error) => fatal(&error),
            }
        };
        for place in 0..count {
            // SAFETY: the kernel has written `count` events. Read by value: the array is packed.
            let event = unsafe { events.add(place).read() };
            let token = Token::from_u64(event.u64);
            if token != Token::NONE {
                slot::deliver(self.reactor, token, readiness(event.events as i32));
            }
        }
    }

    fn waker(&self) -> Arc<dyn DriverWaker> {
        self.wake_fd.clone()
    }

    fn registrar(&self) -> &Arc<dyn Registrar> {
        &self.registrar
    }

    fn name(&self) -> &'static str {
        if self.precise.get() { "epoll" } else { "epoll (whole milliseconds)" }
    }
}

fn readiness(events: i32) -> Readiness {
    let has = |bits| events & bits != 0;
    Readiness {
        readable: has(libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLPRI),
        writable: has(libc::EPOLLOUT),
        broken: has(libc::EPOLLHUP | libc::EPOLLERR),
        special: has(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLPRI),
    }
}

impl Set {
    fn control_add(&self, fd: RawFd, interest: i32, token: Token) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest as u32, u64: token.to_u64() };
        // SAFETY: the event outlives the call, which copies it.
        let done = unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event)
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Registrar for Set {
    fn add(&self, fd: RawFd, token: Token) -> io::Result<()> {
        let added = self.control_add(fd, INTEREST, token);
        match added {
            // A raw `close(2)` left another tenant's registration for this number and file.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                self.remove(fd);
                self.control_add(fd, INTEREST, token)
            }
            added => added,
        }
    }

    fn remove(&self, fd: RawFd) {
        // It fails if the descriptor was closed behind our back: then it is out, or its token is
        // stale.
        // SAFETY: the kernel is handed no memory.
        unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_rounded_up() {
        let cases = [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)];
        for (ns, ms) in cases {
            assert_eq!(whole_ms(Duration::from_nanos(ns)), ms, "of {ns} ns");
        }
        assert_eq!(whole_ms(Duration::MAX), i32::MAX);
    }

    #[test]
    fn the_call_that_rounds_waits_no_shorter_and_no_longer_than_for_ever() {
        let epoll = Epoll::new(1).unwrap();
        epoll.precise.set(false);
        assert_eq!(epoll.name(), "epoll (whole milliseconds)");
        super::super::tests::waits_no_shorter_than_asked(&epoll);
        super::super::tests::huge_times_are_accepted(&epoll);
    }
}
