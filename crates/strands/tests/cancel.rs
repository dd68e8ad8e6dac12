//! Cancels, time limits and tokens: who unwinds, to where, and who does not.

mod thread_common;

use std::any::Any;
use std::cell::Cell;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc as std_mpsc};

use strands::cancel::{
    CancelToken, Cancelled, cancel_as_error, check_cancelled, is_cancel_error, is_cancelled,
    uncancellable, was_cancelled,
};
use strands::net::{TcpListener, TcpStream};
use strands::sync::{Condvar, Mutex, Semaphore, mpsc};
use strands::thread::{self, Builder, JoinHandle, Placement, sleep, yield_now};
use strands::time::{Deadline, Duration, Elapsed, Instant, deadline, timeout};
use strands_fiber::{Coroutine, CoroutineResult};
use thread_common::{from_everywhere, runtime, text};

const FOR_EVER: Duration = Duration::from_secs(1_000_000);
const SHORT: Duration = Duration::from_millis(2);

fn for_ever() {
    sleep(FOR_EVER);
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, SeqCst);
}

/// Runs `f` on drop.
struct Defer<F: FnMut()>(F);

impl<F: FnMut()> Drop for Defer<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Spawned on that worker of the caller's runtime, and running.
fn started_on(worker: usize, f: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let (tells, told) = std_mpsc::channel();
    let run = move || {
        tells.send(()).unwrap();
        f();
    };
    let handle = Builder::new().placement(Placement::Worker(worker)).spawn(run).unwrap();
    while told.try_recv().is_err() {
        yield_now();
    }
    handle
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

// Fibers.

#[test]
fn a_fiber_that_waits_is_cancelled_by_anybody() {
    let runtime = runtime(2);
    let (tells, told) = std_mpsc::channel();
    let fiber = runtime.spawn(move || {
        let _defer = Defer(|| tells.send("unwound").unwrap());
        for_ever();
    });
    assert!(was_cancelled(&fiber.cancel_and_join()), "from a plain thread");
    drop(told);
    for (here, there) in [(0, 0), (0, 1), (1, 0)] {
        let canceller = move || {
            let unwound = Arc::new(AtomicBool::new(false));
            let its = unwound.clone();
            let fiber = started_on(there, move || {
                let _defer = Defer(|| its.store(true, SeqCst));
                for_ever();
            });
            fiber.cancel();
            fiber.cancel();
            assert!(was_cancelled(&fiber.join()));
            assert!(unwound.load(SeqCst));
        };
        let options = Builder::new().placement(Placement::Worker(here));
        runtime.run(|| options.spawn(canceller).unwrap().join().unwrap());
    }
}

#[test]
fn who_has_not_started_drops_its_closure_and_who_has_ended_is_not_concerned() {
    runtime(1).run(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let its = dropped.clone();
        let counted = Defer(move || count(&its));
        let fiber = strands::spawn(move || {
            drop(counted);
            unreachable!("it was cancelled before");
        });
        fiber.cancel();
        let result = fiber.join();
        assert!(was_cancelled(&result));
        assert!(result.map(|(): ()| ()).unwrap_err().is::<Cancelled>());
        assert_eq!(dropped.load(SeqCst), 1);

        let ended = strands::spawn(|| 42);
        while !ended.is_finished() {
            yield_now();
        }
        ended.cancel();
        assert_eq!(ended.join().unwrap(), 42);
        let panicked = strands::spawn(|| resume_unwind(Box::new("a panic"))).cancel_and_join();
        let _: &thread::Result<()> = &panicked;
    });
}

#[test]
fn who_is_cancelled_starts_no_blocking_work() {
    let token = CancelToken::new();
    let its = token.clone();
    let fiber = strands::spawn(move || {
        its.run(|| {
            uncancellable(|| its.cancel_with("before"));
            strands::unblock(|| unreachable!("it is cancelled"));
        })
    });
    assert_eq!(fiber.join().unwrap().unwrap_err().to_string(), "before");
}

#[test]
fn a_panic_is_not_a_cancel() {
    let result: thread::Result<()> = strands::spawn(|| resume_unwind(Box::new("boom"))).join();
    assert!(!was_cancelled(&result));
    assert!(!was_cancelled(&Ok(())));
}

#[test]
fn a_fiber_that_cancels_itself_goes_on_to_its_next_wait() {
    for workers in [1, 2] {
        let runtime = runtime(workers);
        let (tells, told) = std_mpsc::channel::<JoinHandle<()>>();
        let (sees, seen) = std_mpsc::channel();
        let fiber = runtime.spawn(move || {
            let me = loop {
                match told.try_recv() {
                    Ok(me) => break me,
                    Err(_) => yield_now(),
                }
            };
            me.cancel();
            assert!(is_cancelled());
            sees.send("still here").unwrap();
            yield_now();
            sees.send("never").unwrap();
        });
        tells.send(fiber).unwrap();
        assert_eq!(seen.iter().collect::<Vec<_>>(), ["still here"]);
    }
}

