//! `cargo xtask coverage`: which lines the tests run, and which error paths they do not.
//!
//! A table of files, then every block of lines that no test ran. The blocks that COVERAGE.md names
//! are known, with their reason; what is printed as new wants a test, or a row there. A row names a
//! block by a piece of its text, as line numbers move. It is not part of CI: the build with
//! counters takes as long as all tests, and the number itself proves nothing.
//!
//! Counters live in a mapped file, so what a child does before it aborts or is killed counts too.
//!
//! Rust's profiles are LLVM's, of the version that rustc was built with; Debian's `llvm-22` reads them.

use std::collections::BTreeMap;
use std::path::Path;

use crate::command::{Cmd, Outcome};
use crate::sanitize::{LLVM, install};
use crate::workspace::{Workspace, build_tests, files, read};

/// Where the reasons are.
const REASONS: &str = "COVERAGE.md";

/// How often each line was run, by number; lines without code are not in it.
type Lines = BTreeMap<usize, u64>;

/// Runs all tests, or what `args` leave of them.
pub fn run(args: Vec<String>) -> Outcome {
    let workspace = Workspace::load()?;
    install(&workspace, &["llvm-22"], &[LLVM])?;
    let target = workspace.target.join("coverage");
    let profiles = target.join("profiles");
    // Those of an earlier run would count as well.
    let _ = std::fs::remove_dir_all(&profiles);
    let cargo = |line: &str| {
        Cmd::new(&workspace.root, "cargo", line)
            .arg("--target-dir")
            .arg(target.to_string_lossy())
            .env("RUSTFLAGS", "-Cinstrument-coverage -Cllvm-args=-runtime-counter-relocation")
            .env("LLVM_PROFILE_FILE", profiles.join("%m%c.profraw").to_string_lossy())
    };
    let line = "test --no-fail-fast --workspace --exclude xtask --exclude soak --tests";
    let binaries = build_tests(cargo(line), None)?;
    let cmd = args.iter().fold(cargo(line), |cmd, arg| cmd.arg(arg));
    let cmd = if args.iter().any(|arg| arg == "--") { cmd } else { cmd.arg("--") };
    // The counters' mapping exceeds the one's limit, and hides the symbols that the others look for.
    let skipped = ["limits_on_memory", "a_debugger_walks", "walks::a_backtrace_ends_at_the_entry"];
    let cmd = skipped.iter().fold(cmd, |cmd, test| {
        println!("SKIPPED {test}: it does not work with counters");
        cmd.arg("--skip").arg(*test)
    });
    // A failure is worth knowing, but says nothing about the lines.
    let tests = cmd.run_tests();

    let merged = target.join("merged.profdata");
    let llvm =
        |tool: &str, line: &str| Cmd::new(&workspace.root, &format!("{LLVM}/bin/{tool}"), line);
    files(&profiles, ".profraw")?
        .iter()
        .fold(
            llvm("llvm-profdata", "merge --sparse -o").arg(merged.to_string_lossy()),
            |cmd, file| cmd.arg(profiles.join(file).to_string_lossy()),
        )
        .run()?;
    let mut export = llvm("llvm-cov", "export --format=lcov --skip-functions")
        .arg(format!("--instr-profile={}", merged.display()));
    for (index, binary) in binaries.iter().enumerate() {
        export = if index == 0 { export } else { export.arg("--object") };
        export = export.arg(binary.executable.to_string_lossy());
    }
    let reasons = read(&workspace.root.join(REASONS))?;
    print!("{}", report(&workspace.root, &parse_lcov(&export.read()?), &rows(&reasons))?);
    tests
}

/// The lines of each file, from lcov's format.
fn parse_lcov(text: &str) -> BTreeMap<String, Lines> {
    let mut found: BTreeMap<String, Lines> = BTreeMap::new();
    let mut file = String::new();
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            file = path.to_owned();
        } else if let Some((number, count)) =
            line.strip_prefix("DA:").and_then(|rest| rest.split_once(','))
            && let (Ok(number), Ok(count)) = (number.parse(), count.parse())
        {
            found.entry(file.clone()).or_default().insert(number, count);
        }
    }
    found
}

