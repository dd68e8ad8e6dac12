//! Stackful coroutines: the machine layer of strands.
//!
//! It switches stacks, maps them, tells when one overflows and unwinds those that will not go on.
//! It knows no threads, queues or file descriptors. [`Coroutine`] is its safe form; a scheduler
//! builds on [`arch::switch`] and [`stack::StackPool`].
//!
//! Read in this order: [`arch`] (what a switch is), [`stack`] (what it runs on), [`Coroutine`]
//! (the two together), [`overflow`].

pub mod arch;
mod coroutine;
pub mod overflow;
mod sanitizer;
pub mod stack;
mod unwind;

pub use coroutine::{Coroutine, CoroutineResult, DEFAULT_STACK_BYTES, Suspender};
pub use unwind::CAN_UNWIND;

#[cfg(doctest)]
#[doc = include_str!("../tests/compile_fail.md")]
struct CompileFail;
