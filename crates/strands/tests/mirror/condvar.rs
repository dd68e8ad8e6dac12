//! Condvar.

use std::panic::{AssertUnwindSafe, catch_unwind};

mirrored! {
    fn wakes_who_waits() {
        use imp::sync::{Arc, Condvar, Mutex};
        use imp::thread;
        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let its = pair.clone();
        let other = thread::spawn(move || {
            *its.0.lock().unwrap() = true;
            its.1.notify_one();
        });
        let mut ready = pair.0.lock().unwrap();
        while !*ready {
            ready = pair.1.wait(ready).unwrap();
        }
        drop(ready);
        other.join().unwrap();
        assert_eq!(format!("{:?}", pair.1), "Condvar { .. }");
        static UNUSED: Condvar = Condvar::new();
        UNUSED.notify_one();
        Condvar::default().notify_all();
    }

    fn wakes_all() {
        use imp::sync::{Condvar, Mutex};
        use imp::thread;
        let (count, changed) = (Mutex::new(0), Condvar::new());
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let mut guard = count.lock().unwrap();
                    *guard += 1;
                    changed.notify_all();
                    drop(changed.wait_while(guard, |count| *count < 20).unwrap());
                });
            }
        });
        assert_eq!(count.into_inner().unwrap(), 20);
    }

    fn times_out() {
        use imp::sync::{Condvar, Mutex};
        use imp::time::{Duration, Instant};
        let (mutex, condvar) = (Mutex::new(3), Condvar::new());
        let start = Instant::now();
        let soon = Duration::from_millis(2);
        let mut guard = mutex.lock().unwrap();
        loop {
            let result;
            (guard, result) = condvar.wait_timeout(guard, soon).unwrap();
            if result.timed_out() {
                assert_eq!(format!("{result:?}"), "WaitTimeoutResult(true)");
                assert_eq!(result, result.clone());
                break;
            }
        }
        assert!(start.elapsed() >= soon);
        let (guard, result) = condvar.wait_timeout_while(guard, soon, |_| true).unwrap();
        assert!(result.timed_out());
        // The condition counts, not the time.
        let (mut guard, result) = condvar.wait_timeout_while(guard, Duration::ZERO, |_| false).unwrap();
        assert!(!result.timed_out());
        *guard += 1;
        #[allow(deprecated)]
        let (guard, _) = condvar.wait_timeout_ms(guard, 0).unwrap();
        assert_eq!(*guard, 4);
    }

    fn waits_for_ever_if_that_is_asked() {
        use imp::sync::{Condvar, Mutex};
        use imp::thread;
        use imp::time::Duration;
        let (ready, condvar) = (Mutex::new(false), Condvar::new());
        thread::scope(|scope| {
            scope.spawn(|| {
                *ready.lock().unwrap() = true;
                condvar.notify_one();
            });
            let guard = ready.lock().unwrap();
            let (guard, result) =
                condvar.wait_timeout_while(guard, Duration::MAX, |ready| !*ready).unwrap();
            assert!(*guard && !result.timed_out());
        });
    }

    fn tells_that_the_mutex_was_poisoned() {
        use imp::sync::{Condvar, Mutex};
        use imp::thread;
        use imp::time::Duration;
        let (mutex, condvar) = (Mutex::new(false), Condvar::new());
        thread::scope(|scope| {
            let guard = mutex.lock().unwrap();
            let panics = scope.spawn(|| {
                let mut guard = mutex.lock().unwrap();
                *guard = true;
                condvar.notify_one();
                std::panic::resume_unwind(Box::new(()));
            });
            let error = condvar.wait_while(guard, |set| !*set).unwrap_err();
            assert!(*error.into_inner());
            assert!(panics.join().is_err());
        });
        let guard = mutex.lock().unwrap_err().into_inner();
        let error = condvar.wait_timeout(guard, Duration::ZERO).unwrap_err();
        assert!(*error.into_inner().0);
    }

    fn a_condition_that_panics_poisons() {
        use imp::sync::{Condvar, Mutex};
        let (mutex, condvar) = (Mutex::new(()), Condvar::new());
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let guard = mutex.lock().unwrap();
            drop(condvar.wait_while(guard, |()| std::panic::resume_unwind(Box::new(()))));
        }));
        assert!(caught.is_err() && mutex.is_poisoned());
    }

    fn may_serve_two_mutexes() {
        use imp::sync::{Condvar, Mutex};
        use imp::time::Duration;
        let (one, two, condvar) = (Mutex::new(1), Mutex::new(2), Condvar::new());
        for mutex in [&one, &two] {
            drop(condvar.wait_timeout(mutex.lock().unwrap(), Duration::ZERO).unwrap());
        }
    }
}
