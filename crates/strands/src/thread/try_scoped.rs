//! Fibers that borrow, of which the first to fail ends the others.
//!
//! A child that fails leaves its error or its panic with the scope, and its handle tells only that there is no value: so
//! whoever joins it is ended like all others in the scope, instead of having to do something about an error that
//! is being returned anyway. Turned down: to give the error to who joins (then the scope has none to return,
//! or the error would have to be cloned).

use std::any::Any;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::panic::{self, AssertUnwindSafe, RefUnwindSafe};
use std::sync::{Mutex, PoisonError};

use strands_sched::{Cancelled, ScopeFace, SpawnOptions, Spawner};

use crate::runtime;
use crate::thread::builder::started;
use crate::thread::{Builder, Result, ScopedJoinHandle, Thread};

/// Opens a [`scope`](crate::scope()) that ends early when something in it fails: the first error is returned, and the
/// first panic goes on.
///
/// When a child or the closure returns an error or panics, the scope *has failed*: all children
/// are [cancelled](crate::cancel), and the closure is, if it waits, at once. That is so whoever
/// holds their handles. When the last child has ended, the scope returns:
///
/// | | what `try_scope` does |
/// |---|---|
/// | nothing failed | returns `Ok` with the value of the closure |
/// | there were errors | returns the first of them |
/// | there was a panic, before the first error or after it | goes on with the first panic; the closure's own comes before all |
/// | the caller is asked to unwind (a cancel, a time limit, a token) | cancels the children, waits for them, and unwinds |
///
/// - A child that is cancelled by its handle has not failed, and a child that does not start because the scope has failed neither.
/// - What ends the children takes as long as they take: a child that shields itself, swallows its cancel or computes runs to its
///   end, and so do destructors that wait. Its value or error does not count any more, a panic does.
/// - Scopes nest: the failure of an inner one is its result, and that of the outer one cancels the inner one.
/// - An error may borrow. What the children borrow is then taken to be borrowed for as long as the error is in use.
/// - Where panics abort, nothing unwinds: a failed scope waits until its children and its closure end by themselves, but for their
///   I/O, which [fails](crate::cancel::cancel_as_error).
///
/// ```
/// use strands::time::Duration;
///
/// fn find(shelf: u32) -> Result<&'static str, String> {
///     if shelf == 3 {
///         strands::sleep(Duration::MAX); // It is far away.
///     }
///     if shelf == 2 { Err("there is no shelf 2".into()) } else { Ok("a book") }
/// }
///
/// let both = strands::try_scope(|scope| {
///     let (first, second) = (scope.spawn(|| find(1)), scope.spawn(|| find(1)));
///     Ok::<_, String>((first.join().unwrap(), second.join().unwrap()))
/// });
/// assert_eq!(both, Ok(("a book", "a book")));
///
/// let all = strands::try_scope(|scope| {
///     let found = [1, 2, 3].map(|shelf| scope.spawn(move || find(shelf)));
///     Ok(found.map(|child| child.join().unwrap())) // It is unwound from here.
/// });
/// assert_eq!(all, Err("there is no shelf 2".to_owned()));
/// ```
///
/// # Errors
///
/// The first error of a child or of the closure.
///
/// # Panics
///
/// Goes on with a panic, see above. `a scoped thread panicked`, if only a value that nobody joined panicked as it was dropped.
#[track_caller]
pub fn try_scope<'env, F, T, E>(f: F) -> std::result::Result<T, E>
where
    F: for<'scope> FnOnce(&'scope TryScope<'scope, 'env, E>) -> std::result::Result<T, E>,
    E: 'env,
{
    let (value, failures) = strands_sched::try_scope::<Face<E>, _, _, _, _>(
        |scope| f(scope).map_err(|error| scope.fail(error)).ok(),
        |scope| mem::take(&mut *scope.failures.lock().unwrap_or_else(PoisonError::into_inner)),
    );
    match failures {
        Failures { panic: Some(payload), .. } => panic::resume_unwind(payload),
        Failures { error: Some(error), .. } => Err(error),
        _ => Ok(value.flatten().expect("the closure's value, as nothing has failed")),
    }
}

/// What [`try_scope`] lends to its closure, to spawn in.
///
/// The lifetimes are those of [`Scope`](crate::thread::Scope); `E` is the error.
///
/// ```
/// use strands::thread::TryScope;
///
/// fn spawn_checks<'scope>(scope: &'scope TryScope<'scope, '_, String>, numbers: &'scope [i32]) {
///     for number in numbers {
///         // A child may spawn siblings.
///         scope.spawn(move || match number {
///             0.. => Ok(()),
///             _ => Err(format!("{number} is negative")),
///         });
///     }
/// }
/// let numbers = [3, -1, 4];
/// let checked = strands::try_scope(|scope| Ok(spawn_checks(scope, &numbers)));
/// assert_eq!(checked, Err("-1 is negative".into()));
/// ```
pub struct TryScope<'scope, 'env: 'scope, E> {
    spawner: Spawner<'scope, 'env>,
    failures: Mutex<Failures<E>>,
    /// As in `Scope`.
    outlives: PhantomData<&'scope &'env ()>,
}

