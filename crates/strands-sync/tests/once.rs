//! Once, OnceLock, LazyLock: cancels, and who comes back to what it is doing itself.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use common::{PAIRS, at, everywhere, let_others_run, runtime, start};
use strands_sched::{Cancelled, sleep_until, spawn_on, yield_now};
use strands_sync::{LazyLock, Once, OnceLock};

fn said(result: std::thread::Result<()>) -> &'static str {
    result.unwrap_err().downcast_ref::<&str>().copied().unwrap()
}

/// std's waits for itself for ever.
#[test]
fn who_comes_back_to_its_own_is_told() {
    everywhere(|| {
        let once = Once::new();
        let expected = "one-time initialization may not be performed recursively";
        once.call_once(|| {
            let again = catch_unwind(AssertUnwindSafe(|| once.call_once(|| ())));
            assert_eq!(said(again), expected);
            assert_eq!(said(catch_unwind(AssertUnwindSafe(|| once.wait()))), expected);
        });
        assert!(once.is_completed(), "the closure has caught it");
        let cell: OnceLock<u8> = OnceLock::new();
        let again = catch_unwind(AssertUnwindSafe(|| {
            cell.get_or_init(|| *cell.get_or_init(|| 1));
        }));
        assert_eq!(said(again), expected);
        assert_eq!(cell.get_or_init(|| 2), &2);
    });
}

#[test]
fn is_done_for_parties_of_every_kind() {
    let runtime = runtime(2);
    for (first, second) in PAIRS {
        let shared = Arc::new((OnceLock::new(), AtomicUsize::new(0)));
        let started = [first, second].map(|kind| {
            let shared = shared.clone();
            start(runtime.shared(), kind, move || {
                *shared.0.get_or_init(|| {
                    yield_now();
                    shared.1.fetch_add(1, SeqCst)
                })
            })
        });
        for started in started {
            assert_eq!(started().unwrap(), 0, "{first:?} {second:?}");
        }
    }
}

/// The closure of a cancelled fiber has not been; the next in line runs its own.
#[test]
fn a_cancel_undoes_the_attempt() {
    let runtime = runtime(1);
    let once = Arc::new(Once::new());
    runtime
        .run(at(0), || {
            let its = once.clone();
            let first =
                spawn_on(runtime.shared(), at(0), move || its.call_once(|| sleep_until(None)))
                    .unwrap();
            let_others_run();
            let its = once.clone();
            let waits = spawn_on(runtime.shared(), at(0), move || its.wait()).unwrap();
            let its = once.clone();
            let next = spawn_on(runtime.shared(), at(0), move || {
                let mut called = false;
                its.call_once_force(|state| {
                    assert!(!state.is_poisoned());
                    called = true;
                });
                called
            })
            .unwrap();
            let_others_run();
            assert!(!next.is_finished() && !waits.is_finished());
            first.task().cancel();
            assert!(first.join().unwrap_err().is::<Cancelled>());
            assert!(next.join().unwrap(), "it was its turn");
            waits.join().unwrap();
            assert!(once.is_completed());
        })
        .unwrap();
}

#[test]
fn a_cancel_of_a_forced_attempt_leaves_it_poisoned() {
    let runtime = runtime(1);
    let once = Arc::new(Once::new());
    runtime
        .run(at(0), || {
            let panics = || once.call_once(|| std::panic::resume_unwind(Box::new(())));
            assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
            let its = once.clone();
            let forces = move || its.call_once_force(|_| sleep_until(None));
            let forced = spawn_on(runtime.shared(), at(0), forces).unwrap();
            let_others_run();
            forced.task().cancel();
            assert!(forced.join().unwrap_err().is::<Cancelled>());
            let again = catch_unwind(AssertUnwindSafe(|| once.call_once(|| ())));
            assert_eq!(said(again), "Once instance has previously been poisoned");
        })
        .unwrap();
}

#[test]
fn a_cancelled_waiter_leaves() {
    let runtime = runtime(1);
    let (once, go) = (Arc::new(Once::new()), Arc::new(AtomicBool::new(false)));
    runtime
        .run(at(0), || {
            let (its, may) = (once.clone(), go.clone());
            let first = spawn_on(runtime.shared(), at(0), move || {
                its.call_once(|| {
                    while !may.load(SeqCst) {
                        yield_now();
                    }
                });
            })
            .unwrap();
            let_others_run();
            let waiters: [_; 3] = std::array::from_fn(|i| {
                let its = once.clone();
                spawn_on(runtime.shared(), at(0), move || match i {
                    0 => its.call_once(|| unreachable!()),
                    _ => its.wait(),
                })
                .unwrap()
            });
            let_others_run();
            let [calls, waits, patient] = waiters;
            calls.task().cancel();
            waits.task().cancel();
            assert!(calls.join().unwrap_err().is::<Cancelled>());
            assert!(waits.join().unwrap_err().is::<Cancelled>());
            go.store(true, SeqCst);
            patient.join().unwrap();
            first.join().unwrap();
        })
        .unwrap();
}

/// There is one closure, so the cancel waits until the value is there.
#[test]
fn a_lazy_value_is_made_in_spite_of_a_cancel() {
    static MAY: AtomicBool = AtomicBool::new(false);
    static LAZY: LazyLock<u32> = LazyLock::new(|| {
        while !MAY.load(SeqCst) {
            yield_now();
        }
        7
    });
    let runtime = runtime(1);
    runtime
        .run(at(0), || {
            let first = spawn_on(runtime.shared(), at(0), || {
                let _ = *LAZY;
                yield_now(); // Here it is delivered.
            })
            .unwrap();
            let_others_run();
            first.task().cancel();
            let_others_run();
            assert!(!first.is_finished());
            MAY.store(true, SeqCst);
            assert!(first.join().unwrap_err().is::<Cancelled>());
            assert_eq!(LazyLock::get(&LAZY), Some(&7));
        })
        .unwrap();
}