#[test]
fn local_and_scoped_fibers_are_cancelled() {
    runtime(1).run(|| {
        let local = strands::spawn_local(for_ever);
        yield_now();
        local.cancel();
        assert!(was_cancelled(&local.join()));
        assert!(was_cancelled(&strands::spawn_local(for_ever).cancel_and_join()));
    });
    from_everywhere(|| {
        let text = String::from("borrowed");
        thread::scope(|scope| {
            let parked = scope.spawn(|| (text.len(), for_ever()));
            assert!(was_cancelled(&parked.cancel_and_join()));
            scope.spawn(|| (text.len(), for_ever())).cancel();
            let dropped = scope.spawn(|| (text.len(), for_ever()));
            dropped.cancel();
            drop(dropped);
        });
    });
}

#[test]
fn a_scope_cancels_its_children_also_later_ones() {
    from_everywhere(|| {
        let ended = AtomicUsize::new(0);
        let ran = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (ended, ran) = (&ended, &ran);
            for _ in 0..10 {
                let ends = Defer(move || count(ended));
                scope.spawn(move || {
                    let _ends = ends;
                    for_ever();
                });
            }
            // One that ended leaves its place to another.
            scope.spawn(|| ()).join().unwrap();
            scope.cancel();
            for _ in 0..10 {
                let ends = Defer(move || count(ended));
                scope.spawn(move || {
                    ran.fetch_add(1, SeqCst);
                    drop(ends);
                });
            }
            scope.cancel();
        });
        assert_eq!((ended.into_inner(), ran.into_inner()), (20, 0));
    });
}

#[test]
fn a_scope_still_tells_a_panic_from_a_cancel() {
    from_everywhere(|| {
        let result = catch_unwind(|| {
            thread::scope(|scope| {
                scope.spawn(|| resume_unwind(Box::new("a real panic")));
                scope.spawn(for_ever).cancel();
            });
        });
        assert_eq!(text(&*result.unwrap_err()), "a scoped thread panicked");
    });
}

#[test]
fn what_ends_the_owner_of_a_scope_ends_its_children_first() {
    let runtime = runtime(2);
    for in_closure in [false, true] {
        let log = Arc::new(Mutex::new(Vec::new()));
        let its = log.clone();
        let (tells, told) = std_mpsc::channel();
        let owner = runtime.spawn(move || {
            let _ends = Defer(|| its.lock().unwrap().push("owner"));
            thread::scope(|scope| {
                let (its, tells) = (&its, tells.clone());
                scope.spawn(move || {
                    let _ends = Defer(|| its.lock().unwrap().push("child"));
                    tells.send(()).unwrap();
                    for_ever();
                });
                if in_closure {
                    for_ever();
                }
            });
            unreachable!("its child was cancelled");
        });
        told.recv().unwrap();
        assert!(was_cancelled(&owner.cancel_and_join()));
        assert_eq!(*log.lock().unwrap(), ["child", "owner"]);
    }
}

#[test]
fn a_cancel_that_is_swallowed_comes_again() {
    let fiber = started_on_default(|| {
        for _ in 0..3 {
            assert!(catch_unwind(for_ever).unwrap_err().is::<Cancelled>());
        }
        assert!(is_cancelled());
    });
    fiber.cancel_and_join().unwrap();
    from_everywhere(|| {
        let rounds = Cell::new(0);
        let result = timeout(SHORT, || {
            for _ in 0..3 {
                let payload = catch_unwind(for_ever).unwrap_err();
                assert!(payload.is::<Cancelled>());
                rounds.set(rounds.get() + 1);
            }
            "its own end"
        });
        assert_eq!((result, rounds.get()), (Ok("its own end"), 3));
    });
}

fn started_on_default(f: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let (tells, told) = std_mpsc::channel();
    let fiber = strands::spawn(move || {
        tells.send(()).unwrap();
        f();
    });
    told.recv().unwrap();
    fiber
}

// Time limits.

#[test]
fn a_time_limit_ends_what_waits() {
    from_everywhere(|| {
        let start = Instant::now();
        assert_eq!(timeout(SHORT, for_ever), Err(Elapsed));
        assert!(start.elapsed() >= SHORT);
        let (sender, receiver) = mpsc::channel::<u32>();
        assert_eq!(timeout(SHORT, || receiver.recv()), Err(Elapsed));
        sender.send(1).unwrap();
        assert_eq!(timeout(FOR_EVER, || receiver.recv()), Ok(Ok(1)));
        assert_eq!(timeout(SHORT, thread::park), Err(Elapsed));
        assert_eq!(timeout(FOR_EVER, || strands::spawn(|| 1).join().unwrap()), Ok(1));
        assert_eq!(deadline(Instant::now() + SHORT, for_ever), Err(Elapsed));
        assert_eq!(deadline(std::time::Instant::now() + SHORT, for_ever), Err(Elapsed));
        assert_eq!(deadline(Deadline::after(SHORT), for_ever), Err(Elapsed));
    });
}

