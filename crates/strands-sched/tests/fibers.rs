//! Spawning, joining, yielding and sleeping, on any number of workers.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use common::{fibers, run, runtime, spawn, spawn_at, stress};
use strands_sched::{
    Builder, Cancelled, Driver, DriverWaker, Runtime, SpawnOptions, TaskRef, TimeDriver,
    park_token, sleep_until, spawn_local, unblock, uncancellable, unpark_token, worker_index,
    yield_now,
};

#[test]
fn results_and_panics_come_through_join() {
    for workers in [1, 2, 4] {
        let runtime = runtime(workers);
        let sum: u64 = run(&runtime, || {
            let fibers: Vec<_> = (0..1000)
                .map(|i| {
                    spawn(move || {
                        yield_now();
                        i
                    })
                })
                .collect();
            fibers.into_iter().map(|fiber| fiber.join().unwrap()).sum()
        });
        assert_eq!(sum, 499_500);
        let panicked = spawn_at(&runtime, 0, || std::panic::resume_unwind(Box::new(7)));
        assert_eq!(*panicked.join().unwrap_err().downcast::<i32>().unwrap(), 7);
        runtime.shutdown(None).unwrap();
    }
}

#[test]
fn detached_fibers_run_and_their_results_are_dropped() {
    let drops = Arc::new(AtomicUsize::new(0));
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
            yield_now(); // A destructor may wait: it runs in the fiber.
        }
    }
    let runtime = runtime(2);
    for i in 0..1000 {
        let counted = Counted(drops.clone());
        drop(spawn_at(&runtime, i % 2, move || counted));
    }
    while drops.load(SeqCst) < 1000 {
        std::thread::yield_now();
    }
    runtime.shutdown(None).unwrap();
    assert_eq!(drops.load(SeqCst), 1000);
}

#[test]
fn sleepers_never_wake_early() {
    let runtime = runtime(2);
    run(&runtime, || {
        let fibers: Vec<_> = [0, 1_000, 100_000, 2_000_000, 900, 50_000]
            .map(|ns| {
                spawn(move || {
                    for _ in 0..10 {
                        let deadline = Instant::now() + Duration::from_nanos(ns);
                        sleep_until(Some(deadline));
                        assert!(Instant::now() >= deadline);
                    }
                })
            })
            .into_iter()
            .collect();
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    });
}

