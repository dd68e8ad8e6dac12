//! A pair of connected sockets: macOS has no eventfd, and std makes the pair close-on-exec on each
//! system as well as it can be done there.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketType};

pub(super) struct Signal {
    sender: UnixStream,
    receiver: UnixStream,
}

impl Signal {
    pub(super) fn new() -> io::Result<Signal> {
        let (sender, receiver) = UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        Ok(Signal { sender, receiver })
    }

    pub(super) fn raise(&self) {
        // It fails only when the buffer is full; then the other end is readable anyway.
        let _ = (&self.sender).write_all(&[1]);
    }

    pub(super) fn drain(&self) {
        while (&self.receiver).read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

/// Makes the number of `fd` lead to a socket on which every operation fails, so that what it led
/// to is closed now although others may be about to use the number.
pub(crate) fn replace_by_dead_end(fd: BorrowedFd<'_>) -> io::Result<()> {
    static DEAD_END: OnceLock<OwnedFd> = OnceLock::new();
    let dead_end = match DEAD_END.get() {
        Some(dead_end) => dead_end,
        None => {
            let made = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
            rustix::io::fcntl_setfd(&made, FdFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&made, true)?;
            DEAD_END.get_or_init(|| made)
        }
    };
    // SAFETY: the kernel is handed no memory. The number stays open, and its owner owns what it now leads to.
    if unsafe { libc::dup2(dead_end.as_raw_fd(), fd.as_raw_fd()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // macOS has no `dup3`. A program that is executed meanwhile gets a socket that leads nowhere.
    Ok(rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?)
}
