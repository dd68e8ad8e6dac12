//! Spawning: on the caller's runtime, or on one that is given.

use std::io;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;
use std::thread;

use crate::current;
use crate::runtime::{Placement, Shared, SpawnOptions};
use crate::task::{Join, JoinOperation, Place, TaskRef};

/// Spawns `f` on the caller's runtime, or on what `fallback` returns if the caller has none.
///
/// # Errors
///
/// `OutOfMemory` while no stack can be had, `InvalidInput` for a [`Placement`] that does not
/// exist, `Other` when the runtime is shutting down; those of `fallback`.
///
/// ```
/// use strands_sched::{Builder, SpawnOptions, spawn};
///
/// let runtime = Builder::new().workers(1).build()?;
/// let fallback = || Ok(runtime.shared().clone());
/// let sum = spawn(SpawnOptions::default(), fallback, || 1 + 1)?; // This is a plain thread.
/// assert_eq!(sum.join().unwrap(), 2);
/// # std::io::Result::Ok(())
/// ```
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
    unsafe { spawn_unchecked(options, fallback, (), || Ok(f())) }
}

/// Spawns `f` on `runtime`.
///
/// # Errors
///
/// As for [`spawn`].
///
/// ```
/// use strands_sched::{Builder, SpawnOptions, spawn_on};
///
/// let runtime = Builder::new().workers(2).build()?;
/// let squares = (1..=3).map(|n| spawn_on(runtime.shared(), SpawnOptions::default(), move || n * n));
/// let squares = squares.collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(squares.into_iter().map(|square| square.join().unwrap()).sum::<i32>(), 14);
/// # std::io::Result::Ok(())
/// ```
#[track_caller]
pub fn spawn_on<F, T>(runtime: &Shared, options: SpawnOptions, f: F) -> io::Result<Join<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    // SAFETY: nothing is borrowed, and all is Send.
    unsafe { runtime.spawn(options, (), Location::caller(), || Ok(f())) }
}

/// Spawns `f` on the caller's worker, where it may share what is not Send.
///
/// # Errors
///
/// `InvalidInput` if the caller is not a fiber; else as for [`spawn`].
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use strands_sched::{Builder, SpawnOptions, spawn_local};
///
/// let runtime = Builder::new().workers(2).build()?;
/// runtime.run(SpawnOptions::default(), || {
///     let count = Rc::new(Cell::new(0));
///     let its = count.clone();
///     let child = spawn_local(SpawnOptions::default(), move || its.set(1))?;
///     child.join().unwrap();
///     assert_eq!(count.get(), 1);
///     std::io::Result::Ok(())
/// })??;
/// # std::io::Result::Ok(())
/// ```
#[track_caller]
pub fn spawn_local<F, T>(options: SpawnOptions, f: F) -> io::Result<LocalJoin<T>>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let options = SpawnOptions { placement: Placement::Here, ..options };
    let at = Location::caller();
    let Some(worker) = current::worker() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "spawn_local needs a worker to stay on: call it from a fiber, for example inside \
             Runtime::run or #[strands::main]",
        ));
    };
    // SAFETY: `worker` is that of this thread. Nothing is borrowed, the fiber is pinned to this
    // worker, and a `LocalJoin` cannot leave this thread.
    let join = unsafe { worker.shared().spawn(options, (), at, || Ok(f())) }?;
    Ok(LocalJoin { join, not_send: PhantomData })
}

/// As [`spawn`], for closures that borrow; with its place among siblings, if it has some.
///
/// # Safety
///
/// As for [`Shared::spawn`].
#[track_caller]
pub(crate) unsafe fn spawn_unchecked<F, T, P: Place>(
    options: SpawnOptions,
    fallback: impl FnOnce() -> io::Result<Arc<Shared>>,
    place: P,
    f: F,
) -> io::Result<Join<T>>
where
    F: FnOnce() -> thread::Result<T>,
{
    let at = Location::caller();
    match current::worker() {
        // SAFETY: `worker` is that of this thread; the rest is passed on.
        Some(worker) => unsafe { worker.shared().spawn(options, place, at, f) },
        // SAFETY: passed on.
        None => unsafe { fallback()?.spawn(options, place, at, f) },
    }
}

