//! `cargo xtask ci`: the steps, in order, and a table of how each ended.
//!
//! A step that fails does not stop the next: one run shows all that is wrong. A step that could not
//! run fails as loudly as one that found something. Builds with other flags have target directories
//! of their own, because cargo throws away what it built with different `RUSTFLAGS`.
//!
//! All those directories together would fill a small disk, and a full one shows as a linker that
//! dies of a signal. So in CI a step that is ok leaves nothing in a directory of its own, and each
//! step says beforehand how much room it takes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use crate::command::{Cmd, Failure, Outcome, all};
use crate::sanitize::{self, Tool};
use crate::workspace::Workspace;
use crate::{cross, disk, docs, layers, licences, mutants, parity, readme, soak, two_versions};

/// One check.
struct Step {
    name: &'static str,
    summary: &'static str,
    run: fn(&Workspace) -> Outcome,
    /// The directories below the target directory that no other step uses.
    own: &'static [&'static str],
    /// What it adds to the disk at most, as measured and rounded up.
    needs_mb: u64,
    /// It leaves a core idle half of its time: the steps that follow run meanwhile.
    beside: bool,
}

const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        summary: "every file is as rustfmt writes it, bench/ too",
        run: fmt,
        own: &[],
        needs_mb: 0,
        beside: false,
    },
    Step {
        name: "clippy",
        summary: "no warning in any target, bench/ too",
        run: clippy,
        own: &[],
        needs_mb: 300,
        beside: false,
    },
    Step {
        name: "doc",
        summary: "the documentation builds without a warning",
        run: doc,
        own: &["doc"],
        needs_mb: 300,
        beside: false,
    },
    Step {
        name: "doc-examples",
        summary: "every public item has an example that runs",
        run: docs::check,
        own: &[],
        needs_mb: 100,
        beside: false,
    },
    Step {
        name: "msrv",
        summary: "the oldest supported compiler builds all",
        run: msrv,
        own: &[],
        needs_mb: 300,
        beside: false,
    },
    Step {
        name: "layers",
        summary: "crates depend, and cfgs appear, only where ARCHITECTURE.md allows",
        run: layers::check,
        own: &[],
        needs_mb: 0,
        beside: false,
    },
    Step {
        name: "licences",
        summary: "every dependency's licence is on the list",
        run: licences::check,
        own: &[],
        needs_mb: 0,
        beside: false,
    },
    Step {
        name: "readme",
        summary: "links point at files, shown commands exist",
        run: readme::check,
        own: &[],
        needs_mb: 0,
        beside: false,
    },
    Step {
        name: "parity",
        summary: "PARITY.md says what strands has of std, item by item",
        run: parity::check,
        own: &["parity"],
        needs_mb: 100,
        beside: false,
    },
    Step {
        name: "bench-builds",
        summary: "bench/ builds with its lock file",
        run: bench_builds,
        own: &[],
        needs_mb: 300,
        beside: false,
    },
    Step {
        name: "guard-mprotect",
        summary: "the tests pass with guards by mprotect, as on Linux before 6.13",
        run: guard_mprotect,
        own: &[],
        needs_mb: 300,
        beside: false,
    },
    Step {
        name: "mio-backend",
        summary: "the tests that do I/O pass through mio, as on macOS, the BSDs and Windows",
        run: mio_backend,
        own: &[],
        needs_mb: 100,
        beside: false,
    },
    Step {
        name: "thread-backend",
        summary: "the tests pass where a fiber is an OS thread",
        run: thread_backend,
        own: &["thread-backend"],
        needs_mb: 500,
        beside: false,
    },
    Step {
        name: "panic-abort",
        summary: "a program that is built with panic = \"abort\" works and ends",
        run: panic_abort,
        own: &["panic-abort"],
        needs_mb: 200,
        beside: false,
    },
    Step {
        name: "lto",
        summary: "fibers switch and unwind in programs that are optimised as one",
        run: lto,
        own: &["lto"],
        needs_mb: 200,
        beside: false,
    },
    Step {
        name: "two-versions",
        summary: "two versions of the crates work in one program",
        run: two_versions::check,
        own: &["two-versions"],
        needs_mb: 300,
        beside: false,
    },
    Step {
        name: "soak",
        summary: "five minutes of everything at random, by a seed that nobody has tried",
        run: soak::check,
        own: &[],
        needs_mb: 300,
        beside: true,
    },
    Step {
        name: "loom",
        summary: "the loom models of the protocols hold",
        run: loom,
        own: &["loom"],
        needs_mb: 500,
        beside: false,
    },
    Step {
        name: "mutants",
        summary: "the lines without which a loom model has to fail are there",
        run: mutants::check_lines,
        own: &[],
        needs_mb: 0,
        beside: false,
    },
    Step {
        name: "cross",
        summary: "the tests pass on other ISAs and systems, or at least build there",
        run: |workspace| cross::check(workspace, &[]),
        own: &["cross", "wine"],
        needs_mb: 3000,
        beside: false,
    },
    Step {
        name: "asan",
        summary: "AddressSanitizer has nothing to say of the tests, and finds planted mistakes",
        run: |workspace| sanitize::check(workspace, Tool::Address, &[]),
        own: &["sanitize-address"],
        needs_mb: 3000,
        beside: false,
    },
    Step {
        name: "tsan",
        summary: "ThreadSanitizer has nothing to say of them either",
        run: |workspace| sanitize::check(workspace, Tool::Thread, &[]),
        own: &["sanitize-thread"],
        needs_mb: 2000,
        beside: false,
    },
    Step {
        name: "valgrind",
        summary: "memcheck follows the stacks that are switched",
        run: |workspace| sanitize::check(workspace, Tool::Valgrind, &[]),
        own: &["sanitize-valgrind"],
        needs_mb: 500,
        beside: false,
    },
];

