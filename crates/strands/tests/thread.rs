//! `strands::thread`, from fibers and from plain threads.

mod thread_common;

use std::cell::Cell;
use std::collections::HashSet;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use strands::thread::{self, Builder, Placement};
use thread_common::{from_everywhere, runtime, stress, text};

#[test]
fn joins_with_the_value() {
    from_everywhere(|| {
        assert_eq!(thread::spawn(|| String::from("value")).join().unwrap(), "value");
        let handles: Vec<_> = (0..100).map(|i| thread::spawn(move || i)).collect();
        let values: Vec<i32> = handles.into_iter().map(|handle| handle.join().unwrap()).collect();
        assert_eq!(values, (0..100).collect::<Vec<_>>());
    });
}

/// On the default stack, unoptimised; a std thread with as large a stack takes as much.
#[test]
fn large_values_fit_the_stack_as_on_a_thread() {
    const LARGE: usize = 20 * 1024;
    let result = strands::spawn(|| std::hint::black_box([1u8; LARGE])).join().unwrap();
    let captured = strands::spawn(move || result.iter().map(|&one| u32::from(one)).sum::<u32>());
    assert_eq!(captured.join().unwrap(), LARGE as u32);
}

#[test]
fn joins_with_the_payload() {
    from_everywhere(|| {
        let payload = thread::spawn(|| panic!("it was {}", 7)).join().unwrap_err();
        assert_eq!(text(&*payload), "it was 7");
        let payload = thread::spawn(|| panic::resume_unwind(Box::new(7u8))).join();
        assert_eq!(payload.map(|()| 0).unwrap_err().downcast_ref::<u8>(), Some(&7));
    });
}

#[test]
fn a_detached_fiber_goes_on() {
    from_everywhere(|| {
        let parent = thread::current();
        let done = Arc::new(AtomicBool::new(false));
        let its = done.clone();
        drop(thread::spawn(move || {
            thread::yield_now();
            its.store(true, SeqCst);
            parent.unpark();
        }));
        while !done.load(SeqCst) {
            thread::park();
        }
    });
}

#[test]
fn a_detached_fiber_drops_its_value() {
    struct Tell(thread::Thread, Arc<AtomicBool>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.1.store(true, SeqCst);
            self.0.unpark();
        }
    }
    from_everywhere(|| {
        let dropped = Arc::new(AtomicBool::new(false));
        let value = Tell(thread::current(), dropped.clone());
        drop(thread::spawn(move || value));
        while !dropped.load(SeqCst) {
            thread::park();
        }
    });
}

#[test]
fn a_fiber_that_joins_itself_panics() {
    from_everywhere(|| {
        for join in [thread::JoinHandle::join, thread::JoinHandle::cancel_and_join] {
            let slot = Arc::new(Mutex::new(None::<thread::JoinHandle<()>>));
            let its = slot.clone();
            let (outcome, told) = std::sync::mpsc::channel();
            let fiber = thread::spawn(move || {
                while its.lock().unwrap().is_none() {
                    thread::yield_now();
                }
                let own = its.lock().unwrap().take().unwrap();
                let result = panic::catch_unwind(AssertUnwindSafe(|| join(own)));
                assert!(!strands::cancel::is_cancelled(), "it was not joined, nor cancelled");
                outcome.send(result.map(drop)).unwrap();
            });
            *slot.lock().unwrap() = Some(fiber);
            let payload = loop {
                match told.try_recv() {
                    Ok(result) => break result.unwrap_err(),
                    Err(std::sync::mpsc::TryRecvError::Empty) => thread::yield_now(),
                    Err(gone) => panic!("{gone}"),
                }
            };
            assert!(text(&*payload).contains("cannot join itself"), "{}", text(&*payload));
        }
    });
}

#[test]
fn finished_means_that_join_does_not_wait() {
    from_everywhere(|| {
        let gate = Arc::new(AtomicBool::new(false));
        let its = gate.clone();
        let fiber = thread::spawn(move || {
            while !its.load(SeqCst) {
                thread::yield_now();
            }
        });
        assert!(!fiber.is_finished());
        gate.store(true, SeqCst);
        while !fiber.is_finished() {
            thread::yield_now();
        }
        fiber.join().unwrap();
    });
}

