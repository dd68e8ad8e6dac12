//! Condvar: what std's does, by fibers and threads in any mix.

mod common;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{
    Kind, Local, PAIRS, at, everywhere, let_others_run, on_one_worker, runtime, start, stress,
};
use strands_sched::{Cancelled, spawn_on};
use strands_sync::{Condvar, Mutex, WaitTimeoutResult};

#[test]
fn times_out() {
    everywhere(|| {
        let (mutex, condvar) = (Mutex::new(0), Condvar::new());
        for timeout in [Duration::ZERO, Duration::from_micros(1), Duration::from_micros(100)] {
            let start = Instant::now();
            let guard = mutex.lock().unwrap();
            let (guard, result) = condvar.wait_timeout(guard, timeout).unwrap();
            assert!(result.timed_out() && start.elapsed() >= timeout);
            assert!(mutex.try_lock().is_err(), "it is locked again");
            let mut asked = 0;
            let (guard, result) = condvar
                .wait_timeout_while(guard, timeout, |_| {
                    asked += 1;
                    true
                })
                .unwrap();
            assert!(result.timed_out() && asked >= 1);
            let waited = condvar.wait_timeout_while(guard, timeout, |_| false).unwrap();
            assert!(!waited.1.timed_out());
        }
        #[expect(deprecated, reason = "std has it")]
        let waited = condvar.wait_timeout_ms(mutex.lock().unwrap(), 0).unwrap();
        assert!(!waited.1);
        let copy: WaitTimeoutResult = { condvar.wait_timeout(waited.0, Duration::ZERO).unwrap().1 };
        assert_eq!((format!("{copy:?}"), copy), ("WaitTimeoutResult(true)".into(), copy));
        assert_eq!(
            format!("{condvar:?} {:?}", Condvar::default()),
            "Condvar { .. } Condvar { .. }"
        );
    });
}

#[test]
fn waits_for_a_time_beyond_the_clock() {
    for (waiter, notifier) in PAIRS {
        let runtime = runtime(2);
        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let theirs = pair.clone();
        let waiter = start(runtime.shared(), waiter, move || {
            let (mutex, condvar) = &*theirs;
            let mut guard = mutex.lock().unwrap();
            while !*guard {
                let (again, result) = condvar.wait_timeout(guard, Duration::MAX).unwrap();
                assert!(!result.timed_out());
                guard = again;
            }
        });
        let notifier = start(runtime.shared(), notifier, move || {
            *pair.0.lock().unwrap() = true;
            pair.1.notify_one();
        });
        waiter().unwrap();
        notifier().unwrap();
    }
}

/// Waiters in line on the caller's worker; each adds one to the count when notified.
fn waiters(n: usize, mutex: &Rc<Mutex<usize>>, condvar: &Rc<Condvar>) -> Vec<Local<()>> {
    (0..n)
        .map(|_| {
            let (mutex, condvar) = (mutex.clone(), condvar.clone());
            Local::until_it_waits(move |about_to_wait| {
                let guard = mutex.lock().unwrap();
                about_to_wait();
                *condvar.wait(guard).unwrap() += 1;
            })
        })
        .collect()
}

#[test]
fn wakes_exactly_as_many_as_told() {
    on_one_worker(|| {
        let (mutex, condvar) = (Rc::new(Mutex::new(0)), Rc::new(Condvar::new()));
        condvar.notify_one(); // Nobody: it is not kept.
        condvar.notify_all();
        let fibers = waiters(10, &mutex, &condvar);
        let_others_run();
        assert_eq!(*mutex.lock().unwrap(), 0);
        for woken in 1..=3 {
            condvar.notify_one();
            let_others_run();
            assert_eq!(*mutex.lock().unwrap(), woken);
        }
        // First come, first served.
        assert!(fibers.iter().map(Local::is_finished).eq((0..10).map(|i| i < 3)));
        condvar.notify_one();
        condvar.notify_one();
        let_others_run();
        assert_eq!(*mutex.lock().unwrap(), 5);
        condvar.notify_all();
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
        assert_eq!(*mutex.lock().unwrap(), 10);
    });
}

