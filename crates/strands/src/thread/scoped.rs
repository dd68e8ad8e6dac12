//! Fibers that borrow.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::RefUnwindSafe;
use std::sync::Mutex;

use strands_sched::{Join, JoinOperation, ScopeFace, SpawnOptions, Spawner};

use crate::runtime;
use crate::thread::builder::started;
use crate::thread::join::LazyThread;
use crate::thread::{Result, Thread};

/// Opens a scope for fibers that borrow, as `std::thread::scope` does for threads.
///
/// It returns after all fibers spawned in it have ended, joined or not.
/// That holds however the closure is left, and however a child ends:
///
/// - If the closure panics, the panic goes on after the children have ended.
/// - If a child panics and is not joined, the others run to their end, then this panics.
/// - If the caller is [asked to unwind](crate::cancel) while it waits for its children, they are
///   cancelled, and when they have ended it unwinds; so a cancel of a fiber, a time limit and a token
///   reach the fibers of a scope below them.
/// - A child that was cancelled has not panicked.
///
/// To have the first failure end the others there is [`try_scope`](crate::try_scope()).
///
/// # Panics
///
/// `a scoped thread panicked`, if a child panicked and nobody took its payload by joining it.
///
/// ```
/// let mut buffer = vec![0; 4];
/// let (left, right) = buffer.split_at_mut(2);
/// strands::scope(|scope| {
///     scope.spawn(|| left.fill(1));
///     scope.spawn(|| right.fill(2));
/// });
/// assert_eq!(buffer, [1, 1, 2, 2]);
/// ```
#[track_caller]
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    strands_sched::scope::<Face, F, T>(f)
}

/// What [`scope`] lends to its closure, to spawn in, as `std::thread::Scope`.
///
/// `'scope` is the scope's own lifetime: it begins before the closure runs and ends after the last
/// child has ended. `'env` is that of what is borrowed from outside.
///
/// ```
/// strands::scope(|scope| {
///     // A child may spawn siblings.
///     scope.spawn(|| scope.spawn(|| {}));
/// });
/// ```
pub struct Scope<'scope, 'env: 'scope> {
    spawner: Spawner<'scope, 'env>,
    /// `spawner` is invariant in both; this only says that the bound is meant.
    outlives: PhantomData<&'scope &'env ()>,
}

impl<'scope> Scope<'scope, '_> {
    /// Spawns a fiber that may borrow from outside the scope.
    ///
    /// # Panics
    ///
    /// If no fiber can be spawned; [`Builder::spawn_scoped`](crate::thread::Builder::spawn_scoped)
    /// returns the error instead.
    ///
    /// ```
    /// let words = ["one", "two", "three"];
    /// let lengths = strands::scope(|scope| {
    ///     let handles = words.map(|word| scope.spawn(move || word.len()));
    ///     handles.map(|handle| handle.join().unwrap())
    /// });
    /// assert_eq!(lengths, [3, 3, 5]);
    /// ```
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        started(self.spawn_with(SpawnOptions::default(), f))
    }

    /// Cancels all fibers of the scope; those that are spawned later end without having started.
    ///
    /// They end in their own time, and the scope waits for them. A child may call this too, and
    /// is cancelled itself.
    ///
    /// ```
    /// use std::sync::Mutex;
    /// use strands::time::Duration;
    ///
    /// let fastest = Mutex::new(None);
    /// strands::scope(|scope| {
    ///     for ms in [1, 3_600_000, 7_200_000] {
    ///         let fastest = &fastest;
    ///         scope.spawn(move || {
    ///             strands::sleep(Duration::from_millis(ms));
    ///             *fastest.lock().unwrap() = Some(ms);
    ///             scope.cancel(); // The others need not go on.
    ///         });
    ///     }
    /// });
    /// assert_eq!(fastest.into_inner().unwrap(), Some(1));
    /// ```
    pub fn cancel(&self) {
        self.spawner.cancel();
    }

    #[track_caller]
    pub(super) fn spawn_with<F, T>(
        &'scope self,
        options: SpawnOptions,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let join = self.spawner.spawn(options, runtime::default_runtime, f)?;
        Ok(ScopedJoinHandle::new(join))
    }
}

