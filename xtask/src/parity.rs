//! `cargo xtask parity`: which of std's items strands has, and whether they are as in std.
//!
//! `parity/std.txt` lists std's public stable items, with code for each that compiles where the item
//! has std's signature, trait impls or auto traits. That it compiles against std itself proves the
//! list; then the same code is compiled against strands, and each error is laid to the item that it
//! is in. So the compiler decides, and not a comparison of texts: a signature may be written in
//! another way, or come from a type that is re-exported.
//!
//! The list is made from rustdoc's JSON, which only an unstable rustdoc writes. It is committed, so
//! that CI needs no more than the compiler that builds strands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::command::{Cmd, Failure, Outcome, fail_if_any};
use crate::sanitize::install;
use crate::workspace::{Workspace, read};

mod compile;
mod extract;
mod list;
mod print;
mod report;

use compile::{Compiler, Complaint};
use extract::Crate;
use list::{Item, Kind};
use report::{Reasons, Row, State};

const LIST: &str = "parity/std.txt";
const REASONS: &str = "parity/differs.txt";
const REPORT: &str = "PARITY.md";
const WRITE: &str = "cargo xtask parity";

/// Where Debian's rust-web-src puts std, and rustc-web the libraries that it builds with.
const SOURCE: &str = "/usr/lib/rustlib/src/rust/library";
const LIBRARIES: &str = "/usr/lib/rustlib/x86_64-unknown-linux-gnu/lib";

/// Runs one form of the command.
pub fn run(args: Vec<String>) -> Outcome {
    let workspace = Workspace::load()?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [] => update(&workspace),
        ["--check"] => check(&workspace),
        ["--extract"] => make_list(&workspace),
        ["--why"] => why(&workspace, ""),
        ["--why", start] => why(&workspace, start),
        _ => Err(Failure::Failed(format!("unknown arguments `{}`", args.join(" ")))),
    }
}

/// Writes PARITY.md.
fn update(workspace: &Workspace) -> Outcome {
    let comparison = Comparison::make(workspace)?;
    write(&workspace.root.join(REPORT), &comparison.markdown)?;
    println!("({REPORT} is written)");
    fail_if_any(comparison.findings)
}

/// Fails if PARITY.md is not what [`update`] would write.
pub fn check(workspace: &Workspace) -> Outcome {
    let comparison = Comparison::make(workspace)?;
    let mut findings = comparison.findings;
    let committed = read(&workspace.root.join(REPORT))?;
    if committed != comparison.markdown {
        findings.push(format!("{REPORT} is out of date; `{WRITE}` mends it:"));
        findings.extend(changed_lines(&committed, &comparison.markdown));
    }
    fail_if_any(findings)
}

/// Prints each item that begins with `start` and is not as in std, with what the compiler says.
fn why(workspace: &Workspace, start: &str) -> Outcome {
    let (_, items) = load_list(workspace)?;
    for (item, state, _) in compare(workspace, &items)? {
        let is_meant = item.name.starts_with(start) || item.roots[0].starts_with(start);
        match state {
            State::Absent(None) if is_meant => println!("not yet  {}", item.name),
            State::Absent(Some(complaint)) if is_meant => {
                println!("not yet  {}: {} {}", item.name, complaint.message, complaint.code);
            }
            State::Differs(complaint) if is_meant => {
                println!("differs  {}: {} {}", item.name, complaint.message, complaint.code);
            }
            _ => {}
        }
    }
    Ok(())
}

struct Comparison {
    markdown: String,
    findings: Vec<String>,
}

impl Comparison {
    fn make(workspace: &Workspace) -> Outcome<Comparison> {
        let (version, items) = load_list(workspace)?;
        let reasons = Reasons::parse(&read(&workspace.root.join(REASONS))?)?;
        let compared = compare(workspace, &items)?;
        let rows = compared.into_iter().map(|(item, state, is_own)| {
            let reason = if state == State::Same { None } else { reasons.of(&item.name) };
            Row { item, state, reason, is_own }
        });
        let rows: Vec<Row> = rows.collect();
        let markdown = report::markdown(&version, &rows);
        Ok(Comparison { markdown, findings: reasons.findings(&rows) })
    }
}