#[test]
fn none_and_all_the_time_of_the_world() {
    from_everywhere(|| {
        assert_eq!(timeout(Duration::ZERO, || 1), Ok(1));
        assert_eq!(timeout(Duration::ZERO, for_ever), Err(Elapsed));
        assert_eq!(timeout(Duration::ZERO, yield_now), Err(Elapsed));
        assert_eq!(timeout(Duration::ZERO, check_cancelled), Err(Elapsed));
        for long in [Duration::MAX, FOR_EVER, Duration::from_secs(u64::MAX / 4)] {
            assert_eq!(timeout(long, yield_now), Ok(()));
            assert_eq!(timeout(long, || sleep(Duration::from_nanos(1))), Ok(()));
            assert_eq!(timeout(long, || timeout(SHORT, for_ever)), Ok(Err(Elapsed)));
        }
        assert_eq!(deadline(Deadline::never(), yield_now), Ok(()));
        let passed = Instant::now();
        sleep(Duration::from_nanos(1));
        assert_eq!(deadline(passed, for_ever), Err(Elapsed));
    });
}

#[test]
fn what_has_succeeded_is_returned() {
    from_everywhere(|| {
        let (sender, receiver) = mpsc::channel();
        sender.send(7).unwrap();
        // The time is over, but this need not wait.
        assert_eq!(timeout(Duration::ZERO, || receiver.recv()), Ok(Ok(7)));
        let mutex = Mutex::new(1);
        assert_eq!(timeout(Duration::ZERO, || *mutex.lock().unwrap()), Ok(1));
        assert!(!mutex.is_poisoned());
    });
}

#[test]
fn a_loop_that_need_not_wait_is_ended() {
    from_everywhere(|| {
        let semaphore = Semaphore::new(1);
        let endless = || {
            loop {
                drop(semaphore.acquire().unwrap());
            }
        };
        assert_eq!(timeout(SHORT, endless), Err(Elapsed));
        assert_eq!(semaphore.available_permits(), 1);
        let token = CancelToken::new();
        let its = token.clone();
        let canceller = std::thread::spawn(move || its.cancel());
        let endless = || {
            loop {
                check_cancelled();
            }
        };
        assert!(token.run(endless).is_err());
        canceller.join().unwrap();
    });
}

#[test]
fn nested_limits_unwind_to_their_own_frames() {
    from_everywhere(|| {
        // The inner one first.
        let result = timeout(FOR_EVER, || {
            let inner = timeout(SHORT, for_ever);
            yield_now();
            inner
        });
        assert_eq!(result, Ok(Err(Elapsed)));
        // The outer one first.
        let reached = Cell::new(false);
        let result = timeout(SHORT, || {
            let inner = timeout(FOR_EVER, for_ever);
            reached.set(true);
            inner
        });
        assert_eq!((result, reached.get()), (Err(Elapsed), false));
        // Both have passed when it is looked at: the earlier one.
        let now = std::time::Instant::now();
        let later = now + Duration::from_nanos(2_000);
        let late = || {
            while std::time::Instant::now() <= later {}
            for_ever();
        };
        assert_eq!(deadline(later, || deadline(now, late)), Ok(Err(Elapsed)));
        let outer: Result<Result<(), Elapsed>, Elapsed> = deadline(now, || deadline(later, late));
        assert_eq!(outer, Err(Elapsed));
        // The same time: the outer one, which would come next anyway.
        let both: Result<Result<(), Elapsed>, Elapsed> = deadline(now, || deadline(now, for_ever));
        assert_eq!(both, Err(Elapsed));
        // Each of three, and none is left over.
        let third = timeout(FOR_EVER, || {
            (timeout(SHORT, for_ever), timeout(SHORT, || timeout(FOR_EVER, for_ever)).is_err())
        });
        assert_eq!(third, Ok((Err(Elapsed), true)));
        sleep(SHORT + SHORT);
        yield_now();
    });
}

#[test]
fn a_wait_with_a_time_of_its_own_takes_the_earlier() {
    from_everywhere(|| {
        let (_sender, receiver) = mpsc::channel::<()>();
        let own = timeout(FOR_EVER, || receiver.recv_timeout(SHORT));
        assert_eq!(own, Ok(Err(mpsc::RecvTimeoutError::Timeout)));
        let outer = timeout(SHORT, || receiver.recv_timeout(FOR_EVER));
        assert_eq!(outer, Err(Elapsed));
        assert_eq!(timeout(FOR_EVER, || sleep(SHORT)), Ok(()));
        assert_eq!(timeout(FOR_EVER, || thread::park_timeout(SHORT)), Ok(()));
        let (mut stream, _peer) = pair();
        stream.set_read_timeout(Some(SHORT)).unwrap();
        let kind = timeout(FOR_EVER, || stream.read(&mut [0]).unwrap_err().kind());
        assert_eq!(kind, Ok(io::ErrorKind::WouldBlock));
        stream.set_read_timeout(Some(FOR_EVER)).unwrap();
        assert!(timeout(SHORT, || stream.read(&mut [0])).is_err());
    });
}

