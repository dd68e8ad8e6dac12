//! Tests that end their process, change its limits, or count its mappings run in a child: the test
//! binary again, with only that test.

#![allow(dead_code)] // Each test binary uses what it needs.

use std::env;
use std::io::{self, Write};
use std::process::{Command, Output};

use rustix::process::{Resource, Rlimit, setrlimit};

const VARIABLE: &str = "STRANDS_TEST_CHILD";

/// Whether this process is the child for the test called `test`.
pub fn is(test: &str) -> bool {
    let is = env::var_os(VARIABLE).is_some_and(|value| value == test);
    if is {
        // Crashes are the point of many of these tests, core files are not.
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
    }
    is
}

/// Runs the test called `test` in a child, with `variables` set.
pub fn run(test: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env_remove("STRANDS_STACK_GUARD").env(VARIABLE, test);
    command.envs(variables.iter().copied()).output().unwrap()
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