fn load_list(workspace: &Workspace) -> Outcome<(String, Vec<Item>)> {
    let (version, items) = list::read(&read(&workspace.root.join(LIST))?)?;
    let wanted = rust_version(workspace)?;
    if version == wanted {
        Ok((version, items))
    } else {
        Err(Failure::Failed(format!(
            "{LIST} is of std {version}, and rust-version is {wanted}: with that compiler, \
             {WRITE} --extract"
        )))
    }
}

fn rust_version(workspace: &Workspace) -> Outcome<String> {
    let version = workspace.members().find_map(|package| package.rust_version.clone());
    version.ok_or_else(|| Failure::Failed("the manifests lack a rust-version".to_owned()))
}

/// Compiles the items' code against std, where all of it must compile, and against strands. Returns
/// what became of each, and whether it is of a type that is std's own.
fn compare<'a>(workspace: &Workspace, items: &'a [Item]) -> Outcome<Vec<(&'a Item, State, bool)>> {
    println!("(compile {} items against std)", items.len());
    let refused = Compiler::for_std(workspace)?.refused(&pieces(items, |_| false, |_| true))?;
    if !refused.is_empty() {
        let lines = refused.iter().map(|(at, complaint)| {
            format!("{LIST}: std refuses {}: {complaint:?}", items[*at].name)
        });
        return Err(Failure::Failed(lines.collect::<Vec<_>>().join("\n")));
    }
    let strands = Compiler::for_strands(workspace)?;
    println!("(compile them against strands)");
    let known: BTreeSet<&str> = roots(items).collect();
    let known: Vec<&str> = known.into_iter().collect();
    let imports = known.iter().map(|path| format!("use strands::{path} as _;"));
    let missing = strands.refused(&imports.enumerate().collect())?;
    let ours: BTreeSet<&str> = known
        .iter()
        .enumerate()
        .filter(|(at, _)| !missing.contains_key(at))
        .map(|(_, p)| *p)
        .collect();
    let is_ours = |path: &str| ours.contains(path);
    let is_there = |item: &Item| item.roots.iter().all(|root| ours.contains(root.as_str()));
    let refused = strands.refused(&pieces(items, is_ours, is_there))?;
    let own: BTreeSet<&str> = items
        .iter()
        .enumerate()
        .filter(|(at, item)| item.kind == Kind::Own && is_there(item) && !refused.contains_key(at))
        .map(|(_, item)| item.name.as_str())
        .collect();
    let compared = items.iter().enumerate().filter(|(_, item)| item.kind != Kind::Own);
    Ok(compared
        .map(|(at, item)| {
            let state = match refused.get(&at) {
                _ if !is_there(item) => State::Absent(None),
                None => State::Same,
                Some(complaint) if says_absent(item, complaint) => {
                    State::Absent(Some(complaint.clone()))
                }
                // The code names a function that two traits have if the type has the auto trait.
                Some(complaint) if item.kind == Kind::Auto && complaint.code == "E0283" => {
                    State::Differs(Complaint {
                        message: "ours has the trait".to_owned(),
                        ..complaint.clone()
                    })
                }
                Some(complaint) => State::Differs(complaint.clone()),
            };
            (item, state, own.contains(item.roots[0].as_str()))
        })
        .collect())
}

fn roots(items: &[Item]) -> impl Iterator<Item = &str> {
    items.iter().flat_map(|item| item.roots.iter().map(String::as_str))
}

/// The code of the wanted items by their number. A mirrored path is ours if `is_ours` says so.
fn pieces(
    items: &[Item],
    is_ours: impl Fn(&str) -> bool,
    is_wanted: impl Fn(&Item) -> bool,
) -> BTreeMap<usize, String> {
    let known: BTreeSet<&str> = roots(items).collect();
    let wanted = items.iter().enumerate().filter(|(_, item)| is_wanted(item));
    wanted.map(|(at, item)| (at, instantiate(&item.code, &known, &is_ours))).collect()
}

