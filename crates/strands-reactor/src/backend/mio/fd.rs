//! Unix: the kernel knows what is in.

use std::io;
use std::os::fd::RawFd;

use mio::Registry;
use mio::unix::SourceFd;

use super::{BOTH, word};
use crate::slot::Token;

/// Edges go on until the descriptor is taken out.
pub(crate) const EDGES_STOP: bool = false;

pub(super) struct Members;

impl Members {
    pub(super) fn new() -> Members {
        Members
    }

    pub(super) fn add(&self, registry: &Registry, fd: RawFd, token: Token) -> io::Result<()> {
        let added = registry.register(&mut SourceFd(&fd), word(token), BOTH);
        match added {
            // A raw `close(2)` left another tenant's registration for this number and file.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(registry, fd);
                registry.register(&mut SourceFd(&fd), word(token), BOTH)
            }
            added => added,
        }
    }

    pub(super) fn remove(&self, registry: &Registry, fd: RawFd) {
        // It fails if the descriptor was closed behind our back: then it is out, or its token is
        // stale.
        let _ = registry.deregister(&mut SourceFd(&fd));
    }
}
