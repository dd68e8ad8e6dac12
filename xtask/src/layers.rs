//! `cargo xtask layers`: the arrows in ARCHITECTURE.md are the arrows in the tree.
//!
//! The table there, headed `| crate | layer | may depend on |`, is the design; this compares it with
//! what cargo builds. Dependencies for tests do not count. It also looks, by text, for cfgs and
//! system calls outside the files that are there for them: a grep is crude, but nothing else sees
//! code that the cfg itself hides from the compiler. By text too: each file with unsafe code has its
//! place in UNSAFE.md.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{Failure, Outcome, fail_if_any};
use crate::workspace::{Workspace, files, read};

/// Code that belongs to few files.
struct Rule {
    /// What the code is, for the message.
    what: &'static str,
    /// A line of code with one of these words is meant.
    words: &'static [&'static str],
    /// A line of code with one of these words is meant if it also has the word `cfg`.
    words_in_cfg: &'static [&'static str],
    /// Where it may be, and why. A path without an extension is a module: `a/b` is `a/b.rs` and
    /// all below `a/b/`.
    allowed: &'static [(&'static str, &'static str)],
    /// Whether tests may hold it, in `tests/` or a `tests.rs`.
    in_tests: bool,
}

const RULES: &[Rule] = &[
    Rule {
        what: "code for one instruction set",
        words: &["target_arch"],
        words_in_cfg: &[],
        allowed: &[
            (
                "crates/strands-fiber/src/arch",
                "picks the instruction set's file, and is those files",
            ),
            ("crates/strands-fiber/tests/arch", "tests what an instruction set's file promises"),
        ],
        in_tests: false,
    },
    Rule {
        what: "code for one operating system",
        words: &["target_os", "target_family", "libc::"],
        words_in_cfg: &["unix", "windows"],
        allowed: &[
            ("crates/strands-fiber/src/stack", "maps, guards and trims stacks"),
            ("crates/strands-fiber/src/overflow", "handles the fault in a guard"),
            ("crates/strands-fiber/src/unwind", "asks the system's unwinder"),
            ("crates/strands-reactor/src/backend", "waits for and performs I/O"),
            ("crates/strands/src/os", "mirrors std::os"),
            ("crates/strands/examples/c10k/host", "raises its limit of open files"),
        ],
        in_tests: true,
    },
    Rule {
        what: "a system call",
        words: &["rustix::"],
        words_in_cfg: &[],
        allowed: &[
            ("crates/strands-fiber/src/stack", "maps, guards and trims stacks"),
            ("crates/strands-fiber/src/overflow", "handles the fault in a guard"),
            ("crates/strands-reactor/src", "performs I/O, by calls that all systems have"),
            ("crates/strands/src/net", "performs I/O, by calls that all systems have"),
            ("crates/strands/src/os", "mirrors std::os"),
            ("crates/strands/examples/c10k/host", "raises its limit of open files"),
        ],
        in_tests: true,
    },
];

/// Checks the workspace.
pub fn run() -> Outcome {
    check(&Workspace::load()?)
}

/// Checks `workspace`: the table first, then the text of the crates.
pub fn check(workspace: &Workspace) -> Outcome {
    let path = "ARCHITECTURE.md";
    println!("(compare {path} with the dependencies of crates/*)");
    let table = parse_table(&read(&workspace.root.join(path))?)
        .map_err(|error| Failure::DidNotRun(format!("{path}: {error}")))?;
    let crates_dir = workspace.root.join("crates");
    let crates = workspace.members().filter(|package| package.manifest.starts_with(&crates_dir));
    let names: BTreeSet<&str> = workspace.members().map(|package| &*package.name).collect();
    let edges = crates.map(|package| {
        let dependencies = package.dependencies.iter().filter(|dependency| !dependency.is_dev);
        let names_of = dependencies.map(|dependency| dependency.name.clone());
        (package.name.clone(), names_of.filter(|name| names.contains(&**name)).collect())
    });
    let mut findings = compare(&table, &edges.collect());

    println!(
        "(look for misplaced cfgs and system calls in crates/*, and for files that UNSAFE.md lacks)"
    );
    let review = read(&workspace.root.join("UNSAFE.md"))?;
    for path in files(&crates_dir, ".rs")? {
        let path = format!("crates/{path}");
        let text = read(&workspace.root.join(&path))?;
        findings.extend(misplaced(&path, &text));
        findings.extend(unreviewed(&path, &text, &review));
    }
    for finding in &findings {
        println!("{finding}");
    }
    fail_if_any(findings)
}

