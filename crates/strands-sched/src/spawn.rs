//! Spawning: on the caller's runtime, or on one that is given.

use std::io;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;
use std::thread;

use crate::runtime::{Placement, Shared, SpawnOptions, with_current};
use crate::scope::ScopeData;
use crate::task::{Join, TaskRef};

/// Spawns `f` on the caller's runtime, or on what `fallback` returns if the caller has none.
///
/// # Errors
///
/// `OutOfMemory` while no stack can be had, `InvalidInput` for a [`Placement`] that does not
/// exist, `Other` when the runtime is shutting down; those of `fallback`.
#[track_caller]
pub fn spawn<F, T>(
    options: SpawnOptions,
    fallback: impl FnOnce() -> io::Result<Arc<Shared>>,
    f: F,
) -> io::Result<Join<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    // SAFETY: nothing is borrowed, and all is Send.
    unsafe { spawn_unchecked(options, fallback, None, f) }
}

/// Spawns `f` on `runtime`.
///
/// # Errors
///
/// As for [`spawn`].
#[track_caller]
pub fn spawn_on<F, T>(runtime: &Shared, options: SpawnOptions, f: F) -> io::Result<Join<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    // SAFETY: nothing is borrowed, and all is Send.
    unsafe { runtime.spawn(options, None, Location::caller(), f) }
}

/// As [`spawn`], for closures that borrow; the fiber is counted in `scope`.
///
/// # Safety
///
/// The caller does not leave the lifetime of what `f` and its result borrow before
/// [`ScopeData::wait`] has returned.
///
/// # Errors
///
/// As for [`spawn`].
#[track_caller]
pub(crate) unsafe fn spawn_scoped<F, T>(
    options: SpawnOptions,
    fallback: impl FnOnce() -> io::Result<Arc<Shared>>,
    scope: &Arc<ScopeData>,
    f: F,
) -> io::Result<Join<T>>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    // SAFETY: all is Send, and the caller waits for the scope.
    unsafe { spawn_unchecked(options, fallback, Some(scope.clone()), f) }
}

/// Spawns `f` on the caller's worker, where it may share what is not Send.
///
/// # Errors
///
/// `InvalidInput` if the caller is not a fiber; else as for [`spawn`].
#[track_caller]
pub fn spawn_local<F, T>(options: SpawnOptions, f: F) -> io::Result<LocalJoin<T>>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let options = SpawnOptions { placement: Placement::Here, ..options };
    let at = Location::caller();
    let join = with_current(|shared| {
        // SAFETY: nothing is borrowed, the fiber is pinned to this worker, and a `LocalJoin`
        // cannot leave this thread.
        unsafe { shared.spawn(options, None, at, f) }
    });
    let join = join.unwrap_or_else(|| {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "spawn_local needs a worker to stay on: call it from a fiber, for example inside \
             Runtime::run or #[strands::main]",
        ))
    })?;
    Ok(LocalJoin { join, not_send: PhantomData })
}

/// # Safety
///
/// As for [`Shared::spawn`].
#[track_caller]
unsafe fn spawn_unchecked<F, T>(
    options: SpawnOptions,
    fallback: impl FnOnce() -> io::Result<Arc<Shared>>,
    scope: Option<Arc<ScopeData>>,
    f: F,
) -> io::Result<Join<T>>
where
    F: FnOnce() -> T,
{
    let at = Location::caller();
    match crate::current::worker() {
        // SAFETY: `worker` is that of this thread; the rest is passed on.
        Some(worker) => unsafe { worker.shared().spawn(options, scope, at, f) },
        // SAFETY: passed on.
        None => unsafe { fallback()?.spawn(options, scope, at, f) },
    }
}

/// The right to the result of a fiber of this worker. See [`Join`].
pub struct LocalJoin<T> {
    join: Join<T>,
    not_send: PhantomData<*mut ()>,
}

impl<T> LocalJoin<T> {
    /// The fiber.
    pub fn task(&self) -> &TaskRef {
        self.join.task()
    }

    /// As [`Join::is_finished`].
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }

    /// As [`Join::join`].
    ///
    /// # Errors
    ///
    /// What the fiber panicked with.
    pub fn join(self) -> thread::Result<T> {
        self.join.join()
    }
}
