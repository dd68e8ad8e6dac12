//! AArch64: FPCR, and the registers that a coroutine's entry finds.

use super::*;

const FLUSH_TO_ZERO: u64 = 1 << 24;
const DEFAULT_NAN: u64 = 1 << 25;
const ROUND_UP: u64 = 0b01 << 22;
const ROUND_DOWN: u64 = 0b10 << 22;

fn control() -> u64 {
    let fpcr: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, fpcr", out(reg) fpcr) };
    fpcr
}

/// Other settings than the initial ones may not be in force where Rust does floating point: the
/// tests do theirs in assembly.
fn set_control(fpcr: u64) {
    // SAFETY: no exceptions are trapped; nothing here computes with floats but `third`.
    unsafe { asm!("msr fpcr, {}", in(reg) fpcr) };
}

/// 1/3 as the current rounding mode has it.
fn third() -> u64 {
    let bits: u64;
    // SAFETY: computes in two registers.
    unsafe {
        asm!(
            "fmov {a:d}, {one}", "fmov {b:d}, {three}", "fdiv {a:d}, {a:d}, {b:d}",
            "fmov {bits}, {a:d}",
            a = out(vreg) _, b = out(vreg) _, bits = lateout(reg) bits,
            one = in(reg) 1f64.to_bits(), three = in(reg) 3f64.to_bits(),
        );
    }
    bits
}

#[test]
fn each_coroutine_has_its_own_control_word() {
    let before = control();
    let settings = [0, FLUSH_TO_ZERO, DEFAULT_NAN, ROUND_UP, ROUND_DOWN, ROUND_UP | FLUSH_TO_ZERO];
    let make = |setting: u64| {
        Coroutine::<(), u64, ()>::new(move |suspender: &Suspender<_, _>, ()| {
            set_control(setting);
            let expected = third();
            for _ in 0..3 {
                suspender.suspend(control());
                assert_eq!(control(), setting);
                assert_eq!(third(), expected);
            }
        })
    };
    let mut coroutines: Vec<_> = settings.iter().map(|&setting| make(setting)).collect();
    for _ in 0..3 {
        for (coroutine, &setting) in coroutines.iter_mut().zip(&settings) {
            assert_eq!(coroutine.resume(()), CoroutineResult::Yield(setting));
            assert_eq!(control(), before);
        }
    }
    // Ours may differ too, and change between resumptions.
    for (coroutine, &setting) in coroutines.iter_mut().zip(&settings) {
        let ours = ROUND_UP | DEFAULT_NAN;
        set_control(ours);
        let (result, after) = (coroutine.resume(()), control());
        set_control(before);
        assert_eq!(result, CoroutineResult::Return(()), "{setting:x}");
        assert_eq!(after, ours, "after an exit");
    }
}

#[test]
fn forced_unwinding_restores_the_resumers_control_word() {
    let before = control();
    let mut coroutine = Coroutine::<(), (), ()>::new(|suspender, ()| {
        set_control(ROUND_DOWN | FLUSH_TO_ZERO);
        suspender.suspend(());
    });
    assert_eq!(coroutine.resume(()), CoroutineResult::Yield(()));
    assert_eq!(control(), before);
    drop(coroutine);
    assert_eq!(control(), before);
}

/// To share saves nothing here.
#[test]
fn a_sharing_coroutine_keeps_its_word() {
    let before = control();
    let mut coroutine = sharing(|suspender, ()| {
        set_control(ROUND_DOWN);
        suspender.suspend(());
        let found = control();
        set_control(FLUSH_TO_ZERO);
        found
    });
    assert_eq!(coroutine.resume(()), CoroutineResult::Yield(()));
    assert_eq!(control(), before);
    assert_eq!(coroutine.resume(()), CoroutineResult::Return(ROUND_DOWN));
    assert_eq!(control(), before);
}

/// What only a stack of our own has: an OS thread starts with its maker's control word.
#[cfg(not(strands_backend = "thread"))]
mod entry {
    use super::*;

    use std::mem::offset_of;

