//! Semaphore: counts, order, time, cancel and close, by fibers and threads in any mix.

mod common;

use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{Kind, Local, PAIRS, at, everywhere, let_others_run, on_one_worker, runtime, start};
use strands_sched::{CancelToken, Cancelled, spawn_on, yield_now};
use strands_sync::{
    AcquireTimeoutError, OwnedSemaphorePermit, Semaphore, SemaphorePermit, TryAcquireError,
};

#[test]
fn counts() {
    everywhere(|| {
        let semaphore = Arc::new(Semaphore::new(5));
        let mut three = semaphore.acquire_many(3).unwrap();
        assert_eq!(semaphore.try_acquire_many(3).unwrap_err(), TryAcquireError::NoPermits);
        let one = three.split(1).unwrap();
        assert!(three.split(3).is_none());
        assert_eq!((one.num_permits(), three.num_permits()), (1, 2));
        drop(one);
        assert_eq!(semaphore.available_permits(), 3);
        three.merge(semaphore.try_acquire().unwrap());
        assert_eq!((three.num_permits(), semaphore.available_permits()), (3, 2));
        three.split(1).unwrap().forget(); // There are four now.
        drop(three);
        assert_eq!(semaphore.available_permits(), 4);
        semaphore.add_permits(2);
        assert_eq!(semaphore.forget_permits(5), 5);
        assert_eq!(semaphore.forget_permits(5), 1);
        assert_eq!(semaphore.acquire_many(0).unwrap().num_permits(), 0);

        semaphore.add_permits(4);
        let mut owned: OwnedSemaphorePermit = semaphore.acquire_many_owned(2).unwrap();
        owned.merge(semaphore.try_acquire_owned().unwrap());
        assert!(Arc::ptr_eq(owned.semaphore(), &semaphore));
        let part = owned.split(1).unwrap();
        drop(owned);
        assert_eq!((part.num_permits(), semaphore.available_permits()), (1, 3));
        part.forget();
        assert_eq!(semaphore.available_permits(), 3);
        assert!(semaphore.try_acquire_many_owned(4).is_err());
        assert_eq!(
            format!("{semaphore:?}"),
            "Semaphore { available_permits: 3, closed: false, .. }"
        );
    });
}

#[test]
fn is_a_thread_s_and_a_fiber_s_alike() {
    fn check<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
    check::<Semaphore>();
    check::<SemaphorePermit<'static>>();
    check::<OwnedSemaphorePermit>();
}

#[test]
fn has_a_limit() {
    let message = |f: &dyn Fn()| {
        let payload = catch_unwind(AssertUnwindSafe(f)).unwrap_err();
        match payload.downcast_ref::<String>() {
            Some(text) => text.clone(),
            None => payload.downcast_ref::<&str>().unwrap().to_string(),
        }
    };
    let too_many = "a semaphore may not have more than MAX_PERMITS permits";
    assert!(message(&|| drop(Semaphore::new(Semaphore::MAX_PERMITS + 1))).starts_with(too_many));
    let full = Semaphore::new(Semaphore::MAX_PERMITS);
    let permit = full.acquire().unwrap();
    full.add_permits(1);
    for n in [1, usize::MAX] {
        assert!(message(&|| full.add_permits(n)).contains("more than MAX_PERMITS"));
    }
    assert_eq!(full.available_permits(), Semaphore::MAX_PERMITS, "no effect");
    permit.forget();
    let other = Semaphore::new(1);
    assert_eq!(
        message(&|| full.acquire().unwrap().merge(other.acquire().unwrap())),
        "merging permits from different semaphore instances"
    );
    assert_eq!(other.available_permits(), 1);
}

#[test]
fn times_out() {
    everywhere(|| {
        let semaphore = Arc::new(Semaphore::new(1));
        for timeout in [Duration::ZERO, Duration::from_micros(1), Duration::from_micros(100)] {
            let start = Instant::now();
            let error = semaphore.acquire_many_timeout(2, timeout).unwrap_err();
            assert!(error == AcquireTimeoutError::Timeout && start.elapsed() >= timeout);
            let deadline = Instant::now() + timeout;
            assert!(semaphore.acquire_many_owned_deadline(2, deadline).is_err());
            assert!(Instant::now() >= deadline);
            // What is there is taken, however little time there is.
            assert!(semaphore.acquire_timeout(timeout).is_ok());
            assert!(semaphore.acquire_owned_timeout(timeout).is_ok());
            assert!(semaphore.acquire_owned_deadline(deadline).is_ok());
        }
        assert!(semaphore.acquire_owned().is_ok());
        assert!(semaphore.acquire_deadline(None).is_ok());
        assert!(semaphore.acquire_timeout(Duration::MAX).is_ok());
        assert_eq!(semaphore.available_permits(), 1);
        assert!(semaphore.try_acquire().is_ok(), "nobody is in line");
    });
}

/// Waits for `n`; when it has them it says so, and keeps them.
fn waiter(semaphore: &Rc<Semaphore>, n: u32) -> Local<()> {
    let semaphore = semaphore.clone();
    Local::until_it_waits(move |about_to_wait| {
        about_to_wait();
        semaphore.acquire_many(n).unwrap().forget();
    })
}

