//! The one place in this crate where `unsafe` is allowed: a raw descriptor becomes a handle.

#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::net::{TcpListener, TcpStream};

/// For types that an [`OwnedFd`] can be turned into.
macro_rules! from_raw_fd {
    ($($type:ty),*) => {$(
        impl FromRawFd for $type {
            unsafe fn from_raw_fd(fd: RawFd) -> $type {
                // SAFETY: the caller's promise is the same: `fd` is open, and theirs to give.
                unsafe { OwnedFd::from_raw_fd(fd) }.into()
            }
        }
    )*};
}

from_raw_fd!(TcpListener, TcpStream);
