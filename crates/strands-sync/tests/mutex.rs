//! Mutex: what std's does, by fibers and threads in any mix.

mod common;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use common::{Kind, Local, at, everywhere, let_others_run, on_one_worker, runtime, start, stress};
use strands_sched::{Cancelled, sleep_until, spawn_on, yield_now};
use strands_sync::{Mutex, TryLockError};

#[test]
fn does_what_stds_does() {
    everywhere(|| {
        let mut mutex = Mutex::new(1);
        *mutex.get_mut().unwrap() += 1;
        let guard = mutex.lock().unwrap();
        assert_eq!(format!("{guard} {guard:?}"), "2 2");
        assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
        assert_eq!(format!("{mutex:?}"), r#"Mutex { data: "<locked>", poisoned: false, .. }"#);
        drop(guard);
        *mutex.try_lock().unwrap() += 1;
        assert_eq!(format!("{mutex:?}"), "Mutex { data: 3, poisoned: false, .. }");
        assert_eq!(mutex.into_inner().unwrap(), 3);
        assert_eq!(*Mutex::from(7).lock().unwrap(), 7);
        assert_eq!(*Mutex::<String>::default().lock().unwrap(), "");
        let unsized_one: &Mutex<[i32]> = &Mutex::new([1, 2, 3]);
        unsized_one.lock().unwrap()[1] = 5;
        assert_eq!(unsized_one.lock().unwrap()[..], [1, 5, 3]);
    });
}

#[test]
fn is_poisoned_by_a_panic_of_the_holder() {
    everywhere(|| {
        let mut mutex = Mutex::new(5);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _guard = mutex.lock().unwrap();
            resume_unwind(Box::new("as a panic, without the message"));
        }));
        assert!(panicked.is_err());
        assert!(mutex.is_poisoned());
        assert_eq!(**mutex.lock().unwrap_err().get_ref(), 5);
        assert!(
            matches!(mutex.try_lock(), Err(TryLockError::Poisoned(guard)) if **guard.get_ref() == 5)
        );
        assert_eq!(format!("{mutex:?}"), "Mutex { data: 5, poisoned: true, .. }");
        assert_eq!(*mutex.get_mut().unwrap_err().into_inner(), 5);
        mutex.clear_poison();
        assert!(!mutex.is_poisoned());
        assert_eq!(*mutex.lock().unwrap(), 5);
    });
    let mutex = Arc::new(Mutex::new(5));
    let runtime = runtime(2);
    for kind in [Kind::Thread, Kind::Fiber(0), Kind::Fiber(1)] {
        mutex.clear_poison();
        let theirs = mutex.clone();
        let started = start(runtime.shared(), kind, move || {
            let _guard = theirs.lock().unwrap();
            resume_unwind(Box::new(()));
        });
        assert!(started().is_err());
        assert!(mutex.is_poisoned(), "by {kind:?}");
    }
    assert_eq!(Arc::into_inner(mutex).unwrap().into_inner().unwrap_err().into_inner(), 5);
}

/// Calls the closure when dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn is_not_poisoned_by_who_locks_while_unwinding() {
    everywhere(|| {
        let mutex = Mutex::new(0);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _drop = OnDrop(|| *mutex.lock().unwrap() += 1);
            resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err());
        assert_eq!(*mutex.lock().unwrap(), 1);
    });
}

#[test]
fn is_not_poisoned_by_another_fiber_suspended_in_the_middle_of_its_unwinding() {
    on_one_worker(|| {
        let mine = Mutex::new(0);
        let gate = Rc::new(Mutex::new(0));
        let closed = gate.lock().unwrap();
        let others = gate.clone();
        let held_outside = mine.lock().unwrap();
        let unwinding = Local::until_it_waits(move |about_to_wait| {
            let _drop = OnDrop(|| {
                about_to_wait();
                *others.lock().unwrap() += 1;
            });
            resume_unwind(Box::new(()));
        });
        assert!(!unwinding.is_finished());
        assert!(std::thread::panicking(), "std counts by thread: this is what is to be told apart");
        drop(held_outside);
        assert!(!mine.is_poisoned());
        *mine.lock().unwrap() += 1;
        assert!(!mine.is_poisoned());
        // Its unwinding goes on, and poisons neither.
        drop(closed);
        assert!(!gate.is_poisoned());
        assert!(unwinding.join().is_err());
        assert!(!gate.is_poisoned());
        assert_eq!(*gate.lock().unwrap(), 1);
        // And all is as before: a panic does poison.
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _guard = mine.lock().unwrap();
            resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err() && mine.is_poisoned());
    });
}

