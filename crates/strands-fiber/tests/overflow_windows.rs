//! What a process says and does on Windows when a stack overflows, and when it faults otherwise.
//! The same for Unix, with its signals, is in `overflow.rs`.

#![cfg(all(windows, not(strands_backend = "thread")))]

mod child;

use std::hint;
use std::mem;
use std::process::Output;
use std::ptr;
use std::thread;

use strands_fiber::arch::{Context, Exit, Word, switch};
use strands_fiber::overflow::{install, set_describe};
use strands_fiber::stack::{MIN_STACK_BYTES, PoolConfig, Stack, StackPool};
use strands_fiber::{Coroutine, CoroutineResult};
use windows_sys::Win32::Foundation::{
    EXCEPTION_ACCESS_VIOLATION, NTSTATUS, STATUS_STACK_BUFFER_OVERRUN,
};
use windows_sys::Win32::System::Diagnostics::Debug::{
    EXCEPTION_EXECUTE_HANDLER, EXCEPTION_POINTERS, SetUnhandledExceptionFilter,
};
use windows_sys::Win32::System::Memory::{MEM_RESERVE, PAGE_READWRITE, VirtualAlloc};
use windows_sys::Win32::System::Threading::ExitProcess;

const STACK_BYTES: usize = 64 * 1024;

/// What `abort` ends a process with: that of `__fastfail`.
const ABORTED: NTSTATUS = STATUS_STACK_BUFFER_OVERRUN;

/// Uses up whatever stack it is on. `depth` keeps the compiler from making a loop of it.
#[expect(unconditional_recursion)]
#[inline(never)]
fn overflow(depth: usize) -> usize {
    let frame = hint::black_box([depth; 32]);
    overflow(depth + 1) + frame[depth % 32]
}

/// As above, by a frame larger than all guards.
#[inline(never)]
fn overflow_at_once() -> usize {
    hint::black_box([1u8; 4 * STACK_BYTES]).len()
}

unsafe extern "C" fn run_overflow(_: Word) -> Exit {
    unreachable!("{} calls did not overflow a stack", overflow(0))
}

unsafe extern "C" fn run_overflow_at_once(_: Word) -> Exit {
    unreachable!("{} bytes did not overflow a stack", overflow_at_once())
}

fn run_on(stack: &Stack, run: unsafe extern "C" fn(Word) -> Exit) -> ! {
    let (mut ours, mut its) = (Context::new(), Context::new());
    // SAFETY: the stack is ours and unused, and its party ends in the overflow; our context is
    // saved and never gone on from.
    unsafe {
        its.start(stack.top(), stack, run);
        switch(&mut ours, &its, Word::uninit());
    }
    panic!("a stack of {} bytes did not overflow", stack.size());
}

