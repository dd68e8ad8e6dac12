//! `strands::try_scope`: the first that fails ends all others, and the scope ends after them.

#![allow(clippy::unit_arg, reason = "what a child waits for last is its value")]

mod thread_common;

use std::io::Read;
use std::mem;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use strands::cancel::{CancelToken, Cancelled, cancel_as_error, uncancellable, was_cancelled};
use strands::net::{TcpListener, TcpStream};
use strands::sync::{
    Barrier, Condvar, Mutex, Notify, RwLock, Semaphore, WaitGroup, broadcast, channel, mpsc,
    oneshot, watch,
};
use strands::thread::{self, Builder, sleep, yield_now};
use strands::time::{Duration, Elapsed, Instant, interval, timeout};
use strands::{FiberGroup, scope, try_scope};
use thread_common::{Counted, Random, from_everywhere, runtime, stress, text};

const FOR_EVER: Duration = Duration::from_secs(1_000_000);

fn for_ever() {
    sleep(FOR_EVER);
}

#[test]
fn what_does_not_fail_returns() {
    from_everywhere(|| {
        assert_eq!(try_scope(|_| Ok::<_, ()>(7)), Ok(7));
        assert_eq!(try_scope(|_| Err::<(), _>("none")), Err("none"));
        let text = String::from("borrowed");
        let lengths = try_scope(|scope| {
            let children =
                [1, 2, 3].map(|n| scope.spawn(|| Ok::<_, ()>(text.len())).join().unwrap() + n);
            scope.spawn(|| Ok("nobody joins it"));
            Ok(children)
        });
        assert_eq!(lengths, Ok([9, 10, 11]));
    });
}

type Wait = (&'static str, Box<dyn Fn() + Send + Sync>);

/// Everything that a fiber can wait in, for ever.
fn waits() -> Vec<Wait> {
    fn wait(name: &'static str, f: impl Fn() + Send + Sync + 'static) -> Wait {
        (name, Box::new(f))
    }
    vec![
        wait("sleep", for_ever),
        wait("park", || {
            loop {
                thread::park();
            }
        }),
        wait("yield", || {
            loop {
                yield_now();
            }
        }),
        wait("join", || {
            let (_ends_it, receiver) = mpsc::channel::<()>();
            let _ = strands::spawn(move || receiver.recv()).join();
        }),
        wait("mutex", || {
            let mutex = Arc::new(Mutex::new(()));
            let its = mutex.clone();
            let _ = strands::spawn(move || mem::forget(its.lock())).join();
            drop(mutex.lock());
        }),
        wait("rwlock", || {
            let lock = Arc::new(RwLock::new(()));
            let its = lock.clone();
            let _ = strands::spawn(move || mem::forget(its.write())).join();
            drop(lock.read());
        }),
        wait("condvar", || {
            let mutex = Mutex::new(());
            drop(Condvar::new().wait(mutex.lock().unwrap()));
        }),
        wait("barrier", || assert!(Barrier::new(2).wait().is_leader())),
        wait("semaphore", || drop(Semaphore::new(0).acquire())),
        wait("notify", || Notify::new().notified()),
        wait("wait group", || {
            let group = WaitGroup::new();
            let _other = group.clone();
            group.wait();
        }),
        wait("mpsc", || {
            let (_sender, receiver) = mpsc::channel::<()>();
            receiver.recv().unwrap();
        }),
        wait("rendezvous", || {
            let (sender, _receiver) = channel::rendezvous();
            sender.send(()).unwrap();
        }),
        wait("channel", || {
            let (sender, _receiver) = channel::bounded(1);
            sender.send(()).unwrap();
            sender.send(()).unwrap();
        }),
        wait("oneshot", || {
            let (_sender, receiver) = oneshot::channel::<()>();
            receiver.recv().unwrap();
        }),
        wait("watch", || {
            let (_sender, mut receiver) = watch::channel(());
            receiver.changed().unwrap();
        }),
        wait("broadcast", || {
            let (_sender, mut receiver) = broadcast::channel::<()>(1);
            receiver.recv().unwrap();
        }),
        wait("token", || drop(CancelToken::new().wait())),
        wait("interval", || {
            let mut interval = interval(FOR_EVER);
            interval.tick(); // At once.
            interval.tick();
        }),
        wait("select", || {
            let (_sender, receiver) = channel::bounded::<()>(1);
            strands::select! {
                _ = recv(receiver) => {}
                _ = after(FOR_EVER) => {}
            }
        }),
        wait("accept", || drop(TcpListener::bind("127.0.0.1:0").unwrap().accept())),
        wait("read", || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let _ = stream.read(&mut [0; 4]);
        }),
        wait("scope", || scope(|scope| drop(scope.spawn(for_ever)))),
        wait("try_scope", || {
            let _ = try_scope(|scope| Ok::<_, ()>(drop(scope.spawn(|| Ok(for_ever())))));
        }),
        wait("group", || {
            let group = FiberGroup::new();
            group.spawn(for_ever);
            group.join_next();
        }),
        wait("full group", || {
            let group = FiberGroup::new().limit(1);
            group.spawn(for_ever);
            group.spawn(for_ever);
        }),
        wait("map", || drop(strands::map(1, [(), ()], |()| for_ever()))),
    ]
}

