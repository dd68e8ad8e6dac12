//! What the tests of the scheduler share.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::io;
use std::sync::Arc;

use strands_sched::{Builder, Join, Placement, Runtime, Shared, SpawnOptions, spawn_on};

/// A runtime whose driver knows only time.
pub fn runtime(workers: usize) -> Runtime {
    Builder::new().workers(workers).build().unwrap()
}

pub fn on(worker: usize) -> SpawnOptions {
    SpawnOptions { placement: Placement::Worker(worker), ..SpawnOptions::default() }
}

/// Spawns on the caller's runtime.
#[track_caller]
pub fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Join<T> {
    strands_sched::spawn(SpawnOptions::default(), no_default, f).unwrap()
}

/// Spawns on one worker of `runtime`.
#[track_caller]
pub fn spawn_at<T: Send + 'static>(
    runtime: &Runtime,
    worker: usize,
    f: impl FnOnce() -> T + Send + 'static,
) -> Join<T> {
    spawn_on(runtime.shared(), on(worker), f).unwrap()
}

/// Runs `f` as a fiber of `runtime`.
#[track_caller]
pub fn run<T: Send>(runtime: &Runtime, f: impl FnOnce() -> T + Send) -> T {
    runtime.run(SpawnOptions::default(), f).unwrap()
}

pub fn no_default() -> io::Result<Arc<Shared>> {
    Err(io::Error::other("these tests have no default runtime"))
}

/// How much more than usual the stress tests shall do.
pub fn stress() -> usize {
    std::env::var("STRANDS_STRESS").map_or(1, |text| text.parse().expect("STRANDS_STRESS"))
}

/// `count` fibers, or fewer where each is an OS thread (or one of the 8,128 that ThreadSanitizer can
/// follow), or where its guard costs two mappings of the 65,530 that a process may have.
pub fn fibers(count: usize) -> usize {
    let guard = strands_fiber::stack::guard_kind().unwrap();
    match () {
        () if cfg!(any(strands_backend = "thread", strands_sanitizer = "thread")) => count / 100,
        () if guard == strands_sched::GuardKind::Mprotect => count / 10,
        () => count,
    }
}

/// A small generator (xorshift64*), so that a failure can be replayed by its seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }
}
