//! `cargo xtask sanitize`: the tests under AddressSanitizer, ThreadSanitizer or valgrind.
//!
//! The switch is announced to the tool (`strands-fiber/src/sanitizer.rs`). Whether the tool sees
//! through it is asked first, by mistakes made on purpose: the example `planted` makes them, and
//! each must be reported.
//!
//! - `address`: nightly's compiler, for its flag. Uses of a frame after its return and leaks too.
//! - `thread`: all code must be instrumented, std too, or its atomics look like races. rustup's
//!   nightly has std's source only where it was asked for; Debian's compiler with its source and
//!   LLVM's runtime come by `apt-get`.
//! - `valgrind`: the usual compiler. It runs a thread at a time and 20 times as slow, so only what
//!   switches stacks: strands-fiber.
//!
//! rustix calls libc here, not the kernel: the sanitizers look at libc's calls, to learn what
//! memory is mapped anew, and which descriptors hand something from thread to thread.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::{Cmd, Ended, Failure, Outcome, all};
use crate::workspace::{Workspace, files, read};

/// One of the tools.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tool {
    Address,
    Thread,
    Valgrind,
}

use Tool::{Address, Thread, Valgrind};

/// Mistakes in the example `planted`, and what the tool says of each; `None` for what is right and
/// must not be reported.
const PLANTED: &[(Tool, &str, Option<&str>)] = &[
    (Address, "use-after-free", Some("AddressSanitizer: heap-use-after-free")),
    (Address, "use-after-return", Some("AddressSanitizer: stack-use-after-return")),
    (Address, "neighbour", Some("AddressSanitizer: stack-buffer-overflow")),
    (Address, "no-race", None),
    (Thread, "race", Some("ThreadSanitizer: data race")),
    (Thread, "no-race", None),
    (Valgrind, "use-after-free", Some("Invalid read of size 8")),
    (Valgrind, "no-race", None),
];

/// Tests that are left out under a tool, by a part of their names, and why.
const SKIPPED: &[(Tool, &str, &str)] = &[
    (Address, "walks::", ONE_MORE_FRAME),
    (Address, "an_entry_finds_what_the_abi_promises", ONE_MORE_FRAME),
    (Address, "a_switch_keeps_what_a_call_keeps", ONE_MORE_FRAME),
    (Address, "too_many_mappings_are_an_error", LIMITS),
    (Address, "a_runtime_starts_or_says_why_not_however_little_memory_is_left", LIMITS),
    (Address, "limits_on_memory_are_errors_that_name_them", LIMITS),
    (Address, "a_limit_on_locked_memory_is_an_error_that_names_it", LOCKED),
    (Address, "locked_memory_before_and_after_the_start", LOCKED),
    (Address, "giving_memory_back_may_fail", "the sanitizer ends if it cannot unmap its own"),
    (
        Address,
        "stacks_are_mapped_without_reserving_memory",
        "it looks up the mapping of a local, which lies elsewhere here",
    ),
    (Address, "each_program_is_rejected_where_and_as_it_says", COMPILER),
    (Address, "ignored_tests_are_ignored", COMPILER),
    (
        Address,
        "a_handler_that_comes_later_and_chains",
        "its frames do not fit a signal's stack here",
    ),
    (Address, "does_what_an_ordered_map_does", "slow"),
    (Address, "a_million", "slow; the same with fewer fibers is tested"),
    (Thread, "timer::tests::", "slow, and of one thread"),
    (Thread, "large_values_fit_the_stack_as_on_a_thread", "its frames are larger"),
    (Valgrind, "walks::", ONE_MORE_FRAME),
    (Valgrind, "an_entry_finds_what_the_abi_promises", ONE_MORE_FRAME),
    (Valgrind, "a_switch_keeps_what_a_call_keeps", ONE_MORE_FRAME),
    (Valgrind, "each_coroutine_has_its_own_control_words", "valgrind rounds to nearest always"),
    (Valgrind, "sizes_that_cannot_be_are_errors", "valgrind's mmap refuses them in its own words"),
    (Valgrind, "a_hundred_thousand_are_alive_at_once", "valgrind looks for a stack in a list"),
];

