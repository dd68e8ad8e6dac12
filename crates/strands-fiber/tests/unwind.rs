//! How far a walk of a coroutine's stack goes: backtraces, panic hooks, a debugger. And what is
//! done where nothing can unwind.

#![cfg(not(miri))]

mod child;

#[cfg(unix)]
use std::{env, process::Command};

/// Why a test here may skip.
#[cfg(all(unix, not(strands_backend = "thread")))]
const SKIPS: [&str; 2] = ["gdb is not installed", "gdb may not trace processes here"];

/// The example `abandoned`, built with `panic = "abort"`, drops suspended coroutines and goes on.
///
/// Not on Windows, where these tests run on another system's cargo's behalf.
#[cfg(unix)]
#[test]
fn suspended_coroutines_are_leaked_where_panics_abort() {
    let target = concat!(env!("CARGO_TARGET_TMPDIR"), "/abort");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--offline", "--example", "abandoned"])
        .args(["--manifest-path", manifest, "--target-dir", target])
        .env("CARGO_PROFILE_DEV_PANIC", "abort")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{errors}", output.status);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "10 were abandoned, 0 unwound\n");
}

/// On the `thread` backend a walk ends where the thread's does.
#[cfg(not(strands_backend = "thread"))]
mod walks {
    use super::*;

    use std::backtrace::Backtrace;
    use std::hint::black_box;
    use std::panic::{self, AssertUnwindSafe, catch_unwind};
    use std::sync::{Arc, Mutex};

    use strands_fiber::Suspender;
    use strands_fiber::float_control::FloatControl;
    use strands_fiber::stack::Stack;
    use strands_fiber::{Coroutine, CoroutineResult, DEFAULT_STACK_BYTES};

    /// The functions of a backtrace, innermost first.
    fn functions(backtrace: &str) -> Vec<&str> {
        backtrace
            .lines()
            .filter_map(|line| {
                let (number, function) = line.trim_start().split_once(": ")?;
                number.parse::<usize>().ok().map(|_| function)
            })
            .collect()
    }

    /// The walk passed the coroutine's entry, and ended there.
    #[track_caller]
    fn assert_ends_at_entry(backtrace: &str) {
        let functions = functions(backtrace);
        let [.., run, last] = functions[..] else { panic!("{backtrace}") };
        assert!(last.contains("strands_fiber::arch::isa::begin"), "{backtrace}");
        // With line tables only, names come without their modules.
        assert!(
            run.trim_start_matches("strands_fiber::coroutine::").starts_with("run"),
            "{backtrace}"
        );
    }

    /// `f` with `depth` frames below it.
    #[inline(never)]
    fn deep<T>(depth: usize, f: impl FnOnce() -> T) -> T {
        if depth == 0 {
            return f();
        }
        // Boxed, so that the recursion is through one type.
        let f: Box<dyn FnOnce() -> T + '_> = Box::new(f);
        black_box(deeper(depth - 1, f))
    }

    #[inline(never)]
    fn deeper<T>(depth: usize, f: Box<dyn FnOnce() -> T + '_>) -> T {
        if depth == 0 { f() } else { black_box(deeper(depth - 1, f)) }
    }

    #[test]
    fn a_backtrace_ends_at_the_entry() {
        fn check<F: FloatControl>(depth: usize, mut coroutine: Coroutine<(), String, String, F>) {
            let CoroutineResult::Yield(first) = coroutine.resume(()) else { panic!() };
            let CoroutineResult::Return(second) = coroutine.resume(()) else { panic!() };
            for backtrace in [first, second] {
                assert_ends_at_entry(&backtrace);
                let count = functions(&backtrace).iter().filter(|f| f.contains("deep")).count();
                assert!(count >= depth, "{count} frames\n{backtrace}");
            }
        }
        fn walk<F: FloatControl>(depth: usize, suspender: &Suspender<(), String, F>) -> String {
            deep(depth, || {
                suspender.suspend(Backtrace::force_capture().to_string());
                Backtrace::force_capture().to_string()
            })
        }
        for depth in [0, 1, 50] {
            check(depth, Coroutine::new(move |suspender, ()| walk(depth, suspender)));
            let stack = Stack::new(DEFAULT_STACK_BYTES).unwrap();
            let sharing = move |suspender: &Suspender<_, _, _>, ()| walk(depth, suspender);
            check(depth, Coroutine::sharing_float_control(stack, sharing));
        }
    }

