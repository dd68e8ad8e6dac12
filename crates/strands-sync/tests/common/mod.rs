//! Parties of every kind for the tests.
#![allow(dead_code, reason = "each test file uses its share")]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use strands_sched::{
    Builder, Placement, Runtime, Shared, SpawnOptions, spawn_local, spawn_on, yield_now,
};

pub fn runtime(workers: usize) -> Runtime {
    Builder::new().workers(workers).build().unwrap()
}

pub fn at(worker: usize) -> SpawnOptions {
    SpawnOptions { placement: Placement::Worker(worker), ..SpawnOptions::default() }
}

/// How many times as large as by default.
pub fn stress() -> usize {
    std::env::var("STRANDS_STRESS").map_or(1, |factor| factor.parse().unwrap())
}

/// Random numbers from a seed, so that a failure can be replayed: splitmix64.
pub struct Random(pub u64);

impl Random {
    /// Less than `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as usize % limit
    }

    /// Often too little to wait, sometimes enough.
    pub fn timeout(&mut self) -> Duration {
        Duration::from_micros([0, 1, 10, 50, 200][self.below(5)])
    }
}

/// What runs a closure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Thread,
    /// On the worker with this index.
    Fiber(usize),
}

/// A plain thread, fibers of one worker, fibers of two.
pub const PAIRS: [(Kind, Kind); 5] = [
    (Kind::Thread, Kind::Thread),
    (Kind::Thread, Kind::Fiber(0)),
    (Kind::Fiber(0), Kind::Thread),
    (Kind::Fiber(0), Kind::Fiber(0)),
    (Kind::Fiber(0), Kind::Fiber(1)),
];

/// Joins what was started; its panic, if it did.
pub type Started<T> = Box<dyn FnOnce() -> std::thread::Result<T>>;

pub fn start<T: Send + 'static>(
    runtime: &Shared,
    kind: Kind,
    f: impl FnOnce() -> T + Send + 'static,
) -> Started<T> {
    match kind {
        Kind::Thread => {
            let thread = std::thread::spawn(f);
            Box::new(move || thread.join())
        }
        Kind::Fiber(worker) => {
            let fiber = spawn_on(runtime, at(worker), f).unwrap();
            Box::new(move || fiber.join())
        }
    }
}

/// Runs `f` on a plain thread, as the only fiber of one worker, and beside a second worker.
pub fn everywhere(f: fn()) {
    f();
    for workers in [1, 2] {
        let runtime = runtime(workers);
        runtime.run(at(0), f).unwrap();
        runtime.shutdown(None).unwrap();
    }
}

/// Runs `f` as a fiber of a runtime with one worker. On return all it did not join is cancelled.
pub fn on_one_worker<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    let runtime = runtime(1);
    let value = runtime.run(at(0), f).unwrap();
    runtime.shutdown(None).unwrap();
    value
}

/// A fiber on the caller's worker.
pub struct Local<T>(strands_sched::LocalJoin<T>);

impl<T: 'static> Local<T> {
    /// Spawns `f` and returns when it has run up to its first suspension after `f`'s argument was called, or to its end.
    ///
    /// One worker runs one fiber at a time: that the caller runs again means that the other waits.
    pub fn until_it_waits(f: impl FnOnce(&dyn Fn()) -> T + 'static) -> Local<T> {
        let about_to_wait = Rc::new(Cell::new(false));
        let mark = about_to_wait.clone();
        let join = spawn_local(SpawnOptions::default(), move || f(&|| mark.set(true))).unwrap();
        while !about_to_wait.get() && !join.is_finished() {
            yield_now();
        }
        Local(join)
    }

    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    pub fn join(self) -> std::thread::Result<T> {
        self.0.join()
    }
}

/// Lets all ready fibers of the worker run until they wait.
pub fn let_others_run() {
    (0..100).for_each(|_| yield_now());
}
