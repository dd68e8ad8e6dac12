//! `cargo xtask mutants`: a loom model is worth what it catches.
//!
//! A model that passes may pass because it checks nothing. So for each protocol `mutants.txt` names
//! one line without which the protocol is wrong, and the model that must then fail. This removes
//! the line in a copy of the workspace, builds, runs that model alone, and reports `killed` or
//! `SURVIVED`. Before that, all named models must pass on the copy as it is.
//!
//! A mutant that does not compile, or whose model runs out of time, has shown nothing: it counts as
//! an error of the list, not as killed. Tools that invent mutants were turned down: most of what
//! they remove from lock-free code changes nothing that a model of bounded size can see.
//!
//! # The list
//!
//! `crates/CRATE/mutants.txt` holds blocks with an empty line between them. A line that starts with
//! `#` is a comment; one that starts with a space continues the value above it.
//!
//! ```text
//! name: sleeper-counts-itself-first
//! file: crates/strands-sched/src/idle.rs
//! remove: self.sleepers.fetch_add(1, SeqCst);
//! model: idle::models::push_and_sleep
//! why: A pusher that looks at the count before the sleeper is in it wakes nobody.
//! ```
//!
//! | key | meaning |
//! |---|---|
//! | `name` | what the table and `cargo xtask mutants NAME` call it |
//! | `file` | the file, from the root of the repository |
//! | `remove` | the line, without the space around it; it must occur once in the file |
//! | `line` | optional, `2 of 3`: the line occurs three times and the second is meant |
//! | `replace-with` | optional: what to put in the line's place |
//! | `model` | the full name of a test in the library of this crate, as `cargo test` prints it |
//! | `why` | what goes wrong without the line |
//! | `timeout` | optional, in seconds for the run of the model (300) |
//! | a name in capitals | optional: an environment variable for the run, such as `LOOM_MAX_PREEMPTIONS` |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::command::{Cmd, Ended, Failure, Outcome};
use crate::workspace::{TestBinary, Workspace, build_tests, read};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// Runs the mutants named in `args`, or all, or lists them.
pub fn run(args: Vec<String>) -> Outcome {
    if args.iter().any(|arg| arg == "--list") {
        for mutant in load(&crate::workspace::root())? {
            println!("{:<32} {:<40} {}", mutant.name, mutant.model, mutant.why);
        }
        return Ok(());
    }
    try_out(&Workspace::load()?, &args)
}

/// Every line of the lists is where it is said to be. To build and run a hundred mutants takes longer than CI may.
pub fn check_lines(workspace: &Workspace) -> Outcome {
    let mutants = load(&workspace.root)?;
    mutants.iter().try_for_each(|mutant| change(workspace, mutant).map(drop))?;
    println!("({} lines; `cargo xtask mutants` takes out each)", mutants.len());
    Ok(())
}

/// Runs the mutants with these names, or all if there are none.
fn try_out(workspace: &Workspace, names: &[String]) -> Outcome {
    let mut mutants = load(&workspace.root)?;
    if let Some(name) = names.iter().find(|name| mutants.iter().all(|m| m.name != **name)) {
        return Err(Failure::DidNotRun(format!("no mutants.txt names a mutant `{name}`")));
    }
    mutants.retain(|mutant| names.is_empty() || names.contains(&mutant.name));
    // Every line is found before the first build starts.
    let changes = mutants.iter().map(|mutant| change(workspace, mutant));
    let changes = changes.collect::<Outcome<Vec<_>>>()?;
    let lab = Laboratory::new(workspace)?;
    lab.models_pass_unchanged(&mutants)?;

    // A compiler spends half its time on one core, and a model all of it.
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(changes.len());
    let mut labs = (1..cores).map(|number| lab.another(number)).collect::<Outcome<Vec<_>>>()?;
    labs.push(lab);
    let changes = Mutex::new(changes.into_iter());
    let rows = std::thread::scope(|scope| {
        let run = |lab| scope.spawn(|| try_out_each(lab, &changes));
        let labs: Vec<_> = labs.into_iter().map(run).collect();
        labs.into_iter().map(|lab| lab.join().expect("an xtask thread panicked")).collect()
    });
    let rows: Outcome<Vec<Vec<Row>>> = rows;
    let mut rows: Vec<Row> = rows?.into_iter().flatten().collect();
    rows.sort_by_key(|row| mutants.iter().position(|mutant| mutant == row.mutant));
    println!("\n{}", table(&rows));
    let bad: Vec<String> = rows.iter().filter_map(Row::complaint).collect();
    crate::command::fail_if_any(bad)
}

