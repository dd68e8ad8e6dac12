//! Names to addresses.

use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::option;
use std::slice;
use std::vec;

/// What can be turned into socket addresses: [`std::net::ToSocketAddrs`], for the same types.
///
/// Addresses are parsed in place. A name is looked up by the system's resolver on the runtime's
/// pool of blocking threads, while the fiber is suspended; on a plain thread it blocks the thread.
///
/// ```
/// use strands::net::ToSocketAddrs;
///
/// let addresses: Vec<_> = "localhost:80".to_socket_addrs()?.collect();
/// assert!(!addresses.is_empty() && addresses.iter().all(|address| address.port() == 80));
/// let parsed = ("127.0.0.1", 8080).to_socket_addrs()?.next();
/// assert_eq!(parsed, Some("127.0.0.1:8080".parse().unwrap()));
/// # std::io::Result::Ok(())
/// ```
pub trait ToSocketAddrs {
    /// The addresses, in the order in which they are to be tried.
    type Iter: Iterator<Item = SocketAddr>;

    /// Turns it into addresses.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a string that is no address and no `host:port`; those of the resolver.
    fn to_socket_addrs(&self) -> io::Result<Self::Iter>;
}

/// For an address, and for types that one can be made of.
macro_rules! from_address {
    ($($type:ty),*) => {$(
        impl ToSocketAddrs for $type {
            type Iter = option::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
                Ok(Some(SocketAddr::from(*self)).into_iter())
            }
        }
    )*};
}

from_address!(
    SocketAddr,
    SocketAddrV4,
    SocketAddrV6,
    (IpAddr, u16),
    (Ipv4Addr, u16),
    (Ipv6Addr, u16)
);

impl ToSocketAddrs for (&str, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let (host, port) = *self;
        match host.parse::<IpAddr>() {
            Ok(address) => Ok(vec![SocketAddr::new(address, port)].into_iter()),
            Err(_) => look_up(*self),
        }
    }
}

impl ToSocketAddrs for (String, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        (self.0.as_str(), self.1).to_socket_addrs()
    }
}

impl ToSocketAddrs for str {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        match self.parse() {
            Ok(address) => Ok(vec![address].into_iter()),
            Err(_) => look_up(self),
        }
    }
}

impl ToSocketAddrs for String {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        self.as_str().to_socket_addrs()
    }
}

impl<'a> ToSocketAddrs for &'a [SocketAddr] {
    type Iter = iter::Cloned<slice::Iter<'a, SocketAddr>>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(self.iter().cloned())
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    type Iter = T::Iter;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        (**self).to_socket_addrs()
    }
}

/// Asks the system's resolver, which blocks.
fn look_up(
    name: impl std::net::ToSocketAddrs<Iter = vec::IntoIter<SocketAddr>> + Send + Sync,
) -> io::Result<vec::IntoIter<SocketAddr>> {
    strands_sched::unblock(|| name.to_socket_addrs())
}

/// Does `f` with each address until it succeeds; returns the last error.
pub(super) fn each<T>(
    addresses: impl ToSocketAddrs,
    mut f: impl FnMut(&SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for address in addresses.to_socket_addrs()? {
        match f(&address) {
            Ok(value) => return Ok(value),
            Err(error) if crate::cancel::is_cancel_error(&error) => return Err(error),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "could not resolve to any addresses")
    }))
}