/// On one worker, where what is asked for happens only if the loop lets it.
#[test]
fn to_ask_again_and_again_lets_others_run() {
    let runtime = runtime(1);
    let ends = || {
        for _ in 0..3 {
            thread::yield_now();
        }
    };
    runtime.run(|| {
        let handle = thread::spawn(ends);
        while !handle.is_finished() {}
        let local = strands::spawn_local(ends);
        while !local.is_finished() {}
        thread::scope(|scope| {
            let scoped = scope.spawn(ends);
            while !scoped.is_finished() {}
        });
        let ended = Arc::new(AtomicBool::new(false));
        let its = ended.clone();
        drop(thread::spawn(move || {
            ends();
            its.store(true, SeqCst);
        }));
        while !ended.load(SeqCst) {
            thread::park_timeout(Duration::ZERO);
        }
        drop(thread::spawn(ends));
        while runtime.live_fibers() != [1] {}

        let mutex = Arc::new(strands::sync::Mutex::new(()));
        let its = mutex.clone();
        let (holds, held) = strands::sync::mpsc::channel();
        drop(thread::spawn(move || {
            let _guard = its.lock().unwrap();
            holds.send(1).unwrap();
            ends();
            holds.send(2).unwrap();
        }));
        while held.try_recv() != Ok(1) {}
        while mutex.try_lock().is_err() {}
        assert_eq!(held.try_recv(), Ok(2));
    });
}

#[test]
fn a_handle_is_send_and_sync_for_all_values() {
    fn check<T: Send + Sync>() {}
    check::<thread::JoinHandle<Rc<()>>>();
    check::<thread::ScopedJoinHandle<'_, Cell<()>>>();
    check::<thread::Thread>();
    check::<thread::ThreadId>();
    fn unwind_safe<T: panic::UnwindSafe + panic::RefUnwindSafe>() {}
    unwind_safe::<thread::Thread>();
}

#[test]
fn ids_differ_and_stay() {
    from_everywhere(|| {
        let handles: Vec<_> = (0..100)
            .map(|_| {
                thread::spawn(|| {
                    let id = thread::current().id();
                    thread::yield_now();
                    assert_eq!(thread::current().id(), id);
                    id
                })
            })
            .collect();
        let mut ids = HashSet::from([thread::current().id()]);
        for handle in handles {
            let id = handle.thread().id();
            assert_eq!(handle.join().unwrap(), id);
            assert!(ids.insert(id), "{id:?} came twice");
        }
    });
}

#[test]
fn names() {
    from_everywhere(|| {
        let named = Builder::new().name("a name".into());
        let fiber = named.spawn(|| thread::current().name().map(String::from)).unwrap();
        assert_eq!(fiber.thread().name(), Some("a name"));
        assert_eq!(fiber.join().unwrap().as_deref(), Some("a name"));
        assert_eq!(thread::spawn(|| thread::current().name().is_none()).join().ok(), Some(true));

        let ours = panic::catch_unwind(|| Builder::new().name("a\0b".into()).spawn(|| ()));
        let stds = std::thread::Builder::new().name("a\0b".into());
        let stds = panic::catch_unwind(|| stds.spawn(|| ()));
        let (ours, stds) = (ours.map(drop).unwrap_err(), stds.map(drop).unwrap_err());
        assert_eq!(text(&*ours), text(&*stds));
    });
}

#[test]
fn a_plain_thread_has_its_own_name() {
    let plain = std::thread::Builder::new().name("plain".into());
    let seen = plain.spawn(|| {
        let debug = format!("{:?}", thread::current());
        (thread::current().name().map(String::from), debug)
    });
    let (name, debug) = seen.unwrap().join().unwrap();
    assert_eq!(name.as_deref(), Some("plain"));
    assert!(debug.starts_with("Thread { id: ThreadId(") && debug.contains("plain"), "{debug}");
    let unnamed = std::thread::spawn(|| thread::current().name().is_none());
    assert!(unnamed.join().unwrap());
}

#[test]
fn unpark_before_park() {
    from_everywhere(|| {
        thread::current().unpark();
        thread::current().unpark();
        thread::park();
        // The token did not count to two: this can only end by its time, or without a reason.
        thread::park_timeout(Duration::from_micros(100));

        let fiber = thread::spawn(thread::park);
        fiber.thread().unpark(); // It may not even have started.
        fiber.join().unwrap();
    });
}

