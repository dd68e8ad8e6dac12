//! AArch64, AAPCS64 (Linux, macOS, the BSDs).
//!
//! LLVM reserves `x19` (its base pointer) and `x29` (the frame pointer), so inline assembly can
//! neither take nor clobber them: they are saved here by hand. `x20`-`x28`, `x30` and every
//! caller-saved register are clobbers, `d8`-`d15` too.
//!
//! ```text
//!            a suspended party                      a party that has not started
//!
//!   stack    |  frame of switch's caller  |         top → | (nothing)               |
//!   sp    →  |  …                         |         sp  → | 16-aligned              |
//!                                                         | …                       |
//!
//!   Context  pc: the label `2:` below               pc: `begin`
//!            sp, fp, x19: as they were              x19: the Entry,  fp: 0
//! ```
//!
//! Nothing is pushed: the saved words live in the [`Context`], so the frame's unwind information
//! (CFA relative to `sp` or `x29`) is true at every instruction up to the change of stacks, and
//! from the label `2:` on. Source for what must be kept: Procedure Call Standard for the Arm 64-bit
//! Architecture, 6.1.1 (`x19`-`x29`, `sp`) and 6.1.2 (the low halves of `v8`-`v15`; FPCR).
//!
//! - `x18` is the platform's on Apple's systems, and wherever the compiler is told so: then it is
//!   not touched, as it belongs to the thread, which both parties share. Elsewhere it is a
//!   caller-saved register like any. `clobber_abi` knows which.
//! - Branch targets: both places that a switch jumps to start with `bti j`, a no-op where targets
//!   are not checked.
//! - Pointer authentication: a compiler that signs return addresses does so with `sp`, which is the
//!   same before and after a switch. The saved `pc` is not signed: who can write a context can write
//!   its `sp` as well.

use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use core::ptr::NonNull;

use super::{Entry, Exit, Word};
use crate::float_control::FloatControl;
use crate::stack::Stack;

/// Where a suspended party goes on.
#[repr(C)]
#[derive(Debug)]
pub struct Context {
    sp: usize,
    pc: usize,
    fp: usize,
    x19: usize,
    fpcr: u64,
}

/// Round to nearest, denormals kept, no exception trapped: what a process starts with.
const FPCR_INITIAL: u64 = 0;

impl Context {
    /// A context that nobody has saved: fit only to be saved into.
    pub const fn new() -> Context {
        Context { sp: 0, pc: 0, fp: 0, x19: 0, fpcr: FPCR_INITIAL }
    }

    /// Makes the first switch to this context call `entry` on `stack`, below `top`.
    ///
    /// # Safety
    ///
    /// `top` is 16-aligned and lies in `stack`, or is its end. Nobody else uses what is below it
    /// until `entry` has returned, and that is large enough for all that runs on it.
    pub unsafe fn start(&mut self, top: NonNull<u8>, _stack: &Stack, entry: Entry) {
        *self = Context {
            sp: top.as_ptr() as usize,
            // Past the `nop`: unwinders look up pc - 1, which must lie in `begin` too.
            pc: begin as *const () as usize + 4,
            fp: 0,
            x19: entry as usize,
            ..Context::new()
        };
    }

    /// The saved stack pointer.
    #[inline(always)]
    pub fn stack_pointer(&self) -> *const u8 {
        self.sp as *const u8
    }

    /// Calls `visit` with where the party will go on, then with each return address on its stack, the
    /// innermost first, down to its entry or until `visit` says `false`.
    ///
    /// It reads the stack by the unwind tables and runs on the caller's. `visit` must not unwind.
    ///
    /// # Safety
    ///
    /// A `switch` has saved this context, and nobody has switched to it since, nor does meanwhile.
    pub unsafe fn walk(&self, visit: &mut dyn FnMut(usize) -> bool) {
        let mut steps = Steps { visit, is_first: true };
        // SAFETY: the caller's promise; `steps` outlives the call, and `step` takes it as what it is.
        unsafe { walk_from(self, step, (&raw mut steps).cast()) };
    }

    /// Nothing to do: a switch keeps FPCR, whether it is shared or not.
    pub fn adopt_float_control(&mut self) {}
}

impl Default for Context {
    fn default() -> Context {
        Context::new()
    }
}

/// Saves the running party in `save` and goes on in `load`, which receives `arg`.
///
/// Returns when somebody switches to `save`, with what that switch handed over, and `save`.
///
/// # Safety
///
/// - `load` was saved by a `switch` that has not been gone on from since, or started and not
///   switched to since; its stack is intact; and it belongs to this thread.
/// - `save` and `load` are valid and distinct, and `save` stays so until it is switched to.
#[inline(always)]
pub unsafe fn switch<F: FloatControl>(
    save: *mut Context,
    load: *const Context,
    arg: Word,
) -> (Word, *mut Context) {
    let received: Word;
    let own: *mut Context;
    // SAFETY: the caller promises that `load` holds a party of this thread that waits at a label
    // `2:` (or at `begin`) with its stack intact. All registers are declared clobbered but `sp`,
    // `x29` and `x19`, which are saved in and restored from the contexts.
    unsafe {
        asm!(
            "adr x9, 2f",
            "mov x10, sp",
            "stp x10, x9, [x2, {SP}]",
            "stp x29, x19, [x2, {FP}]",
            // FPCR is stored always and loaded only where it differs: loading serialises, and
            // nearly all parties share one setting.
            "mrs x11, fpcr",
            "ldr x12, [x0, {FPCR}]",
            "str x11, [x2, {FPCR}]",
            "cmp x11, x12",
            "b.ne 3f",
            "4:",
            "ldp x10, x9, [x0, {SP}]",
            "ldp x29, x19, [x0, {FP}]",
            "mov sp, x10",
            "br x9",
            "3:",
            "msr fpcr, x12",
            "b 4b",
            "2:",
            "hint #36", // bti j
            SP = const offset_of!(Context, sp),
            FP = const offset_of!(Context, fp),
            FPCR = const offset_of!(Context, fpcr),
            // As an Exit has them: `load`, then `arg`.
            // Whose address was loaded from is who goes on.
            inout("x0") load => own,
            inout("x1") arg => received,
            inout("x2") save => _,
            out("x20") _, out("x21") _, out("x22") _, out("x23") _, out("x24") _,
            out("x25") _, out("x26") _, out("x27") _, out("x28") _,
            // All vector registers, in their full width; `x30`; the flags.
            clobber_abi("C"),
        );
    }
    (received, own)
}

