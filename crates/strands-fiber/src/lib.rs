//! Stackful coroutines: the machine layer of strands.
//!
//! It switches stacks, maps them, tells when one overflows and unwinds those that will not go on.
//! It knows no threads, queues or file descriptors. [`Coroutine`] is its safe form; a scheduler
//! builds on [`arch::switch`] and [`stack::StackPool`].
//!
//! A coroutine that outgrows its stack meets a guard, and ends the process by a bare `SIGSEGV` unless the
//! program has called [`overflow::install`], once: then a message says what has overflowed, and how
//! to give it more. Nobody else's signal handlers are touched unasked; strands' runtimes ask.
//!
//! Read in this order: [`arch`] (what a switch is), [`stack`] (what it runs on), [`Coroutine`]
//! (the two together), [`float_control`] (what a switch may leave out), [`overflow`].

pub mod arch;
mod coroutine;
pub mod float_control;
pub mod overflow;
mod sanitizer;
pub mod stack;
mod unwind;

pub use coroutine::{Coroutine, CoroutineResult, DEFAULT_STACK_BYTES, Suspender};
pub use unwind::{CAN_UNWIND, is_cleaning_up};

#[cfg(doctest)]
#[doc = include_str!("../tests/compile_fail.md")]
struct CompileFail;