/// A mutant, its file as it is, and as the mutant has it.
type Change<'a> = (&'a Mutant, String, String);

fn change<'a>(workspace: &Workspace, mutant: &'a Mutant) -> Outcome<Change<'a>> {
    let original = read(&workspace.root.join(&mutant.file))?;
    let changed = mutant.apply(&original).map_err(|error| {
        Failure::DidNotRun(format!("{}: mutant `{}`: {error}", mutant.source, mutant.name))
    })?;
    Ok((mutant, original, changed))
}

/// Tries out the next of `changes` in `lab` until there is none.
fn try_out_each<'a>(
    lab: Laboratory,
    changes: &Mutex<impl Iterator<Item = Change<'a>>>,
) -> Outcome<Vec<Row<'a>>> {
    let next = || changes.lock().expect("taking the next does not panic").next();
    let mut rows = Vec::new();
    while let Some((mutant, original, changed)) = next() {
        let start = Instant::now();
        let file = lab.tree.join(&mutant.file);
        write(&file, &changed)?;
        let verdict = lab.try_out(mutant);
        write(&file, &original)?;
        let row = Row { mutant, verdict: verdict?, seconds: start.elapsed().as_secs_f64() };
        println!("{}", row.line());
        rows.push(row);
    }
    Ok(rows)
}

/// One line to remove, and the model that must notice.
#[derive(Clone, Debug, PartialEq)]
struct Mutant {
    /// The list that it is from.
    source: String,
    /// The crate whose library has the model.
    package: String,
    name: String,
    file: String,
    remove: String,
    /// Which of how many equal lines.
    line: Option<(usize, usize)>,
    replace_with: Option<String>,
    model: String,
    why: String,
    timeout: Duration,
    env: BTreeMap<String, String>,
}

fn load(root: &Path) -> Outcome<Vec<Mutant>> {
    let mut mutants: Vec<Mutant> = Vec::new();
    for path in crate::workspace::files(&root.join("crates"), "mutants.txt")? {
        let source = format!("crates/{path}");
        let Some((package, "mutants.txt")) = path.split_once('/') else { continue };
        let parsed = parse(&source, package, &read(&root.join(&source))?)
            .map_err(|error| Failure::DidNotRun(format!("{source}: {error}")))?;
        mutants.extend(parsed);
    }
    for (index, mutant) in mutants.iter().enumerate() {
        if mutants[..index].iter().any(|earlier| earlier.name == mutant.name) {
            let text = format!("{}: there are two mutants `{}`", mutant.source, mutant.name);
            return Err(Failure::DidNotRun(text));
        }
    }
    if mutants.is_empty() {
        return Err(Failure::DidNotRun("no crates/*/mutants.txt names a mutant".into()));
    }
    Ok(mutants)
}

