//! Fiber-local values where std has no word for it: cancels, fibers that never start or never end, bare
//! coroutines, workers. What std does too is in strands' mirror tests.

mod common;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Barrier, LazyLock};
use std::time::Duration;

use common::{Random, run, runtime, spawn, spawn_at, stress};
use strands_sched::{
    Access, Cancelled, FiberKey, Lent, SpawnOptions, sleep_until, spawn_local, with_current_task,
    yield_now,
};

fn value<T>(key: &'static FiberKey<T>, init: impl FnOnce() -> T) -> Lent<T> {
    match key.get(init) {
        Access::Value(value) => value,
        Access::Thread => panic!("not in a fiber"),
        Access::Destroyed => panic!("destroyed"),
    }
}

/// Calls a closure when it is dropped.
struct OnDrop(Box<dyn Fn()>);

impl OnDrop {
    fn new(f: impl Fn() + 'static) -> OnDrop {
        OnDrop(Box::new(f))
    }

    fn set(flag: &Arc<AtomicBool>) -> OnDrop {
        let flag = flag.clone();
        OnDrop::new(move || flag.store(true, SeqCst))
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn many_fibers_have_many_values_at_once() {
    const KEYS: usize = 40;
    static ALL: [FiberKey<Cell<usize>>; KEYS] = [const { FiberKey::new() }; KEYS];
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    static COUNTED: [FiberKey<OnDrop>; KEYS] = [const { FiberKey::new() }; KEYS];
    let runtime = runtime(4);
    let rounds = 50 * stress();
    let barrier = Arc::new(Barrier::new(4));
    let fibers: Vec<_> = (0..4)
        .map(|worker| {
            let barrier = barrier.clone();
            spawn_at(&runtime, worker, move || {
                barrier.wait(); // All workers use the keys for the first time at once.
                let children: Vec<_> = (0..rounds)
                    .map(|round| spawn(move || use_keys(worker * rounds + round + 1)))
                    .collect();
                use_keys(1_000_000 + worker);
                children.into_iter().for_each(|child| child.join().unwrap());
            })
        })
        .collect();
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    assert_eq!(DROPPED.load(SeqCst), 4 * (rounds + 1) * KEYS);

    fn use_keys(seed: usize) {
        let mut random = Random(seed as u64);
        let mut seen = [0; KEYS];
        let mut use_one = |i: usize, seen: &mut [usize; KEYS]| {
            let cell = value(&ALL[i], || Cell::new(seed * KEYS + i));
            assert_eq!(cell.get(), seed * KEYS + i + seen[i]);
            seen[i] += 1;
            cell.set(cell.get() + 1);
            value(&COUNTED[i], || {
                OnDrop::new(|| {
                    DROPPED.fetch_add(1, SeqCst);
                })
            });
            if random.below(4) == 0 {
                yield_now();
                assert_eq!(cell.get(), seed * KEYS + i + seen[i], "changed by another fiber");
            }
        };
        for round in 0..2 {
            for i in 0..KEYS {
                use_one((i * 7 + seed + round) % KEYS, &mut seen);
            }
        }
    }
}

#[test]
fn a_table_that_grows_keeps_the_order() {
    static KEYS: [FiberKey<OnDrop>; 40] = [const { FiberKey::new() }; 40];
    let runtime = runtime(1);
    for step in [1, 7, 39] {
        let (sender, receiver) = mpsc::channel();
        let make = move || {
            for i in (0..40).map(|i| i * step % 40) {
                let sender = sender.clone();
                value(&KEYS[i], || OnDrop::new(move || sender.send(i).unwrap()));
            }
        };
        run(&runtime, make);
        let order: Vec<_> = receiver.iter().collect();
        let made: Vec<_> = (0..40).map(|i| i * step % 40).collect();
        assert!(order.iter().eq(made.iter().rev()), "{order:?}");
    }
}

#[test]
fn threads_have_none() {
    static KEY: FiberKey<u8> = FiberKey::new();
    let nobody = || -> u8 { unreachable!("a thread needs no value of ours") };
    assert!(matches!(KEY.get(nobody), Access::Thread));
    with_current_task(|me| assert!(me.is_thread())); // From here on it has a header.
    assert!(matches!(KEY.get(nobody), Access::Thread));
    run(&runtime(1), || assert_eq!(*value(&KEY, || 1), 1));
    assert!(matches!(KEY.get(nobody), Access::Thread));
}

#[test]
fn debug_forms_show_values_and_hide_keys() {
    static KEY: LazyLock<FiberKey<[u8; 2]>> = LazyLock::new(FiberKey::default);
    assert_eq!(format!("{:?}", *KEY), "FiberKey { .. }");
    run(&runtime(1), || assert_eq!(format!("{:?}", value(&KEY, || [1, 2])), "[1, 2]"));
}

#[test]
fn a_cancelled_fiber_destroys_its_values_undisturbed() {
    static KEY: FiberKey<OnDrop> = FiberKey::new();
    let runtime = runtime(1);
    let ended = Arc::new(AtomicBool::new(false));
    let its = ended.clone();
    let (sender, started) = mpsc::channel();
    let fiber = spawn_at(&runtime, 0, move || {
        value(&KEY, || {
            OnDrop::new(move || {
                // A cancel has been asked for, and each of these would deliver it.
                yield_now();
                sleep_until(Some(std::time::Instant::now() + Duration::from_micros(10)));
                spawn(yield_now).join().unwrap();
                its.store(true, SeqCst);
            })
        });
        sender.send(()).unwrap();
        sleep_until(None);
    });
    started.recv().unwrap();
    fiber.task().cancel();
    assert!(fiber.join().unwrap_err().is::<Cancelled>());
    assert!(ended.load(SeqCst), "joined before the destructor had ended");
}

#[test]
fn a_cancel_that_comes_while_values_are_destroyed_is_held_back() {
    static KEY: FiberKey<OnDrop> = FiberKey::new();
    let runtime = runtime(1);
    let [waits, ended] = [false; 2].map(|no| Arc::new(AtomicBool::new(no)));
    let (begun, done) = (waits.clone(), ended.clone());
    let fiber = spawn_at(&runtime, 0, move || {
        value(&KEY, || {
            OnDrop::new(move || {
                begun.store(true, SeqCst);
                while !CANCELLED.load(SeqCst) {
                    yield_now();
                }
                (0..10).for_each(|_| yield_now());
                done.store(true, SeqCst);
            })
        });
        7
    });
    static CANCELLED: AtomicBool = AtomicBool::new(false);
    while !waits.load(SeqCst) {
        std::thread::yield_now();
    }
    assert!(!fiber.is_finished(), "its values are still being destroyed");
    fiber.task().cancel();
    CANCELLED.store(true, SeqCst);
    assert_eq!(fiber.join().unwrap(), 7, "the closure had returned before");
    assert!(ended.load(SeqCst));
}

#[test]
fn a_shutdown_waits_for_destructors() {
    static KEY: FiberKey<OnDrop> = FiberKey::new();
    let runtime = runtime(2);
    let count = Arc::new(AtomicUsize::new(0));
    let (sender, started) = mpsc::channel();
    for worker in [0, 1, 0, 1] {
        let (count, sender) = (count.clone(), sender.clone());
        spawn_at(&runtime, worker, move || {
            value(&KEY, || {
                OnDrop::new(move || {
                    yield_now();
                    count.fetch_add(1, SeqCst);
                })
            });
            sender.send(()).unwrap();
            sleep_until(None);
        });
    }
    (0..4).for_each(|_| started.recv().unwrap());
    runtime.shutdown(None).unwrap();
    assert_eq!(count.load(SeqCst), 4);
}

#[test]
fn what_is_cancelled_before_it_starts_has_values_while_its_closure_is_dropped() {
    static KEY: FiberKey<OnDrop> = FiberKey::new();
    run(&runtime(1), || {
        let dropped = Arc::new(AtomicBool::new(false));
        let flag = dropped.clone();
        let captured = AssertUnwindSafe(CallOnDrop(move || {
            value(&KEY, || OnDrop::set(&flag));
        }));
        let fiber = spawn(move || drop(captured));
        fiber.task().cancel();
        assert!(fiber.join().unwrap_err().is::<Cancelled>());
        assert!(dropped.load(SeqCst));
    });

    struct CallOnDrop<F: Fn()>(F);
    impl<F: Fn()> Drop for CallOnDrop<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
}

#[test]
fn a_fiber_that_does_not_unwind_keeps_its_values() {
    static KEY: FiberKey<OnDrop> = FiberKey::new();
    let runtime = runtime(1);
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = dropped.clone();
    let (sender, started) = mpsc::channel();
    spawn_at(&runtime, 0, move || {
        let lent = value(&KEY, || OnDrop::set(&flag));
        sender.send(()).unwrap();
        loop {
            let swallowed = catch_unwind(|| sleep_until(None));
            drop(swallowed);
            // As long as it lives it may look at its value.
            assert!(std::ptr::eq(&*lent, &*value(&KEY, || unreachable!("it has a value"))));
            std::thread::sleep(Duration::from_millis(1)); // Each wait is cancelled at once.
        }
    });
    started.recv().unwrap();
    let unfinished = runtime.shutdown(Some(Duration::from_millis(20))).unwrap_err();
    assert_eq!(unfinished.fibers().len(), 1, "{unfinished:?}");
    assert!(!dropped.load(SeqCst));
}

#[test]
fn fibers_of_one_worker_share_nothing() {
    static KEY: FiberKey<Rc<Cell<u8>>> = FiberKey::new();
    run(&runtime(1), || {
        let mine = value(&KEY, || Rc::new(Cell::new(1)));
        let shared = (*mine).clone();
        let local = spawn_local(SpawnOptions::default(), move || {
            let own = value(&KEY, || Rc::new(Cell::new(2)));
            assert!(!Rc::ptr_eq(&own, &shared));
            shared.set(3);
            Rc::downgrade(&own)
        });
        let own = local.unwrap().join().unwrap();
        assert!(own.upgrade().is_none(), "destroyed with its fiber");
        assert_eq!(mine.get(), 3);
    });
}

/// Where a coroutine is an OS thread (`arch/thread.rs`) it is no part of the fiber.
#[cfg(not(strands_backend = "thread"))]
mod coroutines {
    use std::cell::RefCell;

    use strands_fiber::{Coroutine, CoroutineResult};

    use super::*;

    type Suspended = Rc<RefCell<Coroutine<(), (), bool>>>;

    #[test]
    fn a_value_outlives_its_fiber_while_a_coroutine_has_it() {
        static KEY: FiberKey<(OnDrop, Box<u64>)> = FiberKey::new();
        static PLAIN: FiberKey<[u64; 4]> = FiberKey::new();
        run(&runtime(1), || {
            let dropped = Arc::new(AtomicBool::new(false));
            let flag = dropped.clone();
            let owner = spawn_local(SpawnOptions::default(), move || {
                let coroutine = Coroutine::new(move |suspender, ()| {
                    let lent = value(&KEY, || (OnDrop::set(&flag), Box::new(77)));
                    let plain = value(&PLAIN, || [8; 4]);
                    suspender.suspend(());
                    // The fiber that lent it has ended.
                    *lent.1 == 77 && *plain == [8; 4]
                });
                let coroutine: Suspended = Rc::new(RefCell::new(coroutine));
                assert_eq!(coroutine.borrow_mut().resume(()), CoroutineResult::Yield(()));
                assert_eq!(*value(&KEY, || unreachable!("it was made by the coroutine")).1, 77);
                coroutine
            });
            let coroutine = owner.unwrap().join().unwrap();
            // Would take the memory, if it were free: of that size, and of those about it.
            let others: Vec<_> = (0..100u64)
                .map(|i| (Box::new([i; 5]), Box::new([i; 6]), Box::new([i; 7])))
                .collect();
            assert_eq!(coroutine.borrow_mut().resume(()), CoroutineResult::Return(true));
            assert!(!dropped.load(SeqCst), "it leaks");
            assert_eq!(others.len(), 100);
        });
    }

    #[test]
    fn a_coroutine_has_the_values_of_who_resumes_it() {
        static KEY: FiberKey<Cell<u8>> = FiberKey::new();
        run(&runtime(1), || {
            let coroutine = Coroutine::new(|suspender, ()| {
                value(&KEY, || Cell::new(1)).set(2);
                suspender.suspend(());
                value(&KEY, || Cell::new(10)).get() == 10
            });
            let coroutine: Suspended = Rc::new(RefCell::new(coroutine));
            assert_eq!(coroutine.borrow_mut().resume(()), CoroutineResult::Yield(()));
            assert_eq!(value(&KEY, || unreachable!()).get(), 2);
            let other =
                spawn_local(SpawnOptions::default(), move || coroutine.borrow_mut().resume(()));
            assert_eq!(other.unwrap().join().unwrap(), CoroutineResult::Return(true));
        });
    }

    #[test]
    fn an_initializer_does_not_replace_what_a_coroutine_has() {
        static KEY: FiberKey<(OnDrop, u8)> = FiberKey::new();
        run(&runtime(1), || {
            let [inner_dropped, outer_dropped] = [false; 2].map(|no| Arc::new(AtomicBool::new(no)));
            let (inner_flag, outer_flag) = (inner_dropped.clone(), outer_dropped.clone());
            let fiber = spawn_local(SpawnOptions::default(), move || {
                let mut kept = None;
                let outer = value(&KEY, || {
                    let mut coroutine = Coroutine::new(move |suspender, ()| {
                        let inner = value(&KEY, || (OnDrop::set(&inner_flag), 1));
                        suspender.suspend(());
                        inner.1 == 1
                    });
                    assert_eq!(coroutine.resume(()), CoroutineResult::Yield(()));
                    kept = Some(coroutine);
                    (OnDrop::set(&outer_flag), 2)
                });
                assert_eq!((outer.1, value(&KEY, || unreachable!()).1), (2, 2));
                assert_eq!(kept.unwrap().resume(()), CoroutineResult::Return(true));
            });
            fiber.unwrap().join().unwrap();
            assert!(inner_dropped.load(SeqCst) && outer_dropped.load(SeqCst), "both in their turn");
        });
    }

    #[test]
    fn an_initializer_that_ends_after_the_destruction_is_in_vain() {
        static KEY: FiberKey<OnDrop> = FiberKey::new();
        static OLDER: FiberKey<OnDrop> = FiberKey::new();
        run(&runtime(1), || {
            let [destroyed, in_vain, told] = [false; 3].map(|no| Arc::new(AtomicBool::new(no)));
            let flags = [destroyed.clone(), in_vain.clone(), told.clone()];
            let fiber = spawn_local(SpawnOptions::default(), move || {
                let [destroyed, in_vain, told] = flags;
                let coroutine = Coroutine::new(move |suspender, ()| {
                    let made = KEY.get(|| {
                        suspender.suspend(());
                        OnDrop::set(&in_vain)
                    });
                    matches!(made, Access::Destroyed)
                });
                let coroutine: Suspended = Rc::new(RefCell::new(coroutine));
                assert_eq!(coroutine.borrow_mut().resume(()), CoroutineResult::Yield(()));
                value(&OLDER, || {
                    OnDrop::new(move || {
                        let ended = coroutine.borrow_mut().resume(());
                        told.store(ended == CoroutineResult::Return(true), SeqCst);
                    })
                });
                value(&KEY, || OnDrop::set(&destroyed)); // The newest goes first.
            });
            fiber.unwrap().join().unwrap();
            assert!([destroyed, in_vain, told].iter().all(|flag| flag.load(SeqCst)));
        });
    }

    #[test]
    fn an_initializer_that_goes_on_in_another_fiber_panics() {
        static KEY: FiberKey<u8> = FiberKey::new();
        run(&runtime(1), || {
            let owner = spawn_local(SpawnOptions::default(), || {
                let coroutine = Coroutine::new(|suspender, ()| {
                    let made = catch_unwind(AssertUnwindSafe(|| {
                        value(&KEY, || {
                            suspender.suspend(());
                            1
                        });
                    }));
                    made.is_err()
                });
                let coroutine: Suspended = Rc::new(RefCell::new(coroutine));
                assert_eq!(coroutine.borrow_mut().resume(()), CoroutineResult::Yield(()));
                coroutine
            });
            let coroutine = owner.unwrap().join().unwrap();
            assert_eq!(coroutine.borrow_mut().resume(()), CoroutineResult::Return(true));
            assert_eq!(*value(&KEY, || 5), 5, "it was made for nobody");
        });
    }
}