#[test]
fn a_failure_ends_siblings_wherever_they_wait() {
    from_everywhere(|| {
        for panics in [false, true] {
            let waits = waits();
            let living = Arc::new(AtomicUsize::new(0));
            let result = catch_unwind(AssertUnwindSafe(|| {
                try_scope(|scope| {
                    for (_, wait) in &waits {
                        let living = &living;
                        scope.spawn(move || {
                            let _counted = Counted::new(living);
                            wait();
                            Ok(())
                        });
                    }
                    scope.spawn(|| {
                        while living.load(SeqCst) < waits.len() {
                            yield_now();
                        }
                        assert!(!panics, "the child's");
                        Err::<(), _>("the child's")
                    });
                    Ok(())
                })
            }));
            match result {
                Ok(result) => assert_eq!((panics, result), (false, Err("the child's"))),
                Err(payload) => assert_eq!((panics, text(&*payload)), (true, "the child's")),
            }
            assert_eq!(living.load(SeqCst), 0);
        }
    });
}

#[test]
fn a_failure_ends_what_the_closure_waits_for() {
    // The waits of the closure itself; from a plain thread too.
    from_everywhere(|| {
        for (name, wait) in waits() {
            let unwound = AtomicBool::new(false);
            let result = try_scope(|scope| {
                struct Defer<'a>(&'a AtomicBool);
                impl Drop for Defer<'_> {
                    fn drop(&mut self) {
                        self.0.store(true, SeqCst);
                    }
                }
                let _defer = Defer(&unwound);
                scope.spawn(|| Err::<(), _>(name));
                wait();
                unreachable!("{name} does not end")
            });
            let result: Result<(), _> = result;
            assert_eq!(result, Err(name));
            assert!(unwound.into_inner());
        }
    });
}

#[test]
fn who_fails_first() {
    from_everywhere(|| {
        // An error of the closure cancels the children.
        let result = try_scope(|scope| {
            scope.spawn(|| Ok(for_ever()));
            Err::<(), _>("the closure's")
        });
        assert_eq!(result, Err("the closure's"));
        // It is not the first.
        let result = try_scope(|scope| {
            scope.spawn(|| Err::<(), _>("the child's"));
            while !scope.has_failed() {
                uncancellable(yield_now);
            }
            Err::<(), _>("the closure's")
        });
        assert_eq!(result, Err("the child's"));
        // Nor is that of a sibling that is ended by it.
        let result = try_scope(|scope| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let ready = Arc::new(AtomicBool::new(false));
            let its = ready.clone();
            scope.spawn(move || {
                its.store(true, SeqCst);
                cancel_as_error(|| listener.accept()).map(drop).map_err(|error| error.to_string())
            });
            while !ready.load(SeqCst) {
                yield_now();
            }
            Err::<(), _>("first".to_owned())
        });
        assert_eq!(result.unwrap_err(), "first");
    });
}