#[test]
fn may_be_used_with_two_mutexes() {
    on_one_worker(|| {
        let condvar = Rc::new(Condvar::new());
        let (first, second) = (Rc::new(Mutex::new(0)), Rc::new(Mutex::new(0)));
        let fibers = [waiters(1, &first, &condvar), waiters(1, &second, &condvar)];
        condvar.notify_all();
        fibers.into_iter().flatten().for_each(|fiber| fiber.join().unwrap());
        assert_eq!((*first.lock().unwrap(), *second.lock().unwrap()), (1, 1));
    });
}

#[test]
fn reports_poison_when_it_locks_again() {
    on_one_worker(|| {
        let (mutex, condvar) = (Rc::new(Mutex::new(0)), Rc::new(Condvar::new()));
        let (theirs, changed) = (mutex.clone(), condvar.clone());
        let waiter = Local::until_it_waits(move |about_to_wait| {
            let guard = theirs.lock().unwrap();
            about_to_wait();
            let guard = changed.wait(guard).unwrap_err().into_inner();
            let again = changed.wait_timeout(guard, Duration::ZERO).unwrap_err();
            assert!(again.get_ref().1.timed_out());
            #[expect(deprecated, reason = "std has it")]
            let again = changed.wait_timeout_ms(again.into_inner().0, 0).unwrap_err();
            assert!(!again.get_ref().1);
            *again.into_inner().0
        });
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            *mutex.lock().unwrap() = 9;
            let _guard = mutex.lock().unwrap();
            resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err());
        condvar.notify_one();
        assert_eq!(waiter.join().unwrap(), 9);
    });
}

#[test]
fn a_panic_after_a_wait_poisons() {
    everywhere(|| {
        let (mutex, condvar) = (Mutex::new(0), Condvar::new());
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let guard = mutex.lock().unwrap();
            let _again = condvar.wait_timeout(guard, Duration::ZERO).unwrap();
            resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err() && mutex.is_poisoned());
    });
}

#[test]
fn every_kind_wakes_every_kind() {
    let rounds = 500 * stress();
    for (one, other) in PAIRS {
        let runtime = runtime(2);
        let turns = Arc::new((Mutex::new(0usize), Condvar::new()));
        let [one, other] = [(one, 0), (other, 1)].map(|(kind, parity)| {
            let turns = turns.clone();
            start(runtime.shared(), kind, move || {
                let (turn, changed) = &*turns;
                for _ in 0..rounds {
                    let guard = turn.lock().unwrap();
                    let mut guard = changed.wait_while(guard, |turn| *turn % 2 != parity).unwrap();
                    *guard += 1;
                    changed.notify_one();
                }
            })
        });
        one().unwrap();
        other().unwrap();
        assert_eq!(*turns.0.lock().unwrap(), 2 * rounds);
    }
}

#[test]
fn notify_all_wakes_every_kind() {
    let runtime = runtime(2);
    let gate = Arc::new((Mutex::new((0, false)), Condvar::new(), Condvar::new()));
    let started: Vec<_> = (0..40)
        .map(|i| {
            let gate = gate.clone();
            let kind = [Kind::Thread, Kind::Fiber(0), Kind::Fiber(1), Kind::Fiber(1)][i % 4];
            start(runtime.shared(), kind, move || {
                let (state, opened, waits) = &*gate;
                let mut guard = state.lock().unwrap();
                guard.0 += 1;
                waits.notify_one();
                drop(opened.wait_while(guard, |state| !state.1).unwrap());
            })
        })
        .collect();
    let (state, opened, waits) = &*gate;
    let guard = state.lock().unwrap();
    let mut guard = waits.wait_while(guard, |state| state.0 < 40).unwrap();
    guard.1 = true;
    drop(guard);
    opened.notify_all();
    started.into_iter().for_each(|join| join().unwrap());
}

#[test]
fn a_cancelled_waiter_unwinds_without_the_mutex() {
    let pair = Arc::new((Mutex::new(0), Condvar::new()));
    let theirs = pair.clone();
    let runtime = runtime(1);
    let fiber = spawn_on(runtime.shared(), at(0), move || {
        let guard = theirs.0.lock().unwrap();
        drop(theirs.1.wait(guard));
    })
    .unwrap();
    runtime.run(at(0), let_others_run).unwrap();
    // Held by us meanwhile: it must not want it.
    let guard = pair.0.lock().unwrap();
    runtime.shutdown(None).unwrap();
    assert!(fiber.join().unwrap_err().is::<Cancelled>());
    drop(guard);
    assert!(pair.0.try_lock().is_ok(), "free, and not poisoned");
}

