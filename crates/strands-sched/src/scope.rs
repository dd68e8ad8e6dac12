//! Fibers that borrow: `std::thread::scope`'s bookkeeping.
//!
//! A scope does not return, nor unwind, before its children have ended, and a stack is never freed
//! before it is unwound: on these two rests that a child may borrow from its parent's frame.

use std::cell::OnceCell;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;

use crate::cancel;
use crate::children::{Children, Member};
use crate::current;
use crate::fork;
use crate::frame::{self, Until};
use crate::no_unwind::AbortOnUnwind;
use crate::park::{Op, Outcome};
use crate::runtime::{Shared, SpawnOptions};
use crate::spawn;
use crate::task::{Join, TaskRef};

/// Runs `f` with a scope to spawn in, and returns only after all that was spawned in it has ended.
///
/// The scope that `f` sees is the caller's own type, made by [`ScopeFace::make`] from a
/// [`Spawner`].
///
/// # Panics
///
/// Goes on with the panic of `f`. If `f` returned, but a child panicked and nobody joined it:
/// `a scoped thread panicked`. Who is asked to unwind while it waits for its children cancels
/// them, and unwinds by that instead. In a [forked child](crate::in_forked_child), if there are children.
///
/// ```
/// use strands_sched::{Builder, ScopeFace, SpawnOptions, Spawner, scope};
///
/// struct Face;
/// impl<'scope, 'env> ScopeFace<'scope, 'env> for Face {
///     type Scope = Spawner<'scope, 'env>;
///     fn make(spawner: Spawner<'scope, 'env>) -> Self::Scope {
///         spawner
///     }
/// }
///
/// let runtime = Builder::new().workers(1).build()?;
/// let mut count = 0;
/// runtime.run(SpawnOptions::default(), || {
///     scope::<Face, _, _>(|scope| {
///         let no_fallback = || unreachable!("a fiber has a runtime");
///         scope.spawn(SpawnOptions::default(), no_fallback, || count += 1).map(drop)
///     })
/// })??;
/// assert_eq!(count, 1);
/// # std::io::Result::Ok(())
/// ```
#[track_caller]
pub fn scope<'env, Face, F, T>(f: F) -> T
where
    Face: for<'scope> ScopeFace<'scope, 'env>,
    F: for<'scope> FnOnce(&'scope <Face as ScopeFace<'scope, 'env>>::Scope) -> T,
{
    let (value, ()) = open::<Face, _, _, _, _>(false, f, |_| ());
    value.expect("only what fails is ended early")
}

/// As [`scope`], for a scope that may [fail](Spawner::fail): then its children are cancelled, and what `f`
/// waits for unwinds to here.
///
/// When all children have ended, `f` having returned or unwound, `end` is called with what `f` had, which
/// is never dropped. Returns what `f` returned, None if it was unwound, and what `end` did.
///
/// # Panics
///
/// As [`scope`]. A scope whose `f` panics has failed.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
/// use strands_sched::{ScopeFace, Spawner, sleep_until, try_scope};
///
/// struct Scope<'scope, 'env> {
///     spawner: Spawner<'scope, 'env>,
///     late: AtomicBool,
/// }
/// enum Face {}
/// impl<'scope, 'env> ScopeFace<'scope, 'env> for Face {
///     type Scope = Scope<'scope, 'env>;
///     fn make(spawner: Spawner<'scope, 'env>) -> Self::Scope {
///         Scope { spawner, late: AtomicBool::new(false) }
///     }
/// }
///
/// let body = |scope: &Scope<'_, '_>| {
///     scope.late.store(true, Relaxed);
///     scope.spawner.fail();
///     sleep_until(None); // It does not wait: the scope has failed.
/// };
/// let (returned, late) = try_scope::<Face, _, _, _, _>(body, |scope| scope.late.load(Relaxed));
/// assert_eq!((returned, late), (None, true));
/// ```
#[track_caller]
pub fn try_scope<'env, Face, F, T, End, S>(f: F, end: End) -> (Option<T>, S)
where
    Face: for<'scope> ScopeFace<'scope, 'env>,
    F: for<'scope> FnOnce(&'scope <Face as ScopeFace<'scope, 'env>>::Scope) -> T,
    End: for<'scope> FnOnce(&'scope <Face as ScopeFace<'scope, 'env>>::Scope) -> S,
{
    open::<Face, _, _, _, _>(true, f, end)
}

