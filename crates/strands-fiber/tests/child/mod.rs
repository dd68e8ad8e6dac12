//! Tests that end their process, change its limits, or count its mappings run in a child: the test
//! binary again, with only that test.

#![allow(dead_code)] // Each test binary uses what it needs.

use std::env;
use std::io::{self, Write};
use std::process::{Command, Output};

const VARIABLE: &str = "STRANDS_TEST_CHILD";

/// Whether this process is the child for the test called `test`.
pub fn is(test: &str) -> bool {
    let is = env::var_os(VARIABLE).is_some_and(|value| value == test);
    if is {
        no_core_files();
    }
    is
}

/// Crashes are the point of many of these tests, core files are not.
#[cfg(unix)]
fn no_core_files() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
}

/// Nor are the windows of an error reporter.
#[cfg(windows)]
fn no_core_files() {
    use windows_sys::Win32::System::Diagnostics::Debug::{
        SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SetErrorMode,
    };
    // SAFETY: it has no preconditions.
    unsafe { SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX) };
}

/// Runs the test called `test` in a child, with `variables` set.
pub fn run(test: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = this_program();
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env_remove("STRANDS_STACK_GUARD").env(VARIABLE, test);
    command.envs(variables.iter().copied()).output().unwrap()
}

/// This program, to be run again: under the words of `STRANDS_TEST_RUNNER` where those are set, as
/// an emulator's own children are not emulated.
pub fn this_program() -> Command {
    let program = env::current_exe().unwrap();
    let runner = env::var("STRANDS_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    let Some(runner) = words.next() else { return Command::new(program) };
    let mut command = Command::new(runner);
    command.args(words).arg(program);
    command
}

/// Runs the test called `test` in a child and expects it to pass; hands on what it skips.
pub fn pass(test: &str, variables: &[(&str, &str)]) {
    let output = run(test, variables);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test}: {}\n{errors}", output.status);
    for line in errors.lines().filter(|line| line.starts_with("SKIPPED")) {
        skip(line.trim_start_matches("SKIPPED "));
    }
}

/// Says on the real stderr, which the test harness does not capture, that something is not tested.
pub fn skip(what: &str) {
    io::stderr().write_all(format!("SKIPPED {what}\n").as_bytes()).unwrap();
}
