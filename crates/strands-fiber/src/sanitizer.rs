//! The switch, announced to a tool that follows stacks: AddressSanitizer, ThreadSanitizer, valgrind.
//!
//! Such a tool takes a stack pointer that jumps for a bug, or believes that what two coroutines do
//! is done by one. `--cfg strands_sanitizer="address"` (`"thread"`, `"valgrind"`) puts this module
//! between [`crate::arch`] and the ISA's file; without it, it is no code at all. It defines what an
//! ISA file defines, by wrapping it, so that those who switch need not know of it: a [`Context`]
//! that also holds what the tool knows of the party, and a [`switch`] that says who leaves and
//! who has arrived.
//!
//! Only the party that arrives can say that it has, and it must know whom it comes after. So a
//! switch leaves a [`Handed`] in the context that goes on, and hands over that context's address.
//!
//! A party that ends leaves by a switch of its own (`first`), not by the ISA's `begin`: a
//! function that ThreadSanitizer follows must not return after the tool was told of the switch.
//! Who arrives after it says that its stack is done with. Stacks that a party did not leave by
//! itself (forgotten, or never unwound) stay known to the tool, as they stay mapped.
//!
//! # What the file for a tool defines
//!
//! | item | meaning |
//! |---|---|
//! | `struct Party` | what the tool knows of a party; `Party::new()` is one that runs on a stack of the system's |
//! | `Party::on(stack)` | one that will run on `stack` |
//! | `unsafe fn begin(&mut self)` | it is about to be switched to for the first time |
//! | `unsafe fn leave(from, to, for_good)` | said on the stack of `from`; must be inlined |
//! | `unsafe fn arrive(&mut self, from)` | said on its own stack, first thing |
//! | `unsafe fn end(&mut self)` | it has left for good; said on another stack |
//!
//! Turned down: annotations in the callers, as most coroutine libraries have them: there are five
//! places that switch, each of which would have to be right.

#![cfg(any(
    strands_sanitizer = "address",
    strands_sanitizer = "thread",
    strands_sanitizer = "valgrind"
))]

#[cfg_attr(strands_sanitizer = "address", path = "sanitizer/address.rs")]
#[cfg_attr(strands_sanitizer = "thread", path = "sanitizer/thread.rs")]
#[cfg_attr(strands_sanitizer = "valgrind", path = "sanitizer/valgrind.rs")]
mod tool;

use std::ptr::{self, NonNull};

use tool::Party;

use crate::arch::{Entry, Exit, Word, isa};
use crate::float_control::{FloatControl, Kept};
use crate::stack::Stack;

/// Where a suspended party goes on.
#[repr(C)]
#[derive(Debug)]
pub struct Context {
    isa: isa::Context,
    party: Party,
    /// Set until the first switch to it.
    entry: Option<Entry>,
    handed: Handed,
}

/// What is handed over to the party that goes on.
#[derive(Debug, Clone, Copy)]
struct Handed {
    arg: Word,
    /// Who left. Valid when the other party arrives: nobody has run in between.
    from: *mut Context,
    for_good: bool,
}

impl Context {
    /// A context that nobody has saved: fit only to be saved into.
    pub fn new() -> Context {
        Context::with(Party::new())
    }

    fn with(party: Party) -> Context {
        let handed = Handed { arg: Word::uninit(), from: ptr::null_mut(), for_good: false };
        Context { isa: isa::Context::new(), party, entry: None, handed }
    }

    /// Makes the first switch to this context call `entry` on `stack`, below `top`.
    ///
    /// # Safety
    ///
    /// As for the ISA.
    pub unsafe fn start(&mut self, top: NonNull<u8>, stack: &Stack, entry: Entry) {
        *self = Context { entry: Some(entry), ..Context::with(Party::on(stack)) };
        // SAFETY: the caller's promise.
        unsafe { self.isa.start(top, stack, first) };
    }

    /// The saved stack pointer.
    pub fn stack_pointer(&self) -> *const u8 {
        self.isa.stack_pointer()
    }

    /// The party's return addresses.
    ///
    /// # Safety
    ///
    /// As for the ISA.
    pub unsafe fn walk(&self, visit: &mut dyn FnMut(usize) -> bool) {
        // SAFETY: the caller's promise.
        unsafe { self.isa.walk(visit) }
    }

    /// As for the ISA: `first` leaves by a switch that loads what an [`Exit`] would.
    pub fn adopt_float_control(&mut self) {
        self.isa.adopt_float_control();
    }
}

impl Default for Context {
    fn default() -> Context {
        Context::new()
    }
}

/// Saves the running party in `save` and goes on in `load`, which receives `arg`.
///
/// # Safety
///
/// As for the ISA, and `load` may be written to.
#[inline(always)]
pub unsafe fn switch<F: FloatControl>(
    save: *mut Context,
    load: *const Context,
    arg: Word,
) -> (Word, *mut Context) {
    // SAFETY: the caller's promise.
    unsafe {
        go::<F>(save, load.cast_mut(), arg, false);
        (arrived(save), save)
    }
}

/// Leaves. Returns when somebody switches to `save`, which has [`arrived`] then.
///
/// # Safety
///
/// As for [`switch`]; if it leaves `for_good`, nobody switches to `save`.
#[inline(always)]
unsafe fn go<F: FloatControl>(save: *mut Context, load: *mut Context, arg: Word, for_good: bool) {
    // SAFETY: both contexts are valid, by the caller's promise, and no references to them are kept.
    unsafe {
        if (*load).entry.is_some() {
            (*load).party.begin();
        }
        (*load).handed = Handed { arg, from: save, for_good };
        Party::leave(&mut (*save).party, &(*load).party, for_good);
        let load_isa = &raw const (*load).isa;
        isa::switch::<F>(&raw mut (*save).isa, load_isa, Word::new(load.cast()));
    }
}

/// The party of `own` is on its stack again. Returns what it was handed.
///
/// # Safety
///
/// A switch to `own` has just happened.
unsafe fn arrived(own: *mut Context) -> Word {
    // SAFETY: who switched here wrote `handed`, and its context is valid until it goes on.
    unsafe {
        let Handed { arg, from, for_good } = (*own).handed;
        (*own).party.arrive(&mut (*from).party);
        if for_good {
            (*from).party.end();
        }
        arg
    }
}

/// What runs first on a started stack, in place of the entry.
///
/// # Safety
///
/// As for an [`Entry`], and `own` is the address of the started context.
unsafe extern "C" fn first(own: Word) -> Exit {
    // SAFETY: `go` hands over the context that it switches to, which `start` gave an entry. It is
    // not used after the entry was called: it may have been saved into, and moved, since.
    unsafe {
        let own = own.assume_init().cast::<Context>();
        let arg = arrived(own);
        let entry = (*own).entry.take().expect("a started context has an entry");
        let mut last = Context::with((*own).party.clone());
        let Exit { next, arg } = entry(arg);
        go::<Kept>(&mut last, next.cast_mut(), arg, true);
    }
    unreachable!("a party that has left for good was switched to");
}
