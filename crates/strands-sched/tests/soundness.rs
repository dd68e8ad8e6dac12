//! What safe code does wrong, in closures, destructors and drivers of its own, must not leave a
//! frame that is lent out, nor a thread that fibers live on.

mod common;

use std::any::Any;
use std::hint::spin_loop;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::process::{Command, Output, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use common::{run, runtime, spawn, spawn_at};
use strands_sched::{
    Builder, Driver, DriverFactory, DriverWaker, Runtime, ScopeFace, SpawnOptions, Spawner,
    TimeDriver, scope, sleep_until, spawn_local, worker_index, yield_now,
};

/// A scope's type that spawns and panics before there is a scope to hand out.
struct PanicsWhenMade;

static CHILD_ENDED: AtomicBool = AtomicBool::new(false);

impl<'scope, 'env> ScopeFace<'scope, 'env> for PanicsWhenMade {
    type Scope = ();

    fn make(spawner: Spawner<'scope, 'env>) {
        let spawner: &'scope Spawner<'scope, 'env> = Box::leak(Box::new(spawner));
        let child = move || {
            (0..10).for_each(|_| yield_now());
            // What it refers to lies in the frame of `scope`.
            assert!(format!("{spawner:?}").contains("children: 1"));
            CHILD_ENDED.store(true, SeqCst);
        };
        spawner.spawn(SpawnOptions::default(), common::no_default, child).unwrap();
        resume_unwind(Box::new("no scope"));
    }
}

#[test]
fn a_scope_whose_making_panics_waits_for_its_children() {
    run(&runtime(1), || {
        let payload = catch_unwind(|| scope::<PanicsWhenMade, _, _>(|()| ())).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"no scope"));
        assert!(CHILD_ENDED.load(SeqCst), "the scope's frame was left while a child used it");
    });
}

/// Panics when it is dropped, with a payload that does so too.
struct PanicsTwice;

impl Drop for PanicsTwice {
    fn drop(&mut self) {
        struct Payload;
        impl Drop for Payload {
            fn drop(&mut self) {
                resume_unwind(Box::new("the second panic"));
            }
        }
        panic_any(Payload);
    }
}

