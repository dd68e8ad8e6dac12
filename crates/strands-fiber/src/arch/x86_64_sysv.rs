//! x86-64, System V ABI (Linux, macOS, the BSDs).
//!
//! LLVM reserves `rbx` and `rbp`, so inline assembly can neither take nor clobber them: they are
//! saved here by hand. `r12`-`r15` and every caller-saved register are clobbers.
//!
//! ```text
//!            a suspended party                      a party that has not started
//!
//!   stack    |  frame of switch's caller  |         top → | (nothing)               |
//!   sp    →  |  (red zone not in use)     |         sp  → | 16-aligned              |
//!            |  …                         |               | …                       |
//!
//!   Context  pc: the label `2:` below               pc: `begin`
//!            sp, bp, bx: as they were               bx: the Entry,  bp: 0
//! ```
//!
//! Nothing is pushed: the saved words live in the [`Context`], so the frame's unwind information
//! (CFA relative to `rsp` or `rbp`) is true at every instruction up to the change of stacks, and
//! from the label `2:` on. Source for what must be kept: System V ABI, AMD64 supplement, 3.2.1
//! and 3.2.3: `rbx`, `rsp`, `rbp`, `r12`-`r15`, the control bits of MXCSR, the x87 control word.

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
    bp: usize,
    bx: usize,
    mxcsr: u32,
    x87_control: u16,
}

/// The control bits of MXCSR (6..=15); below them are the sticky exception flags.
const MXCSR_CONTROL: u32 = 0xffc0;
/// All exceptions masked, round to nearest: what the ABI starts a process with.
const MXCSR_INITIAL: u32 = 0x1f80;
const X87_INITIAL: u16 = 0x037f;

impl Context {
    /// A context that nobody has saved: fit only to be saved into.
    pub const fn new() -> Context {
        Context { sp: 0, pc: 0, bp: 0, bx: 0, mxcsr: MXCSR_INITIAL, x87_control: X87_INITIAL }
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
            pc: begin as *const () as usize + 1,
            bp: 0,
            bx: entry as usize,
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

    /// Makes the control words that are in force those that an [`Exit`] to this context loads.
    pub fn adopt_float_control(&mut self) {
        // SAFETY: both instructions only write to the places named.
        unsafe {
            asm!(
                "fnstcw [{}]", "stmxcsr [{}]",
                in(reg) &raw mut self.x87_control, in(reg) &raw mut self.mxcsr,
                options(nostack, preserves_flags),
            );
        }
    }
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
    // `2:` (or at `begin`) with its stack intact. All registers are declared clobbered but `rsp`,
    // `rbp` and `rbx`, which are saved in and restored from the contexts.
    unsafe {
        asm!(
            "lea rax, [rip + 2f]",
            "mov [rdi + {PC}], rax",
            "mov [rdi + {SP}], rsp",
            "mov [rdi + {BP}], rbp",
            "mov [rdi + {BX}], rbx",
            // Control words are stored always and loaded only where they differ: loading
            // serialises, and nearly all parties have one setting. Reading MXCSR is microcode and
            // takes half of a switch's time, wherever among these instructions it stands; the x87
            // word costs next to nothing.
            ".if {KEPT}",
            "fnstcw [rdi + {X87}]",
            "stmxcsr [rdi + {MXCSR}]",
            "movzx eax, word ptr [rdi + {X87}]",
            "cmp ax, [rsi + {X87}]",
            "jne 3f",
            "mov eax, [rdi + {MXCSR}]",
            "xor eax, [rsi + {MXCSR}]",
            "test eax, {MXCSR_CONTROL}",
            "jnz 3f",
            "4:",
            ".endif",
            "mov rbx, [rsi + {BX}]",
            "mov rbp, [rsi + {BP}]",
            "mov rsp, [rsi + {SP}]",
            "jmp [rsi + {PC}]",
            ".if {KEPT}",
            "3:",
            "ldmxcsr [rsi + {MXCSR}]",
            "fldcw [rsi + {X87}]",
            "jmp 4b",
            ".endif",
            "2:",
            KEPT = const F::KEPT as u8,
            PC = const offset_of!(Context, pc),
            SP = const offset_of!(Context, sp),
            BP = const offset_of!(Context, bp),
            BX = const offset_of!(Context, bx),
            MXCSR = const offset_of!(Context, mxcsr),
            X87 = const offset_of!(Context, x87_control),
            MXCSR_CONTROL = const MXCSR_CONTROL,
            inout("rdi") save => _,
            // Whose address was loaded from is who goes on.
            inout("rsi") load => own,
            inout("rdx") arg => received,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            clobber_abi("sysv64"),
        );
    }
    (received, own)
}

/// The first frame of every started context: calls the entry, then goes on where it says.
///
/// The return address is declared undefined, which ends a walk of the stack here, and `rbp` is 0,
/// which ends a walk by frame pointers.
#[unsafe(naked)]
unsafe extern "C" fn begin() {
    naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined rip",
        "nop",
        // In: rdx = arg, rbx = the entry, rsp = top (16-aligned, as a call wants it).
        "mov rdi, rdx",
        "call rbx",
        // Out: rax, rdx = the Exit. The contexts' layout is as in `switch`.
        "mov rsi, rax",
        "ldmxcsr [rax + {MXCSR}]",
        "fldcw [rax + {X87}]",
        "mov rbx, [rax + {BX}]",
        "mov rbp, [rax + {BP}]",
        "mov rsp, [rax + {SP}]",
        "jmp [rax + {PC}]",
        ".cfi_endproc",
        PC = const offset_of!(Context, pc),
        SP = const offset_of!(Context, sp),
        BP = const offset_of!(Context, bp),
        BX = const offset_of!(Context, bx),
        MXCSR = const offset_of!(Context, mxcsr),
        X87 = const offset_of!(Context, x87_control),
    )
}