#[test]
fn a_cancel_passes_through_all_limits() {
    for workers in [1, 2] {
        let runtime = runtime(workers);
        let reached = Arc::new(AtomicUsize::new(0));
        let its = reached.clone();
        let token = CancelToken::new();
        let (tells, told) = std_mpsc::channel();
        let fiber = runtime.spawn(move || {
            let _ = timeout(FOR_EVER, || {
                let _ = token.run(|| {
                    let _ = timeout(FOR_EVER, || {
                        tells.send(()).unwrap();
                        for_ever();
                    });
                    its.fetch_add(1, SeqCst);
                });
                its.fetch_add(1, SeqCst);
            });
            its.fetch_add(1, SeqCst);
        });
        told.recv().unwrap();
        assert!(was_cancelled(&fiber.cancel_and_join()));
        assert_eq!(reached.load(SeqCst), 0);
    }
}

#[test]
fn a_payload_ends_only_the_limit_it_was_made_for() {
    from_everywhere(|| {
        let stray: Box<dyn Any + Send> = {
            let kept = Cell::new(None);
            let result = timeout(SHORT, || kept.set(catch_unwind(for_ever).err()));
            assert_eq!(result, Ok(()));
            kept.into_inner().unwrap()
        };
        // Here it is nobody's, on this party and on another.
        let stray = catch_unwind(AssertUnwindSafe(|| timeout(FOR_EVER, || resume_unwind(stray))));
        let stray = stray.map(|result: Result<(), _>| result).unwrap_err();
        assert!(stray.is::<Cancelled>());
        let elsewhere = strands::spawn(|| {
            let result: Result<(), Elapsed> = timeout(FOR_EVER, || resume_unwind(stray));
            unreachable!("{result:?}");
        });
        assert!(was_cancelled(&elsewhere.join().map(|(): ()| ())));
        // A panic goes through as it is.
        let result = catch_unwind(|| timeout(SHORT, || resume_unwind(Box::new("boom"))));
        assert_eq!(text(&*result.map(|result: Result<(), _>| result).unwrap_err()), "boom");
        assert_eq!(timeout(FOR_EVER, yield_now), Ok(()));
    });
}

#[test]
fn destructors_wait_while_a_time_limit_unwinds() {
    from_everywhere(|| {
        let mutex = Mutex::new(0);
        let semaphore = Semaphore::new(0);
        let result = timeout(SHORT, || {
            let _first = Defer(|| {
                // A time limit does not end waits here, nor does the one that unwinds.
                assert!(is_cancelled() && thread::panicking());
                sleep(SHORT);
                assert_eq!(timeout(Duration::ZERO, || sleep(SHORT)), Ok(()));
                *mutex.lock().unwrap() += 1;
                strands::spawn(yield_now).join().unwrap();
                // A panic that stays inside is no matter.
                assert!(catch_unwind(|| resume_unwind(Box::new(1))).is_err());
            });
            let _second = Defer(|| {
                semaphore.add_permits(1);
                drop(semaphore.acquire().unwrap());
                yield_now();
                *mutex.lock().unwrap() += 1;
            });
            for_ever();
        });
        assert_eq!(result, Err(Elapsed));
        assert!(!thread::panicking() && !is_cancelled());
        assert!(!mutex.is_poisoned());
        assert_eq!(mutex.into_inner().unwrap(), 2);
    });
}

#[test]
fn a_limit_that_passes_while_another_fiber_unwinds_is_kept() {
    runtime(1).run(|| {
        let (sender, receiver) = mpsc::channel::<()>();
        let other = strands::spawn(move || {
            let _waits = Defer(move || assert!(receiver.recv().is_err()));
            resume_unwind(Box::new("unwinds for long"));
        });
        yield_now();
        let result = timeout(SHORT, || {
            let stopper = strands::spawn(|| {
                sleep(SHORT + SHORT); // The time is over, but the other still unwinds.
                drop(sender);
            });
            for_ever();
            drop(stopper);
        });
        assert_eq!(result, Err(Elapsed));
        let result: thread::Result<()> = other.join();
        assert!(!was_cancelled(&result));
    });
}