/// One row of the table.
#[derive(Debug, PartialEq)]
struct Declared {
    name: String,
    layer: u32,
    may_depend_on: BTreeSet<String>,
}

const HEADER: [&str; 3] = ["crate", "layer", "may depend on"];

fn parse_table(text: &str) -> Result<Vec<Declared>, String> {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, cells(line)));
    let is_header = |(_, cells): &(usize, Vec<&str>)| {
        cells.len() == 3 && cells.iter().zip(HEADER).all(|(cell, name)| *cell == name)
    };
    if !lines.any(|line| is_header(&line)) {
        return Err(format!("it has no table headed `| {} |`", HEADER.join(" | ")));
    }
    // The line of dashes.
    lines.next();
    let rows = lines.take_while(|(_, cells)| !cells.is_empty()).map(|(number, cells)| {
        let [name, layer, may_depend_on] = cells[..] else {
            return Err(format!("line {number}: a row of this table has three cells"));
        };
        let [name] = in_backticks(name)[..] else {
            return Err(format!("line {number}: the first cell is one crate name in backticks"));
        };
        let layer = layer
            .parse()
            .map_err(|_| format!("line {number}: the layer of `{name}` is a number"))?;
        let names = in_backticks(may_depend_on);
        if names.is_empty() && !["–", "-", "—"].contains(&may_depend_on) {
            return Err(format!(
                "line {number}: the last cell lists crate names in backticks, or is –"
            ));
        }
        let may_depend_on = names.into_iter().map(str::to_owned).collect();
        Ok(Declared { name: name.to_owned(), layer, may_depend_on })
    });
    rows.collect()
}

/// The trimmed cells of a table's line; none if the line belongs to no table.
fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().strip_prefix('|').and_then(|rest| rest.strip_suffix('|'));
    inner.map_or(Vec::new(), |inner| inner.split('|').map(str::trim).collect())
}

