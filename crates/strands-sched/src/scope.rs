//! Fibers that borrow: `std::thread::scope`'s bookkeeping.
//!
//! A scope does not return, nor unwind, before its children have ended, and a stack is never freed
//! before it is unwound: on these two rests that a child may borrow from its parent's frame.

use std::any::Any;
use std::cell::OnceCell;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use crate::atomic::{AcqRel, Acquire, AtomicBool, AtomicUsize, Mutex, Relaxed, lock};
use crate::cancel::{self, Cancelled};
use crate::current;
use crate::frame;
use crate::no_unwind::AbortOnUnwind;
use crate::park::{self, Op, Outcome};
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
/// them, and unwinds by that instead.
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
    let data = ScopeData::new();
    // Not dropped, so that it may be borrowed for 'scope, which ends with it: it holds a reference.
    let face = OnceCell::new();
    // From here on there may be children: the making of the face may spawn, and panic, too.
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let spawner = Spawner { data: &data, scope: PhantomData, env: PhantomData };
        f(face.get_or_init(|| ManuallyDrop::new(Face::make(spawner))))
    }));
    // `Spawner::spawn` relies on this line: nothing between there and here leaves this frame.
    data.wait();
    match result {
        Err(payload) => panic::resume_unwind(payload),
        Ok(value) if !data.has_cancelled_child() && !data.has_unhandled_panic() => value,
        Ok(value) => {
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
            assert!(hold || !data.has_unhandled_panic(), "a scoped thread panicked");
            value
        }
    }
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
    data: &'scope Arc<ScopeData>,
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
        // SAFETY: only `scope` makes a spawner, for a 'scope that all callers must take as it
        // comes: what outlives it outlives the call of `scope`, or is the face in its frame.
        // `scope` waits for the children of this very `data` before it returns or unwinds.
        unsafe { spawn::spawn_unchecked(options, fallback, Some(self.data.clone()), f) }
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
        self.data.cancel();
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
        (self.data.children.load(Relaxed), self.data.has_unhandled_panic(), &self.data.owner)
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

/// A scope's children that have not ended, and what became of the others.
pub(crate) struct ScopeData {
    children: AtomicUsize,
    panicked: AtomicBool,
    /// A child was cancelled and nobody looked at its result.
    cancelled: AtomicBool,
    owner: TaskRef,
    members: Mutex<Members>,
}

/// Those children, for who cancels them.
#[derive(Default)]
struct Members {
    cancelled: bool,
    places: Vec<Option<TaskRef>>,
    free: Vec<usize>,
}

/// How a child ended whose result nobody will look at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unhandled {
    Panic,
    Cancel,
}

impl Unhandled {
    /// What it is that a fiber ended with.
    pub(crate) fn by(payload: &(dyn Any + Send)) -> Unhandled {
        if Cancelled::is(payload) { Unhandled::Cancel } else { Unhandled::Panic }
    }
}

impl ScopeData {
    /// A scope of the running party, without children.
    fn new() -> Arc<ScopeData> {
        Arc::new(ScopeData {
            children: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            owner: current::with(TaskRef::to),
            members: Mutex::new(Members::default()),
        })
    }

    /// Counts a child in, before it can run; its place.
    pub(crate) fn child_begins(&self, child: TaskRef) -> usize {
        self.children.fetch_add(1, Relaxed);
        let mut members = lock(&self.members);
        if members.cancelled {
            child.cancel();
        }
        match members.free.pop() {
            Some(place) => {
                members.places[place] = Some(child);
                place
            }
            None => {
                members.places.push(Some(child));
                members.places.len() - 1
            }
        }
    }

    /// Counts a child out: it touches nothing that it borrowed after this.
    pub(crate) fn child_ended(&self, place: usize, unhandled: Option<Unhandled>) {
        self.note(unhandled);
        let mut members = lock(&self.members);
        members.places[place] = None; // Not the last: the scheduler has another.
        members.free.push(place);
        drop(members);
        if self.children.fetch_sub(1, AcqRel) == 1 {
            self.owner.wake();
        }
    }

    /// Notes how a child ended whose result nobody will look at.
    pub(crate) fn note(&self, unhandled: Option<Unhandled>) {
        match unhandled {
            Some(Unhandled::Panic) => self.panicked.store(true, Relaxed),
            Some(Unhandled::Cancel) => self.cancelled.store(true, Relaxed),
            None => {}
        }
    }

    /// Cancels all children, now and later.
    fn cancel(&self) {
        let mut members = lock(&self.members);
        members.cancelled = true;
        let children: Vec<TaskRef> = members.places.iter().flatten().cloned().collect();
        drop(members);
        children.iter().for_each(|child| child.cancel());
    }

    fn has_cancelled_child(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Whether a child panicked and nobody looked at the payload.
    fn has_unhandled_panic(&self) -> bool {
        self.panicked.load(Relaxed)
    }

    /// Waits until no child is left. What asks the owner to unwind meanwhile goes on to the
    /// children, which must have ended.
    fn wait(&self) {
        static SCOPE: Op = Op("thread::scope");
        let object = std::ptr::from_ref(self).addr();
        let wait = || park::wait_until(&SCOPE, object, None, || self.children.load(Acquire) == 0);
        let mut outcome = wait();
        if outcome == Outcome::Cancelled {
            let awaited = AbortOnUnwind("a panic would leave a frame that children borrow from");
            self.cancel();
            awaited.disarm();
            outcome = cancel::uncancellable(wait);
        }
        assert_eq!(outcome, Outcome::Woken, "a scope was left before its children ended");
    }
}
