//! The children of a scope or a group: those that have not ended, and of a group those that have and whose result
//! nobody has taken yet.
//!
//! Two lists that run through the children's own tasks, so a child allocates nothing; and the line of those who wait for
//! children to end, whose lock guards the lists. A child links itself before it can run, and takes itself
//! out as the last that it does with what it may borrow. So who cancels under the lock reaches each
//! child that began before, and each that begins later finds that all are cancelled.
//!
//! A child of a group goes from the one list to the other, in the order in which children end, and its reference with it; who takes
//! it from there has the right to its result.
//!
//! Turned down: references in a vector (counts and a place for each child), and to look for the children among
//! all fibers of all workers when somebody cancels (most scopes have few, most programs many).

use std::any::Any;
use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Instant;

use crate::atomic::{AcqRel, Acquire, AtomicBool, Relaxed};
use crate::cancel::Cancelled;
use crate::current;
use crate::park::{Op, Outcome};
use crate::select::Arm;
use crate::task::{Header, TaskRef, member_of};
use crate::wait_queue::{Locked, Place, WaitQueue, Waiter};

pub(crate) struct Children {
    line: WaitQueue<Kin>,
    /// Whose scope it is; a group is nobody's.
    owner: Option<TaskRef>,
    /// Those that run are to end, and so is the call that spawned them.
    failed: AtomicBool,
    /// So did a child, and nobody looked at its result.
    panicked: AtomicBool,
    /// As above.
    cancelled: AtomicBool,
}

struct Kin {
    running: usize,
    /// In no order.
    first: *mut Header,
    /// Those that begin from here on too.
    all_cancelled: bool,
    ended: usize,
    first_ended: *mut Header,
    last_ended: *mut Header,
    /// The group is gone: results are for nobody.
    abandoned: bool,
}

// SAFETY: the pointers lead to tasks that are kept alive: by the scheduler while they run, by the list's own
// reference when they have ended. Their links are used under the lock.
unsafe impl Send for Kin {}

/// A fiber's place among its siblings.
pub(crate) struct Member {
    pub(crate) children: Arc<Children>,
    previous: Cell<*mut Header>,
    next: Cell<*mut Header>,
}

impl Member {
    pub(crate) fn of(children: Arc<Children>) -> Member {
        Member { children, previous: Cell::new(ptr::null_mut()), next: Cell::new(ptr::null_mut()) }
    }
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

impl Children {
    /// Those of a scope of the running party.
    pub(crate) fn of_scope() -> Arc<Children> {
        Children::of(Some(current::with(TaskRef::to)))
    }

    pub(crate) fn of_group() -> Arc<Children> {
        Children::of(None)
    }

    fn of(owner: Option<TaskRef>) -> Arc<Children> {
        let no = ptr::null_mut;
        let kin = Kin {
            running: 0,
            first: no(),
            all_cancelled: false,
            ended: 0,
            first_ended: no(),
            last_ended: no(),
            abandoned: false,
        };
        Arc::new(Children {
            line: WaitQueue::new(kin),
            owner,
            failed: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
        })
    }

    /// Counts a child in.
    ///
    /// # Safety
    ///
    /// It is a member of these, and cannot run yet.
    pub(crate) unsafe fn begins(&self, child: &TaskRef) {
        let mut kin = self.line.lock();
        // Who spawns it may have seen a failure whose cancel is still on its way.
        if kin.all_cancelled || self.has_failed() {
            child.cancel();
        }
        kin.running += 1;
        // SAFETY: the caller's promise; those in the list are alive.
        unsafe { kin.link(child.as_ptr()) };
        if self.owner.is_none() {
            std::mem::forget(child.clone()); // The list's, see `ends`.
        }
    }

    /// Counts a child out: it touches nothing that it borrowed after this. False, and nothing done, if its `result` is
    /// for nobody: then it has to drop that first.
    ///
    /// # Safety
    ///
    /// It began here and was not counted out; its result is there, or gone.
    pub(crate) unsafe fn ends(
        &self,
        child: NonNull<Header>,
        result: bool,
        unhandled: Option<Unhandled>,
    ) -> bool {
        self.note(unhandled);
        let mut kin = self.line.lock();
        if kin.abandoned && result {
            return false;
        }
        kin.running -= 1;
        // SAFETY: it is in the list, and those beside it are alive.
        unsafe { kin.unlink(child) };
        if self.owner.is_some() {
            if kin.running == 0 {
                kin.release_all();
            }
            return true;
        }
        if result {
            // SAFETY: it is in no list now, and the reference that `begins` counted keeps it alive.
            unsafe { kin.push_ended(child) };
        } else {
            // SAFETY: `begins` counted it. It is not the last: the scheduler has another.
            drop(unsafe { TaskRef::from_raw(child) });
        }
        let chosen = kin.choose_first(|()| {});
        drop(kin);
        drop(chosen);
        true
    }

    /// Notes how a child ended whose result nobody will look at.
    pub(crate) fn note(&self, unhandled: Option<Unhandled>) {
        match unhandled {
            Some(Unhandled::Panic) => self.panicked.store(true, Relaxed),
            Some(Unhandled::Cancel) => self.cancelled.store(true, Relaxed),
            None => {}
        }
    }

    /// Cancels all that run now, and those that begin `later`, too, if so.
    pub(crate) fn cancel(&self, later: bool) {
        let mut kin = self.line.lock();
        kin.all_cancelled |= later;
        let mut child = kin.first;
        // SAFETY: those in the list are alive, and stay in it while we hold the lock. No lock is taken below this one.
        while let Some(header) = unsafe { child.as_ref() } {
            header.cancel();
            // SAFETY: as above.
            child = unsafe { place(child) }.next.get();
        }
    }

