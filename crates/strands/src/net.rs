//! TCP, as in [`std::net`].
//!
//! The types, methods, errors and corner cases are std's; only the wait is another: in a fiber an
//! operation suspends the fiber, and on a plain thread it blocks the thread. A handle may be used
//! by any number of both at once.
//!
//! # Cancellation
//!
//! A fiber that is cancelled in [`connect`](TcpStream::connect), [`accept`](TcpListener::accept),
//! `read`, `write` or [`peek`](TcpStream::peek) unwinds from there, and the call has had no
//! effect: no byte and no connection is lost. A call that has succeeded returns normally. Calls
//! that are made of several of these (`read_exact`, `write_all`, `std::io::copy`) keep this
//! promise for each part only.
//!
//! # Beyond std
//!
//! [`TcpListener::close`] and [`TcpStream::close`] end the operations of everybody who shares the
//! handle.
//!
//! # The descriptor's mode
//!
//! A stream's descriptor is a blocking one, as std's: strands passes `MSG_DONTWAIT` with each
//! call instead of changing a mode that all duplicates share. A listener's is non-blocking, as
//! `accept` has no such flag, and becomes blocking again when it is converted to a std type or
//! taken out. On Apple's systems `send` has no such flag either: there a stream is as a listener
//! is, and a clone of one that was taken out may block its worker when it writes.
//!
//! A socket that lingers ([`socket2`'s `set_linger`](https://docs.rs/socket2)) with a time above
//! zero suspends the fiber that closes it for up to that time, as it blocks a thread; meanwhile it
//! takes one of the threads for [blocking work](crate::unblock).

mod addr;
mod listener;
mod socket;
mod stream;

pub use std::net::{
    AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6,
};

pub use addr::ToSocketAddrs;
pub use listener::{Incoming, TcpListener};
pub use stream::TcpStream;