    #[test]
    fn a_coroutine_starts_with_the_initial_control_word() {
        let before = control();
        let mut coroutine = Coroutine::<(), (), u64>::new(|_, ()| control());
        set_control(ROUND_UP | FLUSH_TO_ZERO);
        let result = coroutine.resume(());
        set_control(before);
        assert_eq!(result, CoroutineResult::Return(0));
    }

    #[repr(C)]
    struct Seen {
        main: Context,
        other: Context,
        sp: usize,
        fp: usize,
    }

    /// Notes the registers as the entry finds them, and exits to `main`, which comes first.
    #[unsafe(naked)]
    unsafe extern "C" fn note(_arg: Word) -> Exit {
        std::arch::naked_asm!(
            "mov x9, sp",
            "str x9, [x0, {sp}]",
            "str x29, [x0, {fp}]",
            "mov x1, #5",
            "ret",
            sp = const offset_of!(Seen, sp),
            fp = const offset_of!(Seen, fp),
        )
    }

    #[test]
    fn an_entry_finds_what_the_abi_promises() {
        let stack = Stack::new(STACK_BYTES).unwrap();
        let mut seen = Seen { main: Context::new(), other: Context::new(), sp: 1, fp: 1 };
        let at = &raw mut seen;
        // SAFETY: the stack outlives the party, which exits at once.
        let exit = unsafe {
            (*at).other.start(stack.top(), &stack, note);
            switch(&raw mut (*at).main, &raw const (*at).other, Word::new(at.cast()))
        };
        // SAFETY: `note` exits with a number.
        assert_eq!(unsafe { number(exit) }, 5);
        assert_eq!(seen.sp, stack.top().as_ptr().addr());
        assert_eq!(seen.sp % 16, 0);
        assert_eq!(seen.fp, 0, "ends a walk by frame pointers");
    }

    struct Kept {
        main: Context,
        other: Context,
        stack: Stack,
    }

    /// Overwrites some registers that a call would keep (as `begin` does x19 and x29), and goes back.
    unsafe extern "C" fn overwrite(arg: Word) -> Exit {
        // SAFETY: the test hands over its `Kept`.
        let next = unsafe { &raw const (*arg.assume_init().cast::<Kept>()).main };
        // SAFETY: declares what it overwrites.
        unsafe {
            asm!(
                "mov x20, #-1", "mov x28, #-1",
                "movi v8.2d, #0xffffffffffffffff", "movi v15.2d, #0xffffffffffffffff",
                out("x20") _, out("x28") _, out("v8") _, out("v15") _,
            );
        }
        Exit { next, arg: word(0) }
    }

    /// The two that are saved by hand, and some that are clobbers, across a switch that does not
    /// come back by a `ret`.
    #[test]
    fn a_switch_keeps_what_a_call_keeps() {
        let mut kept = Kept {
            main: Context::new(),
            other: Context::new(),
            stack: Stack::new(STACK_BYTES).unwrap(),
        };
        let at = &raw mut kept;

        unsafe extern "C" fn there_and_back(at: *mut Kept) {
            // SAFETY: `other` was started on its stack, and exits to `main`.
            unsafe { switch(&raw mut (*at).main, &raw const (*at).other, Word::new(at.cast())) };
        }
        let (x19, x20, x28, d8, d15): (u64, u64, u64, u64, u64);
        // SAFETY: the stack outlives the party. x19 is put back; the other registers are declared.
        unsafe {
            (*at).other.start((*at).stack.top(), &(*at).stack, overwrite);
            asm!(
                "str x19, [sp, #-16]!",
                "mov x19, #19", "mov x20, #20", "mov x28, #28",
                "fmov d8, x20", "fmov d15, x28",
                "blr {call}",
                "mov x9, x19", "ldr x19, [sp], #16",
                "mov x10, x20", "mov x11, x28", "fmov x12, d8", "fmov x13, d15",
                call = in(reg) there_and_back as unsafe extern "C" fn(*mut Kept),
                inout("x0") at => _,
                lateout("x9") x19, lateout("x10") x20, lateout("x11") x28,
                lateout("x12") d8, lateout("x13") d15,
                out("x20") _, out("x28") _,
                clobber_abi("C"),
            );
        }
        assert_eq!([x19, x20, x28, d8, d15], [19, 20, 28, 20, 28]);
    }
}
