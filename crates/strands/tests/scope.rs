//! `strands::scope`: it ends after its children, whatever happens.

mod thread_common;

use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use strands::thread::{self, Builder};
use thread_common::{from_everywhere, runtime, stress, text};

#[test]
fn children_borrow_buffers_while_one_panics() {
    from_everywhere(|| {
        let mut buffers = vec![[0u8; 4096]; 8];
        let caught = panic::catch_unwind(AssertUnwindSafe(|| {
            thread::scope(|scope| {
                for (i, buffer) in buffers.iter_mut().enumerate() {
                    scope.spawn(move || {
                        for round in 1..=10 {
                            buffer.fill(round);
                            thread::yield_now();
                            assert!(i != 3 || round < 5, "the fourth gives up");
                        }
                    });
                }
            });
        }));
        assert_eq!(text(&*caught.unwrap_err()), "a scoped thread panicked");
        for (i, buffer) in buffers.iter().enumerate() {
            let last = if i == 3 { 5 } else { 10 };
            assert!(buffer.iter().all(|&byte| byte == last), "buffer {i}");
        }
    });
}

#[test]
fn a_panic_in_the_closure_waits_for_the_children() {
    from_everywhere(|| {
        let count = AtomicUsize::new(0);
        let caught = panic::catch_unwind(AssertUnwindSafe(|| {
            thread::scope(|scope| {
                for _ in 0..10 {
                    scope.spawn(|| {
                        for _ in 0..10 {
                            thread::yield_now();
                        }
                        count.fetch_add(1, SeqCst);
                    });
                }
                panic!("the closure's");
            })
        }));
        let caught: thread::Result<()> = caught;
        assert_eq!(text(&*caught.unwrap_err()), "the closure's");
        assert_eq!(count.into_inner(), 10);
    });
}

#[test]
fn the_closures_panic_comes_before_the_childrens() {
    from_everywhere(|| {
        let caught: thread::Result<()> = panic::catch_unwind(|| {
            thread::scope(|scope| {
                scope.spawn(|| panic!("the child's"));
                panic!("the closure's")
            })
        });
        assert_eq!(text(&*caught.unwrap_err()), "the closure's");
    });
}

#[test]
fn a_joined_panic_is_not_reported_again() {
    from_everywhere(|| {
        let payload = thread::scope(|scope| scope.spawn(|| panic!("seen")).join().unwrap_err());
        assert_eq!(text(&*payload), "seen");
    });
}

#[test]
fn a_panicked_child_is_reported_even_if_its_handle_is_dropped_late() {
    from_everywhere(|| {
        let caught = panic::catch_unwind(|| {
            thread::scope(|scope| {
                let child = scope.spawn(|| panic!("unseen"));
                while !child.is_finished() {
                    thread::yield_now();
                }
                drop(child);
            });
        });
        assert_eq!(text(&*caught.unwrap_err()), "a scoped thread panicked");
    });
}

#[test]
fn children_spawn_siblings_and_scopes_of_their_own() {
    from_everywhere(|| {
        let count = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    scope.spawn(|| count.fetch_add(1, SeqCst));
                    let local = AtomicUsize::new(0);
                    thread::scope(|inner| {
                        for _ in 0..4 {
                            inner.spawn(|| local.fetch_add(1, SeqCst));
                        }
                    });
                    count.fetch_add(local.into_inner(), SeqCst);
                });
            }
        });
        assert_eq!(count.into_inner(), 4 * 5);
    });
}

#[test]
fn values_and_handles_of_children() {
    from_everywhere(|| {
        let text = String::from("borrowed");
        thread::scope(|scope| {
            let parked = scope.spawn(thread::park);
            assert!(parked.thread().name().is_none());
            parked.thread().unpark();
            parked.join().unwrap();
            // A value may borrow too, and may be dropped with its handle.
            let slice = scope.spawn(|| &text[..3]);
            assert_eq!(slice.join().unwrap(), "bor");
            drop(scope.spawn(|| &text));
            let named = Builder::new().name("child".into());
            let named = named.spawn_scoped(scope, || thread::current().name().map(str::to_owned));
            assert_eq!(named.unwrap().join().unwrap().as_deref(), Some("child"));
            assert!(format!("{scope:?}").starts_with("Scope"));
        });
    });
}

