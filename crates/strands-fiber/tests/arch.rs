//! The switch itself: registers, control words, the state that an entry finds.

use std::arch::asm;
use std::hint::black_box;

use strands_fiber::arch::{Context, Exit, Word, prefetch, switch};
use strands_fiber::float_control::Shared;
use strands_fiber::stack::Stack;
use strands_fiber::{Coroutine, CoroutineResult, Suspender};

const STACK_BYTES: usize = 256 * 1024;

/// Two parties that switch to each other.
struct Pair {
    main: Context,
    other: Context,
    sum: usize,
}

impl Pair {
    fn new() -> Pair {
        Pair { main: Context::default(), other: Context::default(), sum: 0 }
    }
}

/// A word that stands for a number, and the number.
fn word(number: usize) -> Word {
    Word::new(std::ptr::without_provenance_mut(number))
}

/// # Safety
///
/// Somebody made `word` of a number or a pointer.
unsafe fn number(word: Word) -> usize {
    // SAFETY: the caller's promise.
    unsafe { word.assume_init() }.addr()
}

unsafe extern "C" fn add_up(arg: Word) -> Exit {
    // SAFETY: the first switch hands over the pair.
    let pair = unsafe { arg.assume_init() }.cast::<Pair>();
    let mut next = 0;
    loop {
        // SAFETY: `main` saved its context and waits in it; the pair outlives both parties.
        unsafe {
            (*pair).sum += next;
            if next == usize::MAX / 2 {
                return Exit { next: &raw const (*pair).main, arg: word(77) };
            }
            let sum = word((*pair).sum);
            next = number(switch(&raw mut (*pair).other, &raw const (*pair).main, sum));
        }
    }
}

#[test]
fn two_contexts_switch_to_each_other() {
    let stack = Stack::new(STACK_BYTES).unwrap();
    let mut pair = Pair::new();
    let pair = &raw mut pair;
    // SAFETY: the stack is used by nobody else and outlives the party, which exits below. `other`
    // was started, and afterwards saved, whenever it is switched to.
    unsafe {
        (*pair).other.start(stack.top(), &stack, add_up);
        let to_other = |arg| number(switch(&raw mut (*pair).main, &raw const (*pair).other, arg));
        assert_eq!(to_other(Word::new(pair.cast())), 0);
        for next in 1..=1000 {
            assert_eq!(to_other(word(next)), next * (next + 1) / 2);
            prefetch((*pair).other.stack_pointer());
        }
        assert_eq!(to_other(word(usize::MAX / 2)), 77);
    }
}

/// A ring in which everyone switches to the next; the last exits to the one who began.
struct Ring {
    contexts: Vec<Context>,
    visits: Vec<usize>,
}

const RING: usize = 50;
const ROUNDS: usize = 100;

unsafe extern "C" fn ring_member(arg: Word) -> Exit {
    // SAFETY: everybody hands over the ring.
    let ring = unsafe { arg.assume_init() }.cast::<Ring>();
    // SAFETY: one party runs at a time, and the ring outlives all. Every context but ours has been
    // started or saved, as everyone leaves by a switch.
    unsafe {
        let me = (*ring).visits.iter().position(|&visits| visits == 0).unwrap();
        let contexts = (&raw mut (*ring).contexts).as_mut().unwrap().as_mut_ptr();
        let next = contexts.add((me + 1) % (RING + 1));
        for _ in 1..ROUNDS {
            (&mut (*ring).visits)[me] += 1;
            switch(contexts.add(me), next, arg);
        }
        (&mut (*ring).visits)[me] += 1;
        Exit { next, arg }
    }
}