#[test]
fn a_guard_is_released_and_its_lock_not_poisoned() {
    from_everywhere(|| {
        let (mutex, condvar) = (Mutex::new(0), Condvar::new());
        let result = timeout(SHORT, || {
            let mut guard = mutex.lock().unwrap();
            *guard += 1;
            for_ever();
        });
        assert_eq!(result, Err(Elapsed));
        assert_eq!(*mutex.try_lock().unwrap(), 1);
        let result = timeout(SHORT, || {
            let guard = mutex.lock().unwrap();
            drop(condvar.wait_while(guard, |_| true));
        });
        assert_eq!(result, Err(Elapsed));
        assert_eq!(*mutex.try_lock().unwrap(), 1);
    });
}

/// Frames and shields are entered in one order, and left in another.
#[test]
fn limits_in_coroutines_may_interleave() {
    from_everywhere(|| {
        let works = || {
            let inner = timeout(FOR_EVER, || (uncancellable(yield_now), timeout(SHORT, for_ever)));
            assert_eq!(inner, Ok(((), Err(Elapsed))));
            assert_eq!(timeout(Duration::ZERO, yield_now), Err(Elapsed));
        };
        let mut limited = Coroutine::new(move |suspender, ()| {
            let result = timeout(FOR_EVER, || {
                suspender.suspend(());
                works();
            });
            assert_eq!(result, Ok(()));
            works();
        });
        limited.resume(());
        let ended = timeout(FOR_EVER, || matches!(limited.resume(()), CoroutineResult::Return(())));
        assert_eq!(ended, Ok(true));
        works();

        let shielded = || {
            Coroutine::new(move |suspender, ()| {
                uncancellable(|| cancel_as_error(|| suspender.suspend(())));
            })
        };
        let (mut first, mut second) = (shielded(), shielded());
        timeout(FOR_EVER, || first.resume(())).unwrap();
        second.resume(());
        first.resume(());
        timeout(FOR_EVER, || timeout(FOR_EVER, || second.resume(()))).unwrap().unwrap();
        works();

        let mut dropped = Coroutine::new(|suspender, ()| {
            let _ = timeout(FOR_EVER, || suspender.suspend(()));
        });
        dropped.resume(());
        drop(dropped);
        works();
        assert!(!is_cancelled());
    });
}

#[test]
fn a_time_limit_reaches_a_scope() {
    from_everywhere(|| {
        let left = AtomicUsize::new(0);
        let result = timeout(SHORT, || {
            thread::scope(|scope| {
                for _ in 0..3 {
                    let leaves = Defer(|| count(&left));
                    scope.spawn(move || {
                        let _leaves = leaves;
                        for_ever();
                    });
                }
            });
        });
        assert_eq!((result, left.into_inner()), (Err(Elapsed), 3));
        // A scope that comes to its end in time is not concerned.
        let sum =
            timeout(FOR_EVER, || thread::scope(|scope| scope.spawn(|| 1).join().unwrap() + 1));
        assert_eq!(sum, Ok(2));
    });
}

// Shields and errors.

#[test]
fn a_shield_holds_back_what_lies_outside() {
    from_everywhere(|| {
        let steps = Cell::new(0);
        let step = || steps.set(steps.get() + 1);
        let result = timeout(Duration::ZERO, || {
            uncancellable(|| {
                assert!(is_cancelled());
                sleep(SHORT);
                check_cancelled();
                step();
                // What is inside works, to its own frame.
                assert_eq!(timeout(SHORT, for_ever), Err(Elapsed));
                step();
                // Shields nest.
                uncancellable(yield_now);
                yield_now();
                step();
                assert_eq!(timeout(Duration::ZERO, || uncancellable(yield_now)), Ok(()));
                step();
            });
            check_cancelled();
            step();
        });
        assert_eq!((result, steps.get()), (Err(Elapsed), 4));
    });
}

#[test]
fn io_fails_where_cancels_are_errors() {
    from_everywhere(|| {
        let is_mine = |error: io::Error| {
            assert!(is_cancel_error(&error), "{error:?}");
            assert_eq!(error.kind(), io::ErrorKind::Other);
            assert!(error.to_string().contains("time limit"), "{error}");
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut stream, mut peer) = pair();
        let result = timeout(SHORT, || {
            cancel_as_error(|| {
                is_mine(listener.accept().unwrap_err());
                is_mine(stream.read(&mut [0]).unwrap_err());
                is_mine(stream.peek(&mut [0]).unwrap_err());
                is_mine(stream.read_exact(&mut [0]).unwrap_err());
                is_mine(stream.write_all(&vec![0; 64 << 20]).unwrap_err());
                // What need not wait succeeds; what cannot fail waits.
                peer.write_all(b"x").unwrap();
                while stream.peek(&mut [0]).is_err() {}
                // But not for ever.
                is_mine(loop {
                    if let Err(error) = stream.peek(&mut [0]) {
                        break error;
                    }
                });
                while stream.peek(&mut [0]).is_err() {}
                assert_eq!(stream.read(&mut [0]).unwrap(), 1);
                sleep(SHORT);
                yield_now();
                check_cancelled();
                assert!(strands::spawn(yield_now).join().is_ok());
                // Inside of a shield this, too.
                stream.set_read_timeout(Some(SHORT)).unwrap();
                let error = uncancellable(|| stream.read(&mut [0]).unwrap_err());
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                // What asks from inside unwinds to its frame, as it does everywhere.
                let (sender, receiver) = mpsc::channel::<()>();
                assert_eq!(timeout(SHORT, || receiver.recv()), Err(Elapsed));
                drop(sender);
            });
            "nothing was unwound"
        });
        assert_eq!(result, Ok("nothing was unwound"));
        // Outside of the section it unwinds.
        let (mut stream, _peer) = pair();
        assert!(timeout(SHORT, || stream.read(&mut [0])).is_err());
    });
}

