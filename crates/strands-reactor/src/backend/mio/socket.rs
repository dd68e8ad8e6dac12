//! Windows: mio keeps the state of each socket in a socket type of its own.
//!
//! AFD answers a question ("which of these are possible, now or as soon as one is?") once. mio
//! turns the answers into edges: it leaves out what it has reported until one of *its* calls on
//! *its* socket has met `WSAEWOULDBLOCK`, or the socket is registered again. Our calls are made on
//! our own handle, so whoever has met `WSAEWOULDBLOCK` and begins to wait does the latter:
//! [`EDGES_STOP`]. The question is put by the next poll, which the waiter's worker begins after the
//! waiter has parked, and the answer says what is possible at that time; nothing that came in
//! between is lost, nor what comes after.
//!
//! A waiter who is passed the turn needs no question: it has one pending, or looks now and asks
//! then. As both directions are asked for at once, an answer "can be written" comes with most
//! waits to read; it wakes nobody if nobody waits for it.

use std::collections::HashMap;
use std::io;
use std::mem::ManuallyDrop;
use std::os::windows::io::{FromRawSocket, IntoRawSocket, RawSocket};
use std::sync::{Mutex, MutexGuard};

use mio::Registry;
use mio::net::TcpStream;

use super::{BOTH, word};
use crate::slot::Token;

/// Each direction is reported once for each `add`.
pub(crate) const EDGES_STOP: bool = true;

pub(super) struct Members {
    sockets: Mutex<HashMap<RawSocket, Member>>,
}

/// A socket as mio's type, whatever it is: only registered, never used for I/O, and never closed,
/// as it is not ours.
struct Member {
    stream: ManuallyDrop<TcpStream>,
    token: Token,
}

impl Member {
    fn register(registry: &Registry, socket: RawSocket, token: Token) -> io::Result<Member> {
        // SAFETY: the socket is open, by the contract of `Registrar`, until this is out of the
        // map and dropped; and `drop` does not close it.
        let stream = ManuallyDrop::new(unsafe { TcpStream::from_raw_socket(socket) });
        let mut member = Member { stream, token };
        registry.register(&mut *member.stream, word(token), BOTH)?;
        Ok(member)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // SAFETY: not used again.
        let stream = unsafe { ManuallyDrop::take(&mut self.stream) };
        // Drops mio's state, which ends the question under way, and leaves the socket open.
        let _ = stream.into_raw_socket();
    }
}

impl Members {
    pub(super) fn new() -> Members {
        Members { sockets: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RawSocket, Member>> {
        self.sockets.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn add(&self, registry: &Registry, fd: RawSocket, token: Token) -> io::Result<()> {
        let mut sockets = self.lock();
        if let Some(member) = sockets.get_mut(&fd).filter(|member| member.token == token) {
            return registry.reregister(&mut *member.stream, word(token), BOTH);
        }
        // What a raw `closesocket` may have left for this number goes first.
        sockets.remove(&fd);
        sockets.insert(fd, Member::register(registry, fd, token)?);
        Ok(())
    }

    pub(super) fn remove(&self, _: &Registry, fd: RawSocket) {
        self.lock().remove(&fd);
    }
}
