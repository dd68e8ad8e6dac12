//! Fibers whose results are taken as they come.
//!
//! A group is the [children](crate::children) of a scope, without the scope: they own what they use, so the group may be
//! moved and shared. It ends as a scope does, after its children.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::about::About;
use crate::cancel::{self, Cancelled};
use crate::children::{Children, Member};
use crate::current;
use crate::fork;
use crate::park::{self, Op, Outcome};
use crate::runtime::{Shared, SpawnOptions};
use crate::select::{Arm, Operation};
use crate::spawn;
use crate::task::{Join, TaskRef, drop_payload, member_of};
use crate::wait_queue::Waiter;

/// Fibers that end, in any order, with a `T`. Dropping it cancels them, and waits until they have ended.
///
/// ```
/// use strands_sched::{Builder, Group, SpawnOptions};
///
/// let runtime = Builder::new().workers(2).build()?;
/// let group = Group::new();
/// for n in 0..3 {
///     group.spawn(SpawnOptions::default(), || Ok(runtime.shared().clone()), move || n)?;
/// }
/// let mut sum = 0;
/// while let Ok(Some((_fiber, n))) = group.next(None) {
///     sum += n.unwrap();
/// }
/// assert_eq!(sum, 3);
/// # std::io::Result::Ok(())
/// ```
pub struct Group<T> {
    children: Arc<Children>,
    /// Invariant. Results are sent here, and handed out through a reference.
    results: PhantomData<fn(T) -> T>,
}

static NEXT: Op = Op("FiberGroup::join_next");

impl<T> Group<T> {
    /// One without fibers.
    ///
    /// ```
    /// assert_eq!(strands_sched::Group::<()>::new().count(), (0, 0));
    /// ```
    #[must_use]
    pub fn new() -> Group<T> {
        Group { children: Children::of_group(), results: PhantomData }
    }

    /// As [`spawn`](crate::spawn()), but the result is the group's.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// ```
    /// use strands_sched::{Builder, Group, SpawnOptions};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let group = Group::new();
    /// let fallback = || Ok(runtime.shared().clone());
    /// let fiber = group.spawn(SpawnOptions::default(), fallback, || "its result")?;
    /// let (task, result) = group.next(None).unwrap().unwrap();
    /// assert_eq!((task.id(), result.unwrap()), (fiber.id(), "its result"));
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn spawn<F>(
        &self,
        options: SpawnOptions,
        fallback: impl FnOnce() -> io::Result<Arc<Shared>>,
        f: F,
    ) -> io::Result<TaskRef>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (place, f) = (Member::of(self.children.clone()), || Ok(f()));
        // SAFETY: nothing is borrowed, and all is Send.
        let join = unsafe { spawn::spawn_unchecked(options, fallback, place, f) }?;
        Ok(join.into_task())
    }

    /// Waits for a fiber to end, and takes its result; those that have ended come in the order in which they did. None if
    /// there is no fiber whose result was not taken.
    ///
    /// # Errors
    ///
    /// If there is none by `deadline`: `TimedOut`. No result is lost by that, nor by a cancel.
    ///
    /// ```
    /// use std::time::Instant;
    /// use strands_sched::{Builder, Group, Outcome, SpawnOptions, sleep_until};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let group = Group::new();
    /// let fallback = || Ok(runtime.shared().clone());
    /// group.spawn(SpawnOptions::default(), fallback, || sleep_until(None))?;
    /// assert!(matches!(group.next(Some(Instant::now())), Err(Outcome::TimedOut)));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn next(
        &self,
        deadline: Option<Instant>,
    ) -> Result<Option<(TaskRef, thread::Result<T>)>, Outcome> {
        park::charge();
        match self.children.next(&NEXT, deadline, 0) {
            Ok(task) => Ok(task.map(|task| self.result_of(task))),
            Err(Outcome::Cancelled) => cancel::unwind(),
            Err(outcome) => Err(outcome),
        }
    }

    /// Takes the result of a fiber that has ended, if there is one.
    ///
    /// ```
    /// use strands_sched::{Builder, Group, SpawnOptions};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let group = Group::new();
    /// let fallback = || Ok(runtime.shared().clone());
    /// group.spawn(SpawnOptions::default(), fallback, || 7)?;
    /// let seven = loop {
    ///     if let Some((_, result)) = group.try_next() {
    ///         break result.unwrap();
    ///     }
    /// };
    /// assert_eq!(seven, 7);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn try_next(&self) -> Option<(TaskRef, thread::Result<T>)> {
        park::charge();
        self.children.try_next().ok().map(|task| self.result_of(task))
    }

    /// To take the [next](Self::next) result, as one of several operations; see [`select`](crate::select).
    ///
    /// ```
    /// use strands_sched::{Builder, Group, Order, SpawnOptions, Timer, select};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let group = Group::new();
    /// group.spawn(SpawnOptions::default(), || Ok(runtime.shared().clone()), || 42)?;
    /// let next = group.select_next();
    /// assert_eq!(select(&[&Timer::at(None), &next], Order::Fair, None), Some(1));
    /// assert_eq!(next.take().unwrap().unwrap().unwrap(), 42);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn select_next(&self) -> NextOperation<'_, T> {
        NextOperation {
            group: self,
            done: Cell::new(false),
            task: Cell::new(None),
            waiter: Waiter::new(),
        }
    }

    fn result_of(&self, task: TaskRef) -> (TaskRef, thread::Result<T>) {
        // SAFETY: `spawn` made it a task of a `T`, and gave up the join; the list had the one right to the
        // result, which was there when it got into the list.
        let (task, result) = unsafe { Join::new(task).into_result() };
        // A shutdown that has ended the child ends us too. Nothing else takes a result from who has asked for it.
        if result.as_ref().is_err_and(|payload| Cancelled::is(&**payload)) {
            cancel::check_shutdown();
        }
        (task, result)
    }

    /// Cancels all fibers that have not ended.
    ///
    /// ```
    /// use strands_sched::{Builder, Cancelled, Group, SpawnOptions, sleep_until};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let group = Group::new();
    /// let fallback = || Ok(runtime.shared().clone());
    /// group.spawn(SpawnOptions::default(), fallback, || sleep_until(None))?;
    /// group.cancel_all();
    /// let (_, result) = group.next(None).unwrap().unwrap();
    /// assert!(result.unwrap_err().is::<Cancelled>());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn cancel_all(&self) {
        self.children.cancel(false);
    }

    /// How many fibers have not ended, and how many have whose result was not taken.
    ///
    /// ```
    /// use strands_sched::{Builder, Group, SpawnOptions};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let group = Group::new();
    /// group.spawn(SpawnOptions::default(), || Ok(runtime.shared().clone()), || ())?;
    /// drop(runtime); // Waits until all fibers have ended.
    /// assert_eq!(group.count(), (0, 1));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        self.children.count()
    }
}

