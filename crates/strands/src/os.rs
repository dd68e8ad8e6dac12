//! What belongs to one operating system, as in [`std::os`].

mod raw;

/// Descriptors, as in [`std::os::fd`]. strands' types implement its traits.
pub mod fd {
    pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
}

/// Unix, as in [`std::os::unix`].
pub mod unix {
    /// Descriptors, as in [`std::os::unix::io`].
    pub mod io {
        pub use super::super::fd::{
            AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd,
        };
    }
}

/// Linux, as in [`std::os::linux`].
#[cfg(target_os = "linux")]
pub mod linux {
    /// TCP, as in [`std::os::linux::net`].
    pub mod net {
        use std::io;

        /// What TCP can do on Linux only: [`std::os::linux::net::TcpStreamExt`].
        pub trait TcpStreamExt {
            /// Sets `TCP_QUICKACK`: acknowledgements are sent at once. The kernel takes it back
            /// when it sees fit.
            ///
            /// # Errors
            ///
            /// Those of the system.
            fn set_quickack(&self, quickack: bool) -> io::Result<()>;

            /// Whether `TCP_QUICKACK` is set.
            ///
            /// # Errors
            ///
            /// Those of the system.
            fn quickack(&self) -> io::Result<bool>;
        }

        impl TcpStreamExt for crate::net::TcpStream {
            fn set_quickack(&self, quickack: bool) -> io::Result<()> {
                Ok(rustix::net::sockopt::set_tcp_quickack(self, quickack)?)
            }

            fn quickack(&self) -> io::Result<bool> {
                Ok(rustix::net::sockopt::tcp_quickack(self)?)
            }
        }
    }
}
