//! `cargo xtask readme`: what the pages say is there.
//!
//! Relative links in any `*.md` must point at a file or directory of the repository, and the
//! commands that README.md shows in `sh` or `console` fences must exist. It does not run them.

use std::path::Path;

use crate::TASKS;
use crate::command::{Outcome, fail_if_any};
use crate::workspace::{Workspace, files, read};

/// The line that runs all tests; .ci/run runs the same.
const TEST_COMMAND: &str = "cargo test --workspace";

/// Checks the workspace.
pub fn run() -> Outcome {
    check(&Workspace::load()?)
}

/// Checks all pages below the root of `workspace`.
pub fn check(workspace: &Workspace) -> Outcome {
    let mut findings = Vec::new();
    let pages = files(&workspace.root, ".md")?;
    println!("(check the links of {} pages and the commands of README.md)", pages.len());
    for page in pages {
        for link in links(&read(&workspace.root.join(&page))?) {
            match target(&page, &link.target) {
                Target::Elsewhere => {}
                Target::OutsideOfTheRepository => findings.push(format!(
                    "{page}:{}: the link to {} leaves the repository",
                    link.line, link.target
                )),
                Target::File(path) if workspace.root.join(&path).exists() => {}
                Target::File(path) => findings.push(format!(
                    "{page}:{}: the link to {} points at {path}, which is not there",
                    link.line, link.target
                )),
            }
        }
    }
    let commands = commands(&read(&workspace.root.join("README.md"))?);
    if !commands.iter().any(|(_, command)| command == TEST_COMMAND) {
        findings.push(format!("README.md shows no `{TEST_COMMAND}` in a ```sh fence"));
    }
    for (line, command) in commands {
        if let Some(problem) = problem_of(&command, workspace) {
            findings.push(format!("README.md:{line}: `{command}`: {problem}"));
        }
    }
    for finding in &findings {
        println!("{finding}");
    }
    fail_if_any(findings)
}

/// What is wrong with a command, if it is one that we know about.
fn problem_of(command: &str, workspace: &Workspace) -> Option<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let after = |flag: &str| {
        let index = words.iter().position(|word| *word == flag)?;
        words.get(index + 1).copied()
    };
    if let ["cargo", "xtask", name, ..] = words[..] {
        let known = TASKS.iter().any(|task| task.name == name) || name == "--help";
        return (!known).then(|| format!("there is no `cargo xtask {name}`"));
    }
    if words.first() == Some(&"cargo") {
        // A manifest elsewhere has packages of its own.
        let elsewhere = after("--manifest-path");
        if let Some(manifest) = elsewhere {
            let missing = !workspace.root.join(manifest).exists();
            return missing.then(|| format!("there is no {manifest}"));
        }
        let package = after("-p").or_else(|| after("--package"));
        let is_there = |name: &str| workspace.members().any(|package| package.name == name);
        if let Some(name) = package.filter(|name| words.get(1) != Some(&"add") && !is_there(name)) {
            return Some(format!("there is no package `{name}` in this workspace"));
        }
        let mut examples = workspace.members().flat_map(|package| &package.examples);
        let example = after("--example")?;
        let missing = examples.all(|name| name != example);
        return missing.then(|| format!("there is no example `{example}`"));
    }
    let program = words.first().filter(|word| word.contains('/'))?;
    let missing = !workspace.root.join(program).exists();
    missing.then(|| format!("there is no {program}"))
}

/// The commands of the `sh` and `console` fences with their line numbers, without prompts, comments
/// and variable assignments before them. In `console` only lines with a prompt are commands.
fn commands(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fence = None;
    for (index, line) in page.lines().enumerate() {
        let line = line.trim();
        if let Some(language) = line.strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(language.trim()) };
            continue;
        }
        let command = match fence {
            Some("sh" | "bash" | "shell") => line.strip_prefix("$ ").unwrap_or(line),
            Some("console") => line.strip_prefix("$ ").unwrap_or_default(),
            _ => continue,
        };
        let command = command.split(" #").next().unwrap_or_default().trim();
        let is_assignment = |word: &&str| word.contains('=') && !word.starts_with('-');
        let words: Vec<&str> = command.split_whitespace().skip_while(is_assignment).collect();
        if !words.is_empty() && !command.starts_with('#') {
            found.push((index + 1, words.join(" ")));
        }
    }
    found
}

#[derive(Debug, PartialEq)]
struct Link {
    line: usize,
    target: String,
}

