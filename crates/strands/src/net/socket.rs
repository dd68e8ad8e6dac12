//! What streams and listeners share: a source, and the options that std keeps in the socket.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::net::{SocketAddrAny, sockopt};
use socket2::SockRef;
use strands_reactor::{Direction, Limit, Source};

pub(super) struct Socket {
    pub(super) source: Source,
    /// Shared with clones, which share the socket. Made when first needed: most sockets have none.
    options: OnceLock<Arc<Options>>,
}

/// What decides how long operations wait.
#[derive(Default)]
pub(super) struct Options {
    /// 0: no limit.
    read_timeout_ns: AtomicU64,
    write_timeout_ns: AtomicU64,
    nonblocking: AtomicBool,
    /// A clone was converted to a blocking descriptor.
    is_shared_with_blocking: AtomicBool,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Socket {
        Socket { source: Source::new(fd), options: OnceLock::new() }
    }

    /// A socket that others have set up. What it lacks counts as not set.
    pub(super) fn adopt(fd: OwnedFd, nonblocking: bool) -> Socket {
        let socket = SockRef::from(&fd);
        let timeout_ns = |timeout: io::Result<_>| timeout.ok().flatten().map_or(0, whole_ns);
        let options = Options {
            read_timeout_ns: timeout_ns(socket.read_timeout()).into(),
            write_timeout_ns: timeout_ns(socket.write_timeout()).into(),
            nonblocking: nonblocking.into(),
            is_shared_with_blocking: false.into(),
        };
        let source = Source::new(fd);
        source.expose();
        Socket { source, options: OnceLock::from(Arc::new(options)) }
    }

    /// The descriptor, unless the handle was closed.
    pub(super) fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.source.open_fd()
    }

    /// For options that socket2 knows.
    pub(super) fn sock_ref(&self) -> io::Result<SockRef<'_>> {
        Ok(SockRef::from(&self.source_if_open()?.source))
    }

    fn source_if_open(&self) -> io::Result<&Socket> {
        self.fd().map(|_| self)
    }

    pub(super) fn try_clone(&self) -> io::Result<Socket> {
        let fd = self.fd()?.try_clone_to_owned()?;
        let options = self.options().clone();
        let source = Source::new(fd);
        self.source.expose();
        source.expose();
        Ok(Socket { source, options: OnceLock::from(options) })
    }

    /// The descriptor, and whether its user wants it non-blocking. Clones learn that its mode may
    /// not be what they rely on.
    pub(super) fn into_parts(self) -> (OwnedFd, bool) {
        let nonblocking = self.is_nonblocking();
        if let Some(options) = self.options.get().filter(|options| Arc::strong_count(options) > 1) {
            options.is_shared_with_blocking.store(true, Relaxed);
        }
        (self.source.into_fd(), nonblocking)
    }

    fn options(&self) -> &Arc<Options> {
        self.options.get_or_init(Arc::default)
    }

    /// How long an operation may wait.
    #[inline]
    pub(super) fn limit(&self, direction: Direction) -> Limit {
        self.options.get().map_or(Limit::None, |options| options.limit(direction))
    }

    pub(super) fn is_nonblocking(&self) -> bool {
        self.options.get().is_some_and(|options| options.nonblocking.load(Relaxed))
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) {
        self.options().nonblocking.store(nonblocking, Relaxed);
    }

    pub(super) fn is_shared_with_blocking(&self) -> bool {
        self.options.get().is_some_and(|options| options.is_shared_with_blocking.load(Relaxed))
    }

    /// Sets `SO_RCVTIMEO` or `SO_SNDTIMEO`, for whoever takes the descriptor out, and the limit
    /// that is used here, to the nanosecond.
    pub(super) fn set_timeout(
        &self,
        direction: Direction,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return Err(zero_timeout());
        }
        let (socket, representable) = (self.sock_ref()?, timeout.map(at_least_a_microsecond));
        match direction {
            Direction::Read => socket.set_read_timeout(representable),
            Direction::Write => socket.set_write_timeout(representable),
        }?;
        let ns = timeout.map_or(0, whole_ns);
        self.options().timeout_ns(direction).store(ns, Relaxed);
        Ok(())
    }

    /// As the kernel rounded it.
    pub(super) fn timeout(&self, direction: Direction) -> io::Result<Option<Duration>> {
        let socket = self.sock_ref()?;
        match direction {
            Direction::Read => socket.read_timeout(),
            Direction::Write => socket.write_timeout(),
        }
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        to_address(rustix::net::getsockname(self.fd()?)?)
    }

    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(sockopt::socket_error(self.fd()?)?.err().map(io::Error::from))
    }

    pub(super) fn ttl(&self) -> io::Result<u32> {
        self.sock_ref()?.ttl_v4()
    }

    pub(super) fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.sock_ref()?.set_ttl_v4(ttl)
    }
}

impl Options {
    fn timeout_ns(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::Read => &self.read_timeout_ns,
            Direction::Write => &self.write_timeout_ns,
        }
    }

    fn limit(&self, direction: Direction) -> Limit {
        if self.nonblocking.load(Relaxed) {
            return Limit::Now;
        }
        match self.timeout_ns(direction).load(Relaxed) {
            0 => Limit::None,
            ns => Limit::Within(Duration::from_nanos(ns)),
        }
    }
}

/// The error of a time limit of zero.
pub(super) fn zero_timeout() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "cannot set a 0 duration timeout")
}

pub(super) fn to_address(address: SocketAddrAny) -> io::Result<SocketAddr> {
    SocketAddr::try_from(address)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "invalid argument"))
}

/// More than 584 years are no limit.
fn whole_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(0)
}

/// The kernel counts microseconds, and takes none of them for no limit.
fn at_least_a_microsecond(time: Duration) -> Duration {
    time.max(Duration::from_micros(1))
}