// As std's: a panic leaves nothing behind here but a child that is counted.
impl RefUnwindSafe for Scope<'_, '_> {}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (children, panicked, owner) = self.spawner.state();
        f.debug_struct("Scope")
            .field("num_running_threads", &children)
            .field("a_thread_panicked", &panicked)
            .field("main_thread", &Thread::of(owner))
            .finish_non_exhaustive()
    }
}

/// The right to join a fiber of a [`Scope`], as `std::thread::ScopedJoinHandle`.
///
/// Dropping it leaves the fiber to the scope.
///
/// ```
/// strands::scope(|scope| {
///     let handle = scope.spawn(|| panic!("looked at"));
///     assert!(handle.join().is_err()); // So the scope does not panic.
/// });
/// ```
pub struct ScopedJoinHandle<'scope, T> {
    join: Join<T>,
    thread: LazyThread,
    scope: PhantomData<&'scope ()>,
    /// As in std's it may go to another thread if the value may, and is invariant in its type.
    value: PhantomData<Mutex<T>>,
}

// No value lies in the handle.
impl<T> Unpin for ScopedJoinHandle<'_, T> {}

impl<T> ScopedJoinHandle<'_, T> {
    pub(super) fn new(join: Join<T>) -> Self {
        let thread = LazyThread::default();
        ScopedJoinHandle { join, thread, scope: PhantomData, value: PhantomData }
    }

    /// The fiber.
    ///
    /// ```
    /// strands::scope(|scope| {
    ///     let parked = scope.spawn(strands::thread::park);
    ///     parked.thread().unpark();
    /// });
    /// ```
    pub fn thread(&self) -> &Thread {
        self.thread.get(self.join.task())
    }

    /// As [`JoinHandle::join`](crate::thread::JoinHandle::join).
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
    /// let numbers = [1, 2, 3];
    /// strands::scope(|scope| {
    ///     let sum = scope.spawn(|| numbers.iter().sum::<i32>());
    ///     assert_eq!(sum.join().unwrap(), 6);
    /// });
    /// ```
    pub fn join(self) -> Result<T> {
        self.join.join()
    }

    /// As [`JoinHandle::select_join`](crate::thread::JoinHandle::select_join).
    ///
    /// # Panics
    ///
    /// As there.
    ///
    /// ```
    /// let sum = strands::scope(|scope| {
    ///     let mut handle = scope.spawn(|| 1 + 1);
    ///     strands::select! { sum = join(handle) => sum.unwrap() }
    /// });
    /// assert_eq!(sum, 2);
    /// ```
    pub fn select_join(&mut self) -> JoinOperation<'_, T> {
        self.join.select_join()
    }

    /// As [`JoinHandle::is_finished`](crate::thread::JoinHandle::is_finished).
    ///
    /// ```
    /// strands::scope(|scope| {
    ///     let handle = scope.spawn(|| {});
    ///     while !handle.is_finished() {
    ///         strands::yield_now();
    ///     }
    /// });
    /// ```
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }

    /// As [`JoinHandle::cancel`](crate::thread::JoinHandle::cancel). The scope does not take it
    /// for a panic.
    ///
    /// ```
    /// strands::scope(|scope| {
    ///     scope.spawn(strands::thread::park).cancel();
    /// });
    /// ```
    pub fn cancel(&self) {
        self.join.task().cancel();
    }

    /// As [`JoinHandle::cancel_and_join`](crate::thread::JoinHandle::cancel_and_join).
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
    /// strands::scope(|scope| {
    ///     let handle = scope.spawn(|| strands::sleep(std::time::Duration::MAX));
    ///     assert!(strands::cancel::was_cancelled(&handle.cancel_and_join()));
    /// });
    /// ```
    pub fn cancel_and_join(self) -> Result<T> {
        self.join.cancel_and_join()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle").finish_non_exhaustive()
    }
}

/// Tells the scheduler what a scope looks like here.
enum Face {}

impl<'scope, 'env> ScopeFace<'scope, 'env> for Face {
    type Scope = Scope<'scope, 'env>;

    fn make(spawner: Spawner<'scope, 'env>) -> Scope<'scope, 'env> {
        Scope { spawner, outlives: PhantomData }
    }
}
