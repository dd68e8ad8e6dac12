//! `cargo xtask docs`: every public item has an example that runs.
//!
//! An item is a line that begins with `pub` and declares a function, struct, enum, trait or union;
//! methods are functions. What stands above it must hold a fence that `cargo test --doc` runs. So
//! `no_run`, `ignore` and "see there" do not count.
//!
//! It reads lines, not Rust, so it does not know which modules are private: what need not have an
//! example is listed, with the reason. Turned down: rustdoc's own count (`--show-coverage`), which
//! needs a nightly compiler and does not count methods.

use crate::command::{Outcome, fail_if_any};
use crate::workspace::{Workspace, files, read};

/// Files, or items as `file: name`, and why they have no examples. An entry stands for everything
/// that begins with it.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("crates/strands-fiber/src/arch/", "an ISA's: the examples are where arch.rs re-exports them"),
    ("crates/strands-fiber/src/sanitizer", "wraps what an ISA's file defines"),
    ("crates/strands-fiber/src/overflow/", "a platform's: the examples are in overflow.rs"),
    ("crates/strands-fiber/src/stack/heap.rs", "a platform's, not reachable"),
    ("crates/strands-fiber/src/stack/unix.rs", "a platform's, not reachable"),
    ("crates/strands-fiber/src/stack/windows.rs", "a platform's, not reachable"),
    ("crates/strands-macros/src/lib.rs", "the examples are where strands re-exports them"),
    ("crates/strands-sched/src/worker.rs: Worker", "not reachable"),
    ("crates/strands/src/runtime.rs: main", "for the expansion of #[strands::main] only"),
    ("crates/strands/src/runtime.rs: test", "for the expansion of #[strands::test] only"),
];

/// Checks the workspace.
pub fn run() -> Outcome {
    check(&Workspace::load()?)
}

/// Checks the sources of all crates.
pub fn check(workspace: &Workspace) -> Outcome {
    let sources: Vec<String> = files(&workspace.root.join("crates"), ".rs")?
        .into_iter()
        .filter(|path| path.contains("/src/"))
        .map(|path| format!("crates/{path}"))
        .collect();
    println!("(look for an example above each public item in {} files)", sources.len());
    let mut findings = Vec::new();
    let mut used = [false; EXCEPTIONS.len()];
    for path in &sources {
        for (line, name) in without_example(&read(&workspace.root.join(path))?) {
            let item = format!("{path}: {name}");
            match EXCEPTIONS.iter().position(|(start, _)| item.starts_with(start)) {
                Some(index) => used[index] = true,
                None => findings.push(format!(
                    "{path}:{line}: {name} has no example that runs: give it one, make it \
                     pub(crate), or say in xtask/src/docs.rs why it needs none"
                )),
            }
        }
    }
    let unused = EXCEPTIONS.iter().zip(used).filter(|(_, used)| !used);
    findings.extend(unused.map(|((start, _), _)| {
        format!("xtask/src/docs.rs: nothing lacks an example at {start}: take the exception out")
    }));
    for finding in &findings {
        println!("{finding}");
    }
    fail_if_any(findings)
}

/// The public items of a file that have no example that runs, with their line numbers.
fn without_example(source: &str) -> Vec<(usize, &str)> {
    let lines: Vec<&str> =
        source.lines().map(str::trim).take_while(|line| *line != "mod tests {").collect();
    let items = lines.iter().enumerate().filter_map(|(at, line)| Some((at, public_item(line)?)));
    let lacking = items.filter(|(at, _)| {
        let above = lines[..*at].iter().rev().take_while(|line| belongs_to_next(line));
        let above: Vec<&str> = above.copied().collect();
        let hidden = |line: &&str| line.contains("doc(hidden)") || line.contains("cfg(loom)");
        !above.iter().any(hidden) && !has_example(above.into_iter().rev())
    });
    lacking.map(|(at, name)| (at + 1, name)).collect()
}

/// The name of what the line declares, if that is public and wants an example.
fn public_item(line: &str) -> Option<&str> {
    let mut words = line.strip_prefix("pub ")?.split_whitespace();
    let is_qualifier = |word: &&str| {
        matches!(*word, "const" | "unsafe" | "async" | "extern") || word.starts_with('"')
    };
    let kind = words.by_ref().find(|word| !is_qualifier(word))?;
    let name =
        matches!(kind, "fn" | "struct" | "enum" | "trait" | "union").then(|| words.next())?;
    name?.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// Whether the line is documentation, an attribute or a part of one.
fn belongs_to_next(line: &str) -> bool {
    line.starts_with("//")
        || line.starts_with("#[")
        || !(line.is_empty() || line.ends_with(['{', '}', ';']))
}

fn has_example<'a>(above: impl Iterator<Item = &'a str>) -> bool {
    let fences = above.filter_map(|line| line.strip_prefix("///")?.trim().strip_prefix("```"));
    let runs = |info: &str| {
        info.split(',')
            .all(|word| matches!(word, "" | "rust" | "should_panic" | "standalone_crate"))
    };
    fences.step_by(2).any(runs) // Every other one ends a block.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_without_a_running_example_are_found() {
        let source = r#"
/// Has one.
///
/// ```
/// pub fn inside() {}
/// ```
#[must_use]
pub struct Good {
    pub field: u8,
}

impl Good {
    /// ```no_run
    /// ```
    pub const unsafe fn not_run(&self) {}
    /// ```text
    /// ```
    #[cfg(any(
        unix,
        windows
    ))]
    pub extern "C" fn no_code() {}

    /// ```should_panic
    /// ```
    pub fn good<T>(self) {}
    #[cfg(loom)]
    pub fn model() {}
    pub(crate) fn private() {}
}
pub const CONSTANT: u8 = 0;
pub(crate) struct Private;
pub trait Bare: Send {}
mod tests {
    pub fn helper() {}
"#;
        let names: Vec<&str> = without_example(source).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["not_run", "no_code", "Bare"]);
        assert_eq!(without_example("\npub enum E {}"), [(2, "E")]);
    }
}