/// `[text](target)`, `![text](target)` and `[name]: target`, outside of code.
fn links(page: &str) -> Vec<Link> {
    let mut found = Vec::new();
    let mut in_fence = false;
    for (index, line) in page.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
            continue;
        }
        if in_fence {
            continue;
        }
        let text = without_code(line);
        let mut push = |target: &str| {
            // A title may follow the target.
            let target = target.split_whitespace().next().unwrap_or_default();
            let target = target.trim_start_matches('<').trim_end_matches('>').to_owned();
            found.push(Link { line: index + 1, target });
        };
        for (start, _) in text.match_indices("](") {
            let rest = &text[start + 2..];
            if let Some(end) = rest.find(')') {
                push(&rest[..end]);
            }
        }
        let definition = text.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        if let Some((name, target)) = definition.filter(|(name, _)| !name.contains(']')) {
            // `[^1]: text` is a footnote.
            if !name.starts_with('^') {
                push(target);
            }
        }
    }
    found
}

/// `line` without what stands between single backticks.
fn without_code(line: &str) -> String {
    let pieces: Vec<&str> = line.split('`').collect();
    let closed = pieces.len() % 2 == 1;
    let is_text = |index: usize| index.is_multiple_of(2) || (!closed && index == pieces.len() - 1);
    let kept = pieces.iter().enumerate().filter(|(index, _)| is_text(*index));
    kept.map(|(_, piece)| *piece).collect()
}

#[derive(Debug, PartialEq)]
enum Target {
    /// A path from the root of the repository.
    File(String),
    /// The web, or a heading of the same page.
    Elsewhere,
    OutsideOfTheRepository,
}

/// Where a link on `page` leads. A leading `/` is the root of the repository, as on forges.
fn target(page: &str, link: &str) -> Target {
    let path = link.split(['#', '?']).next().unwrap_or_default();
    if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
        return Target::Elsewhere;
    }
    let dir = Path::new(page).parent().and_then(Path::to_str).unwrap_or_default();
    let dir = if path.starts_with('/') { "" } else { dir };
    let mut parts: Vec<&str> = Vec::new();
    for part in dir.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => return Target::OutsideOfTheRepository,
            ".." => {}
            _ => parts.push(part),
        }
    }
    Target::File(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code() {
        let page = "\
See [a](A.md), ![b](<img/b.png> \"title\") and `[no](link)`.
```rust
let x = y[0](1);
```
[ref]: docs/c.md#part
[^1]: a footnote
An unpaired ` tick [d](d.md)
";
        let expected = [(1, "A.md"), (1, "img/b.png"), (5, "docs/c.md#part"), (7, "d.md")];
        let link = |(line, target): (usize, &str)| Link { line, target: target.to_owned() };
        assert_eq!(links(page), expected.map(link));
    }

    #[test]
    fn a_link_is_relative_to_its_page() {
        let file = |path: &str| Target::File(path.to_owned());
        assert_eq!(target("README.md", "docs/a.md#x"), file("docs/a.md"));
        assert_eq!(target("docs/a.md", "../README.md"), file("README.md"));
        assert_eq!(target("docs/a.md", "./b.md"), file("docs/b.md"));
        assert_eq!(target("docs/a.md", "/b.md"), file("b.md"));
        assert_eq!(target("docs/a.md", "../../b.md"), Target::OutsideOfTheRepository);
        for elsewhere in ["#heading", "https://example.org/a.md", "mailto:a@example.org"] {
            assert_eq!(target("README.md", elsewhere), Target::Elsewhere);
        }
    }

    #[test]
    fn commands_are_read_from_shell_fences_only() {
        let page = "\
```sh
# a comment
$ cargo test --workspace
STRANDS_STRESS=5 cargo xtask ci   # all of it
```
```rust
cargo();
```
```console
$ cargo xtask bench
a line of its output
```
";
        let expected = [
            (3, "cargo test --workspace".to_owned()),
            (4, "cargo xtask ci".to_owned()),
            (10, "cargo xtask bench".to_owned()),
        ];
        assert_eq!(commands(page), expected);
    }

    #[test]
    fn a_command_that_is_not_there_is_told() {
        let workspace = Workspace {
            root: crate::workspace::root(),
            target: "target".into(),
            packages: Vec::new(),
        };
        let problem = |command| problem_of(command, &workspace);
        assert_eq!(problem("cargo xtask ci fmt"), None);
        assert!(problem("cargo xtask fly").unwrap().contains("no `cargo xtask fly`"));
        assert!(problem("cargo run --example none").unwrap().contains("no example `none`"));
        assert!(problem("cargo test -p none").unwrap().contains("no package `none`"));
        assert!(problem("cargo run --manifest-path no/Cargo.toml").is_some());
        assert_eq!(problem("cargo run --manifest-path xtask/Cargo.toml -p any"), None);
        assert!(problem("./no-such-script").is_some());
        assert_eq!(problem("cargo add strands"), None);
        assert_eq!(problem("ulimit -n 100000"), None);
    }
}