#[test]
fn a_cancelled_fiber_may_end_by_errors() {
    let (mut stream, _peer) = pair();
    let fiber = started_on_default(move || {
        let error = cancel_as_error(|| io::copy(&mut stream, &mut io::sink()).unwrap_err());
        assert_eq!(error.to_string(), "the fiber was cancelled");
        // It is still asked.
        let shielded = cancel_as_error(|| stream.read(&mut [0]).unwrap_err());
        assert!(is_cancel_error(&shielded));
    });
    fiber.cancel_and_join().unwrap();
    let token = CancelToken::new();
    let its = token.clone();
    let (mut stream, _peer) = pair();
    let (tells, told) = std_mpsc::channel();
    let fiber = strands::spawn(move || {
        let error = its.run(|| {
            tells.send(()).unwrap(); // Cancelled before, it would not run.
            cancel_as_error(|| stream.read(&mut [0]).unwrap_err())
        });
        assert_eq!(error.unwrap().to_string(), "cancelled by a token: the reason");
    });
    told.recv().unwrap();
    token.cancel_with("the reason");
    fiber.join().unwrap();
}

#[test]
fn who_is_asked_can_find_out() {
    from_everywhere(|| {
        assert!(!is_cancelled());
        check_cancelled();
        let result = timeout(Duration::ZERO, || {
            assert!(is_cancelled());
            uncancellable(|| assert!(is_cancelled()));
            check_cancelled();
        });
        assert_eq!(result, Err(Elapsed));
        assert!(!is_cancelled());
        let token = CancelToken::new();
        let result = token.run(|| {
            assert!(!is_cancelled());
            token.cancel();
            assert!(is_cancelled());
            42
        });
        assert_eq!(result.unwrap(), 42, "it did not wait any more");
    });
}

// Tokens.

#[test]
fn a_token_ends_all_who_run_below_it() {
    from_everywhere(|| {
        let token = CancelToken::new();
        thread::scope(|scope| {
            let fibers: Vec<_> = (0..4).map(|_| scope.spawn(|| token.run(for_ever))).collect();
            std::thread::scope(|threads| {
                let waits = threads.spawn(|| token.run(for_ever).unwrap_err().to_string());
                token.cancel_with("closed");
                token.cancel_with("too late");
                assert_eq!(waits.join().unwrap(), "closed");
            });
            for fiber in fibers {
                assert_eq!(fiber.join().unwrap().unwrap_err().to_string(), "closed");
            }
        });
        assert!(token.run(|| unreachable!("it was cancelled before")).is_err());
        assert_eq!(token.wait().to_string(), "closed");
        assert_eq!(token.wait_deadline(None).unwrap().to_string(), "closed");
    });
}

#[test]
fn tokens_are_a_tree() {
    let root = CancelToken::new();
    let (left, right) = (root.child(), root.child());
    let leaf = left.child();
    assert!(left.cancel_with("left"));
    assert_eq!(leaf.reason().unwrap().to_string(), "left");
    assert!(!right.is_cancelled() && !root.is_cancelled());
    assert!(root.cancel_with("root"));
    assert_eq!(left.reason().unwrap().to_string(), "left", "the first reason stays");
    assert_eq!(right.reason().unwrap().to_string(), "root");
    assert_eq!(root.child().reason().unwrap().to_string(), "root", "born cancelled");
    assert!(!right.cancel());
    // Nested runs end where they belong.
    from_everywhere(|| {
        let outer = CancelToken::new();
        let inner = outer.child();
        let result = outer.run(|| {
            let result = inner.run(|| {
                inner.cancel_with("inner");
                for_ever();
            });
            assert_eq!(result.unwrap_err().to_string(), "inner");
            inner.child().run(|| 1).unwrap_err();
            let again = outer.child();
            let _: Result<(), _> = again.run(|| {
                outer.cancel_with("outer");
                for_ever();
            });
            unreachable!("both were asked, and the outer one is obeyed");
        });
        assert_eq!(result.unwrap_err().to_string(), "outer");
    });
}