/// The first frame of every started context: calls the entry, then goes on where it says.
///
/// The return address is declared undefined, which ends a walk of the stack here, and `x29` is 0,
/// which ends a walk by frame pointers.
#[unsafe(naked)]
unsafe extern "C" fn begin() {
    naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined x30",
        "nop",
        "hint #36", // bti j
        // In: x1 = arg, x19 = the entry, sp = top (16-aligned, as it always is here).
        "mov x0, x1",
        "blr x19",
        // Out: x0, x1 = the Exit. The contexts' layout is as in `switch`.
        "ldr x12, [x0, {FPCR}]",
        "msr fpcr, x12",
        "ldp x10, x9, [x0, {SP}]",
        "ldp x29, x19, [x0, {FP}]",
        "mov sp, x10",
        "br x9",
        ".cfi_endproc",
        SP = const offset_of!(Context, sp),
        FP = const offset_of!(Context, fp),
        FPCR = const offset_of!(Context, fpcr),
    )
}

/// Walks the stack of `context`: its caller's frame is, by what the unwind table here says, the frame
/// that the context was saved in.
///
/// The table is written by hand: the frame before has as `sp` (the CFA), `pc`, `x29` and `x19` what the
/// context has, found through `x19`, which here holds its address. (In the bytes: 0x0f says that an
/// expression gives the CFA, 0x10 that one gives where a register was saved; then a length; 0x83 is
/// "x19 plus", and 0x06 reads memory.)
#[unsafe(naked)]
unsafe extern "C" fn walk_from(context: *const Context, step: Step, steps: *mut c_void) {
    naked_asm!(
        ".cfi_startproc",
        "hint #34", // bti c
        "stp x29, x30, [sp, #-32]!",
        ".cfi_def_cfa_offset 32",
        ".cfi_offset x29, -32",
        ".cfi_offset x30, -24",
        "str x19, [sp, #16]",
        ".cfi_offset x19, -16",
        "mov x19, x0",
        "mov x0, x1",
        "mov x1, x2",
        ".cfi_remember_state",
        ".cfi_escape 0x0f, 3, 0x83, {SP}, 0x06",
        ".cfi_escape 0x10, 30, 2, 0x83, {PC}",
        ".cfi_escape 0x10, 29, 2, 0x83, {FP}",
        ".cfi_escape 0x10, 19, 2, 0x83, {X19}",
        "bl {unwind}",
        "nop",
        ".cfi_restore_state",
        "ldr x19, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        "ret",
        ".cfi_endproc",
        SP = const offset_of!(Context, sp),
        PC = const offset_of!(Context, pc),
        FP = const offset_of!(Context, fp),
        X19 = const offset_of!(Context, x19),
        unwind = sym _Unwind_Backtrace,
    )
}

// In `walk_from` each offset is one byte of a signed LEB128.
const _: () = assert!(size_of::<Context>() < 64);

/// What `step` needs between two frames.
struct Steps<'a> {
    visit: &'a mut dyn FnMut(usize) -> bool,
    is_first: bool,
}

/// Called by the unwinder with each frame.
extern "C" fn step(frame: *mut Frame, steps: *mut c_void) -> c_int {
    const GO_ON: c_int = 0;
    const STOP: c_int = 5; // _URC_END_OF_STACK
    // SAFETY: `walk` handed `steps` to the unwinder, which hands it on, with a frame of its own.
    let (steps, address) = unsafe { (&mut *steps.cast::<Steps<'_>>(), _Unwind_GetIP(frame)) };
    // The first is `walk_from`. The last may be `begin`, whose own return address is none.
    let is_first = core::mem::replace(&mut steps.is_first, false);
    if is_first || (address != 0 && (steps.visit)(address)) { GO_ON } else { STOP }
}

/// `struct _Unwind_Context`: the unwinder's view of one frame.
#[repr(C)]
struct Frame {
    _opaque: [u8; 0],
}

type Step = extern "C" fn(frame: *mut Frame, steps: *mut c_void) -> c_int;

// Of the unwinder that std links: libgcc or LLVM's libunwind. As in `unwind`.
unsafe extern "C-unwind" {
    fn _Unwind_Backtrace(step: Step, steps: *mut c_void) -> c_int;
    fn _Unwind_GetIP(frame: *mut Frame) -> usize;
}

// `begin` finds an Exit in x0 and x1, and pairs are loaded and stored at once.
const _: () = {
    assert!(size_of::<Exit>() == 16 && offset_of!(Exit, next) == 0);
    assert!(offset_of!(Context, pc) == offset_of!(Context, sp) + 8);
    assert!(offset_of!(Context, x19) == offset_of!(Context, fp) + 8);
};

/// Hints that the cache line at `address` is about to be used.
#[inline(always)]
pub fn prefetch(address: *const u8) {
    // SAFETY: a prefetch is a hint; it never faults, whatever the address.
    unsafe {
        asm!("prfm pldl1keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags));
    }
}
