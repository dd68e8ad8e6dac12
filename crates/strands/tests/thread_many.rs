//! Very many fibers, and as many as there are stacks for.

mod thread_common;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use strands::runtime::GuardKind;
use strands::thread::{self, Builder, JoinHandle};
use strands::{Runtime, sync::Mutex};
use thread_common::{runtime, stress};

#[test]
fn a_million_finish() {
    let total = 1_000_000 * stress();
    for workers in [1, 2] {
        let count = AtomicUsize::new(0);
        runtime(workers).run(|| {
            for _ in 0..total / 2 / 1_000 {
                thread::scope(|scope| {
                    for _ in 0..1_000 {
                        scope.spawn(|| count.fetch_add(1, SeqCst));
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), total / 2 / 1_000 * 1_000);
    }
}

#[test]
fn a_hundred_thousand_alive_at_once() {
    // A guard by mprotect costs two mappings of the 65,530 that a process may have.
    let many = match strands_fiber::stack::guard_kind().unwrap() {
        GuardKind::Madvise => 100_000,
        GuardKind::Mprotect => 10_000,
    };
    let runtime = runtime(2);
    let released = Arc::new(AtomicBool::new(false));
    runtime.run(|| {
        let fibers: Vec<JoinHandle<()>> = (0..many)
            .map(|_| {
                let released = released.clone();
                let small = Builder::new().stack_size(16 * 1024);
                small
                    .spawn(move || {
                        while !released.load(SeqCst) {
                            thread::park();
                        }
                    })
                    .unwrap()
            })
            .collect();
        while runtime.live_fibers().iter().sum::<usize>() < many + 1 {
            thread::yield_now();
        }
        let live = runtime.live_fibers();
        let most = live.iter().max().unwrap();
        assert!(most * 10 <= many / 2 * 12, "badly spread: {live:?}");
        released.store(true, SeqCst);
        fibers.iter().for_each(|fiber| fiber.thread().unpark());
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    });
}

/// Spawns fibers that hold their stacks until released, until a spawn errs.
fn exhaust(spawn: impl Fn(Arc<AtomicBool>) -> std::io::Result<JoinHandle<()>>) {
    let released = Arc::new(AtomicBool::new(false));
    let mut accepted = Vec::new();
    let error = loop {
        match spawn(released.clone()) {
            Ok(fiber) => accepted.push(fiber),
            Err(error) => break error,
        }
        // They take their stacks when they start.
        thread::yield_now();
    };
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(accepted.len() >= 900, "only {} were accepted", accepted.len());
    released.store(true, SeqCst);
    accepted.iter().for_each(|fiber| fiber.thread().unpark());
    // Those that hold a stack, and those that were accepted and wait for one.
    accepted.into_iter().for_each(|fiber| fiber.join().unwrap());
    // And now there are stacks again, if not for each attempt at once.
    loop {
        match spawn(Arc::new(AtomicBool::new(true))) {
            Ok(fiber) => return fiber.join().unwrap(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::OutOfMemory),
        }
        thread::yield_now();
    }
}

fn hold(released: Arc<AtomicBool>) -> impl FnOnce() + Send {
    move || {
        while !released.load(SeqCst) {
            thread::park();
        }
    }
}

fn limited(workers: usize) -> Runtime {
    Runtime::builder().workers(workers).max_stacks(1_000).stack_size(64 * 1024).build().unwrap()
}

#[test]
fn stacks_exhausted_from_a_fiber() {
    for workers in [1, 2] {
        limited(workers).run(|| exhaust(|released| Builder::new().spawn(hold(released))));
    }
}

#[test]
fn stacks_exhausted_from_a_plain_thread() {
    for workers in [1, 2] {
        let runtime = limited(workers);
        // `Runtime::spawn` panics where a builder's spawn errs; a plain thread has that one only
        // for the default runtime.
        exhaust(|released| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.spawn(hold(released))))
                .map_err(|payload| {
                    let text = thread_common::text(&*payload).to_string();
                    assert!(text.starts_with("failed to spawn thread"), "{text}");
                    assert!(text.contains("OutOfMemory"), "{text}");
                    ErrorKind::OutOfMemory.into()
                })
        });
    }
}

#[test]
fn a_child_beside_a_spinning_parent_starts() {
    for _ in 0..20 * stress() {
        runtime(2).run(|| {
            let started = Arc::new(AtomicBool::new(false));
            let its = started.clone();
            let child = thread::spawn(move || its.store(true, SeqCst));
            while !started.load(SeqCst) {
                std::hint::spin_loop();
            }
            child.join().unwrap();
        });
    }
}

#[test]
fn timers_and_wakes_from_afar_are_served_beside_yield_loops() {
    runtime(1).run(|| {
        let stop = &AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(move || {
                    while !stop.load(SeqCst) {
                        thread::yield_now();
                    }
                });
            }
            let sleeper = scope.spawn(|| thread::sleep(Duration::from_millis(1)));
            let parked = scope.spawn(|| thread::park_timeout(Duration::MAX));
            let remote = parked.thread().clone();
            let plain = std::thread::spawn(move || remote.unpark());
            sleeper.join().unwrap();
            parked.join().unwrap();
            stop.store(true, SeqCst);
            plain.join().unwrap();
        });
    });
}

#[test]
fn fresh_fibers_start_beside_yield_loops() {
    runtime(1).run(|| {
        let stop = &AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    thread::yield_now();
                }
            });
            for _ in 0..100 {
                scope.spawn(|| ()).join().unwrap();
            }
            stop.store(true, SeqCst);
        });
    });
}

#[test]
fn a_loop_that_never_parks_lets_others_run() {
    // Each round takes a free lock: operations that succeed spend a budget, then others run.
    runtime(1).run(|| {
        let lock = Mutex::new(0u64);
        let stop = &AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    *lock.lock().unwrap() += 1;
                }
            });
            scope.spawn(|| stop.store(true, SeqCst));
        });
    });
}
