//! WaitGroup: ends when all are done, however they end.

mod common;

use std::panic::{RefUnwindSafe, UnwindSafe, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{Kind, Local, PAIRS, at, everywhere, let_others_run, on_one_worker, runtime, start};
use strands_sched::{Cancelled, sleep_until, spawn_on, yield_now};
use strands_sync::WaitGroup;

#[test]
fn waits_for_nobody() {
    fn check<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
    check::<WaitGroup>();
    everywhere(|| {
        WaitGroup::default().wait();
        let group = WaitGroup::new();
        drop(group.clone());
        assert_eq!(format!("{group:?}"), "WaitGroup { handles: 1 }");
        assert!(group.wait_timeout(Duration::ZERO).is_ok());
    });
}

#[test]
fn times_out_and_waits_again() {
    everywhere(|| {
        let mut group = WaitGroup::new();
        let other = group.clone();
        for timeout in [Duration::ZERO, Duration::from_micros(1), Duration::from_micros(100)] {
            let start = Instant::now();
            group = group.wait_timeout(timeout).unwrap_err();
            assert!(start.elapsed() >= timeout);
            assert_eq!(format!("{group:?}"), "WaitGroup { handles: 2 }", "it counts again");
        }
        drop(other);
        assert!(group.wait_deadline(Instant::now()).is_ok());
    });
}

#[test]
fn ends_for_all_waiters_when_the_last_is_done() {
    on_one_worker(|| {
        let group = WaitGroup::new();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let group = group.clone();
                Local::until_it_waits(move |about_to_wait| {
                    about_to_wait();
                    group.wait();
                })
            })
            .collect();
        let other = group.clone();
        drop(group);
        let_others_run();
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        drop(other);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
    // The last is one that waits: then there is nobody else.
    on_one_worker(|| {
        let group = WaitGroup::new();
        let theirs = group.clone();
        let waiter = Local::until_it_waits(move |about_to_wait| {
            about_to_wait();
            theirs.wait();
        });
        group.wait();
        waiter.join().unwrap();
    });
}

#[test]
fn a_panic_and_a_cancel_are_ends_too() {
    let runtime = runtime(2);
    let group = WaitGroup::new();
    let theirs = group.clone();
    let panics = spawn_on(runtime.shared(), at(1), move || {
        let _group = theirs;
        resume_unwind(Box::new(()));
    })
    .unwrap();
    let theirs = group.clone();
    let sleeps = spawn_on(runtime.shared(), at(0), move || {
        let _group = theirs;
        sleep_until(None);
    })
    .unwrap();
    let group = group.wait_timeout(Duration::from_millis(1)).unwrap_err();
    sleeps.task().cancel();
    group.wait();
    assert!(panics.join().is_err() && sleeps.join().is_err());
}

#[test]
fn a_cancelled_waiter_is_gone() {
    let runtime = runtime(1);
    let group = WaitGroup::new();
    let theirs = group.clone();
    let waiter = spawn_on(runtime.shared(), at(0), move || theirs.wait()).unwrap();
    runtime.run(at(0), let_others_run).unwrap();
    waiter.task().cancel();
    assert!(waiter.join().unwrap_err().is::<Cancelled>());
    assert_eq!(format!("{group:?}"), "WaitGroup { handles: 1 }");
    group.wait();
}

#[test]
fn every_kind_waits_for_every_kind() {
    let rounds = 100 * common::stress();
    for (one, other) in PAIRS {
        let runtime = runtime(2);
        for round in 0..rounds {
            let (group, done) = (WaitGroup::new(), Arc::new(AtomicUsize::new(0)));
            let workers = [one, other, other].map(|kind| {
                let (group, done) = (group.clone(), done.clone());
                start(runtime.shared(), kind, move || {
                    (0..round % 3).for_each(|_| yield_now());
                    done.fetch_add(1, SeqCst);
                    drop(group);
                })
            });
            let waiter = start(runtime.shared(), [one, other][round % 2], move || {
                group.wait();
                done.load(SeqCst)
            });
            assert_eq!(waiter().unwrap(), 3);
            workers.into_iter().for_each(|join| join().unwrap());
        }
    }
}

#[test]
fn threads_and_fibers_may_share_one() {
    let runtime = runtime(2);
    let group = WaitGroup::new();
    let started: Vec<_> = (0..30)
        .map(|i| {
            let group = group.clone();
            let kind = [Kind::Thread, Kind::Fiber(0), Kind::Fiber(1)][i % 3];
            start(
                runtime.shared(),
                kind,
                move || if i % 2 == 0 { group.wait() } else { drop(group) },
            )
        })
        .collect();
    group.wait();
    started.into_iter().for_each(|join| join().unwrap());
}

/// Waiters and workers are cancelled while the last is done: who is left is told.
#[test]
fn a_cancel_races_the_end_and_nobody_is_forgotten() {
    for round in 0..25 * common::stress() {
        let group = WaitGroup::new();
        let doomed = runtime(2);
        for me in 0..4 {
            let group = group.clone();
            let party = move || match me % 2 {
                0 => group.wait(),
                _ => {
                    let _group = group;
                    sleep_until(None);
                }
            };
            drop(spawn_on(doomed.shared(), at(me / 2), party).unwrap());
        }
        let theirs = group.clone();
        let patient = std::thread::spawn(move || theirs.wait());
        (0..round % 8).for_each(|_| std::thread::yield_now());
        let last = std::thread::spawn(move || drop(group));
        doomed.shutdown(None).unwrap();
        last.join().unwrap();
        patient.join().unwrap();
    }
}