fn parse(source: &str, package: &str, text: &str) -> Result<Vec<Mutant>, String> {
    let mut mutants = Vec::new();
    let mut block: Vec<(String, String)> = Vec::new();
    // An empty line after the last one ends the last block as any other.
    for (index, line) in text.lines().chain([""]).enumerate() {
        let number = index + 1;
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            if !block.is_empty() {
                let ended = format!("the block that ends above line {number}");
                let mutant = mutant(source, package, std::mem::take(&mut block));
                mutants.push(mutant.map_err(|error| format!("{ended}: {error}"))?);
            }
        } else if line.starts_with([' ', '\t']) {
            let (_, value) =
                block.last_mut().ok_or_else(|| format!("line {number}: it continues nothing"))?;
            *value += " ";
            *value += line.trim();
        } else {
            let (key, value) = line
                .split_once(':')
                .ok_or_else(|| format!("line {number}: `key: value` is expected"))?;
            if block.iter().any(|(earlier, _)| earlier == key) {
                return Err(format!("line {number}: this block has `{key}` twice"));
            }
            block.push((key.to_owned(), value.trim().to_owned()));
        }
    }
    Ok(mutants)
}

fn mutant(source: &str, package: &str, block: Vec<(String, String)>) -> Result<Mutant, String> {
    let mut values: BTreeMap<String, String> = block.into_iter().collect();
    let mut take = |key: &str| values.remove(key).filter(|value| !value.is_empty());
    let missing = |key: &str| format!("it has no `{key}`");
    let mutant = Mutant {
        source: source.to_owned(),
        package: package.to_owned(),
        name: take("name").ok_or_else(|| missing("name"))?,
        file: take("file").ok_or_else(|| missing("file"))?,
        remove: take("remove").ok_or_else(|| missing("remove"))?,
        line: take("line").map(|value| k_of_n(&value)).transpose()?,
        replace_with: take("replace-with"),
        model: take("model").ok_or_else(|| missing("model"))?,
        why: take("why").ok_or_else(|| missing("why"))?,
        timeout: match take("timeout") {
            None => DEFAULT_TIMEOUT,
            Some(value) => Duration::from_secs(
                value.parse().map_err(|_| format!("`timeout: {value}` is no number of seconds"))?,
            ),
        },
        env: values,
    };
    let is_variable = |key: &String| {
        key.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    match mutant.env.keys().find(|key| !is_variable(key)) {
        Some(key) => Err(format!("`{key}` is no key of a mutant")),
        None => Ok(mutant),
    }
}

fn k_of_n(value: &str) -> Result<(usize, usize), String> {
    let parts: Vec<&str> = value.split_whitespace().collect();
    let [k, "of", n] = parts[..] else { return Err(format!("`line: {value}` is not `K of N`")) };
    match (k.parse(), n.parse()) {
        (Ok(k), Ok(n)) if 1 <= k && k <= n => Ok((k, n)),
        _ => Err(format!("`line: {value}` is not `K of N`")),
    }
}

impl Mutant {
    /// `text` without the line, whose place stays empty so that line numbers in messages are those
    /// of the original.
    fn apply(&self, text: &str) -> Result<String, String> {
        let lines: Vec<&str> = text.lines().collect();
        let matching: Vec<usize> =
            (0..lines.len()).filter(|index| lines[*index].trim() == self.remove).collect();
        let (k, n) = self.line.unwrap_or((1, 1));
        if matching.len() != n {
            return Err(format!(
                "`{}` occurs {} times in {}, not {n}: correct `remove`, or add `line: K of N`",
                self.remove,
                matching.len(),
                self.file
            ));
        }
        let chosen = lines[matching[k - 1]];
        let indent = &chosen[..chosen.len() - chosen.trim_start().len()];
        let replacement = self.replace_with.as_ref().map(|new| format!("{indent}{new}"));
        let mut changed: Vec<&str> = lines;
        changed[matching[k - 1]] = replacement.as_deref().unwrap_or_default();
        Ok(changed.join("\n") + "\n")
    }
}

/// How a mutant ended.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// The model failed, in these words.
    Killed(String),
    /// The model passed: it does not check what the line is there for.
    Survived,
    /// Nothing is known.
    Error(String),
}

/// A copy of the workspace that lines are removed in, and where it is built.
struct Laboratory {
    /// Holds all laboratories.
    home: PathBuf,
    tree: PathBuf,
    target: PathBuf,
    logs: PathBuf,
}