/// How one step ended.
struct Row {
    name: &'static str,
    outcome: Outcome,
    seconds: f64,
}

/// Runs the steps named in `args`, or all of them.
pub fn run(args: Vec<String>) -> ExitCode {
    if args.iter().any(|arg| arg == "--list") {
        for step in STEPS {
            println!("{:<15} {}", step.name, step.summary);
        }
        return ExitCode::SUCCESS;
    }
    let steps = match select(&args) {
        Ok(steps) => steps,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let workspace = match Workspace::load() {
        Ok(workspace) => workspace,
        Err(failure) => {
            eprintln!("error: no step ran: {}", failure.reason());
            return ExitCode::FAILURE;
        }
    };
    let rows = thread::scope(|scope| {
        let (mut rows, mut beside) = (Vec::new(), Vec::new());
        for step in steps {
            if step.beside {
                beside.push(scope.spawn(|| step.check(&workspace)));
            } else {
                rows.push(step.check(&workspace));
            }
        }
        let ended = beside.into_iter().map(|step| step.join().expect("an xtask thread panicked"));
        rows.extend(ended);
        rows
    });
    print!("\n{}", summary(&rows));
    if rows.iter().all(|row| row.outcome.is_ok()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The steps with these names in the order of [`STEPS`], or all if there are none.
fn select(names: &[String]) -> Result<Vec<&'static Step>, String> {
    if let Some(name) = names.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        return Err(format!("there is no step `{name}`; `cargo xtask ci --list` lists them"));
    }
    let wanted = |step: &&Step| names.is_empty() || names.iter().any(|name| name == step.name);
    Ok(STEPS.iter().filter(wanted).collect())
}

impl Step {
    fn check(&self, workspace: &Workspace) -> Row {
        println!("\n== {}: {}", self.name, self.summary);
        let start = Instant::now();
        let outcome = self.run_with_room(workspace);
        let row = Row { name: self.name, outcome, seconds: start.elapsed().as_secs_f64() };
        println!("== {}: {} after {:.1} s", row.name, row.result(), row.seconds);
        row
    }

    fn run_with_room(&self, workspace: &Workspace) -> Outcome {
        disk::expect_room(&workspace.target, self.needs_mb, self.own)?;
        (self.run)(workspace)?;
        all(self.own.iter().map(|name| disk::give_back(&workspace.target.join(name))))
    }
}

impl Row {
    fn result(&self) -> &'static str {
        match self.outcome {
            Ok(()) => "ok",
            Err(Failure::Failed(_)) => "FAILED",
            Err(Failure::DidNotRun(_)) => "DID NOT RUN",
        }
    }
}

fn summary(rows: &[Row]) -> String {
    let mut text = format!("{:<15} {:<12} {:>7}\n", "step", "result", "seconds");
    for row in rows {
        text += &format!("{:<15} {:<12} {:>7.1}\n", row.name, row.result(), row.seconds);
    }
    for row in rows {
        if let Err(failure) = &row.outcome {
            let reason = failure.reason().replace('\n', "\n    ");
            text += &format!("\n{} {}:\n    {reason}\n", row.name, row.result());
        }
    }
    let ok = rows.iter().filter(|row| row.outcome.is_ok()).count();
    let others = STEPS.len() - rows.len();
    let partial = if others == 0 { String::new() } else { format!(" ({others} not asked for)") };
    let verdict = if ok == rows.len() { "ok" } else { "FAILED" };
    text + &format!("\nci: {verdict}, {ok} of {} steps are ok{partial}\n", rows.len())
}

