//! Stack overflow, in child processes: of fibers, of the main thread and of plain threads.
//!
//! Without libtest, which runs tests on threads of its own: here `main` is the main thread.

mod thread_common;

use std::process::{ExitStatus, Output};

use strands::thread::Builder;
use strands::{Runtime, spawn};
use thread_common::{child, child_case, errors};

/// Uses a page of stack each time.
#[inline(never)]
#[allow(unconditional_recursion)]
fn overflow(depth: usize) -> usize {
    let mut frame = [depth; 512];
    std::hint::black_box(&mut frame);
    overflow(depth + 1) + frame[depth % 512]
}

fn overflowing() {
    std::hint::black_box(overflow(0));
}

#[strands::main]
fn main_fiber() {
    overflowing();
}

#[strands::main(stack_size = 1024 * 1024)]
fn small_main_fiber() {
    overflowing();
}

fn run(case: &str) {
    // Workers run, and their handler is installed, in every case.
    assert_eq!(spawn(|| 1).join().unwrap(), 1);
    match case {
        "named fiber" => {
            let named = Builder::new().name("digger".into()).stack_size(128 * 1024);
            named.spawn(overflowing).unwrap().join().unwrap();
        }
        "unnamed fiber" => spawn(overflowing).join().unwrap(),
        "fiber that has waited" => spawn(|| {
            for _ in 0..10 {
                strands::yield_now();
            }
            overflowing();
        })
        .join()
        .unwrap(),
        "fiber with a guard by mprotect" => {
            let guard = strands::runtime::GuardKind::Mprotect;
            let runtime = Runtime::builder().workers(1).guard(guard).stack_size(64 * 1024);
            runtime.build().unwrap().run(overflowing);
        }
        "main fiber" => drop(main_fiber()),
        "small main fiber" => drop(small_main_fiber()),
        // What `#[strands::test]` expands to, without `#[test]`: there is no libtest here.
        "test" => strands::__rt::test(None, None, overflowing),
        "coroutine" => {
            // No fiber's: it is resumed by a plain thread of a program that has a runtime.
            let stack = strands_fiber::stack::Stack::new(32 * 1024).unwrap();
            let mut coroutine =
                strands_fiber::Coroutine::<(), (), ()>::with_stack(stack, |_, ()| {
                    overflowing();
                });
            coroutine.resume(());
        }
        "main thread" => overflowing(),
        "plain thread" => {
            let named = std::thread::Builder::new().name("plain".into());
            named.spawn(overflowing).unwrap().join().unwrap();
        }
        "pool thread" => spawn(|| strands::unblock(overflowing)).join().unwrap(),
        other => panic!("no case {other}"),
    }
    unreachable!("it did not overflow");
}

fn output(case: &str) -> Output {
    child("overflow", case).output().unwrap()
}

#[cfg(unix)]
fn was_aborted(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGABRT)
}

/// `__fastfail` ends a process with STATUS_STACK_BUFFER_OVERRUN.
#[cfg(windows)]
fn was_aborted(status: ExitStatus) -> bool {
    status.code() == Some(0xc000_0409_u32.cast_signed())
}

#[track_caller]
fn check(case: &str, expected: &[&str]) {
    let output = output(case);
    let errors = errors(&output);
    assert!(was_aborted(output.status), "{case}: {}: {errors}", output.status);
    for part in expected.iter().chain(&["stack overflow"]) {
        assert!(errors.contains(part), "{case}: {part:?} is not in {errors}");
    }
    println!("{case} ... ok");
}

fn main() {
    if let Some(case) = child_case() {
        return run(&case);
    }
    check(
        "named fiber",
        &["fiber 'digger' (id ", "overflowed its stack of 128 KiB", "stack_size("],
    );
    check("unnamed fiber", &["fiber <unnamed> (id ", "overflowed its stack of 256 KiB"]);
    check("fiber that has waited", &["fiber <unnamed>", "overflowed its stack of 256 KiB"]);
    check("fiber with a guard by mprotect", &["overflowed its stack of 64 KiB"]);
    let help = "help: give it more with #[strands::main(stack_size = BYTES)]";
    check("main fiber", &["fiber 'main' (id ", "overflowed its stack of 8192 KiB", help]);
    check("small main fiber", &["fiber 'main' (id ", "overflowed its stack of 1024 KiB", help]);
    let help = "help: give it more with #[strands::test(stack_size = BYTES)]";
    check("test", &["overflowed its stack of 2048 KiB", help]);
    let help = "help: give it more with Coroutine::with_stack(";
    check("coroutine", &["a coroutine has overflowed its stack of 32 KiB", help]);
    if cfg!(windows) {
        return; // What std says there, and how it ends the process, strands-fiber leaves alone.
    }
    // std's own words.
    check("main thread", &["thread 'main'", "has overflowed its stack"]);
    check("plain thread", &["thread 'plain'", "has overflowed its stack"]);
    check("pool thread", &["thread 'strands-blocking-0'", "has overflowed its stack"]);
}
