//! What a runtime needs when it starts, refused: descriptors, threads, system calls, CPUs.
//!
//! What must hold: `build` gives the system's error, with the likely cause and what to do about it, and
//! leaves nothing running; what there is another way for is done that way, and `describe` says so.
#![cfg(all(target_os = "linux", not(miri)))]

mod faults_support;
mod thread_common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use faults_support::{
    EMULATED, NO_LIMITS, NO_SECCOMP, NOT_ROOT, Supervisor, alone, become_nobody, calls, forbid,
    in_child, is_emulated, is_root, skip,
};
use libc::{EAGAIN, EMFILE, ENFILE, ENOMEM, ENOSYS, EPERM};
use rustix::process::{Resource, Rlimit, setrlimit};
use strands::net::{TcpListener, TcpStream, ToSocketAddrs};
use strands::runtime::Backend;
use strands::sync::mpsc;
use strands::{Runtime, thread};

/// Waits, sockets, timers and messages, from both workers if there are two.
fn works(runtime: &Runtime) {
    runtime.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, receiver) = mpsc::channel();
        for number in 0..20_u64 {
            let sender = sender.clone();
            thread::spawn(move || {
                let (start, time) = (Instant::now(), Duration::from_micros(number * 50));
                thread::sleep(time);
                assert!(start.elapsed() >= time);
                let mut stream = TcpStream::connect(addr).unwrap();
                stream.write_all(&number.to_ne_bytes()).unwrap();
                sender.send(number).unwrap();
            });
        }
        drop(sender);
        let mut sum = 0;
        for _ in 0..20 {
            let mut number = [0; 8];
            listener.accept().unwrap().0.read_exact(&mut number).unwrap();
            sum += u64::from_ne_bytes(number);
        }
        assert_eq!((sum, receiver.iter().sum::<u64>()), (190, 190));
    });
}

fn build(workers: usize) -> io::Result<Runtime> {
    Runtime::builder().workers(workers).build()
}

fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The threads and the open descriptors of this process, less the one that reads the list.
fn left_over() -> (usize, usize) {
    (names("/proc/self/task").len(), names("/proc/self/fd").len() - 1)
}

/// For each n until `build` succeeds: the nth of these calls fails. `before` is what the process
/// had before.
#[track_caller]
fn build_while_each_fails(
    supervisor: &Supervisor,
    errno: i32,
    before: (usize, usize),
    check: impl Fn(io::Error),
) {
    for n in 1.. {
        supervisor.fail(n..=n, errno);
        let built = build(3);
        supervisor.stop();
        match built {
            Err(error) => check(error),
            Ok(runtime) => {
                assert!(supervisor.failed() == 0 && n > 3, "call {n} failed unnoticed");
                works(&runtime);
                return;
            }
        }
        // A joined thread has left the process but for its last instructions.
        while left_over() != before {
            std::thread::yield_now();
        }
    }
}

#[test]
fn without_descriptors_for_its_workers_a_runtime_does_not_start() {
    const TEST: &str = "without_descriptors_for_its_workers_a_runtime_does_not_start";
    alone(TEST, || {
        let rules = [calls(libc::SYS_epoll_create1), calls(libc::SYS_eventfd2)];
        let Ok(supervisor) = Supervisor::of(&rules) else { return skip(TEST, NO_SECCOMP) };
        let mut before = left_over();
        let watched = (before.0 + 1, before.1); // The watch's thread stays.
        for (errno, cause) in [(EMFILE, "ulimit -n"), (ENFILE, "fs.file-max"), (ENOMEM, "memory")] {
            build_while_each_fails(supervisor, errno, before, |error| {
                assert_eq!(error.kind(), io::Error::from_raw_os_error(errno).kind(), "{error}");
                assert!(error.to_string().contains(cause), "{error}");
            });
            before = watched;
        }
    });
}

#[test]
fn without_threads_a_runtime_does_not_start() {
    const TEST: &str = "without_threads_a_runtime_does_not_start";
    alone(TEST, || {
        let rules = [calls(libc::SYS_clone3), calls(libc::SYS_clone)];
        let Ok(supervisor) = Supervisor::of(&rules) else { return skip(TEST, NO_SECCOMP) };
        let mut before = left_over();
        let watched = (before.0 + 1, before.1);
        for errno in [EAGAIN, ENOMEM] {
            build_while_each_fails(supervisor, errno, before, |error| {
                // What std says for any of them.
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                let text = error.to_string();
                assert!(text.contains("strands-") && text.contains("ulimit -u"), "{text}");
            });
            before = watched;
        }
    });
}

#[test]
fn without_pool_threads_blocking_work_is_done_where_it_can_be() {
    const TEST: &str = "without_pool_threads_blocking_work_is_done_where_it_can_be";
    alone(TEST, || {
        let rules = [calls(libc::SYS_clone3), calls(libc::SYS_clone)];
        let Ok(supervisor) = Supervisor::of(&rules) else { return skip(TEST, NO_SECCOMP) };
        let runtime = build(2).unwrap();
        let done = AtomicUsize::new(0);
        let unblock_some = || {
            runtime.run(|| {
                thread::scope(|scope| {
                    for _ in 0..20 {
                        scope.spawn(|| strands::unblock(|| done.fetch_add(1, SeqCst)));
                    }
                });
                assert!(("localhost", 1).to_socket_addrs().unwrap().count() > 0);
            });
        };
        // No thread at all: on the workers.
        supervisor.fail(1.., EAGAIN);
        unblock_some();
        let text = runtime.describe();
        assert!(text.contains("cannot start the thread strands-blocking-0"), "{text}");
        // One thread, and no second.
        supervisor.fail(2.., EAGAIN);
        unblock_some();
        // Threads again, and no complaint once one was started.
        supervisor.stop();
        while runtime.describe().contains("cannot start") {
            unblock_some();
        }
        assert_eq!(done.load(SeqCst) % 20, 0);
        assert!(done.load(SeqCst) >= 60);
    });
}