#[test]
fn long_chains_and_many_children_are_no_matter() {
    let root = CancelToken::new();
    let mut chain = vec![root.clone()];
    for _ in 0..100_000 {
        chain.push(chain.last().unwrap().child());
    }
    let last = chain.pop().unwrap();
    drop(chain); // Each is held by its child alone.
    root.cancel_with("from afar");
    assert_eq!(last.reason().unwrap().to_string(), "from afar");
    drop((root, last));

    let root = CancelToken::new();
    let mut leaf = root.child();
    drop(root);
    for _ in 0..100_000 {
        leaf = leaf.child();
    }
    drop(leaf); // Without recursion.

    let root = CancelToken::new();
    for _ in 0..1_000 {
        drop(root.child()); // They do not pile up.
    }
    let children: Vec<_> = (0..1_000).map(|_| root.child()).collect();
    root.cancel();
    assert!(children.iter().all(CancelToken::is_cancelled));
}

#[test]
fn callbacks_are_called_once() {
    from_everywhere(|| {
        let token = CancelToken::new();
        let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
        let call = |name: &'static str| {
            let calls = calls.clone();
            token.on_cancel(move |reason| calls.lock().unwrap().push(format!("{name}: {reason}")))
        };
        let first = call("first");
        drop(call("dropped"));
        assert!(call("deregistered").deregister());
        call("kept").keep();
        assert!(calls.lock().unwrap().is_empty());
        token.cancel_with("now");
        token.cancel_with("again");
        assert!(!first.deregister());
        drop(call("late"));
        assert_eq!(*calls.lock().unwrap(), ["first: now", "kept: now", "late: now"]);
    });
}

#[test]
fn callbacks_may_panic_wait_and_cancel() {
    from_everywhere(|| {
        let token = CancelToken::new();
        let child = token.child();
        let calls = Arc::new(AtomicUsize::new(0));
        let other = CancelToken::new();
        let (its_calls, its_other) = (calls.clone(), other.clone());
        token.on_cancel(|_| resume_unwind(Box::new("the first panic"))).keep();
        token.on_cancel(|_| resume_unwind(Box::new("the second"))).keep();
        child
            .on_cancel(move |_| {
                yield_now();
                its_other.cancel();
                its_calls.fetch_add(1, SeqCst);
            })
            .keep();
        let payload = catch_unwind(|| token.cancel()).unwrap_err();
        assert_eq!(text(&*payload), "the first panic");
        assert_eq!(calls.load(SeqCst), 1, "the others are called");
        assert!(token.is_cancelled() && child.is_cancelled() && other.is_cancelled());
        let now =
            catch_unwind(AssertUnwindSafe(|| token.on_cancel(|_| resume_unwind(Box::new("here")))));
        assert_eq!(text(&*now.map(drop).unwrap_err()), "here");
    });
}

#[test]
fn a_callback_is_not_cut_short_by_what_it_is_told_of() {
    from_everywhere(|| {
        let token = CancelToken::new();
        let calls = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let calls = calls.clone();
            let callback = move |_: &_| {
                sleep(Duration::from_micros(10));
                count(&calls);
            };
            token.on_cancel(callback).keep();
        }
        let (its, late) = (token.clone(), calls.clone());
        let ended = token.run(|| {
            its.cancel();
            its.on_cancel(move |_| {
                yield_now();
                count(&late);
            })
            .keep();
            for_ever();
        });
        assert!(ended.is_err());
        assert_eq!(calls.load(SeqCst), 3);
        let elapsed = timeout(Duration::ZERO, || {
            let (other, calls) = (CancelToken::new(), calls.clone());
            other
                .on_cancel(move |_| {
                    yield_now();
                    count(&calls);
                })
                .keep();
            other.cancel();
            for_ever();
        });
        assert_eq!(elapsed, Err(Elapsed));
        assert_eq!(calls.load(SeqCst), 4);
    });
}

#[test]
fn a_token_is_cancelled_by_one_of_many() {
    let runtime = runtime(2);
    for round in 0..200 {
        let token = CancelToken::new();
        let called = Arc::new(AtomicUsize::new(0));
        let registered: Vec<_> = (0..4)
            .map(|_| {
                let called = called.clone();
                token.on_cancel(move |_| count(&called))
            })
            .collect();
        let cancels: Vec<_> = (0..4)
            .map(|i| {
                let token = token.clone();
                runtime.spawn(move || token.cancel_with(format!("{i}")))
            })
            .collect();
        // Some are taken out meanwhile: they are called, or not, and it is known which.
        let out = registered.into_iter().filter(|_| round % 2 == 0);
        let taken = out.map(strands::cancel::OnCancel::deregister).filter(|&taken| taken).count();
        let wins: Vec<_> = cancels.into_iter().map(|cancel| cancel.join().unwrap()).collect();
        assert_eq!(wins.iter().filter(|&&won| won).count(), 1);
        if round % 2 == 0 {
            assert_eq!(called.load(SeqCst) + taken, 4);
        }
        let winner = wins.iter().position(|&won| won).unwrap();
        assert_eq!(token.reason().unwrap().to_string(), winner.to_string());
    }
}

