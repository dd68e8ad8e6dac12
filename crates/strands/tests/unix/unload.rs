//! The test `unload`, which has a `main` of its own and is for Unix: elsewhere there is nothing to run.

#[cfg(unix)]
#[path = "../unload.rs"]
mod unload;

fn main() {
    #[cfg(unix)]
    unload::main();
}