/// The first of each.
struct Failures<E> {
    error: Option<E>,
    panic: Option<Box<dyn Any + Send>>,
}

impl<E> Default for Failures<E> {
    fn default() -> Failures<E> {
        Failures { error: None, panic: None }
    }
}

impl<'scope, E> TryScope<'scope, '_, E> {
    /// Spawns a fiber that may borrow from outside the scope, and that may fail.
    ///
    /// [`join`](ScopedJoinHandle::join) gives the value of a child that returned `Ok`. For one that has failed, or was cancelled,
    /// there is none: who joins it inside of the scope unwinds with the rest of the scope. Only where nothing may be
    /// unwound (in [`uncancellable`](crate::cancel::uncancellable), in destructors that run because of
    /// an unwinding, and where panics abort) it returns, and like for any fiber that was cancelled, it is
    /// [`Cancelled`].
    ///
    /// # Panics
    ///
    /// If no fiber can be spawned; [`spawn_with`](Self::spawn_with) returns the error instead.
    ///
    /// ```
    /// let text = "17 4";
    /// let sum = strands::try_scope(|scope| {
    ///     let numbers: Vec<_> =
    ///         text.split(' ').map(|word| scope.spawn(move || word.parse::<i32>())).collect();
    ///     Ok(numbers.into_iter().map(|number| number.join().unwrap()).sum::<i32>())
    /// });
    /// assert_eq!(sum, Ok(21));
    /// ```
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> std::result::Result<T, E> + Send + 'scope,
        T: Send + 'scope,
        E: Send,
    {
        started(self.spawn_by(SpawnOptions::default(), f))
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
    /// let name = strands::try_scope(|scope| {
    ///     let child = scope.spawn_with(Builder::new().name("child".into()), || {
    ///         Ok(thread::current().name().map(str::to_owned))
    ///     })?;
    ///     Ok::<_, std::io::Error>(child.join().unwrap())
    /// });
    /// assert_eq!(name?.as_deref(), Some("child"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn spawn_with<F, T>(
        &'scope self,
        builder: Builder,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> std::result::Result<T, E> + Send + 'scope,
        T: Send + 'scope,
        E: Send,
    {
        self.spawn_by(builder.options(), f)
    }

    #[track_caller]
    fn spawn_by<F, T>(
        &'scope self,
        options: SpawnOptions,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> std::result::Result<T, E> + Send + 'scope,
        T: Send + 'scope,
        E: Send,
    {
        let child = || self.result_of(f);
        let join = self.spawner.try_spawn(options, runtime::default_runtime, child)?;
        Ok(ScopedJoinHandle::new(join))
    }

    /// Runs a child. What it fails with stays here.
    fn result_of<T>(&self, f: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
        match panic::catch_unwind(AssertUnwindSafe(f)) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => self.fail(error),
            Err(payload) if payload.is::<Cancelled>() => return Err(payload),
            Err(payload) => self.fail_by(|failures| keep(&mut failures.panic, payload)),
        }
        Err(Cancelled::not_unwound())
    }

    /// Whether something in the scope has failed, so that all of it is to end.
    ///
    /// ```
    /// let result = strands::try_scope(|scope| {
    ///     assert!(!scope.has_failed());
    ///     scope.spawn(|| Err::<(), _>("an error"));
    ///     while !scope.has_failed() {
    ///         std::hint::spin_loop(); // It does not wait, so it is not unwound.
    /// #       strands::cancel::uncancellable(strands::yield_now);
    ///     }
    ///     Ok("it came to its end by itself")
    /// });
    /// assert_eq!(result, Err("an error"));
    /// ```
    pub fn has_failed(&self) -> bool {
        self.spawner.has_failed()
    }

    fn fail(&self, error: E) {
        self.fail_by(|failures| keep(&mut failures.error, error));
    }

    /// What `keep` does not keep it gives back, to be dropped without the lock.
    fn fail_by<L>(&self, keep: impl FnOnce(&mut Failures<E>) -> L) {
        let left = keep(&mut self.failures.lock().unwrap_or_else(PoisonError::into_inner));
        self.spawner.fail();
        drop(left);
    }
}

/// Keeps the first; what is left is the other.
fn keep<T>(first: &mut Option<T>, other: T) -> Option<T> {
    match first {
        Some(_) => Some(other),
        None => first.replace(other),
    }
}

// As `Scope`.
impl<E> RefUnwindSafe for TryScope<'_, '_, E> {}

impl<E> fmt::Debug for TryScope<'_, '_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (children, _, owner) = self.spawner.state();
        f.debug_struct("TryScope")
            .field("num_running_threads", &children)
            .field("has_failed", &self.has_failed())
            .field("main_thread", &Thread::of(owner))
            .finish_non_exhaustive()
    }
}

/// Tells the scheduler what such a scope looks like here.
struct Face<E>(PhantomData<E>);

impl<'scope, 'env, E: 'env> ScopeFace<'scope, 'env> for Face<E> {
    type Scope = TryScope<'scope, 'env, E>;

    fn make(spawner: Spawner<'scope, 'env>) -> TryScope<'scope, 'env, E> {
        TryScope { spawner, failures: Mutex::default(), outlives: PhantomData }
    }
}