#[test]
fn a_ring_of_contexts_goes_round() {
    let stacks: Vec<_> = (0..RING).map(|_| Stack::new(STACK_BYTES).unwrap()).collect();
    let mut ring = Ring {
        contexts: std::iter::repeat_with(Context::new).take(RING + 1).collect(),
        visits: vec![0; RING],
    };
    for (context, stack) in ring.contexts.iter_mut().zip(&stacks) {
        // SAFETY: each has a stack of its own, which outlives it: all exit below.
        unsafe { context.start(stack.top(), stack, ring_member) };
    }
    let ring = &raw mut ring;
    for _ in 0..ROUNDS {
        // SAFETY: the first context has been started or saved; ours is the last in the ring.
        unsafe {
            let contexts = (&raw mut (*ring).contexts).as_mut().unwrap().as_mut_ptr();
            switch(contexts.add(RING), contexts, Word::new(ring.cast()));
        }
    }
    // SAFETY: the others have exited.
    assert_eq!(unsafe { &(*ring).visits }, &[ROUNDS; RING]);
}

/// Keeps more values alive across each suspension than there are registers of either kind.
fn churn(seed: u64, mut pause: impl FnMut()) -> (u64, f64) {
    let mut whole = [0u64; 20].map(|_| seed);
    let mut real = [0f64; 20].map(|_| seed as f64);
    for round in 0..50 {
        for index in 0..20 {
            whole[index] = whole[index].rotate_left(5) ^ whole[(index + 7) % 20] ^ index as u64;
            real[index] = real[index] * 0.5 + real[(index + 3) % 20] * 0.25 + round as f64;
        }
        pause();
    }
    (whole.iter().fold(0, |all, one| all ^ one), real.iter().sum())
}

#[test]
fn both_sides_keep_their_registers() {
    let alone = |seed| churn(seed, || ());
    let mut coroutine = Coroutine::<(), (), (u64, f64)>::new(|suspender, ()| {
        churn(black_box(1), || suspender.suspend(()))
    });
    let outside = churn(black_box(2), || {
        assert_eq!(coroutine.resume(()), CoroutineResult::Yield(()));
    });
    assert_eq!(outside, alone(2));
    assert_eq!(coroutine.resume(()), CoroutineResult::Return(alone(1)));
}

