//! The end of the process while fibers run, and panics at the edges of a runtime: what comes out is
//! what comes out with threads, and nothing hangs.
//!
//! Without libtest, so that `main` is the program's own.

mod thread_common;

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::process::{ExitCode, Output};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use strands::sync::{Mutex, mpsc};
use strands::thread::{self, Builder, Placement, sleep};
use strands::{Runtime, spawn, unblock};
use thread_common::{child, child_case, errors, runtime, text};

const FOR_EVER: Duration = Duration::from_secs(1_000_000);

/// Fibers in every state, of the caller's runtime; returns when all are in it.
fn fibers_in_every_state() {
    let (begins, begun) = std::sync::mpsc::channel();
    let mut states: Vec<Box<dyn FnOnce() + Send>> = vec![
        Box::new(thread::park),
        Box::new(|| sleep(FOR_EVER)),
        Box::new(|| {
            let (_sender, receiver) = mpsc::channel::<()>();
            let _ = receiver.recv();
        }),
        Box::new(|| unblock(|| std::thread::sleep(FOR_EVER))),
        Box::new(|| {
            loop {
                thread::yield_now();
            }
        }),
    ];
    if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) {
        states.push(Box::new(|| {
            loop {
                std::hint::spin_loop(); // Its worker runs nothing else any more.
            }
        }));
    }
    let last = states.len() - 1;
    for (i, state) in states.into_iter().enumerate() {
        let its = begins.clone();
        spawn(move || {
            its.send(()).unwrap();
            state();
        });
        // So that no other starts behind the one that never waits.
        if i < last {
            begun.recv().unwrap();
        }
    }
}

/// Says `dropped` if it is.
struct Noisy(&'static str);

impl Drop for Noisy {
    fn drop(&mut self) {
        eprintln!("dropped: {}", self.0);
    }
}

/// Panics when it is dropped.
struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("bomb: {}", self.0);
    }
}

#[strands::main]
fn returns() {
    fibers_in_every_state();
}

#[strands::main]
fn returns_a_code() -> ExitCode {
    fibers_in_every_state();
    ExitCode::from(7)
}

#[strands::main]
fn returns_an_error() -> Result<(), String> {
    fibers_in_every_state();
    Err("a reason".into())
}

#[strands::main]
fn panics() {
    let _noisy = Noisy("of main");
    fibers_in_every_state();
    panic!("at the end");
}

#[strands::main]
fn exits() {
    let _noisy = Noisy("never");
    fibers_in_every_state();
    std::process::exit(5);
}

fn main_thread_returns() -> ExitCode {
    fibers_in_every_state();
    ExitCode::from(3)
}

fn a_fiber_exits_while_main_waits() -> ExitCode {
    fibers_in_every_state();
    let runtime = runtime(1);
    runtime.run(|| {
        spawn(|| std::process::exit(6));
        thread::park();
        loop {
            sleep(FOR_EVER);
        }
    })
}

fn a_pool_thread_exits() -> ExitCode {
    runtime(1).run(|| unblock(|| std::process::exit(8)))
}

fn many_fibers_exit_at_once() -> ExitCode {
    for _ in 0..20 {
        spawn(|| std::process::exit(9));
    }
    loop {
        std::thread::park();
    }
}

fn run_panics() -> ExitCode {
    runtime(1).run(|| panic!("in run"))
}

fn hooks_panic() -> ExitCode {
    for _ in 0..10 {
        let hooked = || {
            Runtime::builder()
                .workers(2)
                .on_start(|| panic!("on_start"))
                .on_stop(|| panic::panic_any(Bomb("of on_stop")))
                .build()
                .unwrap()
        };
        assert_eq!(hooked().run(|| unblock(|| spawn(|| 1).join().unwrap())), 1);
        hooked().shutdown_timeout(Duration::MAX).unwrap();
    }
    ExitCode::SUCCESS
}

/// Runs `f` in a fiber whose handle is dropped before.
fn detach(runtime: &Runtime, f: fn() -> Bomb) {
    let (starts, started) = std::sync::mpsc::channel();
    let (go, goes) = mpsc::channel();
    drop(runtime.spawn(move || {
        starts.send(()).unwrap();
        goes.recv().unwrap();
        f()
    }));
    started.recv().unwrap();
    go.send(()).unwrap();
}