#[test]
fn a_child_may_join_another() {
    from_everywhere(|| {
        let sum = thread::scope(|scope| {
            let first = scope.spawn(|| 1);
            let second = scope.spawn(move || first.join().unwrap() + 1);
            scope.spawn(move || second.join().unwrap() + 1).join().unwrap()
        });
        assert_eq!(sum, 3);
    });
}

#[test]
fn a_forgotten_handle_does_not_hold_the_scope() {
    from_everywhere(|| {
        let ran = AtomicBool::new(false);
        thread::scope(|scope| std::mem::forget(scope.spawn(|| ran.store(true, SeqCst))));
        assert!(ran.into_inner());
    });
}

#[test]
fn a_value_that_panics_when_dropped_counts_as_the_childs_panic() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    // On one worker the handle is gone before the child starts.
    runtime(1).run(|| {
        let caught = panic::catch_unwind(|| {
            thread::scope(|scope| drop(scope.spawn(|| Bomb)));
        });
        assert_eq!(text(&*caught.unwrap_err()), "a scoped thread panicked");
        // Dropped after the child's end, it is the panic of whoever drops it.
        let caught = panic::catch_unwind(|| {
            thread::scope(|scope| {
                let child = scope.spawn(|| Bomb);
                while !child.is_finished() {
                    thread::yield_now();
                }
                drop(child);
            });
        });
        assert_eq!(text(&*caught.unwrap_err()), "dropped");
    });
}

#[test]
fn a_scope_in_a_destructor_while_unwinding() {
    struct Scoped<'a>(&'a AtomicUsize);
    impl Drop for Scoped<'_> {
        fn drop(&mut self) {
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        thread::yield_now();
                        self.0.fetch_add(1, SeqCst);
                    });
                }
            });
        }
    }
    from_everywhere(|| {
        let count = AtomicUsize::new(0);
        let caught = panic::catch_unwind(AssertUnwindSafe(|| {
            let _scoped = Scoped(&count);
            panic!("outer");
        }));
        assert_eq!(text(&*caught.unwrap_err()), "outer");
        assert_eq!(count.into_inner(), 3);
    });
}

#[test]
fn a_shutdown_ends_scopes_in_order() {
    // The parent waits in its scope, the children wait for ever: all are cancelled, and the
    // children end before what they borrow.
    for workers in [1, 2] {
        let runtime = runtime(workers);
        let (parked, has_parked) = std::sync::mpsc::channel();
        let log = std::sync::Arc::new(Mutex::new(Vec::new()));
        let its = log.clone();
        let parent = runtime.spawn(move || {
            struct Log<'a>(&'a Mutex<Vec<&'static str>>, &'static str);
            impl Drop for Log<'_> {
                fn drop(&mut self) {
                    self.0.lock().unwrap().push(self.1);
                }
            }
            let lent = Log(&its, "parent");
            thread::scope(|scope| {
                for _ in 0..5 {
                    let parked = parked.clone();
                    let lent = &lent;
                    scope.spawn(move || {
                        let _log = Log(lent.0, "child");
                        parked.send(()).unwrap();
                        loop {
                            thread::park();
                        }
                    });
                }
            });
            unreachable!("its children were cancelled, so it is too");
        });
        for _ in 0..5 {
            has_parked.recv().unwrap();
        }
        runtime.shutdown_timeout(std::time::Duration::MAX).unwrap();
        assert!(parent.join().unwrap_err().is::<strands::cancel::Cancelled>());
        assert_eq!(*log.lock().unwrap(), [["child"; 5].as_slice(), &["parent"]].concat());
    }
}

#[test]
fn scopes_by_the_thousand() {
    from_everywhere(|| {
        for round in 0..300 * stress() {
            let mut sums = [0; 4];
            thread::scope(|scope| {
                for (i, sum) in sums.iter_mut().enumerate() {
                    scope.spawn(move || *sum = round + i);
                }
            });
            assert_eq!(sums, [round, round + 1, round + 2, round + 3]);
        }
    });
}
