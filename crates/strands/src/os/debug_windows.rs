//! What Windows has no equivalent of, for [`debug`](crate::debug).

use std::io;

pub(crate) fn on_sigquit(_f: fn()) -> io::Result<()> {
    let text = "there is no SIGQUIT on this system; call debug::dump";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

/// Threads cannot be found here.
pub(crate) fn thread_token() -> usize {
    0
}

/// Nothing is known of the stacks of other threads here.
pub(crate) fn sample(_token: usize) -> Option<(u64, Vec<usize>)> {
    None
}