#[test]
fn local_fibers_share_what_is_not_send() {
    let runtime = runtime(4);
    run(&runtime, || {
        let shared = Rc::new(Cell::new(0));
        let home = worker_index();
        let fibers: Vec<_> = (0..100)
            .map(|_| {
                let shared = shared.clone();
                spawn_local(SpawnOptions::default(), move || {
                    yield_now();
                    assert_eq!(worker_index(), home);
                    shared.set(shared.get() + 1);
                    shared
                })
                .unwrap()
            })
            .collect();
        for fiber in fibers {
            drop(fiber.join().unwrap());
        }
        assert_eq!((shared.get(), Rc::strong_count(&shared)), (100, 1));
    });
    let error = spawn_local(SpawnOptions::default(), || ()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn a_fiber_stays_on_the_worker_that_started_it() {
    let runtime = runtime(4);
    run(&runtime, || {
        let fibers: Vec<_> = (0..200 * stress())
            .map(|i| {
                spawn(move || {
                    let home = worker_index();
                    for round in 0..20 {
                        match (i + round) % 3 {
                            0 => yield_now(),
                            1 => sleep_until(Some(Instant::now() + Duration::from_micros(10))),
                            _ => unblock(yield_now),
                        }
                        assert_eq!(worker_index(), home);
                    }
                })
            })
            .collect();
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    });
}

#[test]
fn a_child_starts_beside_a_parent_that_never_waits() {
    let runtime = runtime(2);
    for _ in 0..200 * stress() {
        run(&runtime, || {
            let started = Arc::new(AtomicBool::new(false));
            let its = started.clone();
            let child = spawn(move || its.store(true, SeqCst));
            while !started.load(SeqCst) {
                std::hint::spin_loop();
            }
            child.join().unwrap();
        });
    }
}

#[test]
fn timers_and_remote_wakes_are_served_beside_fibers_that_only_yield() {
    let runtime = runtime(1);
    let stop = Arc::new(AtomicBool::new(false));
    let its = stop.clone();
    let yielders: Vec<_> = (0..3)
        .map(|_| {
            let stop = its.clone();
            spawn_at(&runtime, 0, move || {
                while !stop.load(SeqCst) {
                    yield_now();
                }
            })
        })
        .collect();
    for _ in 0..100 {
        // Spawned, joined and slept from outside, all beside the yielders.
        spawn_at(&runtime, 0, || {
            sleep_until(Some(Instant::now() + Duration::from_micros(50)));
        })
        .join()
        .unwrap();
    }
    stop.store(true, SeqCst);
    yielders.into_iter().for_each(|fiber| fiber.join().unwrap());
}

#[test]
fn a_cancelled_fiber_unwinds_where_it_waits_and_may_be_shielded() {
    let runtime = runtime(2);
    for worker in 0..2 {
        let reached = Arc::new(AtomicUsize::new(0));
        let its = reached.clone();
        let fiber = spawn_at(&runtime, worker, move || {
            let deadline = Instant::now() + Duration::from_millis(5);
            uncancellable(|| sleep_until(Some(deadline)));
            its.store(1, SeqCst);
            sleep_until(None);
            its.store(2, SeqCst);
        });
        fiber.task().cancel();
        assert!(fiber.join().unwrap_err().is::<Cancelled>());
        // Cancelled before it started, or at the second wait; never in the shield.
        assert!(reached.load(SeqCst) < 2);
    }
}

#[test]
fn swallowed_cancels_come_again() {
    let runtime = runtime(1);
    let started = Arc::new(AtomicBool::new(false));
    let its = started.clone();
    let fiber = spawn_at(&runtime, 0, move || {
        its.store(true, SeqCst);
        let mut swallowed = 0;
        while swallowed < 3 {
            let caught = std::panic::catch_unwind(|| sleep_until(None));
            assert!(caught.unwrap_err().is::<Cancelled>());
            swallowed += 1;
        }
        swallowed
    });
    while !started.load(SeqCst) {
        std::thread::yield_now();
    }
    fiber.task().cancel();
    assert_eq!(fiber.join().unwrap(), 3);
}

#[test]
fn pool_threads_that_are_not_kept_end() {
    let builder = Builder::default().workers(1).blocking_keep_alive(Duration::ZERO);
    let runtime = builder.build().unwrap();
    assert_eq!(run(&runtime, || unblock(|| 7)), 7);
    while !runtime.describe().contains("blocking pool: 0 of") {
        std::thread::yield_now();
    }
}

#[test]
fn a_million_spawns_finish() {
    let runtime = runtime(2);
    let count = Arc::new(AtomicUsize::new(0));
    run(&runtime, || {
        for _ in 0..100 * stress() {
            let batch: Vec<_> = (0..fibers(10_000))
                .map(|_| {
                    let count = count.clone();
                    spawn(move || count.fetch_add(1, SeqCst))
                })
                .collect();
            for fiber in batch {
                fiber.join().unwrap();
            }
        }
    });
    assert_eq!(count.load(SeqCst), fibers(1_000_000) * stress());
}

#[test]
fn a_hundred_thousand_live_at_once() {
    let runtime = runtime(2);
    let live = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(AtomicBool::new(false));
    let all = fibers(100_000);
    let parked: Vec<_> = (0..all)
        .map(|i| {
            let (live, gate) = (live.clone(), gate.clone());
            spawn_at(&runtime, i % 2, move || {
                live.fetch_add(1, SeqCst);
                while !gate.load(SeqCst) {
                    strands_sched::park_token(None);
                }
            })
        })
        .collect();
    while live.load(SeqCst) < all {
        std::thread::yield_now();
    }
    assert_eq!(runtime.live_fibers().iter().sum::<usize>(), all);
    gate.store(true, SeqCst);
    for fiber in &parked {
        strands_sched::unpark_token(fiber.task());
    }
    parked.into_iter().for_each(|fiber| fiber.join().unwrap());
}

#[test]
fn a_shutdown_ends_parents_that_join_without_a_panic() {
    for round in 0..50 * stress() {
        let runtime = runtime(2);
        let parents: Vec<_> = (0..4)
            .map(|i| {
                spawn_at(&runtime, (i + round) % 2, || {
                    spawn(|| sleep_until(None)).join().unwrap();
                })
            })
            .collect();
        while round % 2 == 0 && runtime.live_fibers().iter().sum::<usize>() < 8 {
            std::thread::yield_now();
        }
        runtime.shutdown(None).unwrap();
        for parent in parents {
            let payload = parent.join().unwrap_err();
            // A parent that had not spawned yet fails to, and says so.
            assert!(round % 2 == 1 || payload.is::<Cancelled>());
        }
    }
}

/// A fiber that spawns its successor, until `end`; says in `links` how many may follow.
fn chain(end: Arc<AtomicBool>, links: Arc<AtomicIsize>) {
    if !end.load(SeqCst) && links.fetch_sub(1, SeqCst) > 1 {
        drop(spawn(move || chain(end, links)));
    }
}

/// More than a worker starts in passing: a chain that runs out has kept the others waiting.
const LINKS: isize = 1_000_000;

#[test]
fn older_fibers_are_started_beside_those_that_spawn_their_successors() {
    run(&runtime(1), || {
        let (end, links) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicIsize::new(LINKS)));
        let older: Vec<_> = (0..10).map(|number| spawn(move || number)).collect();
        let its = (end.clone(), links.clone());
        drop(spawn(move || chain(its.0, its.1)));
        assert!(older.into_iter().map(|fiber| fiber.join().unwrap()).eq(0..10));
        end.store(true, SeqCst);
        assert!(links.load(SeqCst) > 0);
    });
}