#[test]
fn park_and_unpark_take_turns() {
    from_everywhere(|| {
        let rounds = 1_000 * stress();
        let turn = AtomicUsize::new(0);
        let turn = &turn;
        let parent = &thread::current();
        thread::scope(|scope| {
            let child = scope.spawn(move || {
                for round in 0..rounds {
                    while turn.load(SeqCst) != 2 * round + 1 {
                        thread::park();
                    }
                    turn.store(2 * round + 2, SeqCst);
                    parent.unpark();
                }
            });
            for round in 0..rounds {
                turn.store(2 * round + 1, SeqCst);
                child.thread().unpark();
                while turn.load(SeqCst) != 2 * round + 2 {
                    thread::park();
                }
            }
        });
    });
}

#[test]
fn waits_as_long_as_it_was_told() {
    from_everywhere(|| {
        for wait in [Duration::ZERO, Duration::from_micros(1), Duration::from_micros(100)] {
            let start = Instant::now();
            thread::sleep(wait);
            assert!(start.elapsed() >= wait, "slept {:?} of {wait:?}", start.elapsed());
        }
        for wait in [Duration::ZERO, Duration::from_micros(1), Duration::from_micros(100)] {
            thread::park_timeout(wait);
        }
    });
}

#[test]
fn a_huge_time_is_no_overflow() {
    from_everywhere(|| {
        for wait in [Duration::MAX, Duration::from_secs(u64::MAX / 4), Duration::from_secs(1 << 40)]
        {
            let parked = thread::spawn(move || thread::park_timeout(wait));
            parked.thread().unpark();
            parked.join().unwrap();
        }
    });
    for wait in [Duration::MAX, Duration::from_secs(1 << 40)] {
        let runtime = runtime(1);
        let sleeper = runtime.spawn(move || thread::sleep(wait));
        runtime.run(thread::yield_now);
        assert!(!sleeper.is_finished());
        runtime.shutdown_timeout(Duration::MAX).unwrap();
        assert!(sleeper.join().unwrap_err().is::<strands::cancel::Cancelled>());
    }
}

#[test]
fn sleeping_for_no_time_lets_others_run() {
    runtime(1).run(|| {
        let ran = Arc::new(AtomicBool::new(false));
        let its = ran.clone();
        let other = thread::spawn(move || its.store(true, SeqCst));
        while !ran.load(SeqCst) {
            thread::sleep(Duration::ZERO);
        }
        other.join().unwrap();
    });
}

#[test]
fn a_local_fiber_shares_what_is_not_send() {
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let os_thread = std::thread::current().id();
            let count = Rc::new(Cell::new(0));
            let handles: Vec<_> = (0..100)
                .map(|_| {
                    let count = count.clone();
                    thread::spawn_local(move || {
                        assert_eq!(std::thread::current().id(), os_thread);
                        let seen = count.get();
                        count.set(seen + 1);
                        thread::yield_now();
                        count
                    })
                })
                .collect();
            for handle in handles {
                assert!(Rc::ptr_eq(&handle.join().unwrap(), &count));
            }
            assert_eq!(count.get(), 100);
            let payload = thread::spawn_local(|| panic!("local")).join().unwrap_err();
            assert_eq!(text(&*payload), "local");
            drop(thread::spawn_local(|| Rc::new(())));
            let parks = thread::spawn_local(thread::park);
            assert_ne!(parks.thread().id(), thread::current().id());
            parks.thread().unpark();
            assert_eq!(format!("{parks:?}"), "LocalJoinHandle { .. }");
            parks.join().unwrap();
        });
    }
}

