//! A descriptor whose end holds up no worker.
//!
//! To close a socket that lingers (`SO_LINGER`, with a time above zero) takes until the peer has what was
//! sent, or until that time is up, whether the descriptor is blocking or not. A fiber has it done by the
//! blocking pool, and is suspended meanwhile.
//!
//! Nothing here makes a socket linger. So whether one does is asked only where others know, or knew, the
//! descriptor: all that were *exposed*. The rest is closed without a system call more, which would
//! cost a server some 2 % of a short connection.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::sockopt;
use strands_sched::{unblock, uncancellable};

use crate::backend::replace_by_dead_end;

pub(crate) struct Descriptor {
    /// None once it was given back.
    fd: Option<OwnedFd>,
    exposed: AtomicBool,
}

impl Descriptor {
    pub(crate) fn new(fd: OwnedFd) -> Descriptor {
        Descriptor { fd: Some(fd), exposed: AtomicBool::new(false) }
    }

    #[inline]
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("only its owner can give it back").as_fd()
    }

    pub(crate) fn expose(&self) {
        self.exposed.store(true, Relaxed);
    }

    pub(crate) fn is_exposed(&self) -> bool {
        self.exposed.load(Relaxed)
    }

    pub(crate) fn into_fd(mut self) -> OwnedFd {
        self.fd.take().expect("only its owner can give it back")
    }

    /// Closes what it leads to; its number stays taken.
    pub(crate) fn close_early(&self) {
        // If no descriptor can be had for the dead end, it is closed when this is dropped.
        let close = || drop(replace_by_dead_end(self.as_fd()));
        if self.lingers() { where_it_may_block(close) } else { close() }
    }

    fn lingers(&self) -> bool {
        let time = || sockopt::socket_linger(self.as_fd()).ok().flatten();
        self.is_exposed() && time().is_some_and(|time| !time.is_zero())
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.fd.is_some() && self.lingers() {
            let fd = self.fd.take();
            where_it_may_block(move || drop(fd));
        }
    }
}

fn where_it_may_block(close: impl FnOnce() + Send) {
    // A cancel would drop `close`, and so close it here.
    uncancellable(|| unblock(close));
}