#[test]
fn a_wait_for_a_token_has_its_own_deadline() {
    from_everywhere(|| {
        let token = CancelToken::new();
        assert!(
            token.wait_deadline(Deadline::after(SHORT)).is_none()
                && token.wait_timeout(SHORT).is_none()
        );
        assert_eq!(timeout(SHORT, || token.wait().to_string()), Err(Elapsed));
        let child = token.child();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| child.wait().to_string());
            token.cancel_with("over");
            assert_eq!(waiter.join().unwrap(), "over");
        });
    });
}

#[derive(Debug)]
struct Late(Elapsed);

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too late")
    }
}

impl std::error::Error for Late {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn types_are_what_users_need() {
    fn is<T: Send + Sync + Clone + 'static>() {}
    fn is_error<T: std::error::Error + Send + Sync + 'static>() {}
    is::<CancelToken>();
    is::<strands::cancel::CancelReason>();
    is_error::<strands::cancel::CancelReason>();
    is_error::<Cancelled>();
    is_error::<Elapsed>();
    assert_eq!(io::Error::from(Elapsed).kind(), io::ErrorKind::TimedOut);
    let token = CancelToken::default();
    assert_eq!(format!("{token:?}"), "CancelToken { reason: None, .. }");
    token.cancel_with(io::Error::other("why"));
    let reason = token.reason().unwrap();
    assert!(reason.get_ref().is::<io::Error>());
    assert_eq!(format!("{reason:?}"), format!("{:?}", io::Error::other("why")));
    assert!(std::error::Error::source(&reason).is_none());
    assert_eq!(format!("{:?}", token.on_cancel(|_| ())), "OnCancel { .. }");
    let token = CancelToken::new();
    token.cancel_with(Late(Elapsed));
    let reason = token.reason().unwrap();
    assert!(std::error::Error::source(&reason).unwrap().is::<Elapsed>());
    assert_eq!(Elapsed.to_string(), "the time limit has passed");
    let payload = strands::spawn(for_ever).cancel_and_join().unwrap_err();
    assert_eq!(format!("{:?}", payload.downcast::<Cancelled>().unwrap()), "Cancelled");
}

#[test]
fn what_was_never_started_is_dropped_to_its_end() {
    let runtime = runtime(1);
    runtime.run(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let (its, mine) = (dropped.clone(), dropped.clone());
        let captured = Defer(move || {
            yield_now();
            count(&its);
        });
        let fiber = thread::spawn(move || drop(captured));
        assert!(was_cancelled(&fiber.cancel_and_join()));
        assert_eq!(dropped.load(SeqCst), 1);
        // A result that nobody wants, of a fiber that is cancelled at its end.
        let (starts, has_started) = std_mpsc::channel();
        let detached = thread::spawn(move || {
            starts.send(()).unwrap();
            uncancellable(yield_now);
            Defer(move || {
                yield_now();
                count(&mine);
            })
        });
        while has_started.try_recv().is_err() {
            yield_now();
        }
        detached.cancel();
        drop(detached);
        while dropped.load(SeqCst) < 2 {
            yield_now();
        }
    });
}

/// Calls `f` from a function that no panic may leave.
fn from_c(f: &dyn Fn()) {
    extern "C" fn callback(f: &Callback) {
        (f.0)();
    }
    struct Callback<'a>(&'a dyn Fn());
    callback(&Callback(f));
}

#[test]
fn input_and_output_fail_below_a_callback_from_c() {
    from_everywhere(|| {
        let (stream, _peer) = pair();
        let failed = Cell::new(false);
        let read = || (&stream).read(&mut [0]);
        let elapsed = timeout(SHORT, || {
            from_c(&|| failed.set(is_cancel_error(&cancel_as_error(read).unwrap_err())));
            check_cancelled();
        });
        assert!(failed.get());
        assert_eq!(elapsed, Err(Elapsed));
    });
}

#[test]
fn an_error_from_outside_does_not_hold_up_a_time_limit_inside() {
    from_everywhere(|| {
        let (stream, _peer) = pair();
        let inner = Cell::new(None);
        let outer = CancelToken::new();
        let ended = outer.run(|| {
            cancel_as_error(|| {
                outer.cancel();
                inner.set(Some(timeout(SHORT, || while (&stream).read(&mut [0]).is_err() {})));
            });
            for_ever();
        });
        assert_eq!(inner.get(), Some(Err(Elapsed)));
        assert!(ended.is_err());
    });
}