/// Runs `f` as a fiber with a mutex, cancels it when it has called its second argument and waits,
/// and returns the mutex.
fn cancelled<F>(f: F) -> (Arc<Mutex<i32>>, bool)
where
    F: FnOnce(&Mutex<i32>) + Send + 'static,
{
    let mutex = Arc::new(Mutex::new(0));
    let theirs = mutex.clone();
    let runtime = runtime(1);
    let fiber = spawn_on(runtime.shared(), at(0), move || f(&theirs)).unwrap();
    // A fiber that never started would be dropped unrun: let it run up to its wait.
    runtime.run(at(0), let_others_run).unwrap();
    runtime.shutdown(None).unwrap();
    let cancelled = fiber.join().is_err_and(|payload| payload.is::<Cancelled>());
    (mutex, cancelled)
}

#[test]
fn is_not_poisoned_by_a_cancel() {
    let (mutex, cancelled) = cancelled(|mutex| {
        let _guard = mutex.lock().unwrap();
        sleep_until(None);
    });
    assert!(cancelled && !mutex.is_poisoned());
    assert!(mutex.try_lock().is_ok(), "the unwinding unlocked it");
}

#[test]
fn is_not_poisoned_by_a_cancel_that_is_caught_and_resumed() {
    let (mutex, cancelled) = cancelled(|mutex| {
        let _guard = mutex.lock().unwrap();
        let payload = catch_unwind(|| sleep_until(None)).unwrap_err();
        // What a scope does: it waits for its children in between.
        strands_sched::uncancellable(|| {
            let other = Mutex::new(0);
            *other.lock().unwrap() += 1;
            yield_now();
        });
        resume_unwind(payload);
    });
    assert!(cancelled && !mutex.is_poisoned());
}

#[test]
fn is_poisoned_by_a_panic_after_a_cancel_was_caught() {
    let (mutex, cancelled) = cancelled(|mutex| {
        let _guard = mutex.lock().unwrap();
        assert!(catch_unwind(|| sleep_until(None)).unwrap_err().is::<Cancelled>());
        resume_unwind(Box::new("a panic"));
    });
    assert!(!cancelled && mutex.is_poisoned());
}

#[test]
fn is_poisoned_by_a_panic_with_anothers_cancel_in_hand() {
    let first = runtime(1);
    let fiber = spawn_on(first.shared(), at(0), || sleep_until(None)).unwrap();
    first.shutdown(None).unwrap();
    let payload = fiber.join().unwrap_err();
    let mutex = Mutex::new(0);
    let panicked = on_one_worker(|| {
        catch_unwind(AssertUnwindSafe(|| {
            let _guard = mutex.lock().unwrap();
            resume_unwind(payload);
        }))
    });
    assert!(panicked.is_err() && mutex.is_poisoned());
}

#[test]
fn a_cancelled_waiter_leaves_the_line() {
    let mutex = Arc::new(Mutex::new(0));
    let guard = mutex.lock().unwrap();
    let runtime = runtime(1);
    let fibers: Vec<_> = (0..3)
        .map(|_| {
            let mutex = mutex.clone();
            spawn_on(runtime.shared(), at(0), move || *mutex.lock().unwrap() += 1).unwrap()
        })
        .collect();
    runtime.run(at(0), let_others_run).unwrap();
    runtime.shutdown(None).unwrap();
    for fiber in fibers {
        assert!(fiber.join().unwrap_err().is::<Cancelled>());
    }
    drop(guard);
    assert_eq!(*mutex.lock().unwrap(), 0);
}

#[test]
fn hands_over_to_a_waiter_that_came_too_late() {
    on_one_worker(|| {
        let mutex = Rc::new(Mutex::new(()));
        let order = Rc::new(RefCell::new(Vec::new()));
        let waiter = |name: &'static str| {
            let (mutex, order) = (mutex.clone(), order.clone());
            Local::until_it_waits(move |about_to_wait| {
                about_to_wait();
                let _guard = mutex.lock().unwrap();
                order.borrow_mut().push(name);
                // Held over a suspension.
                yield_now();
            })
        };
        let guard = mutex.lock().unwrap();
        let late = waiter("late");
        let other = waiter("other");
        drop(guard); // Wakes the first, which has not run yet:
        let guard = mutex.try_lock().expect("who comes by may take it");
        let_others_run(); // It comes too late.
        assert!(order.borrow().is_empty());
        drop(guard);
        assert!(mutex.try_lock().is_err(), "handed over");
        late.join().unwrap();
        other.join().unwrap();
        assert_eq!(*order.borrow(), ["late", "other"]);
        assert!(mutex.try_lock().is_ok());
    });
}