fn fmt(workspace: &Workspace) -> Outcome {
    component(workspace, "fmt", "rustfmt")?;
    let bench = bench_manifest(workspace)?;
    all([
        cargo(workspace, "fmt --all --check").run(),
        cargo(workspace, "fmt --all --check --manifest-path").arg(bench).run(),
    ])
}

fn clippy(workspace: &Workspace) -> Outcome {
    component(workspace, "clippy", "clippy")?;
    let bench = bench_manifest(workspace)?;
    all([
        cargo(workspace, "clippy --workspace --all-targets -- -D warnings").run(),
        cargo(workspace, "clippy --locked --all-features --all-targets --manifest-path")
            .arg(bench)
            .arg("--")
            .arg("-D")
            .arg("warnings")
            .run(),
    ])
}

fn doc(workspace: &Workspace) -> Outcome {
    cargo(workspace, "doc --workspace --no-deps").env("RUSTDOCFLAGS", "-D warnings").run()
}

fn msrv(workspace: &Workspace) -> Outcome {
    let version = oldest_compiler(workspace)?;
    // Where there is no rustup there are no other toolchains either.
    let toolchains =
        Cmd::new(&workspace.root, "rustup", "toolchain list").read().unwrap_or_default();
    if let Some(toolchain) = toolchain_of_version(&toolchains, &version) {
        return cargo(workspace, &format!("+{toolchain} check --workspace --all-targets")).run();
    }
    let active = Cmd::new(&workspace.root, "rustc", "--version").read()?;
    let active = active.split_whitespace().nth(1).unwrap_or_default();
    if same_version(active, &version) {
        println!("(the active rustc is {active})");
        return cargo(workspace, "check --workspace --all-targets").run();
    }
    Err(Failure::DidNotRun(format!(
        "the manifests promise rust-version = \"{version}\", but that compiler is not here and the \
         active one is {active}: rustup toolchain install {version} --profile minimal"
    )))
}

/// The one `rust-version` of all members.
fn oldest_compiler(workspace: &Workspace) -> Outcome<String> {
    let mut version = None;
    for package in workspace.members() {
        let Some(theirs) = &package.rust_version else {
            let manifest = package.manifest.display();
            return Err(Failure::Failed(format!("{manifest} lacks rust-version.workspace = true")));
        };
        if version.get_or_insert(theirs) != &theirs {
            let text = format!("rust-version of {} is not that of the others", package.name);
            return Err(Failure::Failed(text));
        }
    }
    let version = version.ok_or_else(|| Failure::DidNotRun("the workspace is empty".into()))?;
    Ok(version.clone())
}

/// The name to give to `cargo +NAME` for a compiler of that version, from `rustup toolchain list`.
fn toolchain_of_version(list: &str, version: &str) -> Option<String> {
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    let mut versions = names.filter_map(|name| name.split('-').next());
    versions.find(|theirs| same_version(theirs, version)).map(str::to_owned)
}

/// Whether `compiler`, such as `1.95.0`, is the oldest of `version`, such as `1.95` or `1.95.0`.
/// A later patch release would hide nothing that an earlier one lacks, so it serves as well.
fn same_version(compiler: &str, version: &str) -> bool {
    let major_minor = |text: &str| {
        let mut parts = text.split('.').map(|part| part.parse::<u32>().ok());
        Some((parts.next()??, parts.next()??))
    };
    major_minor(compiler).is_some() && major_minor(compiler) == major_minor(version)
}

fn bench_builds(workspace: &Workspace) -> Outcome {
    let bench = bench_manifest(workspace)?;
    cargo(workspace, "check --locked --all-features --all-targets --manifest-path").arg(bench).run()
}

fn guard_mprotect(workspace: &Workspace) -> Outcome {
    cargo(workspace, "test -p strands-fiber -p strands-sched -p strands")
        .env("STRANDS_STACK_GUARD", "mprotect")
        .run_tests()
}

fn mio_backend(workspace: &Workspace) -> Outcome {
    cargo(workspace, "test -p strands-reactor -p strands --tests")
        .env("STRANDS_BACKEND", "mio")
        .run_tests()
}