/// (waiting, notified), who waits to be notified, and who waits for one to wait.
type Shared = (Mutex<(i32, i32)>, Condvar, Condvar);

#[test]
fn a_notification_outlives_the_cancel_of_its_receiver() {
    for second in [Kind::Thread, Kind::Fiber(0)] {
        let shared = Arc::new((Mutex::new((0, 0)), Condvar::new(), Condvar::new()));
        let wait = |shared: Arc<Shared>| {
            move || {
                let mut guard = shared.0.lock().unwrap();
                guard.0 += 1;
                shared.2.notify_one();
                shared.1.wait(guard).unwrap().1 += 1;
            }
        };
        let until_waiting = |n| {
            let guard = shared.0.lock().unwrap();
            shared.2.wait_while(guard, |state| state.0 < n).unwrap()
        };
        let (doomed, other) = (runtime(1), runtime(1));
        let first = spawn_on(doomed.shared(), at(0), wait(shared.clone())).unwrap();
        drop(until_waiting(1));
        let second = start(other.shared(), second, wait(shared.clone()));
        let guard = until_waiting(2);
        shared.1.notify_one();
        // The first was chosen and wants the mutex, which we hold; now it is cancelled.
        doomed.shutdown(None).unwrap();
        assert!(first.join().unwrap_err().is::<Cancelled>());
        drop(guard);
        second().unwrap();
        assert_eq!(*shared.0.lock().unwrap(), (2, 1));
    }
}

#[test]
fn notifications_and_timeouts_race_with_exact_counts() {
    // Whoever ends by a notification says so; there are never more of them than notifications, and
    // one that was sent while somebody was in line is never lost.
    let rounds = 100 * stress();
    for (waiter, notifier) in PAIRS {
        let runtime = runtime(2);
        let shared = Arc::new((Mutex::new((0usize, 0usize)), Condvar::new()));
        let theirs = shared.clone();
        let waiter = start(runtime.shared(), waiter, move || {
            let (state, changed) = &*theirs;
            let mut consumed = 0;
            let mut notified = 0;
            while consumed < rounds {
                let guard = state.lock().unwrap();
                let timeout = Duration::from_micros(consumed as u64 % 3 * 10);
                let (mut guard, result) = changed
                    .wait_timeout_while(guard, timeout, |(posted, _)| *posted == consumed)
                    .unwrap();
                assert_eq!(result.timed_out(), guard.0 == consumed);
                notified += usize::from(!result.timed_out());
                consumed = guard.0;
                guard.1 += 1;
            }
            notified
        });
        let notifier = start(runtime.shared(), notifier, move || {
            for _ in 0..rounds {
                shared.0.lock().unwrap().0 += 1;
                shared.1.notify_one();
                strands_sched::yield_now();
            }
        });
        notifier().unwrap();
        let notified = waiter().unwrap();
        assert!((1..=rounds).contains(&notified));
    }
}

#[test]
fn a_waiter_is_counted_once() {
    // A waiter leaves by notification or by time, not by both: posts equal takes.
    on_one_worker(|| {
        let (mutex, condvar) = (Rc::new(Mutex::new(())), Rc::new(Condvar::new()));
        let woken = Rc::new(Cell::new((0, 0)));
        let fibers: Vec<_> = (0..100)
            .map(|_| {
                let (mutex, condvar, woken) = (mutex.clone(), condvar.clone(), woken.clone());
                Local::until_it_waits(move |about_to_wait| {
                    let guard = mutex.lock().unwrap();
                    about_to_wait();
                    let timeout = Duration::from_micros(100);
                    let (_guard, result) = condvar.wait_timeout(guard, timeout).unwrap();
                    let (by_time, by_word) = woken.get();
                    woken.set(match result.timed_out() {
                        true => (by_time + 1, by_word),
                        false => (by_time, by_word + 1),
                    });
                })
            })
            .collect();
        let mut sent = 0;
        while fibers.iter().any(|fiber| !fiber.is_finished()) && sent < 20 {
            condvar.notify_one();
            sent += 1;
            let_others_run();
        }
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
        let (by_time, by_word) = woken.get();
        assert_eq!(by_time + by_word, 100);
        assert!(by_word <= sent, "{by_word} were woken by {sent} notifications");
    });
}
