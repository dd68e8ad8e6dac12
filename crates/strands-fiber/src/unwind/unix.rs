//! The walk, by the unwinder that panics use.

use std::ffi::{c_int, c_void};

use super::lsda::{self, Seen};

/// `struct _Unwind_Context`.
#[repr(C)]
struct Frame {
    _opaque: [u8; 0],
}

const CONTINUE: c_int = 0; // _URC_NO_REASON
const STOP: c_int = 5; // _URC_END_OF_STACK

// Part of every program with Rust's standard library, whose panics it carries out.
#[allow(clashing_extern_declarations, reason = "`arch` declares it for another visitor")]
unsafe extern "C" {
    fn _Unwind_Backtrace(
        trace: extern "C" fn(*mut Frame, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIPInfo(frame: *mut Frame, before_call: *mut c_int) -> usize;
    fn _Unwind_GetRegionStart(frame: *mut Frame) -> usize;
    fn _Unwind_GetLanguageSpecificData(frame: *mut Frame) -> *const u8;
}

struct Walk {
    entry: usize,
    entry_met: bool,
    seen: Seen,
}

/// None if the stack did not begin with `entry`, or the walk did not come to it, and what was met says nothing.
pub(super) fn is_cleaning_up(entry: usize) -> Option<bool> {
    let mut walk = Walk { entry, entry_met: false, seen: Seen::default() };
    // SAFETY: `look` gets the address of `walk`, which outlives the call.
    unsafe { _Unwind_Backtrace(look, (&raw mut walk).cast()) };
    (walk.entry_met || walk.seen.aborts).then_some(walk.seen.cleanup)
}

extern "C" fn look(frame: *mut Frame, walk: *mut c_void) -> c_int {
    // SAFETY: this is what `is_cleaning_up` hands over, and nobody else has it meanwhile.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    let mut before_call = 0;
    // SAFETY: the unwinder lends its frame for the time of this call.
    let (ip, function, table) = unsafe {
        (
            _Unwind_GetIPInfo(frame, &mut before_call),
            _Unwind_GetRegionStart(frame),
            _Unwind_GetLanguageSpecificData(frame),
        )
    };
    if function == walk.entry {
        walk.entry_met = true;
        return STOP;
    }
    // The call lies before where it returns to.
    let ip = if before_call == 0 { ip.wrapping_sub(1) } else { ip };
    // SAFETY: the unwinder says that these belong together. Its own personality routines read the same
    // table, those of all languages whose frames can lie on a stack with Rust's.
    walk.seen.meet(unsafe { lsda::landing(table, function, ip) });
    CONTINUE
}
