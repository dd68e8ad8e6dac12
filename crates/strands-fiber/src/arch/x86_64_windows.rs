//! x86-64, Microsoft's ABI (Windows).
//!
//! LLVM reserves `rbx` and `rbp`, so inline assembly can neither take nor clobber them: they are
//! saved here by hand. `rdi`, `rsi`, `r12`-`r15`, `xmm6`-`xmm15` and every caller-saved register
//! are clobbers.
//!
//! ```text
//!            a suspended party                      a party that has not started
//!
//!   stack    |  frame of switch's caller  |         top → | (nothing)               |
//!   sp    →  |  …                         |         sp  → | 16-aligned              |
//!            |                            |               | …                       |
//!
//!   Context  pc: the label `2:` below               pc: `begin`
//!            sp, bp, bx: as they were               bx: the Entry,  bp: 0
//!            stack_*: the TEB's words               stack_*: the stack's
//! ```
//!
//! Nothing is pushed: the saved words live in the [`Context`], so the unwind information of the
//! frame that the switch is inlined into is true up to the change of stacks, and from the label
//! `2:` on. Source for what must be kept: "x64 ABI conventions", Microsoft.
//!
//! # The thread environment block
//!
//! Windows keeps the bounds of the stack that a thread runs on in its TEB, at `gs`. The kernel
//! grows a stack only between `DeallocationStack` and `StackBase`, and moves `StackLimit`; stack
//! probes start from `StackLimit`; exceptions, and hence panics, search no frame outside of
//! `StackLimit..StackBase`. `ExceptionList` is of no use to Windows on this ISA, but wine keeps
//! handlers of its own in it. So these words belong to the party, as they belong to a fiber of
//! Windows' own.

use core::arch::{asm, naked_asm};
use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr::NonNull;

use windows_sys::Win32::System::Diagnostics::Debug::{
    CONTEXT, EXCEPTION_CONTINUE_EXECUTION, EXCEPTION_EXECUTE_HANDLER, EXCEPTION_POINTERS,
    EXCEPTION_RECORD, RtlLookupFunctionEntry, RtlVirtualUnwind, UNW_FLAG_NHANDLER,
    UnhandledExceptionFilter,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, TerminateProcess};

use super::{Entry, Exit, Word};
use crate::float_control::FloatControl;
use crate::stack::{COMMITTED_FROM_BELOW_END, Stack};

/// Where a suspended party goes on.
#[repr(C)]
#[derive(Debug)]
pub struct Context {
    sp: usize,
    pc: usize,
    bp: usize,
    bx: usize,
    /// The end of the stack's memory.
    stack_base: usize,
    /// The lowest byte committed, but for the guard that moves below it.
    stack_limit: usize,
    /// Where the stack's address range starts.
    stack_allocation: usize,
    /// How much an overflow leaves for its handler, in bytes.
    stack_guaranteed: u32,
    exception_list: usize,
    mxcsr: u32,
    x87_control: u16,
}

/// Where the TEB has them, relative to `gs`. The first three are documented (`NT_TIB`).
const TEB_EXCEPTION_LIST: usize = 0x00;
const TEB_STACK_BASE: usize = 0x08;
const TEB_STACK_LIMIT: usize = 0x10;
const TEB_DEALLOCATION_STACK: usize = 0x1478;
const TEB_GUARANTEED_STACK_BYTES: usize = 0x1748;

/// The end of the list.
const NO_EXCEPTION_HANDLERS: usize = usize::MAX;

/// The control bits of MXCSR (6..=15); below them are the sticky exception flags.
const MXCSR_CONTROL: u32 = 0xffc0;
/// All exceptions masked, round to nearest: what Windows starts a thread with.
const MXCSR_INITIAL: u32 = 0x1f80;
/// As above, and the precision of a double.
const X87_INITIAL: u16 = 0x027f;

impl Context {
    /// A context that nobody has saved: fit only to be saved into.
    pub const fn new() -> Context {
        Context {
            sp: 0,
            pc: 0,
            bp: 0,
            bx: 0,
            stack_base: 0,
            stack_limit: 0,
            stack_allocation: 0,
            stack_guaranteed: 0,
            exception_list: NO_EXCEPTION_HANDLERS,
            mxcsr: MXCSR_INITIAL,
            x87_control: X87_INITIAL,
        }
    }