fn touch_forbidden_page() {
    // SAFETY: a new range disturbs nothing. It may not be touched; the fault is the test.
    unsafe {
        let page = VirtualAlloc(ptr::null(), 4096, MEM_RESERVE, PAGE_READWRITE);
        assert!(!page.is_null());
        page.cast::<u8>().write_volatile(1);
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn assert_reported(output: &Output, subject: &str, kib: usize) {
    let errors = errors(output);
    let message = format!("\n{subject} has overflowed its stack of {kib} KiB\nhelp: give it more ");
    assert!(errors.contains(&message), "{}\n{errors}", output.status);
    assert!(errors.ends_with("\nfatal runtime error: stack overflow, aborting\n"), "{errors}");
    assert_eq!(output.status.code(), Some(ABORTED), "{errors}");
}

#[test]
fn an_overflow_is_reported() {
    const TEST: &str = "an_overflow_is_reported";
    if child::is(TEST) {
        install().unwrap();
        install().unwrap();
        run_on(&Stack::new(STACK_BYTES).unwrap(), run_overflow);
    }
    let output = child::run(TEST, &[]);
    assert_reported(&output, "a coroutine", 64);
    assert!(errors(&output).contains("Coroutine::with_stack"));
}

#[test]
fn a_frame_larger_than_the_guard_is_reported() {
    const TEST: &str = "a_frame_larger_than_the_guard_is_reported";
    if child::is(TEST) {
        install().unwrap();
        run_on(&Stack::new(STACK_BYTES).unwrap(), run_overflow_at_once);
    }
    assert_reported(&child::run(TEST, &[]), "a coroutine", 64);
}

#[test]
fn an_overflow_is_reported_on_a_stack_that_was_used_before() {
    const TEST: &str = "an_overflow_is_reported_on_a_stack_that_was_used_before";
    if child::is(TEST) {
        install().unwrap();
        let mut pool = StackPool::new(PoolConfig::default()).unwrap();
        let stack = pool.take(STACK_BYTES).unwrap();
        let bottom = stack.bottom();
        let mut pair = (Context::new(), Context::new());
        let pair = &raw mut pair;
        unsafe extern "C" fn run(arg: Word) -> Exit {
            hint::black_box([1u8; STACK_BYTES / 2]);
            // SAFETY: it is handed the pair, whose first context waits.
            let pair = unsafe { arg.assume_init().cast::<(Context, Context)>() };
            // SAFETY: as above.
            Exit { next: unsafe { &raw const (*pair).0 }, arg }
        }
        // SAFETY: the stack is unused, and its party exits at once.
        unsafe {
            (*pair).1.start(stack.top(), &stack, run);
            switch(&raw mut (*pair).0, &raw const (*pair).1, Word::new(pair.cast()));
        }
        pool.give(stack);
        let stack = pool.take(STACK_BYTES).unwrap();
        assert_eq!(stack.bottom(), bottom);
        run_on(&stack, run_overflow);
    }
    assert_reported(&child::run(TEST, &[]), "a coroutine", 64);
}

#[test]
fn a_stack_amid_a_pools_slab_is_recognised() {
    const TEST: &str = "a_stack_amid_a_pools_slab_is_recognised";
    if child::is(TEST) {
        install().unwrap();
        let mut pool = StackPool::new(PoolConfig::default()).unwrap();
        let stacks: Vec<_> = (0..100).map(|_| pool.take(MIN_STACK_BYTES * 2).unwrap()).collect();
        for _ in 0..100 {
            mem::forget(Stack::new(MIN_STACK_BYTES).unwrap());
        }
        run_on(&stacks[77], run_overflow);
    }
    assert_reported(&child::run(TEST, &[]), "a coroutine", MIN_STACK_BYTES * 2 / 1024);
}

#[test]
fn the_message_names_who_overflowed() {
    const TEST: &str = "the_message_names_who_overflowed";
    if child::is(TEST) {
        fn describe(sink: &mut dyn FnMut(&[u8])) -> Option<&'static str> {
            sink(b"fiber 'acceptor'");
            sink(b" (id 12)");
            Some("give it more calm")
        }
        // SAFETY: it does nothing but call its sink.
        unsafe { set_describe(describe) };
        install().unwrap();
        run_on(&Stack::new(STACK_BYTES).unwrap(), run_overflow);
    }
    let output = child::run(TEST, &[]);
    assert_reported(&output, "fiber 'acceptor' (id 12)", 64);
    assert!(errors(&output).contains("\nhelp: give it more calm\n"));
}

/// Runs `test` without our handler and with it, and expects no difference. What a plain thread's
/// fault says and ends with is up to std and to the system.
#[track_caller]
fn assert_left_alone(test: &str, variables: &[(&str, &str)]) -> Output {
    let output = child::run(test, variables);
    let with_ours = child::run(test, &[variables, &[("INSTALL", "1")]].concat());
    assert_eq!(with_ours.status, output.status, "{}", errors(&with_ours));
    for text in ["has overflowed its stack", "KiB", "panicked"] {
        let both = [&output, &with_ours].map(|output| errors(output).contains(text));
        assert_eq!(both[0], both[1], "`{text}`:\n{}", errors(&with_ours));
    }
    assert!(!output.status.success());
    output
}

fn install_if_asked() {
    if std::env::var_os("INSTALL").is_some() {
        install().unwrap();
    }
}

#[test]
fn the_overflow_of_a_plain_thread_is_still_std_s() {
    const TEST: &str = "the_overflow_of_a_plain_thread_is_still_std_s";
    if child::is(TEST) {
        install_if_asked();
        let plain = thread::Builder::new().name("plain".into());
        let run = || {
            // That it ran coroutines changes nothing.
            let mut coroutine = Coroutine::<(), (), ()>::new(|suspender, ()| suspender.suspend(()));
            assert_eq!(coroutine.resume(()), CoroutineResult::Yield(()));
            overflow(0)
        };
        plain.spawn(run).unwrap().join().unwrap();
        return;
    }
    assert!(!errors(&assert_left_alone(TEST, &[])).contains("KiB"));
}

#[test]
fn other_faults_end_the_process_as_ever() {
    const TEST: &str = "other_faults_end_the_process_as_ever";
    if child::is(TEST) {
        install_if_asked();
        let _stack = Stack::new(STACK_BYTES).unwrap();
        if std::env::var_os("IN_COROUTINE").is_some() {
            Coroutine::<(), (), ()>::new(|_, ()| touch_forbidden_page()).resume(());
        }
        touch_forbidden_page();
        return;
    }
    let plain = assert_left_alone(TEST, &[]);
    let in_coroutine = assert_left_alone(TEST, &[("IN_COROUTINE", "1")]);
    assert_eq!(in_coroutine.status, plain.status);
    assert!(!errors(&plain).contains("overflow"), "{}", errors(&plain));
}

/// What writes crash reports.
#[test]
fn the_filter_for_unhandled_exceptions_sees_those_of_coroutines() {
    const TEST: &str = "the_filter_for_unhandled_exceptions_sees_those_of_coroutines";
    if child::is(TEST) {
        unsafe extern "system" fn filter(exception: *const EXCEPTION_POINTERS) -> i32 {
            // SAFETY: it comes with a record.
            let code = unsafe { (*(*exception).ExceptionRecord).ExceptionCode };
            assert_eq!(code, EXCEPTION_ACCESS_VIOLATION);
            if std::env::var_os("EXIT").is_some() {
                // SAFETY: it has no preconditions.
                unsafe { ExitProcess(77) };
            }
            EXCEPTION_EXECUTE_HANDLER
        }
        install().unwrap();
        // SAFETY: the filter may be called at any time.
        unsafe { SetUnhandledExceptionFilter(Some(filter)) };
        Coroutine::<(), (), ()>::new(|_, ()| touch_forbidden_page()).resume(());
        return;
    }
    assert_eq!(child::run(TEST, &[("EXIT", "1")]).status.code(), Some(77));
    assert_eq!(child::run(TEST, &[]).status.code(), Some(EXCEPTION_ACCESS_VIOLATION));
}