impl<T> Default for Group<T> {
    fn default() -> Group<T> {
        Group::new()
    }
}

impl<T> Drop for Group<T> {
    /// A fiber of the group does not wait for itself, nor a forked child for what is in the parent: the rest ends after this.
    fn drop(&mut self) {
        self.children.cancel(true);
        self.children.abandon();
        let is_member = current::with(|me| {
            // SAFETY: it runs.
            let mine = unsafe { member_of(me.whole()) };
            mine.is_some_and(|mine| Arc::ptr_eq(&mine.children, &self.children))
        });
        let spared = if fork::in_forked_child() { usize::MAX } else { usize::from(is_member) };
        cancel::uncancellable(|| {
            while let Ok(Some(task)) = self.children.next(&NEXT, None, spared) {
                let result = self.result_of(task).1;
                if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| drop(result))) {
                    drop_payload(payload); // As of any result that nobody takes.
                }
            }
        });
    }
}

/// To take the next result, as one of several operations. See [`Group::select_next`].
///
/// ```
/// use strands_sched::{Group, NextOperation, Order, try_select};
///
/// let group = Group::<()>::new();
/// let next: NextOperation<'_, ()> = group.select_next();
/// assert_eq!(try_select(&[&next], Order::Fair), Some(0));
/// assert!(next.take().unwrap().is_none(), "there is no fiber");
/// ```
pub struct NextOperation<'a, T> {
    group: &'a Group<T>,
    done: Cell<bool>,
    /// If it is done: the fiber, if there was one.
    task: Cell<Option<TaskRef>>,
    waiter: Waiter<()>,
}

impl<T> NextOperation<'_, T> {
    /// What [`Group::next`] gives, if that can be had now or the operation was performed. If nobody takes what was performed, that
    /// result is gone.
    ///
    /// ```
    /// assert!(strands_sched::Group::<()>::new().select_next().take().unwrap().is_none());
    /// ```
    pub fn take(&self) -> Option<Option<thread::Result<T>>> {
        let is_done = self.attempt();
        self.done.set(false);
        is_done.then(|| self.task.take().map(|task| self.group.result_of(task).1))
    }
}

// SAFETY: `withdraw` takes the waiter out of the only line it is put in.
unsafe impl<T> Operation for NextOperation<'_, T> {
    fn attempt(&self) -> bool {
        self.waiter.assert_idle();
        if !self.done.get() {
            match self.group.children.try_next() {
                Ok(task) => self.task.set(Some(task)),
                Err(false) => return false,
                Err(true) => {}
            }
            self.done.set(true);
        }
        true
    }

    unsafe fn enrol(&self, arm: Arm<'_>) -> bool {
        // SAFETY: `select` borrows us until we are withdrawn.
        !self.done.get() && unsafe { self.group.children.enrol(&self.waiter, arm) }
    }

    unsafe fn withdraw(&self) {
        self.group.children.withdraw(&self.waiter);
    }

    unsafe fn complete(&self) -> bool {
        self.attempt() // Somebody else may have been faster: then it goes on.
    }

    fn about(&self) -> About {
        About { operation: NEXT.0, object: self.waiter.line(), descriptor: None }
    }
}

impl<T> Drop for NextOperation<'_, T> {
    fn drop(&mut self) {
        // Else what it has taken would be freed with its task, wherever the last reference is.
        if let Some(task) = self.task.take() {
            cancel::uncancellable(|| drop(self.group.result_of(task)));
        }
    }
}

impl<T> fmt::Debug for Group<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (running, ended) = self.count();
        f.debug_struct("Group").field("running", &running).field("ended", &ended).finish()
    }
}