/// They take away memory, mappings or threads, which the sanitizer needs too, and more of them.
const LIMITS: &str = "the sanitizer does not live within the test's limits";
/// Shadow memory is terabytes of address space.
const LOCKED: &str = "the sanitizer's shadow memory cannot be locked";
const COMPILER: &str = "tests the compiler, not the library";
/// Between an entry and the ISA's first frame: it tells the tool.
const ONE_MORE_FRAME: &str = "the entry's caller is another one here";

/// Frames are looked at after their return too. Faults are ours and std's to tell apart, and
/// signals' stacks ours to give: tests look at both.
const ASAN_OPTIONS: &str =
    "detect_stack_use_after_return=1:handle_segv=0:handle_sigbus=0:use_sigaltstack=0";

/// Test files of strands in which processes end that cannot be searched for leaks: a forked child
/// has not the threads whose stacks hold what lives, and a supervised or limited one cannot be
/// stopped for the search. Other mistakes are looked for in them as everywhere.
const WITHOUT_LEAKS: &[&str] = &["faults_memory", "faults_start", "fork"];

/// The only host that all of this is set up for.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where Debian puts its compiler and the runtimes of LLVM, in the version of that compiler.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const RUST_SOURCE: &str = "/usr/lib/rustlib/src";
pub const LLVM: &str = "/usr/lib/llvm-22";
const LLVM_RUNTIMES: &str = "/usr/lib/llvm-22/lib/clang/22/lib/linux";

/// `cargo xtask sanitize TOOL [CARGO TEST ARGUMENT…]`.
pub fn run(args: Vec<String>) -> Outcome {
    let Some((name, rest)) = args.split_first() else {
        return Err(Failure::DidNotRun("which: address, thread or valgrind?".into()));
    };
    let tool = match &**name {
        "address" => Address,
        "thread" => Thread,
        "valgrind" => Valgrind,
        other => return Err(Failure::DidNotRun(format!("there is no tool `{other}`"))),
    };
    check(&Workspace::load()?, tool, rest)
}

/// Runs the planted mistakes under `tool`, then the tests. `args` are for `cargo test`, in place of
/// the packages that it usually tests.
pub fn check(workspace: &Workspace, tool: Tool, args: &[String]) -> Outcome {
    let setup = Setup::of(workspace, tool)?;
    for (_, test, reason) in SKIPPED.iter().filter(|(skipped, ..)| *skipped == tool) {
        println!("SKIPPED {test} under {tool:?}: {reason}");
    }
    all([setup.find_planted(), setup.test(args)])
}

/// How cargo is called for a tool.
struct Setup<'a> {
    workspace: &'a Workspace,
    tool: Tool,
    /// `cargo`, with the toolchain.
    toolchain: Option<&'static str>,
    env: Vec<(&'static str, String)>,
    target: String,
}