#[test]
fn a_plain_thread_has_no_worker_for_local_fibers() {
    let error = Builder::new().spawn_local(|| ()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("call it from a fiber"), "{error}");
    let payload = panic::catch_unwind(|| drop(thread::spawn_local(|| ()))).unwrap_err();
    assert!(text(&*payload).starts_with("failed to spawn thread"), "{}", text(&*payload));

    let error = Builder::new().placement(Placement::Here).spawn(|| ()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn fibers_start_where_they_are_placed() {
    let runtime = runtime(3);
    runtime.run(|| {
        let name = || std::thread::current().name().map(String::from).unwrap();
        for worker in 0..3 {
            let placed = Builder::new().placement(Placement::Worker(worker)).spawn(name).unwrap();
            assert_eq!(placed.join().unwrap(), format!("strands-worker-{worker}"));
        }
        let here = Builder::new().placement(Placement::Here).spawn(name).unwrap();
        assert_eq!(here.join().unwrap(), name());
        let error = Builder::new().placement(Placement::Worker(3)).spawn(name).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("no worker 3"), "{error}");
    });
}

#[test]
fn a_fiber_never_changes_its_os_thread() {
    runtime(4).run(|| {
        thread::scope(|scope| {
            for _ in 0..200 {
                scope.spawn(|| {
                    let os_thread = std::thread::current().id();
                    for round in 0..20 {
                        match round % 3 {
                            0 => thread::yield_now(),
                            1 => thread::sleep(Duration::from_micros(10)),
                            _ => thread::spawn(|| ()).join().unwrap(),
                        }
                        assert_eq!(std::thread::current().id(), os_thread);
                    }
                });
            }
        });
    });
}

#[test]
fn panics_are_caught_in_the_fiber() {
    from_everywhere(|| {
        thread::spawn(|| {
            for _ in 0..10 {
                let caught = panic::catch_unwind(|| {
                    let before = thread::panicking();
                    thread::yield_now();
                    panic!("{before}");
                });
                assert_eq!(text(&*caught.unwrap_err()), "false");
                assert!(!thread::panicking());
                thread::yield_now();
            }
        })
        .join()
        .unwrap();
    });
}

#[test]
fn a_backtrace_ends_at_the_entry_of_the_fiber() {
    use std::backtrace::{Backtrace, BacktraceStatus};
    #[inline(never)]
    fn named_in_the_test() -> Backtrace {
        let trace = Backtrace::force_capture();
        std::hint::black_box(&trace); // Not a tail call, which would leave no frame.
        trace
    }
    from_everywhere(|| {
        let trace = thread::spawn(named_in_the_test).join().unwrap();
        assert_eq!(trace.status(), BacktraceStatus::Captured);
        let trace = trace.to_string();
        assert!(trace.contains("named_in_the_test"), "{trace}");
        // Frames that have a symbol; lines between them give files.
        let frames: Vec<&str> = trace
            .lines()
            .filter_map(|line| line.trim_start().split_once(": "))
            .filter(|(number, _)| number.parse::<u32>().is_ok())
            .map(|(_, name)| name)
            .collect();
        let last = frames.last().unwrap();
        assert!(last.contains("strands") || last.contains("fiber_main"), "{trace}");
        assert!(last.contains("begin") || last.contains("fiber_main"), "{trace}");
    });
}

#[test]
fn blocking_work_runs_elsewhere_and_borrows() {
    from_everywhere(|| {
        let text = String::from("borrowed");
        let here = std::thread::current().id();
        let in_fiber = thread::current().name().is_none()
            && std::thread::current().name().is_some_and(|name| name.contains("worker"));
        let (length, there) = strands::unblock(|| (text.len(), std::thread::current().id()));
        assert_eq!(length, 8);
        assert_eq!(in_fiber, here != there);
        let payload = panic::catch_unwind(|| strands::unblock(|| panic!("in the pool")));
        assert_eq!(text_of(payload), "in the pool");
    });
    fn text_of(result: std::thread::Result<()>) -> String {
        text(&*result.unwrap_err()).into()
    }
}

#[test]
fn blocking_work_does_not_hold_up_the_worker() {
    runtime(1).run(|| {
        let (release, released) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| strands::unblock(move || released.recv().unwrap()));
            // Were the worker blocked, nobody would send.
            scope.spawn(move || release.send(()).unwrap());
        });
    });
}

#[test]
fn debug_forms_are_stds() {
    let ours = thread::spawn(|| ());
    assert_eq!(format!("{ours:?}"), format!("{:?}", std::thread::spawn(|| ())));
    assert!(format!("{:?}", Builder::new().name("n".into())).contains("\"n\""));
    ours.join().unwrap();
}
