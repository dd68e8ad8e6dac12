//! `strands::Runtime`: settings, nesting, the end; and the default runtime.

mod thread_common;

use std::io::ErrorKind;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use strands::cancel::{Cancelled, uncancellable};
#[cfg(target_os = "linux")]
use strands::runtime::{Backend, GuardKind};
use strands::thread::{self, Builder};
use strands::{Runtime, spawn, unblock};
use thread_common::{child, child_case, errors, runtime, text};

fn os_thread_name() -> String {
    std::thread::current().name().unwrap_or_default().into()
}

#[test]
fn runs_and_borrows() {
    let runtime = runtime(2);
    let mut log = vec![1];
    assert_eq!(
        runtime.run(|| {
            log.push(2);
            log.len()
        }),
        2
    );
    assert_eq!(log, [1, 2]);
    let caught = panic::catch_unwind(AssertUnwindSafe(|| runtime.run(|| panic!("inside"))));
    assert_eq!(text(&*caught.unwrap_err()), "inside");
    assert_eq!(runtime.spawn(|| 7).join().unwrap(), 7);
}

#[test]
fn runtimes_nest() {
    let (outer, inner) = (
        Runtime::builder().workers(1).thread_name("outer").build().unwrap(),
        Runtime::builder().workers(1).thread_name("inner").build().unwrap(),
    );
    let (outer, inner) = (&outer, &inner);
    let names = outer.run(|| {
        let here = os_thread_name();
        let (there, back, child) = inner.run(|| {
            // The fiber of `outer` is suspended, not blocked: its only worker runs this.
            let back = outer.run(os_thread_name);
            (os_thread_name(), back, spawn(os_thread_name).join().unwrap())
        });
        assert_eq!(os_thread_name(), here);
        [here, there, back, child]
    });
    assert_eq!(names, ["outer-worker-0", "inner-worker-0", "outer-worker-0", "inner-worker-0"]);
    let caught =
        panic::catch_unwind(AssertUnwindSafe(|| outer.run(|| inner.run(|| panic!("deep")))));
    assert_eq!(text(&*caught.unwrap_err()), "deep");
}

#[test]
fn fibers_of_two_runtimes_wake_each_other() {
    let (left, right) = (runtime(1), runtime(2));
    let turns = Arc::new(AtomicUsize::new(0));
    let play = |my_turn: usize, turns: Arc<AtomicUsize>, peer: mpsc::Receiver<thread::Thread>| {
        move || {
            let peer = unblock(move || peer.recv().unwrap());
            for round in 0..500 {
                while turns.load(SeqCst) != 2 * round + my_turn {
                    thread::park();
                }
                turns.fetch_add(1, SeqCst);
                peer.unpark();
            }
        }
    };
    let (to_left, at_left) = mpsc::channel();
    let (to_right, at_right) = mpsc::channel();
    let first = left.spawn(play(0, turns.clone(), at_left));
    let second = right.spawn(play(1, turns.clone(), at_right));
    to_left.send(second.thread().clone()).unwrap();
    to_right.send(first.thread().clone()).unwrap();
    first.join().unwrap();
    second.join().unwrap();
    assert_eq!(turns.load(SeqCst), 1000);
}

#[test]
fn the_default_runtime_starts_by_itself() {
    let names: Vec<String> = (0..8).map(|_| spawn(os_thread_name).join().unwrap()).collect();
    assert!(names.iter().all(|name| name.starts_with("strands-worker-")), "{names:?}");
    assert_eq!(thread::scope(|scope| scope.spawn(|| 5).join().unwrap()), 5);
    // A pool thread is a plain thread.
    let there = runtime(1).run(|| unblock(|| spawn(|| 6).join().unwrap()));
    assert_eq!(there, 6);
}

#[test]
fn a_bad_number_of_workers_is_named() {
    let name = "a_bad_number_of_workers_is_named";
    if child_case().is_some() {
        let error = Builder::new().spawn(|| ()).unwrap_err();
        eprintln!("{:?}: {error}", error.kind());
        let payload = panic::catch_unwind(|| drop(spawn(|| ()))).unwrap_err();
        assert!(text(&*payload).starts_with("failed to spawn thread"));
        return;
    }
    for value in ["0", "-1", "two", "", "99999999999999999999999"] {
        let output = child(name, "bad").env("STRANDS_WORKERS", value).output().unwrap();
        let errors = errors(&output);
        assert!(output.status.success(), "{errors}");
        let text = format!("InvalidInput: the environment variable STRANDS_WORKERS is {value:?}");
        assert!(errors.contains(&text), "{errors}");
    }
}

