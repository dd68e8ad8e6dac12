//! A TCP connection with ourselves: `WSAPoll` knows sockets only, and there is no socket pair.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use rustix::fd::{AsFd, BorrowedFd};
use rustix::net::Shutdown;

pub(super) struct Signal {
    sender: TcpStream,
    receiver: TcpStream,
}

impl Signal {
    pub(super) fn new() -> io::Result<Signal> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let sender = TcpStream::connect(listener.local_addr()?)?;
        // Another process may have connected before us: it is turned away.
        let receiver = loop {
            let (receiver, peer) = listener.accept()?;
            if peer == sender.local_addr()? {
                break receiver;
            }
        };
        sender.set_nonblocking(true)?;
        sender.set_nodelay(true)?;
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

/// Ends the connection, so that operations on `fd` fail. A handle cannot be made to lead elsewhere
/// here: it stays open, and a listener goes on to listen, until the source is dropped.
pub(crate) fn replace_by_dead_end(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::net::shutdown(fd, Shutdown::Both)?)
}
