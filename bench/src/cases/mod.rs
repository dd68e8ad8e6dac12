//! The cases, in the order of the table.

mod channels;
mod contest;
pub mod echo;
mod locks;
mod parked;
mod ping_pong;
mod spawn_join;
mod structured;
mod switch;
mod yielding;

use crate::measure::Figures;
use crate::{Case, Plan, Row};

pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        switch::CASES,
        yielding::CASES,
        spawn_join::CASES,
        structured::CASES,
        ping_pong::CASES,
        channels::CASES,
        locks::CASES,
        parked::CASES,
        echo::CASES,
    ]
    .into_iter()
    .flatten()
}

/// One worker: wall and CPU time are the same thing, unless a neighbour takes part of the core.
const WALL: &[Row] = &[Row { figure: "wall", label: "", unit: "ns" }];

/// Several workers: what is won on the wall may be paid for on another core.
const WALL_AND_CPU: &[Row] = &[
    Row { figure: "wall", label: "", unit: "ns" },
    Row { figure: "cpu", label: "CPU of all cores", unit: "ns" },
];

/// Sets may up as every case does, before its first coroutine starts.
///
/// Its stacks are its default size, 32 KiB (the call counts words); none of these programs needs
/// more. Its pool keeps as many of them as are in use at once: the default of 1,000 would have it
/// map and unmap the rest of a batch each time.
fn configure_may(plan: &Plan, workers: usize) {
    may::config()
        .set_workers(workers)
        .set_stack_size(0x1000)
        .set_pool_capacity(plan.count.max(1_000));
}

/// tokio with `workers` threads.
///
/// One is its current-thread runtime: faster than the multi-thread one with one worker in every
/// case here, so the stronger opponent.
fn tokio_runtime(workers: usize) -> tokio::runtime::Runtime {
    let mut builder = match workers {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(workers).enable_all().build().expect("a tokio runtime")
}

/// Names the binary with Go's programs; `cargo xtask bench` sets it.
const GO: &str = "STRANDS_BENCH_GO";

pub fn has_go() -> bool {
    std::env::var_os(GO).is_some()
}

/// Becomes Go's program for `case`, which prints its figures itself.
///
/// The process stays the same, pinned and limited as it is for the others.
fn go(case: &str, plan: &Plan) -> Figures {
    use std::os::unix::process::CommandExt;
    let program = std::env::var_os(GO).unwrap_or_else(|| panic!("{GO} does not name Go's binary"));
    let error = std::process::Command::new(&program)
        .args([case, &plan.workers.to_string(), &plan.count.to_string()])
        .arg(plan.budget().as_millis().to_string())
        .exec();
    panic!("{}: {error}", program.display());
}

/// Stack of a plain thread where there are many: the address space of 10,000 defaults of 2 MiB is
/// no fair burden.
const THREAD_STACK_BYTES: usize = 64 << 10;

fn spawn_thread<T: Send + 'static>(
    f: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::Builder::new().stack_size(THREAD_STACK_BYTES).spawn(f).expect("a thread")
}

#[cfg(feature = "strands")]
fn strands_runtime(workers: usize) -> strands::Runtime {
    strands::Runtime::builder().workers(workers).build().expect("a strands runtime")
}
