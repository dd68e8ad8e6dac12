//! Parties: the same code run by fibers on chosen workers and by plain threads.
#![allow(dead_code)]

use std::io;
use std::sync::Arc;

use strands_reactor::{Backend, driver_factory};
use strands_sched::{Builder, Join, Placement, Runtime, SpawnOptions, spawn_on};

pub fn runtime(workers: usize) -> Runtime {
    Builder::new().workers(workers).driver(driver_factory(Backend::Auto)).build().unwrap()
}

/// Where code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    Fiber(usize),
    Thread,
}

pub const PARTIES: [Party; 3] = [Party::Fiber(0), Party::Fiber(1), Party::Thread];

pub enum Running<T> {
    Fiber(Join<T>),
    Thread(std::thread::JoinHandle<T>),
}

impl Party {
    pub fn start<T: Send + 'static>(
        self,
        runtime: &Runtime,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Running<T> {
        match self {
            Party::Fiber(worker) => {
                let placement = Placement::Worker(worker);
                let options = SpawnOptions { placement, ..SpawnOptions::default() };
                Running::Fiber(spawn_on(runtime.shared(), options, f).unwrap())
            }
            Party::Thread => Running::Thread(std::thread::spawn(f)),
        }
    }
}

impl<T> Running<T> {
    pub fn join(self) -> T {
        self.outcome().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    }

    pub fn outcome(self) -> std::thread::Result<T> {
        match self {
            Running::Fiber(fiber) => fiber.join(),
            Running::Thread(thread) => thread.join(),
        }
    }
}

/// Spawns a fiber from a fiber.
pub fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Join<T> {
    strands_sched::spawn(SpawnOptions::default(), no_runtime, f).unwrap()
}

fn no_runtime() -> io::Result<Arc<strands_sched::Shared>> {
    Err(io::Error::other("not a fiber"))
}

/// How many times to repeat what races, given how often it is by default.
pub fn rounds(default: usize) -> usize {
    let factor = std::env::var("STRANDS_STRESS").ok().and_then(|text| text.parse().ok());
    default * factor.unwrap_or(1)
}
