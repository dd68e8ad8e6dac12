//! Select: exactly one of several operations, whatever the others do meanwhile.

use std::panic::Location;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::{OP, bounded, passed};
use crate::park::Outcome;
use crate::select::{Arm, Operation, Order, select, try_select};
use crate::task::{Join, Task};
use crate::wait_queue::{WaitQueue, Waiter};

/// A semaphore whose permits go from hand to hand.
#[derive(Default)]
struct Permits(WaitQueue<u32>);

impl Permits {
    fn release(&self) {
        let mut queue = self.0.lock();
        let chosen = queue.choose_first(|()| {});
        if chosen.is_none() {
            *queue += 1;
        }
        drop(queue);
        drop(chosen);
    }

    fn acquire(&self) {
        let attempt = |permits: &mut u32| permits.checked_sub(1).map(|left| *permits = left);
        let result = self.0.wait(&OP, None, (), attempt);
        assert!(matches!(result, Ok(()) | Err(Outcome::Woken)));
    }

    fn left(&self) -> u32 {
        let queue = self.0.lock();
        assert!(queue.is_empty(), "somebody is left in line");
        *queue
    }
}

/// To acquire, as one of several operations.
struct Acquire<'a> {
    permits: &'a Permits,
    waiter: Waiter<()>,
}

impl Acquire<'_> {
    fn of(permits: &Permits) -> Acquire<'_> {
        Acquire { permits, waiter: Waiter::new() }
    }
}

// SAFETY: `withdraw` takes the waiter out of the only line it is put in.
unsafe impl Operation for Acquire<'_> {
    fn attempt(&self) -> bool {
        self.waiter.assert_idle();
        let mut permits = self.permits.0.lock();
        let left = permits.checked_sub(1);
        *permits = left.unwrap_or(0);
        left.is_some()
    }

    unsafe fn enrol(&self, arm: Arm<'_>) -> bool {
        let mut permits = self.permits.0.lock();
        // SAFETY: `select` borrows us until we are withdrawn.
        *permits == 0 && unsafe { permits.enrol(&self.waiter, arm, ()) }
    }

    unsafe fn withdraw(&self) {
        self.permits.0.withdraw(&self.waiter);
    }
}

fn beside(both: &Arc<[Permits; 2]>, f: fn(&[Permits; 2])) -> thread::JoinHandle<()> {
    let both = both.clone();
    thread::spawn(move || f(&both))
}

fn select_both(both: &[Permits; 2], deadline: Option<std::time::Instant>) -> Option<usize> {
    let (first, second) = (Acquire::of(&both[0]), Acquire::of(&both[1]));
    select(&[&first, &second], Order::Biased, deadline)
}

/// Both become possible at once: one is performed, of the other nothing is lost.
#[test]
fn one_of_two_is_chosen() {
    bounded(3, || {
        let both = Arc::new([Permits::default(), Permits::default()]);
        let others =
            [beside(&both, |both| both[0].release()), beside(&both, |both| both[1].release())];
        let chosen = select_both(&both, None).unwrap();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(both[chosen].left(), 0, "what was chosen was not taken");
        assert_eq!(both[1 - chosen].left(), 1, "what was not chosen is lost");
    });
}

/// One permit, a select and a patient waiter, and another permit that the select may take instead.
#[test]
fn a_turn_that_a_select_does_not_take_is_passed_on() {
    bounded(2, || {
        let both = Arc::new([Permits::default(), Permits::default()]);
        let patient = beside(&both, |both| both[0].acquire());
        let releaser = beside(&both, |both| {
            both[1].release();
            both[0].release();
        });
        let chosen = select_both(&both, None).unwrap();
        if chosen == 0 {
            both[0].release();
        }
        patient.join().unwrap();
        releaser.join().unwrap();
        assert_eq!((both[0].left(), both[1].left()), (0, u32::from(chosen == 0)));
    });
}

#[test]
fn a_select_is_chosen_or_gives_up() {
    bounded(3, || {
        let both = Arc::new([Permits::default(), Permits::default()]);
        let patient = beside(&both, |both| both[0].acquire());
        let releaser = beside(&both, |both| both[0].release());
        if select_both(&both, passed()) == Some(0) {
            both[0].release();
        }
        patient.join().unwrap();
        releaser.join().unwrap();
        assert_eq!((both[0].left(), both[1].left()), (0, 0));
    });
}

/// The same line twice: it is one permit all the same.
#[test]
fn a_line_may_be_in_a_select_twice() {
    bounded(3, || {
        let both = Arc::new([Permits::default(), Permits::default()]);
        let other = beside(&both, |both| {
            both[0].release();
            both[0].release();
        });
        let (first, second) = (Acquire::of(&both[0]), Acquire::of(&both[0]));
        assert!(select(&[&first, &second, &first], Order::Biased, None).is_some());
        other.join().unwrap();
        assert_eq!(both[0].left(), 1);
        assert!(try_select(&[&second], Order::Fair).is_some());
    });
}

/// Two fibers end at once: the select has one result, and the other is there still.
#[test]
fn one_of_two_joins_is_chosen() {
    bounded(2, || {
        let fiber = |value: u32| {
            let f = move || Ok(UnsafeCell::new(value));
            let (task, handle) = Task::allocate(f, 1, Location::caller(), None, (), false);
            // SAFETY: the task is one of such a cell, and this is its only join.
            let join = unsafe { Join::<UnsafeCell<u32>>::new(handle) };
            let thread = thread::spawn(move || {
                // SAFETY: once; a thread stands for the fiber's stack.
                unsafe { task.run_closure() };
                drop(task);
            });
            (join, thread)
        };
        let (mut first, one) = fiber(1);
        let (mut second, two) = fiber(2);
        let (a, b) = (first.select_join(), second.select_join());
        let chosen = select(&[&a, &b], Order::Biased, None).unwrap();
        let result = if chosen == 0 { a.take() } else { b.take() };
        let value = result.expect("it has ended").unwrap().into_inner();
        assert_eq!(value, chosen as u32 + 1);
        let rest = if chosen == 0 { second.join() } else { first.join() };
        assert_eq!(rest.unwrap().into_inner(), 2 - chosen as u32);
        one.join().unwrap();
        two.join().unwrap();
    });
}
