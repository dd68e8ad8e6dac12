//! Handles and descriptors, as in `std::os::fd`. The one place in this crate, on Unix, where `unsafe`
//! is allowed: a raw descriptor becomes a handle.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use crate::net::{TcpListener, TcpStream};

/// For types that have a source, and that an [`OwnedFd`] can be turned into and made of.
macro_rules! descriptor_traits {
    ($($type:ty),*) => {$(
        impl AsFd for $type {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.source().expose();
                self.source().as_fd()
            }
        }

        impl AsRawFd for $type {
            fn as_raw_fd(&self) -> RawFd {
                self.as_fd().as_raw_fd()
            }
        }

        impl IntoRawFd for $type {
            fn into_raw_fd(self) -> RawFd {
                OwnedFd::from(self).into_raw_fd()
            }
        }

        impl FromRawFd for $type {
            unsafe fn from_raw_fd(fd: RawFd) -> $type {
                // SAFETY: the caller's promise is the same: `fd` is open, and theirs to give.
                unsafe { OwnedFd::from_raw_fd(fd) }.into()
            }
        }
    )*};
}

descriptor_traits!(TcpListener, TcpStream);