/// Puts `strands::` or `std::` for each `$`.
fn instantiate(code: &str, known: &BTreeSet<&str>, is_ours: impl Fn(&str) -> bool) -> String {
    let mut parts = code.split('$');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let mut path = &part[..part.find(|c| !is_path(c)).unwrap_or(part.len())];
        while !known.contains(path) {
            // A variant's name comes after that of its type.
            let Some((start, _)) = path.rsplit_once("::") else { break };
            path = start;
        }
        text += if is_ours(path) { "strands::" } else { "std::" };
        text += part;
    }
    text
}

/// Whether the compiler says that there is no such item, and not that it is another.
fn says_absent(item: &Item, complaint: &Complaint) -> bool {
    let Complaint { code, message } = complaint;
    match code.as_str() {
        // Of the type itself; else it has the trait, but asks more of its parameters.
        "E0277" => {
            let name = item.roots[0].rsplit("::").next().unwrap_or_default();
            item.kind == Kind::Impl && message.contains(name)
        }
        // No such method, function, constant or variant; it is also the code for those whose bounds
        // are not met.
        "E0599" => message.starts_with("no "),
        // Of a trait; a field.
        "E0576" | "E0220" | "E0609" => true,
        _ => false,
    }
}

/// Makes the list of std's items.
fn make_list(workspace: &Workspace) -> Outcome {
    let version = rust_version(workspace)?;
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse().ok());
    let minor = minor.ok_or_else(|| Failure::Failed(format!("rust-version `{version}`")))?;
    install(workspace, &["rustc-web", "rust-web-src"], &["/usr/bin/rustdoc", SOURCE])?;
    let std = describe(workspace, "std")?;
    let below = [describe(workspace, "core")?, describe(workspace, "alloc")?];
    let items = extract::extract(&std, &below, minor);
    let compiler = Compiler::for_std(workspace)?;
    let refused = compiler.refused(&pieces(&items, |_| false, |_| true))?;
    let is_moot = moot_variances(&compiler, &items)?;
    let mut findings = Vec::new();
    for (at, complaint) in &refused {
        let Item { kind, name, code, .. } = &items[*at];
        if is_no_item(*kind, complaint) {
            println!("(left out: {name}: {})", complaint.message);
        } else {
            findings.push(format!("{name}: {} {}\n    {code}", complaint.code, complaint.message));
        }
    }
    let is_listed = |at: &usize| !refused.contains_key(at) && !is_moot.contains(at);
    let items = items.into_iter().enumerate().filter(|(at, _)| is_listed(at));
    let items: Vec<Item> = items.map(|(_, item)| item).collect();
    write(&workspace.root.join(LIST), &list::write(&version, &items))?;
    println!("({LIST} is written: {} items)", items.len());
    fail_if_any(findings)
}

/// The numbers of the variances that hold for lifetimes in any order, because the type itself makes
/// them `'static`: they say nothing.
fn moot_variances(compiler: &Compiler, items: &[Item]) -> Outcome<BTreeSet<usize>> {
    let variances = items.iter().enumerate().filter(|(_, item)| item.kind == Kind::Variance);
    let turned: Vec<Item> = variances
        .clone()
        .map(|(_, item)| Item {
            code: item.code.replace("<'short, 'long: 'short>", "<'short: 'long, 'long>"),
            ..item.clone()
        })
        .collect();
    let refused = compiler.refused(&pieces(&turned, |_| false, |_| true))?;
    let numbers = variances.map(|(at, _)| at).enumerate();
    Ok(numbers.filter(|(turned, _)| !refused.contains_key(turned)).map(|(_, at)| at).collect())
}

/// Whether code that std refuses is of something that nobody can use in stable Rust, or is the
/// answer to a question.
fn is_no_item(kind: Kind, complaint: &Complaint) -> bool {
    match complaint.code.as_str() {
        "E0658" | "E0603" => true, // Unstable; private.
        "E0015" => kind == Kind::Constness,
        "E0277" if kind == Kind::Implementing => true, // Sealed, or lacks a supertrait.
        _ => kind == Kind::Variance,
    }
}

