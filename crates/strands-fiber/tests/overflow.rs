//! What a process says and does when a stack overflows, and when it faults otherwise.

#![cfg(all(unix, not(miri)))]

mod child;

use std::ffi::c_void;
use std::hint;
use std::mem::{self, MaybeUninit};
use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::thread;

use strands_fiber::arch::{Context, Exit, Word, switch};
use strands_fiber::overflow::{ensure_alt_stack, install, set_describe};
use strands_fiber::stack::{MIN_STACK_BYTES, PoolConfig, Stack, StackPool};

const STACK_BYTES: usize = 64 * 1024;

/// Uses up whatever stack it is on. `depth` keeps the compiler from making a loop of it.
#[expect(unconditional_recursion)]
#[inline(never)]
fn overflow(depth: usize) -> usize {
    let frame = hint::black_box([depth; 32]);
    overflow(depth + 1) + frame[depth % 32]
}

extern "C" fn overflow_in_thread(_: *mut c_void) -> *mut c_void {
    let _alt_stack = ensure_alt_stack().unwrap();
    ptr::without_provenance_mut(overflow(0))
}

/// Runs `main` on a thread made by C whose stack is `stack`.
fn run_on(stack: &Stack, main: extern "C" fn(*mut c_void) -> *mut c_void) {
    // The libc crate has it for some systems only.
    unsafe extern "C" {
        fn pthread_attr_setstack(
            attributes: *mut libc::pthread_attr_t,
            bottom: *mut c_void,
            bytes: usize,
        ) -> i32;
    }
    let mut attributes = MaybeUninit::uninit();
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the attributes are initialised first; the stack's memory is ours, and the thread has
    // ended when we return.
    unsafe {
        assert_eq!(libc::pthread_attr_init(attributes.as_mut_ptr()), 0);
        let bottom = stack.bottom().as_ptr().cast();
        assert_eq!(pthread_attr_setstack(attributes.as_mut_ptr(), bottom, stack.size()), 0);
        let made =
            libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), main, ptr::null_mut());
        assert_eq!(made, 0);
        assert_eq!(libc::pthread_join(thread.assume_init(), ptr::null_mut()), 0);
    }
}

/// Overflows a strands stack: switches to it where the backend runs on stacks of its own.
fn overflow_on(stack: &Stack) -> ! {
    if cfg!(strands_backend = "thread") {
        run_on(stack, overflow_in_thread);
    } else {
        unsafe extern "C" fn run(_: Word) -> Exit {
            unreachable!("{} calls did not overflow a stack", overflow(0))
        }
        let (mut ours, mut its) = (Context::new(), Context::new());
        // SAFETY: the stack is ours and unused, and its party ends in the overflow; our context is
        // saved and never gone on from.
        unsafe {
            its.start(stack.top(), stack, run);
            switch(&mut ours, &its, Word::uninit());
        }
    }
    panic!("a stack of {} bytes did not overflow", stack.size());
}

/// A page that may not be touched, and is not a guard.
fn forbidden_page() -> *mut u8 {
    let (protection, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANON);
    // SAFETY: a new mapping disturbs nothing.
    let page = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    page.cast()
}

fn touch_forbidden_page() {
    // SAFETY: it may not be touched; the fault is the test. Nobody else's memory is there.
    unsafe { forbidden_page().write_volatile(1) }
}

/// Installs `handler` for SIGSEGV.
fn set_handler(handler: usize, flags: i32) {
    // SAFETY: an all-zero action is a valid one.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags | libc::SA_ONSTACK;
    // SAFETY: the tests pass handlers with the signature that their flags say.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()) }, 0);
}

fn errors(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    // An emulator's own remark on the signal that ends it.
    errors.split_inclusive('\n').filter(|line| !line.starts_with("qemu: uncaught")).collect()
}

#[track_caller]
fn assert_reported(output: &Output, subject: &str, kib: usize) {
    let errors = errors(output);
    let message = format!("\n{subject} has overflowed its stack of {kib} KiB\nhelp: give it more ");
    assert!(errors.contains(&message), "{}\n{errors}", output.status);
    assert!(errors.ends_with("\nfatal runtime error: stack overflow, aborting\n"), "{errors}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{errors}");
}

#[test]
fn an_overflow_is_reported_with_each_kind_of_guard() {
    const TEST: &str = "an_overflow_is_reported_with_each_kind_of_guard";
    if child::is(TEST) {
        install().unwrap();
        overflow_on(&Stack::new(STACK_BYTES).unwrap());
    }
    let mut kinds = vec!["mprotect"];
    let forced = child::run("the_default_guard_works", &[("STRANDS_STACK_GUARD", "madvise")]);
    if forced.status.success() {
        kinds.push("madvise");
    } else {
        assert!(errors(&forced).contains("Unsupported"), "{}", errors(&forced));
        child::skip("overflow into a guard by madvise: this kernel lacks them");
    }
    for kind in kinds {
        let output = child::run(TEST, &[("STRANDS_STACK_GUARD", kind)]);
        assert_reported(&output, "a coroutine", 64);
        assert!(errors(&output).contains("Coroutine::with_stack"));
    }
}

