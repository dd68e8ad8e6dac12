//! `std::thread`, a million at a time.
//!
//! Strands runs *fibers*: each has a stack of its own and runs plain, blocking-style code. A fiber
//! that reads a socket, takes a lock, sleeps or joins is suspended, and its worker (an OS thread)
//! runs another meanwhile. There is no `async`, no `Pin`, no second kind of function. Porting is a
//! `use` change:
//!
//! ```
//! # fn main() {
//! use strands::{sync::mpsc, thread, time::Duration};
//!
//! let (sender, receiver) = mpsc::channel();
//! let clocks: Vec<_> = (0..1_000u64)
//!     .map(|i| {
//!         let sender = sender.clone();
//!         thread::spawn(move || {
//!             thread::sleep(Duration::from_millis(i % 10));
//!             sender.send(i).unwrap();
//!         })
//!     })
//!     .collect();
//! clocks.into_iter().for_each(|clock| clock.join().unwrap());
//! drop(sender);
//! assert_eq!(receiver.iter().sum::<u64>(), 499_500);
//! # }
//! ```
//!
//! The same with a thousand threads; the first line is the difference:
//!
//! ```
//! # fn main() {
//! use std::{sync::mpsc, thread, time::Duration};
//!
//! let (sender, receiver) = mpsc::channel();
//! let clocks: Vec<_> = (0..1_000u64)
//!     .map(|i| {
//!         let sender = sender.clone();
//!         thread::spawn(move || {
//!             thread::sleep(Duration::from_millis(i % 10));
//!             sender.send(i).unwrap();
//!         })
//!     })
//!     .collect();
//! clocks.into_iter().for_each(|clock| clock.join().unwrap());
//! drop(sender);
//! assert_eq!(receiver.iter().sum::<u64>(), 499_500);
//! # }
//! ```
//!
//! # Where things are
//!
//! - [`thread`], [`net`], [`sync`], [`time`] and [`os`]: std's modules of those names, for fibers and plain
//!   threads alike, in any mix.
//! - [`thread_local!`]: std's, with a value for each fiber.
//! - [`scope`], [`try_scope`], [`FiberGroup`], [`map`](map()): fibers that end before their caller goes on, and [which of them is
//!   for what](group).
//! - [`select!`]: the first of several operations, such as to receive from one of two channels.
//! - [`main`] and [`test`]: attributes that run a function as a fiber.
//! - [Cancellation](cancel): ending fibers, and whatever takes too long, without a trace.
//! - [`Runtime`], [`unblock`]: what std has no name for.
//! - [`debug`]: what every fiber does and waits for, and who waits for whom in a deadlock.
//! - [`soundness`]: what is guaranteed, by what, and what is not. Read it before you build on this.
//! - [Limits and faults](runtime#limits-and-faults): what happens when the system runs out of
//!   memory, threads, file descriptors.
//!
//! # How it runs
//!
//! A runtime has a worker for each CPU. A fiber starts on any of them and then stays there, so
//! values that are not `Send` may live on its stack, and waking a neighbour costs no atomics. What
//! blocks the OS thread holds up its worker's other fibers: [`unblock`] runs it on a pool. A fiber
//! that computes for long lets others run by [`yield_now`]. The default runtime starts by itself at
//! first use.

#![deny(unsafe_code)]

pub mod cancel;
pub mod debug;
pub mod group;
pub mod net;
pub mod os;
pub mod runtime;
pub mod select;
pub mod soundness;
pub mod sync;
pub mod thread;
pub mod time;

#[doc(inline)]
pub use group::{FiberGroup, map, try_map};
#[doc(inline)]
pub use runtime::Runtime;
#[doc(inline)]
pub use sync::channel;
#[doc(inline)]
pub use thread::{scope, sleep, spawn, spawn_local, try_scope, yield_now};

/// Runs the body of `main` as a fiber, so that it may wait like any other.
///
/// The function keeps its attributes, and its return type: whatever `std::process::Termination`
/// allows. Its body runs on the default runtime as a fiber named `main`; the OS main thread waits
/// for it. When it returns, the process exits, and fibers that still run end with it, as threads
/// do.
///
/// ```
/// use std::io;
///
/// #[strands::main]
/// fn main() -> io::Result<()> {
///     let answer = strands::spawn(|| 42).join().unwrap();
///     assert_eq!(answer, 42);
///     Ok(())
/// }
/// ```
///
/// # Options
///
/// - `workers = N`: how many workers the default runtime gets, whatever `STRANDS_WORKERS` says.
/// - `stack_size = BYTES`: the size of the main fiber's stack; 8 MiB if not given, reserved and not
///   committed.
///
/// ```
/// #[strands::main(workers = 1, stack_size = 1024 * 1024)]
/// fn main() {
///     assert_eq!(strands::thread::current().name(), Some("main"));
/// }
/// ```
///
/// # Panics
///
/// If the runtime cannot be started. A panic of the body ends the process as std's does, with code
/// 101.
pub use strands_macros::main;
/// Makes a test whose body runs as a fiber, on a runtime of its own.
///
/// The runtime has 2 workers and is shut down after the test: fibers that still wait are cancelled,
/// and the test ends when all have ended. The other attributes of a test (`#[should_panic]`,
/// `#[ignore]`) and its return type work as ever.
///
/// ```
/// #[strands::test]
/// fn adds_up() {
///     assert_eq!(strands::spawn(|| 1 + 1).join().unwrap(), 2);
/// }
///
/// #[strands::test(workers = 1)]
/// #[should_panic(expected = "alone")]
/// fn panics() {
///     panic!("alone");
/// }
/// # fn main() {}
/// ```
///
/// # Options
///
/// - `workers = N`: how many workers.
/// - `stack_size = BYTES`: the size of the test's own stack; 2 MiB if not given, as std's tests
///   have.
pub use strands_macros::test;

/// Runs `f` where it may block, and waits for it. `f` may borrow.
///
/// From a fiber it runs on a thread of the runtime's pool, while the fiber is suspended and its
/// worker runs others. From a plain thread, which may block, it just runs. If all pool threads are
/// busy it waits its turn; if none can be started, it runs here and holds up the worker. A cancel
/// is delivered before it starts, or waits until it has ended.
///
/// Inside `f` the caller is a plain thread: what it spawns goes to the default runtime.
///
/// # Panics
///
/// Goes on with the panic of `f`.
///
/// ```
/// let path = String::from("/proc/self/status");
/// let text = strands::unblock(|| std::fs::read_to_string(&path))?;
/// assert!(!text.is_empty());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn unblock<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    strands_sched::unblock(f)
}

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// For the expansions of this crate's macros only; it changes without notice.
#[doc(hidden)]
pub mod __rt {
    pub use std::thread_local as std_thread_local;
    pub use strands_sched::{FiberKey, select, try_select};

    pub use crate::runtime::entry::{main, test, test_returning};
    pub use crate::thread::local::{const_key, lazy_key};
}