/// The first in line is woken but its worker computes; the second must not wait for that.
#[test]
fn the_next_is_woken_if_the_first_does_not_come() {
    /// More than a waiter that is on its way is overtaken.
    const MANY: usize = 2_000;
    let runtime = runtime(2);
    let mutex = Arc::new(Mutex::new(()));
    let is_over = Arc::new(AtomicBool::new(false));
    let held = mutex.lock().unwrap();
    // A fiber that comes after it on its worker says that it is in line.
    let in_line = |worker: usize, then: Box<dyn FnOnce() + Send>| {
        let mutex = mutex.clone();
        let waiter = start(runtime.shared(), Kind::Fiber(worker), move || drop(mutex.lock()));
        let (says, said) = std::sync::mpsc::channel();
        let after = start(runtime.shared(), Kind::Fiber(worker), move || {
            says.send(()).unwrap();
            then();
        });
        said.recv().unwrap();
        (waiter, after)
    };
    let computes = is_over.clone();
    let (first, busy) = in_line(
        0,
        Box::new(move || {
            while !computes.load(SeqCst) {
                std::hint::spin_loop();
            }
        }),
    );
    let (second, after) = in_line(1, Box::new(|| {}));
    drop(held);
    (0..MANY).for_each(|_| drop(mutex.lock()));
    second().unwrap();
    is_over.store(true, SeqCst);
    for other in [first, busy, after] {
        other().unwrap();
    }
}

#[test]
fn fibers_of_one_worker_take_turns() {
    on_one_worker(|| {
        const LOCKS: usize = 100_000;
        let counts = Rc::new(Mutex::new([0usize; 4]));
        let fibers: Vec<_> = (0..4)
            .map(|me| {
                let counts = counts.clone();
                Local::until_it_waits(move |about_to_wait| {
                    about_to_wait();
                    loop {
                        let mut counts = counts.lock().unwrap();
                        if counts.iter().sum::<usize>() == LOCKS {
                            return;
                        }
                        counts[me] += 1;
                    }
                })
            })
            .collect();
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
        // The first ran alone up to its first suspension; that is one budget of many.
        let counts = *counts.lock().unwrap();
        assert!(2 * counts.iter().min().unwrap() >= *counts.iter().max().unwrap(), "{counts:?}");
    });
}

#[test]
fn excludes() {
    let rounds = 5_000 * stress();
    let runtime = runtime(2);
    let mutex = Arc::new(Mutex::new([0usize; 2]));
    let kinds = [
        Kind::Fiber(0),
        Kind::Fiber(0),
        Kind::Fiber(1),
        Kind::Fiber(1),
        Kind::Thread,
        Kind::Thread,
    ];
    let started: Vec<_> = kinds
        .iter()
        .map(|&kind| {
            let mutex = mutex.clone();
            start(runtime.shared(), kind, move || {
                for round in 0..rounds {
                    let tried = if round % 3 == 0 { mutex.try_lock().ok() } else { None };
                    let mut both = tried.unwrap_or_else(|| mutex.lock().unwrap());
                    both[0] += 1;
                    if round % 64 == 0 {
                        yield_now(); // In the middle, with the lock in hand.
                    }
                    both[1] += 1;
                    assert_eq!(both[0], both[1]);
                }
            })
        })
        .collect();
    started.into_iter().for_each(|join| join().unwrap());
    assert_eq!(*mutex.lock().unwrap(), [rounds * kinds.len(); 2]);
}

#[test]
fn a_shutdown_in_the_middle_leaves_it_whole() {
    for _ in 0..20 * stress() {
        let mutex = Arc::new(Mutex::new([0usize; 2]));
        let locked = Arc::new(AtomicUsize::new(0));
        let runtime = runtime(2);
        let fibers: Vec<_> = (0..8)
            .map(|i| {
                let (mutex, locked) = (mutex.clone(), locked.clone());
                let body = move || {
                    loop {
                        let mut both = mutex.lock().unwrap();
                        both[0] += 1;
                        both[1] += 1;
                        drop(both);
                        locked.fetch_add(1, SeqCst);
                    }
                };
                spawn_on(runtime.shared(), at(i % 2), body).map(
                    |join| -> Box<dyn FnOnce() -> bool> {
                        Box::new(move || {
                            join.join().is_err_and(|payload: Box<_>| payload.is::<Cancelled>())
                        })
                    },
                )
            })
            .collect();
        while locked.load(SeqCst) < 100 {
            drop(mutex.lock().unwrap());
        }
        runtime.shutdown(None).unwrap();
        for fiber in fibers {
            assert!(fiber.unwrap()());
        }
        let both = *mutex.try_lock().expect("free, and not poisoned");
        assert_eq!(both, [locked.load(SeqCst); 2]);
    }
}
