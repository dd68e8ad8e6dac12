//! The same programs against std and against strands: only the `use` differs.

/// Compiles each program twice, and makes a test of each for both.
macro_rules! mirrored {
    ($($(#[$attribute:meta])* fn $name:ident() $body:block)*) => {
        mod on_std {
            use std as imp;
            #[allow(unused_imports)]
            use super::*;
            $(#[test] $(#[$attribute])* fn $name() $body)*
        }
        mod on_strands_from_a_plain_thread {
            use strands as imp;
            #[allow(unused_imports)]
            use super::*;
            $(#[test] $(#[$attribute])* fn $name() $body)*
        }
        mod on_strands_from_a_fiber {
            use strands as imp;
            #[allow(unused_imports)]
            use super::*;
            $(#[strands::test] $(#[$attribute])* fn $name() $body)*
        }
        mod on_strands_with_one_worker {
            use strands as imp;
            #[allow(unused_imports)]
            use super::*;
            $(#[strands::test(workers = 1)] $(#[$attribute])* fn $name() $body)*
        }
    };
}

use std::panic::{AssertUnwindSafe, catch_unwind};

fn text(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().copied().unwrap_or("?").into(),
    }
}

mirrored! {
    fn spawns_and_joins() {
        use imp::thread;
        let handles: Vec<_> = (0..50u64).map(|i| thread::spawn(move || i * i)).collect();
        let sum: u64 = handles.into_iter().map(|handle| handle.join().unwrap()).sum();
        assert_eq!(sum, 40_425);
    }

    fn a_panic_is_the_result() {
        use imp::thread;
        let result: thread::Result<()> = thread::spawn(|| panic!("why {}", "not")).join();
        assert_eq!(text(result.unwrap_err()), "why not");
    }

    fn scopes_borrow() {
        use imp::thread;
        let mut numbers = [1, 2, 3, 4];
        let (left, right) = numbers.split_at_mut(2);
        let total = thread::scope(|scope| {
            let sum = scope.spawn(|| {
                left[0] = 10;
                left.iter().sum::<i32>()
            });
            scope.spawn(|| right.reverse());
            sum.join().unwrap()
        });
        assert_eq!((total, &numbers[..]), (12, &[10, 2, 4, 3][..]));
    }

    fn a_scope_spawns_in_its_children() {
        use imp::sync::atomic::{AtomicUsize, Ordering};
        use imp::thread;
        let count = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        scope.spawn(|| count.fetch_add(1, Ordering::Relaxed));
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 25);
    }

    fn a_scope_reports_a_panicked_child() {
        use imp::thread;
        let caught = catch_unwind(|| {
            thread::scope(|scope| {
                scope.spawn(|| panic!("unseen"));
            })
        });
        assert_eq!(text(caught.unwrap_err()), "a scoped thread panicked");
        // A child that was joined is not reported.
        thread::scope(|scope| assert!(scope.spawn(|| panic!("seen")).join().is_err()));
    }

    fn a_panic_in_the_scope_goes_on_after_the_children() {
        use imp::sync::atomic::{AtomicBool, Ordering};
        use imp::thread;
        let ended = AtomicBool::new(false);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(imp::time::Duration::from_millis(2));
                    ended.store(true, Ordering::SeqCst);
                });
                panic!("from the closure");
            })
        }));
        let caught: Result<(), _> = caught;
        assert_eq!(text(caught.unwrap_err()), "from the closure");
        assert!(ended.load(Ordering::SeqCst));
    }

    fn builders_name() {
        use imp::thread;
        let builder = thread::Builder::new().name("reader".to_string()).stack_size(64 * 1024);
        let handle = builder.spawn(|| thread::current().name().map(str::to_owned)).unwrap();
        assert_eq!(handle.thread().name(), Some("reader"));
        let id = handle.thread().id();
        assert_ne!(id, thread::current().id());
        assert_eq!(handle.join().unwrap().as_deref(), Some("reader"));
        let caught = catch_unwind(|| {
            thread::Builder::new().name("nul\0".to_string()).spawn(|| ()).map(drop)
        });
        assert!(text(caught.map(drop).unwrap_err()).starts_with(
            "thread name may not contain interior null bytes"
        ));
    }

    fn parks() {
        use imp::thread;
        use imp::time::{Duration, Instant};
        thread::current().unpark();
        thread::park();
        thread::park_timeout(Duration::ZERO);
        let start = Instant::now();
        let handle = thread::spawn(thread::park);
        handle.thread().unpark();
        handle.join().unwrap();
        thread::sleep(Duration::from_micros(50));
        assert!(start.elapsed() >= Duration::from_micros(50));
        let handle = thread::spawn(|| thread::park_timeout(Duration::MAX));
        handle.thread().unpark();
        handle.join().unwrap();
    }

    fn finishes() {
        use imp::thread;
        let handle = thread::spawn(|| 3);
        while !handle.is_finished() {
            thread::yield_now();
        }
        assert_eq!(handle.join().unwrap(), 3);
    }

    fn a_detached_one_goes_on() {
        use imp::sync::mpsc;
        use imp::thread;
        let (sender, receiver) = mpsc::channel();
        drop(thread::spawn(move || sender.send("alive").unwrap()));
        assert_eq!(receiver.recv().unwrap(), "alive");
    }

    fn knows_that_it_panics() {
        use imp::sync::mpsc;
        use imp::thread;
        struct Tell(mpsc::Sender<bool>);
        impl Drop for Tell {
            fn drop(&mut self) {
                self.0.send(thread::panicking()).unwrap();
            }
        }
        let (sender, receiver) = mpsc::channel();
        let tell = Tell(sender.clone());
        thread::spawn(move || {
            let _tell = tell;
            panic!("on purpose");
        })
        .join()
        .unwrap_err();
        assert!(receiver.recv().unwrap());
        let tell = Tell(sender);
        thread::spawn(move || drop(tell)).join().unwrap();
        assert!(!receiver.recv().unwrap());
        assert!(!thread::panicking());
    }

    fn locks_are_poisoned_by_panics() {
        use imp::sync::{Arc, Mutex};
        use imp::thread;
        let mutex = Arc::new(Mutex::new(1));
        let its = mutex.clone();
        thread::spawn(move || {
            let mut guard = its.lock().unwrap();
            *guard = 2;
            panic!("while it is locked");
        })
        .join()
        .unwrap_err();
        assert!(mutex.is_poisoned());
        assert_eq!(*mutex.lock().unwrap_err().into_inner(), 2);
        mutex.clear_poison();
        assert_eq!(*mutex.lock().unwrap(), 2);
    }

    fn a_drop_that_panics_in_a_result_is_the_joiners() {
        use imp::thread;
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let bomb = thread::spawn(|| Bomb).join().unwrap();
        assert_eq!(text(catch_unwind(AssertUnwindSafe(|| drop(bomb))).unwrap_err()), "dropped");
    }

    fn instants() {
        use imp::time::{Duration, Instant};
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        assert_eq!(later - start, Duration::from_secs(5));
        assert_eq!(start - later, Duration::ZERO);
        assert_eq!(later.checked_duration_since(start), Some(Duration::from_secs(5)));
        assert_eq!(start.checked_duration_since(later), None);
        assert_eq!(start.saturating_duration_since(later), Duration::ZERO);
        assert_eq!(start.duration_since(later), Duration::ZERO);
        assert_eq!(start.checked_add(Duration::MAX), None);
        assert_eq!(start.checked_sub(Duration::MAX), None);
        let mut moving = start;
        moving += Duration::from_nanos(3);
        moving -= Duration::from_nanos(1);
        assert_eq!(moving, start + Duration::from_nanos(2));
        assert!(moving > start && moving.max(start) == moving);
        assert_eq!(moving - Duration::from_nanos(2), start);
        assert_eq!(std::collections::HashSet::from([start, start]).len(), 1);
        assert!(catch_unwind(|| start + Duration::MAX).is_err());
        assert!(start.elapsed() <= Instant::now().duration_since(start));
        assert!(format!("{start:?}").starts_with("Instant {"));
    }

    #[should_panic(expected = "this is expected")]
    fn fails_as_it_should() {
        panic!("this is expected");
    }
}
