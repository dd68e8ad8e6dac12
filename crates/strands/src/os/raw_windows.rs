//! Handles and sockets, as in `std::os::windows::io`. The one place in this crate, on Windows, where
//! `unsafe` is allowed: a raw socket becomes a handle.

#![allow(unsafe_code)]

use std::os::windows::io::{
    AsRawSocket, AsSocket, BorrowedSocket, FromRawSocket, IntoRawSocket, OwnedSocket, RawSocket,
};

use crate::net::{TcpListener, TcpStream};

/// For types that have a source, and that an [`OwnedSocket`] can be turned into and made of.
macro_rules! socket_traits {
    ($($type:ty),*) => {$(
        impl AsSocket for $type {
            fn as_socket(&self) -> BorrowedSocket<'_> {
                self.source().expose();
                self.source().as_socket()
            }
        }

        impl AsRawSocket for $type {
            fn as_raw_socket(&self) -> RawSocket {
                self.as_socket().as_raw_socket()
            }
        }

        impl IntoRawSocket for $type {
            fn into_raw_socket(self) -> RawSocket {
                OwnedSocket::from(self).into_raw_socket()
            }
        }

        impl FromRawSocket for $type {
            unsafe fn from_raw_socket(socket: RawSocket) -> $type {
                // SAFETY: the caller's promise is the same: `socket` is open, and theirs to give.
                unsafe { OwnedSocket::from_raw_socket(socket) }.into()
            }
        }
    )*};
}

socket_traits!(TcpListener, TcpStream);
