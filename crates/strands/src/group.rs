//! Structured concurrency: fibers that have ended when their caller goes on.
//!
//! | | children | their results | if one fails |
//! |---|---|---|---|
//! | [`scope`](crate::scope()) | borrow | each is joined, or not | the others run to their end |
//! | [`try_scope`](crate::try_scope()) | borrow | each is joined, or not | the others are cancelled, its error is returned |
//! | [`map`](map()), [`try_map`] | borrow; so many at a time | all, in the order of the input | as above |
//! | [`FiberGroup`] | own what they use | one after the other, as they end | it is a result like others |
//!
//! None of them returns, unwinds or is dropped before its children have ended, whatever ends it: so nothing runs on behind one's
//! back, no error is lost, and a cancel reaches all that was begun for somebody.
//! A [cancel](crate::cancel), a time limit, a token and a [shutdown](crate::Runtime::shutdown_timeout) all go
//! the same way: who is asked to end cancels its children, waits for them, and unwinds.
//!
//! ```
//! use strands::time::{Duration, timeout};
//!
//! // Ten at a time, all of them within a second, and the first error ends all:
//! let lengths = timeout(Duration::from_secs(1), || {
//!     strands::try_map(10, 1..=100, |page| match page {
//!         1000.. => Err(format!("there is no page {page}")),
//!         _ => Ok(page * 2),
//!     })
//! });
//! assert_eq!(lengths.unwrap().unwrap().len(), 100);
//! ```
//!
//! # If you come from elsewhere
//!
//! - tokio's `JoinSet` is [`FiberGroup`]; dropping one here also waits for what it cancels.
//! - Go's `errgroup.Group` is [`try_scope`](crate::try_scope()): its context is the cancel, which children need not look at.
//!   `SetLimit` is [`FiberGroup::limit`], or the limit of [`try_map`].
//! - Java's `StructuredTaskScope.ShutdownOnFailure`, Trio's nursery and Kotlin's `coroutineScope` are
//!   [`try_scope`](crate::try_scope()); `ShutdownOnSuccess` is a [`scope`](crate::scope()) in which the winner calls
//!   [`Scope::cancel`](crate::thread::Scope::cancel).
//! - `buffered(n)` of the futures crate, and rayon's `par_iter().map()`, are [`map`](map()).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::panic::{self, RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use strands_sched::{Group, NextOperation, Outcome, SpawnOptions, TaskRef};

use crate::runtime;
use crate::sync::{Arc, OwnedSemaphorePermit, Semaphore};
use crate::thread::builder::started;
use crate::thread::{Builder, Result, ScopedJoinHandle, Thread, ThreadId, TryScope, try_scope};
use crate::time::{Deadline, Elapsed};

/// Fibers whose results are taken as they end.
///
/// It may be shared (`Arc<FiberGroup<T>>`), moved and used from fibers and plain threads alike, by several at once. Fibers run
/// on the runtime of whoever spawns them, as by [`spawn`](crate::spawn).
///
/// **Dropping it** cancels all fibers that run and waits until they have ended, their destructors included; results that nobody
/// has taken are dropped. So a group on a frame ends before the frame does, also if that unwinds. A child that drops its own
/// group (the last `Arc`) is cancelled with the others and waits for them, not for itself. Where panics abort, no fiber
/// unwinds, and the drop waits until all come to their end.
///
/// ```
/// use strands::FiberGroup;
///
/// let group = FiberGroup::new();
/// for n in 1..=3 {
///     group.spawn(move || n * n);
/// }
/// let mut squares = Vec::new();
/// while let Some(square) = group.join_next() {
///     squares.push(square.unwrap());
/// }
/// squares.sort();
/// assert_eq!(squares, [1, 4, 9]);
/// ```
pub struct FiberGroup<T> {
    group: Group<T>,
    limit: Option<Arc<Semaphore>>,
}

impl<T> FiberGroup<T> {
    /// One without fibers, and without a limit.
    ///
    /// ```
    /// let group: strands::FiberGroup<()> = strands::FiberGroup::new();
    /// assert!(group.join_next().is_none());
    /// ```
    #[must_use]
    pub fn new() -> FiberGroup<T> {
        FiberGroup { group: Group::new(), limit: None }
    }

