//! Spawning, joining, scopes, parking, time.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};

use super::local::has;
use super::text;

/// The names of the traits that a type has, of those that types of `std::thread` have or lack.
macro_rules! traits {
    ($type:ty) => {{
        let all: &[(bool, &str)] = &[
            (has!($type: Send), "Send"),
            (has!($type: Sync), "Sync"),
            (has!($type: Unpin), "Unpin"),
            (has!($type: std::panic::UnwindSafe), "UnwindSafe"),
            (has!($type: std::panic::RefUnwindSafe), "RefUnwindSafe"),
            (has!($type: Clone), "Clone"),
            (has!($type: Copy), "Copy"),
            (has!($type: std::fmt::Debug), "Debug"),
            (has!($type: std::fmt::Display), "Display"),
            (has!($type: Default), "Default"),
            (has!($type: PartialEq), "PartialEq"),
            (has!($type: Eq), "Eq"),
            (has!($type: PartialOrd), "PartialOrd"),
            (has!($type: std::hash::Hash), "Hash"),
            (has!($type: std::error::Error), "Error"),
        ];
        all.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
    }};
}

#[test]
fn the_types_have_the_traits_of_std() {
    macro_rules! compare {
        ($($name:ident $(<$($argument:tt),*>)?;)*) => {$(
            let stds = traits!(std::thread::$name $(<$($argument),*>)?);
            let ours = traits!(strands::thread::$name $(<$($argument),*>)?);
            assert_eq!(ours, stds, "{}", stringify!($name $(<$($argument),*>)?));
        )*};
    }
    type Pointer = *mut u8;
    type Cell = std::cell::Cell<u8>;
    type Cells = std::cell::RefCell<std::rc::Rc<u8>>;
    compare! {
        Thread; ThreadId; Builder; AccessError;
        JoinHandle<u8>; JoinHandle<Pointer>; JoinHandle<Cell>;
        ScopedJoinHandle<'static, u8>; ScopedJoinHandle<'static, Pointer>; ScopedJoinHandle<'static, Cell>;
        Scope<'static, 'static>;
        Result<u8>; Result<Pointer>;
        LocalKey<u8>; LocalKey<Pointer>; LocalKey<Cell>; LocalKey<Cells>;
    }
    assert_eq!(size_of::<Option<strands::thread::ThreadId>>(), 8);
    assert!(!std::mem::needs_drop::<strands::thread::AccessError>());
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
        assert!(
            text(caught.map(drop).unwrap_err())
                .starts_with("thread name may not contain interior null bytes")
        );
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

    fn says_who_runs() {
        use imp::thread;
        let me = thread::current();
        assert_eq!(me.id(), thread::current().id());
        let unnamed =
            thread::spawn(|| (thread::current().id(), thread::current().name().is_none()));
        let id = unnamed.thread().id();
        assert!(unnamed.thread().name().is_none());
        assert_eq!(unnamed.join().unwrap(), (id, true));
        assert_ne!(id, me.id());
        let ids: std::collections::HashSet<_> =
            (0..20).map(|_| thread::spawn(|| thread::current().id()).join().unwrap()).collect();
        assert_eq!(ids.len(), 20);
        assert_eq!(size_of::<Option<thread::ThreadId>>(), size_of::<thread::ThreadId>());
    }

    fn is_written_as_std_writes_it() {
        use imp::thread;
        let named = thread::Builder::new().name("scribe".into()).spawn(|| ()).unwrap();
        let thread = named.thread().clone();
        let id = format!("{:?}", thread.id());
        let number = id.strip_prefix("ThreadId(").and_then(|rest| rest.strip_suffix(')'));
        assert!(number.is_some_and(|n| n.parse::<u64>().is_ok()), "{id}");
        assert_eq!(
            format!("{thread:?}"),
            format!("Thread {{ id: {id}, name: Some(\"scribe\"), .. }}")
        );
        assert_eq!(format!("{named:?}"), "JoinHandle { .. }");
        named.join().unwrap();
        let builder = thread::Builder::new().name("b".into()).stack_size(70_000);
        let text = format!("{builder:?}");
        assert!(
            text.starts_with("Builder { name: Some(\"b\"), stack_size: Some(70000), "),
            "{text}"
        );
        let me = thread::current();
        thread::scope(|scope| {
            assert_eq!(
                format!("{scope:?}"),
                format!(
                    "Scope {{ num_running_threads: 0, a_thread_panicked: false, main_thread: {me:?}, .. }}"
                )
            );
            let child = scope.spawn(thread::park);
            assert!(format!("{scope:?}").starts_with("Scope { num_running_threads: 1, "));
            assert_eq!(format!("{child:?}"), "ScopedJoinHandle { .. }");
            child.thread().unpark();
        });
    }

    fn a_handle_outlives_what_it_stands_for() {
        use imp::thread;
        let handle = thread::Builder::new().name("gone".into()).spawn(thread::current).unwrap();
        let (before, id) = (handle.thread().clone(), handle.thread().id());
        let after = handle.join().unwrap();
        assert_eq!((after.id(), after.name(), before.name()), (id, Some("gone"), Some("gone")));
        after.unpark();
        before.unpark();
    }

    fn payloads_are_what_was_thrown() {
        use imp::thread;
        use std::any::Any;
        struct Unit;
        fn thrown(f: impl FnOnce() + Send + 'static) -> Box<dyn Any + Send> {
            thread::spawn(f).join().unwrap_err()
        }
        assert_eq!(thrown(|| panic!("static")).downcast_ref(), Some(&"static"));
        let owned = thrown(|| panic_any(String::from("owned")));
        assert_eq!(owned.downcast_ref(), Some(&String::from("owned")));
        assert!(thrown(|| panic_any(Unit)).is::<Unit>());
        let boxed = thrown(|| panic_any(Box::new(7u16) as Box<dyn Any + Send>));
        let inner = boxed.downcast::<Box<dyn Any + Send>>().unwrap();
        assert_eq!(inner.downcast_ref(), Some(&7u16));
        let resumed = thrown(|| std::panic::resume_unwind(Box::new(1i64)));
        assert_eq!(resumed.downcast_ref(), Some(&1i64));
    }

    fn children_outlive_parents() {
        use imp::sync::mpsc;
        use imp::thread;
        fn generation(left: u32, sender: mpsc::Sender<u32>) {
            thread::spawn(move || match left {
                0 => sender.send(left).unwrap(),
                _ => generation(left - 1, sender),
            });
        }
        let (sender, receiver) = mpsc::channel();
        generation(50, sender);
        assert_eq!(receiver.recv(), Ok(0));
    }

    fn what_a_closure_holds_is_dropped_before_it_is_joined() {
        use imp::sync::Arc;
        use imp::thread;
        for panics in [false, true] {
            let held = Arc::new(());
            let its = held.clone();
            let result = thread::spawn(move || {
                let _its = its;
                assert!(!panics, "on purpose");
            });
            assert_eq!(result.join().is_err(), panics);
            assert_eq!(Arc::strong_count(&held), 1);
        }
    }

    fn a_result_is_dropped_where_it_is_last_held() {
        use imp::sync::mpsc;
        use imp::thread;
        struct Who(mpsc::Sender<thread::ThreadId>);
        impl Drop for Who {
            fn drop(&mut self) {
                self.0.send(thread::current().id()).unwrap();
            }
        }
        let (sender, receiver) = mpsc::channel();
        // It has ended: the dropper of its handle drops it.
        let who = Who(sender.clone());
        let ended = thread::spawn(|| who);
        while !ended.is_finished() {
            thread::yield_now();
        }
        drop(ended);
        assert_eq!(receiver.recv(), Ok(thread::current().id()));
        // Its handle was dropped before: it does so itself.
        let who = Who(sender);
        let (go, wait) = mpsc::channel();
        let detached = thread::spawn(move || {
            wait.recv().unwrap();
            who
        });
        let id = detached.thread().id();
        drop(detached);
        go.send(()).unwrap();
        assert_eq!(receiver.recv(), Ok(id));
    }

    fn is_finished_says_so_only_when_it_is() {
        use imp::sync::mpsc;
        use imp::thread;
        let (go, wait) = mpsc::channel::<()>();
        let handle = thread::spawn(move || wait.recv().is_err());
        for _ in 0..10 {
            assert!(!handle.is_finished());
            thread::yield_now();
        }
        drop(go);
        while !handle.is_finished() {
            thread::yield_now();
        }
        assert!(handle.is_finished() && handle.join().unwrap());
    }

    fn handles_are_joined_elsewhere() {
        use imp::thread;
        let first = thread::spawn(|| 1);
        let second = thread::spawn(move || first.join().unwrap() + 1);
        let handles = [second, thread::spawn(|| 10)];
        let sum = thread::spawn(|| handles.into_iter().map(|h| h.join().unwrap()).sum::<i32>());
        assert_eq!(sum.join().unwrap(), 12);
    }

    fn builders_spawn_in_scopes() {
        use imp::thread;
        let mut text = String::from("borrowed");
        let length = thread::scope(|scope| {
            let builder = thread::Builder::new().name("scoped".into()).stack_size(256 * 1024);
            let text = &mut text;
            let child = builder.spawn_scoped(scope, move || {
                text.push('!');
                (text.len(), thread::current().id(), thread::current().name().map(str::to_owned))
            });
            let child = child.unwrap();
            let id = child.thread().id();
            assert_eq!(child.thread().name(), Some("scoped"));
            let (length, its, name) = child.join().unwrap();
            assert_eq!((its, name.as_deref()), (id, Some("scoped")));
            let caught = catch_unwind(AssertUnwindSafe(|| {
                thread::Builder::new().name("a\0b".into()).spawn_scoped(scope, || ()).map(drop)
            }));
            assert_eq!(
                super::text(caught.map(drop).unwrap_err()),
                "thread name may not contain interior null bytes: NulError(1, [97, 0, 98])"
            );
            length
        });
        assert_eq!((length, text.as_str()), (9, "borrowed!"));
    }

    fn scopes_nest_and_return() {
        use imp::thread;
        let numbers = [1, 2, 3];
        let sum = thread::scope(|outer| {
            let inner = outer.spawn(|| {
                thread::scope(|inner| {
                    let halves =
                        numbers.chunks(2).map(|half| inner.spawn(|| half.iter().sum::<i32>()));
                    let halves: Vec<_> = halves.collect();
                    halves.into_iter().map(|half| half.join().unwrap()).sum::<i32>()
                })
            });
            inner.join().unwrap()
        });
        assert_eq!(sum, 6);
        assert_eq!(thread::scope(|_| "without children"), "without children");
    }

    fn a_scope_waits_for_what_its_results_spawn() {
        use imp::sync::atomic::{AtomicBool, Ordering::SeqCst};
        use imp::thread::{self, Scope};
        struct SpawnsWhenDropped<'scope, 'env>(&'scope Scope<'scope, 'env>, &'env AtomicBool);
        impl Drop for SpawnsWhenDropped<'_, '_> {
            fn drop(&mut self) {
                let done = self.1;
                self.0.spawn(move || {
                    thread::yield_now();
                    done.store(true, SeqCst);
                });
            }
        }
        let done = AtomicBool::new(false);
        let flag = &done;
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::yield_now();
                SpawnsWhenDropped(scope, flag)
            });
        });
        assert!(done.load(SeqCst));
    }

    fn the_panic_of_the_closure_comes_before_that_of_a_child() {
        use imp::thread;
        let caught = catch_unwind(|| {
            thread::scope(|scope| -> () {
                scope.spawn(|| panic!("the child's"));
                panic!("the closure's");
            })
        });
        assert_eq!(text(caught.unwrap_err()), "the closure's");
    }

    fn the_other_children_of_a_scope_run_to_their_end() {
        use imp::sync::atomic::{AtomicU32, Ordering::SeqCst};
        use imp::thread;
        let count = AtomicU32::new(0);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            thread::scope(|scope| {
                for i in 0..10 {
                    let count = &count;
                    scope.spawn(move || {
                        assert!(i % 3 != 1, "child {i}");
                        thread::yield_now();
                        count.fetch_add(1, SeqCst);
                    });
                }
            });
        }));
        assert_eq!(text(caught.unwrap_err()), "a scoped thread panicked");
        assert_eq!(count.load(SeqCst), 7);
    }

    fn handles_shrink_their_lifetimes() {
        use imp::thread::{self, ScopedJoinHandle};
        fn shorter<'a, 'b: 'a, T>(
            handle: ScopedJoinHandle<'b, T>,
            _: &'a u8,
        ) -> ScopedJoinHandle<'a, T> {
            handle
        }
        fn matches_nothing(x: &u8) {
            thread::scope(|scope| {
                #[allow(clippy::match_single_binding)]
                scope.spawn(|| match x {
                    _ => (),
                });
            });
        }
        thread::scope(|scope| {
            let local = 1;
            assert_eq!(shorter(scope.spawn(|| 5), &local).join().unwrap(), 5);
        });
        matches_nothing(&1);
    }

    fn tokens_of_park_do_not_count() {
        use imp::thread;
        use imp::time::{Duration, Instant};
        thread::current().unpark();
        thread::current().unpark();
        thread::park();
        // Takes a token, if there is one: none is, or the wait was not for nothing.
        let start = Instant::now();
        thread::park_timeout(Duration::from_millis(2));
        assert!(start.elapsed() >= Duration::from_millis(2));
        // Spawning and joining use none up, nor leave one.
        let me = thread::current();
        thread::spawn(move || me.unpark()).join().unwrap();
        thread::spawn(|| ()).join().unwrap();
        thread::park();
    }

    #[allow(deprecated)]
    fn what_is_deprecated_works() {
        use imp::thread;
        use imp::time::{Duration, Instant};
        let start = Instant::now();
        thread::sleep_ms(2);
        assert!(start.elapsed() >= Duration::from_millis(2));
        thread::current().unpark();
        thread::park_timeout_ms(u32::MAX);
        thread::park_timeout_ms(0);
        thread::sleep_ms(0);
    }

    fn panics_within_unwinding_are_its_own() {
        use imp::sync::mpsc;
        use imp::thread;
        struct Inner(mpsc::Sender<(bool, bool)>);
        impl Drop for Inner {
            fn drop(&mut self) {
                // Must not wait: other tests' fibers panic on the same worker meanwhile.
                let before = thread::panicking();
                let caught = catch_unwind(|| panic!("within a destructor"));
                self.0.send((before && caught.is_err(), thread::panicking())).unwrap();
            }
        }
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                let _inner = Inner(sender.clone());
                panic!("outside");
            }));
            let caught: Result<(), _> = caught;
            assert!(caught.is_err());
            sender.send((thread::panicking(), false)).unwrap();
        })
        .join()
        .unwrap();
        assert_eq!(receiver.recv(), Ok((true, true)));
        assert_eq!(receiver.recv(), Ok((false, false)));
    }

    fn there_is_some_parallelism() {
        use imp::thread;
        assert_eq!(
            thread::available_parallelism().unwrap(),
            std::thread::available_parallelism().unwrap()
        );
    }

    #[should_panic(expected = "this is expected")]
    fn fails_as_it_should() {
        panic!("this is expected");
    }
}
