//! Asks the compiler which pieces of code it accepts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::print::{list, text};
use crate::command::{Cmd, Ended, Failure, Outcome};
use crate::workspace::{Workspace, read};

/// Why a piece of code does not compile: the first error in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Such as `E0599`; empty for errors without a code.
    pub code: String,
    pub message: String,
}

/// A compiler with the crates that the code may use.
pub struct Compiler {
    /// Where the code goes.
    dir: PathBuf,
    line: Cmd,
}

impl Compiler {
    /// With std alone.
    pub fn for_std(workspace: &Workspace) -> Outcome<Compiler> {
        let dir = workspace.target.join("parity");
        std::fs::create_dir_all(&dir).map_err(|error| {
            Failure::DidNotRun(format!("cannot create {}: {error}", dir.display()))
        })?;
        Ok(Compiler::new(&workspace.root, &dir))
    }

    fn new(root: &Path, dir: &Path) -> Compiler {
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        let line = "--edition 2024 --crate-type lib --crate-name parity --emit metadata \
                    --error-format json --cap-lints allow";
        let line = Cmd::new(root, &rustc, line).arg("--out-dir").arg(dir.to_string_lossy());
        Compiler { dir: dir.to_owned(), line }
    }

    /// With strands too, which is checked first.
    pub fn for_strands(workspace: &Workspace) -> Outcome<Compiler> {
        let cmd = Cmd::new(&workspace.root, "cargo", "check -p strands");
        println!("$ {cmd}");
        let messages =
            cmd.clone().arg("--message-format=json-render-diagnostics").read_logged(None)?;
        let metadata = metadata_of("strands", &messages).ok_or_else(|| {
            Failure::DidNotRun(format!("{cmd}: cargo does not say where its metadata is"))
        })?;
        let libraries = metadata.parent().unwrap_or(&metadata).to_string_lossy().into_owned();
        let mut compiler = Compiler::for_std(workspace)?;
        compiler.line = compiler
            .line
            .arg("-L")
            .arg(format!("dependency={libraries}"))
            .arg("--extern")
            .arg(format!("strands={}", metadata.display()));
        Ok(compiler)
    }

    /// Compiles all pieces, takes those with errors out, and goes on until the rest compiles: an
    /// error in one can keep the compiler from looking at others. Returns why which were taken out.
    pub fn refused(&self, pieces: &BTreeMap<usize, String>) -> Outcome<BTreeMap<usize, Complaint>> {
        let mut refused = BTreeMap::new();
        loop {
            let rest = pieces.iter().filter(|(key, _)| !refused.contains_key(*key));
            let rest: Vec<(usize, &String)> = rest.map(|(key, code)| (*key, code)).collect();
            let found = self.errors(&rest)?;
            if found.is_empty() {
                return Ok(refused);
            }
            refused.extend(found);
        }
    }

    fn errors(&self, pieces: &[(usize, &String)]) -> Outcome<BTreeMap<usize, Complaint>> {
        // One line each, so that the line of an error says which piece it is in.
        let lines = pieces.iter().map(|(key, code)| format!("mod m{key} {{ {code} }}\n"));
        let (source, log) = (self.dir.join("parity.rs"), self.dir.join("parity.log"));
        std::fs::write(&source, lines.collect::<String>()).map_err(|error| {
            Failure::DidNotRun(format!("cannot write {}: {error}", source.display()))
        })?;
        let cmd = self.line.clone().arg(source.to_string_lossy());
        let ended = cmd.run_logged(&log, Duration::from_secs(600))?;
        let output = read(&log)?;
        let (by_line, unplaced) = errors_by_line(&output);
        let accepted = matches!(ended, Ended::Exited(status) if status.success());
        if !unplaced.is_empty() || by_line.is_empty() != accepted {
            let why = if unplaced.is_empty() { output } else { unplaced.join("\n") };
            return Err(Failure::DidNotRun(format!("{cmd}\n{why}")));
        }
        by_line
            .into_iter()
            .map(|(line, complaint)| match pieces.get(line - 1) {
                Some((key, _)) => Ok((*key, complaint)),
                None => Err(Failure::DidNotRun(format!("{cmd}\nline {line}: {complaint:?}"))),
            })
            .collect()
    }
}

/// The first error of each line, and the errors that are on no line.
fn errors_by_line(output: &str) -> (BTreeMap<usize, Complaint>, Vec<String>) {
    let (mut by_line, mut unplaced) = (BTreeMap::new(), Vec::new());
    for line in output.lines() {
        let Ok(diagnostic) = serde_json::from_str::<Value>(line) else {
            unplaced.push(line.to_owned()); // The compiler itself failed.
            continue;
        };
        let level = diagnostic["level"].as_str().unwrap_or_default();
        if !level.starts_with("error") || is_summary(&diagnostic) {
            continue;
        }
        let complaint = Complaint {
            code: text(&diagnostic["code"]["code"]),
            message: text(&diagnostic["message"]),
        };
        let spans = list(&diagnostic["spans"]).iter().filter(|span| span["is_primary"] == true);
        let lines: Vec<usize> = spans.filter_map(line_of).collect();
        if lines.is_empty() {
            unplaced.push(text(&diagnostic["rendered"]));
        }
        for line in lines {
            by_line.entry(line).or_insert_with(|| complaint.clone());
        }
    }
    (by_line, unplaced)
}