#[test]
fn the_default_guard_works() {
    const TEST: &str = "the_default_guard_works";
    if child::is(TEST) {
        Stack::new(STACK_BYTES).unwrap();
        return;
    }
    child::pass(TEST, &[]);
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
        overflow_on(&stacks[77]);
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
        overflow_on(&Stack::new(STACK_BYTES).unwrap());
    }
    let output = child::run(TEST, &[]);
    assert_reported(&output, "fiber 'acceptor' (id 12)", 64);
    assert!(errors(&output).contains("\nhelp: give it more calm\n"));
}

#[test]
fn a_long_name_leaves_room_for_the_rest() {
    const TEST: &str = "a_long_name_leaves_room_for_the_rest";
    if child::is(TEST) {
        fn describe(sink: &mut dyn FnMut(&[u8])) -> Option<&'static str> {
            (0..100).for_each(|_| sink(b"0123456789"));
            None
        }
        // SAFETY: it does nothing but call its sink.
        unsafe { set_describe(describe) };
        install().unwrap();
        overflow_on(&Stack::new(STACK_BYTES).unwrap());
    }
    assert_reported(&child::run(TEST, &[]), &"0123456789".repeat(20), 64);
}

#[test]
fn a_thread_made_by_c_can_report_too() {
    const TEST: &str = "a_thread_made_by_c_can_report_too";
    if child::is(TEST) {
        install().unwrap();
        // Some ISAs allow a thread no less (PTHREAD_STACK_MIN).
        run_on(&Stack::new(STACK_BYTES * 2).unwrap(), overflow_in_thread);
        return;
    }
    assert_reported(&child::run(TEST, &[]), "a coroutine", 128);
}

#[test]
fn alternate_stacks_come_only_where_there_are_none_and_go() {
    static FOUND: AtomicUsize = AtomicUsize::new(0);

    fn current() -> libc::stack_t {
        let mut current = MaybeUninit::uninit();
        // SAFETY: only asks, and fills in what it is given.
        unsafe {
            assert_eq!(libc::sigaltstack(ptr::null(), current.as_mut_ptr()), 0);
            current.assume_init()
        }
    }
    extern "C" fn bare(_: *mut c_void) -> *mut c_void {
        assert_ne!(current().ss_flags & libc::SS_DISABLE, 0);
        let first = ensure_alt_stack().unwrap();
        let now = current();
        assert_eq!(now.ss_flags & libc::SS_DISABLE, 0);
        assert!(now.ss_size >= libc::SIGSTKSZ);
        let second = ensure_alt_stack().unwrap();
        assert_eq!(current().ss_sp, now.ss_sp);
        drop(second);
        assert_eq!(current().ss_sp, now.ss_sp, "what was there before stays");
        // SAFETY: its whole range is mapped, and we are not running on it.
        unsafe {
            now.ss_sp.cast::<u8>().write_volatile(1);
            now.ss_sp.cast::<u8>().add(now.ss_size - 1).write_volatile(1);
        }
        drop(first);
        assert_ne!(current().ss_flags & libc::SS_DISABLE, 0);
        FOUND.fetch_add(1, Ordering::Relaxed);
        ptr::null_mut()
    }
    run_on(&Stack::new(STACK_BYTES * 4).unwrap(), bare);
    assert_eq!(FOUND.load(Ordering::Relaxed), 1);

    thread::spawn(|| {
        let before = current();
        assert_eq!(before.ss_flags & libc::SS_DISABLE, 0, "std gives its threads one");
        drop(ensure_alt_stack().unwrap());
        assert_eq!(current().ss_sp, before.ss_sp);
    })
    .join()
    .unwrap();
}