    /// Lets at most `limit` fibers of those that are spawned from now on run at once: [`spawn`](Self::spawn) waits until
    /// there is room, in the order in which callers come.
    ///
    /// A fiber counts until its closure has returned or unwound; results that wait to be taken do not. A child that spawns
    /// into its own group waits too, for one of the others to end.
    ///
    /// # Panics
    ///
    /// If `limit` is 0: nothing could ever be spawned.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    /// use strands::FiberGroup;
    ///
    /// static RUNNING: AtomicUsize = AtomicUsize::new(0);
    /// let group = FiberGroup::new().limit(4);
    /// for _ in 0..100 {
    ///     group.spawn(|| {
    ///         assert!(RUNNING.fetch_add(1, SeqCst) < 4);
    ///         strands::yield_now();
    ///         RUNNING.fetch_sub(1, SeqCst);
    ///     });
    /// }
    /// assert!(group.join_all().iter().all(Result::is_ok));
    /// ```
    #[must_use]
    #[track_caller]
    pub fn limit(self, limit: usize) -> FiberGroup<T> {
        assert!(limit > 0, "a group with a limit of 0 could run nothing: give it 1 at least");
        FiberGroup { limit: Some(Arc::new(Semaphore::new(limit))), ..self }
    }

    /// Spawns a fiber whose result is the group's. Waits, if the group has a [`limit`](Self::limit) and is full.
    ///
    /// It costs no allocation beside that of the fiber.
    ///
    /// # Panics
    ///
    /// If no fiber can be spawned; [`spawn_with`](Self::spawn_with) returns the error instead.
    ///
    /// ```
    /// let group = strands::FiberGroup::new();
    /// let child = group.spawn(strands::thread::park);
    /// child.unpark();
    /// group.join_next().unwrap().unwrap();
    /// ```
    #[track_caller]
    pub fn spawn<F>(&self, f: F) -> Thread
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        started(self.spawn_by(SpawnOptions::default(), self.acquire(), f))
    }

    /// As [`spawn`](Self::spawn), with a name, a size of stack, a place.
    ///
    /// # Errors
    ///
    /// As for [`Builder::spawn`].
    ///
    /// ```
    /// use strands::thread::{self, Builder};
    ///
    /// let group = strands::FiberGroup::new();
    /// let builder = Builder::new().name("reader".into()).stack_size(64 * 1024);
    /// let child = group.spawn_with(builder, || thread::current().name().map(str::to_owned))?;
    /// assert_eq!(child.name(), Some("reader"));
    /// assert_eq!(group.join_next().unwrap().unwrap().as_deref(), Some("reader"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn spawn_with<F>(&self, builder: Builder, f: F) -> io::Result<Thread>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_by(builder.options(), self.acquire(), f)
    }

    /// As [`spawn`](Self::spawn), but does not wait.
    ///
    /// # Errors
    ///
    /// If the group is full: `f`, to be tried again.
    ///
    /// # Panics
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// ```
    /// use strands::{FiberGroup, thread};
    ///
    /// let group = FiberGroup::new().limit(1);
    /// let first = group.try_spawn(thread::park).unwrap();
    /// assert!(group.try_spawn(thread::park).is_err());
    /// first.unpark();
    /// group.join_next();
    /// assert!(group.try_spawn(|| {}).is_ok());
    /// ```
    #[track_caller]
    pub fn try_spawn<F>(&self, f: F) -> std::result::Result<Thread, Full<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let permit = match &self.limit {
            None => None,
            Some(limit) => match limit.try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => return Err(Full(f)),
            },
        };
        Ok(started(self.spawn_by(SpawnOptions::default(), permit, f)))
    }

    fn acquire(&self) -> Option<OwnedSemaphorePermit> {
        let limit = self.limit.as_ref()?;
        Some(limit.acquire_owned().expect("nobody closes it"))
    }

    #[track_caller]
    fn spawn_by<F>(
        &self,
        options: SpawnOptions,
        permit: Option<OwnedSemaphorePermit>,
        f: F,
    ) -> io::Result<Thread>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let f = move || {
            let _permit = permit;
            f()
        };
        self.group.spawn(options, runtime::default_runtime, f).map(Thread::new)
    }

    /// Waits for a fiber to end, and takes its result: of those that have ended, that of the first. None if there is no
    /// fiber whose result was not taken.
    ///
    /// The result is as that of [`JoinHandle::join`](crate::thread::JoinHandle::join): a panic is an `Err` with its payload, a
    /// cancel one with [`Cancelled`](crate::cancel::Cancelled). Each is given once. Who is cancelled
    /// while it waits here takes none. A child that waits here for its own group waits for its own end too.
    ///
    /// ```
    /// let group = strands::FiberGroup::new();
    /// group.spawn(|| panic!("boom"));
    /// let result: strands::thread::Result<()> = group.join_next().unwrap();
    /// assert_eq!(result.unwrap_err().downcast_ref(), Some(&"boom"));
    /// assert!(group.join_next().is_none());
    /// ```
    pub fn join_next(&self) -> Option<Result<T>> {
        self.join_next_with_id().map(|(_, result)| result)
    }

    /// As [`join_next`](Self::join_next), and whose result it is.
    ///
    /// ```
    /// let group = strands::FiberGroup::new();
    /// let child = group.spawn(|| "a result");
    /// let (id, result) = group.join_next_with_id().unwrap();
    /// assert_eq!((id, result.unwrap()), (child.id(), "a result"));
    /// ```
    pub fn join_next_with_id(&self) -> Option<(ThreadId, Result<T>)> {
        let next = self.group.next(None);
        next.expect("only a deadline ends the wait").map(with_id)
    }

    /// As [`join_next`](Self::join_next), for about `timeout`.
    ///
    /// # Errors
    ///
    /// If no fiber has ended by then.
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands::time::Elapsed;
    ///
    /// let group = strands::FiberGroup::new();
    /// let child = group.spawn(strands::thread::park);
    /// let next = group.join_next_timeout(Duration::from_millis(1));
    /// assert_eq!(next.unwrap_err(), Elapsed);
    /// child.unpark();
    /// ```
    pub fn join_next_timeout(
        &self,
        timeout: Duration,
    ) -> std::result::Result<Option<Result<T>>, Elapsed> {
        self.join_next_deadline(Deadline::after(timeout))
    }

    /// As [`join_next`](Self::join_next), until `deadline`: a point in time, or `None` for never.
    ///
    /// # Errors
    ///
    /// If no fiber has ended by then.
    ///
    /// ```
    /// use strands::time::Instant;
    ///
    /// let group: strands::FiberGroup<u32> = strands::FiberGroup::new();
    /// assert!(group.join_next_deadline(Instant::now()).unwrap().is_none(), "there is no fiber");
    /// ```
    pub fn join_next_deadline(
        &self,
        deadline: impl Into<Option<std::time::Instant>>,
    ) -> std::result::Result<Option<Result<T>>, Elapsed> {
        match self.group.next(deadline.into()) {
            Ok(next) => Ok(next.map(|(_, result)| result)),
            Err(outcome) => {
                debug_assert_eq!(outcome, Outcome::TimedOut);
                Err(Elapsed)
            }
        }
    }

    /// Takes the result of a fiber that has ended, if there is one; does not wait.
    ///
    /// ```
    /// let group = strands::FiberGroup::new();
    /// group.spawn(|| 7);
    /// let seven = loop {
    ///     match group.try_join_next() {
    ///         Some(result) => break result.unwrap(),
    ///         None => strands::yield_now(),
    ///     }
    /// };
    /// assert_eq!(seven, 7);
    /// ```
    pub fn try_join_next(&self) -> Option<Result<T>> {
        self.group.try_next().map(|(_, result)| result)
    }

    /// To [`join_next`](Self::join_next) as one of several operations that [`select!`](crate::select!) or a
    /// [`Select`](crate::select::Select) chooses from. If another one is chosen, no result is taken.
    ///
    /// ```
    /// use strands::{channel, select};
    ///
    /// let (orders, inbox) = channel::bounded(8);
    /// let group = strands::FiberGroup::new();
    /// (1..=3).for_each(|n| orders.send(n).unwrap());
    /// drop(orders);
    /// let (mut sum, mut is_open) = (0, true);
    /// while is_open || !group.is_empty() {
    ///     select! {
    ///         order = recv(inbox) if is_open => match order {
    ///             Ok(n) => drop(group.spawn(move || n * n)),
    ///             Err(_) => is_open = false,
    ///         },
    ///         result = join_next(group) if !group.is_empty() => {
    ///             sum += result.unwrap().unwrap();
    ///         }
    ///     }
    /// }
    /// assert_eq!(sum, 14);
    /// ```
    pub fn select_join_next(&self) -> NextOperation<'_, T> {
        self.group.select_next()
    }

    /// Takes all results, in the order in which the fibers end, until there is none left.
    ///
    /// Who is cancelled meanwhile loses those that it has taken; those that it has not are there still.
    ///
    /// ```
    /// let group = strands::FiberGroup::new();
    /// (0..10).for_each(|n| drop(group.spawn(move || n)));
    /// let sum: i32 = group.join_all().into_iter().map(Result::unwrap).sum();
    /// assert_eq!(sum, 45);
    /// ```
    pub fn join_all(&self) -> Vec<Result<T>> {
        std::iter::from_fn(|| self.join_next()).collect()
    }

    /// Cancels all fibers that run now. Their results come as those of others do; fibers that are spawned later are not
    /// concerned.
    ///
    /// ```
    /// use strands::cancel::was_cancelled;
    ///
    /// let group = strands::FiberGroup::new();
    /// group.spawn(strands::thread::park);
    /// group.cancel_all();
    /// assert!(was_cancelled(&group.join_next().unwrap()));
    /// ```
    pub fn cancel_all(&self) {
        self.group.cancel_all();
    }

    /// How many fibers there are whose result was not taken.
    ///
    /// ```
    /// let group = strands::FiberGroup::new();
    /// group.spawn(|| {});
    /// assert_eq!(group.len(), 1);
    /// group.join_next();
    /// assert_eq!(group.len(), 0);
    /// ```
    pub fn len(&self) -> usize {
        let (running, ended) = self.group.count();
        running + ended
    }

    /// Whether there is no such fiber.
    ///
    /// ```
    /// assert!(strands::FiberGroup::<()>::new().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// As many fibers run as the group's [limit](FiberGroup::limit) allows. It has the closure that was to be spawned.