impl Laboratory {
    fn new(workspace: &Workspace) -> Outcome<Laboratory> {
        Laboratory::furnish(&workspace.root, &workspace.target.join("mutants"), 0)
    }

    /// One more, with what this one has built of the dependencies.
    fn another(&self, number: usize) -> Outcome<Laboratory> {
        let lab = Laboratory::furnish(&self.tree, &self.home, number)?;
        // Not `copy`: cargo goes by the times.
        let copy = Cmd::new(&self.home, "cp", "-a").arg(self.target.to_string_lossy());
        copy.arg(lab.target.to_string_lossy()).run()?;
        Ok(lab)
    }

    fn furnish(root: &Path, home: &Path, number: usize) -> Outcome<Laboratory> {
        let room = home.join(number.to_string());
        let tree = room.join("tree");
        println!("(copy the workspace to {})", tree.display());
        let io = |error: std::io::Error| {
            Failure::DidNotRun(format!("cannot copy to {}: {error}", room.display()))
        };
        // What the first has built serves its next run; the others take it over.
        let old = if number == 0 { &tree } else { &room };
        if old.exists() {
            std::fs::remove_dir_all(old).map_err(io)?;
        }
        copy(root, &tree, &["target", ".git", "bench"]).map_err(io)?;
        let target = room.join("target");
        Ok(Laboratory { home: home.to_owned(), tree, target, logs: home.join("logs") })
    }

    fn models_pass_unchanged(&self, mutants: &[Mutant]) -> Outcome {
        let mut groups: BTreeMap<_, Vec<&Mutant>> = BTreeMap::new();
        for mutant in mutants {
            groups.entry((&mutant.package, &mutant.env)).or_default().push(mutant);
        }
        for ((package, env), group) in groups {
            let binary = self.build(package, None)?;
            let tests = binary.tests()?;
            let mut models: Vec<&str> = group.iter().map(|mutant| &*mutant.model).collect();
            models.sort_unstable();
            models.dedup();
            for model in &models {
                if !tests.iter().any(|test| test == model) {
                    return Err(Failure::DidNotRun(no_such_model(package, model, &tests)));
                }
            }
            println!("(the models without a change: {})", models.join(", "));
            let mut cmd = binary.cmd().arg("--exact");
            for model in &models {
                cmd = cmd.arg(*model);
            }
            let cmd = env.iter().fold(cmd, |cmd, (name, value)| cmd.env(name, value));
            let log = self.logs.join(format!("unchanged-{package}.log"));
            let limit = group.iter().map(|mutant| mutant.timeout).sum();
            let ended = cmd.run_logged(&log, limit)?;
            if !matches!(ended, Ended::Exited(status) if status.success()) {
                print!("{}", read(&log)?);
                return Err(Failure::Failed(format!(
                    "a model fails without any mutant, so no mutant was tried: {}",
                    log.display()
                )));
            }
        }
        Ok(())
    }

    /// Builds the changed tree and runs the mutant's model.
    fn try_out(&self, mutant: &Mutant) -> Outcome<Verdict> {
        let log = self.logs.join(format!("{}.log", mutant.name));
        let binary = match self.build(&mutant.package, Some(&log)) {
            Ok(binary) => binary,
            Err(_) => {
                return Ok(Verdict::Error(format!("it does not compile: {}", log.display())));
            }
        };
        let cmd = binary.cmd().arg("--exact").arg(&mutant.model).env("RUST_BACKTRACE", "0");
        let cmd = mutant.env.iter().fold(cmd, |cmd, (name, value)| cmd.env(name, value));
        let ended = cmd.run_logged(&log, mutant.timeout)?;
        Ok(verdict(&ended, &read(&log)?, mutant.timeout))
    }

