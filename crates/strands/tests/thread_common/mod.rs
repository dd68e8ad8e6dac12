//! What the tests of this folder share.
#![allow(dead_code)]

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use strands::Runtime;

/// How much longer stress tests shall run than by default.
pub fn stress() -> usize {
    std::env::var("STRANDS_STRESS")
        .map_or(1, |factor| factor.parse().expect("STRANDS_STRESS is a number"))
}

pub fn runtime(workers: usize) -> Runtime {
    Runtime::builder().workers(workers).build().unwrap()
}

/// Runs `test` from a plain thread, and from fibers with and without other workers.
pub fn from_everywhere(test: impl Fn() + Send + Sync) {
    test();
    std::thread::scope(|scope| scope.spawn(&test).join()).unwrap();
    for workers in [1, 2, 4] {
        runtime(workers).run(&test);
    }
}

/// Set in a child process to the case that it shall run.
const CHILD: &str = "STRANDS_TEST_CHILD";

/// The case that this process is the child for.
pub fn child_case() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// This program again, to run `case`; `test` is the test that is there.
pub fn child(test: &str, case: &str) -> Command {
    let mut command = this_program();
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, case);
    for variable in ["STRANDS_WORKERS", "RUST_BACKTRACE"] {
        command.env_remove(variable);
    }
    command
}

/// This program, to be run again: under the words of `STRANDS_TEST_RUNNER` where those are set, as
/// an emulator's own children are not emulated.
pub fn this_program() -> Command {
    let program = std::env::current_exe().unwrap();
    let runner = std::env::var("STRANDS_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    let Some(runner) = words.next() else { return Command::new(program) };
    let mut command = Command::new(runner);
    command.args(words).arg(program);
    command
}

pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The text of a panic's payload.
pub fn text(payload: &(dyn std::any::Any + Send)) -> &str {
    match payload.downcast_ref::<&str>() {
        Some(text) => text,
        None => payload.downcast_ref::<String>().map_or("", String::as_str),
    }
}

/// Random numbers from a seed, so that a failure can be replayed: splitmix64.
pub struct Random(pub u64);

impl Random {
    /// Less than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }
}

/// Counts those that exist.
pub struct Counted(pub Arc<AtomicUsize>);

impl Counted {
    pub fn new(count: &Arc<AtomicUsize>) -> Counted {
        count.fetch_add(1, SeqCst);
        Counted(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}