#[test]
fn a_panic_comes_before_errors_and_the_closures_before_all() {
    from_everywhere(|| {
        let panic_of =
            |f: &dyn Fn()| text(&*catch_unwind(AssertUnwindSafe(f)).unwrap_err()).to_owned();
        let errors_first = || {
            let _ = try_scope(|scope| {
                scope.spawn(|| -> Result<(), ()> {
                    // Unwound by the error, it panics in its own code.
                    let _ = catch_unwind(for_ever);
                    panic!("late")
                });
                let started = scope.spawn(|| Ok(()));
                started.join().unwrap();
                Err::<(), ()>(())
            });
        };
        // It may have been cancelled before it started: then there is no panic.
        if let Err(payload) = catch_unwind(errors_first) {
            assert_eq!(text(&*payload), "late");
        }
        let panic_first = panic_of(&|| {
            let _ = try_scope(|scope| {
                scope.spawn(|| -> Result<(), ()> { panic!("early") });
                while !scope.has_failed() {
                    uncancellable(yield_now);
                }
                Err::<(), ()>(())
            });
        });
        assert_eq!(panic_first, "early");
        let both = panic_of(&|| {
            let _: Result<(), ()> = try_scope(|scope| {
                scope.spawn(|| -> Result<(), ()> { panic!("the child's") });
                while !scope.has_failed() {
                    uncancellable(yield_now);
                }
                panic!("the closure's")
            });
        });
        assert_eq!(both, "the closure's");
        // It cancels the children.
        let living = Arc::new(AtomicUsize::new(0));
        let closures = panic_of(&|| {
            let _: Result<(), ()> = try_scope(|scope| {
                let counted = Counted::new(&living);
                scope.spawn(move || {
                    let _counted = counted;
                    Ok(for_ever())
                });
                panic!("the closure's")
            });
        });
        assert_eq!((closures.as_str(), living.load(SeqCst)), ("the closure's", 0));
    });
}

#[test]
fn nobody_in_the_scope_sees_a_sibling_that_was_cancelled() {
    from_everywhere(|| {
        for _ in 0..50 * stress() {
            let seen = AtomicUsize::new(0);
            let result = try_scope(|scope| {
                let mut last = scope.spawn(|| Ok(for_ever()));
                for _ in 0..10 {
                    let (before, seen) = (last, &seen);
                    // With `unwrap` it would be a panic, which would go on.
                    last = scope.spawn(move || {
                        before.join().unwrap();
                        seen.fetch_add(1, SeqCst);
                        Ok(())
                    });
                }
                scope.spawn(|| Err::<(), _>("failed"));
                last.join().unwrap();
                seen.fetch_add(1, SeqCst);
                Ok(())
            });
            assert_eq!((result, seen.load(SeqCst)), (Err("failed"), 0));
        }
    });
}

#[test]
fn where_nothing_may_unwind_a_join_says_that_there_is_no_value() {
    from_everywhere(|| {
        let result = try_scope(|scope| {
            uncancellable(|| {
                assert!(was_cancelled(&scope.spawn(|| Err::<(), _>(1)).join()));
                // One that does not start.
                assert!(was_cancelled(&scope.spawn(|| -> Result<(), _> { unreachable!() }).join()));
                let panicked = scope.spawn(|| -> Result<(), _> { unreachable!() });
                assert!(was_cancelled(&panicked.cancel_and_join()));
            });
            Ok(())
        });
        assert_eq!(result, Err(1));
    });
}

#[test]
fn a_child_that_is_cancelled_has_not_failed() {
    from_everywhere(|| {
        let result = try_scope(|scope| {
            let child = scope.spawn(|| Ok::<_, ()>(for_ever()));
            assert!(was_cancelled(&child.cancel_and_join()));
            scope.spawn(|| Ok(for_ever())).cancel();
            Ok("nothing has")
        });
        assert_eq!(result, Ok("nothing has"));
    });
}

#[test]
fn scopes_nest() {
    from_everywhere(|| {
        let result = try_scope(|outer| {
            let inner = try_scope(|inner| {
                inner.spawn(|| Err::<(), _>("inner"));
                Ok(for_ever())
            });
            assert_eq!(inner, Err("inner"));
            assert!(!outer.has_failed());
            let child = outer.spawn(|| Ok(try_scope(|_| Err::<(), _>("inner"))));
            assert_eq!(child.join().unwrap(), Err("inner"));
            Ok::<_, &str>("outer")
        });
        assert_eq!(result, Ok("outer"));
        // The outer one ends those inside, in its closure and in its children.
        let living = Arc::new(AtomicUsize::new(0));
        for in_child in [false, true] {
            let depths = || {
                let _ = try_scope(|middle| {
                    middle.spawn(|| {
                        try_scope(|inner| {
                            let counted = Counted::new(&living);
                            inner.spawn(move || {
                                let _counted = counted;
                                Ok(for_ever())
                            });
                            Ok::<_, &str>(for_ever())
                        })
                    });
                    Ok::<_, &str>(for_ever())
                });
                unreachable!("it is unwound")
            };
            let result = try_scope(|outer| {
                outer.spawn(|| {
                    while living.load(SeqCst) == 0 {
                        yield_now();
                    }
                    Err::<(), _>("outer")
                });
                match in_child {
                    true => drop(outer.spawn(|| Ok::<_, &str>(depths()))),
                    false => depths(),
                }
                Ok(())
            });
            assert_eq!((result, living.load(SeqCst)), (Err("outer"), 0));
        }
    });
}

