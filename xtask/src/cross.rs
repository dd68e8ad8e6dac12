//! `cargo xtask cross`: the tests on other platforms under an emulator, and where there is none, that all
//! of it builds.
//!
//! rustup has `std` for the targets that it was told to install; Debian's compiler comes with the
//! source of its own, so one package builds any of them (`-Zbuild-std`). Everything that is needed
//! comes by `apt-get`.
//!
//! An emulator on this machine shows wrong registers, sizes, system calls and unwind tables. It
//! does not show weak memory: that is what the loom models are for.

use crate::command::{Cmd, Failure, Outcome, all};
use crate::sanitize::install;
use crate::workspace::Workspace;
use crate::{disk, wine};

/// Below the target directory: another compiler's builds must not replace ours.
const TARGET_DIR: &str = "cross";

/// A platform that is not this one.
struct Target {
    triple: &'static str,
    how: How,
}

enum How {
    /// The tests of all crates run, or of most.
    Test(Test),
    /// All targets of all crates are checked: there is nothing to run them.
    Check,
}

struct Test {
    /// Debian packages, and files by which to tell that they are there.
    packages: &'static [&'static str],
    files: &'static [&'static str],
    linker: &'static str,
    /// Sets up what runs the tests.
    runner: fn(&Workspace) -> Outcome<Runner>,
    /// Tests that are left out, each with the reason.
    left_out: &'static [(&'static str, &'static str)],
    /// Crates of which only these integration tests run, each with the reason. That all of these
    /// and the library's own tests build is checked.
    crates_in_part: &'static [(&'static str, &'static [&'static str], &'static str)],
}

