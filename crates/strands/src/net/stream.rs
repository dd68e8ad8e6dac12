//! A TCP connection.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags,
    SocketType, sockopt,
};
use strands_reactor::{Direction, First, Limit, Request};
use strands_sched::Op;

use super::addr::{self, ToSocketAddrs};
use super::socket::{Socket, to_address, zero_timeout};

/// A TCP connection: [`std::net::TcpStream`], in which a fiber waits without blocking its worker.
///
/// Dropping it closes it. All methods take `&self`: a reader and a writer, or a hundred of each,
/// may use one stream at once, in fibers and plain threads.
///
/// ```no_run
/// use std::io::{Read, Write};
/// use strands::net::TcpStream;
///
/// let mut stream = TcpStream::connect("example.org:80")?;
/// stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
/// let mut answer = String::new();
/// stream.read_to_string(&mut answer)?;
/// # std::io::Result::Ok(())
/// ```
pub struct TcpStream {
    socket: Socket,
    /// Whether a short read means that the socket is empty: it is really TCP's.
    short_read_drains: bool,
}

/// The most buffers that the kernel takes in one call.
const MOST_BUFFERS: usize = 1024;

impl TcpStream {
    /// Connects to the first of the addresses that accepts.
    ///
    /// # Errors
    ///
    /// That of the last address tried; `InvalidInput` if there is none.
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        addr::each(addr, |addr| TcpStream::connect_to(addr, Limit::None))
    }

    /// Connects to `addr`, within `timeout`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a timeout of zero; `TimedOut`; those of connecting.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        if timeout.is_zero() {
            return Err(zero_timeout());
        }
        let limit = Instant::now().checked_add(timeout).map_or(Limit::None, Limit::Until);
        TcpStream::connect_to(addr, limit).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                io::Error::new(io::ErrorKind::TimedOut, "connection timed out")
            }
            _ => error,
        })
    }

    fn connect_to(addr: &SocketAddr, limit: Limit) -> io::Result<TcpStream> {
        static CONNECT: Op = Op("TcpStream::connect");
        let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        let stream = TcpStream::new(fd);
        match rustix::net::connect(&stream.socket, addr) {
            Ok(()) => {}
            Err(Errno::INPROGRESS | Errno::INTR) => {
                let direction = Direction::Write;
                let request = Request { op: &CONNECT, direction, limit, first: First::Wait };
                stream.socket.source.perform(&request, is_connected)?;
            }
            Err(error) => return Err(error.into()),
        }
        rustix::io::ioctl_fionbio(&stream.socket, false)?;
        Ok(stream)
    }

    /// A TCP socket that is new.
    pub(super) fn new(fd: OwnedFd) -> TcpStream {
        TcpStream { socket: Socket::new(fd), short_read_drains: true }
    }

    /// The address of the peer.
    ///
    /// # Errors
    ///
    /// Those of the system, such as `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match rustix::net::getpeername(self.socket.fd()?)? {
            Some(address) => to_address(address),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "invalid argument")),
        }
    }

    /// The address of this end.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Shuts down one or both directions of the connection, for all clones.
    ///
    /// Whoever waits in `read` gets the end, whoever waits in `write` an error.
    ///
    /// # Errors
    ///
    /// Those of the system, such as `NotConnected`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        Ok(rustix::net::shutdown(self.socket.fd()?, how)?)
    }

    /// Closes this handle now, though it is shared: whoever waits in an operation on it, and
    /// whoever begins one later, gets an error of kind `NotConnected`. Clones go on.
    pub fn close(&self) {
        self.socket.source.close();
    }

    /// Another handle to the same connection; options and time limits are shared.
    ///
    /// # Errors
    ///
    /// Those of the system, such as too many open files.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        let socket = self.socket.try_clone()?;
        Ok(TcpStream { socket, short_read_drains: self.short_read_drains })
    }

    /// Limits how long a `read` or `peek` waits; then it fails with `WouldBlock`, as std's on
    /// Unix. `None`: no limit. Kept to the nanosecond, whatever the kernel's own precision is.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero; those of the system.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_timeout(Direction::Read, timeout)
    }

    /// Limits how long a `write` waits; then it fails with `WouldBlock`, as std's on Unix.
    /// `None`: no limit.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero; those of the system.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_timeout(Direction::Write, timeout)
    }

    /// The limit on reads, rounded up to the kernel's precision, as std returns it.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.socket.timeout(Direction::Read)
    }

    /// The limit on writes, rounded up to the kernel's precision, as std returns it.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.socket.timeout(Direction::Write)
    }

    /// Reads without taking the bytes off the connection.
    ///
    /// # Errors
    ///
    /// As `read`.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        static PEEK: Op = Op("TcpStream::peek");
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        let request = self.request(&PEEK, Direction::Read, First::TryUnlessDrained);
        self.socket
            .source
            .perform(&request, |fd| rustix::net::recv(fd, &mut *buf, flags).map(|(_, bytes)| bytes))
    }

    /// Sets `TCP_NODELAY`: small writes are sent at once.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.socket.sock_ref()?.set_tcp_nodelay(nodelay)
    }

    /// Whether `TCP_NODELAY` is set.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.socket.sock_ref()?.tcp_nodelay()
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

    /// Takes the socket's pending error (`SO_ERROR`).
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.take_error()
    }

    /// Makes operations that would wait fail with `WouldBlock`, on all clones; or wait again.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        rustix::io::ioctl_fionbio(self.socket.fd()?, nonblocking)?;
        self.socket.set_nonblocking(nonblocking);
        Ok(())
    }

    #[inline]
    fn request(&self, op: &'static Op, direction: Direction, first: First) -> Request {
        Request { op, direction, limit: self.socket.limit(direction), first }
    }

    /// Reads up to `wanted` bytes by `receive`.
    #[inline]
    fn receive(
        &self,
        wanted: usize,
        mut receive: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
    ) -> io::Result<usize> {
        static READ: Op = Op("TcpStream::read");
        let request = self.request(&READ, Direction::Read, First::TryUnlessDrained);
        self.socket.source.perform(&request, |fd| {
            let bytes = receive(fd)?;
            if bytes > 0 && bytes < wanted && self.short_read_drains {
                self.socket.source.note_drained();
            }
            Ok(bytes)
        })
    }

    #[inline]
    fn send(
        &self,
        send: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
    ) -> io::Result<usize> {
        static WRITE: Op = Op("TcpStream::write");
        let request = self.request(&WRITE, Direction::Write, First::Try);
        self.socket.source.perform(&request, send)
    }
}