#[test]
fn a_cancel_from_outside_waits_for_destructors_that_wait() {
    struct Slow<'a>(&'a AtomicUsize);
    impl Drop for Slow<'_> {
        fn drop(&mut self) {
            for _ in 0..3 {
                sleep(Duration::from_micros(100));
            }
            self.0.fetch_add(1, SeqCst);
        }
    }
    for workers in [1, 2] {
        runtime(workers).run(|| {
            for body_waits in [false, true] {
                let ended = Arc::new(AtomicUsize::new(0));
                let (its, started) = (ended.clone(), Arc::new(AtomicUsize::new(0)));
                let starts = started.clone();
                let owner = strands::spawn(move || {
                    let _: Result<(), ()> = try_scope(|scope| {
                        for _ in 0..5 {
                            scope.spawn(|| {
                                let _slow = Slow(&its);
                                starts.fetch_add(1, SeqCst);
                                Ok(for_ever())
                            });
                        }
                        if body_waits {
                            for_ever();
                        }
                        Ok(())
                    });
                    unreachable!("it was cancelled")
                });
                while started.load(SeqCst) < 5 {
                    yield_now();
                }
                owner.cancel();
                assert!(was_cancelled(&owner.join().map(|(): ()| ())));
                assert_eq!(ended.load(SeqCst), 5);
            }
        });
    }
    // A time limit, of a plain thread too; it comes before the error of what it ends.
    from_everywhere(|| {
        let late = timeout(Duration::from_millis(1), || {
            try_scope(|scope| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                scope.spawn(move || cancel_as_error(|| listener.accept().map(drop)));
                Ok(for_ever())
            })
        });
        assert_eq!(late.map_err(|Elapsed| "late").err(), Some("late"));
    });
}

#[test]
fn who_swallows_a_cancel_is_waited_for() {
    from_everywhere(|| {
        let rounds = AtomicUsize::new(0);
        let result = try_scope(|scope| {
            let started = Semaphore::new(0);
            let (rounds, started) = (&rounds, Arc::new(started));
            let its = started.clone();
            scope.spawn(move || {
                its.add_permits(1);
                for _ in 0..5 {
                    let _ = catch_unwind(for_ever);
                    rounds.fetch_add(1, SeqCst);
                }
                Ok("its value does not count")
            });
            drop(started.acquire());
            Err::<(), _>("failed")
        });
        assert_eq!((result, rounds.load(SeqCst)), (Err("failed"), 5));
    });
}

#[test]
fn errors_payloads_and_values_are_dropped_once() {
    from_everywhere(|| {
        let living = Arc::new(AtomicUsize::new(0));
        let fail_all = |how: usize| {
            try_scope(|scope| {
                for i in 0..6 {
                    let (counted, borrowed) = (Counted::new(&living), &living);
                    scope.spawn(move || match i % 3 {
                        0 => Ok(counted),
                        1 => Err(counted),
                        _ if how < 2 => Err(Counted::new(borrowed)),
                        _ => panic::panic_any(counted),
                    });
                }
                match how {
                    0 => Ok(Counted::new(&living)),
                    1 => Err(Counted::new(&living)),
                    2 => Ok(Counted::new(&living)),
                    _ => panic::panic_any(Counted::new(&living)),
                }
            })
        };
        for how in 0..4 {
            drop(catch_unwind(AssertUnwindSafe(|| fail_all(how))));
            assert_eq!(living.load(SeqCst), 0, "case {how}");
        }
    });
}

#[test]
fn a_shutdown_ends_what_is_in_flight() {
    for workers in [1, 2] {
        let runtime = runtime(workers);
        let living = Arc::new(AtomicUsize::new(0));
        let (its, reached) = (living.clone(), Arc::new(Semaphore::new(0)));
        let tells = reached.clone();
        let owner = runtime.spawn(move || {
            let _: Result<(), ()> = try_scope(|outer| {
                for _ in 0..10 {
                    let (living, tells) = (&its, &tells);
                    outer.spawn(move || {
                        try_scope(|inner| {
                            let counted = Counted::new(living);
                            inner.spawn(move || {
                                let _counted = counted;
                                tells.add_permits(1);
                                Ok(for_ever())
                            });
                            Ok(for_ever())
                        })
                    });
                }
                loop {
                    // Spawns while it is shut down: it is cancelled, and does not panic.
                    outer.spawn(|| Ok(())).join().unwrap();
                }
            });
            unreachable!("it was cancelled")
        });
        drop(reached.acquire_many(10));
        runtime.shutdown_timeout(Duration::MAX).unwrap();
        let end: thread::Result<()> = owner.join();
        assert!(end.unwrap_err().is::<Cancelled>());
        assert_eq!(living.load(SeqCst), 0);
    }
}

