//! A latch: set once, awaited by at most one party. A fiber's end is one.
//!
//! One word: nobody yet, the waiter's parker, abandoned (nobody will ever wait), or set.
//!
//! The setter takes the parker out of the word by its swap. A waiter that gives up takes it out
//! itself; if it is not there any more, the setter has it and is about to use it, so the waiter stays until
//! the parker has been rung: its frame is never left while somebody may still look at it.

use std::ptr;
use std::time::Instant;

use crate::atomic::{AcqRel, Acquire, AtomicPtr};
use crate::no_unwind::AbortOnUnwind;
use crate::park::{Op, Outcome, Parker};

pub(crate) struct Latch {
    word: AtomicPtr<Parker>,
}

const SET: usize = 1;
const ABANDONED: usize = 2;

fn mark(value: usize) -> *mut Parker {
    const { assert!(align_of::<Parker>() > 2) };
    ptr::without_provenance_mut(value)
}

/// What the setter found.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Set {
    /// Somebody waits, or may come.
    Awaited,
    /// Nobody ever will.
    Abandoned,
}

impl Latch {
    pub(crate) fn new() -> Latch {
        Latch { word: AtomicPtr::new(ptr::null_mut()) }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.word.load(Acquire).addr() == SET
    }

    /// Sets it and wakes the waiter. Once.
    pub(crate) fn set(&self) -> Set {
        let before = self.word.swap(mark(SET), AcqRel);
        match before.addr() {
            0 => Set::Awaited,
            ABANDONED => Set::Abandoned,
            SET => unreachable!("a latch was set twice"),
            _ => {
                // SAFETY: the waiter does not leave its frame before the parker has been rung,
                // as it cannot find it in the word any more.
                unsafe { Parker::unpark(before) };
                Set::Awaited
            }
        }
    }

    /// Says that nobody will wait; `false` if the latch is set already.
    pub(crate) fn abandon(&self) -> bool {
        match self.word.compare_exchange(ptr::null_mut(), mark(ABANDONED), AcqRel, Acquire) {
            Ok(_) => true,
            Err(now) => {
                assert_eq!(now.addr(), SET, "a latch was abandoned while it was awaited");
                false
            }
        }
    }

    /// Whether it was said that nobody will wait.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.word.load(Acquire).addr() == ABANDONED
    }

    /// Enrols an arm of a select; false if the latch is set.
    ///
    /// # Safety
    ///
    /// There is one waiter. `arm` stays where it is until it was [withdrawn](Self::withdraw).
    pub(crate) unsafe fn enrol(&self, arm: *const Parker) -> bool {
        self.word.compare_exchange(ptr::null_mut(), arm.cast_mut(), AcqRel, Acquire).is_ok()
    }

    /// Takes an enrolled arm out again, unless the setter has.
    pub(crate) fn withdraw(&self, arm: &Parker) {
        let me = ptr::from_ref(arm).cast_mut();
        let found = || self.word.compare_exchange(me, ptr::null_mut(), AcqRel, Acquire).is_ok();
        if !arm.was_chosen() && !found() {
            arm.wait_for_ring();
        }
    }

    /// Waits until it is set. A cancel unwinds from here and leaves the latch as it was.
    pub(crate) fn wait(&self, op: &'static Op, object: usize) {
        if self.is_set() {
            return crate::park::charge();
        }
        match self.wait_deadline(op, object, None) {
            Outcome::Woken => {}
            Outcome::Cancelled => crate::cancel::unwind(),
            Outcome::TimedOut => unreachable!("no deadline was given"),
        }
    }

    /// Waits until it is set; else the latch is as it was, and may be waited for again.
    pub(crate) fn wait_deadline(
        &self,
        op: &'static Op,
        object: usize,
        deadline: Option<Instant>,
    ) -> Outcome {
        let parker = Parker::new();
        let me = ptr::from_ref(&parker).cast_mut();
        if self.word.compare_exchange(ptr::null_mut(), me, AcqRel, Acquire).is_err() {
            return Outcome::Woken; // Set meanwhile: only the one waiter and the setter write.
        }
        let enrolled =
            AbortOnUnwind("a panic in the middle of a wait would leave a waiter enrolled");
        let withdraw = || self.word.compare_exchange(me, ptr::null_mut(), AcqRel, Acquire).is_ok();
        let outcome = parker.park(op, object, deadline, withdraw);
        enrolled.disarm();
        outcome
    }
}