/// `aborting due to 3 previous errors` and the like.
fn is_summary(diagnostic: &Value) -> bool {
    list(&diagnostic["spans"]).is_empty()
        && text(&diagnostic["message"]).starts_with("aborting due to")
}

/// Where the code is that a span is in, or that expanded to it.
fn line_of(span: &Value) -> Option<usize> {
    if text(&span["file_name"]).ends_with("parity.rs") {
        return usize::try_from(span["line_start"].as_u64()?).ok();
    }
    line_of(span.get("expansion").filter(|expansion| !expansion.is_null())?.get("span")?)
}

/// The metadata that cargo has made for a library.
fn metadata_of(name: &str, messages: &str) -> Option<PathBuf> {
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut libraries = artifacts.filter(|artifact| {
        artifact["reason"] == "compiler-artifact"
            && artifact["target"]["name"] == name
            && list(&artifact["target"]["kind"]).iter().any(|kind| kind == "lib")
    });
    let library = libraries.next()?;
    let mut files = list(&library["filenames"]).iter().map(text);
    files.find(|file| file.ends_with(".rmeta")).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_says_which_pieces_it_refuses() {
        let root = crate::workspace::root();
        let dir = std::env::temp_dir().join(format!("strands-parity-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let compiler = Compiler::new(&root, &dir);
        let pieces = [
            "fn p() { let _: fn(u8) -> u8 = std::convert::identity::<u8>; }",
            "fn p() { let _: fn(u8) -> u16 = std::convert::identity::<u8>; }",
            "use std::no_such_module as _;",
            "fn p() { let _ = <u8>::no_such_function; }",
            "fn p<'a, 'b>(x: &'a &'b u8) { let _: &'a &'static u8 = x; }",
            "fn p<T>(x: *const T) { fn is<T>(_: *const T) where T: Send {} is::<T>(x) }",
        ];
        let pieces = pieces.iter().enumerate().map(|(at, code)| (at * 10, (*code).to_owned()));
        let refused = compiler.refused(&pieces.collect()).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let codes: Vec<(usize, &str)> =
            refused.iter().map(|(key, complaint)| (*key, complaint.code.as_str())).collect();
        // Unresolved names keep the compiler from looking at types, and those from lifetimes.
        let expected = [(10, "E0308"), (20, "E0432"), (30, "E0599"), (40, ""), (50, "E0277")];
        assert_eq!(codes, expected);
    }

    #[test]
    fn metadata_is_that_of_the_library() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"strands","kind":["example"]},"filenames":["/t/a.rmeta"]}
{"reason":"compiler-artifact","target":{"name":"strands","kind":["lib"]},"filenames":["/t/b.rlib","/t/b.rmeta"]}"#;
        assert_eq!(metadata_of("strands", messages), Some(PathBuf::from("/t/b.rmeta")));
    }

    #[test]
    fn errors_are_found_by_their_lines() {
        let output = r#"
{"level":"warning","message":"w","code":null,"spans":[]}
{"level":"error","message":"two","code":{"code":"E0432"},"spans":[{"is_primary":true,"file_name":"/x/parity.rs","line_start":3},{"is_primary":true,"file_name":"/x/parity.rs","line_start":5}]}
{"level":"error","message":"later","code":null,"spans":[{"is_primary":true,"file_name":"/x/parity.rs","line_start":3}]}
{"level":"error","message":"macro","code":null,"spans":[{"is_primary":true,"file_name":"/std/local.rs","line_start":900,"expansion":{"span":{"is_primary":false,"file_name":"/x/parity.rs","line_start":7,"expansion":null}}}]}
{"level":"error","message":"aborting due to 4 previous errors","code":null,"spans":[]}"#;
        let (by_line, unplaced) = errors_by_line(output.trim());
        let found: Vec<(usize, &str)> =
            by_line.iter().map(|(line, complaint)| (*line, complaint.message.as_str())).collect();
        assert_eq!(found, [(3, "two"), (5, "two"), (7, "macro")]);
        assert_eq!(by_line[&3].code, "E0432");
        assert!(unplaced.is_empty());
        let (_, unplaced) = errors_by_line(
            "{\"level\":\"error: internal compiler error\",\"message\":\"\",\"rendered\":\"ice\"}",
        );
        assert_eq!(unplaced, ["ice"]);
    }
}