#[test]
fn failures_race() {
    for seed in 0..100 * stress() as u64 {
        let mut random = Random(seed);
        let plans: Vec<u64> = (0..20).map(|_| random.below(8)).collect();
        let body = random.below(4);
        let (ended, errors) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let in_fiber = || {
            let result = catch_unwind(AssertUnwindSafe(|| {
                try_scope(|scope| {
                    let (ended, errors) = (&ended, &errors);
                    for (i, plan) in plans.iter().enumerate() {
                        let counted = Counted::new(ended);
                        scope.spawn(move || {
                            let _counted = counted;
                            match plan {
                                0 => {
                                    errors.fetch_add(1, SeqCst);
                                    return Err(i);
                                }
                                1 if i > 10 => panic!("a panic"),
                                2 => for_ever(),
                                3 => sleep(Duration::from_micros(i as u64 * 10)),
                                _ => yield_now(),
                            }
                            Ok(())
                        });
                    }
                    match body {
                        0 => Err(100),
                        1 => Ok(sleep(Duration::from_micros(50))),
                        2 => Ok(yield_now()),
                        _ => Ok(()),
                    }
                })
            }));
            match result {
                Ok(Ok(())) => unreachable!("there are sleepers, if nothing fails: seed {seed}"),
                Ok(Err(100)) => assert_eq!(body, 0),
                Ok(Err(i)) => assert!(plans[i] == 0 && errors.load(SeqCst) > 0, "seed {seed}"),
                Err(payload) => assert_eq!(text(&*payload), "a panic", "seed {seed}"),
            }
            assert_eq!(ended.load(SeqCst), 0, "seed {seed}");
        };
        let fails = body == 0
            || plans.iter().enumerate().any(|(i, plan)| *plan == 0 || (*plan == 1 && i > 10));
        if !fails {
            continue;
        }
        if seed % 4 == 3 {
            in_fiber();
        } else {
            runtime(1 + seed as usize % 4).run(in_fiber);
        }
    }
}

#[test]
fn a_hundred_thousand_children() {
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let ran = AtomicUsize::new(0);
            let result = try_scope(|scope| {
                for _ in 0..100_000 {
                    scope.spawn(|| Ok::<_, ()>(ran.fetch_add(1, SeqCst)));
                }
                Ok(())
            });
            assert_eq!((result, ran.into_inner()), (Ok(()), 100_000));
            // A failure of the last: none of the others goes on.
            let result = try_scope(|scope| {
                for _ in 0..20_000 {
                    scope.spawn(|| Ok(for_ever()));
                }
                scope.spawn(|| Err::<(), _>("the last"));
                Ok(())
            });
            assert_eq!(result, Err("the last"));
        });
    }
}

#[test]
fn what_is_spawned_too_late_does_not_start() {
    from_everywhere(|| {
        let result = try_scope(|scope| {
            scope.spawn(|| Err::<(), _>("failed"));
            while !scope.has_failed() {
                uncancellable(yield_now);
            }
            let named = Builder::new().name("late".into());
            scope.spawn_with(named, || -> Result<(), _> { unreachable!("late") }).unwrap();
            assert!(format!("{scope:?}").contains("has_failed: true"));
            Ok(())
        });
        assert_eq!(result, Err("failed"));
    });
}

#[test]
fn a_scope_in_a_destructor_fails_and_ends() {
    struct Scoped<'a>(&'a AtomicUsize);
    impl Drop for Scoped<'_> {
        fn drop(&mut self) {
            let result = try_scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| Ok(for_ever()));
                }
                scope.spawn(|| Err::<(), _>("failed"));
                Ok(())
            });
            assert_eq!(result, Err("failed"));
            self.0.fetch_add(1, SeqCst);
        }
    }
    from_everywhere(|| {
        let count = AtomicUsize::new(0);
        let before = Instant::now();
        let late = timeout(Duration::from_millis(1), || {
            let _scoped = Scoped(&count);
            for_ever();
        });
        assert_eq!((late, count.into_inner()), (Err(Elapsed), 1));
        assert!(before.elapsed() >= Duration::from_millis(1));
    });
}