impl<'a> Setup<'a> {
    /// Installs what is missing, where that can be done.
    fn of(workspace: &'a Workspace, tool: Tool) -> Outcome<Setup<'a>> {
        let host = Cmd::new(&workspace.root, "rustc", "-vV").read()?;
        if !host.lines().any(|line| line == format!("host: {TARGET}")) {
            return Err(Failure::DidNotRun(format!("this is set up for {TARGET} only")));
        }
        let name = tool.name();
        let target = workspace.target.join(format!("sanitize-{name}"));
        let mut flags = format!("--cfg strands_sanitizer=\"{name}\" --cfg rustix_use_libc");
        let mut env = vec![("CARGO_PROFILE_DEV_DEBUG", "line-tables-only".to_owned())];
        match tool {
            Address => {
                nightly(workspace)?;
                flags += " -Zsanitizer=address";
                env.push(("RUSTDOCFLAGS", flags.clone()));
                env.push(("ASAN_OPTIONS", ASAN_OPTIONS.into()));
                let suppressions = workspace.root.join("xtask/src/sanitize/leaks.txt");
                let suppressions = suppressions.display();
                env.push((
                    "LSAN_OPTIONS",
                    format!("suppressions={suppressions}:print_suppressions=0"),
                ));
            }
            Thread => {
                let packages = ["rustc-web", "rust-web-src", "libclang-rt-22-dev", "llvm-22"];
                let runtime = format!("{LLVM_RUNTIMES}/libclang_rt.tsan-x86_64.a");
                install(workspace, &packages, &[DEBIAN_RUSTC, RUST_SOURCE, LLVM, &runtime])?;
                let sysroot = sysroot(&target, &runtime)?;
                flags += &format!(" -Zsanitizer=thread --sysroot {}", sysroot.display());
                env.push(("RUSTC", DEBIAN_RUSTC.into()));
                env.push(("RUSTC_BOOTSTRAP", "1".into()));
                env.push(("TSAN_SYMBOLIZER_PATH", format!("{LLVM}/bin/llvm-symbolizer")));
                let suppressions = workspace.root.join("xtask/src/sanitize/races.txt");
                env.push(("TSAN_OPTIONS", format!("suppressions={}", suppressions.display())));
            }
            Valgrind => {
                install(workspace, &["valgrind", "libc6-dbg"], &["/usr/bin/valgrind"])?;
                // A thread's own stack is not registered: how far the stack pointer jumps has to tell.
                let runner = "valgrind --quiet --error-exitcode=9 --max-stackframe=65536";
                env.push(("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner.into()));
            }
        }
        // For the target only: build scripts and macros run in the compiler, which is not instrumented.
        env.push(("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags));
        let toolchain = (tool == Address).then_some("+nightly");
        let target = target.to_string_lossy().into_owned();
        Ok(Setup { workspace, tool, toolchain, env, target })
    }

    /// `cargo SUBCOMMAND` for the tool.
    fn cargo(&self, subcommand: &str) -> Cmd {
        let cmd = Cmd::new(&self.workspace.root, "cargo", self.toolchain.unwrap_or_default());
        let build_std = if self.tool == Thread { "-Zbuild-std" } else { "" };
        let words = subcommand.split_whitespace().chain(build_std.split_whitespace());
        let cmd = words.fold(cmd, |cmd, word| cmd.arg(word));
        let cmd = cmd.arg("--target").arg(TARGET).arg("--target-dir").arg(&self.target);
        self.env.iter().fold(cmd, |cmd, (name, value)| cmd.env(name, value))
    }

    fn test(&self, args: &[String]) -> Outcome {
        if !args.is_empty() {
            return self.test_line(&args.join(" "));
        }
        let mut outcomes: Vec<Outcome> =
            self.tool.tests().iter().map(|line| self.test_line(line)).collect();
        if self.tool == Address {
            let dir = self.workspace.root.join("crates/strands/tests");
            let files = files(&dir, ".rs")?;
            let names = files.iter().filter_map(|file| file.strip_suffix(".rs"));
            let (without, with): (Vec<&str>, Vec<&str>) = names
                .filter(|name| !name.contains('/') || name.ends_with("/main"))
                .map(|name| name.trim_end_matches("/main"))
                .partition(|name| WITHOUT_LEAKS.contains(name));
            outcomes.push(self.test_line(&line_of_tests(&with)));
            let options = format!("{ASAN_OPTIONS}:detect_leaks=0");
            let line = line_of_tests(&without);
            outcomes.push(self.test_cmd(&line).env("ASAN_OPTIONS", options).run_tests());
        }
        all(outcomes)
    }

    /// `cargo test` with these arguments.
    fn test_line(&self, line: &str) -> Outcome {
        self.test_cmd(line).run_tests()
    }

    fn test_cmd(&self, line: &str) -> Cmd {
        let cmd = self.cargo(&format!("test --no-fail-fast {line}")).arg("--");
        let skipped = SKIPPED.iter().filter(|(tool, ..)| *tool == self.tool);
        skipped.fold(cmd, |cmd, (_, test, _)| cmd.arg("--skip").arg(*test))
    }

    /// Runs each mistake that the tool should find.
    fn find_planted(&self) -> Outcome {
        self.cargo("build -p strands-sched --example planted").run()?;
        let mine = PLANTED.iter().filter(|(tool, ..)| *tool == self.tool);
        all(mine.map(|&(_, name, report)| self.check_planted(name, report)))
    }

    fn check_planted(&self, name: &str, report: Option<&str>) -> Outcome {
        let cmd = self.cargo("run --quiet -p strands-sched --example planted").arg("--").arg(name);
        println!("$ {cmd}");
        let log = Path::new(&self.target).join("planted.log");
        let Ended::Exited(status) = cmd.run_logged(&log, Duration::from_secs(60))? else {
            return Err(Failure::Failed(format!("{cmd}: no end after a minute")));
        };
        let output = read(&log)?;
        let as_expected = match report {
            Some(report) => !status.success() && output.contains(report),
            None => status.success() && output.trim() == "went on to the end",
        };
        if as_expected {
            println!("({})", report.unwrap_or("nothing to report"));
            return Ok(());
        }
        let expected = report.map_or("no report".into(), |report| format!("\"{report}\""));
        Err(Failure::Failed(format!("{cmd}: expected {expected}; {status}:\n{output}")))
    }
}

fn line_of_tests(names: &[&str]) -> String {
    let tests: Vec<String> = names.iter().map(|name| format!("--test {name}")).collect();
    format!("-p strands {}", tests.join(" "))
}

impl Tool {
    /// What `cargo test` is asked to test, one call each.
    fn tests(self) -> &'static [&'static str] {
        match self {
            // And each test file of strands: see `Setup::test`.
            Address => &[
                "--workspace --exclude xtask --exclude soak --exclude strands",
                "-p strands --doc",
            ],
            // What runs between threads. A child of a fork has no sanitizer that works.
            Thread => &[
                "-p strands-sched -p strands-sync -p strands-reactor --tests",
                "-p strands --test net --test runtime --test scope --test thread --test thread_unwinding",
            ],
            Valgrind => &["-p strands-fiber --tests"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Address => "address",
            Thread => "thread",
            Valgrind => "valgrind",
        }
    }
}

fn nightly(workspace: &Workspace) -> Outcome {
    let probe = Cmd::new(&workspace.root, "cargo", "+nightly --version").read();
    probe.map(drop).map_err(|failure| {
        let reason = failure.reason();
        let help = "to install it: rustup toolchain install nightly --profile minimal";
        Failure::DidNotRun(format!("{reason}\n{help}"))
    })
}

/// Installs Debian packages, unless `files` are there already.
pub fn install(workspace: &Workspace, packages: &[&str], files: &[&str]) -> Outcome {
    let missing = || files.iter().find(|file| !Path::new(file).exists());
    if missing().is_none() {
        return Ok(());
    }
    let line = format!("install -y --no-install-recommends {}", packages.join(" "));
    let apt = |line: &str| {
        Cmd::new(&workspace.root, "apt-get", line).env("DEBIAN_FRONTEND", "noninteractive").run()
    };
    let installed = apt("update").and_then(|()| apt(&line));
    match (installed, missing()) {
        (Ok(()), None) => Ok(()),
        (_, file) => Err(Failure::DidNotRun(format!(
            "{} is missing; as root: apt-get {line}",
            file.unwrap_or(&files[0])
        ))),
    }
}

/// Debian's `std` for the compiler's own use, its source, and the tool's runtime, where the
/// compiler looks for them.
fn sysroot(target: &Path, runtime: &str) -> Outcome<PathBuf> {
    let sysroot = target.join("sysroot");
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    let failed = |error: std::io::Error| {
        Failure::DidNotRun(format!("cannot make {}: {error}", sysroot.display()))
    };
    let link = |from: &Path, to: PathBuf| match std::os::unix::fs::symlink(from, to) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(failed(error)),
        _ => Ok(()),
    };
    // Links to an older compiler's files, maybe.
    let _ = std::fs::remove_dir_all(&sysroot);
    std::fs::create_dir_all(&libraries).map_err(failed)?;
    let debian = format!("/usr/lib/rustlib/{TARGET}/lib");
    for entry in std::fs::read_dir(debian).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        link(&entry.path(), libraries.join(entry.file_name()))?;
    }
    for name in ["librustc_rt.tsan.a", "librustc-stable_rt.tsan.a"] {
        link(Path::new(runtime), libraries.join(name))?;
    }
    link(Path::new(RUST_SOURCE), sysroot.join("lib/rustlib/src"))?;
    Ok(sysroot)
}