struct Runner {
    /// The words before the path of a test program.
    line: String,
    /// Set for the tests.
    env: Vec<(&'static str, String)>,
}

const TARGETS: &[Target] = &[
    Target {
        triple: "aarch64-unknown-linux-gnu",
        how: How::Test(Test {
            packages: &["qemu-user", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
            files: &[
                "/usr/bin/qemu-aarch64",
                "/usr/bin/aarch64-linux-gnu-gcc",
                "/usr/aarch64-linux-gnu/lib/crt1.o",
            ],
            linker: "aarch64-linux-gnu-gcc",
            runner: |_| Ok(qemu("qemu-aarch64 -L /usr/aarch64-linux-gnu")),
            left_out: UNDER_QEMU,
            crates_in_part: &[],
        }),
    },
    Target {
        triple: "x86_64-pc-windows-gnu",
        how: How::Test(Test {
            packages: &["wine", "wine64", "gcc-mingw-w64-x86-64"],
            files: &["/usr/bin/wine", "/usr/lib/wine/wine64", "/usr/bin/x86_64-w64-mingw32-gcc"],
            linker: "x86_64-w64-mingw32-gcc",
            runner: |workspace| {
                Ok(Runner { line: "wine".into(), env: wine::environment(workspace)? })
            },
            left_out: &[],
            crates_in_part: &[
                ("strands-reactor", &["sockets"], "the others make descriptors as Unix does"),
                (
                    "strands",
                    &["macros", "net_windows", "runtime", "scope", "thread", "thread_unwinding"],
                    "std fails one of `mirror` there, and most others are for Unix or Linux",
                ),
                ("strands-macros", &[], "its tests are those of strands"),
            ],
        }),
    },
    Target { triple: "aarch64-apple-darwin", how: How::Check },
    Target { triple: "x86_64-apple-darwin", how: How::Check },
    Target { triple: "x86_64-unknown-freebsd", how: How::Check },
];

/// What qemu's user mode cannot do, or what would say nothing about the target.
const UNDER_QEMU: &[(&str, &str)] = &[
    ("suspended_coroutines_are_leaked_where_panics_abort", "calls cargo, which builds for here"),
    ("walks::a_debugger_walks_to_the_entry", "gdb cannot start a program that qemu runs"),
    ("limits_on_memory_are_errors_that_name_them", "qemu keeps such limits from the kernel"),
    ("a_limit_on_locked_memory_is_an_error_that_names_it", "qemu itself meets the limit first"),
    (
        "without_room_a_stack_is_an_error_and_nothing_is_lost",
        "qemu keeps such limits from the kernel",
    ),
    ("the_guard_is_chosen_by_trial", "goes by the kernel's version; qemu has not what that has"),
    ("whatever_needs_a_descriptor_says_so_and_goes_on_later", "qemu opens descriptors of its own"),
    ("with_each_number_of_descriptors_left_it_is_done_or_it_is_emfile", "as the one before"),
    ("each_program_is_rejected_where_and_as_it_says", "tests the compiler, not the target"),
    ("ignored_tests_are_ignored", "tests the compiler, not the target"),
];

/// Tests that run themselves again do it by the variable: the children of an emulated program are
/// not emulated.
fn qemu(line: &str) -> Runner {
    Runner { line: line.into(), env: vec![("STRANDS_TEST_RUNNER", line.into())] }
}

/// Tests and checks the targets named in `args`, or all.
pub fn run(args: Vec<String>) -> Outcome {
    if args.iter().any(|arg| arg == "--list") {
        for target in TARGETS {
            println!("{:<27} {}", target.triple, target.summary());
        }
        return Ok(());
    }
    check(&Workspace::load()?, &args)
}

/// Tests and checks the targets with these triples, or all.
pub fn check(workspace: &Workspace, triples: &[String]) -> Outcome {
    let targets = select(triples).map_err(Failure::DidNotRun)?;
    let source = "/usr/lib/rustlib/src/rust/library/std/src/lib.rs";
    install(workspace, &["rustc-web", "rust-web-src"], &["/usr/bin/rustc", source])?;
    let tested = targets.iter().filter_map(|target| match &target.how {
        How::Test(test) => Some((target.triple, test)),
        How::Check => None,
    });
    let checked = targets.iter().filter(|target| matches!(target.how, How::Check));
    let checked: Vec<&str> = checked.map(|target| target.triple).collect();
    let mut outcomes: Vec<Outcome> =
        tested.map(|(triple, test)| run_tests(workspace, triple, test)).collect();
    if !checked.is_empty() {
        let cmd = cargo(workspace, "check --all-targets", |_| true);
        let cmd = checked.iter().fold(cmd, |cmd, triple| cmd.arg("--target").arg(*triple));
        outcomes.push(cmd.run());
    }
    all(outcomes)
}

fn run_tests(workspace: &Workspace, triple: &str, test: &Test) -> Outcome {
    install(workspace, test.packages, test.files)?;
    let runner = (test.runner)(workspace)?;
    for (name, why) in test.left_out {
        println!("(left out: {name}: {why})");
    }
    for (name, tests, why) in test.crates_in_part {
        println!("(of {name} only {tests:?}: {why})");
    }
    let is_in_part = |name: &str| test.crates_in_part.iter().any(|(part, ..)| *part == name);
    let variable =
        |what| format!("CARGO_TARGET_{}_{what}", triple.to_uppercase().replace('-', "_"));
    let Runner { line: runner, env } = runner;
    let cargo_test = |line: &str, wanted: &dyn Fn(&str) -> bool| {
        let line = format!("test --no-fail-fast --target {triple} {line}");
        let cmd = cargo(workspace, &line, wanted)
            .env(&variable("LINKER"), test.linker)
            .env(&variable("RUNNER"), runner.as_str())
            // `std` takes the same profile, and unoptimised it is what an emulator spends its time in.
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
            // A thin layer; but to optimise the largest of its tests, `mirror`, takes minutes.
            .arg("--config")
            .arg("profile.dev.package.strands.opt-level=0");
        env.iter().fold(cmd, |cmd, (name, value)| cmd.env(name, value.as_str()))
    };
    let whole = cargo_test("", &|name| !is_in_part(name)).arg("--");
    let whole = test.left_out.iter().fold(whole, |cmd, (name, _)| cmd.arg("--skip").arg(*name));
    let mut outcomes = vec![whole.run_tests()];
    if !test.crates_in_part.is_empty() {
        outcomes.push(cargo_test("--no-run --all-targets", &is_in_part).run());
    }
    for (package, tests, _) in test.crates_in_part.iter().filter(|(_, tests, _)| !tests.is_empty())
    {
        let tests: Vec<String> = tests.iter().map(|name| format!("--test {name}")).collect();
        outcomes.push(cargo_test(&tests.join(" "), &|name| name == *package).run_tests());
    }
    all(outcomes)?;
    disk::give_back(&workspace.target.join(TARGET_DIR).join(triple))
}

/// Cargo for those crates of the library whose name is `wanted`, with Debian's compiler and a `std`
/// built by it.
fn cargo(workspace: &Workspace, line: &str, wanted: impl Fn(&str) -> bool) -> Cmd {
    let crates = workspace.root.join("crates");
    let crates = workspace.members().filter(|package| package.manifest.starts_with(&crates));
    let target = workspace.target.join(TARGET_DIR);
    let cmd = Cmd::new(&workspace.root, "cargo", line).arg("-Zbuild-std");
    crates
        .filter(|package| wanted(&package.name))
        .fold(cmd, |cmd, package| cmd.arg("-p").arg(&package.name))
        .env("CARGO_TARGET_DIR", target.to_string_lossy())
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTDOC", "/usr/bin/rustdoc")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
}

fn select(triples: &[String]) -> Result<Vec<&'static Target>, String> {
    if let Some(triple) = triples.iter().find(|triple| TARGETS.iter().all(|t| t.triple != **triple))
    {
        return Err(format!(
            "there is no target `{triple}`; `cargo xtask cross --list` lists them"
        ));
    }
    let wanted =
        |target: &&Target| triples.is_empty() || triples.iter().any(|t| t == target.triple);
    Ok(TARGETS.iter().filter(wanted).collect())
}

impl Target {
    fn summary(&self) -> String {
        match &self.how {
            How::Test(Test { left_out, crates_in_part, .. }) => {
                format!(
                    "tests run, but for {} and parts of {} crates",
                    left_out.len(),
                    crates_in_part.len()
                )
            }
            How::Check => "all is checked, nothing runs".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_selected_by_their_triples() {
        assert_eq!(select(&[]).unwrap().len(), TARGETS.len());
        let asked = ["x86_64-unknown-freebsd".to_owned(), "aarch64-unknown-linux-gnu".to_owned()];
        let triples: Vec<_> = select(&asked).unwrap().iter().map(|target| target.triple).collect();
        assert_eq!(triples, ["aarch64-unknown-linux-gnu", "x86_64-unknown-freebsd"]);
        assert!(select(&["vax".to_owned()]).is_err());
    }
}