#[test]
fn nobody_is_overtaken() {
    on_one_worker(|| {
        let semaphore = Rc::new(Semaphore::new(0));
        let waiters = [3, 1, 1, 2].map(|n| waiter(&semaphore, n));
        // After each permit, which have theirs.
        let expected: [[bool; 4]; 7] = [
            [false, false, false, false],
            [false, false, false, false],
            [true, false, false, false],
            [true, true, false, false],
            [true, true, true, false],
            [true, true, true, false],
            [true, true, true, true],
        ];
        for (i, expected) in expected.into_iter().enumerate() {
            semaphore.add_permits(1);
            // Nor by one who comes by, for one permit or for what is there.
            assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::NoPermits);
            let_others_run();
            assert_eq!([0, 1, 2, 3].map(|i| waiters[i].is_finished()), expected, "{i}");
        }
        assert_eq!(semaphore.available_permits(), 0);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        // Several at once, and some of them.
        let waiters = [1, 2, 2].map(|n| waiter(&semaphore, n));
        semaphore.add_permits(4);
        let_others_run();
        assert_eq!([0, 1, 2].map(|i| waiters[i].is_finished()), [true, true, false]);
        assert_eq!(semaphore.available_permits(), 1, "too few for the last, but free");
        semaphore.add_permits(1);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}

#[test]
fn a_first_that_gives_up_lets_the_next_go() {
    /// Until it is told to, those behind it wait; then two of three have theirs.
    fn gives_up(
        first: impl FnOnce(&Semaphore) -> bool + 'static,
        tell: impl FnOnce(),
        waits_until_told: bool,
    ) {
        let semaphore = Rc::new(Semaphore::new(2));
        let theirs = semaphore.clone();
        let first = Local::until_it_waits(move |about_to_wait| {
            about_to_wait();
            first(&theirs)
        });
        let others = [1, 1, 1].map(|n| waiter(&semaphore, n));
        if waits_until_told {
            let_others_run();
            assert_eq!([0, 1, 2].map(|i| others[i].is_finished()), [false; 3]);
        }
        tell();
        assert!(first.join().unwrap(), "it was not granted");
        let_others_run();
        assert_eq!([0, 1, 2].map(|i| others[i].is_finished()), [true, true, false]);
        semaphore.add_permits(1);
        others.into_iter().for_each(|other| other.join().unwrap());
    }
    on_one_worker(|| {
        let soon = Duration::from_millis(2);
        let by_time = move |semaphore: &Semaphore| {
            semaphore.acquire_many_timeout(3, soon).map(drop) == Err(AcquireTimeoutError::Timeout)
        };
        gives_up(by_time, || {}, false); // It may be over before we look.
        let token = CancelToken::new();
        let its = token.clone();
        let by_token =
            move |semaphore: &Semaphore| its.run(|| semaphore.acquire_many(3).map(drop)).is_err();
        gives_up(by_token, || assert!(token.cancel()), true);
    });
    // By a cancel.
    let semaphore = Arc::new(Semaphore::new(2));
    let runtime = runtime(1);
    let [first, second] = [3, 2].map(|n| {
        let semaphore = semaphore.clone();
        let acquire = move || drop(semaphore.acquire_many(n).unwrap());
        let fiber = spawn_on(runtime.shared(), at(0), acquire).unwrap();
        runtime.run(at(0), let_others_run).unwrap();
        fiber
    });
    assert!(!second.is_finished());
    first.task().cancel();
    assert!(first.join().unwrap_err().is::<Cancelled>());
    second.join().unwrap();
    assert_eq!(semaphore.try_acquire_many(2).unwrap().num_permits(), 2);
}

#[test]
fn a_permit_that_was_granted_outlives_the_cancel() {
    let semaphore = Arc::new(Semaphore::new(0));
    let runtime = runtime(1);
    let theirs = semaphore.clone();
    let fiber = spawn_on(runtime.shared(), at(0), move || {
        let permit = theirs.acquire().unwrap();
        permit.forget();
        theirs.close(); // It was not cancelled there, but is here:
        yield_now();
    })
    .unwrap();
    runtime
        .run(at(0), || {
            let_others_run();
            semaphore.add_permits(1);
            fiber.task().cancel();
        })
        .unwrap();
    assert!(fiber.join().unwrap_err().is::<Cancelled>());
    assert!(semaphore.is_closed());
    assert_eq!(semaphore.available_permits(), 0);
}

#[test]
fn closing_ends_the_waits_of_every_kind() {
    let runtime = runtime(2);
    let semaphore = Arc::new(Semaphore::new(1));
    let held = semaphore.acquire().unwrap();
    let started: Vec<_> = (0..12)
        .map(|i| {
            let semaphore = semaphore.clone();
            let kind = [Kind::Thread, Kind::Fiber(0), Kind::Fiber(1)][i % 3];
            start(runtime.shared(), kind, move || {
                let timed = semaphore.acquire_timeout(Duration::MAX).map(drop);
                (timed, semaphore.acquire_many(2).map(drop).is_err())
            })
        })
        .collect();
    semaphore.close();
    for join in started {
        assert_eq!(join().unwrap(), (Err(AcquireTimeoutError::Closed), true));
    }
    assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::Closed);
    assert_eq!(semaphore.acquire_many(0).unwrap_err().to_string(), "semaphore closed");
    drop(held);
    assert_eq!(semaphore.available_permits(), 1);
}