#[test]
fn the_environment_sets_the_number_of_workers() {
    let name = "the_environment_sets_the_number_of_workers";
    if child_case().is_some() {
        for worker in 0..3 {
            let placed = Builder::new().placement(thread::Placement::Worker(worker));
            placed.spawn(|| ()).unwrap().join().unwrap();
        }
        let none = Builder::new().placement(thread::Placement::Worker(3)).spawn(|| ());
        assert!(none.unwrap_err().to_string().contains("the runtime has 3"));
        return;
    }
    let output = child(name, "three").env("STRANDS_WORKERS", "3").output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
}

#[test]
fn a_bad_backend_is_named() {
    let name = "a_bad_backend_is_named";
    if child_case().is_some() {
        let error = Runtime::builder().workers(1).build().unwrap_err();
        eprintln!("{:?}: {error}", error.kind());
        return;
    }
    let output = child(name, "bad").env("STRANDS_BACKEND", "kpoll").output().unwrap();
    let errors = errors(&output);
    assert!(errors.contains("InvalidInput: ") && errors.contains("STRANDS_BACKEND"), "{errors}");
}

#[test]
fn the_process_exits_while_fibers_run() {
    let name = "the_process_exits_while_fibers_run";
    if child_case().is_some() {
        for _ in 0..100 {
            drop(spawn(|| {
                loop {
                    thread::park()
                }
            }));
        }
        drop(spawn(|| {
            loop {
                std::hint::spin_loop()
            }
        }));
        return;
    }
    let output = child(name, "exits").output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
}

