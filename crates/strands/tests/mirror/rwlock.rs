//! RwLock, its guards, and poisoning by writers.

use std::panic::{AssertUnwindSafe, catch_unwind};

mirrored! {
    fn has_many_readers_or_one_writer() {
        use imp::sync::{RwLock, TryLockError};
        static TOTAL: RwLock<u32> = RwLock::new(1);
        *TOTAL.write().unwrap() += 1;
        assert_eq!(*TOTAL.read().unwrap(), 2);
        let mut lock = RwLock::new(1);
        *lock.get_mut().unwrap() += 1;
        {
            let (one, two) = (lock.read().unwrap(), lock.try_read().unwrap());
            assert_eq!(format!("{one} {two:?}"), "2 2");
            assert!(matches!(lock.try_write(), Err(TryLockError::WouldBlock)));
            assert_eq!(format!("{lock:?}"), "RwLock { data: 2, poisoned: false, .. }");
        }
        {
            let mut guard = lock.write().unwrap();
            *guard += 1;
            assert_eq!(format!("{guard} {guard:?}"), "3 3");
            assert!(matches!(lock.try_write(), Err(TryLockError::WouldBlock)));
            assert!(matches!(lock.try_read(), Err(TryLockError::WouldBlock)));
            assert_eq!(format!("{lock:?}"), "RwLock { data: <locked>, poisoned: false, .. }");
        }
        *lock.try_write().unwrap() += 1;
        assert_eq!(lock.into_inner().unwrap(), 4);
        assert_eq!(*RwLock::from(7).read().unwrap(), 7);
        assert_eq!(*RwLock::<String>::default().read().unwrap(), "");
        let unsized_one: &RwLock<[i32]> = &RwLock::new([1, 2, 3]);
        unsized_one.write().unwrap()[1] = 5;
        assert_eq!(unsized_one.read().unwrap()[..], [1, 5, 3]);
    }

    fn lets_readers_meet() {
        use imp::sync::{Barrier, RwLock};
        use imp::thread;
        // All hold it at once, or nobody gets past the barrier.
        let (lock, barrier) = (RwLock::new(1), Barrier::new(4));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let guard = lock.read().unwrap();
                    barrier.wait();
                    assert_eq!(*guard, 1);
                });
            }
        });
    }

    fn lets_all_readers_in_after_a_writer() {
        use imp::sync::{Barrier, RwLock};
        use imp::thread;
        let (lock, barrier) = (RwLock::new(0), Barrier::new(50));
        thread::scope(|scope| {
            let mut writes = lock.write().unwrap();
            for _ in 0..50 {
                scope.spawn(|| {
                    let guard = lock.read().unwrap();
                    barrier.wait();
                    assert_eq!(*guard, 1);
                });
            }
            thread::yield_now();
            *writes = 1;
        });
    }

    fn counts_from_many() {
        use imp::sync::RwLock;
        use imp::thread;
        let lock = RwLock::new((0, 0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let mut both = lock.write().unwrap();
                        both.0 += 1;
                        both.1 += 1;
                    }
                });
                scope.spawn(|| {
                    for _ in 0..100 {
                        let both = lock.read().unwrap();
                        assert_eq!(both.0, both.1);
                    }
                });
            }
        });
        assert_eq!(lock.into_inner().unwrap(), (400, 400));
    }

    fn is_poisoned_by_writers_only() {
        use imp::sync::{RwLock, TryLockError};
        let mut lock = RwLock::new(5);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _guard = lock.read().unwrap();
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(caught.is_err() && !lock.is_poisoned());
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _guard = lock.write().unwrap();
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(caught.is_err() && lock.is_poisoned());
        let error = lock.read().unwrap_err();
        assert_eq!(error.to_string(), "poisoned lock: another task failed inside");
        assert_eq!(**error.get_ref(), 5);
        drop(error);
        assert!(matches!(lock.try_read(), Err(TryLockError::Poisoned(_))));
        assert!(matches!(lock.try_write(), Err(TryLockError::Poisoned(_))));
        assert_eq!(*lock.write().unwrap_err().into_inner(), 5);
        assert_eq!(format!("{lock:?}"), "RwLock { data: 5, poisoned: true, .. }");
        assert_eq!(*lock.get_mut().unwrap_err().into_inner(), 5);
        lock.clear_poison();
        assert_eq!(*lock.read().unwrap(), 5);
        // A writer that has become a reader does not poison.
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _guard = imp::sync::RwLockWriteGuard::downgrade(lock.write().unwrap());
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(caught.is_err() && !lock.is_poisoned());
        assert_eq!(lock.into_inner().unwrap(), 5);
    }

    fn downgrades() {
        use imp::sync::{RwLock, RwLockWriteGuard, TryLockError};
        use imp::thread;
        let lock = RwLock::new(1);
        thread::scope(|scope| {
            let mut writes = lock.write().unwrap();
            let readers: Vec<_> = (0..3).map(|_| scope.spawn(|| *lock.read().unwrap())).collect();
            *writes = 2;
            let reads = RwLockWriteGuard::downgrade(writes);
            // They join the one who has become a reader.
            for reader in readers {
                assert_eq!(reader.join().unwrap(), 2);
            }
            assert!(matches!(lock.try_write(), Err(TryLockError::WouldBlock)));
            assert_eq!(*reads, 2);
        });
        assert!(lock.try_write().is_ok());
    }

    fn a_read_guard_is_covariant() {
        use imp::sync::{RwLock, RwLockReadGuard};
        fn shorter<'a>(guard: RwLockReadGuard<'a, &'static str>) -> RwLockReadGuard<'a, &'a str> {
            guard
        }
        let lock = RwLock::new("static");
        assert_eq!(*shorter(lock.read().unwrap()), "static");
    }

    fn auto_traits() {
        use imp::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
        use std::cell::Cell;
        use std::panic::{RefUnwindSafe, UnwindSafe};
        use std::rc::Rc;
        fn sync<T: Sync + ?Sized>() {}
        fn send<T: Send + ?Sized>() {}
        fn unwinds<T: UnwindSafe + RefUnwindSafe + Unpin>() {}
        sync::<RwLock<u8>>();
        send::<RwLock<Cell<u8>>>();
        sync::<RwLock<dyn Fn() + Send + Sync>>();
        sync::<RwLockReadGuard<'static, u8>>();
        sync::<RwLockWriteGuard<'static, u8>>();
        unwinds::<RwLock<Cell<u8>>>();
        unwinds::<RwLockReadGuard<'static, u8>>();
        unwinds::<RwLockWriteGuard<'static, u8>>();
        // Does not compile if the type has the trait: then which `f` is meant is ambiguous.
        macro_rules! lacks {
            ($($type:ty: $bound:path;)+) => {
                $({
                    trait Ambiguous<A> { fn f() {} }
                    struct HasIt;
                    impl<T: ?Sized> Ambiguous<()> for T {}
                    impl<T: ?Sized + $bound> Ambiguous<HasIt> for T {}
                    <$type as Ambiguous<_>>::f();
                })+
            };
        }
        lacks! {
            RwLock<Cell<u8>>: Sync;
            RwLock<Rc<u8>>: Send;
            RwLockReadGuard<'static, u8>: Send;
            RwLockWriteGuard<'static, u8>: Send;
            RwLockReadGuard<'static, Cell<u8>>: Sync;
            RwLockReadGuard<'static, Cell<u8>>: UnwindSafe;
        }
    }
}
