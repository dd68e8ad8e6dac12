//! The protocols under loom: every interleaving of a few threads; here the mutex and the condition variable.
//!
//! The data is loom's `UnsafeCell`, so that two holders at once, or a hand-over without the order it
//! needs, are found. A lost wake-up is found as a deadlock.

mod barrier;
mod broadcast;
mod channel;
mod held;
mod mpsc;
mod notify;
mod once;
mod oneshot;
mod rwlock;
mod select;
mod semaphore;
mod wait_group;
mod watch;

use std::time::Instant;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use crate::{Condvar, Mutex};

/// A time that has passed: who waits until then gives up at once, or when it loses a race.
fn passed() -> Instant {
    Instant::now()
}

fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

fn add_one(counter: &Mutex<UnsafeCell<usize>>) {
    let guard = counter.lock().unwrap();
    // SAFETY: the lock is held; loom checks it.
    guard.with_mut(|count| unsafe { *count += 1 });
}

fn locks_and_adds(threads: usize, rounds: usize, preemptions: usize) {
    model(preemptions, move || {
        let counter = Arc::new(Mutex::new(UnsafeCell::new(0)));
        let others: Vec<_> = (1..threads)
            .map(|_| {
                let counter = counter.clone();
                thread::spawn(move || (0..rounds).for_each(|_| add_one(&counter)))
            })
            .collect();
        (0..rounds).for_each(|_| add_one(&counter));
        others.into_iter().for_each(|other| other.join().unwrap());
        let guard = counter.lock().unwrap();
        // SAFETY: the lock is held; loom checks it.
        guard.with(|count| assert_eq!(unsafe { *count }, threads * rounds));
    });
}

/// Three rounds: one is waited for, one is taken before the woken waiter comes, one meets the hand-over.
#[test]
fn mutex_of_two() {
    locks_and_adds(2, 3, 3);
}

#[test]
fn mutex_of_three() {
    locks_and_adds(3, 1, 3);
}

#[test]
fn condvar_wakes_who_waits() {
    model(3, || {
        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let other = pair.clone();
        let other = thread::spawn(move || {
            *other.0.lock().unwrap() = true;
            other.1.notify_one();
        });
        drop(pair.1.wait_while(pair.0.lock().unwrap(), |ready| !*ready).unwrap());
        other.join().unwrap();
    });
}