/// Every second piece between backticks.
fn in_backticks(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// What is wrong between the table and the crates with their dependencies on each other.
fn compare(table: &[Declared], crates: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut findings = Vec::new();
    let row = |name: &str| table.iter().find(|row| row.name == name);

    for (index, row) in table.iter().enumerate() {
        let name = &row.name;
        if table[..index].iter().any(|earlier| earlier.name == *name) {
            findings.push(format!("ARCHITECTURE.md has two rows for `{name}`: join them"));
        }
        if !crates.contains_key(name) {
            findings.push(format!(
                "ARCHITECTURE.md has a row for `{name}`, but crates/ has no such crate: \
                 remove the row"
            ));
        }
    }
    let declared = table.iter().flat_map(|row| row.may_depend_on.iter().map(move |to| (row, to)));
    for (from, to) in declared {
        let name = &from.name;
        match row(to) {
            None => findings.push(format!(
                "ARCHITECTURE.md lets `{name}` depend on `{to}`, which has no row: \
                 add the row or remove `{to}` from that of `{name}`"
            )),
            Some(to) if to.layer > from.layer => findings.push(format!(
                "ARCHITECTURE.md lets `{name}` (layer {}) depend on `{}` (layer {}), an arrow that \
                 points up: move what `{name}` needs down into a layer that both may use",
                from.layer, to.name, to.layer
            )),
            Some(_) => {}
        }
    }
    for (name, dependencies) in crates {
        let Some(from) = row(name) else {
            findings.push(format!(
                "`{name}` has no row in ARCHITECTURE.md: add one, with its layer and what it may \
                 depend on"
            ));
            continue;
        };
        for to in dependencies.difference(&from.may_depend_on) {
            let up = match row(to) {
                Some(to) if to.layer > from.layer => {
                    format!(" (the arrow points up, from layer {} to {})", from.layer, to.layer)
                }
                _ => String::new(),
            };
            findings.push(format!(
                "`{name}` depends on `{to}`, but its row in ARCHITECTURE.md does not list it{up}: \
                 remove `{to}` from crates/{name}/Cargo.toml or, if the design has changed, add it \
                 to the row"
            ));
        }
    }
    findings
}

/// The lines of `text` that a rule keeps out of the file at `path`.
fn misplaced(path: &str, text: &str) -> Vec<String> {
    let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
    let applies = |rule: &&Rule| {
        let allowed = rule.allowed.iter().any(|(module, _)| is_in_module(path, module));
        !(allowed || rule.in_tests && is_test)
    };
    let mut findings = Vec::new();
    for rule in RULES.iter().filter(applies) {
        for (index, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let mut words = rule.words.iter().filter(|word| has_word(code, word));
            let mut in_cfg = rule.words_in_cfg.iter().filter(|word| has_word(code, word));
            let is_cfg = ["cfg", "cfg_attr"].iter().any(|word| has_word(code, word));
            let Some(word) = words.next().or_else(|| in_cfg.next().filter(|_| is_cfg)) else {
                continue;
            };
            let allowed: Vec<&str> = rule.allowed.iter().map(|(module, _)| *module).collect();
            let number = index + 1;
            findings.push(format!(
                "{path}:{number}: `{word}` is {}: put it behind an item of {}",
                rule.what,
                allowed.join(", ")
            ));
        }
    }
    findings
}

/// What to say of a library's file with unsafe code that the review does not name, without the `crates/` and
/// the `src/` of its path.
fn unreviewed(path: &str, text: &str, review: &str) -> Option<String> {
    const FORMS: [&str; 5] =
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe trait"];
    let (package, file) = path.strip_prefix("crates/")?.split_once("/src/")?;
    let mut code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let is_unsafe = code.any(|line| FORMS.iter().any(|form| line.contains(form)));
    let name = format!("{package}/{file}");
    (is_unsafe && !review.contains(&format!("`{name}`"))).then(|| {
        format!("{path} has unsafe code: say in UNSAFE.md, under `{name}`, what it relies on")
    })
}

fn is_in_module(path: &str, module: &str) -> bool {
    let rest = path.strip_prefix(module);
    rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// Whether `word` occurs in `code` and is not a part of a longer identifier.
fn has_word(code: &str, word: &str) -> bool {
    let in_identifier = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        let after = code[start + word.len()..].chars().next();
        let ends_itself = word.ends_with(|c| !in_identifier(c));
        !before.is_some_and(in_identifier) && (ends_itself || !after.is_some_and(in_identifier))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn declared(name: &str, layer: u32, may_depend_on: &[&str]) -> Declared {
        Declared { name: name.to_owned(), layer, may_depend_on: set(may_depend_on) }
    }

    fn crates(edges: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
        edges.iter().map(|(name, to)| ((*name).to_owned(), set(to))).collect()
    }

    #[test]
    fn the_table_is_found_and_read() {
        let text = "\
# Architecture

| word | meaning |
|---|---|
| fiber | no crate |

| crate | layer | may depend on |
|-------|------:|---------------|
| `bottom` | 1 | – |
| `top` | 2 | `bottom`, `macros` |

| `later` | 3 | – |
";
        let expected = [declared("bottom", 1, &[]), declared("top", 2, &["bottom", "macros"])];
        assert_eq!(parse_table(text).unwrap(), expected);
    }

    #[test]
    fn a_table_that_cannot_be_read_says_where() {
        let header = "| crate | layer | may depend on |\n|---|---|---|\n";
        let error = |row: &str| parse_table(&format!("{header}{row}")).unwrap_err();
        assert!(parse_table("no table").unwrap_err().contains("no table headed"));
        assert!(error("| bare | 1 | – |").starts_with("line 3: the first cell"));
        assert!(error("| `a` | one | – |").starts_with("line 3: the layer of `a`"));
        assert!(error("| `a` | 1 | b |").starts_with("line 3: the last cell"));
        assert!(error("| `a` | 1 |").starts_with("line 3: a row"));
    }

    #[test]
    fn a_tree_like_its_table_is_fine() {
        let table = [declared("a", 1, &[]), declared("b", 2, &["a"]), declared("c", 2, &["b"])];
        let tree = crates(&[("a", &[]), ("b", &["a"]), ("c", &[])]);
        assert_eq!(compare(&table, &tree), [""; 0]);
    }

    #[test]
    fn each_kind_of_difference_is_found() {
        let table =
            [declared("a", 1, &["b"]), declared("b", 2, &["gone"]), declared("old", 1, &[])];
        let tree = crates(&[("a", &["new"]), ("b", &["a"]), ("new", &[])]);
        let findings = compare(&table, &tree);
        let found = |text: &str| findings.iter().filter(|finding| finding.contains(text)).count();
        assert_eq!(found("a row for `old`, but crates/ has no such crate"), 1);
        assert_eq!(found("lets `a` (layer 1) depend on `b` (layer 2), an arrow that points up"), 1);
        assert_eq!(found("lets `b` depend on `gone`, which has no row"), 1);
        assert_eq!(found("`a` depends on `new`, but its row"), 1);
        assert_eq!(found("`b` depends on `a`, but its row"), 1);
        assert_eq!(found("`new` has no row"), 1);
        assert_eq!(findings.len(), 6, "{findings:#?}");
    }

    #[test]
    fn code_for_one_platform_is_found_where_it_may_not_be() {
        let lines = |path: &str, text: &str| -> Vec<String> {
            let place = |finding: &String| finding.split("` is").next().unwrap().to_owned();
            misplaced(path, text).iter().map(place).collect()
        };
        let text = "\
// libc::close in a comment
#[cfg(any(unix, windows))]
let fd = unsafe { libc::socket() };
let mylibc::x = unix_time(windows);
if cfg!(target_arch = \"x86_64\") {}
";
        let a = "crates/strands-sched/src/a.rs";
        let expected =
            [format!("{a}:5: `target_arch"), format!("{a}:2: `unix"), format!("{a}:3: `libc::")];
        assert_eq!(lines(a, text), expected);

        let arch = "crates/strands-fiber/src/arch/x86_64_sysv.rs";
        assert_eq!(lines(arch, text).len(), 2);
        let backend = "crates/strands-reactor/src/backend.rs";
        assert_eq!(lines(backend, text), [format!("{backend}:5: `target_arch")]);
        assert_eq!(lines("crates/strands/tests/net.rs", text).len(), 1);
        assert_eq!(lines("crates/strands/src/os_string.rs", text).len(), 3);
    }

    #[test]
    fn unsafe_code_has_its_place_in_the_review() {
        let review = "| `a/known.rs` | an invariant |";
        let code = "fn f() {\n    unsafe { g() }\n}";
        assert_eq!(unreviewed("crates/a/src/known.rs", code, review), None);
        let finding = unreviewed("crates/a/src/deep/new.rs", code, review).unwrap();
        assert!(finding.contains("under `a/deep/new.rs`"), "{finding}");
        assert!(unreviewed("crates/a/src/new.rs", "unsafe impl Send for T {}", review).is_some());
        assert_eq!(unreviewed("crates/a/src/new.rs", "// unsafe { }\n\"unsafe\"", review), None);
        assert_eq!(unreviewed("crates/a/tests/new.rs", code, review), None);
    }
}