#[test]
fn a_payload_that_panics_when_dropped_in_turn_ends_no_worker() {
    let runtime = runtime(1);
    let ended = Arc::new(AtomicBool::new(false));
    struct Last(#[allow(dead_code, reason = "dropped first")] PanicsTwice, Arc<AtomicBool>);
    impl Drop for Last {
        fn drop(&mut self) {
            self.1.store(true, SeqCst);
        }
    }
    let (its, detached) = (ended.clone(), Arc::new(AtomicBool::new(false)));
    let go_on = detached.clone();
    let fiber = spawn_at(&runtime, 0, move || {
        while !go_on.load(SeqCst) {
            yield_now();
        }
        Last(PanicsTwice, its)
    });
    drop(fiber); // Else the value would be dropped here.
    detached.store(true, SeqCst);
    while !ended.load(SeqCst) {
        std::thread::yield_now();
    }
    assert_eq!(run(&runtime, || 42), 42, "the worker goes on");
    runtime.shutdown(None).unwrap();
}

#[test]
fn a_cancelled_fiber_does_not_leave_what_it_runs_elsewhere() {
    let (outer, inner) = (runtime(1), runtime(1));
    let [started, cancelled] = [false; 2].map(|no| Arc::new(AtomicBool::new(no)));
    let (runs, go_on) = (started.clone(), cancelled.clone());
    let fiber = spawn_at(&outer, 0, move || {
        let mut lent = 0;
        run(&inner, || {
            runs.store(true, SeqCst);
            while !go_on.load(SeqCst) {
                yield_now();
            }
            (0..100).for_each(|_| yield_now());
            lent = 7;
        });
        lent
    });
    while !started.load(SeqCst) {
        std::thread::yield_now();
    }
    fiber.task().cancel();
    cancelled.store(true, SeqCst);
    assert_eq!(fiber.join().unwrap(), 7, "it waits for nothing after");
}

#[test]
fn local_fibers_are_not_stolen() {
    run(&runtime(2), || {
        let home = worker_index();
        let [strayed, stolen] = [0; 2].map(|none| Arc::new(AtomicUsize::new(none)));
        for _ in 0..50 {
            let (strayed, stolen) = (strayed.clone(), stolen.clone());
            let local = move || {
                strayed.fetch_add(usize::from(worker_index() != home), SeqCst);
            };
            spawn_local(SpawnOptions::default(), local).unwrap();
            spawn(move || stolen.fetch_add(1, SeqCst));
        }
        // Never waits here, so these are started by the other worker.
        while stolen.load(SeqCst) < 50 {
            spin_loop();
        }
        assert_eq!(strayed.load(SeqCst), 0);
    });
}

/// Time's driver, which panics where it is told to.
struct Faulty(Box<dyn Driver>);

static POLL_PANICS: AtomicBool = AtomicBool::new(false);
static WAKE_PANICS: AtomicBool = AtomicBool::new(false);

impl Faulty {
    fn runtime() -> Runtime {
        let factory: DriverFactory =
            Arc::new(|index| Ok(Box::new(Faulty(TimeDriver::factory()(index)?))));
        Builder::new().workers(1).driver(factory).build().unwrap()
    }
}

impl Driver for Faulty {
    fn poll(&self, timeout: Option<Duration>) {
        assert!(!POLL_PANICS.load(SeqCst), "a driver's poll");
        self.0.poll(timeout);
    }
    fn waker(&self) -> Arc<dyn DriverWaker> {
        struct Waker(Arc<dyn DriverWaker>);
        impl DriverWaker for Waker {
            fn wake(&self) {
                assert!(!WAKE_PANICS.load(SeqCst), "a driver's waker");
                self.0.wake();
            }
        }
        Arc::new(Waker(self.0.waker()))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn describe(&self) -> String {
        "faulty".into()
    }
}

/// Of a child that did what must not be possible.
const UNSOUND: i32 = 3;
const VARIABLE: &str = "STRANDS_TEST_CHILD";

/// Runs `child` in a process of its own and expects it to be aborted with `message`.
fn aborts(test: &str, message: &str, child: fn()) {
    if std::env::var_os(VARIABLE).is_some_and(|value| value == test) {
        child();
        exit(0);
    }
    let Output { status, stderr, .. } = run_again(test).unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(!status.success() && status.code() != Some(UNSOUND), "{status}\n{stderr}");
    assert!(stderr.contains(message), "{status}\n{stderr}");
}

/// This program with only `test`; under `STRANDS_TEST_RUNNER`, as an emulator's children are not
/// emulated.
fn run_again(test: &str) -> io::Result<Output> {
    let runner = std::env::var("STRANDS_TEST_RUNNER").unwrap_or_default();
    let program = std::env::current_exe()?;
    let mut words = runner.split_whitespace().map(Into::into).chain([program.into_os_string()]);
    let mut command = Command::new(words.next().expect("the program at least"));
    command.args(words).args(["--exact", test, "--nocapture"]);
    command.env(VARIABLE, test).output()
}

#[test]
fn a_driver_that_panics_ends_the_process_and_no_thread() {
    aborts(
        "a_driver_that_panics_ends_the_process_and_no_thread",
        "its thread must not end",
        || {
            /// A fiber may have lent it out when its thread ends.
            struct Local;
            impl Drop for Local {
                fn drop(&mut self) {
                    exit(UNSOUND);
                }
            }
            thread_local!(static LOCAL: Local = const { Local });
            let runtime = Faulty::runtime();
            let fiber = spawn_at(&runtime, 0, || {
                LOCAL.with(|_| {
                    POLL_PANICS.store(true, SeqCst);
                    sleep_until(None);
                });
            });
            let _ = fiber.join();
        },
    );
}

#[test]
fn a_waker_that_panics_does_not_leave_a_frame_that_is_lent_out() {
    aborts(
        "a_waker_that_panics_does_not_leave_a_frame_that_is_lent_out",
        "a fiber that is on its way",
        || {
            let runtime = Faulty::runtime();
            WAKE_PANICS.store(true, SeqCst);
            // Until the worker sleeps, and has to be woken.
            loop {
                let local = 7;
                let attempt = || runtime.run(SpawnOptions::default(), || assert_eq!(local, 7));
                if catch_unwind(AssertUnwindSafe(attempt)).is_err() {
                    exit(UNSOUND); // The fiber may still read `local`.
                }
            }
        },
    );
}