fn thread_backend(workspace: &Workspace) -> Outcome {
    cargo(workspace, "test -p strands-fiber -p strands-sched --target-dir")
        .arg(own_target(workspace, "thread-backend"))
        .env("RUSTFLAGS", r#"--cfg strands_backend="thread""#)
        .run_tests()
}

fn panic_abort(workspace: &Workspace) -> Outcome {
    cargo(workspace, "run -p strands --example abort_program --target-dir")
        .arg(own_target(workspace, "panic-abort"))
        .env("CARGO_PROFILE_DEV_PANIC", "abort")
        .run()
}

/// What the optimiser learns of the whole program must not tell it that nothing unwinds.
fn lto(workspace: &Workspace) -> Outcome {
    let tests = "test -p strands-fiber --release --test arch --test coroutine --test cleanup";
    cargo(workspace, &format!("{tests} --target-dir"))
        .arg(own_target(workspace, "lto"))
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .run_tests()
}

/// Runs the models of strands-sched and of every other member that depends on loom.
fn loom(workspace: &Workspace) -> Outcome {
    let has_models = |package: &&crate::workspace::Package| {
        let names_loom = package.dependencies.iter().any(|dependency| dependency.name == "loom");
        package.name == "strands-sched" || names_loom
    };
    all(workspace.members().filter(has_models).map(|package| {
        cargo(workspace, &format!("test -p {} --release --lib --target-dir", package.name))
            .arg(own_target(workspace, "loom"))
            .env("RUSTFLAGS", "--cfg loom")
            .run_tests()
    }))
}

fn cargo(workspace: &Workspace, line: &str) -> Cmd {
    Cmd::new(&workspace.root, "cargo", line)
}

fn own_target(workspace: &Workspace, name: &str) -> String {
    let path = workspace.target.join(name);
    path.strip_prefix(&workspace.root).unwrap_or(&path).to_string_lossy().into_owned()
}

fn bench_manifest(workspace: &Workspace) -> Outcome<String> {
    let manifest = PathBuf::from("bench/Cargo.toml");
    if workspace.root.join(&manifest).exists() {
        Ok(manifest.to_string_lossy().into_owned())
    } else {
        Err(Failure::DidNotRun(format!("{} is not there", manifest.display())))
    }
}

fn component(workspace: &Workspace, subcommand: &str, name: &str) -> Outcome {
    let probe = cargo(workspace, &format!("{subcommand} --version")).read();
    probe.map(drop).map_err(|failure| {
        let reason = failure.reason();
        Failure::DidNotRun(format!("{reason}\nto install it: rustup component add {name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_run_in_their_own_order_whatever_order_they_are_asked_for_in() {
        let names = |steps: Vec<&Step>| steps.iter().map(|step| step.name).collect::<Vec<_>>();
        let asked = ["loom".to_owned(), "fmt".to_owned()];
        assert_eq!(names(select(&asked).unwrap()), ["fmt", "loom"]);
        assert_eq!(select(&[]).unwrap().len(), STEPS.len());
        assert!(select(&["fnt".to_owned()]).is_err());
    }

    #[test]
    fn the_summary_tells_failed_from_did_not_run() {
        let rows = [
            Row { name: "fmt", outcome: Ok(()), seconds: 1.25 },
            Row { name: "msrv", outcome: Err(Failure::DidNotRun("get it".into())), seconds: 0.0 },
            Row { name: "loom", outcome: Err(Failure::Failed("two\nlines".into())), seconds: 61.0 },
        ];
        let expected = format!(
            "\
step            result       seconds
fmt             ok               1.2
msrv            DID NOT RUN      0.0
loom            FAILED          61.0

msrv DID NOT RUN:
    get it

loom FAILED:
    two
    lines

ci: FAILED, 1 of 3 steps are ok ({} not asked for)
",
            STEPS.len() - 3
        );
        assert_eq!(summary(&rows), expected);
    }

    #[test]
    fn a_toolchain_is_found_by_its_version() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default)\n1.94.1-x86_64-unknown-linux-gnu\n1.95.0-x86_64-unknown-linux-gnu\n";
        assert_eq!(toolchain_of_version(list, "1.95").as_deref(), Some("1.95.0"));
        assert_eq!(toolchain_of_version(list, "1.95.0").as_deref(), Some("1.95.0"));
        assert_eq!(toolchain_of_version(list, "1.9"), None);
        assert!(!same_version("stable", "nightly"));
    }
}