/// The rows of the tables in COVERAGE.md: a file, a piece of a line of it.
fn rows(reasons: &str) -> Vec<(String, String)> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.splitn(3, "` | `");
        let file = cells.next()?.to_owned();
        let (text, _why) = cells.next()?.split_once("` | ")?;
        Some((file, text.to_owned()))
    };
    reasons.lines().filter_map(row).collect()
}

fn report(
    root: &Path,
    coverage: &BTreeMap<String, Lines>,
    known: &[(String, String)],
) -> Outcome<String> {
    let mut table = format!("\n{:<52} {:>6} {:>6} {:>6}\n", "file", "lines", "run", "%");
    let mut blocks = String::new();
    let mut used = vec![false; known.len()];
    for (path, lines) in coverage {
        let Some(path) = Path::new(path).strip_prefix(root).ok().and_then(Path::to_str) else {
            continue;
        };
        if !is_product(path) {
            continue;
        }
        let source = read(&root.join(path))?;
        let source: Vec<&str> = source.lines().collect();
        // Tests beside the code are at the file's end.
        let tests = source.iter().position(|line| *line == "#[cfg(test)]");
        let end = tests.unwrap_or(source.len());
        let lines: Lines =
            lines.iter().filter(|(number, _)| **number <= end).map(|(n, c)| (*n, *c)).collect();
        let run = lines.values().filter(|count| **count > 0).count();
        let percent = 100.0 * run as f64 / lines.len().max(1) as f64;
        table += &format!("{path:<52} {:>6} {run:>6} {percent:>6.1}\n", lines.len());
        for (first, last) in missed(&lines) {
            let text = &source[first - 1..last];
            // The end of a block that something left early.
            if text
                .iter()
                .all(|line| line.trim().trim_matches(['}', ')', ';', ',', '?']).is_empty())
            {
                continue;
            }
            let mut why = known.iter().enumerate().filter(|(_, (file, piece))| {
                file == path && text.iter().any(|line| line.contains(piece.as_str()))
            });
            if let Some((index, _)) = why.next() {
                used[index] = true;
                continue;
            }
            blocks += &format!("{path}:{first}\n");
            text.iter().for_each(|line| blocks += &format!("    {line}\n"));
        }
    }
    if !blocks.is_empty() {
        table += &format!("\nnot run, and without a reason in {REASONS}:\n{blocks}");
    }
    for ((file, piece), _) in known.iter().zip(&used).filter(|(_, used)| !**used) {
        table += &format!("\nrun by now, or gone, so {REASONS} need not name it: {file}: {piece}");
    }
    Ok(table + "\n")
}

/// Whether a file is what users get, not what tests it.
fn is_product(path: &str) -> bool {
    path.starts_with("crates/")
        // It runs in the compiler.
        && !path.starts_with("crates/strands-macros/")
        && path.contains("/src/")
        && !path.contains("/models")
        && !path.ends_with("/tests.rs")
}

/// The runs of lines with code that were not run, as first and last number.
fn missed(lines: &Lines) -> Vec<(usize, usize)> {
    let mut blocks: Vec<(usize, usize)> = Vec::new();
    let mut open = false;
    for (number, count) in lines {
        match (count, blocks.last_mut()) {
            (0, Some((_, last))) if open => *last = *number,
            (0, _) => blocks.push((*number, *number)),
            _ => {}
        }
        open = *count == 0;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_were_not_run_are_blocks() {
        let lcov = "SF:/r/a.rs\nDA:1,5\nDA:2,0\nDA:4,0\nDA:5,1\nDA:7,0\nend_of_record\n";
        let found = parse_lcov(lcov);
        assert_eq!(found["/r/a.rs"].len(), 5);
        assert_eq!(missed(&found["/r/a.rs"]), [(2, 4), (7, 7)]);
    }

    #[test]
    fn reasons_are_rows_with_code() {
        let text =
            "| file | text | why |\n|---|---|---|\n| `a/b.rs` | `Err(x) | y` | cannot be |\n";
        assert_eq!(rows(text), [("a/b.rs".to_owned(), "Err(x) | y".to_owned())]);
    }

    #[test]
    fn tests_do_not_count() {
        assert!(is_product("crates/strands/src/net/addr.rs"));
        assert!(!is_product("crates/strands/tests/net.rs"));
        assert!(!is_product("crates/strands-sched/src/timer/tests.rs"));
        assert!(!is_product("xtask/src/main.rs"));
    }
}
