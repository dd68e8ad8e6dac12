//! The watch: what it is told of it looks at afterwards, and sleeps if there is nothing.

use std::time::{Duration, Instant};

use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::thread;

use super::{all, bounded};
use crate::atomic::{Mutex, Relaxed, lock};
use crate::watch::{Flag, Looks};

/// Looks whenever it may, until it has seen something, and sleeps in between.
fn watches(flag: &Flag, sees: impl Fn() -> bool) {
    let pause = Duration::from_secs(1);
    let (mut looks, mut has_seen) = (Looks::default(), false);
    // Loom has no clock: each pause is over when it begins.
    let late = Instant::now() + 1_000 * pause;
    while !has_seen {
        looks.step(flag, late, Duration::ZERO, || {
            has_seen = sees();
            false
        });
        if looks.at.is_none() && !has_seen {
            thread::park();
        }
    }
}

/// Fibers wait, one after the other. The lock is for the worker: it does not answer while one runs.
#[test]
fn who_waits_last_is_looked_at() {
    bounded(3, || {
        let shared = Arc::new((Flag::new(), Mutex::new(false)));
        let its = shared.clone();
        let watch = thread::spawn(move || watches(&its.0, || *lock(&its.1)));
        for waits_for_ever in [false, true] {
            let mut waits = lock(&shared.1);
            if shared.0.raise() {
                watch.thread().unpark();
            }
            *waits = waits_for_ever;
        }
        watch.join().unwrap();
    });
}

/// A worker sleeps, is woken, and sleeps for ever; it is looked at from outside.
#[test]
fn who_rests_last_is_looked_at() {
    all(|| {
        let shared = Arc::new((Flag::new(), AtomicBool::new(false)));
        let its = shared.clone();
        let watch = thread::spawn(move || watches(&its.0, || its.1.load(Relaxed)));
        for sleeps_for_ever in [false, true] {
            shared.1.store(sleeps_for_ever, Relaxed);
            if shared.0.raise_after_store() {
                watch.thread().unpark();
            }
        }
        watch.join().unwrap();
    });
}
