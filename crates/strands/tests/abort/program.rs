//! What a program that is built with `panic = "abort"` may rely on. `cargo xtask ci panic-abort`
//! builds and runs it; without arguments it runs each of its cases in a child process.
//!
//! ```text
//! CARGO_PROFILE_DEV_PANIC=abort cargo run -p strands --example abort_program
//! ```

use std::io::{Read, Write};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use strands::cancel::{
    CancelToken, check_cancelled, is_cancel_error, is_cancelled, uncancellable, was_cancelled,
};
use strands::net::{TcpListener, TcpStream};
use strands::sync::{Mutex, mpsc};
use strands::thread::{self, Builder, Placement, sleep};
use strands::time::timeout;
use strands::{FiberGroup, Runtime, scope, spawn, try_map, try_scope, unblock};

const FOR_EVER: Duration = Duration::from_secs(1_000_000);

struct Noisy(&'static str);

impl Drop for Noisy {
    fn drop(&mut self) {
        println!("dropped: {}", self.0);
    }
}

fn runtime(workers: usize) -> Runtime {
    Runtime::builder().workers(workers).build().unwrap()
}

fn all_works() {
    let work = || {
        let (sender, receiver) = mpsc::channel();
        let total = Mutex::new(0);
        scope(|scope| {
            for i in 0..100 {
                let (its, total) = (sender.clone(), &total);
                scope.spawn(move || {
                    sleep(Duration::from_micros(i));
                    *total.lock().unwrap() += 1;
                    its.send(unblock(|| i)).unwrap();
                });
            }
            drop(sender);
            assert_eq!(receiver.iter().sum::<u64>(), 4950);
        });
        assert_eq!(total.into_inner().unwrap(), 100);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let client = spawn(move || {
            let mut text = String::new();
            TcpStream::connect(addr).unwrap().read_to_string(&mut text).unwrap();
            text
        });
        listener.accept().unwrap().0.write_all(b"hello").unwrap();
        assert_eq!(client.join().unwrap(), "hello");
        assert!(Command::new("true").status().unwrap().success());
    };
    work();
    for workers in [1, 2] {
        let runtime = runtime(workers);
        runtime.run(work);
        runtime.shutdown_timeout(Duration::MAX).unwrap();
    }
}

/// What waits cannot be unwound: it stays, and nobody waits for it.
fn shutdown_leaks() {
    for workers in [1, 2] {
        let runtime = runtime(workers);
        let (starts, started) = std::sync::mpsc::channel();
        let its = starts.clone();
        runtime.spawn(move || {
            let _noisy = Noisy("never: parked");
            its.send(()).unwrap();
            loop {
                thread::park();
            }
        });
        let its = starts.clone();
        runtime.spawn(move || {
            let _noisy = Noisy("never: a scope and its child");
            scope(|scope| {
                scope.spawn(|| {
                    its.send(()).unwrap();
                    sleep(FOR_EVER);
                });
            });
        });
        let its = starts.clone();
        runtime.spawn(move || {
            let _noisy = Noisy("never: in I/O, which a shutdown does not end either");
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            its.send(()).unwrap();
            let _ = listener.accept();
        });
        let its = starts.clone();
        runtime.spawn(move || {
            let _noisy = Noisy("never: after the pool's work");
            unblock(|| its.send(()).unwrap());
            sleep(FOR_EVER);
        });
        for _ in 0..4 {
            started.recv().unwrap();
        }
        // One that runs goes on to its next wait.
        let waits = Arc::new(AtomicBool::new(false));
        let its_waits = waits.clone();
        runtime.spawn(move || {
            starts.send(()).unwrap();
            // Without waiting, until the runtime stops.
            while Builder::new().placement(Placement::Here).spawn(|| ()).is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
            its_waits.store(true, SeqCst);
            sleep(FOR_EVER);
        });
        started.recv().unwrap();
        let noisy = Noisy("a closure");
        runtime.spawn(move || drop(noisy));
        let unfinished = runtime.shutdown_timeout(Duration::MAX).unwrap_err();
        assert!(waits.load(SeqCst), "what runs is waited for");
        assert_eq!(unfinished.fibers().len(), 6, "{unfinished}");
        assert!(unfinished.fibers().iter().all(|fiber| fiber.waits_for().is_some()));
    }
    let dropped = runtime(2);
    dropped.spawn(thread::park);
    dropped.run(|| ());
    drop(dropped);
    all_works();
}

/// I/O fails; nothing else changes.
fn cancels_are_errors() {
    let work = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let soon = Duration::from_millis(2);
        let error = timeout(soon, || listener.accept().unwrap_err()).unwrap();
        assert!(is_cancel_error(&error), "{error}");
        let select = || {
            strands::select! {
                ready = readable(listener) => ready,
                _ = after(FOR_EVER) => unreachable!(),
            }
        };
        let error = timeout(soon, || select().unwrap_err()).unwrap();
        assert!(is_cancel_error(&error), "{error}");
        assert_eq!(timeout(soon, || sleep(soon + soon)), Ok(()));
        let select = || strands::select! { _ = after(soon + soon) => "it waits on" };
        assert_eq!(timeout(soon, select), Ok("it waits on"));
        let (sender, receiver) = mpsc::channel();
        let late = spawn(move || {
            sleep(soon + soon);
            sender.send(1).unwrap();
        });
        assert_eq!(timeout(soon, || receiver.recv()), Ok(Ok(1)));
        late.cancel_and_join().unwrap();

        let token = CancelToken::new();
        let error = token.run(|| {
            token.cancel_with("the reason");
            check_cancelled();
            assert!(is_cancelled());
            listener.accept().unwrap_err()
        });
        assert_eq!(error.unwrap().to_string(), "cancelled by a token: the reason");

        let server = spawn(move || {
            let _noisy = Noisy("the server");
            let error = listener.accept().unwrap_err();
            sleep(soon);
            uncancellable(thread::yield_now);
            is_cancel_error(&error)
        });
        thread::yield_now();
        sleep(soon);
        server.cancel();
        // If it had not started, its closure is dropped.
        assert!(server.join().unwrap_or(true));
    };
    work();
    runtime(2).run(work);
}

