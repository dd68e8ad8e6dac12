//! What belongs to one operating system, as in [`std::os`].

#[cfg_attr(unix, path = "os/debug_unix.rs")]
#[cfg_attr(windows, path = "os/debug_windows.rs")]
pub(crate) mod debug;
#[cfg_attr(unix, path = "os/raw_unix.rs")]
#[cfg_attr(windows, path = "os/raw_windows.rs")]
mod raw;
pub(crate) mod socket;

/// Descriptors, as in [`std::os::fd`]. strands' types implement its traits.
#[cfg(unix)]
pub mod fd {
    pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
}

/// Unix, as in [`std::os::unix`].
#[cfg(unix)]
pub mod unix {
    /// Descriptors, as in [`std::os::unix::io`].
    pub mod io {
        pub use super::super::fd::{
            AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd,
        };
    }
}

/// Windows, as in [`std::os::windows`].
#[cfg(windows)]
pub mod windows {
    /// Sockets, as in [`std::os::windows::io`]. strands' types implement its traits.
    pub mod io {
        pub use std::os::windows::io::{
            AsRawSocket, AsSocket, BorrowedSocket, FromRawSocket, IntoRawSocket, OwnedSocket,
            RawSocket,
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
        ///
        /// ```
        /// use strands::net::{TcpListener, TcpStream};
        /// use strands::os::linux::net::TcpStreamExt;
        ///
        /// let listener = TcpListener::bind("127.0.0.1:0")?;
        /// let stream = TcpStream::connect(listener.local_addr()?)?;
        /// stream.set_quickack(true)?;
        /// println!("quick acknowledgements: {}", stream.quickack()?);
        /// # std::io::Result::Ok(())
        /// ```
        pub trait TcpStreamExt {
            /// Sets `TCP_QUICKACK`: acknowledgements are sent at once. The kernel takes it back
            /// when it sees fit.
            ///
            /// # Errors
            ///
            /// Those of the system.
            ///
            /// ```
            /// use strands::net::{TcpListener, TcpStream};
            /// use strands::os::linux::net::TcpStreamExt;
            ///
            /// let listener = TcpListener::bind("127.0.0.1:0")?;
            /// TcpStream::connect(listener.local_addr()?)?.set_quickack(false)?;
            /// # std::io::Result::Ok(())
            /// ```
            fn set_quickack(&self, quickack: bool) -> io::Result<()>;

            /// Whether `TCP_QUICKACK` is set.
            ///
            /// # Errors
            ///
            /// Those of the system.
            ///
            /// ```
            /// use strands::net::{TcpListener, TcpStream};
            /// use strands::os::linux::net::TcpStreamExt;
            ///
            /// let listener = TcpListener::bind("127.0.0.1:0")?;
            /// let stream = TcpStream::connect(listener.local_addr()?)?;
            /// stream.set_quickack(true)?;
            /// assert!(stream.quickack()?);
            /// # std::io::Result::Ok(())
            /// ```
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