#[track_caller]
fn open<'env, Face, F, T, End, S>(may_fail: bool, f: F, end: End) -> (Option<T>, S)
where
    Face: for<'scope> ScopeFace<'scope, 'env>,
    F: for<'scope> FnOnce(&'scope <Face as ScopeFace<'scope, 'env>>::Scope) -> T,
    End: for<'scope> FnOnce(&'scope <Face as ScopeFace<'scope, 'env>>::Scope) -> S,
{
    let children = Children::of_scope();
    // Not dropped, so that it may be borrowed for 'scope, which ends with it: it holds a reference.
    let face = OnceCell::new();
    // From here on there may be children: the making of the face may spawn, and panic, too.
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let spawner = Spawner { children: &children, scope: PhantomData, env: PhantomData };
        let body = || f(face.get_or_init(|| ManuallyDrop::new(Face::make(spawner))));
        match may_fail {
            false => Some(body()),
            true => frame::run(Until::Failure(children.clone()), body).ok(),
        }
    }));
    // `Spawner::spawn` relies on this line: nothing between there and here leaves this frame.
    wait(&children, may_fail && result.is_err());
    let end = face.get().map(|face| end(face));
    let value = match result {
        Err(payload) => {
            drop(end); // What children failed with, beside this.
            panic::resume_unwind(payload)
        }
        Ok(value) => (value, end.expect("the face was made, as the closure was called with it")),
    };
    if children.has_cancelled_child() || children.has_unhandled_panic() {
        // What ended the children may be meant for their parent too.
        cancel::expect_shutdown();
        let (deliver, hold) = current::with(|me| {
            let deliver = cancel::deliverable(me);
            // A panic would abort the process; the next suspension after the unwinding
            // delivers the cancel.
            (deliver, cancel::panicking() && frame::is_asked_behind_shields(me))
        });
        if deliver {
            cancel::unwind();
        }
        assert!(hold || !children.has_unhandled_panic(), "a scoped thread panicked");
    }
    value
}

/// Waits until no child is left. What asks the owner to unwind meanwhile goes on to the children, which must
/// have ended; so does the owner's own `failure`.
///
/// In a forked child, where they have no thread to run on, it panics instead.
#[track_caller]
fn wait(children: &Children, failure: bool) {
    static SCOPE: Op = Op("thread::scope");
    if fork::in_forked_child() && children.count().0 > 0 {
        fork::refuse();
    }
    let lent = AbortOnUnwind("a panic would leave a frame that children borrow from");
    if failure {
        children.fail();
    }
    let mut outcome = children.wait(&SCOPE);
    if outcome == Outcome::Cancelled {
        children.cancel(true);
        outcome = cancel::uncancellable(|| children.wait(&SCOPE));
    }
    assert_eq!(outcome, Outcome::Woken, "a scope was left before its children ended");
    lent.disarm();
}

/// The type that a scope has for the layer above, for every `'scope` that `'env` outlives.
///
/// `Bounds` is not to be named: it only says that `'env` outlives `'scope`.
///
/// ```
/// use std::io;
/// use strands_sched::{Builder, Join, Runtime, ScopeFace, SpawnOptions, Spawner, scope};
///
/// /// What our users spawn with: always on the same runtime.
/// struct Scope<'scope, 'env> {
///     spawner: Spawner<'scope, 'env>,
/// }
/// impl<'scope> Scope<'scope, '_> {
///     fn spawn<T: Send + 'scope>(
///         &self,
///         runtime: &Runtime,
///         f: impl FnOnce() -> T + Send + 'scope,
///     ) -> io::Result<Join<T>> {
///         self.spawner.spawn(SpawnOptions::default(), || Ok(runtime.shared().clone()), f)
///     }
/// }
///
/// enum Face {}
/// impl<'scope, 'env> ScopeFace<'scope, 'env> for Face {
///     type Scope = Scope<'scope, 'env>;
///     fn make(spawner: Spawner<'scope, 'env>) -> Self::Scope {
///         Scope { spawner }
///     }
/// }
///
/// let runtime = Builder::new().workers(1).build()?;
/// let text = String::from("borrowed");
/// scope::<Face, _, _>(|scope| {
///     let child = scope.spawn(&runtime, || text.len())?;
///     assert_eq!(child.join().unwrap(), 8);
///     io::Result::Ok(())
/// })?;
/// # std::io::Result::Ok(())
/// ```
pub trait ScopeFace<'scope, 'env, Bounds = &'scope &'env ()> {
    /// What [`scope`]'s closure gets a reference to. It is never dropped.
    type Scope: 'scope;