fn closures_panic() -> ExitCode {
    let runtime = runtime(2);
    let caught = |f: &(dyn Fn() + Sync)| {
        let payload = panic::catch_unwind(AssertUnwindSafe(f)).unwrap_err();
        text(&*payload).to_owned()
    };
    assert_eq!(caught(&|| runtime.run(|| panic!("in run"))), "in run");
    assert_eq!(caught(&|| runtime.run(|| unblock(|| panic!("in the pool")))), "in the pool");
    let joined = runtime.spawn(|| unblock(|| panic!("in the pool"))).join();
    assert_eq!(text(&*joined.unwrap_err()), "in the pool");
    // Nobody joins them: a panic of what they leave behind ends where they end.
    detach(&runtime, || panic::panic_any(Bomb("of a payload")));
    detach(&runtime, || Bomb("of a value"));
    while runtime.live_fibers().iter().sum::<usize>() > 0 {
        std::thread::yield_now();
    }
    assert_eq!(runtime.run(|| unblock(|| 5)), 5);
    ExitCode::SUCCESS
}

/// What ends with the runtime without having been looked at.
fn drops_panic_at_shutdown() -> ExitCode {
    let runtime = runtime(1);
    let (sender, receiver) = mpsc::channel();
    sender.send(Bomb("of a message in a closure")).unwrap();
    let (blocks, blocking) = std::sync::mpsc::channel();
    runtime.spawn(move || {
        blocks.send(()).unwrap();
        // Blocks the worker, so that nobody else starts, until the runtime stops.
        while Builder::new().placement(Placement::Here).spawn(|| ()).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    blocking.recv().unwrap();
    let bomb = Bomb("of a closure");
    let unstarted = [runtime.spawn(move || drop(bomb)), runtime.spawn(move || drop(receiver))];
    runtime.shutdown_timeout(Duration::MAX).unwrap();
    for fiber in unstarted {
        let payload = fiber.join().unwrap_err();
        assert!(text(&*payload).starts_with("bomb: "), "it was dropped, and that panicked");
    }
    ExitCode::SUCCESS
}

/// A panic of a destructor amid the unwinding of a cancel: Rust aborts, as amid a panic's.
fn a_drop_panics_amid_a_cancel() -> ExitCode {
    let runtime = runtime(1);
    let (sender, receiver) = mpsc::channel();
    sender.send(Bomb("of a message")).unwrap();
    let (waits, waiting) = std::sync::mpsc::channel();
    runtime.spawn(move || {
        waits.send(()).unwrap();
        thread::park();
        drop(receiver);
    });
    waiting.recv().unwrap();
    drop(runtime);
    ExitCode::SUCCESS
}

fn a_drop_panics_amid_a_panic_on_a_thread() -> ExitCode {
    let (sender, receiver) = std::sync::mpsc::channel();
    sender.send(Bomb("of a message")).unwrap();
    let thread = std::thread::spawn(move || {
        let _receiver = receiver;
        panic::resume_unwind(Box::new(()));
    });
    let _ = thread.join();
    ExitCode::SUCCESS
}

thread_local! {
    static AT_END: RefCell<Option<Box<dyn std::any::Any>>> = const { RefCell::new(None) };
}

fn keep_until_the_thread_ends(value: impl std::any::Any) {
    AT_END.with_borrow_mut(|place| *place = Some(Box::new(value)));
}

fn a_worker_s_thread_local_panics() -> ExitCode {
    let runtime = runtime(1);
    runtime.run(|| keep_until_the_thread_ends(Bomb("of a thread-local")));
    drop(runtime);
    ExitCode::SUCCESS
}

fn a_thread_s_thread_local_panics() -> ExitCode {
    let keeps = || keep_until_the_thread_ends(Bomb("of a thread-local"));
    std::thread::spawn(keeps).join().unwrap();
    ExitCode::SUCCESS
}

/// Uses the crate when its thread, a worker's or the pool's, is at its end.
struct UsesAll;

static USED: AtomicUsize = AtomicUsize::new(0);

impl Drop for UsesAll {
    fn drop(&mut self) {
        static LOCK: Mutex<usize> = Mutex::new(0);
        *LOCK.lock().unwrap() += 1;
        let (sender, receiver) = mpsc::channel();
        let child = spawn(move || {
            sleep(Duration::from_millis(1));
            sender.send(1).unwrap();
        });
        USED.fetch_add(receiver.recv().unwrap(), SeqCst);
        child.join().unwrap();
        sleep(Duration::from_micros(1));
        thread::yield_now();
        assert_eq!(runtime(1).run(|| unblock(|| 2)), 2);
        USED.fetch_add(1, SeqCst);
    }
}

fn a_thread_local_waits_at_the_end() -> ExitCode {
    let runtime = runtime(1);
    runtime.run(|| keep_until_the_thread_ends(UsesAll));
    runtime.run(|| unblock(|| keep_until_the_thread_ends(UsesAll)));
    drop(runtime);
    // The pool's threads are not joined: their last act is to count themselves out.
    while USED.load(SeqCst) < 4 {
        std::thread::yield_now();
    }
    ExitCode::SUCCESS
}

type Case = (&'static str, fn() -> ExitCode);

const CASES: &[Case] = &[
    ("main returns", returns),
    ("main returns a code", returns_a_code),
    ("main returns an error", returns_an_error),
    ("main panics", panics),
    ("main exits", exits),
    ("the main thread returns", main_thread_returns),
    ("a fiber exits while main waits", a_fiber_exits_while_main_waits),
    ("a pool thread exits", a_pool_thread_exits),
    ("many fibers exit at once", many_fibers_exit_at_once),
    ("run panics", run_panics),
    ("hooks panic", hooks_panic),
    ("closures panic", closures_panic),
    ("drops panic at shutdown", drops_panic_at_shutdown),
    ("a drop panics amid a cancel", a_drop_panics_amid_a_cancel),
    ("a drop panics amid a panic on a thread", a_drop_panics_amid_a_panic_on_a_thread),
    ("a worker's thread-local panics", a_worker_s_thread_local_panics),
    ("a thread's thread-local panics", a_thread_s_thread_local_panics),
    ("a thread-local waits at the end", a_thread_local_waits_at_the_end),
];

fn output(case: &str) -> Output {
    // Two workers, so that fibers run beside one that never waits.
    child("exit", case).env("STRANDS_WORKERS", "2").output().unwrap()
}

#[track_caller]
fn ends(case: &str, code: i32, says: &[&str]) {
    let output = output(case);
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(code), "{case}: {}\n{errors}", output.status);
    for part in says {
        assert_eq!(errors.matches(part).count(), 1, "{case}: {part:?} in {errors}");
    }
    assert!(!errors.contains("never"), "{case}: {errors}");
    println!("{case} ... ok");
}

/// Both end alike: by the same signal, with the same last words.
#[track_caller]
fn alike(case: &str, with_threads: &str) {
    let [here, there] = [output(case), output(with_threads)];
    #[cfg(unix)]
    {
        let signal = std::os::unix::process::ExitStatusExt::signal(&there.status);
        assert_eq!(signal, Some(libc::SIGABRT), "{with_threads}");
    }
    assert_eq!(here.status, there.status, "{case}: {}", errors(&here));
    let last = |output: &Output| errors(output).trim_end().lines().last().map(String::from);
    assert_eq!(last(&here), last(&there), "{case}");
    println!("{case} ... ok, as with threads");
}

fn main() -> ExitCode {
    if let Some(case) = child_case() {
        let (_, run) = CASES.iter().find(|(name, _)| *name == case).expect("a case");
        return run();
    }
    ends("main returns", 0, &[]);
    ends("main returns a code", 7, &[]);
    ends("main returns an error", 1, &["Error: \"a reason\""]);
    ends("main panics", 101, &["at the end", "dropped: of main"]);
    ends("main exits", 5, &[]);
    ends("the main thread returns", 3, &[]);
    ends("a fiber exits while main waits", 6, &[]);
    ends("a pool thread exits", 8, &[]);
    ends("many fibers exit at once", 9, &[]);
    ends("run panics", 101, &["in run"]);
    ends("hooks panic", 0, &[]);
    ends("closures panic", 0, &["bomb: of a payload", "bomb: of a value"]);
    ends("drops panic at shutdown", 0, &[]);
    alike("a drop panics amid a cancel", "a drop panics amid a panic on a thread");
    alike("a worker's thread-local panics", "a thread's thread-local panics");
    ends("a thread-local waits at the end", 0, &[]);
    ExitCode::SUCCESS
}