/// What rustdoc says about one of std's crates.
fn describe(workspace: &Workspace, name: &str) -> Outcome<Crate> {
    let dir = workspace.target.join("parity");
    let line = format!(
        "--crate-name {name} --edition 2024 {SOURCE}/{name}/src/lib.rs -Zunstable-options \
         --output-format json -Zforce-unstable-if-unmarked --cap-lints allow \
         --cfg backtrace_in_libstd"
    );
    let mut cmd = Cmd::new(&workspace.root, "/usr/bin/rustdoc", &line)
        .arg("--out-dir")
        .arg(dir.to_string_lossy())
        .env("RUSTC_BOOTSTRAP", "1")
        .env("STD_ENV_ARCH", "x86_64");
    if name == "core" {
        cmd = cmd.arg("--sysroot").arg("/nonexistent");
    } else {
        let unreadable = |error| Failure::DidNotRun(format!("cannot list {LIBRARIES}: {error}"));
        for entry in std::fs::read_dir(LIBRARIES).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let library = file.strip_prefix("lib").and_then(|file| file.strip_suffix(".rmeta"));
            let library = library.and_then(|library| library.rsplit_once('-'));
            let is_above = |library| matches!(library, "std" | "test" | "proc_macro" | "sysroot");
            if let Some((library, _)) = library
                && !is_above(library)
                && library != name
            {
                cmd = cmd.arg("--extern").arg(format!("{library}={}", path.display()));
            }
        }
    }
    cmd.run()?;
    let path = dir.join(format!("{name}.json"));
    let json: Value = serde_json::from_str(&read(&path)?)
        .map_err(|error| Failure::DidNotRun(format!("{}: {error}", path.display())))?;
    Ok(Crate::new(json))
}

/// The lines that only one of the two has, in order.
fn changed_lines(old: &str, new: &str) -> Vec<String> {
    let (olds, news): (BTreeSet<&str>, BTreeSet<&str>) =
        (old.lines().collect(), new.lines().collect());
    let gone = old.lines().filter(|line| !news.contains(line)).map(|line| format!("- {line}"));
    let come = new.lines().filter(|line| !olds.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(come).collect()
}

fn write(path: &Path, text: &str) -> Outcome {
    std::fs::write(path, text)
        .map_err(|error| Failure::DidNotRun(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_ours_where_we_have_it() {
        let known = BTreeSet::from(["net", "net::Shutdown", "net::TcpStream", "thread_local"]);
        let is_ours = |path: &str| path != "net::TcpStream";
        let made = |code| instantiate(code, &known, is_ours);
        assert_eq!(made("a: &'a $net::TcpStream"), "a: &'a std::net::TcpStream");
        assert_eq!(made("$net::Shutdown::Read;"), "strands::net::Shutdown::Read;");
        assert_eq!(made("$thread_local! {}"), "strands::thread_local! {}");
        assert_eq!(made("<$net::TcpStream>::f"), "<std::net::TcpStream>::f");
    }

    #[test]
    fn what_is_not_there_is_told_from_what_is_another() {
        let says = |kind, code: &str, message: &str| {
            let item = Item::new(kind, "", &["net::A"], String::new());
            says_absent(&item, &Complaint { code: code.to_owned(), message: message.to_owned() })
        };
        assert!(says(Kind::Function, "E0599", "no function or associated item named `f` found"));
        assert!(!says(Kind::Function, "E0599", "the function or associated item `f` exists, but"));
        assert!(!says(Kind::Function, "E0308", "mismatched types"));
        assert!(says(
            Kind::Impl,
            "E0277",
            "the trait bound `strands::net::A<T>: B` is not satisfied"
        ));
        assert!(!says(Kind::Impl, "E0277", "`T` doesn't implement `Debug`"));
        assert!(!says(Kind::Auto, "E0277", "`A` cannot be sent between threads safely"));
    }

    #[test]
    fn lines_that_came_and_went_are_told() {
        let changed = changed_lines("a\nsame\nb\n", "same\nc\n");
        assert_eq!(changed, ["- a", "- b", "+ c"]);
    }
}
