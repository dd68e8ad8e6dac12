//! A TCP socket that accepts connections.

use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::net::SocketAddr;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, sockopt};
use strands_reactor::{Direction, First, ReadyOperation, Request, Source};
use strands_sched::Op;

use super::addr::{self, ToSocketAddrs};
use super::socket::{Socket, to_address};
use super::stream::TcpStream;
use crate::os::socket;

/// A TCP socket that accepts connections: [`std::net::TcpListener`], in which a fiber waits
/// without blocking its worker.
///
/// ```
/// use std::io::{self, Read, Write};
/// use strands::net::{TcpListener, TcpStream};
/// use strands::thread;
///
/// fn echo(listener: TcpListener) -> io::Result<()> {
///     for stream in listener.incoming() {
///         let stream = stream?;
///         thread::spawn(move || io::copy(&mut &stream, &mut &stream));
///     }
///     Ok(())
/// }
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut client = TcpStream::connect(listener.local_addr()?)?;
/// thread::spawn(|| echo(listener));
/// client.write_all(b"hello")?;
/// let mut answer = [0; 5];
/// client.read_exact(&mut answer)?;
/// assert_eq!(&answer, b"hello");
/// # io::Result::Ok(())
/// ```
pub struct TcpListener {
    socket: Socket,
}

/// The connections that a listener accepts, without end. Made by [`TcpListener::incoming`].
///
/// ```
/// use strands::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// let server = listener.incoming().next().expect("it never ends")?;
/// assert_eq!(server.peer_addr()?, client.local_addr()?);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

/// Connections that wait to be accepted, as std's.
const BACKLOG: i32 = 128;

