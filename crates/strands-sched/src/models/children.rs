//! Scopes and groups: they end after their children, whoever begins, ends, fails or cancels at once.

use std::panic::Location;
use std::sync::Arc as StdArc;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::{OP, all, bounded, passed};
use crate::children::{Children, Member};
use crate::frame::{self, Until};
use crate::park::{self, Outcome};
use crate::task::{Task, TaskRef};

/// A child of them that has not started.
fn child_of(children: &StdArc<Children>) -> TaskRef {
    let place = Member::of(children.clone());
    Task::allocate(|| Ok(()), 1, Location::caller(), None, place, true).0
}

/// A thread that stands for the fiber.
fn run(child: TaskRef, f: impl FnOnce() + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        f();
        // SAFETY: once; a thread stands for the fiber's stack.
        unsafe { child.run_closure() };
    })
}

#[test]
fn a_scope_is_left_after_its_children() {
    bounded(3, || {
        let lent = Arc::new([UnsafeCell::new(0), UnsafeCell::new(0)]);
        let children = Children::of_scope();
        let threads = [0, 1].map(|i| {
            let its = lent.clone();
            run(child_of(&children), move || {
                // SAFETY: that nobody else uses it is what the model checks.
                its[i].with_mut(|value| unsafe { *value += 1 });
            })
        });
        assert_eq!(children.wait(&OP), Outcome::Woken);
        for cell in &*lent {
            // SAFETY: as above.
            cell.with(|value| assert_eq!(unsafe { *value }, 1));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_child_is_cancelled_whenever_it_begins() {
    all(|| {
        let children = Children::of_scope();
        let its = children.clone();
        let canceller = thread::spawn(move || its.cancel(true));
        let child = child_of(&children);
        canceller.join().unwrap();
        assert!(child.cancel_requested());
        run(child, || ()).join().unwrap();
    });
}

#[test]
fn a_child_of_who_saw_the_failure_does_not_start() {
    all(|| {
        let children = Children::of_scope();
        let its = children.clone();
        let fails = thread::spawn(move || its.fail());
        if children.has_failed() {
            let child = child_of(&children);
            assert!(child.cancel_requested());
            run(child, || ()).join().unwrap();
        }
        fails.join().unwrap();
    });
}

/// Waits for what never comes, so a failure that is not told shows as a deadlock.
#[test]
fn a_failure_ends_a_wait_of_the_owner() {
    all(|| {
        let children = Children::of_scope();
        let its = children.clone();
        let child = thread::spawn(move || its.fail());
        let body = || park::wait_until(&OP, 0, None, || false);
        if let Ok(outcome) = frame::run(Until::Failure(children), body) {
            assert_eq!(outcome, Outcome::Cancelled, "of which an operation would unwind");
        }
        child.join().unwrap();
    });
}

/// Two wait for the results of two, or give up, or learn that there is no more.
fn results_are_taken_once(fibers: usize, gives_up: bool) {
    let group = Children::of_group();
    let threads: Vec<_> = (0..fibers).map(|_| run(child_of(&group), || ())).collect();
    let its = group.clone();
    let other = thread::spawn(move || {
        let deadline = if gives_up { passed() } else { None };
        usize::from(its.next(&OP, deadline, 0).is_ok_and(|task| task.is_some()))
    });
    let mut taken = usize::from(group.next(&OP, None, 0).unwrap().is_some());
    taken += other.join().unwrap();
    if gives_up {
        while group.next(&OP, None, 0).unwrap().is_some() {
            taken += 1;
        }
    }
    assert_eq!((taken, group.count()), (fibers, (0, 0)));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn two_results_are_taken_by_two() {
    bounded(2, || results_are_taken_once(2, false));
}

#[test]
fn who_waits_beside_the_last_learns_that_there_is_no_more() {
    bounded(3, || results_are_taken_once(1, false));
}

#[test]
fn who_gives_up_leaves_the_result() {
    bounded(2, || results_are_taken_once(2, true));
}
