//! `cargo xtask`: one command for each thing that a maintainer does.
//!
//! What runs in CI is what runs here: `.ci/run` calls `cargo test --workspace` and `cargo xtask ci`
//! and adds nothing of its own, so a failure seen there is repeated on any machine by the line that
//! was printed above it. Shell scripts and a CI service's own language were turned down because
//! neither has tests, and both grow branches that never run.

use std::process::ExitCode;

mod ci;
mod coverage;
mod cross;
mod docs;
mod layers;
mod licences;
mod mutants;
mod overcommit;
mod parity;
mod readme;
mod repeat;
mod sanitize;
mod soak;
mod two_versions;
mod wine;

mod bench;

mod command;
mod disk;
mod workspace;

use command::Outcome;

/// One thing that `cargo xtask` can do.
struct Task {
    name: &'static str,
    arguments: &'static str,
    summary: &'static str,
    run: fn(Vec<String>) -> ExitCode,
}

const TASKS: &[Task] = &[
    Task {
        name: "ci",
        arguments: "[STEP…] [--list]",
        summary: "run every check, or the named ones, and print a table",
        run: ci::run,
    },
    Task {
        name: "docs",
        arguments: "",
        summary: "look for an example that runs above every public item",
        run: |args| report(no_arguments(args).and_then(|()| docs::run())),
    },
    Task {
        name: "layers",
        arguments: "",
        summary: "compare the crates' dependencies and cfgs with ARCHITECTURE.md",
        run: |args| report(no_arguments(args).and_then(|()| layers::run())),
    },
    Task {
        name: "parity",
        arguments: "[--check | --why [ITEM] | --extract]",
        summary: "compare the public API with std's, item by item, and write PARITY.md",
        run: |args| report(parity::run(args)),
    },
    Task {
        name: "mutants",
        arguments: "[NAME…] [--list]",
        summary: "remove each line that mutants.txt names; its loom model must fail",
        run: |args| report(mutants::run(args)),
    },
    Task {
        name: "licences",
        arguments: "",
        summary: "check every dependency's licence against the allow list",
        run: |args| report(no_arguments(args).and_then(|()| licences::run())),
    },
    Task {
        name: "readme",
        arguments: "",
        summary: "check links in *.md files and the commands that README.md shows",
        run: |args| report(no_arguments(args).and_then(|()| readme::run())),
    },
    Task {
        name: "stress",
        arguments: "[N] [CARGO TEST ARGUMENT…]",
        summary: "run all tests with the stress tests N times as long (10)",
        run: |args| report(repeat::stress(args)),
    },
    Task {
        name: "repeat",
        arguments: "[N] FILTER… [-p CRATE] [--release] [--busy] [--timeout SECONDS]",
        summary: "run matching tests N times (1000), stop at the first failure",
        run: |args| report(repeat::run(args)),
    },
    Task {
        name: "sanitize",
        arguments: "address|thread|valgrind [CARGO TEST ARGUMENT…]",
        summary: "run the tests under a tool that sees undefined behaviour",
        run: |args| report(sanitize::run(args)),
    },
    Task {
        name: "coverage",
        arguments: "[CARGO TEST ARGUMENT…]",
        summary: "tell which lines the tests run, and list those that none does",
        run: |args| report(coverage::run(args)),
    },
    Task {
        name: "overcommit",
        arguments: "",
        summary: "test a kernel that accounts for all memory: sets vm.overcommit_memory for seconds",
        run: |args| report(no_arguments(args).and_then(|()| overcommit::run())),
    },
    Task {
        name: "cross",
        arguments: "[TARGET…] [--list]",
        summary: "run the tests for other platforms under emulators, or check that they build",
        run: |args| report(cross::run(args)),
    },
    Task {
        name: "soak",
        arguments: "[--seconds N] [--seed S] [--epoch N] [--busy] [--stall N]",
        summary: "run everything at once and at random, and check that all is accounted for",
        run: |args| report(soak::run(args)),
    },
    Task {
        name: "bench",
        arguments: "[ARGUMENT…]",
        summary: "race strands against its peers and print one table",
        run: bench::run,
    },
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let name = match args.next().as_deref() {
        None | Some("-h" | "--help" | "help") => {
            print!("{}", help());
            return ExitCode::SUCCESS;
        }
        Some(name) => name.to_owned(),
    };
    match TASKS.iter().find(|task| task.name == name) {
        Some(task) => (task.run)(args.collect()),
        None => {
            eprintln!("error: there is no `cargo xtask {name}`\n\n{}", help());
            ExitCode::from(2)
        }
    }
}

fn help() -> String {
    let mut text = String::from("usage: cargo xtask COMMAND [ARGUMENT…]\n\n");
    for task in TASKS {
        text += &format!("  {:<9} {}\n", task.name, task.summary);
        if !task.arguments.is_empty() {
            text += &format!("  {:<9}   {} {}\n", "", task.name, task.arguments);
        }
    }
    text
}

fn no_arguments(args: Vec<String>) -> Outcome {
    match args.first() {
        None => Ok(()),
        Some(arg) => Err(command::Failure::Failed(format!("unknown argument `{arg}`"))),
    }
}

fn report(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.reason());
            ExitCode::FAILURE
        }
    }
}
