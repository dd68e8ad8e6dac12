//! A TCP socket that accepts connections.

use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use strands_reactor::{Direction, First, Request};
use strands_sched::Op;

use super::addr::{self, ToSocketAddrs};
use super::socket::{Socket, to_address};
use super::stream::{TcpStream, is_nonblocking};

/// A TCP socket that accepts connections: [`std::net::TcpListener`], in which a fiber waits
/// without blocking its worker.
///
/// ```no_run
/// use strands::{net::TcpListener, thread};
///
/// let listener = TcpListener::bind("127.0.0.1:7")?;
/// for stream in listener.incoming() {
///     let stream = stream?;
///     thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
/// }
/// # std::io::Result::Ok(())
/// ```
pub struct TcpListener {
    socket: Socket,
}

/// The connections that a listener accepts, without end. Made by [`TcpListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

/// Connections that wait to be accepted, as std's.
const BACKLOG: i32 = 128;

impl TcpListener {
    /// Listens at the first of the addresses that can be had. With `SO_REUSEADDR`, as std's.
    ///
    /// # Errors
    ///
    /// That of the last address tried; `InvalidInput` if there is none.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        addr::each(addr, |addr| {
            let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
            sockopt::set_socket_reuseaddr(&fd, true)?;
            rustix::net::bind(&fd, addr)?;
            rustix::net::listen(&fd, BACKLOG)?;
            Ok(TcpListener { socket: Socket::new(fd) })
        })
    }

    /// The address it listens at.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Another handle to the same socket; options are shared.
    ///
    /// # Errors
    ///
    /// Those of the system, such as too many open files.
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        Ok(TcpListener { socket: self.socket.try_clone()? })
    }

    /// Closes this handle now, though it is shared: whoever waits in [`accept`](Self::accept) on
    /// it, and whoever begins to, gets an error of kind `NotConnected`. Clones go on.
    pub fn close(&self) {
        self.socket.source.close();
    }

    /// Waits for a connection and accepts it. Any number of fibers and threads may do so at once.
    ///
    /// # Errors
    ///
    /// Those of the system. After "too many open files" the connection waits for the next `accept`.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        static ACCEPT: Op = Op("TcpListener::accept");
        let direction = Direction::Read;
        let limit = self.socket.limit(direction);
        let request = Request { op: &ACCEPT, direction, limit, first: First::Try };
        let (fd, address) = self.socket.source.perform(&request, |fd| {
            if self.socket.is_shared_with_blocking() {
                is_readable(fd)?;
            }
            rustix::net::acceptfrom_with(fd, SocketFlags::CLOEXEC)
        })?;
        let stream = TcpStream::new(fd);
        let address = address.map_or_else(|| stream.peer_addr(), to_address)?;
        Ok((stream, address))
    }

    /// The connections, as [`accept`](Self::accept) returns them; never ends.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Sets the time to live of packets sent, in hops.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.socket.set_ttl(ttl)
    }

    /// The time to live of packets sent, in hops.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn ttl(&self) -> io::Result<u32> {
        self.socket.ttl()
    }

    /// Sets `IPV6_V6ONLY`.
    ///
    /// # Errors
    ///
    /// Those of the system: it can only be set before the socket is bound.
    #[deprecated(note = "as in std: it can only be set before the socket is bound")]
    pub fn set_only_v6(&self, only_v6: bool) -> io::Result<()> {
        self.socket.sock_ref()?.set_only_v6(only_v6)
    }

    /// Whether `IPV6_V6ONLY` is set.
    ///
    /// # Errors
    ///
    /// Those of the system.
    #[deprecated(note = "as in std: it can only be set before the socket is bound")]
    pub fn only_v6(&self) -> io::Result<bool> {
        self.socket.sock_ref()?.only_v6()
    }

    /// Takes the socket's pending error (`SO_ERROR`).
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.take_error()
    }

    /// Makes [`accept`](Self::accept) fail with `WouldBlock` where it would wait, on all clones;
    /// or wait again.
    ///
    /// # Errors
    ///
    /// `NotConnected` if the handle was closed.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        // The descriptor itself stays non-blocking.
        self.socket.fd()?;
        self.socket.set_nonblocking(nonblocking);
        Ok(())
    }

    fn adopt(fd: OwnedFd, nonblocking: bool) -> TcpListener {
        // It fails for what is no socket; then so will `accept`.
        let _ = rustix::io::ioctl_fionbio(&fd, true);
        TcpListener { socket: Socket::adopt(fd, nonblocking) }
    }
}

/// `EAGAIN` if `accept` on a blocking descriptor would block.
///
/// A clone was converted to a std type, and with it the mode that all share became blocking. If
/// somebody else takes the connection in between, `accept` blocks the worker until the next one
/// comes.
#[cold]
fn is_readable(fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    match rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Err(Errno::AGAIN),
        _ => Ok(()),
    }
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TcpListener");
        if let Ok(addr) = self.local_addr() {
            debug.field("addr", &addr);
        }
        debug.field("fd", &self.as_raw_fd()).finish()
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl IntoRawFd for TcpListener {
    fn into_raw_fd(self) -> RawFd {
        OwnedFd::from(self).into_raw_fd()
    }
}

/// The listener waits, whatever the descriptor's mode is: it may be a duplicate of one of ours.
impl From<OwnedFd> for TcpListener {
    fn from(fd: OwnedFd) -> TcpListener {
        TcpListener::adopt(fd, false)
    }
}

/// Blocking, unless [`set_nonblocking`](TcpListener::set_nonblocking) said otherwise.
impl From<TcpListener> for OwnedFd {
    fn from(listener: TcpListener) -> OwnedFd {
        let (fd, nonblocking) = listener.socket.into_parts();
        if !nonblocking {
            // It fails only for what is no socket.
            let _ = rustix::io::ioctl_fionbio(&fd, false);
        }
        fd
    }
}

/// Keeps its mode. Duplicates of it become non-blocking.
impl From<std::net::TcpListener> for TcpListener {
    fn from(listener: std::net::TcpListener) -> TcpListener {
        let fd = OwnedFd::from(listener);
        let nonblocking = is_nonblocking(&fd);
        TcpListener::adopt(fd, nonblocking)
    }
}

/// Blocking, unless [`set_nonblocking`](TcpListener::set_nonblocking) said otherwise.
impl From<TcpListener> for std::net::TcpListener {
    fn from(listener: TcpListener) -> std::net::TcpListener {
        OwnedFd::from(listener).into()
    }
}