    /// Makes the first switch to this context call `entry` on `stack`, below `top`.
    ///
    /// # Safety
    ///
    /// `top` is 16-aligned and lies in `stack`, or is its end. Nobody else uses what is below it
    /// until `entry` has returned, and that is large enough for all that runs on it.
    pub unsafe fn start(&mut self, top: NonNull<u8>, stack: &Stack, entry: Entry) {
        let limits = stack.limits();
        *self = Context {
            sp: top.as_ptr() as usize,
            pc: begin as *const () as usize,
            bp: 0,
            bx: entry as usize,
            stack_base: limits.end,
            stack_limit: limits.committed_from,
            stack_allocation: limits.start,
            stack_guaranteed: limits.guaranteed_bytes,
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
        /// As the system wants it; the binding's type does not say so.
        #[repr(C, align(16))]
        struct Aligned(CONTEXT);
        let Aligned(registers) = &mut Aligned(CONTEXT {
            Rip: self.pc as u64,
            Rsp: self.sp as u64,
            Rbp: self.bp as u64,
            Rbx: self.bx as u64,
            ..Default::default()
        });
        // `begin` returns to address 0.
        while registers.Rip != 0 && visit(registers.Rip as usize) {
            let sp_before = registers.Rsp;
            let (mut image, mut handler_data, mut frame) = (0, core::ptr::null_mut(), 0);
            // SAFETY: the registers are those that the frame goes on with, by the caller's promise, so the
            // tables say where in the party's stack, which is intact, those of the frame before are.
            unsafe {
                let entry =
                    RtlLookupFunctionEntry(registers.Rip, &mut image, core::ptr::null_mut());
                if entry.is_null() {
                    return;
                }
                RtlVirtualUnwind(
                    UNW_FLAG_NHANDLER,
                    image,
                    registers.Rip,
                    entry,
                    registers,
                    &mut handler_data,
                    &mut frame,
                    core::ptr::null_mut(),
                );
            }
            if registers.Rsp <= sp_before {
                return; // Nothing that a stack can be.
            }
        }
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

/// `$asm!` of `$template` and `$operand`s that may name the places of a context's and the TEB's words.
macro_rules! with_places {
    ($asm:ident, [$($template:tt)*], $($operand:tt)*) => {
        $asm!(
            $($template)*
            PC = const offset_of!(Context, pc),
            SP = const offset_of!(Context, sp),
            BP = const offset_of!(Context, bp),
            BX = const offset_of!(Context, bx),
            STACK_BASE = const offset_of!(Context, stack_base),
            STACK_LIMIT = const offset_of!(Context, stack_limit),
            STACK_ALLOCATION = const offset_of!(Context, stack_allocation),
            STACK_GUARANTEED = const offset_of!(Context, stack_guaranteed),
            EXCEPTION_LIST = const offset_of!(Context, exception_list),
            MXCSR = const offset_of!(Context, mxcsr),
            X87 = const offset_of!(Context, x87_control),
            TEB_BASE = const TEB_STACK_BASE,
            TEB_LIMIT = const TEB_STACK_LIMIT,
            TEB_ALLOCATION = const TEB_DEALLOCATION_STACK,
            TEB_GUARANTEED = const TEB_GUARANTEED_STACK_BYTES,
            TEB_EXCEPTIONS = const TEB_EXCEPTION_LIST,
            $($operand)*
        )
    };
}

/// Goes on in the party whose context is at `rsi`, all but its control words.
macro_rules! go_on {
    () => {
        "mov rax, [rsi + {STACK_BASE}]
         mov rcx, [rsi + {STACK_LIMIT}]
         mov r8, [rsi + {STACK_ALLOCATION}]
         mov r9d, [rsi + {STACK_GUARANTEED}]
         mov r10, [rsi + {EXCEPTION_LIST}]
         mov gs:[{TEB_BASE}], rax
         mov gs:[{TEB_LIMIT}], rcx
         mov gs:[{TEB_ALLOCATION}], r8
         mov gs:[{TEB_GUARANTEED}], r9d
         mov gs:[{TEB_EXCEPTIONS}], r10
         mov rbx, [rsi + {BX}]
         mov rbp, [rsi + {BP}]
         mov rsp, [rsi + {SP}]
         jmp [rsi + {PC}]"
    };
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
    // `rbp` and `rbx`, which are saved in and restored from the contexts, as are the TEB's words.
    unsafe {
        with_places!(
            asm,
            [
                "lea rax, [rip + 2f]",
                "mov [rdi + {PC}], rax",
                "mov [rdi + {SP}], rsp",
                "mov [rdi + {BP}], rbp",
                "mov [rdi + {BX}], rbx",
                "mov rax, gs:[{TEB_BASE}]",
                "mov rcx, gs:[{TEB_LIMIT}]",
                "mov r8, gs:[{TEB_ALLOCATION}]",
                "mov r9d, gs:[{TEB_GUARANTEED}]",
                "mov r10, gs:[{TEB_EXCEPTIONS}]",
                "mov [rdi + {STACK_BASE}], rax",
                "mov [rdi + {STACK_LIMIT}], rcx",
                "mov [rdi + {STACK_ALLOCATION}], r8",
                "mov [rdi + {STACK_GUARANTEED}], r9d",
                "mov [rdi + {EXCEPTION_LIST}], r10",
                // Control words are stored always and loaded only where they differ: loading
                // serialises, and nearly all parties have one setting.
                ".if {KEPT}",
                "fnstcw [rdi + {X87}]",
                "stmxcsr [rdi + {MXCSR}]",
                "movzx eax, word ptr [rdi + {X87}]",
                "cmp ax, [rsi + {X87}]",
                "jne 3f",
                "mov eax, [rdi + {MXCSR}]",
                "xor eax, [rsi + {MXCSR}]",
                "test eax, {MXCSR_CONTROL}",
                "jz 4f",
                "3:",
                "ldmxcsr [rsi + {MXCSR}]",
                "fldcw [rsi + {X87}]",
                "4:",
                ".endif",
                go_on!(),
                "2:",
            ],
            KEPT = const F::KEPT as u8,
            MXCSR_CONTROL = const MXCSR_CONTROL,
            inout("rdi") save => _,
            // Whose address was loaded from is who goes on.
            inout("rsi") load => own,
            inout("rdx") arg => received,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _,
            out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            clobber_abi("win64"),
        );
    }
    (received, own)
}

/// The first frame of every started context: calls the entry, then goes on where it says.
///
/// To unwinders it is a function whose return address is 0, which ends a walk of the stack here,
/// and that handles what no other frame has handled.
#[unsafe(naked)]
unsafe extern "C" fn begin() {
    with_places!(
        naked_asm,
        [
            ".seh_proc {begin}",
            ".seh_handler {unhandled}, @except",
            // In: rdx = arg, rbx = the entry, rsp = top (16-aligned).
            "push 0",
            // 32 bytes for the callee's use, 16 for the Exit, 8 that align.
            "sub rsp, 56",
            ".seh_stackalloc 56",
            ".seh_endprologue",
            "lea rcx, [rsp + 32]",
            "call rbx",
            // How far the stack has grown, for who uses it next.
            "mov rcx, gs:[{TEB_LIMIT}]",
            "mov r8, gs:[{TEB_BASE}]",
            "mov [r8 - {COMMITTED_FROM_BELOW_END}], rcx",
            // Out: rax = where the Exit is. The contexts' layout is as in `switch`.
            "mov rdx, [rax + {ARG}]",
            "mov rsi, [rax + {NEXT}]",
            "ldmxcsr [rsi + {MXCSR}]",
            "fldcw [rsi + {X87}]",
            go_on!(),
            ".seh_endproc",
        ],
        begin = sym begin,
        unhandled = sym unhandled,
        COMMITTED_FROM_BELOW_END = const COMMITTED_FROM_BELOW_END,
        ARG = const offset_of!(Exit, arg),
        NEXT = const offset_of!(Exit, next),
    )
}

/// Does what the first frame of a thread does with an exception that nobody has handled: asks the
/// process's filter, in which crash reporters are, and ends the process if told so.
///
/// # Safety
///
/// Called by Windows in search of a handler. Panics do not come here: an entry does not unwind.
unsafe extern "system" fn unhandled(
    record: *mut EXCEPTION_RECORD,
    _frame: *mut c_void,
    context: *mut CONTEXT,
    _dispatcher: *mut c_void,
) -> i32 {
    const CONTINUE_EXECUTION: i32 = 0;
    const CONTINUE_SEARCH: i32 = 1;
    let exception = EXCEPTION_POINTERS { ExceptionRecord: record, ContextRecord: context };
    // SAFETY: the record and the context are those that Windows handed to us.
    match unsafe { UnhandledExceptionFilter(&exception) } {
        EXCEPTION_CONTINUE_EXECUTION => CONTINUE_EXECUTION,
        EXCEPTION_EXECUTE_HANDLER => {
            // SAFETY: as above; a process may end itself at any time.
            unsafe { TerminateProcess(GetCurrentProcess(), (*record).ExceptionCode as u32) };
            CONTINUE_SEARCH
        }
        _ => CONTINUE_SEARCH,
    }
}

// `begin` makes room for an Exit of 16 bytes, which the ABI returns in memory.
const _: () = assert!(size_of::<Exit>() == 16);

/// Hints that the cache line at `address` is about to be used.
#[inline(always)]
pub fn prefetch(address: *const u8) {
    // SAFETY: a prefetch is a hint; it never faults, whatever the address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address.cast())
    }
}