    fn build(&self, package: &str, log: Option<&Path>) -> Outcome<TestBinary> {
        let cmd = Cmd::new(&self.tree, "cargo", &format!("test --release --lib -p {package}"))
            .arg("--target-dir")
            .arg(self.target.to_string_lossy())
            .env("RUSTFLAGS", "--cfg loom")
            // One line differs from build to build.
            .env("CARGO_INCREMENTAL", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        let mut binaries = build_tests(cmd, log)?;
        binaries
            .pop()
            .ok_or_else(|| Failure::DidNotRun(format!("cargo built no tests of {package}")))
    }
}

fn verdict(ended: &Ended, output: &str, timeout: Duration) -> Verdict {
    let Ended::Exited(status) = ended else {
        return Verdict::Error(format!("its model did not end in {} s", timeout.as_secs()));
    };
    if status.success() {
        return Verdict::Survived;
    }
    // Nobody asked for SIGKILL; on a crowded machine the kernel does when memory is short.
    if is_sigkill(status) {
        return Verdict::Error(format!("its model was killed from outside ({status})"));
    }
    Verdict::Killed(panic_message(output).unwrap_or_else(|| status.to_string()))
}

fn is_sigkill(status: &ExitStatus) -> bool {
    status.code().is_none() && status.to_string().contains("signal: 9 ")
}

/// The first line that the first panic in a test's output said.
fn panic_message(output: &str) -> Option<String> {
    let mut lines = output.lines();
    lines.find(|line| line.contains(" panicked at "))?;
    lines.map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

fn no_such_model(package: &str, model: &str, tests: &[String]) -> String {
    let last = model.rsplit("::").next().unwrap_or(model);
    let near: Vec<&str> =
        tests.iter().map(String::as_str).filter(|test| test.contains(last)).collect();
    let hint = if near.is_empty() {
        "`cargo test --lib -- --list` with RUSTFLAGS='--cfg loom' lists them".to_owned()
    } else {
        format!("did you mean {}?", near.join(", "))
    };
    format!("the library of {package} has no test `{model}`: {hint}")
}

struct Row<'a> {
    mutant: &'a Mutant,
    verdict: Verdict,
    seconds: f64,
}

impl Row<'_> {
    fn line(&self) -> String {
        let (result, detail) = match &self.verdict {
            Verdict::Killed(how) => ("killed", &**how),
            Verdict::Survived => ("SURVIVED", "the model passes without the line"),
            Verdict::Error(what) => ("ERROR", &**what),
        };
        let Mutant { name, model, .. } = self.mutant;
        format!("{name:<32} {model:<40} {result:<8} {:>7.1}  {detail}", self.seconds)
    }

    fn complaint(&self) -> Option<String> {
        let Mutant { name, model, remove, why, .. } = self.mutant;
        match &self.verdict {
            Verdict::Killed(_) => None,
            Verdict::Survived => Some(format!(
                "mutant `{name}` survived: `{model}` passes without `{remove}`. Make the model see \
                 it (\"{why}\"), or drop a line that is not needed"
            )),
            Verdict::Error(what) => Some(format!("mutant `{name}`: {what}")),
        }
    }
}

fn table(rows: &[Row]) -> String {
    let header = format!("{:<32} {:<40} {:<8} {:>7}\n", "mutant", "model", "result", "seconds");
    rows.iter().fold(header, |text, row| text + &row.line() + "\n")
}

