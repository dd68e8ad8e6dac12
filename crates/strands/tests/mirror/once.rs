//! Once, OnceLock, LazyLock.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::text;

mirrored! {
    fn is_called_once() {
        use imp::sync::Once;
        static START: Once = Once::new();
        assert!(!START.is_completed());
        let mut calls = 0;
        START.call_once(|| {
            calls += 1;
            assert!(!START.is_completed());
        });
        START.call_once(|| unreachable!());
        START.call_once_force(|_| unreachable!());
        START.wait();
        START.wait_force();
        assert!(START.is_completed());
        assert_eq!(calls, 1);
        assert_eq!(format!("{START:?}"), "Once { .. }");
    }

    fn one_of_many_calls_it() {
        use imp::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        use imp::sync::Once;
        use imp::thread;
        let (once, calls) = (Once::new(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| {
                    once.call_once(|| {
                        thread::yield_now();
                        calls.fetch_add(1, SeqCst);
                    });
                    assert_eq!(calls.load(SeqCst), 1, "it was not done on return");
                });
                scope.spawn(|| {
                    once.wait();
                    assert_eq!(calls.load(SeqCst), 1, "it was not done on return");
                });
            }
        });
    }

    fn is_poisoned_by_a_panic() {
        use imp::sync::Once;
        let once = Once::new();
        let poison = || catch_unwind(AssertUnwindSafe(|| once.call_once(|| resume_unwind(Box::new(7)))));
        assert_eq!(*poison().unwrap_err().downcast::<i32>().unwrap(), 7);
        let expected = "Once instance has previously been poisoned";
        assert_eq!(text(poison().unwrap_err()), expected);
        let wait = catch_unwind(AssertUnwindSafe(|| once.wait()));
        assert_eq!(text(wait.unwrap_err()), expected);
        assert!(!once.is_completed());
        // Forced, it may fail again; that poisons again.
        let force = catch_unwind(AssertUnwindSafe(|| {
            once.call_once_force(|state| {
                assert!(state.is_poisoned());
                assert_eq!(format!("{state:?}"), "OnceState { poisoned: true }");
                resume_unwind(Box::new(()));
            });
        }));
        assert!(force.is_err());
        once.call_once_force(|state| assert!(state.is_poisoned()));
        assert!(once.is_completed());
        once.call_once(|| unreachable!());
    }

    fn a_forced_wait_outlasts_a_panic() {
        use imp::sync::Once;
        use imp::thread;
        let once = Once::new();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| once.wait_force());
            thread::yield_now();
            let panics = scope.spawn(|| once.call_once(|| resume_unwind(Box::new(()))));
            assert!(panics.join().is_err());
            once.call_once_force(|_| ());
            waiter.join().unwrap();
        });
    }

    fn a_cell_is_set_once() {
        use imp::sync::OnceLock;
        static CELL: OnceLock<String> = OnceLock::new();
        assert_eq!(CELL.get(), None);
        assert_eq!(format!("{CELL:?}"), "OnceLock(<uninit>)");
        assert_eq!(CELL.set("one".into()), Ok(()));
        assert_eq!(CELL.set("two".into()), Err("two".into()));
        assert_eq!(CELL.get_or_init(|| unreachable!()), "one");
        assert_eq!((CELL.get().unwrap(), CELL.wait()), (&"one".to_string(), &"one".to_string()));
        assert_eq!(format!("{CELL:?}"), "OnceLock(\"one\")");
        assert_eq!(format!("{CELL:#?}"), "OnceLock(\n    \"one\",\n)");
        let mut copy = CELL.clone();
        assert_eq!(copy, CELL);
        assert_ne!(copy, OnceLock::new());
        copy.get_mut().unwrap().push('!');
        assert_eq!(copy.take().as_deref(), Some("one!"));
        assert_eq!(copy.take(), None);
        assert_eq!(copy.get_mut(), None);
        copy.set("again".into()).unwrap();
        assert_eq!(copy.into_inner().as_deref(), Some("again"));
        assert_eq!(OnceLock::from(3).into_inner(), Some(3));
        assert_eq!(OnceLock::<u8>::default().into_inner(), None);
    }

    fn a_cell_survives_a_panic() {
        use imp::sync::OnceLock;
        let cell = OnceLock::new();
        let caught = catch_unwind(AssertUnwindSafe(|| {
            cell.get_or_init(|| resume_unwind(Box::new(())));
        }));
        assert!(caught.is_err() && cell.get().is_none());
        assert_eq!(cell.get_or_init(|| 3), &3);
    }

    fn a_cell_is_waited_for() {
        use imp::sync::OnceLock;
        use imp::thread;
        let cell = OnceLock::new();
        thread::scope(|scope| {
            let waiters: Vec<_> = (0..5).map(|_| scope.spawn(|| *cell.wait())).collect();
            let makers: Vec<_> = (0..5)
                .map(|i| {
                    let cell = &cell;
                    scope.spawn(move || {
                        *cell.get_or_init(|| {
                            thread::yield_now();
                            i
                        })
                    })
                })
                .collect();
            let made = *cell.wait();
            assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap() == made));
            assert!(makers.into_iter().all(|maker| maker.join().unwrap() == made));
        });
    }

    fn a_cell_drops_its_value_once() {
        use imp::sync::{Arc, OnceLock};
        let value = Arc::new(());
        let cell = OnceLock::new();
        cell.set(value.clone()).unwrap();
        cell.set(value.clone()).unwrap_err();
        assert_eq!(Arc::strong_count(&value), 2);
        drop(cell);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    fn a_cell_may_hold_what_ends_before_it() {
        use imp::sync::OnceLock;
        let cell = OnceLock::new();
        let text = String::from("shorter");
        cell.set(text.as_str()).unwrap();
        assert_eq!(cell.get(), Some(&"shorter"));
    }

    fn is_made_when_it_is_asked_for() {
        use imp::sync::LazyLock;
        static TABLE: LazyLock<Vec<u32>> = LazyLock::new(|| (0..5).map(|n| n * n).collect());
        assert_eq!(LazyLock::get(&TABLE), None);
        assert_eq!(format!("{TABLE:?}"), "LazyLock(<uninit>)");
        assert_eq!(TABLE[3], 9);
        assert_eq!(LazyLock::force(&TABLE).len(), 5);
        assert_eq!(LazyLock::get(&TABLE), Some(&vec![0, 1, 4, 9, 16]));
        assert_eq!(format!("{TABLE:?}"), "LazyLock([0, 1, 4, 9, 16])");
        let mut lazy = LazyLock::new(|| 92);
        assert_eq!(LazyLock::get_mut(&mut lazy), None);
        *LazyLock::force_mut(&mut lazy) += 1;
        *lazy += 1;
        assert_eq!(LazyLock::get_mut(&mut lazy), Some(&mut 94));
        assert_eq!(*lazy, 94);
        assert_eq!(*LazyLock::<String>::default(), "");
        // What it was given is dropped with it, used or not.
        let value = imp::sync::Arc::new(());
        let its = value.clone();
        drop(LazyLock::<_, _>::new(move || drop(its)));
        let its = value.clone();
        let lazy = LazyLock::new(move || its);
        LazyLock::force(&lazy);
        drop(lazy);
        assert_eq!(imp::sync::Arc::strong_count(&value), 1);
    }

    fn is_made_by_one_of_many() {
        use imp::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        use imp::sync::LazyLock;
        use imp::thread;
        let calls = AtomicUsize::new(0);
        let lazy = LazyLock::new(|| {
            thread::yield_now();
            calls.fetch_add(1, SeqCst)
        });
        thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| assert_eq!(*lazy, 0));
            }
        });
    }

    fn a_lazy_one_stays_poisoned() {
        use imp::sync::LazyLock;
        let mut lazy = LazyLock::<u32, _>::new(|| resume_unwind(Box::new(7)));
        let first = catch_unwind(AssertUnwindSafe(|| *lazy));
        assert_eq!(*first.unwrap_err().downcast::<i32>().unwrap(), 7);
        let expected = "LazyLock instance has previously been poisoned";
        assert_eq!(text(catch_unwind(AssertUnwindSafe(|| *lazy)).unwrap_err()), expected);
        assert_eq!(LazyLock::get(&lazy), None);
        let mutable = catch_unwind(AssertUnwindSafe(|| *LazyLock::force_mut(&mut lazy)));
        assert_eq!(text(mutable.unwrap_err()), expected);
        let mut lazy = LazyLock::<u32, _>::new(|| resume_unwind(Box::new(7)));
        assert!(catch_unwind(AssertUnwindSafe(|| *LazyLock::force_mut(&mut lazy))).is_err());
        assert_eq!(text(catch_unwind(AssertUnwindSafe(|| *lazy)).unwrap_err()), expected);
    }

    fn auto_traits() {
        use imp::sync::{LazyLock, Once, OnceLock};
        use std::cell::Cell;
        use std::panic::{RefUnwindSafe, UnwindSafe};
        fn all<T: Send + Sync + UnwindSafe + RefUnwindSafe + Unpin>() {}
        fn send<T: Send>() {}
        all::<Once>();
        all::<OnceLock<u8>>();
        all::<LazyLock<u8>>();
        fn shared<T: Sync>() {}
        send::<OnceLock<Cell<u8>>>();
        // The closure need not be `Sync`.
        fn with<F: FnOnce() -> u8 + Send>(f: F) {
            fn check<F: Send>(_: &LazyLock<u8, F>) {
                shared::<LazyLock<u8, F>>();
            }
            check(&LazyLock::new(f));
        }
        let cell = Cell::new(1);
        with(move || cell.get());
    }
}
