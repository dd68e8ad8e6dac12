//! The switch: one stack stops, another goes on.
//!
//! A [`Context`] is where a suspended party goes on: its stack pointer, its program counter and
//! the few registers that the compiler will not let inline assembly declare as clobbered. Every
//! other register is declared clobbered, so the compiler saves the live ones, and only those,
//! around the switch; a switch costs about as much as an indirect jump.
//!
//! A switch is symmetric. The party that stops names who goes on; there is no parent and no
//! child here. `resume`/`suspend` ([`crate::Coroutine`]) and the scheduler's direct switch from
//! fiber to fiber are both made of it.
//!
//! # What an ISA file defines
//!
//! | item | meaning |
//! |---|---|
//! | `struct Context` | where a suspended party goes on; `Context::new()` is one that nobody has saved yet |
//! | `Context::start(&mut self, top, entry)` | make the first switch to it call `entry(arg)` on the stack below `top`, with the ABI's initial floating-point control word |
//! | `Context::stack_pointer(&self)` | the saved stack pointer, for prefetching and for debuggers; null where there is none |
//! | `unsafe fn switch(save, load, arg) -> Word` | save the running party in `save`, go on in `load`; returns, in the party that goes on, the `arg` it was handed |
//! | `fn prefetch(address)` | hint that the line at `address` is about to be used |
//!
//! and it promises:
//!
//! - The floating-point control words (rounding mode, exception masks, flush-to-zero; on x86-64
//!   MXCSR and the x87 control word) belong to the party: each finds its own after a switch. The
//!   sticky exception *flags* are not kept, as across any call.
//! - When `entry` returns an [`Exit`], its stack is never used again and `Exit::next` goes on.
//! - Unwind tables are exact on both sides of the switch, and the caller of `entry` has an
//!   undefined return address: backtraces, panics and debuggers walk a coroutine to its entry and
//!   end there.
//!
//! `entry` must not unwind. The file for an ISA holds its stack layout at the top.
//!
//! Turned down: a naked function that pushes all callee-saved registers (7 times the cost, as it
//! saves what nobody needs), and `swapcontext` (a system call for the signal mask each way).

#[cfg_attr(
    all(not(strands_backend = "thread"), target_arch = "x86_64", not(windows)),
    path = "arch/x86_64_sysv.rs"
)]
#[cfg_attr(strands_backend = "thread", path = "arch/thread.rs")]
mod isa;

use std::mem::MaybeUninit;

pub use isa::{Context, prefetch, switch};

/// What a switch hands over: a pointer, or any other value that fits, in a register.
pub type Word = MaybeUninit<*mut ()>;

/// What runs first on a new stack.
///
/// `arg` is what the first switch to the context handed over.
pub type Entry = unsafe extern "C" fn(arg: Word) -> Exit;

/// How an [`Entry`] ends: its stack is done with, and `next` goes on with `arg`.
#[repr(C)]
#[derive(Debug)]
pub struct Exit {
    /// Who goes on. Must be a saved context, valid until it is switched to.
    pub next: *const Context,
    /// What its `switch` returns.
    pub arg: Word,
}