#[test]
fn the_overflow_of_a_plain_thread_is_still_std_s() {
    const TEST: &str = "the_overflow_of_a_plain_thread_is_still_std_s";
    if child::is(TEST) {
        let _stack = Stack::new(STACK_BYTES).unwrap();
        install().unwrap();
        install().unwrap();
        let plain = thread::Builder::new().name("plain".into());
        plain.spawn(|| overflow(0)).unwrap().join().unwrap();
        return;
    }
    let output = child::run(TEST, &[]);
    let errors = errors(&output);
    assert!(errors.contains("thread 'plain'"), "{errors}");
    assert!(errors.contains("has overflowed its stack"), "{errors}");
    assert!(!errors.contains("KiB"), "{errors}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
}

#[test]
fn other_faults_end_the_process_as_ever() {
    const TEST: &str = "other_faults_end_the_process_as_ever";
    if child::is(TEST) {
        let _stack = Stack::new(STACK_BYTES).unwrap();
        if std::env::var_os("DEFAULT_ACTION").is_some() {
            set_handler(libc::SIG_DFL, 0);
        }
        install().unwrap();
        touch_forbidden_page();
        return;
    }
    // Before us are std's handler, or none.
    for variables in [&[][..], &[("DEFAULT_ACTION", "1")]] {
        let output = child::run(TEST, variables);
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{}", errors(&output));
        assert!(!errors(&output).contains("overflow"), "{}", errors(&output));
    }
}

#[test]
fn a_signal_that_was_sent_does_what_it_would_without_us() {
    const TEST: &str = "a_signal_that_was_sent_does_what_it_would_without_us";
    if child::is(TEST) {
        let ignored = std::env::var_os("IGNORED").is_some();
        set_handler(if ignored { libc::SIG_IGN } else { libc::SIG_DFL }, 0);
        install().unwrap();
        // SAFETY: raise has no preconditions.
        unsafe { libc::raise(libc::SIGSEGV) };
        eprintln!("still here");
        assert!(ignored, "the default action ends the process");
        // A fault cannot be ignored.
        touch_forbidden_page();
        return;
    }
    let output = child::run(TEST, &[]);
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{}", errors(&output));
    assert!(!errors(&output).contains("still here"), "{}", errors(&output));
    let output = child::run(TEST, &[("IGNORED", "1")]);
    assert!(errors(&output).contains("still here"), "{}", errors(&output));
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{}", errors(&output));
}

static PAGE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Mends the fault, as garbage collectors do, so that the program goes on.
unsafe extern "C" fn mend(signal: i32) {
    assert_eq!(signal, libc::SIGSEGV);
    CALLS.fetch_add(1, Ordering::Relaxed);
    let page = PAGE.load(Ordering::Relaxed).cast();
    // SAFETY: the page is the test's own.
    unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_WRITE) };
}

/// As `mend`, and checks what it is handed.
unsafe extern "C" fn mend_with_info(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    assert!(!context.is_null());
    // SAFETY: SA_SIGINFO is set, and this is a fault.
    assert_eq!(unsafe { (*info).si_addr() }, PAGE.load(Ordering::Relaxed).cast());
    // SAFETY: handed on.
    unsafe { mend(signal) }
}

#[test]
fn handlers_that_were_there_before_get_their_faults() {
    const TEST: &str = "handlers_that_were_there_before_get_their_faults";
    if child::is(TEST) {
        match std::env::var("HANDLER").unwrap().as_str() {
            "plain" => set_handler(mend as *const () as usize, 0),
            "info" => set_handler(mend_with_info as *const () as usize, libc::SA_SIGINFO),
            once => {
                assert_eq!(once, "once");
                set_handler(mend as *const () as usize, libc::SA_RESETHAND);
            }
        }
        install().unwrap();
        let stack = Stack::new(STACK_BYTES).unwrap();
        for round in 1..=2 {
            let page = forbidden_page();
            PAGE.store(page, Ordering::Relaxed);
            // SAFETY: the handler makes the page writable.
            unsafe { page.write_volatile(round) };
            assert_eq!(CALLS.load(Ordering::Relaxed), usize::from(round));
        }
        overflow_on(&stack);
    }
    for handler in ["plain", "info"] {
        assert_reported(&child::run(TEST, &[("HANDLER", handler)]), "a coroutine", 64);
    }
    // It is called once, and the second fault meets the default action.
    let output = child::run(TEST, &[("HANDLER", "once")]);
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{}", errors(&output));
}

#[test]
fn a_handler_that_comes_later_and_chains_leaves_overflows_to_us() {
    const TEST: &str = "a_handler_that_comes_later_and_chains_leaves_overflows_to_us";
    static BEFORE: AtomicUsize = AtomicUsize::new(0);

    unsafe extern "C" fn later(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: SA_SIGINFO is set, and this is a fault.
        let address = unsafe { (*info).si_addr() };
        if address == PAGE.load(Ordering::Relaxed).cast() {
            // SAFETY: handed on.
            return unsafe { mend(signal) };
        }
        type Action = unsafe extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void);
        // SAFETY: the action before had SA_SIGINFO, hence a handler of this type.
        unsafe {
            mem::transmute::<usize, Action>(BEFORE.load(Ordering::Relaxed))(signal, info, context)
        }
    }
    if child::is(TEST) {
        install().unwrap();
        let mut before = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: only asks, and fills in what it is given.
        let before = unsafe {
            assert_eq!(libc::sigaction(libc::SIGSEGV, ptr::null(), before.as_mut_ptr()), 0);
            before.assume_init()
        };
        assert_ne!(before.sa_flags & libc::SA_SIGINFO, 0);
        BEFORE.store(before.sa_sigaction, Ordering::Relaxed);
        set_handler(later as *const () as usize, libc::SA_SIGINFO);
        install().unwrap(); // Must not put us in front again: we would call each other for ever.
        let page = forbidden_page();
        PAGE.store(page, Ordering::Relaxed);
        // SAFETY: the handler makes the page writable.
        unsafe { page.write_volatile(1) };
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);
        overflow_on(&Stack::new(STACK_BYTES).unwrap());
    }
    assert_reported(&child::run(TEST, &[]), "a coroutine", 64);
}
