//! `cargo xtask soak`: everything that strands can do, at once and at random, for as long as asked.
//!
//! The program is `soak/`. It prints its seed first, and the command that repeats an epoch when it
//! finds something.

use crate::command::{Cmd, Outcome};
use crate::workspace::{Workspace, root};

/// How long CI soaks.
const CI_SECONDS: u64 = 300;

/// Builds it and runs it with `args`.
pub fn run(args: Vec<String>) -> Outcome {
    let cmd = Cmd::new(&root(), "cargo", "run --release -p soak --");
    args.iter().fold(cmd, |cmd, arg| cmd.arg(arg)).run()
}

/// A run with a seed that nobody has tried.
pub fn check(workspace: &Workspace) -> Outcome {
    let line = format!("run --release -p soak -- --seconds {CI_SECONDS}");
    Cmd::new(&workspace.root, "cargo", &line).run()
}
