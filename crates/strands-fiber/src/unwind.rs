//! Forced unwinding: how a coroutine that will not be resumed any more gives back what it holds.
//!
//! A suspended stack holds values whose destructors somebody may rely on (a scope that lent
//! references, a lock), so it is not freed but unwound: its suspension point raises a panic with
//! a payload of this module, without calling the panic hook, and the coroutine's entry catches it.
//!
//! It cannot be unwound where the program is built with `panic = "abort"`, nor while it is
//! already unwinding (a second panic aborts). Then the stack is leaked: sound, at the price of
//! its memory.

use std::panic;

/// Whether panics unwind in this program.
pub const CAN_UNWIND: bool = cfg!(panic = "unwind");

/// The payload that unwinds a coroutine dropped while suspended.
struct ForcedUnwind;

/// Unwinds from here to the entry of the running coroutine.
#[cold]
pub(crate) fn force() -> ! {
    panic::resume_unwind(Box::new(ForcedUnwind))
}
