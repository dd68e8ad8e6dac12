//! An eventfd.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::retry_on_intr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

pub(super) struct Signal(OwnedFd);

impl Signal {
    pub(super) fn new() -> io::Result<Signal> {
        Ok(Signal(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(super) fn raise(&self) {
        // It fails only when the counter is at its end; then it is readable anyway.
        let _ = retry_on_intr(|| rustix::io::write(&self.0, &1u64.to_ne_bytes()));
    }

    pub(super) fn drain(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes the number of `fd` lead to a socket on which every operation fails, so that what it led
/// to is closed now although others may be about to use the number.
pub(crate) fn replace_by_dead_end(fd: BorrowedFd<'_>) -> io::Result<()> {
    static DEAD_END: OnceLock<OwnedFd> = OnceLock::new();
    let dead_end = match DEAD_END.get() {
        Some(dead_end) => dead_end,
        None => {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let made = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            DEAD_END.get_or_init(|| made)
        }
    };
    // SAFETY: the kernel is handed no memory. The number stays open, and its owner owns what it now leads to.
    let done = unsafe { libc::dup3(dead_end.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
