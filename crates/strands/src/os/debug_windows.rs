//! What Windows has no equivalent of, for [`debug`](crate::debug).

use std::io::{self, Write};

pub(crate) fn on_sigquit(_f: fn()) -> io::Result<()> {
    let text = "there is no SIGQUIT on this system; call debug::dump";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

/// The system counts a thread's time in steps of milliseconds.
pub(crate) const THREAD_CLOCK: Option<fn() -> u64> = None;

/// Not `eprintln!`, which panics if nobody reads it. In one go, so that nothing comes in between.
pub(crate) fn print(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Threads cannot be found here.
pub(crate) fn thread_token() -> usize {
    0
}

/// Nothing is known of the stacks of other threads here.
pub(crate) fn sample(_token: usize) -> Option<(u64, Vec<usize>)> {
    None
}
