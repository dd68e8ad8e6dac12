//! `cargo xtask ci two-versions`: two versions of strands in one program, as two dependencies may
//! bring them.
//!
//! A copy of the crates gets another version number, and a program that uses both is built and run
//! (`two_versions/program.rs` says what it checks). All this lies in the target directory. Made
//! here and not by `cargo test`, as it compiles every crate twice.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Cmd, Failure, Outcome, fail_if_any};
use crate::workspace::{Workspace, files, read};

const PROGRAM: &str = include_str!("two_versions/program.rs");
const OTHER_VERSION: &str = "99.0.0";

/// Builds and runs the program, and looks at the names that the crates export.
pub fn check(workspace: &Workspace) -> Outcome {
    let dir = workspace.target.join("two-versions");
    let version = copy_with_other_version(workspace, &dir.join("other"))?;
    write(&dir.join("program/src/main.rs"), PROGRAM)?;
    let root = workspace.root.display();
    let manifest = format!(
        "[package]\nname = \"two-versions\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [workspace]\n\n\
         [dependencies]\n\
         strands = {{ path = \"{root}/crates/strands\", version = \"{version}\" }}\n\
         other = {{ package = \"strands\", path = \"../other/crates/strands\", \
         version = \"{OTHER_VERSION}\" }}\n"
    );
    write(&dir.join("program/Cargo.toml"), &manifest)?;
    // The same dependencies as ours, so that nothing has to be fetched.
    write(&dir.join("program/Cargo.lock"), &read(&workspace.root.join("Cargo.lock"))?)?;
    let target = dir.join("target");
    Cmd::new(&dir.join("program"), "cargo", "run --offline --target-dir")
        .arg(target.to_string_lossy())
        .run()?;
    only_mangled_names(workspace, &target.join("debug/deps"))
}

/// Copies the crates to `to`, where they get [`OTHER_VERSION`]; returns the version that they have.
fn copy_with_other_version(workspace: &Workspace, to: &Path) -> Outcome<String> {
    let strands = workspace.members().find(|package| package.name == "strands");
    let version = strands
        .map(|package| package.version.clone())
        .ok_or_else(|| Failure::DidNotRun("the workspace has no package `strands`".into()))?;
    if to.exists() {
        // What was deleted here since must not stay there.
        fs::remove_dir_all(to).map_err(|error| cannot("remove", to, &error))?;
    }
    let mut paths = vec!["Cargo.toml".to_owned()];
    for suffix in [".rs", ".toml"] {
        let crates = files(&workspace.root, suffix)?;
        paths.extend(crates.into_iter().filter(|path| path.starts_with("crates/")));
    }
    for path in paths {
        let mut text = read(&workspace.root.join(&path))?;
        if path == "Cargo.toml" {
            text = with_other_version(&text, &version);
        }
        write(&to.join(&path), &text)?;
    }
    Ok(version)
}

/// The root manifest with another version in it, and without the members that are not crates.
fn with_other_version(manifest: &str, version: &str) -> String {
    let lines = manifest.lines().map(|line| {
        if line.starts_with("members = ") {
            "members = [\"crates/*\"]".to_owned()
        } else if line.starts_with("version = ") || line.starts_with("strands") {
            line.replace(&format!("\"{version}\""), &format!("\"{OTHER_VERSION}\""))
        } else {
            line.to_owned()
        }
    });
    lines.map(|line| line + "\n").collect()
}

/// Fails if one of our crates exports a name that Rust has not mangled, and so made its version's own.
fn only_mangled_names(workspace: &Workspace, deps: &Path) -> Outcome {
    let mut findings = Vec::new();
    let mut libraries = 0;
    for entry in fs::read_dir(deps).map_err(|error| cannot("read", deps, &error))? {
        let path = entry.map_err(|error| cannot("read", deps, &error))?.path();
        if !is_ours(workspace, &path) {
            continue;
        }
        libraries += 1;
        let names = Cmd::new(deps, "nm", "--extern-only --defined-only --no-sort --format=posix")
            .arg(path.to_string_lossy())
            .read()
            .map_err(|failure| {
                let reason = failure.reason();
                Failure::DidNotRun(format!("{reason}\nto install it: apt-get install binutils"))
            })?;
        let foreign = names.lines().filter(|line| is_foreign(line));
        findings.extend(foreign.map(|line| format!("{} exports {line}", path.display())));
    }
    println!("(the names that {libraries} libraries export)");
    if libraries == 0 {
        return Err(Failure::DidNotRun(format!("no library of ours is in {}", deps.display())));
    }
    fail_if_any(findings)
}

/// Whether `path` is the library of one of the crates that programs link.
fn is_ours(workspace: &Workspace, path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let crate_name = name.strip_prefix("lib").and_then(|name| name.split_once('-'));
    let Some((crate_name, _)) = crate_name.filter(|_| name.ends_with(".rlib")) else {
        return false;
    };
    workspace.members().any(|package| package.name.replace('-', "_") == crate_name)
}

/// Whether a line of `nm` names a symbol that others could have too. The reference to the
/// personality routine is the compiler's, and meant to be shared.
fn is_foreign(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let (Some(name), Some(_)) = (words.next(), words.next()) else { return false };
    let of_a_member = line.ends_with(':'); // The line that says whose symbols follow.
    let mangled = name.starts_with("_R") || name.starts_with("_ZN");
    !of_a_member && !mangled && name != "DW.ref.rust_eh_personality"
}

fn write(path: &Path, text: &str) -> Outcome {
    let parent = path.parent().map(PathBuf::from).unwrap_or_default();
    fs::create_dir_all(&parent).map_err(|error| cannot("create", &parent, &error))?;
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(()); // So that cargo does not build it again.
    }
    fs::write(path, text).map_err(|error| cannot("write", path, &error))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::DidNotRun(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_s_manifest_has_the_other_version_and_only_crates() {
        let manifest = "[workspace]\nmembers = [\"crates/*\", \"xtask\"]\n[workspace.package]\n\
                        version = \"0.1.0\"\nedition = \"2024\"\n[workspace.dependencies]\n\
                        strands = { path = \"p\", version = \"0.1.0\" }\nmio = \"0.1.0\"\n";
        let expected = "[workspace]\nmembers = [\"crates/*\"]\n[workspace.package]\n\
                        version = \"99.0.0\"\nedition = \"2024\"\n[workspace.dependencies]\n\
                        strands = { path = \"p\", version = \"99.0.0\" }\nmio = \"0.1.0\"\n";
        assert_eq!(with_other_version(manifest, "0.1.0"), expected);
    }

    #[test]
    fn only_names_of_nobody_s_own_are_foreign() {
        let others = ["switch_context T 0 40", "on_fault T 0", "rust_eh_personality D 0 8"];
        assert!(others.into_iter().all(is_foreign));
        let own = [
            "_ZN7strands5spawn17h0123456789abcdefE T 0 40",
            "_RNvCs1234_7strands5spawn T 0",
            "DW.ref.rust_eh_personality V 0 8",
            "libstrands.rlib[strands.o]:",
            "libstrands.rlib[strands with a space.o]:",
            "",
        ];
        assert!(!own.into_iter().any(is_foreign));
    }
}
