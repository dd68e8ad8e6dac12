//! Winsock. Calls have no flag against waiting, so a stream's socket is non-blocking while it is
//! ours; and the mode of a socket that comes from elsewhere cannot be asked for.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{Errno, Result, ioctl_fionbio};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketType, sockopt};
use socket2::{Domain, SockRef, Socket, Type};

pub(crate) const STREAMS_BLOCK: bool = false;
pub(crate) const SEND: SendFlags = SendFlags::empty();
pub(crate) const RECEIVE: RecvFlags = RecvFlags::empty();

/// Here it would let others take the address over.
pub(crate) const REUSE_ADDRESS: bool = false;
pub(crate) const DESCRIPTOR: &str = "socket";

/// By socket2, which starts Winsock and keeps the socket from being inherited.
pub(crate) fn stream(family: AddressFamily) -> Result<OwnedFd> {
    let domain = if family == AddressFamily::INET { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, None).map_err(errno)?;
    socket.set_nonblocking(true).map_err(errno)?;
    Ok(socket.into())
}

pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddrAny>)> {
    let (socket, address) = net::acceptfrom(listener)?;
    ioctl_fionbio(&socket, true)?;
    Ok((socket, address))
}

/// It has no other protocol for such sockets.
pub(crate) fn is_tcp(socket: BorrowedFd<'_>) -> bool {
    let inet = |family| [AddressFamily::INET, AddressFamily::INET6].contains(&family);
    net::getsockname(socket).is_ok_and(|address| inet(address.address_family()))
        && sockopt::socket_type(socket) == Ok(SocketType::STREAM)
}

/// Taken for blocking, as most are.
pub(crate) fn is_nonblocking(_socket: &OwnedFd) -> bool {
    false
}

pub(crate) fn is_connecting(error: Errno) -> bool {
    error == Errno::WOULDBLOCK
}

pub(crate) fn receive_vectored(
    socket: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
) -> Result<usize> {
    (&*SockRef::from(&socket)).read_vectored(bufs).map_err(errno)
}

pub(crate) fn send_vectored(socket: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> Result<usize> {
    (&*SockRef::from(&socket)).write_vectored(bufs).map_err(errno)
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::INVAL)
}
