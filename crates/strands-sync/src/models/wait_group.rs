//! Who waits sees what the others did, and goes on; also if its time is up in the same moment.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::thread;

use super::{model, passed};
use crate::WaitGroup;
use crate::atomic::{Acquire, Release};

/// Two threads that write to a cell each and are done, beside `wait`. Then the cells are looked at.
fn workers_beside(wait: fn(WaitGroup)) {
    model(3, move || {
        let group = WaitGroup::new();
        let cells = Arc::new([UnsafeCell::new(0), UnsafeCell::new(0)]);
        let workers = [0, 1].map(|i| {
            let (group, cells) = (group.clone(), cells.clone());
            thread::spawn(move || {
                // SAFETY: looked at by the waiter only after all are done; loom checks it.
                cells[i].with_mut(|cell| unsafe { *cell = 1 });
                drop(group);
            })
        });
        wait(group);
        for cell in cells.iter() {
            // SAFETY: all are done; loom checks it.
            cell.with(|cell| assert_eq!(unsafe { *cell }, 1));
        }
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn a_waiter_sees_what_was_done() {
    workers_beside(WaitGroup::wait);
}

#[test]
fn a_waiter_whose_time_is_up_may_wait_again() {
    workers_beside(|group| {
        if let Err(group) = group.wait_deadline(passed()) {
            group.wait();
        }
    });
}

/// A handle that comes back from a wait counts: nobody has been told that all are done.
#[test]
fn a_handle_that_comes_back_counts() {
    model(3, || {
        let (group, told) = (WaitGroup::new(), Arc::new(AtomicBool::new(false)));
        let waiter = {
            let (group, told) = (group.clone(), told.clone());
            thread::spawn(move || {
                group.wait();
                told.store(true, Release);
            })
        };
        let worker = {
            let group = group.clone();
            thread::spawn(move || drop(group))
        };
        if let Err(handle) = group.wait_deadline(passed()) {
            assert!(!told.load(Acquire));
            drop(handle);
        }
        waiter.join().unwrap();
        worker.join().unwrap();
    });
}
