//! A TCP connection.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, RecvFlags, sockopt};
use strands_reactor::{Direction, First, Limit, ReadyOperation, Request, Source};
use strands_sched::Op;

use super::addr::{self, ToSocketAddrs};
use super::socket::{Socket, to_address, zero_timeout};
use crate::os::socket::{self, RECEIVE, SEND, STREAMS_BLOCK};
use crate::time::deadline_in;

/// A TCP connection: [`std::net::TcpStream`], in which a fiber waits without blocking its worker.
///
/// Dropping it closes it. All methods take `&self`: a reader and a writer, or a hundred of each,
/// may use one stream at once, in fibers and plain threads.
///
/// ```
/// use std::io::{Read, Write};
/// use strands::net::{Shutdown, TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// let server = strands::spawn(move || {
///     let (stream, _) = listener.accept()?;
///     std::io::copy(&mut &stream, &mut &stream)
/// });
/// let mut stream = TcpStream::connect(address)?;
/// stream.write_all(b"hello")?;
/// stream.shutdown(Shutdown::Write)?;
/// let mut answer = String::new();
/// stream.read_to_string(&mut answer)?;
/// assert_eq!(answer, "hello");
/// assert_eq!(server.join().unwrap()?, 5, "bytes copied");
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
    ///
    /// ```
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(("localhost", listener.local_addr()?.port()))?;
    /// assert_eq!(stream.peer_addr()?, listener.local_addr()?);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        addr::each(addr, |addr| TcpStream::connect_to(addr, Limit::None))
    }

    /// Connects to `addr`, within `timeout`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a timeout of zero; `TimedOut`; those of connecting.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use std::time::Duration;
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    /// assert_eq!(stream.peer_addr()?, address);
    /// let error = TcpStream::connect_timeout(&address, Duration::ZERO).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidInput);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        if timeout.is_zero() {
            return Err(zero_timeout());
        }
        let limit = deadline_in(timeout).map_or(Limit::None, Limit::Until);
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
        let stream = TcpStream::new(socket::stream(family)?);
        // One that was interrupted may be under way, or made: the second call tells.
        match retry_on_intr(|| rustix::net::connect(stream.source(), addr)) {
            Ok(()) | Err(Errno::ISCONN) => {}
            Err(error) if socket::is_connecting(error) => {
                let direction = Direction::Write;
                let request = Request { op: &CONNECT, direction, limit, first: First::Wait };
                stream.socket.source.perform(&request, is_connected)?;
            }
            Err(error) => return Err(error.into()),
        }
        if STREAMS_BLOCK {
            rustix::io::ioctl_fionbio(stream.source(), false)?;
        }
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
    ///
    /// ```
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert_eq!(stream.peer_addr()?, listener.local_addr()?);
    /// # std::io::Result::Ok(())
    /// ```
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
    ///
    /// ```
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// let (_, peer) = listener.accept()?;
    /// assert_eq!(stream.local_addr()?, peer);
    /// # std::io::Result::Ok(())
    /// ```
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
    ///
    /// ```
    /// use std::io::Read;
    /// use strands::net::{Shutdown, TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let client = TcpStream::connect(listener.local_addr()?)?;
    /// let (mut server, _) = listener.accept()?;
    /// let reader = strands::spawn(move || server.read(&mut [0; 8]));
    /// client.shutdown(Shutdown::Write)?;
    /// assert_eq!(reader.join().unwrap()?, 0, "the end");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        Ok(rustix::net::shutdown(self.socket.fd()?, how)?)
    }

    /// To wait until there is something to read, or the end, as one of several operations that
    /// [`select!`](crate::select!) or a [`Select`](crate::select::Select) chooses from. Nothing is read; somebody else may be faster.
    ///
    /// ```
    /// use std::io::Write;
    /// use std::time::Duration;
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let waits = strands::spawn(|| {
    ///     let listener = TcpListener::bind("127.0.0.1:0")?;
    ///     let mut client = TcpStream::connect(listener.local_addr()?)?;
    ///     let (server, _) = listener.accept()?;
    ///     let look = || {
    ///         strands::select! {
    ///             ready = readable(server) => ready.is_ok(),
    ///             _ = after(Duration::from_millis(1)) => false,
    ///         }
    ///     };
    ///     assert!(!look());
    ///     client.write_all(b"hello")?;
    ///     while !look() {} // It is on its way.
    ///     std::io::Result::Ok(())
    /// });
    /// waits.join().unwrap()?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn select_readable(&self) -> ReadyOperation<'_> {
        self.socket.source.select_ready(Direction::Read)
    }

    /// As [`select_readable`](Self::select_readable), until something can be written.
    ///
    /// ```
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let client = TcpStream::connect(listener.local_addr()?)?;
    /// strands::select! { ready = writable(client) => ready? }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn select_writable(&self) -> ReadyOperation<'_> {
        self.socket.source.select_ready(Direction::Write)
    }

    /// Closes this handle now, though it is shared: whoever waits in an operation on it, and
    /// whoever begins one later, gets an error of kind `NotConnected`. Clones go on.
    ///
    /// ```
    /// use std::io::{ErrorKind, Read};
    /// use std::sync::Arc;
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = Arc::new(TcpStream::connect(listener.local_addr()?)?);
    /// let its = stream.clone();
    /// let reader = strands::spawn(move || (&*its).read(&mut [0; 8]));
    /// stream.close();
    /// assert_eq!(reader.join().unwrap().unwrap_err().kind(), ErrorKind::NotConnected);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn close(&self) {
        self.socket.source.close();
    }

    /// Another handle to the same connection; options and time limits are shared.
    ///
    /// # Errors
    ///
    /// Those of the system, such as too many open files.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let mut writer = TcpStream::connect(listener.local_addr()?)?;
    /// let mut reader = writer.try_clone()?;
    /// let (server, _) = listener.accept()?;
    /// strands::spawn(move || std::io::copy(&mut &server, &mut &server));
    /// writer.write_all(b"echo")?;
    /// let mut echo = [0; 4];
    /// reader.read_exact(&mut echo)?;
    /// assert_eq!(&echo, b"echo");
    /// # std::io::Result::Ok(())
    /// ```
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
    ///
    /// ```
    /// use std::io::{ErrorKind, Read};
    /// use std::time::Duration;
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let silent = TcpListener::bind("127.0.0.1:0")?;
    /// let mut stream = TcpStream::connect(silent.local_addr()?)?;
    /// stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    /// assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_timeout(Direction::Read, timeout)
    }

    /// Limits how long a `write` waits; then it fails with `WouldBlock`, as std's on Unix.
    /// `None`: no limit.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero; those of the system.
    ///
    /// ```
    /// use std::io::{ErrorKind, Write};
    /// use std::time::Duration;
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let never_reads = TcpListener::bind("127.0.0.1:0")?;
    /// let mut stream = TcpStream::connect(never_reads.local_addr()?)?;
    /// stream.set_write_timeout(Some(Duration::from_millis(1)))?;
    /// let error = loop {
    ///     // Until the buffers of both ends are full.
    ///     if let Err(error) = stream.write(&[0; 65536]) {
    ///         break error;
    ///     }
    /// };
    /// assert_eq!(error.kind(), ErrorKind::WouldBlock);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_timeout(Direction::Write, timeout)
    }

    /// The limit on reads, rounded up to the kernel's precision, as std returns it.
    ///
    /// # Errors
    ///
    /// Those of the system.
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert_eq!(stream.read_timeout()?, None);
    /// stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    /// assert_eq!(stream.read_timeout()?, Some(Duration::from_secs(1)));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.socket.timeout(Direction::Read)
    }

    /// The limit on writes, rounded up to the kernel's precision, as std returns it.
    ///
    /// # Errors
    ///
    /// Those of the system.
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert_eq!(stream.write_timeout()?, None);
    /// stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    /// assert_eq!(stream.write_timeout()?, Some(Duration::from_secs(1)));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.socket.timeout(Direction::Write)
    }

    /// Reads without taking the bytes off the connection.
    ///
    /// # Errors
    ///
    /// As `read`.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let mut client = TcpStream::connect(listener.local_addr()?)?;
    /// let (mut server, _) = listener.accept()?;
    /// client.write_all(b"G")?;
    /// let mut first = [0];
    /// server.peek(&mut first)?; // Which protocol is it?
    /// assert_eq!(&first, b"G");
    /// server.read_exact(&mut first)?; // It is still there.
    /// assert_eq!(&first, b"G");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        static PEEK: Op = Op("TcpStream::peek");
        let flags = RECEIVE | RecvFlags::PEEK;
        let request = self.request(&PEEK, Direction::Read, First::TryUnlessDrained);
        let wanted = buf.len();
        let peeked = self.socket.source.perform(&request, |fd| {
            rustix::net::recv(fd, &mut *buf, flags).map(|(_, bytes)| bytes)
        });
        self.unless_nothing(wanted, peeked)
    }

    /// Sets `TCP_NODELAY`: small writes are sent at once.
    ///
    /// # Errors
    ///
    /// Those of the system.
    ///
    /// ```
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// stream.set_nodelay(true)?;
    /// assert!(stream.nodelay()?);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.socket.sock_ref()?.set_tcp_nodelay(nodelay)
    }

    /// Whether `TCP_NODELAY` is set.
    ///
    /// # Errors
    ///
    /// Those of the system.
    ///
    /// ```
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert!(!stream.nodelay()?, "off, until it is set");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn nodelay(&self) -> io::Result<bool> {
        self.socket.sock_ref()?.tcp_nodelay()
    }

    /// Sets the time to live of packets sent, in hops.
    ///
    /// # Errors
    ///
    /// Those of the system.
    ///
    /// ```
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// stream.set_ttl(1)?; // No router shall pass it on.
    /// assert_eq!(stream.ttl()?, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.socket.set_ttl(ttl)
    }

    /// The time to live of packets sent, in hops.
    ///
    /// # Errors
    ///
    /// Those of the system.
    ///
    /// ```
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert!(stream.ttl()? > 0);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn ttl(&self) -> io::Result<u32> {
        self.socket.ttl()
    }

    /// Takes the socket's pending error (`SO_ERROR`).
    ///
    /// # Errors
    ///
    /// Those of the system.
    ///
    /// ```
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// assert!(stream.take_error()?.is_none());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.take_error()
    }

    /// Makes operations that would wait fail with `WouldBlock`, on all clones; or wait again.
    ///
    /// # Errors
    ///
    /// Those of the system.
    ///
    /// ```
    /// use std::io::{ErrorKind, Read};
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let mut stream = TcpStream::connect(listener.local_addr()?)?;
    /// stream.set_nonblocking(true)?;
    /// assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        rustix::io::ioctl_fionbio(self.socket.fd()?, nonblocking || !STREAMS_BLOCK)?;
        self.socket.set_nonblocking(nonblocking);
        Ok(())
    }

    pub(crate) fn source(&self) -> &Source {
        &self.socket.source
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
        let received = self.socket.source.perform(&request, |fd| {
            let bytes = receive(fd)?;
            if bytes > 0 && bytes < wanted && self.short_read_drains {
                self.socket.source.note_drained();
            }
            Ok(bytes)
        });
        self.unless_nothing(wanted, received)
    }

    /// Who wants no bytes waits for some, but has what it wanted when the time is up.
    #[inline]
    fn unless_nothing(&self, wanted: usize, received: io::Result<usize>) -> io::Result<usize> {
        match received {
            Err(error)
                if wanted == 0
                    && error.kind() == io::ErrorKind::WouldBlock
                    && !self.socket.is_nonblocking() =>
            {
                Ok(0)
            }
            received => received,
        }
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

impl Read for &TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.receive(buf.len(), |fd| {
            rustix::net::recv(fd, &mut *buf, RECEIVE).map(|(_, bytes)| bytes)
        })
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let count = bufs.len().min(MOST_BUFFERS);
        let bufs = &mut bufs[..count];
        let wanted = bufs.iter().map(|buf| buf.len()).sum();
        if wanted == 0 {
            return Ok(0); // Here std does not wait: `readv` does not, though `recv` does.
        }
        self.receive(wanted, |fd| socket::receive_vectored(fd, bufs))
    }
}

impl Write for &TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.send(|fd| rustix::net::send(fd, buf, SEND))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let bufs = &bufs[..bufs.len().min(MOST_BUFFERS)];
        self.send(|fd| socket::send_vectored(fd, bufs))
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
        debug.field(socket::DESCRIPTOR, &self.as_raw_fd()).finish()
    }
}

/// The stream waits as its descriptor is set: with `O_NONBLOCK`, operations fail with `WouldBlock`.
impl From<OwnedFd> for TcpStream {
    fn from(fd: OwnedFd) -> TcpStream {
        let short_read_drains = socket::is_tcp(fd.as_fd());
        let nonblocking = socket::is_nonblocking(&fd);
        if !STREAMS_BLOCK {
            // It fails for what is no socket; then so will everything else.
            let _ = rustix::io::ioctl_fionbio(&fd, true);
        }
        TcpStream { socket: Socket::adopt(fd, nonblocking), short_read_drains }
    }
}

impl From<TcpStream> for OwnedFd {
    fn from(stream: TcpStream) -> OwnedFd {
        let (fd, nonblocking) = stream.socket.into_parts();
        if !STREAMS_BLOCK {
            // As above.
            let _ = rustix::io::ioctl_fionbio(&fd, nonblocking);
        }
        fd
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
