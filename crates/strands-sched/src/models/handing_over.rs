//! The inbox, and the wake of a fiber through it.

use std::ptr::NonNull;
use std::sync::Arc as StdArc;
use std::sync::atomic::AtomicUsize as StdAtomicUsize;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
use loom::thread;

use super::{Signal, all, bounded};
use crate::atomic::{Relaxed, SeqCst};
use crate::inbox::{Bell, Inbox, Linked};
use crate::task::{Run, Task, TaskRef};
use crate::worker::Worker;

struct Item {
    link: AtomicPtr<Item>,
    /// Who pushed it, and as the how manieth: not atomic, so loom sees whether it is handed over.
    label: UnsafeCell<(usize, usize)>,
}

// SAFETY: an item is used by its pusher before the push and by its taker after.
unsafe impl Linked for Item {
    fn link(&self) -> &AtomicPtr<Item> {
        &self.link
    }
}

fn push(inbox: &Inbox<Item>, pusher: usize, number: usize) -> Bell {
    let label = UnsafeCell::new((0, 0));
    let item = Box::into_raw(Box::new(Item { link: AtomicPtr::default(), label }));
    // SAFETY: it is not shared yet; afterwards it is in one inbox, until `take` frees it.
    unsafe {
        (*item).label.with_mut(|label| *label = (pusher, number));
        inbox.push(item)
    }
}

fn take(inbox: &Inbox<Item>, taken: &mut Vec<(usize, usize)>) {
    for item in inbox.take() {
        // SAFETY: `push` made it as a box, and it has been taken out.
        let item = unsafe { Box::from_raw(item) };
        // SAFETY: the taker's alone.
        taken.push(item.label.with(|label| unsafe { *label }));
    }
}

#[test]
fn inbox_keeps_all_in_order() {
    all(|| {
        let inbox = Arc::new(Inbox::new());
        let pushers = [2, 1].map(|count| {
            let inbox = inbox.clone();
            thread::spawn(move || (0..count).for_each(|n| _ = push(&inbox, count, n)))
        });
        let mut taken = Vec::new();
        take(&inbox, &mut taken);
        pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
        take(&inbox, &mut taken);
        let of = |pusher| taken.iter().filter(move |item| item.0 == pusher).map(|item| item.1);
        assert_eq!(of(2).collect::<Vec<_>>(), [0, 1], "an item was lost, doubled or overtaken");
        assert_eq!(of(1).collect::<Vec<_>>(), [0], "an item was lost or doubled");
    });
}

/// A pusher and a poker against an owner that sleeps when it sees nothing.
#[test]
fn inbox_wakes_its_owner_once() {
    bounded(3, || {
        let (inbox, signal) = (Arc::new(Inbox::new()), Signal::new());
        let reason = Arc::new(AtomicBool::new(false));
        let pusher = {
            let (inbox, signal) = (inbox.clone(), signal.clone());
            thread::spawn(move || {
                if push(&inbox, 0, 0) == Bell::Ring {
                    signal.raise();
                }
            })
        };
        let poker = {
            let (inbox, signal, reason) = (inbox.clone(), signal.clone(), reason.clone());
            thread::spawn(move || {
                reason.store(true, Relaxed);
                if inbox.poke() == Bell::Ring {
                    signal.raise();
                }
            })
        };
        let (mut taken, mut slept) = (Vec::new(), 0);
        loop {
            take(&inbox, &mut taken);
            if taken.len() == 1 && reason.load(Relaxed) {
                break;
            }
            if inbox.fall_asleep() {
                slept += 1;
                signal.wait();
            }
        }
        pusher.join().unwrap();
        poker.join().unwrap();
        assert_eq!(signal.count(), slept, "a sleep is ended by one ring");
    });
}

/// Counts how often it is dropped.
struct Dropped(StdArc<StdAtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A fiber that parks until it has seen all `wakes`, at a worker that sleeps meanwhile. It starts
/// before the wakers, or beside them.
fn wakes_reach_the_fiber(wakes: usize, start_first: bool) {
    let dropped = StdArc::new(StdAtomicUsize::new(0));
    let signal = Signal::new();
    let worker = Worker::for_models(StdArc::new(signal.clone()));
    let its = Dropped(dropped.clone());
    let here = std::panic::Location::caller();
    let f = move || {
        drop(its);
        Ok(())
    };
    let (task, handle) = Task::allocate(f, 1, here, None, (), false);
    drop(handle);
    if start_first {
        task.start(worker);
    }
    let seen = Arc::new(AtomicUsize::new(0));
    let wakers: Vec<_> = (0..wakes)
        .map(|_| {
            let (task, seen) = (task.clone(), seen.clone());
            thread::spawn(move || {
                // Relaxed: the wake itself has to make it visible.
                seen.fetch_add(1, Relaxed);
                task.wake();
            })
        })
        .collect();

    let receive = || {
        let mut resumed = false;
        for item in worker.inbox().take() {
            // SAFETY: what is in the inbox is not null and comes with one reference.
            let task = unsafe { TaskRef::from_raw(NonNull::new_unchecked(item)) };
            assert!(task.is_started(), "a wake of a fiber that has not started was queued");
            task.clear_queued();
            resumed |= task.become_ready();
        }
        resumed
    };
    if !start_first {
        task.start(worker);
    }
    task.set_run(Run::Running);
    while seen.load(Relaxed) < wakes {
        task.set_run(Run::Parked);
        while !receive() {
            if worker.inbox().fall_asleep() {
                signal.wait();
            }
        }
        task.set_run(Run::Running);
    }
    task.set_run(Run::Ended);
    wakers.into_iter().for_each(|waker| waker.join().unwrap());
    assert!(!receive(), "an ended fiber was made ready");
    assert_eq!(dropped.load(SeqCst), 0, "the fiber was freed while it was referred to");
    drop(task);
    assert_eq!(dropped.load(SeqCst), 1, "a reference was lost or doubled");
}

#[test]
fn a_wake_races_the_start() {
    all(|| wakes_reach_the_fiber(1, false));
}

#[test]
fn two_wakes_race() {
    bounded(2, || wakes_reach_the_fiber(2, true));
}

/// A cancel is a wake whose reason is a flag of the header.
#[test]
fn a_cancel_races_the_start() {
    all(|| {
        let signal = Signal::new();
        let worker = Worker::for_models(StdArc::new(signal.clone()));
        let here = std::panic::Location::caller();
        let (task, _handle) = Task::allocate(|| Ok(()), 1, here, None, (), false);
        let canceller = {
            let task = task.clone();
            thread::spawn(move || task.cancel())
        };
        task.start(worker);
        task.set_run(Run::Running);
        while !task.cancel_requested() {
            task.set_run(Run::Parked);
            let mut resumed = false;
            while !resumed {
                for item in worker.inbox().take() {
                    // SAFETY: what is in the inbox is not null and comes with one reference.
                    let task = unsafe { TaskRef::from_raw(NonNull::new_unchecked(item)) };
                    task.clear_queued();
                    resumed |= task.become_ready();
                }
                if !resumed && worker.inbox().fall_asleep() {
                    signal.wait();
                }
            }
        }
        canceller.join().unwrap();
        for item in worker.inbox().take() {
            // SAFETY: as above.
            drop(unsafe { TaskRef::from_raw(NonNull::new_unchecked(item)) });
        }
    });
}