/// Walks the stack of `context`: its caller's frame is, by what the unwind table here says, the frame
/// that the context was saved in.
///
/// The table is written by hand: the frame before has as `rsp` (the CFA), `rip`, `rbp` and `rbx` what
/// the context has, found through `rbx`, which here holds its address. (In the bytes: 0x0f says that
/// an expression gives the CFA, 0x10 that one gives where a register was saved; then a length; 0x73 is
/// "rbx plus", and 0x06 reads memory.)
#[unsafe(naked)]
unsafe extern "C" fn walk_from(context: *const Context, step: Step, steps: *mut c_void) {
    naked_asm!(
        ".cfi_startproc",
        "push rbx",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset rbx, 0",
        "mov rbx, rdi",
        "mov rdi, rsi",
        "mov rsi, rdx",
        ".cfi_remember_state",
        ".cfi_escape 0x0f, 3, 0x73, {SP}, 0x06",
        ".cfi_escape 0x10, 16, 2, 0x73, {PC}",
        ".cfi_escape 0x10, 6, 2, 0x73, {BP}",
        ".cfi_escape 0x10, 3, 2, 0x73, {BX}",
        "call [rip + {unwind}@GOTPCREL]",
        "nop",
        ".cfi_restore_state",
        "pop rbx",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_restore rbx",
        "ret",
        ".cfi_endproc",
        SP = const offset_of!(Context, sp),
        PC = const offset_of!(Context, pc),
        BP = const offset_of!(Context, bp),
        BX = const offset_of!(Context, bx),
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

// `begin` finds an Exit in rax:rdx, the registers that return two words.
const _: () = assert!(size_of::<Exit>() == 16 && offset_of!(Exit, next) == 0);

/// Hints that the cache line at `address` is about to be used.
#[inline(always)]
pub fn prefetch(address: *const u8) {
    // SAFETY: a prefetch is a hint; it never faults, whatever the address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address.cast())
    }
}
