//! Barrier: parties of every kind, and those that give up.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use common::{Kind, PAIRS, at, let_others_run, runtime, start, stress};
use strands_sched::{Cancelled, spawn_on};
use strands_sync::Barrier;

#[test]
fn parties_of_every_kind_meet() {
    let runtime = runtime(2);
    for (first, second) in PAIRS {
        let barrier = Arc::new(Barrier::new(2));
        let started = [first, second].map(|kind| {
            let barrier = barrier.clone();
            start(runtime.shared(), kind, move || barrier.wait().is_leader())
        });
        let leaders = started.into_iter().filter_map(|started| started().unwrap().then_some(()));
        assert_eq!(leaders.count(), 1, "{first:?} {second:?}");
    }
}

#[test]
fn who_is_cancelled_has_not_come() {
    let runtime = runtime(1);
    let barrier = Arc::new(Barrier::new(3));
    runtime
        .run(at(0), || {
            let party = || {
                let barrier = barrier.clone();
                spawn_on(runtime.shared(), at(0), move || barrier.wait().is_leader()).unwrap()
            };
            let (patient, cancelled) = (party(), party());
            let_others_run();
            cancelled.task().cancel();
            assert!(cancelled.join().unwrap_err().is::<Cancelled>());
            let third = party();
            let_others_run();
            assert!(!patient.is_finished() && !third.is_finished(), "two of three");
            assert!(barrier.wait().is_leader());
            assert!(!patient.join().unwrap() && !third.join().unwrap());
        })
        .unwrap();
}

/// Whoever unwinds has not counted, whoever returns has: so all that return come in threes.
#[test]
fn a_cancel_races_the_last_arrival() {
    let runtime = runtime(2);
    let barrier = Arc::new(Barrier::new(3));
    let (returned, leaders) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let note = |result: std::thread::Result<bool>| match result {
        Ok(leader) => {
            returned.fetch_add(1, SeqCst);
            leaders.fetch_add(usize::from(leader), SeqCst);
        }
        Err(payload) => assert!(payload.is::<Cancelled>()),
    };
    for round in 0..200 * stress() {
        let party = |kind| {
            let barrier = barrier.clone();
            start(runtime.shared(), kind, move || barrier.wait().is_leader())
        };
        let before = returned.load(SeqCst);
        let its = barrier.clone();
        let victim =
            spawn_on(runtime.shared(), at(round % 2), move || its.wait().is_leader()).unwrap();
        let two = [party(Kind::Fiber(0)), party(Kind::Fiber(1))];
        victim.task().cancel();
        let result = victim.join();
        if result.is_err() {
            // Somebody must come in its place.
            note(party(Kind::Thread)());
        }
        note(result);
        two.into_iter().for_each(|started| note(started()));
        assert_eq!(returned.load(SeqCst), before + 3);
        assert_eq!(leaders.load(SeqCst), round + 1);
    }
}
