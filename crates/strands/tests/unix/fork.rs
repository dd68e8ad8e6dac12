//! The test `fork`, which has a `main` of its own and is for Unix: elsewhere there is nothing to run.

#[cfg(unix)]
#[path = "../fork.rs"]
mod fork;

fn main() {
    #[cfg(unix)]
    fork::main();
}