///
/// ```
/// use strands::{FiberGroup, group::Full, thread};
///
/// let group = FiberGroup::new().limit(1);
/// group.spawn(thread::park);
/// let Err(Full(later)) = group.try_spawn(thread::park) else { unreachable!("it is full") };
/// # drop(group);
/// # let _: fn() = later;
/// ```
pub struct Full<F>(pub F);

impl<F> fmt::Debug for Full<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full(..)")
    }
}

impl<F> fmt::Display for Full<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("as many fibers run as the group's limit allows")
    }
}

impl<F> std::error::Error for Full<F> {}

fn with_id<T>((task, result): (TaskRef, Result<T>)) -> (ThreadId, Result<T>) {
    (Thread::new(task).id(), result)
}

impl<T> Default for FiberGroup<T> {
    fn default() -> FiberGroup<T> {
        FiberGroup::new()
    }
}

// As scopes: a panic leaves nothing behind here but a child that is counted.
impl<T> UnwindSafe for FiberGroup<T> {}
impl<T> RefUnwindSafe for FiberGroup<T> {}

impl<T> fmt::Debug for FiberGroup<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (running, ended) = self.group.count();
        let mut text = f.debug_struct("FiberGroup");
        text.field("running", &running).field("ended", &ended);
        if let Some(limit) = &self.limit {
            text.field("room", &limit.available_permits());
        }
        text.finish_non_exhaustive()
    }
}

