//! Fibers, under the names that `std::thread` has for threads.
//!
//! Everything here works from a fiber and from a plain OS thread alike, in any mix. A *thread* in
//! these names and in these pages is what runs the calling code: a [`Thread`] stands for a fiber or
//! for a plain thread, and either may park, be unparked, sleep, join and open a scope. What waits
//! suspends the fiber, and its worker runs others meanwhile; a plain thread is blocked, as by std.
//!
//! ```
//! use strands::thread;
//!
//! let doubled = thread::spawn(|| 2 * 21);
//! assert_eq!(doubled.join().unwrap(), 42);
//! ```
//!
//! # Which runtime
//!
//! A fiber spawns on its own runtime. A plain thread spawns on the default runtime, which starts at
//! first use: see [`Runtime`](crate::Runtime). The closures of [`unblock`](crate::unblock) run on
//! plain threads.
//!
//! # What differs from std
//!
//! - Fibers are scheduled by their worker, and not preempted: see [`yield_now`] and
//!   [`unblock`](crate::unblock).
//! - [`strands::thread_local!`](crate::thread_local) is per fiber; `std::thread_local!` is that of the worker,
//!   which its fibers share: see [Soundness](crate::soundness).
//! - [`Builder::spawn`] accepts a fiber before it has a stack; it fails while stacks are exhausted.
//! - A fiber can be [cancelled](crate::cancel). It unwinds with
//!   [`Cancelled`](crate::cancel::Cancelled), which [`JoinHandle::join`] returns.
//! - A scope, and [`JoinHandle::is_finished`], wait for the destructors of a fiber's [`LocalKey`]s too.
//! - A panic's message has the name of the worker's OS thread, as std's hook knows no fibers. A hook of
//!   one's own may print [`current`]'s name.
//! - A result that nobody joins, and that panics when it is dropped, does not abort the process.
//! - `JoinHandle` has no `pthread_t`. `Builder::spawn_unchecked` is left out, as nothing in this
//!   crate is unsafe. What is unstable in std is left out.

pub(crate) mod builder;
mod handle;
mod join;
pub(crate) mod local;
mod scoped;
mod try_scoped;
mod wait;

pub use builder::{Builder, spawn, spawn_local};
pub use handle::{Thread, ThreadId, current};
pub use join::{JoinHandle, LocalJoinHandle, Result};
pub use local::{AccessError, LocalKey};
pub use scoped::{Scope, ScopedJoinHandle, scope};
/// Where a fiber should start; a hint for [`Builder::placement`].
///
/// A fiber that has started stays where it is, so this is the whole of placement.
///
/// ```
/// use strands::thread::{Builder, Placement};
///
/// let anywhere = Builder::new().placement(Placement::Anywhere).spawn(|| 1)?;
/// let on_the_first = Builder::new().placement(Placement::Worker(0)).spawn(|| 2)?;
/// assert_eq!(anywhere.join().unwrap() + on_the_first.join().unwrap(), 3);
/// # Ok::<(), std::io::Error>(())
/// ```
pub use strands_sched::Placement;
pub use try_scoped::{TryScope, try_scope};
pub use wait::{available_parallelism, panicking, park, park_timeout, sleep, yield_now};
#[allow(deprecated)]
pub use wait::{park_timeout_ms, sleep_ms};