#[test]
fn settings_that_make_no_sense_are_errors() {
    let builders = [
        Runtime::builder().workers(0),
        Runtime::builder().workers(usize::MAX),
        Runtime::builder().workers(1 << 44),
        Runtime::builder().stack_size(usize::MAX),
        Runtime::builder().max_stacks(0),
        Runtime::builder().blocking_threads(0),
        Runtime::builder().thread_name("nul\0"),
    ];
    for builder in builders {
        assert_eq!(builder.build().unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let too_large = Runtime::builder().stack_size(1 << 50);
    assert_eq!(too_large.build().unwrap_err().kind(), ErrorKind::OutOfMemory);
}

#[test]
fn a_default_builder_builds_a_default_runtime() {
    let builder = strands::runtime::Builder::default();
    assert_eq!(format!("{builder:?}"), "Builder { backend: Auto, .. }");
    let runtime = builder.build().unwrap();
    assert_eq!(runtime.workers(), Runtime::builder().build().unwrap().workers());
}

#[cfg(target_os = "linux")] // It is asked for Linux's backend.
#[test]
fn it_describes_itself() {
    let runtime = Runtime::builder()
        .workers(2)
        .stack_size(128 * 1024)
        .guard(GuardKind::Mprotect)
        .backend(Backend::Epoll)
        .max_stacks(77)
        .blocking_threads(5)
        .build()
        .unwrap();
    let text = runtime.describe();
    for part in ["2 workers", "128 KiB", "Mprotect", "epoll", "77", "of 5 threads"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(runtime.workers(), 2);
    assert_eq!(runtime.live_fibers(), [0, 0]);
    assert_eq!(runtime.run(|| runtime.live_fibers().iter().sum::<usize>()), 1);
    assert!(format!("{runtime:?}").starts_with("Runtime"));
}

#[test]
fn hooks_run_on_each_thread() {
    let started = Arc::new(Mutex::new(Vec::new()));
    let stopped = Arc::new(Mutex::new(Vec::new()));
    let (start, stop) = (started.clone(), stopped.clone());
    let runtime = Runtime::builder()
        .workers(2)
        .thread_name("hooked")
        .on_start(move || start.lock().unwrap().push(os_thread_name()))
        .on_stop(move || stop.lock().unwrap().push(os_thread_name()))
        .build()
        .unwrap();
    runtime.run(|| unblock(|| ()));
    assert!(stopped.lock().unwrap().is_empty());
    drop(runtime);
    let expected = ["hooked-blocking-0", "hooked-worker-0", "hooked-worker-1"];
    for seen in [&started, &stopped] {
        let mut seen = seen.lock().unwrap();
        seen.sort();
        assert_eq!(*seen, expected);
    }
}

#[test]
fn a_hook_that_panics_goes_no_further() {
    let runtime = Runtime::builder().workers(1).on_start(|| panic!("hook")).build().unwrap();
    assert_eq!(runtime.run(|| 3), 3);
}

struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_shutdown_cancels_the_parked() {
    for workers in [1, 2, 4] {
        let runtime = runtime(workers);
        let dropped = Arc::new(AtomicUsize::new(0));
        let parked: Vec<_> = (0..60)
            .map(|i| {
                let count = Count(dropped.clone());
                runtime.spawn(move || {
                    let _count = count;
                    match i % 3 {
                        0 => thread::park_timeout(Duration::MAX),
                        1 => thread::sleep(Duration::MAX),
                        _ => drop(spawn(|| thread::sleep(Duration::MAX)).join()),
                    }
                    thread::sleep(Duration::MAX);
                })
            })
            .collect();
        // All have started, and the children of a third.
        while runtime.live_fibers().iter().sum::<usize>() < 80 {
            std::thread::yield_now();
        }
        runtime.shutdown_timeout(Duration::MAX).unwrap();
        for fiber in parked {
            assert!(fiber.join().unwrap_err().is::<Cancelled>());
        }
        assert_eq!(dropped.load(SeqCst), 60);
    }
}

/// Holds a worker up until it is told.
fn hold_up(runtime: &Runtime, release: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let (running, runs) = mpsc::channel();
    let release = release.clone();
    let holder = runtime.run(|| {
        let named = Builder::new().name("holder".into());
        named.spawn(move || {
            running.send(()).unwrap();
            while !release.load(SeqCst) {
                std::hint::spin_loop();
            }
        })
    });
    runs.recv().unwrap();
    holder.unwrap()
}

#[test]
fn a_shutdown_reports_the_running_and_drops_the_unstarted() {
    let runtime = runtime(1);
    let release = Arc::new(AtomicBool::new(false));
    let holder = hold_up(&runtime, &release);
    let dropped = Arc::new(AtomicUsize::new(0));
    let fresh: Vec<_> = (0..50)
        .map(|_| {
            let count = Count(dropped.clone());
            runtime.spawn(move || {
                let _count = count;
                unreachable!("started after the shutdown began");
            })
        })
        .collect();
    let unfinished = runtime.shutdown_timeout(Duration::ZERO).unwrap_err();
    assert_eq!(unfinished.fibers().len(), 1);
    let running = &unfinished.fibers()[0];
    assert_eq!((running.name(), running.waits_for()), (Some("holder"), None));
    let text = unfinished.to_string();
    assert!(text.starts_with("1 fiber has not ended"), "{text}");
    assert!(text.contains("'holder'") && text.contains(" on worker 0 runs, "), "{text}");
    release.store(true, SeqCst);
    holder.join().unwrap();
    for fiber in fresh {
        let ended: thread::Result<()> = fiber.join();
        assert!(ended.unwrap_err().is::<Cancelled>());
    }
    assert_eq!(dropped.load(SeqCst), 50);
}

#[test]
fn a_shutdown_reports_where_the_stuck_wait() {
    let runtime = runtime(1);
    let release = Arc::new(AtomicBool::new(false));
    let its = release.clone();
    let stuck = runtime.run(|| {
        let named = Builder::new().name("stuck".into());
        named.spawn(move || {
            uncancellable(|| {
                while !its.load(SeqCst) {
                    thread::park();
                }
            });
            "ended by itself"
        })
    });
    let stuck = stuck.unwrap();
    // The one worker runs this only after the other has parked, and so does `fibers`.
    while runtime.live_fibers() != [1] {
        std::thread::yield_now();
    }
    runtime.run(thread::yield_now);
    // Its time is up long after the fiber, which the cancel woke, has parked again.
    let unfinished = runtime.shutdown_timeout(Duration::from_millis(250)).unwrap_err();
    let fiber = &unfinished.fibers()[0];
    assert_eq!((fiber.name(), fiber.waits_for()), (Some("stuck"), Some("thread::park")));
    assert_eq!((fiber.worker(), fiber.spawned_at().file()), (0, file!()));
    assert!(fiber.id() > 0 && unfinished.busy_pool_threads() == 0);
    let text = unfinished.to_string();
    assert!(
        text.contains("'stuck'") && text.contains(" waits in thread::park, spawned at "),
        "{text}"
    );
    assert!(text.contains(file!()), "{text}");
    release.store(true, SeqCst);
    stuck.thread().unpark();
    assert_eq!(stuck.join().unwrap(), "ended by itself");
}

#[test]
fn a_shutdown_reports_a_busy_pool() {
    let runtime = runtime(1);
    let (started, has_started) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let blocked = runtime.spawn(move || {
        unblock(move || {
            started.send(()).unwrap();
            released.recv().unwrap();
        });
    });
    has_started.recv().unwrap();
    let unfinished = runtime.shutdown_timeout(Duration::ZERO).unwrap_err();
    assert_eq!((unfinished.fibers().len(), unfinished.busy_pool_threads()), (1, 1));
    assert!(unfinished.to_string().contains("1 pool thread is busy"), "{unfinished}");
    release.send(()).unwrap();
    // It returns to the fiber, which had borrowed to it, and ends there: nothing waits any more.
    blocked.join().unwrap();
}

#[test]
fn a_shutdown_reports_a_worker_that_is_in_a_hook() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let hook = move || assert!(released.lock().unwrap().recv().is_err());
    let runtime = Runtime::builder().workers(1).on_stop(hook).build().unwrap();
    let unfinished = runtime.shutdown_timeout(Duration::from_millis(1)).unwrap_err();
    assert!(unfinished.fibers().is_empty());
    let text = unfinished.to_string();
    assert!(text.starts_with("1 worker has not ended, without a fiber: in a hook"), "{text}");
    drop(release);
}

#[test]
fn a_fiber_cannot_shut_its_own_runtime_down() {
    let runtime = Mutex::new(Some(runtime(1)));
    let mut slot = runtime.lock().unwrap();
    let own = Arc::new(Mutex::new(None));
    let its = own.clone();
    let (go, gone) = mpsc::channel::<()>();
    let fiber = slot.as_ref().unwrap().spawn(move || {
        gone.recv().unwrap();
        let runtime: Runtime = its.lock().unwrap().take().unwrap();
        let shut =
            panic::catch_unwind(AssertUnwindSafe(|| runtime.shutdown_timeout(Duration::MAX)));
        // The runtime was dropped by the panic, which cancelled us.
        let text = text(&*shut.map(drop).unwrap_err()).to_string();
        assert!(text.contains("one of its own threads (by a fiber"), "{text}");
        uncancellable(thread::yield_now);
        thread::sleep(Duration::MAX);
    });
    *own.lock().unwrap() = slot.take();
    go.send(()).unwrap();
    assert!(fiber.join().unwrap_err().is::<Cancelled>());
}

#[test]
fn a_fiber_that_drops_its_own_runtime_cancels_all_and_panics() {
    for workers in [1, 2] {
        let runtime = Arc::new(runtime(workers));
        let its = runtime.clone();
        let other = runtime.spawn(|| thread::sleep(Duration::MAX));
        let (go, gone) = mpsc::channel::<()>();
        let fiber = runtime.spawn(move || {
            gone.recv().unwrap();
            assert_eq!(Arc::strong_count(&its), 1);
            drop(its);
            unreachable!("the drop panics");
        });
        drop(runtime);
        go.send(()).unwrap();
        assert!(text(&*fiber.join().unwrap_err()).contains("a fiber has dropped the runtime"));
        assert!(other.join().unwrap_err().is::<Cancelled>());
    }
}

/// A place from which one of a runtime's own threads takes it.
type Slot = Arc<Mutex<Option<Runtime>>>;

#[test]
fn a_closure_for_the_pool_cannot_shut_its_own_runtime_down() {
    let own = Slot::default();
    let its = own.clone();
    let (go, gone) = mpsc::channel::<()>();
    let runtime = runtime(1);
    let fiber = runtime.spawn(move || {
        let shut = panic::catch_unwind(AssertUnwindSafe(|| {
            unblock(move || {
                gone.recv().unwrap();
                let runtime = its.lock().unwrap().take().unwrap();
                runtime.shutdown_timeout(Duration::MAX)
            })
        }));
        let text = text(&*shut.map(drop).unwrap_err()).to_string();
        for part in ["one of its own threads", "`unblock`", "outside"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        uncancellable(thread::yield_now);
        thread::sleep(Duration::MAX);
    });
    *own.lock().unwrap() = Some(runtime);
    go.send(()).unwrap();
    assert!(fiber.join().unwrap_err().is::<Cancelled>());
}

#[test]
fn a_runtime_dropped_by_a_closure_for_its_pool_only_cancels() {
    let own = Slot::default();
    let its = own.clone();
    let (go, gone) = mpsc::channel::<()>();
    let stopped = Arc::new(Mutex::new(Vec::new()));
    let (stops, all_stopped) = mpsc::channel::<()>();
    let log = stopped.clone();
    let runtime = Runtime::builder()
        .workers(2)
        .on_stop(move || {
            let _dropped_with_the_last_thread = &stops;
            log.lock().unwrap().push(os_thread_name());
        })
        .build()
        .unwrap();
    let other = runtime.spawn(|| thread::sleep(Duration::MAX));
    let fiber = runtime.spawn(move || {
        unblock(move || {
            gone.recv().unwrap();
            drop(its.lock().unwrap().take());
        });
        thread::sleep(Duration::MAX);
    });
    *own.lock().unwrap() = Some(runtime);
    go.send(()).unwrap();
    assert!(fiber.join().unwrap_err().is::<Cancelled>());
    assert!(other.join().unwrap_err().is::<Cancelled>());
    // Nobody waited, but all its threads end.
    assert!(all_stopped.recv().is_err());
    assert_eq!(stopped.lock().unwrap().len(), 3);
}

#[test]
fn a_runtime_dropped_by_a_hook_of_its_own_only_cancels() {
    // In a worker's thread before its first fiber, and in a pool thread.
    for in_pool in [false, true] {
        let own = Slot::default();
        let its = Arc::downgrade(&own);
        let (go, gone) = mpsc::channel::<()>();
        let gone = Mutex::new(gone);
        let hook = move || {
            let is_pool = os_thread_name().contains("blocking");
            if is_pool == in_pool {
                gone.lock().unwrap().recv().unwrap();
                let runtime = its.upgrade().unwrap().lock().unwrap().take();
                drop(runtime.unwrap());
            }
        };
        let runtime = Runtime::builder().workers(1).on_start(hook).build().unwrap();
        let fiber = runtime.spawn(|| {
            unblock(|| ());
            thread::sleep(Duration::MAX);
        });
        *own.lock().unwrap() = Some(runtime);
        go.send(()).unwrap();
        assert!(fiber.join().unwrap_err().is::<Cancelled>());
    }
}

#[test]
fn who_shuts_another_runtime_down_holds_up_no_worker() {
    let (send, message) = mpsc::channel::<()>();
    let message = Mutex::new(message);
    let waits = Arc::new(AtomicBool::new(false));
    let its = waits.clone();
    let hook = move || {
        // A pool thread that ends waits for a fiber of the worker on which its end is awaited.
        if os_thread_name().contains("blocking") {
            its.store(true, SeqCst);
            message.lock().unwrap().recv().unwrap();
        }
    };
    let other = Runtime::builder().workers(1).on_stop(hook).build().unwrap();
    other.run(|| unblock(|| ()));
    runtime(1).run(move || {
        let sends = strands::spawn_local(move || {
            while !waits.load(SeqCst) {
                thread::yield_now();
            }
            send.send(()).unwrap();
        });
        drop(other);
        sends.join().unwrap();
    });
}

#[test]
fn a_runtime_that_ends_accepts_no_fibers() {
    struct Spawns(mpsc::Sender<ErrorKind>);
    impl Drop for Spawns {
        fn drop(&mut self) {
            self.0.send(Builder::new().spawn(|| ()).unwrap_err().kind()).unwrap();
        }
    }
    let (kind, told) = mpsc::channel();
    let runtime = runtime(1);
    let (started, has_started) = mpsc::channel();
    let fiber = runtime.spawn(move || {
        let _spawns = Spawns(kind);
        started.send(()).unwrap();
        thread::sleep(Duration::MAX);
    });
    has_started.recv().unwrap();
    drop(runtime);
    assert_eq!(told.recv().unwrap(), ErrorKind::Other);
    assert!(fiber.join().unwrap_err().is::<Cancelled>());
}

#[test]
fn an_uncancellable_step_is_done_first() {
    let runtime = runtime(1);
    let (started, has_started) = mpsc::channel();
    let steps = Arc::new(AtomicUsize::new(0));
    let its = steps.clone();
    let fiber = runtime.spawn(move || {
        uncancellable(|| {
            started.send(()).unwrap();
            for _ in 0..10 {
                thread::sleep(Duration::from_micros(100));
                its.fetch_add(1, SeqCst);
            }
        });
        thread::sleep(Duration::MAX);
    });
    has_started.recv().unwrap();
    runtime.shutdown_timeout(Duration::MAX).unwrap();
    assert!(fiber.join().unwrap_err().is::<Cancelled>());
    assert_eq!(steps.load(SeqCst), 10);
}

#[test]
fn runtimes_come_and_go() {
    for round in 0..30 {
        let runtime = runtime(1 + round % 3);
        let sum = runtime.run(|| {
            let handles: Vec<_> = (0..20).map(|i| spawn(move || i)).collect();
            handles.into_iter().map(|handle| handle.join().unwrap()).sum::<i32>()
        });
        assert_eq!(sum, 190);
    }
}