/// Calls `f` with each of `items`, `limit` of them at a time, each in a fiber of its own; the results, in the order of the input.
///
/// `f` may borrow. It is [`try_map`] without errors: a panic of `f` cancels the other calls, and goes on when they have
/// ended.
///
/// # Panics
///
/// If `limit` is 0; if `f` or `items` panics.
///
/// ```
/// let words = ["one", "two", "three"];
/// let lengths = strands::map(2, 0..words.len(), |i| words[i].len());
/// assert_eq!(lengths, [3, 3, 5]);
/// ```
#[track_caller]
pub fn map<I, F, R>(limit: usize, items: I, f: F) -> Vec<R>
where
    I: IntoIterator,
    I::Item: Send,
    F: Fn(I::Item) -> R + Sync,
    R: Send,
{
    let Ok(results) = try_map(limit, items, |item| Ok::<R, Infallible>(f(item)));
    results
}

/// Calls `f` with each of `items`, `limit` of them at a time, each in a fiber of its own; the results, in the order of the
/// input, or the first error.
///
/// It is a [`try_scope`](crate::try_scope()): the first error or panic cancels the other calls; when they have ended, it is returned, or
/// goes on; whoever is asked to unwind while it waits here cancels the calls, waits for them, and unwinds.
///
/// `items` is iterated by the caller, and asked for the next item only when one of the `limit` calls can begin at once: so
/// an iterator over a channel is not read ahead, and one that is endless ends with the first error. It may wait. What is
/// returned is not lazy: fibers that borrow have to end before this returns. To use results as they come, send them through a
/// [channel](crate::sync::channel), or take a [`FiberGroup`].
///
/// A result waits for those before it, at the price of a fiber without a stack; so one slow call in front of a million that
/// are fast costs memory.
///
/// # Errors
///
/// The first that a call of `f` returned.
///
/// # Panics
///
/// If `limit` is 0; if `f` or `items` panics.
///
/// ```
/// let numbers = strands::try_map(4, ["1", "2", "x", "4"], |text| text.parse::<u32>());
/// assert!(numbers.is_err());
/// let numbers = strands::try_map(4, ["1", "2", "3", "4"], |text| text.parse::<u32>());
/// assert_eq!(numbers.unwrap(), [1, 2, 3, 4]);
/// ```
#[track_caller]
pub fn try_map<I, F, R, E>(limit: usize, items: I, f: F) -> std::result::Result<Vec<R>, E>
where
    I: IntoIterator,
    I::Item: Send,
    F: Fn(I::Item) -> std::result::Result<R, E> + Sync,
    R: Send,
    E: Send,
{
    assert!(limit > 0, "a map with a limit of 0 could call nothing: give it 1 at least");
    let (room, f) = (Semaphore::new(limit), &f);
    try_scope(|scope| {
        let mut items = items.into_iter();
        let mut results = Results { scope, first: Vec::new(), rest: VecDeque::new() };
        loop {
            let permit = room.acquire().expect("nobody closes it");
            if scope.has_failed() {
                break;
            }
            let Some(item) = items.next() else { break };
            results.rest.push_back(scope.spawn(move || {
                let _permit = permit;
                f(item)
            }));
            while results.rest.front().is_some_and(ScopedJoinHandle::is_finished) {
                results.join_first();
            }
        }
        while !results.rest.is_empty() {
            results.join_first();
        }
        Ok(results.first)
    })
}

/// Of a map: those at the front that are there, and the calls behind them.
struct Results<'scope, 'env, R, E> {
    scope: &'scope TryScope<'scope, 'env, E>,
    first: Vec<R>,
    rest: VecDeque<ScopedJoinHandle<'scope, R>>,
}

impl<R, E> Results<'_, '_, R, E> {
    fn join_first(&mut self) {
        match self.rest.pop_front().map(ScopedJoinHandle::join) {
            Some(Ok(result)) => self.first.push(result),
            Some(Err(payload)) if !self.scope.has_failed() => panic::resume_unwind(payload),
            _ => {} // What failed is returned, not what is here.
        }
    }
}