#[test]
fn a_limit_on_threads_is_an_error_that_names_it() {
    const TEST: &str = "a_limit_on_threads_is_an_error_that_names_it";
    alone(TEST, || {
        if is_emulated() {
            return skip(TEST, EMULATED);
        }
        if !is_root() {
            return skip(TEST, NOT_ROOT);
        }
        let allowed = |threads| Rlimit { current: Some(threads), maximum: Some(10_000) };
        become_nobody();
        if setrlimit(Resource::Nproc, allowed(0)).is_err()
            || std::thread::Builder::new().spawn(|| {}).is_ok()
        {
            return skip(TEST, NO_LIMITS);
        }
        for workers in [1, 2] {
            let error = build(workers).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            assert!(error.to_string().contains("ulimit -u"), "{error}");
        }
        let error = thread::Builder::new().spawn(|| {}).map(drop).unwrap_err();
        assert!(error.to_string().contains("ulimit -u"), "{error}");
        setrlimit(Resource::Nproc, allowed(10_000)).unwrap();
        // The default runtime, too, is started by whoever comes next.
        assert_eq!(thread::spawn(|| 5).join().unwrap(), 5);
        let runtime = build(2).unwrap();
        setrlimit(Resource::Nproc, allowed(0)).unwrap();
        works(&runtime);
        assert_eq!(runtime.run(|| strands::unblock(|| 6)), 6);
        let text = runtime.describe();
        assert!(text.contains("ulimit -u"), "{text}");
    });
}

#[test]
fn system_calls_that_a_filter_forbids_are_done_without() {
    const TEST: &str = "system_calls_that_a_filter_forbids_are_done_without";
    let cases = ["epoll_pwait2", "io_uring", "wipe on fork", "all"];
    in_child(TEST, &cases, |case| {
        for errno in [ENOSYS, EPERM] {
            let timed = [calls(libc::SYS_epoll_pwait2).answer(errno)];
            let ring = [
                calls(libc::SYS_io_uring_setup).answer(errno),
                calls(libc::SYS_io_uring_enter).answer(errno),
                calls(libc::SYS_io_uring_register).answer(errno),
            ];
            let advice = [
                calls(libc::SYS_madvise).with(2, libc::MADV_WIPEONFORK).answer(errno),
                calls(libc::SYS_madvise).with(2, 102).answer(errno),
            ];
            let rules: Vec<_> = match case {
                "epoll_pwait2" => timed.to_vec(),
                "io_uring" => ring.to_vec(),
                "wipe on fork" => advice.to_vec(),
                _ => timed.into_iter().chain(ring).chain(advice).collect(),
            };
            if forbid(&rules).is_err() {
                return skip(TEST, NO_SECCOMP);
            }
            let runtime = Runtime::builder().workers(2).backend(Backend::Epoll).build().unwrap();
            works(&runtime);
            let text = runtime.describe();
            let rounded = ["epoll_pwait2", "all"].contains(&case) || text.contains("mio");
            assert_eq!(text.contains("milliseconds"), rounded, "{text}");
            let no_guards = ["wipe on fork", "all"].contains(&case);
            assert!(!no_guards || text.contains("Mprotect"), "{text}");
        }
    });
}

#[test]
fn without_its_handler_of_overflows_a_runtime_does_not_start() {
    const TEST: &str = "without_its_handler_of_overflows_a_runtime_does_not_start";
    let cases = ["rt_sigaction", "sigaltstack"];
    // AddressSanitizer ends a process that may not have the second.
    let cases = if cfg!(strands_sanitizer = "address") { &cases[..1] } else { &cases };
    in_child(TEST, cases, |case| {
        let (call, what) = match case {
            "rt_sigaction" => (libc::SYS_rt_sigaction, "the handler that reports stack overflows"),
            _ => (
                libc::SYS_sigaltstack,
                "the signal stack on which a thread reports stack overflows",
            ),
        };
        if forbid(&[calls(call).answer(EPERM)]).is_err() {
            return skip(TEST, NO_SECCOMP);
        }
        let error = build(1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        let text = error.to_string();
        assert!(text.contains(what) && text.contains(&format!("allow `{case}`")), "{text}");
    });
}

/// A container with one CPU.
#[test]
fn one_cpu_gets_one_worker_and_many_workers_share_one() {
    alone("one_cpu_gets_one_worker_and_many_workers_share_one", || {
        let cpus = rustix::thread::sched_getaffinity(None).unwrap();
        let first = (0..).find(|&cpu| cpus.is_set(cpu)).unwrap();
        let mut one = rustix::thread::CpuSet::new();
        one.set(first);
        rustix::thread::sched_setaffinity(None, &one).unwrap();
        let default = Runtime::new().unwrap();
        assert_eq!(default.workers(), 1);
        works(&default);
        let many = build(8).unwrap();
        works(&many);
        // Nor does a fiber that waits for another worker's without sleeping hold it up for ever.
        many.run(|| {
            let turns = AtomicUsize::new(0);
            thread::scope(|scope| {
                for number in 0..8 {
                    let turns = &turns;
                    scope.spawn(move || {
                        while turns.load(SeqCst) != number {
                            strands::yield_now();
                        }
                        turns.fetch_add(1, SeqCst);
                    });
                }
            });
            assert_eq!(turns.load(SeqCst), 8);
        });
    });
}
