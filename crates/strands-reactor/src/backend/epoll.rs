//! Linux: one epoll instance a worker, edge-triggered.
//!
//! A descriptor is added once, for both directions, and never modified: two system calls in its
//! life. `epoll_pwait2` waits to the nanosecond; where it is missing or forbidden, times are
//! rounded up to whole milliseconds. The eventfd that wakes the worker is edge-triggered too, so
//! it is never read: each write is an edge.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags};

use super::wake_fd::to_timespec;
use super::{Backend, Readiness, Registrar, WakeFd};
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
}

/// The epoll instance.
struct Set {
    fd: OwnedFd,
    reactor: u32,
}

impl Epoll {
    pub(crate) fn new(reactor: u32) -> io::Result<Epoll> {
        let set = Arc::new(Set { fd: epoll::create(CreateFlags::CLOEXEC)?, reactor });
        let wake_fd = Arc::new(WakeFd::new()?);
        let flags = libc::EPOLLIN | libc::EPOLLET;
        set.control_add(wake_fd.as_fd().as_raw_fd(), flags, Token::NONE)?;
        Ok(Epoll {
            registrar: set.clone(),
            set,
            wake_fd,
            events: UnsafeCell::new([MaybeUninit::uninit(); BATCH]),
            precise: Cell::new(true),
        })
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
                        Some(libc::ENOSYS | libc::EPERM) => self.precise.set(false),
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
                slot::deliver(self.set.reactor, token, readiness(event.events as i32));
            }
        }
    }

    fn wake_fd(&self) -> &Arc<WakeFd> {
        &self.wake_fd
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

/// A worker that cannot wait would turn in circles, and its fibers would never be woken.
#[cold]
fn fatal(error: &io::Error) -> ! {
    eprintln!(
        "strands: a worker cannot wait for events any more: {error}\n\
         help: somebody has probably closed a file descriptor that was not theirs"
    );
    std::process::abort()
}

impl Set {
    fn control_add(&self, fd: i32, interest: i32, token: Token) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest as u32, u64: token.to_u64() };
        // SAFETY: the event outlives the call, which copies it.
        let done = unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event)
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Registrar for Set {
    fn reactor(&self) -> u32 {
        self.reactor
    }

    fn add(&self, fd: i32, token: Token) -> io::Result<()> {
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

    fn remove(&self, fd: i32) {
        // It fails if the descriptor was closed behind our back: then it is out, or its token is
        // stale.
        // SAFETY: plain system call.
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
    fn waits_no_shorter_than_asked_with_either_call() {
        for precise in [true, false] {
            let epoll = Epoll::new(1).unwrap();
            epoll.poll(Some(Duration::ZERO)); // The eventfd is quiet: no event.
            epoll.precise.set(precise);
            for time in
                [Duration::from_nanos(1), Duration::from_micros(100), Duration::from_millis(2)]
            {
                let start = Instant::now();
                epoll.poll(Some(time));
                assert!(start.elapsed() >= time, "{time:?}, precise: {precise}");
            }
        }
    }

    #[test]
    fn a_wake_before_the_poll_ends_it_and_every_wake_is_an_edge() {
        let epoll = Epoll::new(1).unwrap();
        for _ in 0..3 {
            epoll.wake_fd().raise();
            epoll.poll(None);
        }
    }

    #[test]
    fn huge_times_are_accepted() {
        for precise in [true, false] {
            let epoll = Epoll::new(1).unwrap();
            epoll.precise.set(precise);
            epoll.wake_fd().raise();
            epoll.poll(Some(Duration::MAX));
        }
    }
}
