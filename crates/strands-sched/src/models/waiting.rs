//! Park and unpark: a waker against a waiter that gives up, by each of the ways to wait.

use std::ptr;
use std::sync::Arc as StdArc;
use std::sync::atomic::AtomicUsize as StdAtomicUsize;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicPtr};
use loom::thread;

use super::{OP, all, bounded, passed};
use crate::atomic::{AcqRel, Relaxed, SeqCst};
use crate::current;
use crate::latch::{Latch, Set};
use crate::park::{Outcome, Parker, park_token, unpark_token};
use crate::task::{Join, Task, TaskRef};
use crate::wait_queue::WaitQueue;

#[test]
fn an_unpark_is_not_lost() {
    bounded(3, || {
        let me = current::with(TaskRef::to);
        let reasons = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let wakers = [0, 1].map(|i| {
            let (me, reasons) = (me.clone(), reasons.clone());
            thread::spawn(move || {
                reasons[i].store(true, Relaxed);
                unpark_token(&me);
            })
        });
        park_token(None);
        let seen = reasons.iter().any(|reason| reason.load(Relaxed));
        assert!(seen, "what the unparker did before is not seen after the park");
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
        assert!(reasons.iter().all(|reason| reason.load(Relaxed)));
    });
}

/// One parker, enrolled in one word, as in a latch.
struct Frame {
    slot: AtomicPtr<Parker>,
    /// Stands for the frame that the parker lies on.
    frame: UnsafeCell<u32>,
}

#[test]
fn a_frame_is_not_left_before_the_ring() {
    all(|| {
        let shared = Arc::new(Frame { slot: AtomicPtr::default(), frame: UnsafeCell::new(0) });
        let waker = {
            let shared = shared.clone();
            thread::spawn(move || {
                let parker = shared.slot.swap(ptr::null_mut(), AcqRel);
                if parker.is_null() {
                    return None;
                }
                // SAFETY: taken out, so the frame stays until it is rung.
                shared.frame.with(|frame| assert_eq!(unsafe { *frame }, 0));
                // SAFETY: as above.
                Some(unsafe { Parker::unpark(parker) })
            })
        };
        let parker = Parker::new();
        let me = ptr::from_ref(&parker).cast_mut();
        shared.slot.swap(me, AcqRel);
        let withdraw =
            || shared.slot.compare_exchange(me, ptr::null_mut(), AcqRel, Relaxed).is_ok();
        let outcome = parker.park(&OP, 0, passed(), withdraw);
        // SAFETY: nobody looks at the frame after `park`: that is what the model checks.
        shared.frame.with_mut(|frame| unsafe { *frame = 1 });
        let won = waker.join().unwrap();
        assert_eq!(outcome == Outcome::Woken, won == Some(true), "they disagree on the outcome");
    });
}

/// A semaphore: the permit goes from hand to hand, also past one that gives up.
#[derive(Default)]
struct Permits(WaitQueue<u32>);

impl Permits {
    fn acquire(&self, deadline: Option<std::time::Instant>) -> bool {
        let attempt = |permits: &mut u32| {
            let free = *permits > 0;
            *permits -= u32::from(free);
            free.then_some(())
        };
        match self.0.wait(&OP, deadline, (), attempt) {
            Ok(()) | Err(Outcome::Woken) => true,
            Err(_) => false,
        }
    }

    fn release(&self) {
        let mut queue = self.0.lock();
        let chosen = queue.choose_first(|()| {});
        if chosen.is_none() {
            *queue += 1;
        }
        drop(queue);
        drop(chosen);
    }
}

#[test]
fn a_turn_is_passed_on() {
    bounded(4, || {
        let permits = Arc::new(Permits::default());
        let patient = {
            let permits = permits.clone();
            thread::spawn(move || {
                assert!(permits.acquire(None));
                permits.release();
            })
        };
        let releaser = {
            let permits = permits.clone();
            thread::spawn(move || permits.release())
        };
        if permits.acquire(passed()) {
            permits.release();
        }
        patient.join().unwrap();
        releaser.join().unwrap();
        assert_eq!(*permits.0.lock(), 1, "a permit was lost or doubled");
        assert!(permits.0.lock().is_empty(), "somebody is left in line");
    });
}

/// What was protected by the latch is handed over, however the first wait ends.
#[test]
fn a_latch_is_set_or_left() {
    all(|| {
        let shared = Arc::new((Latch::new(), UnsafeCell::new(0)));
        let setter = {
            let shared = shared.clone();
            thread::spawn(move || {
                // SAFETY: the setter's, until it sets the latch.
                shared.1.with_mut(|result| unsafe { *result = 7 });
                shared.0.set()
            })
        };
        let outcome = shared.0.wait_deadline(&OP, 0, passed());
        let abandoned = outcome == Outcome::TimedOut && shared.0.abandon();
        if !abandoned {
            // SAFETY: the latch is set: its setter has left us the result.
            assert_eq!(shared.1.with(|result| unsafe { *result }), 7);
            assert!(shared.0.is_set());
        }
        let set = setter.join().unwrap();
        assert_eq!(set == Set::Abandoned, abandoned, "they disagree on whose the result is");
    });
}

#[test]
fn a_latch_wakes_its_waiter() {
    all(|| {
        let latch = Arc::new(Latch::new());
        let setter = {
            let latch = latch.clone();
            thread::spawn(move || drop(latch.set()))
        };
        latch.wait(&OP, 0);
        assert!(latch.is_set());
        setter.join().unwrap();
    });
}

/// A fiber's result; loom sees who uses it when.
struct Value {
    cell: UnsafeCell<u32>,
    drops: StdArc<StdAtomicUsize>,
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: being dropped; that nobody else uses it is what the model checks.
        self.cell.with_mut(|value| assert_eq!(std::mem::take(unsafe { &mut *value }), 7));
        self.drops.fetch_add(1, SeqCst);
    }
}

fn a_fiber_ends_beside(holder: fn(Join<Value>)) {
    let drops = StdArc::new(StdAtomicUsize::new(0));
    let its = drops.clone();
    let f = move || Ok(Value { cell: UnsafeCell::new(7), drops: its });
    let here = std::panic::Location::caller();
    let (task, handle) = Task::allocate(f, 1, here, None, (), false);
    // SAFETY: the task is one of a `Value`, and this is its only join.
    let join = unsafe { Join::<Value>::new(handle) };
    let fiber = thread::spawn(move || {
        // SAFETY: once; a thread stands for the fiber's stack.
        unsafe { task.run_closure() };
        drop(task);
    });
    holder(join);
    fiber.join().unwrap();
    assert_eq!(drops.load(SeqCst), 1, "the result is dropped once");
}

#[test]
fn a_result_is_joined_once() {
    all(|| {
        a_fiber_ends_beside(|join| {
            let value = join.join().unwrap_or_else(|_| panic!("the fiber did not panic"));
            // SAFETY: it is ours now.
            assert_eq!(value.cell.with(|value| unsafe { *value }), 7);
        });
    });
}

#[test]
fn a_result_is_dropped_once() {
    all(|| a_fiber_ends_beside(drop));
}

#[test]
fn a_join_that_gives_up_leaves_the_result() {
    all(|| {
        a_fiber_ends_beside(|join| {
            let _ = join.task().joined.wait_deadline(&OP, 0, passed());
            drop(join);
        });
    });
}