/// The right to the result of a fiber of this worker. See [`Join`].
///
/// ```
/// use std::rc::Rc;
/// use strands_sched::{Builder, LocalJoin, SpawnOptions, spawn_local};
///
/// let runtime = Builder::new().workers(1).build()?;
/// runtime.run(SpawnOptions::default(), || {
///     let child: LocalJoin<Rc<str>> = spawn_local(SpawnOptions::default(), || "not Send".into())?;
///     assert_eq!(&*child.join().unwrap(), "not Send");
///     std::io::Result::Ok(())
/// })??;
/// # std::io::Result::Ok(())
/// ```
pub struct LocalJoin<T> {
    join: Join<T>,
    not_send: PhantomData<*mut ()>,
}

impl<T> LocalJoin<T> {
    /// The fiber.
    ///
    /// ```
    /// use strands_sched::{Builder, Cancelled, SpawnOptions, sleep_until, spawn_local};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// runtime.run(SpawnOptions::default(), || {
    ///     let child = spawn_local(SpawnOptions::default(), || sleep_until(None))?;
    ///     child.task().cancel();
    ///     assert!(child.join().unwrap_err().is::<Cancelled>());
    ///     std::io::Result::Ok(())
    /// })??;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn task(&self) -> &TaskRef {
        self.join.task()
    }

    /// As [`Join::is_finished`].
    ///
    /// ```
    /// use strands_sched::{Builder, SpawnOptions, spawn_local, yield_now};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// runtime.run(SpawnOptions::default(), || {
    ///     let child = spawn_local(SpawnOptions::default(), || ())?;
    ///     assert!(!child.is_finished(), "we have not let it run");
    ///     while !child.is_finished() {
    ///         yield_now();
    ///     }
    ///     std::io::Result::Ok(())
    /// })??;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }

    /// As [`Join::select_join`].
    ///
    /// # Panics
    ///
    /// As there.
    ///
    /// ```
    /// use strands_sched::{Builder, Order, SpawnOptions, select, spawn_local};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// runtime.run(SpawnOptions::default(), || {
    ///     let mut child = spawn_local(SpawnOptions::default(), || 42)?;
    ///     let end = child.select_join();
    ///     select(&[&end], Order::Fair, None);
    ///     assert_eq!(end.take().unwrap().unwrap(), 42);
    ///     std::io::Result::Ok(())
    /// })??;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn select_join(&mut self) -> JoinOperation<'_, T> {
        self.join.select_join()
    }

    /// As [`Join::join`].
    ///
    /// # Errors
    ///
    /// What the fiber panicked with.
    ///
    /// ```
    /// use strands_sched::{Builder, SpawnOptions, spawn_local};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// runtime.run(SpawnOptions::default(), || {
    ///     let child = spawn_local(SpawnOptions::default(), || 1 + 1)?;
    ///     assert_eq!(child.join().unwrap(), 2);
    ///     std::io::Result::Ok(())
    /// })??;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn join(self) -> thread::Result<T> {
        self.join.join()
    }

    /// As [`Join::cancel_and_join`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// As there.
    ///
    /// ```
    /// use strands_sched::{Builder, Cancelled, SpawnOptions, sleep_until, spawn_local};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// runtime.run(SpawnOptions::default(), || {
    ///     let child = spawn_local(SpawnOptions::default(), || sleep_until(None))?;
    ///     assert!(child.cancel_and_join().unwrap_err().is::<Cancelled>());
    ///     std::io::Result::Ok(())
    /// })??;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn cancel_and_join(self) -> thread::Result<T> {
        self.join.cancel_and_join()
    }
}
