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
//! | `Context::start(&mut self, top, stack, entry)` | make the first switch to it call `entry(arg)` on `stack`, below `top`, with the ABI's initial floating-point control word |
//! | `Context::stack_pointer(&self)` | the saved stack pointer, for prefetching and for debuggers; null where there is none |
//! | `unsafe fn switch<F>(save, load, arg) -> (Word, *mut Context)` | save the running party in `save`, go on in `load`; returns, in the party that goes on, the `arg` it was handed and its `save` |
//! | `unsafe fn Context::walk(&self, visit)` | call `visit` with each return address of a suspended party, the innermost first, until it says `false`; with none where that cannot be done |
//! | `Context::adopt_float_control(&mut self)` | make an [`Exit`] to this context, which a sharing switch has saved, leave the control words as they are |
//! | `fn prefetch(address)` | hint that the line at `address` is about to be used |
//!
//! and it promises:
//!
//! - What the system keeps about the stack that a thread runs on (on Windows, in its environment
//!   block) is that of the party.
//! - The floating-point control words (rounding mode, exception masks, flush-to-zero; on x86-64
//!   MXCSR and the x87 control word, on AArch64 FPCR) belong to the party: each finds its own after
//!   a switch. The sticky exception *flags* are not kept, as across any call. Where `F` is
//!   [`Shared`](crate::float_control::Shared), the switch may leave them as they are; a party that was
//!   saved so goes on by another such switch, or by an [`Exit`] after `adopt_float_control`.
//! - The second value that `switch` returns is `save`, from a register. Everything else that the party had
//!   in registers comes from memory, at an address that the other party had from memory in
//!   turn. Who goes on from this value instead halves that chain of loads.
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
#[cfg_attr(
    all(not(strands_backend = "thread"), target_arch = "x86_64", windows),
    path = "arch/x86_64_windows.rs"
)]
#[cfg_attr(
    all(not(strands_backend = "thread"), target_arch = "aarch64", not(windows)),
    path = "arch/aarch64.rs"
)]
#[cfg_attr(strands_backend = "thread", path = "arch/thread.rs")]
pub(crate) mod isa;

use std::mem::MaybeUninit;

// As the ISA's file defines them, or wrapped to tell a tool of each switch.
#[cfg(any(
    strands_sanitizer = "address",
    strands_sanitizer = "thread",
    strands_sanitizer = "valgrind"
))]
use crate::sanitizer as chosen;
#[cfg(not(any(
    strands_sanitizer = "address",
    strands_sanitizer = "thread",
    strands_sanitizer = "valgrind"
)))]
use isa as chosen;

use crate::float_control::Kept;

/// A party of the switch, while it does not run.
///
/// ```
/// use strands_fiber::arch::{Context, Exit, Word, switch};
/// use strands_fiber::stack::Stack;
///
/// struct Pair {
///     main: Context,
///     other: Context,
/// }
///
/// /// Switches back once, then ends.
/// unsafe extern "C" fn entry(arg: Word) -> Exit {
///     // SAFETY: the first switch hands over the pair, and `main` has saved itself by it.
///     unsafe {
///         let pair = arg.assume_init().cast::<Pair>();
///         switch(&raw mut (*pair).other, &raw const (*pair).main, arg);
///         Exit { next: &raw const (*pair).main, arg }
///     }
/// }
///
/// let stack = Stack::new(64 * 1024)?;
/// let mut pair = Pair { main: Context::new(), other: Context::new() };
/// let pair = &raw mut pair;
/// // SAFETY: the stack is used by nobody else, and outlives the party: it ends in the second
/// // switch. The first goes to a context that was started, the second to one that was saved.
/// unsafe {
///     (*pair).other.start(stack.top(), &stack, entry);
///     switch(&raw mut (*pair).main, &raw const (*pair).other, Word::new(pair.cast()));
///     let stack_pointer = (*pair).other.stack_pointer();
///     assert!(stack_pointer.is_null() || stack.contains(stack_pointer.addr()));
///     switch(&raw mut (*pair).main, &raw const (*pair).other, Word::uninit());
/// }
/// # std::io::Result::Ok(())
/// ```
pub use chosen::Context;
pub(crate) use chosen::switch as switch_with;
/// For what the next switch will need.
///
/// ```
/// let next = [0u8; 64];
/// strands_fiber::arch::prefetch(next.as_ptr());
/// strands_fiber::arch::prefetch(std::ptr::null()); // A hint: any address will do.
/// ```
pub use isa::prefetch;

/// Saves the running party in `save` and goes on in `load`, which receives `arg`.
///
/// Returns when somebody switches to `save`, with what that switch handed over. Each party keeps its
/// floating-point control words.
///
/// # Safety
///
/// - `load` was saved by a `switch` that has not been gone on from since, or started and not
///   switched to since; its stack is intact; and it belongs to this thread.
/// - `save` and `load` are valid and distinct, and `save` stays so until it is switched to.
///
/// ```
/// use strands_fiber::arch::{Context, Exit, Word, switch};
/// use strands_fiber::stack::Stack;
///
/// unsafe extern "C" fn echo(arg: Word) -> Exit {
///     // SAFETY: the switch below hands over the address of the context that it saves.
///     Exit { next: unsafe { arg.assume_init() }.cast(), arg }
/// }
///
/// let stack = Stack::new(64 * 1024)?;
/// let (mut main, mut other) = (Context::new(), Context::new());
/// let main = &raw mut main;
/// // SAFETY: the stack is used by nobody else and outlives the party, which ends at once; `other`
/// // was started, and `main` stays where it is.
/// let word = unsafe {
///     other.start(stack.top(), &stack, echo);
///     switch(main, &other, Word::new(main.cast())).assume_init()
/// };
/// assert_eq!(word, main.cast());
/// # std::io::Result::Ok(())
/// ```
#[inline(always)]
pub unsafe fn switch(save: *mut Context, load: *const Context, arg: Word) -> Word {
    // SAFETY: the caller's promise.
    unsafe { switch_with::<Kept>(save, load, arg).0 }
}

/// What a switch hands over: a pointer, or any other value that fits, in a register.
///
/// ```
/// use std::ptr;
/// use strands_fiber::arch::Word;
///
/// let word = Word::new(ptr::without_provenance_mut(42));
/// // SAFETY: it was made of a number.
/// assert_eq!(unsafe { word.assume_init() }.addr(), 42);
/// ```
pub type Word = MaybeUninit<*mut ()>;

/// What runs first on a new stack.
///
/// `arg` is what the first switch to the context handed over.
///
/// ```
/// use strands_fiber::arch::{Entry, Exit, Word};
///
/// /// Hands back what it was handed: the address of the context that is to go on.
/// unsafe extern "C" fn echo(arg: Word) -> Exit {
///     // SAFETY: the first switch hands over that address.
///     Exit { next: unsafe { arg.assume_init() }.cast(), arg }
/// }
/// let _: Entry = echo;
/// ```
pub type Entry = unsafe extern "C" fn(arg: Word) -> Exit;

/// How an [`Entry`] ends: its stack is done with, and `next` goes on with `arg`.
///
/// ```
/// use strands_fiber::arch::{Context, Exit, Word};
///
/// let main = Context::new();
/// let exit = Exit { next: &main, arg: Word::uninit() };
/// assert_eq!(exit.next, &raw const main);
/// ```
#[repr(C)]
#[derive(Debug)]
pub struct Exit {
    /// Who goes on. Must be a saved context, valid until it is switched to.
    pub next: *const Context,
    /// What its `switch` returns.
    pub arg: Word,
}
