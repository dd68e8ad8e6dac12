//! Mutex, its guard, and poisoning.

use std::panic::{AssertUnwindSafe, catch_unwind};

mirrored! {
    fn guards_what_it_has() {
        use imp::sync::{Mutex, TryLockError};
        static TOTAL: Mutex<u32> = Mutex::new(1);
        *TOTAL.lock().unwrap() += 1;
        assert_eq!(*TOTAL.lock().unwrap(), 2);
        let mut mutex = Mutex::new(1);
        *mutex.get_mut().unwrap() += 1;
        let guard = mutex.lock().unwrap();
        assert_eq!(format!("{guard} {guard:?}"), "2 2");
        assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
        let refused = mutex.try_lock().map(drop).unwrap_err().to_string();
        assert_eq!(refused, "try_lock failed because the operation would block");
        assert_eq!(format!("{:?}", mutex.try_lock()), "Err(\"WouldBlock\")");
        assert_eq!(format!("{mutex:?}"), r#"Mutex { data: "<locked>", poisoned: false, .. }"#);
        drop(guard);
        *mutex.try_lock().unwrap() += 1;
        assert_eq!(format!("{mutex:?}"), "Mutex { data: 3, poisoned: false, .. }");
        assert_eq!(format!("{mutex:#?}"), "Mutex {\n    data: 3,\n    poisoned: false,\n    ..\n}");
        assert_eq!(mutex.into_inner().unwrap(), 3);
        assert_eq!(*Mutex::from(7).lock().unwrap(), 7);
        assert_eq!(*Mutex::<String>::default().lock().unwrap(), "");
        let unsized_one: &Mutex<[i32]> = &Mutex::new([1, 2, 3]);
        unsized_one.lock().unwrap()[1] = 5;
        assert_eq!(unsized_one.lock().unwrap()[..], [1, 5, 3]);
    }

    fn counts_from_many() {
        use imp::sync::{Arc, Mutex};
        use imp::thread;
        let count = Arc::new(Mutex::new(0));
        let all: Vec<_> = (0..8)
            .map(|_| {
                let count = count.clone();
                thread::spawn(move || (0..100).for_each(|_| *count.lock().unwrap() += 1))
            })
            .collect();
        all.into_iter().for_each(|one| one.join().unwrap());
        assert_eq!(*count.lock().unwrap(), 800);
    }

    fn is_poisoned_by_its_holder() {
        use imp::sync::{Mutex, TryLockError};
        let mut mutex = Mutex::new(5);
        let poison = |mutex: &Mutex<i32>| {
            catch_unwind(AssertUnwindSafe(|| {
                let _guard = mutex.lock();
                std::panic::resume_unwind(Box::new(()));
            }))
            .unwrap_err();
        };
        poison(&mutex);
        assert!(mutex.is_poisoned());
        let error = mutex.lock().unwrap_err();
        assert_eq!(error.to_string(), "poisoned lock: another task failed inside");
        assert_eq!(format!("{error:?}"), "PoisonError { .. }");
        assert_eq!(**error.get_ref(), 5);
        drop(error);
        let error = mutex.try_lock().unwrap_err();
        assert!(matches!(&error, TryLockError::Poisoned(guard) if **guard.get_ref() == 5));
        assert_eq!(format!("{error:?}"), "\"Poisoned(..)\"");
        assert_eq!(error.to_string(), "poisoned lock: another task failed inside");
        drop(error);
        assert_eq!(format!("{mutex:?}"), "Mutex { data: 5, poisoned: true, .. }");
        assert_eq!(*mutex.get_mut().unwrap_err().into_inner(), 5);
        mutex.clear_poison();
        assert_eq!(*mutex.lock().unwrap(), 5);
        poison(&mutex);
        assert_eq!(mutex.into_inner().unwrap_err().into_inner(), 5);
    }

    fn is_not_poisoned_by_who_locks_while_unwinding() {
        use imp::sync::Mutex;
        struct Locks<'a>(&'a Mutex<i32>);
        impl Drop for Locks<'_> {
            fn drop(&mut self) {
                *self.0.lock().unwrap() += 1;
            }
        }
        let mutex = Mutex::new(0);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _locks = Locks(&mutex);
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(caught.is_err() && !mutex.is_poisoned());
        assert_eq!(*mutex.lock().unwrap(), 1);
    }

    fn who_waits_while_it_is_poisoned_is_told() {
        use imp::sync::{Arc, Mutex};
        use imp::thread;
        let mutex = Arc::new(Mutex::new(vec![1]));
        let guard = mutex.lock().unwrap();
        let its = mutex.clone();
        let waiter = thread::spawn(move || its.lock().is_err());
        let holder = catch_unwind(AssertUnwindSafe(move || {
            let _guard = guard;
            std::panic::resume_unwind(Box::new(()));
        }));
        // The guard was made before the unwinding began.
        assert!(holder.is_err() && mutex.is_poisoned());
        assert!(waiter.join().unwrap());
    }
}