    /// Ends all children, and what the owner does below [`Until::Failure`](crate::frame::Until).
    pub(crate) fn fail(&self) {
        if !self.failed.swap(true, AcqRel) {
            if let Some(owner) = &self.owner {
                owner.wake(); // To look at its frames.
            }
            self.cancel(true);
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Acquire)
    }

    /// Whether all children have been asked to end, or are about to be.
    pub(crate) fn are_cancelled(&self) -> bool {
        self.has_failed() || self.line.lock().all_cancelled
    }

    pub(crate) fn has_cancelled_child(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Whether a child panicked and nobody looked at the payload.
    pub(crate) fn has_unhandled_panic(&self) -> bool {
        self.panicked.load(Relaxed)
    }

    /// Whose scope it is.
    pub(crate) fn owner(&self) -> Option<&TaskRef> {
        self.owner.as_ref()
    }

    /// How many have not ended, and how many have whose result was not taken.
    pub(crate) fn count(&self) -> (usize, usize) {
        let kin = self.line.lock();
        (kin.running, kin.ended)
    }

    /// Waits until no child runs.
    pub(crate) fn wait(&self, op: &'static Op) -> Outcome {
        loop {
            let none_runs = |kin: &mut Kin| (kin.running == 0).then_some(Outcome::Woken);
            match self.line.wait(op, None, (), none_runs) {
                Err(Outcome::Woken) => {}
                Ok(outcome) | Err(outcome) => return outcome,
            }
        }
    }

    /// Waits for a child to end, and takes it. None if no more than `spared` run and none is left.
    ///
    /// # Errors
    ///
    /// How the wait ended without one.
    pub(crate) fn next(
        &self,
        op: &'static Op,
        deadline: Option<Instant>,
        spared: usize,
    ) -> Result<Option<TaskRef>, Outcome> {
        let mut place = Place::Last;
        loop {
            let kin = self.line.lock();
            let kin = match take(kin) {
                Ok(task) => return Ok(Some(task)),
                Err(kin) => kin,
            };
            if kin.running <= spared {
                return Ok(None);
            }
            match kin.wait(place, op, deadline, (), || {}) {
                Outcome::Woken => place = Place::First, // Unless somebody else was faster.
                outcome => return Err(outcome),
            }
        }
    }

    /// Takes a child that has ended; without one, says whether none could end.
    pub(crate) fn try_next(&self) -> Result<TaskRef, bool> {
        take(self.line.lock()).map_err(|kin| kin.running == 0)
    }

    /// Puts a select's `arm` in line, unless there is a child to take, or none that could end: then false.
    ///
    /// # Safety
    ///
    /// `waiter` stays where it is until it was [withdrawn](Self::withdraw).
    pub(crate) unsafe fn enrol(&self, waiter: &Waiter<()>, arm: Arm<'_>) -> bool {
        let mut kin = self.line.lock();
        // SAFETY: the caller's promise.
        kin.ended == 0 && kin.running > 0 && unsafe { kin.enrol(waiter, arm, ()) }
    }

    pub(crate) fn withdraw(&self, waiter: &Waiter<()>) {
        self.line.withdraw(waiter);
    }

    /// Results that are not there yet are for nobody.
    pub(crate) fn abandon(&self) {
        self.line.lock().abandoned = true;
    }
}

/// Takes the first that has ended.
fn take(mut kin: Locked<'_, Kin, ()>) -> Result<TaskRef, Locked<'_, Kin, ()>> {
    let Some(first) = NonNull::new(kin.first_ended) else { return Err(kin) };
    // SAFETY: it is in the list, which has counted it and gives it to us.
    let task = unsafe {
        kin.first_ended = place(first.as_ptr()).next.get();
        TaskRef::from_raw(first)
    };
    kin.ended -= 1;
    if kin.ended == 0 && kin.running == 0 {
        kin.release_all(); // There is nothing left that they could wait for.
    }
    Ok(task)
}

impl Kin {
    /// # Safety
    ///
    /// It and those in the list are alive, and it is in no list.
    unsafe fn link(&mut self, child: NonNull<Header>) {
        // SAFETY: the caller's promise.
        unsafe {
            let links = place(child.as_ptr());
            links.previous.set(ptr::null_mut());
            links.next.set(self.first);
            if !self.first.is_null() {
                place(self.first).previous.set(child.as_ptr());
            }
        }
        self.first = child.as_ptr();
    }

    /// # Safety
    ///
    /// It is in the list of those that run, and all in it are alive.
    unsafe fn unlink(&mut self, child: NonNull<Header>) {
        // SAFETY: the caller's promise.
        unsafe {
            let links = place(child.as_ptr());
            match links.previous.get() {
                previous if previous.is_null() => self.first = links.next.get(),
                previous => place(previous).next.set(links.next.get()),
            }
            if !links.next.get().is_null() {
                place(links.next.get()).previous.set(links.previous.get());
            }
        }
    }

    /// # Safety
    ///
    /// It and those in the list are alive, and it is in no list.
    unsafe fn push_ended(&mut self, child: NonNull<Header>) {
        // SAFETY: the caller's promise.
        unsafe {
            place(child.as_ptr()).next.set(ptr::null_mut());
            match self.first_ended.is_null() {
                true => self.first_ended = child.as_ptr(),
                false => place(self.last_ended).next.set(child.as_ptr()),
            }
        }
        self.last_ended = child.as_ptr();
        self.ended += 1;
    }
}

/// # Safety
///
/// A fiber that is alive and a member of somebody's children.
unsafe fn place<'a>(child: *mut Header) -> &'a Member {
    // SAFETY: the caller's promise.
    unsafe { member_of(NonNull::new_unchecked(child)) }.expect("it has siblings")
}