/// A coroutine with its resumer's control words, where that saves anything.
fn sharing<Yield: 'static, Return: 'static>(
    f: impl FnOnce(&Suspender<(), Yield, Shared>, ()) -> Return + 'static,
) -> Coroutine<(), Yield, Return, Shared> {
    Coroutine::sharing_float_control(Stack::new(STACK_BYTES).unwrap(), f)
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::*;

    const MXCSR_INITIAL: u32 = 0x1f80;
    /// Windows starts threads with the precision of a double.
    const X87_INITIAL: u16 = if cfg!(windows) { X87_DOUBLE } else { 0x037f };
    const FLUSH_TO_ZERO: u32 = 1 << 15;
    const ROUND_UP: u32 = 0b10 << 13;
    const ROUND_DOWN: u32 = 0b01 << 13;
    const DENORMALS_ARE_ZERO: u32 = 1 << 6;
    const STICKY: u32 = 0x3f;
    const X87_DOUBLE: u16 = 0x027f;
    const X87_ROUND_UP: u16 = 0x0b7f;

    /// The control bits of MXCSR, and the x87 control word.
    fn control() -> (u32, u16) {
        let (mut mxcsr, mut x87) = (0u32, 0u16);
        // SAFETY: both instructions only write to the places named.
        unsafe {
            asm!("stmxcsr [{}]", "fnstcw [{}]", in(reg) &raw mut mxcsr, in(reg) &raw mut x87)
        };
        (mxcsr & !STICKY, x87)
    }

    /// Other settings than the initial ones may not be in force where Rust does floating point:
    /// the tests do theirs in assembly.
    fn set_control((mxcsr, x87): (u32, u16)) {
        // SAFETY: exceptions stay masked; nothing here computes with floats but `third`.
        unsafe { asm!("ldmxcsr [{}]", "fldcw [{}]", in(reg) &mxcsr, in(reg) &x87) };
    }

    /// 1/3 as the current rounding mode has it.
    fn third() -> u64 {
        let bits: u64;
        // SAFETY: computes in two registers.
        unsafe {
            asm!(
                "movq {a}, {one}", "movq {b}, {three}", "divsd {a}, {b}", "movq {bits}, {a}",
                a = out(xmm_reg) _, b = out(xmm_reg) _, bits = lateout(reg) bits,
                one = in(reg) 1f64.to_bits(), three = in(reg) 3f64.to_bits(),
            );
        }
        bits
    }

    #[test]
    fn each_coroutine_has_its_own_control_words() {
        let before = control();
        let mut settings = vec![(MXCSR_INITIAL, X87_INITIAL)];
        for bits in [FLUSH_TO_ZERO, ROUND_UP, ROUND_DOWN, DENORMALS_ARE_ZERO] {
            for x87 in [X87_INITIAL, X87_DOUBLE, X87_ROUND_UP] {
                settings.push((MXCSR_INITIAL | bits, x87));
            }
        }
        let make = |setting: (u32, u16)| {
            Coroutine::<(), (u32, u16), ()>::new(move |suspender: &Suspender<_, _>, ()| {
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
            let ours = (MXCSR_INITIAL | ROUND_UP, setting.1);
            set_control(ours);
            let (result, after) = (coroutine.resume(()), control());
            set_control(before);
            assert_eq!(result, CoroutineResult::Return(()), "{setting:x?}");
            assert_eq!(after, ours, "after an exit");
        }
    }

    #[test]
    fn forced_unwinding_restores_the_resumers_control_words() {
        let before = control();
        let mut coroutine = Coroutine::<(), (), ()>::new(|suspender, ()| {
            set_control((MXCSR_INITIAL | ROUND_DOWN, X87_DOUBLE));
            suspender.suspend(());
        });
        assert_eq!(coroutine.resume(()), CoroutineResult::Yield(()));
        assert_eq!(control(), before);
        drop(coroutine);
        assert_eq!(control(), before);
    }

    const UPWARDS: (u32, u16) = (MXCSR_INITIAL | ROUND_UP, X87_ROUND_UP);
    const DOWNWARDS: (u32, u16) = (MXCSR_INITIAL | ROUND_DOWN, X87_INITIAL);

    /// On the `thread` backend each has its own all the same.
    #[cfg(not(strands_backend = "thread"))]
    #[test]
    fn a_sharing_coroutine_goes_on_with_the_words_that_it_finds() {
        let before = control();
        let mut coroutine = sharing(|suspender, ()| {
            let mut found = vec![control()];
            set_control(DOWNWARDS);
            suspender.suspend(());
            found.push(control());
            suspender.suspend(());
            found.push(control());
            set_control(DOWNWARDS);
            found
        });
        set_control(UPWARDS);
        let first = coroutine.resume(());
        let left = control();
        let second = coroutine.resume(());
        let left_again = control();
        set_control(UPWARDS);
        let end = coroutine.resume(());
        let left_at_the_end = control();
        set_control(before);
        assert_eq!((first, second), (CoroutineResult::Yield(()), CoroutineResult::Yield(())));
        assert_eq!(end, CoroutineResult::Return(vec![UPWARDS, DOWNWARDS, UPWARDS]));
        assert_eq!([left, left_again, left_at_the_end], [DOWNWARDS; 3]);
    }

    /// The words in force when it unwinds, not those in force when it suspended, nor the initial ones.
    #[cfg(not(strands_backend = "thread"))]
    #[test]
    fn a_sharing_coroutine_that_unwinds_leaves_the_words_as_they_are() {
        let before = control();
        let make = || {
            let mut coroutine = sharing(|suspender, ()| {
                suspender.suspend(());
                std::panic::resume_unwind(Box::new("its own"));
            });
            assert_eq!(coroutine.resume(()), CoroutineResult::<(), ()>::Yield(()));
            coroutine
        };
        let (mut panics, dropped) = (make(), make());
        set_control(UPWARDS);
        let resume = std::panic::AssertUnwindSafe(|| panics.resume(()));
        let caught = std::panic::catch_unwind(resume).is_err();
        let after_panic = control();
        set_control(DOWNWARDS);
        drop(dropped);
        let after_drop = control();
        set_control(before);
        assert!(caught);
        assert_eq!((after_panic, after_drop), (UPWARDS, DOWNWARDS));
    }

    #[cfg(strands_backend = "thread")]
    #[test]
    fn a_sharing_coroutine_keeps_its_words_here() {
        let before = control();
        let mut coroutine = sharing(|suspender, ()| {
            set_control(DOWNWARDS);
            suspender.suspend(());
            control()
        });
        assert_eq!(coroutine.resume(()), CoroutineResult::Yield(()));
        assert_eq!(control(), before);
        assert_eq!(coroutine.resume(()), CoroutineResult::Return(DOWNWARDS));
    }

    /// Whoever is between them, and whose words change meanwhile.
    #[test]
    fn coroutines_that_keep_their_words_do_so_beside_those_that_share() {
        let before = control();
        let mut inner = Coroutine::<(), (), ()>::new(|suspender, ()| {
            set_control(DOWNWARDS);
            for _ in 0..3 {
                suspender.suspend(());
                assert_eq!(control(), DOWNWARDS);
            }
        });
        let mut middle = sharing(move |suspender, ()| {
            let mine = control();
            while inner.resume(()) == CoroutineResult::Yield(()) {
                assert_eq!(control(), mine, "after its own resumption");
                suspender.suspend(());
                assert_eq!(control(), mine, "nobody has changed them here");
            }
        });
        let mut outer = Coroutine::<(), (), ()>::new(move |suspender, ()| {
            set_control(UPWARDS);
            while middle.resume(()) == CoroutineResult::Yield(()) {
                assert_eq!(control(), UPWARDS);
                suspender.suspend(());
                assert_eq!(control(), UPWARDS);
            }
        });
        while outer.resume(()) == CoroutineResult::Yield(()) {
            assert_eq!(control(), before);
        }
        assert_eq!(control(), before);
    }

    /// What only a stack of our own has: an OS thread starts with its maker's control words.
    #[cfg(not(strands_backend = "thread"))]
    mod entry {
        use super::*;

        #[test]
        fn a_coroutine_starts_with_the_initial_control_words() {
            let before = control();
            let mut coroutine = Coroutine::<(), (), (u32, u16)>::new(|_, ()| control());
            set_control((MXCSR_INITIAL | ROUND_UP | FLUSH_TO_ZERO, X87_DOUBLE));
            let result = coroutine.resume(());
            set_control(before);
            assert_eq!(result, CoroutineResult::Return((MXCSR_INITIAL, X87_INITIAL)));
        }

        #[repr(C)]
        struct Seen {
            main: Context,
            other: Context,
            rsp: usize,
            rbp: usize,
            flags: usize,
        }

        /// Notes the registers as the entry finds them, and exits to `main`, which comes first.
        #[cfg(not(windows))]
        #[unsafe(naked)]
        unsafe extern "C" fn note(_arg: Word) -> Exit {
            std::arch::naked_asm!(
                "mov [rdi + {rsp}], rsp",
                "mov [rdi + {rbp}], rbp",
                "pushfq",
                "pop [rdi + {flags}]",
                "mov rax, rdi",
                "mov edx, 5",
                "ret",
                rsp = const std::mem::offset_of!(Seen, rsp),
                rbp = const std::mem::offset_of!(Seen, rbp),
                flags = const std::mem::offset_of!(Seen, flags),
            )
        }

        /// As above. The Exit is returned in memory, at the address in rcx.
        #[cfg(windows)]
        #[unsafe(naked)]
        unsafe extern "C" fn note(_arg: Word) -> Exit {
            std::arch::naked_asm!(
                "mov [rdx + {rsp}], rsp",
                "mov [rdx + {rbp}], rbp",
                "pushfq",
                "pop [rdx + {flags}]",
                "mov [rcx + {next}], rdx",
                "mov qword ptr [rcx + {arg}], 5",
                "mov rax, rcx",
                "ret",
                rsp = const std::mem::offset_of!(Seen, rsp),
                rbp = const std::mem::offset_of!(Seen, rbp),
                flags = const std::mem::offset_of!(Seen, flags),
                next = const std::mem::offset_of!(Exit, next),
                arg = const std::mem::offset_of!(Exit, arg),
            )
        }

        #[test]
        fn an_entry_finds_what_the_abi_promises() {
            let stack = Stack::new(STACK_BYTES).unwrap();
            let (main, other) = (Context::new(), Context::new());
            let mut seen = Seen { main, other, rsp: 0, rbp: 1, flags: 0 };
            let at = &raw mut seen;
            // SAFETY: the stack outlives the party, which exits at once.
            let exit = unsafe {
                (*at).other.start(stack.top(), &stack, note);
                switch(&raw mut (*at).main, &raw const (*at).other, Word::new(at.cast()))
            };
            // SAFETY: `note` exits with a number.
            assert_eq!(unsafe { number(exit) }, 5);
            assert_eq!(seen.rsp % 16, 8, "16-aligned but for the return address");
            assert!(stack.contains(seen.rsp));
            assert_eq!(seen.rbp, 0, "ends a walk by frame pointers");
            assert_eq!(seen.flags & (1 << 10), 0, "string instructions go upwards");
        }

        #[cfg(not(windows))]
        #[repr(C)]
        struct Kept {
            main: Context,
            other: Context,
            stack: Stack,
        }

        /// Overwrites all registers that a call would keep, and exits to `main`, which comes first.
        #[cfg(not(windows))]
        #[unsafe(naked)]
        unsafe extern "C" fn overwrite(_arg: Word) -> Exit {
            std::arch::naked_asm!(
                "mov rax, rdi",
                "mov rbx, -1",
                "mov rbp, -1",
                "mov r12, -1",
                "mov r13, -1",
                "mov r14, -1",
                "mov r15, -1",
                "ret",
            )
        }

        /// A switch that is inlined into a function makes it save what it declares to be clobbered.
        #[cfg(not(windows))]
        #[test]
        fn a_switch_keeps_what_a_call_keeps() {
            unsafe extern "C" fn there_and_back(at: *mut Kept) {
                let arg = Word::new(at.cast());
                // SAFETY: `other` was started on its stack, and exits to `main`.
                unsafe { switch(&raw mut (*at).main, &raw const (*at).other, arg) };
            }
            let (main, other) = (Context::new(), Context::new());
            let mut kept = Kept { main, other, stack: Stack::new(STACK_BYTES).unwrap() };
            let at = &raw mut kept;
            let call: unsafe extern "C" fn(*mut Kept) = there_and_back;
            let (rbx, rbp, r12, r13, r14, r15): (u64, u64, u64, u64, u64, u64);
            // SAFETY: the stack outlives the party. rbx and rbp are put back, and the stack pointer
            // with them; the other registers are declared.
            unsafe {
                (*at).other.start((*at).stack.top(), &(*at).stack, overwrite);
                asm!(
                    "push rbx", "push rbp",
                    "mov rbx, 1", "mov rbp, 2",
                    "mov r12, 12", "mov r13, 13", "mov r14, 14", "mov r15, 15",
                    "call rsi",
                    "mov rax, rbx", "mov rcx, rbp",
                    "pop rbp", "pop rbx",
                    inout("rdi") at => _,
                    inout("rsi") call => _,
                    lateout("rax") rbx, lateout("rcx") rbp,
                    out("r12") r12, out("r13") r13, out("r14") r14, out("r15") r15,
                    clobber_abi("sysv64"),
                );
            }
            assert_eq!([rbx, rbp, r12, r13, r14, r15], [1, 2, 12, 13, 14, 15]);
        }

        #[test]
        fn locals_of_a_coroutine_are_aligned() {
            #[repr(align(16))]
            struct Aligned {
                _words: [u64; 2],
            }
            let mut coroutine = Coroutine::<(), (), u64>::new(|suspender, ()| {
                let value = black_box(Aligned { _words: [3, 4] });
                suspender.suspend(());
                let sum: u64;
                // SAFETY: `movaps` reads the 16 bytes of `value`, and faults if they are unaligned.
                unsafe {
                    asm!(
                        "movaps {x}, [{at}]", "movq {sum}, {x}", "punpckhqdq {x}, {x}",
                        "movq {high}, {x}", "add {sum}, {high}",
                        at = in(reg) &value, x = out(xmm_reg) _, sum = out(reg) sum,
                        high = out(reg) _,
                    );
                }
                sum
            });
            assert_eq!(coroutine.resume(()), CoroutineResult::Yield(()));
            assert_eq!(coroutine.resume(()), CoroutineResult::Return(7));
        }
    }
}

#[cfg(target_arch = "aarch64")]
#[path = "arch/aarch64.rs"]
mod aarch64;

/// What Windows keeps about the stack that a thread runs on.
#[cfg(all(windows, target_arch = "x86_64", not(strands_backend = "thread")))]
mod windows {
    use super::*;

    use std::thread;

    use windows_sys::Win32::System::Threading::GetCurrentThreadStackLimits;

    /// ExceptionList, StackBase, StackLimit, DeallocationStack, GuaranteedStackBytes.
    fn words() -> [usize; 5] {
        let mut words = [0usize; 5];
        // SAFETY: reads words of the thread's environment block, the last of 32 bits.
        unsafe {
            asm!(
                "mov {a}, gs:[0x00]", "mov [{to}], {a}",
                "mov {a}, gs:[0x08]", "mov [{to} + 8], {a}",
                "mov {a}, gs:[0x10]", "mov [{to} + 16], {a}",
                "mov {a}, gs:[0x1478]", "mov [{to} + 24], {a}",
                "mov {a:e}, gs:[0x1748]", "mov [{to} + 32], {a}",
                a = out(reg) _, to = in(reg) &mut words,
            )
        };
        words
    }

    #[test]
    fn the_bounds_of_the_stack_are_the_party_s() {
        let check = |stack: Stack| {
            let bottom = stack.bottom().as_ptr().addr();
            let end = bottom + stack.size();
            let within = move || {
                let local = 0u8;
                let at = (&raw const local).addr();
                let [_, base, limit, allocation, guaranteed] = words();
                assert_eq!(base, end);
                assert!(bottom <= limit && limit <= at && at < base);
                assert!(allocation < bottom && guaranteed > 0);
                let (mut low, mut high) = (0, 0);
                // SAFETY: it fills in what it is given.
                unsafe { GetCurrentThreadStackLimits(&mut low, &mut high) };
                assert_eq!((low, high), (allocation, base));
            };
            Coroutine::<(), (), ()>::with_stack(stack, move |suspender, ()| {
                within();
                suspender.suspend(());
                within();
                deep(10, &|| ());
                within();
                suspender.suspend(());
                within();
            })
        };
        thread::spawn(move || {
            let before = words();
            let mut coroutines = [0; 5].map(|_| check(Stack::new(STACK_BYTES).unwrap()));
            for _ in 0..2 {
                for coroutine in &mut coroutines {
                    assert_eq!(coroutine.resume(()), CoroutineResult::Yield(()));
                    assert_eq!(words(), before);
                }
            }
            for coroutine in &mut coroutines {
                assert_eq!(coroutine.resume(()), CoroutineResult::Return(()));
                assert_eq!(words(), before);
            }
        })
        .join()
        .unwrap();
    }

    /// Calls `f` with at least `pages` of stack in use.
    #[inline(never)]
    fn deep(pages: usize, f: &dyn Fn()) {
        let mut page = [1u8; 4096];
        black_box(&mut page);
        match pages {
            0 => f(),
            _ => deep(pages - 1, f),
        }
        black_box(&mut page);
    }

    /// A panic searches no frame below the stack's limit, which a new party must find where the
    /// last one left it.
    #[test]
    fn a_panic_far_down_a_used_stack_is_caught() {
        use strands_fiber::stack::{PoolConfig, StackPool};
        let mut pool = StackPool::new(PoolConfig::default()).unwrap();
        let first = pool.take(STACK_BYTES).unwrap();
        let at = first.bottom();
        pool.give(first);
        for pages in [0, 10, 0, 5] {
            let stack = pool.take(STACK_BYTES).unwrap();
            assert_eq!(stack.bottom(), at);
            let mut pair = Pair::new();
            let pair = &raw mut pair;
            unsafe extern "C" fn run(arg: Word) -> Exit {
                // SAFETY: it is handed the pair, whose sum is the pages wanted.
                unsafe {
                    let pair = arg.assume_init().cast::<Pair>();
                    let panicked = std::panic::catch_unwind(|| {
                        deep((*pair).sum, &|| std::panic::resume_unwind(Box::new(())));
                    });
                    assert!(panicked.is_err());
                    Exit { next: &raw const (*pair).main, arg }
                }
            }
            // SAFETY: the party exits before the stack goes back.
            unsafe {
                (*pair).sum = pages;
                (*pair).other.start(stack.top(), &stack, run);
                switch(&raw mut (*pair).main, &raw const (*pair).other, Word::new(pair.cast()));
            }
            pool.give(stack);
        }
    }
}

/// Suspends below `depth` frames of its own, and ends when it is resumed.
#[inline(never)]
fn descend(pair: *mut Pair, depth: usize) -> usize {
    if depth > 0 {
        return black_box(descend(pair, depth - 1)) + 1;
    }
    // SAFETY: as in `add_up`.
    unsafe { switch(&raw mut (*pair).other, &raw const (*pair).main, Word::uninit()) };
    0
}

unsafe extern "C" fn descend_and_end(arg: Word) -> Exit {
    // SAFETY: the first switch hands over the pair.
    let pair = unsafe { arg.assume_init() }.cast::<Pair>();
    let depth = black_box(descend(pair, 20));
    // SAFETY: as in `add_up`.
    Exit { next: unsafe { &raw const (*pair).main }, arg: word(depth) }
}

#[test]
#[cfg_attr(strands_backend = "thread", ignore = "the stack is a thread's")]
fn a_suspended_stack_is_walked_from_outside() {
    let stack = Stack::new(STACK_BYTES).unwrap();
    let mut pair = Pair::new();
    let pair = &raw mut pair;
    // SAFETY: the stack and the pair outlive the party, which ends here; it is suspended while it
    // is walked.
    unsafe {
        (*pair).other.start(stack.top(), &stack, descend_and_end);
        switch(&raw mut (*pair).main, &raw const (*pair).other, Word::new(pair.cast()));
        let walk = |most: usize| {
            let mut addresses = Vec::new();
            (*pair).other.walk(&mut |address| {
                addresses.push(address);
                addresses.len() < most
            });
            addresses
        };
        let all = walk(100);
        // 21 of `descend`, the entry, perhaps `begin` and what a sanitizer has in between.
        assert!((22..26).contains(&all.len()), "{} addresses: {all:x?}", all.len());
        let returns_to_descend = all[2];
        assert_eq!(all.iter().filter(|&&a| a == returns_to_descend).count(), 20, "{all:x?}");
        assert_eq!(walk(5), all[..5]);
        assert_eq!(walk(1), all[..1]);
        let depth = switch(&raw mut (*pair).main, &raw const (*pair).other, Word::uninit());
        assert_eq!(number(depth), 20, "it goes on as if nobody had looked");
    }
}
