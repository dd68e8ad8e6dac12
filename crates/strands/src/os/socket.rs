//! Where systems differ about TCP sockets.
//!
//! Linux and the BSDs take the wish not to wait, and not to be sent a signal, with each call.
//! Apple's systems know neither flag in `send`, and neither sets anything up in the call that makes a
//! descriptor: there a stream's descriptor is non-blocking for as long as it is ours
//! ([`STREAMS_BLOCK`]), and the socket itself is told not to signal. Winsock is its own, in some more.

#[cfg(unix)]
mod unix;

#[cfg(windows)]
#[path = "socket/windows.rs"]
mod platform;

#[cfg(all(unix, not(target_vendor = "apple")))]
mod platform {
    pub(crate) use super::unix::*;

    use std::os::fd::{BorrowedFd, OwnedFd};

    use rustix::io::Result;
    use rustix::net::{self, AddressFamily, SendFlags, SocketAddrAny, SocketFlags, SocketType};

    pub(crate) const STREAMS_BLOCK: bool = true;
    pub(crate) const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

    pub(crate) fn stream(family: AddressFamily) -> Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        net::socket_with(family, SocketType::STREAM, flags, None)
    }

    pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddrAny>)> {
        net::acceptfrom_with(listener, SocketFlags::CLOEXEC)
    }

    pub(crate) fn is_tcp(fd: BorrowedFd<'_>) -> bool {
        let protocol = net::sockopt::socket_protocol(fd).ok().flatten();
        protocol == Some(net::ipproto::TCP)
    }
}

#[cfg(target_vendor = "apple")]
mod platform {
    pub(crate) use super::unix::*;

    use std::os::fd::{BorrowedFd, OwnedFd};

    use rustix::io::{FdFlags, Result, fcntl_setfd, ioctl_fionbio};
    use rustix::net::{self, AddressFamily, SendFlags, SocketAddrAny, SocketType, sockopt};

    pub(crate) const STREAMS_BLOCK: bool = false;
    pub(crate) const SEND: SendFlags = SendFlags::empty();

    pub(crate) fn stream(family: AddressFamily) -> Result<OwnedFd> {
        let fd = net::socket(family, SocketType::STREAM, None)?;
        sockopt::set_socket_nosigpipe(&fd, true)?;
        fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        ioctl_fionbio(&fd, true)?;
        Ok(fd)
    }

    pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddrAny>)> {
        let (fd, address) = net::acceptfrom(listener)?;
        // It fails for a connection that has been reset, which its user shall learn by using it.
        let _ = sockopt::set_socket_nosigpipe(&fd, true);
        fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        ioctl_fionbio(&fd, true)?;
        Ok((fd, address))
    }

    /// It has no other protocol for such sockets.
    pub(crate) fn is_tcp(fd: BorrowedFd<'_>) -> bool {
        let inet = |family| [AddressFamily::INET, AddressFamily::INET6].contains(&family);
        net::getsockname(fd).is_ok_and(|address| inet(address.address_family()))
            && sockopt::socket_type(fd) == Ok(SocketType::STREAM)
    }
}

use std::io::{IoSlice, IoSliceMut};

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrAny};

/// Whether the descriptor of a stream is in blocking mode, as std's, while it is ours.
pub(crate) const STREAMS_BLOCK: bool = platform::STREAMS_BLOCK;

/// What keeps a send from blocking and from raising a signal, as far as flags do.
pub(crate) const SEND: SendFlags = platform::SEND;

/// What keeps a receive from blocking, as far as flags do.
pub(crate) const RECEIVE: RecvFlags = platform::RECEIVE;

/// Whether a listener gets `SO_REUSEADDR`.
pub(crate) const REUSE_ADDRESS: bool = platform::REUSE_ADDRESS;

/// What std calls it when it shows a socket.
pub(crate) const DESCRIPTOR: &str = platform::DESCRIPTOR;

/// A new TCP socket, closed on exec and non-blocking.
pub(crate) fn stream(family: AddressFamily) -> Result<OwnedFd> {
    platform::stream(family)
}

/// The next connection of `listener`, closed on exec, in the mode of [`STREAMS_BLOCK`].
pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddrAny>)> {
    platform::accept(listener)
}

/// Whether this is a socket of TCP's.
pub(crate) fn is_tcp(fd: BorrowedFd<'_>) -> bool {
    platform::is_tcp(fd)
}

/// Whether a socket that comes from elsewhere is in non-blocking mode.
pub(crate) fn is_nonblocking(fd: &OwnedFd) -> bool {
    platform::is_nonblocking(fd)
}

/// Whether this error of `connect` says that the connection is under way.
pub(crate) fn is_connecting(error: Errno) -> bool {
    platform::is_connecting(error)
}

/// As `recv`, into several buffers.
pub(crate) fn receive_vectored(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> Result<usize> {
    platform::receive_vectored(fd, bufs)
}

/// As `send`, from several buffers.
pub(crate) fn send_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> Result<usize> {
    platform::send_vectored(fd, bufs)
}