#[test]
fn closing_wakes_who_waits() {
    on_one_worker(|| {
        let semaphore = Rc::new(Semaphore::new(1));
        let theirs = semaphore.clone();
        let waits = Local::until_it_waits(move |about_to_wait| {
            about_to_wait();
            theirs.acquire_many_timeout(2, Duration::MAX).map(drop)
        });
        semaphore.close();
        assert_eq!(waits.join().unwrap(), Err(AcquireTimeoutError::Closed));
        assert_eq!(semaphore.available_permits(), 1);
    });
}

#[test]
fn errors_say_what_happened() {
    assert_eq!(TryAcquireError::Closed.to_string(), "semaphore closed");
    assert_eq!(TryAcquireError::NoPermits.to_string(), "no permits available");
    assert_eq!(AcquireTimeoutError::Closed.to_string(), "semaphore closed");
    assert_eq!(AcquireTimeoutError::Timeout.to_string(), "timed out waiting for permits");
}

#[test]
fn permits_go_between_every_kind() {
    const PERMITS: usize = 2;
    let rounds = 300 * common::stress();
    for (one, other) in PAIRS {
        let runtime = runtime(2);
        let shared = Arc::new((Semaphore::new(PERMITS), AtomicUsize::new(0)));
        let started: Vec<_> = [one, other, one, other]
            .into_iter()
            .map(|kind| {
                let shared = shared.clone();
                start(runtime.shared(), kind, move || {
                    let (semaphore, taken) = &*shared;
                    for round in 0..rounds {
                        let n = 1 + round % PERMITS;
                        let _permit = semaphore.acquire_many(n as u32).unwrap();
                        assert!(taken.fetch_add(n, SeqCst) + n <= PERMITS);
                        yield_now();
                        taken.fetch_sub(n, SeqCst);
                    }
                })
            })
            .collect();
        started.into_iter().for_each(|join| join().unwrap());
        assert_eq!(shared.0.available_permits(), PERMITS);
    }
}

/// Each acquire spends the common budget, so a loop over a free semaphore starves nobody.
#[test]
fn a_loop_lets_others_run() {
    on_one_worker(|| {
        let semaphore = Semaphore::new(1);
        let other = Local::until_it_waits(|about_to_wait| {
            about_to_wait();
            yield_now();
        });
        while !other.is_finished() {
            drop(semaphore.acquire().unwrap());
        }
        let other = Local::until_it_waits(|about_to_wait| {
            about_to_wait();
            yield_now();
        });
        while !other.is_finished() {
            let _free = semaphore.try_acquire();
        }
    });
}

/// Fibers are cancelled while they wait, are granted permits, hold them and give them back.
#[test]
fn a_cancel_races_grants_and_no_permit_is_lost_or_doubled() {
    const PERMITS: u32 = 3;
    for _ in 0..5 * common::stress() {
        let shared = Arc::new((Semaphore::new(PERMITS as usize), AtomicUsize::new(0)));
        let is_over = Arc::new(AtomicUsize::new(0));
        let work = |me: u32| {
            let (shared, is_over) = (shared.clone(), is_over.clone());
            move || {
                let (semaphore, taken) = &*shared;
                for round in me.. {
                    let n = 1 + round % PERMITS;
                    let permit = match round % 5 {
                        0 => semaphore.acquire_many_timeout(n, Duration::from_micros(10)).ok(),
                        _ => semaphore.acquire_many(n).ok(),
                    };
                    if permit.is_some() {
                        taken.fetch_add(n as usize, SeqCst);
                        assert!(taken.fetch_sub(n as usize, SeqCst) <= PERMITS as usize);
                        yield_now(); // May be where it is cancelled, with permits in hand.
                    }
                    if me > 9 && is_over.load(SeqCst) > 0 {
                        return;
                    }
                }
            }
        };
        let doomed = runtime(2);
        let fibers: Vec<_> =
            (0..6).map(|me| spawn_on(doomed.shared(), at(me as usize % 2), work(me))).collect();
        let threads = [10, 11].map(|me| std::thread::spawn(work(me)));
        (0..20).for_each(|_| std::thread::yield_now());
        doomed.shutdown(None).unwrap();
        is_over.store(1, SeqCst);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        for fiber in fibers {
            assert!(fiber.unwrap().join().unwrap_err().is::<Cancelled>());
        }
        assert_eq!(shared.0.available_permits(), PERMITS as usize);
        assert!(shared.0.try_acquire_many(PERMITS).is_ok(), "somebody is left in line");
    }
}