    #[test]
    fn a_backtrace_outside_knows_nothing_of_coroutines() {
        let mut coroutine = Coroutine::<(), (), ()>::new(|suspender, ()| suspender.suspend(()));
        coroutine.resume(());
        let backtrace = Backtrace::force_capture().to_string();
        assert!(!backtrace.contains("isa::begin"), "{backtrace}");
        assert!(functions(&backtrace).len() > 3, "{backtrace}");
    }

    #[test]
    fn a_panic_hook_may_walk_the_stack() {
        const TEST: &str = "walks::a_panic_hook_may_walk_the_stack";
        if !child::is(TEST) {
            return child::pass(TEST, &[]);
        }
        let seen = Arc::new(Mutex::new(Vec::new()));
        let hook_seen = seen.clone();
        panic::set_hook(Box::new(move |_| {
            hook_seen.lock().unwrap().push(Backtrace::force_capture().to_string());
        }));
        let mut coroutine = Coroutine::<(), (), ()>::new(|suspender, ()| {
            assert!(catch_unwind(|| deep(10, || panic!("caught inside"))).is_err());
            suspender.suspend(());
            deep(20, || panic!("not caught inside"))
        });
        coroutine.resume(());
        let payload = catch_unwind(AssertUnwindSafe(|| coroutine.resume(()))).err().unwrap();
        // Forced unwinding calls no hook.
        let mut dropped = Coroutine::<(), (), ()>::new(|suspender, ()| suspender.suspend(()));
        dropped.resume(());
        drop(dropped);
        let _ = panic::take_hook();
        assert_eq!(*payload.downcast::<&str>().unwrap(), "not caught inside");
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 2);
        for backtrace in seen.iter() {
            assert_ends_at_entry(backtrace);
        }
    }

    /// Where the debugger stops.
    #[cfg(unix)]
    #[unsafe(no_mangle)]
    #[inline(never)]
    extern "C" fn strands_test_breakpoint(depth: usize) -> usize {
        black_box(depth)
    }

    /// Not on Windows, whose debuggers share their tables with panics.
    #[cfg(unix)]
    #[test]
    fn a_debugger_walks_to_the_entry() {
        const TEST: &str = "walks::a_debugger_walks_to_the_entry";
        if child::is(TEST) {
            let nested = |suspender: &Suspender<(), ()>, ()| {
                let mut inner = Coroutine::<(), (), ()>::new(|suspender, ()| {
                    deep(30, || strands_test_breakpoint(30));
                    suspender.suspend(());
                });
                inner.resume(());
                suspender.suspend(());
            };
            Coroutine::<(), (), ()>::new(nested).resume(());
            return;
        }
        let output = Command::new("gdb")
            .args(["-nx", "-batch", "-iex", "set debuginfod enabled off"])
            .args(["-ex", "break strands_test_breakpoint", "-ex", "run", "-ex", "bt", "--args"])
            .arg(env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
            .env("STRANDS_TEST_CHILD", TEST)
            .output();
        let Ok(output) = output else {
            return child::skip(&format!("{TEST}: {}", SKIPS[0]));
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        if errors.contains("ptrace") && !said.contains("Breakpoint 1,") {
            return child::skip(&format!("{TEST}: {}", SKIPS[1]));
        }
        let frames: Vec<_> = said.lines().filter(|line| line.starts_with('#')).collect();
        let last = frames.last().unwrap_or_else(|| panic!("{said}\n{errors}"));
        assert!(last.contains("strands_fiber::arch::isa::begin"), "{said}\n{errors}");
        assert!((32..80).contains(&frames.len()), "{said}");
        assert!(!said.contains("corrupt stack") && !errors.contains("corrupt stack"), "{errors}");
    }
}