/// Copies a directory without the entries named in `without`. New files have new times, so cargo
/// builds them anew.
fn copy(from: &Path, to: &Path, without: &[&str]) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if without.iter().any(|other| name == *other) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(&name), &["target"])?;
        } else {
            std::fs::copy(entry.path(), to.join(&name))?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Outcome {
    std::fs::write(path, text)
        .map_err(|error| Failure::DidNotRun(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
# A comment.

name: first
file: crates/c/src/a.rs
remove: self.count.fetch_add(1, SeqCst);
model: a::models::m
why: Because
  of that.

name: second
file: crates/c/src/a.rs
remove: fence(SeqCst);
line: 2 of 3
replace-with: fence(Relaxed);
model: a::models::m
timeout: 60
LOOM_MAX_PREEMPTIONS: 2
why: As above.
";

    fn parsed() -> Vec<Mutant> {
        parse("crates/c/mutants.txt", "c", LIST).unwrap()
    }

    #[test]
    fn the_list_is_read() {
        let [first, second] = &parsed()[..] else { panic!("two mutants") };
        assert_eq!(first.remove, "self.count.fetch_add(1, SeqCst);");
        assert_eq!(first.why, "Because of that.");
        assert_eq!(first.timeout, DEFAULT_TIMEOUT);
        assert_eq!((&*first.package, first.line), ("c", None));
        assert_eq!(second.line, Some((2, 3)));
        assert_eq!(second.replace_with.as_deref(), Some("fence(Relaxed);"));
        assert_eq!(second.timeout, Duration::from_secs(60));
        assert_eq!(second.env["LOOM_MAX_PREEMPTIONS"], "2");
    }

    #[test]
    fn a_list_that_cannot_be_read_says_why() {
        let error = |text: &str| parse("x", "c", text).unwrap_err();
        assert!(error("name: a\n").contains("no `file`"));
        assert!(error("name: a\nname: b\n").contains("line 2: this block has `name` twice"));
        assert!(error("  a\n").contains("line 1: it continues nothing"));
        assert!(error("name\n").contains("line 1: `key: value`"));
        let rest = "name: a\nfile: f\nremove: r\nmodel: m\nwhy: w\n";
        assert!(error(&format!("{rest}modle: m\n")).contains("`modle` is no key"));
        assert!(error(&format!("{rest}line: 3 of 2\n")).contains("not `K of N`"));
        assert!(error(&format!("{rest}timeout: soon\n")).contains("no number of seconds"));
        assert_eq!(parse("x", "c", rest).unwrap().len(), 1);
    }

    #[test]
    fn the_chosen_line_goes_and_no_other_moves() {
        let [first, second] = &parsed()[..] else { panic!("two mutants") };
        let text = "a\n    self.count.fetch_add(1, SeqCst);\nb\n";
        assert_eq!(first.apply(text).unwrap(), "a\n\nb\n");
        let text = "fence(SeqCst);\n  fence(SeqCst);\nfence(SeqCst);\n";
        let expected = "fence(SeqCst);\n  fence(Relaxed);\nfence(SeqCst);\n";
        assert_eq!(second.apply(text).unwrap(), expected);
    }

    #[test]
    fn a_line_that_is_not_there_or_not_alone_is_an_error() {
        let [first, second] = &parsed()[..] else { panic!("two mutants") };
        assert!(first.apply("a\n").unwrap_err().contains("occurs 0 times"));
        // A part of a line is not the line.
        assert!(first.apply("x = self.count.fetch_add(1, SeqCst);\n").is_err());
        let twice = "self.count.fetch_add(1, SeqCst);\n".repeat(2);
        assert!(first.apply(&twice).unwrap_err().contains("occurs 2 times"));
        assert!(second.apply("fence(SeqCst);\n").unwrap_err().contains("occurs 1 times"));
    }

    #[test]
    fn the_panic_is_quoted() {
        let output = "\
running 1 test
thread 'm' (12) panicked at src/a.rs:3:5:
assertion failed: woken
note: run with `RUST_BACKTRACE=1`";
        assert_eq!(panic_message(output).unwrap(), "assertion failed: woken");
        assert_eq!(panic_message("nothing"), None);
    }

    #[test]
    fn a_model_that_runs_out_of_time_kills_nothing() {
        let verdict = verdict(&Ended::TimedOut, "", Duration::from_secs(9));
        assert_eq!(verdict, Verdict::Error("its model did not end in 9 s".into()));
    }

    #[test]
    fn a_model_that_is_not_there_is_told_with_its_neighbours() {
        let tests = ["a::models::wakes".to_owned(), "b::other".to_owned()];
        assert!(
            no_such_model("c", "models::wakes", &tests).contains("did you mean a::models::wakes?")
        );
        assert!(no_such_model("c", "sleeps", &tests).contains("--list"));
    }
}
