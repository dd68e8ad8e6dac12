//! Fibers that borrow: `std::thread::scope`'s bookkeeping.
//!
//! A scope does not return, nor unwind, before its children have ended, and a stack is never freed
//! before it is unwound: on these two rests that a child may borrow from its parent's frame.

use std::sync::Arc;

use crate::atomic::{AcqRel, Acquire, AtomicBool, AtomicUsize, Relaxed};
use crate::cancel;
use crate::current;
use crate::park::{self, Op, Outcome};
use crate::task::TaskRef;

/// A scope's children that have not ended, and what became of the others.
pub struct ScopeData {
    children: AtomicUsize,
    panicked: AtomicBool,
    owner: TaskRef,
}

impl ScopeData {
    /// A scope of the running party, without children.
    pub fn new() -> Arc<ScopeData> {
        Arc::new(ScopeData {
            children: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            owner: current::with(TaskRef::to),
        })
    }

    /// Counts a child in, before it can run.
    pub(crate) fn child_begins(&self) {
        let before = self.children.fetch_add(1, Relaxed);
        assert!(before < usize::MAX / 2, "too many fibers in a scope");
    }

    /// Counts a child out: it touches nothing that it borrowed after this.
    pub(crate) fn child_ended(&self, unhandled_panic: bool) {
        if unhandled_panic {
            self.unhandled_panic();
        }
        if self.children.fetch_sub(1, AcqRel) == 1 {
            self.owner.wake();
        }
    }

    /// A child panicked and nobody will look at the payload.
    pub(crate) fn unhandled_panic(&self) {
        self.panicked.store(true, Relaxed);
    }

    /// Whether a child panicked and nobody looked at the payload.
    pub fn has_unhandled_panic(&self) -> bool {
        self.panicked.load(Relaxed)
    }

    /// Waits until no child is left. Cannot be cancelled: the children must have ended.
    pub fn wait(&self) {
        static SCOPE: Op = Op("thread::scope");
        let object = std::ptr::from_ref(self).addr();
        let outcome = cancel::uncancellable(|| {
            park::wait_until(&SCOPE, object, None, || self.children.load(Acquire) == 0)
        });
        assert_eq!(outcome, Outcome::Woken, "a scope was left before its children ended");
    }
}