/// What has failed is told, and waited for.
fn failures_are_returned() {
    let work = || {
        let (started, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        let result = try_scope(|scope| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            scope.spawn(|| {
                started.store(true, SeqCst);
                sleep(Duration::from_millis(2));
                ended.store(true, SeqCst);
                Ok(())
            });
            while !started.load(SeqCst) {
                thread::yield_now();
            }
            let failed = scope.spawn(|| Err::<(), _>("the reason"));
            assert!(is_cancel_error(&listener.accept().unwrap_err()));
            assert!(was_cancelled(&failed.join()), "it has no value");
            Ok(())
        });
        assert_eq!((result, ended.load(SeqCst)), (Err("the reason"), true));
        assert_eq!(try_map(2, 0.., |n| if n == 9 { Err(n) } else { Ok(()) }), Err(9));

        let group = FiberGroup::new().limit(2);
        for _ in 0..3 {
            group.spawn(|| sleep(Duration::from_millis(2)));
        }
        group.join_next().unwrap().unwrap();
        drop(group); // Those that run come to their end.
    };
    work();
    runtime(1).run(work);
    runtime(2).run(work);
}

fn a_panic_aborts() {
    let named = Builder::new().name("unlucky".into());
    let _ = named.spawn(|| panic!("the reason")).unwrap().join();
    println!("never: joined");
}

fn main_returns() {
    spawn(|| {
        let _noisy = Noisy("never: parked");
        thread::park();
    });
    runtime(1).run(|| spawn(thread::park));
}

fn main() -> ExitCode {
    if cfg!(panic = "unwind") {
        eprintln!("error: build it with CARGO_PROFILE_DEV_PANIC=abort");
        return ExitCode::FAILURE;
    }
    if let Some(case) = std::env::args().nth(1) {
        match &*case {
            "all works" => all_works(),
            "shutdown leaks" => shutdown_leaks(),
            "cancels are errors" => cancels_are_errors(),
            "failures are returned" => failures_are_returned(),
            "a panic aborts" => a_panic_aborts(),
            "main returns" => main_returns(),
            other => panic!("no case {other}"),
        }
        return ExitCode::SUCCESS;
    }
    let cases = [
        "all works",
        "shutdown leaks",
        "cancels are errors",
        "failures are returned",
        "a panic aborts",
        "main returns",
    ];
    for case in cases {
        let program = std::env::current_exe().unwrap();
        let output = Command::new(program).arg(case).output().unwrap();
        let [out, errors] =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        let told = format!("{case}: {}\n{out}{errors}", output.status);
        if case == "a panic aborts" {
            #[cfg(unix)]
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&output.status),
                Some(6),
                "{told}"
            );
            assert!(!output.status.success(), "{told}");
            assert_eq!(errors.matches("panicked at").count(), 1, "{told}");
            assert!(errors.contains("the reason"), "{told}");
        } else {
            assert!(output.status.success(), "{told}");
        }
        assert!(!out.contains("never"), "{told}");
        if case == "shutdown leaks" {
            assert_eq!(out.matches("dropped: a closure").count(), 2, "{told}");
        }
        println!("{case} ... ok");
    }
    ExitCode::SUCCESS
}
