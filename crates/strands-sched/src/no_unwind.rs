//! Where an unwinding must not pass: it would leave memory that others use.
//!
//! What runs there is user code that is not meant to panic (a driver, a destructor's payload), or
//! code of ours that has no reason to. Rather than to believe either, the process ends. It costs a
//! landing pad, and nothing while nobody unwinds.

use std::io::{self, Write};
use std::process;

/// Lives while its frame is in use by others, or must not be left; to be [disarmed](Self::disarm).
pub(crate) struct AbortOnUnwind(pub(crate) &'static str);

impl AbortOnUnwind {
    /// The frame may be left again.
    #[inline(always)]
    pub(crate) fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for AbortOnUnwind {
    #[cold]
    fn drop(&mut self) {
        // Not `eprintln!`, which panics if nobody reads it.
        let _ = writeln!(io::stderr(), "strands: {}; aborting", self.0);
        process::abort();
    }
}
