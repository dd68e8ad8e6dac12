//! The operating system's interface: what each backend must define.
//!
//! A backend is made for one worker, on its thread. It
//!
//! - keeps a set of descriptors, each with a [`Token`]: [`Registrar::add`] puts one in, from
//!   the worker's thread; [`Registrar::remove`] takes it out, from any thread, and is called before
//!   the descriptor is closed;
//! - reports **edges**, in both directions, through [`deliver`](crate::slot::deliver): after
//!   `add` each thing that makes an operation possible that was not (data, a connection, room,
//!   the end, an error) is reported by a [`poll`](Backend::poll) that begins or ends later, once
//!   or more often; what is possible at the time of `add` is reported too. Several edges may be
//!   reported as one. An event that was on its way when `remove` was called may still be
//!   delivered: the token is stale by then;
//! - waits: [`poll`](Backend::poll) ends at the latest when the time is up, or when its
//!   [`WakeFd`] has been used since the last one began. It never rounds a time down, and it never
//!   returns early time after time: errors that go on are fatal, not a busy loop.
//!
//! [`Readiness::broken`] wakes everybody, so it is for what ends all operations; `special` says
//! that a short read no longer proves the socket empty (the peer's end, urgent data, errors).
//!
//! All code that knows the operating system's event interface is below this module. Backends are
//! chosen at run time, so that one machine tests all.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::slot::Token;

#[cfg(target_os = "linux")]
mod epoll;
pub(crate) mod fork;
mod wake_fd;

pub(crate) use wake_fd::{Ready, WakeFd, poll_one, replace_by_dead_end};

/// Makes the backend of one worker, on its thread.
#[cfg(target_os = "linux")]
pub(crate) fn make(chosen: crate::Backend, id: u32) -> io::Result<Box<dyn Backend>> {
    use crate::Backend::{Auto, Epoll};
    match chosen {
        Auto | Epoll => Ok(Box::new(epoll::Epoll::new(id)?)),
    }
}

/// What has become possible.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// Everything that waits must look.
    pub(crate) broken: bool,
    /// A short read does not mean "empty" from here on.
    pub(crate) special: bool,
}

/// One worker's events. Used by the worker's thread only.
pub(crate) trait Backend: 'static {
    /// Waits for events and delivers them. See the module's head.
    fn poll(&self, timeout: Option<Duration>);

    /// What ends a `poll`.
    fn wake_fd(&self) -> &Arc<WakeFd>;

    /// Through which descriptors are registered.
    fn registrar(&self) -> &Arc<dyn Registrar>;

    /// For people.
    fn name(&self) -> &'static str;
}

/// A backend's set of descriptors. It outlives the worker while descriptors are registered.
pub(crate) trait Registrar: Send + Sync + 'static {
    /// Identifies the reactor; never 0, never reused.
    fn reactor(&self) -> u32;

    /// Starts to report edges of `fd`. On the worker's thread.
    fn add(&self, fd: i32, token: Token) -> io::Result<()>;

    /// Stops. From any thread, before `fd` is closed.
    fn remove(&self, fd: i32);
}