/// How a connection that was begun stands: `EAGAIN` while it is under way.
fn is_connected(fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    match rustix::net::getpeername(fd) {
        Ok(_) => Ok(()),
        Err(Errno::NOTCONN) => match sockopt::socket_error(fd)? {
            Err(error) => Err(error),
            Ok(()) => Err(Errno::AGAIN),
        },
        Err(error) => Err(error),
    }
}

const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

impl Read for &TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.receive(buf.len(), |fd| {
            rustix::net::recv(fd, &mut *buf, RecvFlags::DONTWAIT).map(|(_, bytes)| bytes)
        })
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let count = bufs.len().min(MOST_BUFFERS);
        let bufs = &mut bufs[..count];
        let wanted = bufs.iter().map(|buf| buf.len()).sum();
        self.receive(wanted, |fd| {
            let mut control = RecvAncillaryBuffer::default();
            rustix::net::recvmsg(fd, bufs, &mut control, RecvFlags::DONTWAIT)
                .map(|message| message.bytes)
        })
    }
}

impl Write for &TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.send(|fd| rustix::net::send(fd, buf, SEND))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let bufs = &bufs[..bufs.len().min(MOST_BUFFERS)];
        self.send(|fd| {
            let mut control = SendAncillaryBuffer::default();
            rustix::net::sendmsg(fd, bufs, &mut control, SEND)
        })
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TcpStream");
        if let Ok(addr) = self.local_addr() {
            debug.field("addr", &addr);
        }
        if let Ok(peer) = self.peer_addr() {
            debug.field("peer", &peer);
        }
        debug.field("fd", &self.as_raw_fd()).finish()
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl IntoRawFd for TcpStream {
    fn into_raw_fd(self) -> RawFd {
        OwnedFd::from(self).into_raw_fd()
    }
}

/// The stream waits as its descriptor is set: with `O_NONBLOCK`, operations fail with `WouldBlock`.
impl From<OwnedFd> for TcpStream {
    fn from(fd: OwnedFd) -> TcpStream {
        let protocol = sockopt::socket_protocol(&fd).ok().flatten();
        let short_read_drains = protocol == Some(rustix::net::ipproto::TCP);
        let nonblocking = is_nonblocking(&fd);
        TcpStream { socket: Socket::adopt(fd, nonblocking), short_read_drains }
    }
}

impl From<TcpStream> for OwnedFd {
    fn from(stream: TcpStream) -> OwnedFd {
        stream.socket.into_parts().0
    }
}

/// Keeps its mode and time limits.
impl From<std::net::TcpStream> for TcpStream {
    fn from(stream: std::net::TcpStream) -> TcpStream {
        OwnedFd::from(stream).into()
    }
}

/// Blocking, unless [`set_nonblocking`](TcpStream::set_nonblocking) said otherwise.
impl From<TcpStream> for std::net::TcpStream {
    fn from(stream: TcpStream) -> std::net::TcpStream {
        OwnedFd::from(stream).into()
    }
}

pub(super) fn is_nonblocking(fd: &OwnedFd) -> bool {
    rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(rustix::fs::OFlags::NONBLOCK))
}