#[test]
fn fibers_from_outside_are_started_beside_those_that_spawn_their_successors() {
    let runtime = runtime(2);
    let (end, links) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicIsize::new(LINKS)));
    for worker in 0..2 {
        let its = (end.clone(), links.clone());
        drop(spawn_at(&runtime, worker, move || chain(its.0, its.1)));
    }
    (0..10).for_each(|number| assert_eq!(run(&runtime, || number), number));
    end.store(true, SeqCst);
    assert!(links.load(SeqCst) > 0);
    runtime.shutdown(None).unwrap();
}

/// A driver that counts those who wait in it without a limit. Its clock runs `speed` times as fast as the system's.
struct Counting {
    inner: Box<dyn Driver>,
    asleep: Arc<(Mutex<usize>, Condvar)>,
    start: Instant,
    speed: u32,
}

/// A runtime with such drivers, and how many wait.
fn counting(workers: usize, speed: u32) -> (Runtime, Arc<(Mutex<usize>, Condvar)>) {
    let (asleep, start) = (Arc::new((Mutex::new(0), Condvar::new())), Instant::now());
    let its = asleep.clone();
    let driver = move |worker| {
        let inner = TimeDriver::factory()(worker)?;
        Ok(Box::new(Counting { inner, asleep: its.clone(), start, speed }) as Box<dyn Driver>)
    };
    (Builder::new().workers(workers).driver(Arc::new(driver)).build().unwrap(), asleep)
}

impl Driver for Counting {
    fn poll(&self, timeout: Option<Duration>) {
        if let Some(timeout) = timeout {
            return self.inner.poll(Some(timeout / self.speed));
        }
        *self.asleep.0.lock().unwrap() += 1;
        self.asleep.1.notify_all();
        self.inner.poll(None);
        *self.asleep.0.lock().unwrap() -= 1;
    }

    fn waker(&self) -> Arc<dyn DriverWaker> {
        self.inner.waker()
    }

    fn now(&self) -> Instant {
        self.start + self.start.elapsed() * self.speed
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self.inner.as_any()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// Hand-overs between workers make them spin before they sleep; when these are over, they sleep without a limit.
#[test]
fn workers_that_nobody_wakes_any_more_sleep() {
    let (runtime, asleep) = counting(2, 1);
    let rounds = 10_000 * stress();
    let turns = Arc::new(AtomicUsize::new(0));
    let parties = [0, 1].map(|index| {
        let turns = turns.clone();
        let (tell, told) = std::sync::mpsc::channel::<TaskRef>();
        let fiber = spawn_at(&runtime, index, move || {
            park_token(None); // Until the other end is known.
            let other = told.try_recv().unwrap();
            for round in 0..rounds {
                while turns.load(SeqCst) != 2 * round + index {
                    park_token(None);
                }
                turns.fetch_add(1, SeqCst);
                unpark_token(&other);
            }
            // Not ended: its stack, given back, would be looked at again after a while.
            while turns.load(SeqCst) != usize::MAX {
                park_token(None);
            }
        });
        (tell, fiber)
    });
    let tasks = [0, 1].map(|index| TaskRef::to(parties[index].1.task()));
    parties[0].0.send(TaskRef::to(&tasks[1])).unwrap();
    parties[1].0.send(TaskRef::to(&tasks[0])).unwrap();
    tasks.iter().for_each(|task| unpark_token(task));

    let (count, changed) = &*asleep;
    let all_done = || turns.load(SeqCst) == 2 * rounds;
    let mut count = count.lock().unwrap();
    while *count < 2 || !all_done() {
        count = changed.wait(count).unwrap();
    }
    drop(count);
    turns.store(usize::MAX, SeqCst);
    tasks.iter().for_each(|task| unpark_token(task));
    parties.into_iter().for_each(|(_, fiber)| fiber.join().unwrap());
}

/// While stacks that were given back keep their memory a worker wakes now and then; once it has discarded it, no more.
#[test]
fn a_worker_whose_stacks_are_discarded_sleeps() {
    let (runtime, asleep) = counting(1, 10_000);
    let fibers: Vec<_> = (0..10).map(|_| spawn_at(&runtime, 0, yield_now)).collect();
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    let (count, changed) = &*asleep;
    drop(changed.wait_while(count.lock().unwrap(), |count| *count == 0).unwrap());
    runtime.shutdown(None).unwrap();
}