    /// Wraps the right to spawn.
    fn make(spawner: Spawner<'scope, 'env>) -> Self::Scope;
}

/// The right to spawn fibers that borrow for `'scope`.
///
/// As in std, `'scope` can neither shrink nor grow: if it could shrink, a child could spawn what
/// borrows from the child's own frame.
///
/// ```
/// use strands_sched::{ScopeFace, Spawner, scope};
///
/// struct Face;
/// impl<'scope, 'env> ScopeFace<'scope, 'env> for Face {
///     type Scope = Spawner<'scope, 'env>;
///     fn make(spawner: Spawner<'scope, 'env>) -> Self::Scope {
///         spawner
///     }
/// }
/// let text = scope::<Face, _, _>(|spawner| format!("{spawner:?}"));
/// assert!(text.contains("children: 0"));
/// ```
pub struct Spawner<'scope, 'env> {
    children: &'scope Arc<Children>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

impl<'scope> Spawner<'scope, '_> {
    /// As [`spawn`](crate::spawn()), for closures that borrow.
    ///
    /// # Errors
    ///
    /// As for [`spawn`](crate::spawn()).
    ///
    /// ```
    /// use strands_sched::{Builder, ScopeFace, SpawnOptions, Spawner, scope};
    ///
    /// struct Face;
    /// impl<'scope, 'env> ScopeFace<'scope, 'env> for Face {
    ///     type Scope = Spawner<'scope, 'env>;
    ///     fn make(spawner: Spawner<'scope, 'env>) -> Self::Scope {
    ///         spawner
    ///     }
    /// }
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let text = String::from("borrowed");
    /// let length = scope::<Face, _, _>(|spawner| {
    ///     let fallback = || Ok(runtime.shared().clone());
    ///     let child = spawner.spawn(SpawnOptions::default(), fallback, || text.len())?;
    ///     std::io::Result::Ok(child.join().unwrap())
    /// })?;
    /// assert_eq!(length, 8);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn spawn<F, T>(
        &self,
        options: SpawnOptions,
        fallback: impl FnOnce() -> io::Result<Arc<Shared>>,
        f: F,
    ) -> io::Result<Join<T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        self.try_spawn(options, fallback, || Ok(f()))
    }

    /// As [`spawn`](Self::spawn), for a closure that returns what the join is to give: so a child can end like one
    /// that was cancelled, see [`Cancelled::not_unwound`](crate::Cancelled::not_unwound).
    ///
    /// # Errors
    ///
    /// As for [`spawn`](crate::spawn()).
    ///
    /// ```
    /// use strands_sched::{Builder, Cancelled, ScopeFace, SpawnOptions, Spawner, scope};
    ///
    /// struct Face;
    /// impl<'scope, 'env> ScopeFace<'scope, 'env> for Face {
    ///     type Scope = Spawner<'scope, 'env>;
    ///     fn make(spawner: Spawner<'scope, 'env>) -> Self::Scope {
    ///         spawner
    ///     }
    /// }
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// scope::<Face, _, _>(|spawner| {
    ///     let fallback = || Ok(runtime.shared().clone());
    ///     let f = || Err::<(), _>(Cancelled::not_unwound());
    ///     let child = spawner.try_spawn(SpawnOptions::default(), fallback, f)?;
    ///     assert!(child.join().unwrap_err().is::<Cancelled>());
    ///     std::io::Result::Ok(())
    /// })?;
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn try_spawn<F, T>(
        &self,
        options: SpawnOptions,
        fallback: impl FnOnce() -> io::Result<Arc<Shared>>,
        f: F,
    ) -> io::Result<Join<T>>
    where
        F: FnOnce() -> thread::Result<T> + Send + 'scope,
        T: Send + 'scope,
    {
        // SAFETY: only `open` makes a spawner, for a 'scope that all callers must take as it
        // comes: what outlives it outlives the call of `open`, or is the face in its frame.
        // `open` waits for these very children before it returns or unwinds; a forked child has none to run.
        unsafe { spawn::spawn_unchecked(options, fallback, Member::of(self.children.clone()), f) }
    }

    /// Cancels all children, also those that are spawned later: these end without having started.
    ///
    /// ```
    /// use strands_sched::{Builder, ScopeFace, SpawnOptions, Spawner, scope, sleep_until};
    ///
    /// struct Face;
    /// impl<'scope, 'env> ScopeFace<'scope, 'env> for Face {
    ///     type Scope = Spawner<'scope, 'env>;
    ///     fn make(spawner: Spawner<'scope, 'env>) -> Self::Scope {
    ///         spawner
    ///     }
    /// }
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// scope::<Face, _, _>(|spawner| {
    ///     let fallback = || Ok(runtime.shared().clone());
    ///     spawner.spawn(SpawnOptions::default(), fallback, || sleep_until(None))?;
    ///     spawner.cancel(); // Else the scope would not end.
    ///     std::io::Result::Ok(())
    /// })?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn cancel(&self) {
        self.children.cancel(true);
    }

    /// [Cancels](Self::cancel) all children, and what the closure of a [`try_scope`] waits for, now or later. Once.
    ///
    /// ```
    /// use strands_sched::{ScopeFace, Spawner, check, try_scope};
    ///
    /// struct Face;
    /// impl<'scope, 'env> ScopeFace<'scope, 'env> for Face {
    ///     type Scope = Spawner<'scope, 'env>;
    ///     fn make(spawner: Spawner<'scope, 'env>) -> Self::Scope {
    ///         spawner
    ///     }
    /// }
    ///
    /// let body = |spawner: &Spawner<'_, '_>| {
    ///     spawner.fail();
    ///     assert!(spawner.has_failed());
    ///     check();
    /// };
    /// assert_eq!(try_scope::<Face, _, _, _, _>(body, |_| "over"), (None, "over"));
    /// ```
    pub fn fail(&self) {
        self.children.fail();
    }

    /// Whether it [has](Self::fail).
    ///
    /// ```
    /// use strands_sched::{ScopeFace, Spawner, scope};
    ///
    /// struct Face;
    /// impl<'scope, 'env> ScopeFace<'scope, 'env> for Face {
    ///     type Scope = Spawner<'scope, 'env>;
    ///     fn make(spawner: Spawner<'scope, 'env>) -> Self::Scope {
    ///         spawner
    ///     }
    /// }
    /// assert!(!scope::<Face, _, _>(|spawner| spawner.has_failed()));
    /// ```
    pub fn has_failed(&self) -> bool {
        self.children.has_failed()
    }

    /// For people to read: how many children have not ended, whether one panicked and was not joined, and who
    /// opened the scope.
    ///
    /// ```
    /// use strands_sched::{ScopeFace, Spawner, scope, with_current_task};
    ///
    /// struct Face;
    /// impl<'scope, 'env> ScopeFace<'scope, 'env> for Face {
    ///     type Scope = Spawner<'scope, 'env>;
    ///     fn make(spawner: Spawner<'scope, 'env>) -> Self::Scope {
    ///         spawner
    ///     }
    /// }
    /// scope::<Face, _, _>(|spawner| {
    ///     let (children, panicked, owner) = spawner.state();
    ///     assert_eq!((children, panicked), (0, false));
    ///     assert_eq!(owner.id(), with_current_task(|me| me.id()));
    /// });
    /// ```
    pub fn state(&self) -> (usize, bool, &TaskRef) {
        let owner = self.children.owner().expect("a scope is somebody's");
        (self.children.count().0, self.children.has_unhandled_panic(), owner)
    }
}

impl std::fmt::Debug for Spawner<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (children, panicked, _) = self.state();
        f.debug_struct("Spawner")
            .field("children", &children)
            .field("panicked", &panicked)
            .finish_non_exhaustive()
    }
}