impl TcpListener {
    /// Listens at the first of the addresses that can be had. With `SO_REUSEADDR` except on Windows,
    /// as std's.
    ///
    /// # Errors
    ///
    /// That of the last address tried; `InvalidInput` if there is none.
    ///
    /// ```
    /// let listener = strands::net::TcpListener::bind("127.0.0.1:0")?; // 0: any port that is free.
    /// assert_ne!(listener.local_addr()?.port(), 0);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        addr::each(addr, |addr| {
            let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let fd = socket::stream(family)?;
            if socket::REUSE_ADDRESS {
                sockopt::set_socket_reuseaddr(&fd, true)?;
            }
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
    ///
    /// ```
    /// let listener = strands::net::TcpListener::bind("[::1]:0")
    ///     .or_else(|_| strands::net::TcpListener::bind("127.0.0.1:0"))?;
    /// assert!(listener.local_addr()?.ip().is_loopback());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Another handle to the same socket; options are shared.
    ///
    /// # Errors
    ///
    /// Those of the system, such as too many open files.
    ///
    /// ```
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let second = listener.try_clone()?;
    /// let acceptor = strands::spawn(move || second.accept().map(|(_, peer)| peer));
    /// let client = TcpStream::connect(listener.local_addr()?)?;
    /// assert_eq!(acceptor.join().unwrap()?, client.local_addr()?);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        Ok(TcpListener { socket: self.socket.try_clone()? })
    }

    /// To wait until there is a connection to accept, as one of several operations that [`select!`](crate::select!)
    /// or a [`Select`](crate::select::Select) chooses from. Nothing is accepted; somebody else may be faster.
    ///
    /// ```
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let client = TcpStream::connect(listener.local_addr()?)?;
    /// let (stream, _) = strands::select! {
    ///     ready = readable(listener) => ready.and_then(|()| listener.accept())?,
    ///     _ = after(std::time::Duration::from_secs(60)) => panic!("nobody connects"),
    /// };
    /// assert_eq!(stream.peer_addr()?, client.local_addr()?);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn select_readable(&self) -> ReadyOperation<'_> {
        self.socket.source.select_ready(Direction::Read)
    }

    /// Closes this handle now, though it is shared: whoever waits in [`accept`](Self::accept) on
    /// it, and whoever begins to, gets an error of kind `NotConnected`. Clones go on.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use std::sync::Arc;
    /// use strands::net::TcpListener;
    ///
    /// let listener = Arc::new(TcpListener::bind("127.0.0.1:0")?);
    /// let its = listener.clone();
    /// let acceptor = strands::spawn(move || its.accept());
    /// listener.close();
    /// assert_eq!(acceptor.join().unwrap().unwrap_err().kind(), ErrorKind::NotConnected);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn close(&self) {
        self.socket.source.close();
    }

    /// Waits for a connection and accepts it. Any number of fibers and threads may do so at once.
    ///
    /// # Errors
    ///
    /// Those of the system. After "too many open files" the connection waits for the next `accept`.
    ///
    /// ```
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let client = strands::spawn(move || TcpStream::connect(address)?.local_addr());
    /// let (_stream, peer) = listener.accept()?;
    /// assert_eq!(peer, client.join().unwrap()?);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        static ACCEPT: Op = Op("TcpListener::accept");
        let direction = Direction::Read;
        let limit = self.socket.limit(direction);
        let request = Request { op: &ACCEPT, direction, limit, first: First::Try };
        let (fd, address) = self.socket.source.perform(&request, |fd| {
            if self.socket.is_shared_with_blocking() {
                is_readable(fd)?;
            }
            socket::accept(fd)
        })?;
        let stream = TcpStream::new(fd);
        if self.socket.source.is_exposed() {
            stream.source().expose(); // It lingers if the listener was told to.
        }
        let address = address.map_or_else(|| stream.peer_addr(), to_address)?;
        Ok((stream, address))
    }

    /// The connections, as [`accept`](Self::accept) returns them; never ends.
    ///
    /// ```
    /// use std::io::Write;
    /// use strands::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// strands::spawn(move || {
    ///     for stream in listener.incoming() {
    ///         stream?.write_all(b"welcome")?;
    ///     }
    ///     std::io::Result::Ok(())
    /// });
    /// for _ in 0..3 {
    ///     let greeting = std::io::read_to_string(TcpStream::connect(address)?)?;
    ///     assert_eq!(greeting, "welcome");
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Sets the time to live of packets sent, in hops.
    ///
    /// # Errors
    ///
    /// Those of the system.
    ///
    /// ```
    /// let listener = strands::net::TcpListener::bind("127.0.0.1:0")?;
    /// listener.set_ttl(32)?;
    /// assert_eq!(listener.ttl()?, 32);
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
    /// let listener = strands::net::TcpListener::bind("127.0.0.1:0")?;
    /// assert!(listener.ttl()? > 0);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn ttl(&self) -> io::Result<u32> {
        self.socket.ttl()
    }

    /// Sets `IPV6_V6ONLY`.
    ///
    /// # Errors
    ///
    /// Those of the system: it can only be set before the socket is bound.
    ///
    /// ```
    /// let listener = strands::net::TcpListener::bind("127.0.0.1:0")?;
    /// # #[allow(deprecated)]
    /// let result = listener.set_only_v6(true);
    /// assert!(result.is_err());
    /// # std::io::Result::Ok(())
    /// ```
    #[deprecated(note = "as in std: it can only be set before the socket is bound")]
    pub fn set_only_v6(&self, only_v6: bool) -> io::Result<()> {
        self.socket.sock_ref()?.set_only_v6(only_v6)
    }

    /// Whether `IPV6_V6ONLY` is set.
    ///
    /// # Errors
    ///
    /// Those of the system.
    ///
    /// ```
    /// // Only a socket that is an IPv6 one has the option, and not every machine has IPv6.
    /// if let Ok(listener) = strands::net::TcpListener::bind("[::1]:0") {
    ///     # #[allow(deprecated)]
    ///     let only_v6 = listener.only_v6()?;
    ///     println!("{}", if only_v6 { "IPv6 alone" } else { "IPv4 as well" });
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    #[deprecated(note = "as in std: it can only be set before the socket is bound")]
    pub fn only_v6(&self) -> io::Result<bool> {
        self.socket.sock_ref()?.only_v6()
    }

    /// Takes the socket's pending error (`SO_ERROR`).
    ///
    /// # Errors
    ///
    /// Those of the system.
    ///
    /// ```
    /// let listener = strands::net::TcpListener::bind("127.0.0.1:0")?;
    /// assert!(listener.take_error()?.is_none());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.take_error()
    }

    /// Makes [`accept`](Self::accept) fail with `WouldBlock` where it would wait, on all clones;
    /// or wait again.
    ///
    /// # Errors
    ///
    /// `NotConnected` if the handle was closed.
    ///
    /// ```
    /// let listener = strands::net::TcpListener::bind("127.0.0.1:0")?;
    /// listener.set_nonblocking(true)?;
    /// assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        // The descriptor itself stays non-blocking.
        self.socket.fd()?;
        self.socket.set_nonblocking(nonblocking);
        Ok(())
    }

    pub(crate) fn source(&self) -> &Source {
        &self.socket.source
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
        debug.field(socket::DESCRIPTOR, &self.as_raw_fd()).finish()
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
        let nonblocking = socket::is_nonblocking(&fd);
        TcpListener::adopt(fd, nonblocking)
    }
}

/// Blocking, unless [`set_nonblocking`](TcpListener::set_nonblocking) said otherwise.
impl From<TcpListener> for std::net::TcpListener {
    fn from(listener: TcpListener) -> std::net::TcpListener {
        OwnedFd::from(listener).into()
    }
}
