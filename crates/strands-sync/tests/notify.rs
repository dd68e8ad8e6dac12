//! Notify: who is notified, in which order, and what is kept.

mod common;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{Kind, Local, PAIRS, at, everywhere, let_others_run, on_one_worker, runtime, start};
use strands_sched::{Cancelled, spawn_on, yield_now};
use strands_sync::Notify;

#[test]
fn keeps_one_notification() {
    everywhere(|| {
        let notify = Notify::default();
        assert_eq!(format!("{notify:?}"), "Notify { permit: false, .. }");
        assert!(!notify.notified_timeout(Duration::ZERO));
        notify.notify_one();
        notify.notify_one();
        assert_eq!(format!("{notify:?}"), "Notify { permit: true, .. }");
        notify.notified();
        assert!(!notify.notified_deadline(Instant::now()));
        notify.notify_waiters();
        assert!(!notify.notified_deadline(Instant::now()), "it is not kept");
        notify.notify_one();
        notify.notify_waiters();
        assert!(notify.notified_timeout(Duration::MAX), "the permit is not taken by the other");
    });
}

#[test]
fn times_out() {
    everywhere(|| {
        let notify = Notify::new();
        for timeout in [Duration::ZERO, Duration::from_micros(1), Duration::from_micros(100)] {
            let start = Instant::now();
            assert!(!notify.notified_timeout(timeout));
            assert!(start.elapsed() >= timeout);
        }
        notify.notify_one();
        assert!(notify.notified_deadline(None));
    });
}

#[test]
fn a_listener_remembers() {
    everywhere(|| {
        let notify = Notify::new();
        let (before, twice) = (notify.listen(), notify.listen());
        notify.notify_one();
        notify.notify_waiters();
        before.wait();
        twice.wait();
        let after = notify.listen();
        assert!(after.wait_timeout(Duration::ZERO), "the listeners have not taken the permit");
        assert!(!notify.listen().wait_deadline(Instant::now()));
    });
}

fn waiter(notify: &Rc<Notify>) -> Local<()> {
    let notify = notify.clone();
    Local::until_it_waits(move |about_to_wait| {
        about_to_wait();
        notify.notified();
    })
}

#[test]
fn who_came_first_is_notified_first() {
    on_one_worker(|| {
        let notify = Rc::new(Notify::new());
        let waiters: Vec<_> = (0..5).map(|_| waiter(&notify)).collect();
        let finished = || waiters.iter().filter(|waiter| waiter.is_finished()).count();
        for notified in 1..=2 {
            notify.notify_one();
            let_others_run();
            assert_eq!(finished(), notified);
            assert!(waiters[notified - 1].is_finished());
        }
        notify.notify_waiters();
        let_others_run();
        assert_eq!(finished(), 5);
        assert!(!notify.notified_timeout(Duration::ZERO));
    });
}

#[test]
fn one_that_gives_up_gets_none() {
    let notify = Arc::new(Notify::new());
    let runtime = runtime(1);
    let [cancelled, timed, patient] = [None, Some(Duration::from_millis(2)), None].map(|timeout| {
        let notify = notify.clone();
        let wait = move || notify.notified_timeout(timeout.unwrap_or(Duration::MAX));
        let fiber = spawn_on(runtime.shared(), at(0), wait).unwrap();
        runtime.run(at(0), let_others_run).unwrap();
        fiber
    });
    cancelled.task().cancel();
    assert!(cancelled.join().unwrap_err().is::<Cancelled>());
    assert!(!timed.join().unwrap());
    notify.notify_one();
    assert!(patient.join().unwrap());
}

#[test]
fn a_notification_outlives_the_cancel() {
    let (notify, went_on) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let runtime = runtime(1);
    let (theirs, mark) = (notify.clone(), went_on.clone());
    let fiber = spawn_on(runtime.shared(), at(0), move || {
        theirs.notified();
        mark.store(true, SeqCst);
        yield_now();
    })
    .unwrap();
    runtime
        .run(at(0), || {
            let_others_run();
            notify.notify_one();
            fiber.task().cancel();
        })
        .unwrap();
    assert!(fiber.join().unwrap_err().is::<Cancelled>(), "where it waits next");
    assert!(went_on.load(SeqCst));
    assert!(!notify.notified_timeout(Duration::ZERO));
}

#[test]
fn every_kind_notifies_every_kind() {
    let rounds = 300 * common::stress();
    for (one, other) in PAIRS {
        let runtime = runtime(2);
        let turns = Arc::new([Notify::new(), Notify::new()]);
        turns[0].notify_one();
        let started = [(one, 0), (other, 1)].map(|(kind, me)| {
            let turns = turns.clone();
            start(runtime.shared(), kind, move || {
                for _ in 0..rounds {
                    turns[me].notified();
                    turns[1 - me].notify_one();
                }
            })
        });
        started.into_iter().for_each(|join| join().unwrap());
        assert!(turns[0].notified_timeout(Duration::ZERO));
    }
}

#[test]
fn a_gate_opens_for_every_kind() {
    let runtime = runtime(2);
    let gate = Arc::new((AtomicBool::new(false), Notify::new(), AtomicUsize::new(0)));
    let started: Vec<_> = (0..40)
        .map(|i| {
            let gate = gate.clone();
            let kind = [Kind::Thread, Kind::Fiber(0), Kind::Fiber(1), Kind::Fiber(1)][i % 4];
            start(runtime.shared(), kind, move || {
                let (open, opened, arrived) = &*gate;
                arrived.fetch_add(1, SeqCst);
                loop {
                    let listener = opened.listen();
                    if open.load(SeqCst) {
                        break;
                    }
                    listener.wait();
                }
            })
        })
        .collect();
    while gate.2.load(SeqCst) < 20 {
        std::thread::yield_now(); // Some wait, some have yet to come.
    }
    gate.0.store(true, SeqCst);
    gate.1.notify_waiters();
    started.into_iter().for_each(|join| join().unwrap());
}

/// Who gets the notification passes it on, so the last one gets it, whoever was cancelled meanwhile.
#[test]
fn a_cancel_races_a_notification_and_it_is_not_swallowed() {
    for round in 0..25 * common::stress() {
        let notify = Arc::new(Notify::new());
        let doomed = runtime(2);
        for me in 0..4 {
            let notify = notify.clone();
            let pass_on = move || {
                notify.notified();
                notify.notify_one();
            };
            drop(spawn_on(doomed.shared(), at(me % 2), pass_on).unwrap());
        }
        let theirs = notify.clone();
        let patient = std::thread::spawn(move || theirs.notified());
        (0..round % 8).for_each(|_| std::thread::yield_now());
        let notifier = std::thread::spawn(move || notify.notify_one());
        doomed.shutdown(None).unwrap();
        notifier.join().unwrap();
        patient.join().unwrap();
    }
}
