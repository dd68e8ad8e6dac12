//! Signals: that stop the process, that rain on all its threads, that would end it.
#![cfg(all(target_os = "linux", not(miri)))]

mod faults_support;
mod thread_common;

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, IoSlice, Read, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use faults_support::{EMULATED, NO_SECCOMP, Supervisor, alone, calls, is_emulated, skip};
use strands::net::{TcpListener, TcpStream};
use strands::runtime::Backend;
use strands::sync::{Condvar, Mutex, mpsc};
use strands::{Runtime, thread};
use thread_common::{child, child_case, stress};

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (stream, listener.accept().unwrap().0)
}

fn set_handler(signal: i32, handler: libc::sighandler_t) {
    // SAFETY: all zero is an action without flags (so without SA_RESTART), and the handler does
    // what a handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

static CAUGHT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_signal: i32) {
    CAUGHT.fetch_add(1, SeqCst);
}

/// Sums that go over sockets, channels, locks, timers and the pool, by fibers and plain threads.
fn sums(rounds: u64) {
    let expected = rounds * (rounds - 1) / 2;
    thread::scope(|scope| {
        for _ in 0..2 {
            let (mut stream, mut peer) = pair();
            scope.spawn(move || {
                for number in 0..rounds {
                    stream.write_all(&number.to_ne_bytes()).unwrap();
                    stream.read_exact(&mut [0; 8]).unwrap();
                }
            });
            scope.spawn(move || {
                let mut sum = 0;
                for _ in 0..rounds {
                    // By hand, as `read_exact` goes on after `Interrupted`, which nobody shall see.
                    let (mut number, mut bytes) = ([0; 8], 0);
                    while bytes < number.len() {
                        bytes += peer.read(&mut number[bytes..]).unwrap();
                    }
                    assert_eq!(peer.write(&number).unwrap(), number.len());
                    sum += u64::from_ne_bytes(number);
                }
                assert_eq!(sum, expected);
            });
        }
        let (sender, receiver) = mpsc::channel();
        scope.spawn(move || {
            for number in 0..rounds {
                let (start, time) = (Instant::now(), Duration::from_micros(20));
                thread::sleep(time);
                assert!(start.elapsed() >= time);
                sender.send(number).unwrap();
            }
        });
        scope.spawn(move || assert_eq!(receiver.iter().sum::<u64>(), expected));
        let (total, changed) = (Mutex::new(0), Condvar::new());
        thread::scope(|scope| {
            for number in 0..rounds {
                let (total, changed) = (&total, &changed);
                scope.spawn(move || {
                    let number = strands::unblock(|| {
                        fs::read("/proc/self/stat").unwrap();
                        number
                    });
                    *total.lock().unwrap() += number;
                    changed.notify_all();
                });
            }
            let long = Duration::from_secs(3600);
            let total = total.lock().unwrap();
            let waited = changed.wait_timeout_while(total, long, |total| *total < expected);
            assert_eq!(*waited.unwrap().0, expected);
        });
    });
}

#[test]
fn a_rain_of_signals_interrupts_every_call_and_changes_nothing() {
    const TEST: &str = "a_rain_of_signals_interrupts_every_call_and_changes_nothing";
    alone(TEST, || {
        if is_emulated() {
            return skip(TEST, EMULATED);
        }
        set_handler(libc::SIGUSR1, count as *const () as usize);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: plain calls. A thread that has gone is not there to be hit.
                let me = unsafe { libc::gettid() };
                while !done.load(SeqCst) {
                    for entry in fs::read_dir("/proc/self/task").unwrap().flatten() {
                        let id: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
                        if id != me {
                            // SAFETY: as above.
                            unsafe {
                                libc::syscall(libc::SYS_tgkill, libc::getpid(), id, libc::SIGUSR1)
                            };
                        }
                    }
                }
            });
            let runtime = Runtime::builder().workers(3).build().unwrap();
            // Signals that come while one is pending are one.
            while CAUGHT.load(SeqCst) < 5_000 {
                runtime.run(|| sums(40));
                sums(40);
            }
            runtime.shutdown_timeout(Duration::MAX).unwrap();
            done.store(true, SeqCst);
        });
    });
}

fn stop_and_go(child: &std::process::Child, time: Duration) {
    let id = child.id() as i32;
    let mut status = 0;
    // SAFETY: plain calls on our own child and a value of ours.
    unsafe {
        assert_eq!(libc::kill(id, libc::SIGSTOP), 0);
        assert_eq!(libc::waitpid(id, &mut status, libc::WUNTRACED), id);
        assert!(libc::WIFSTOPPED(status));
    }
    // Not to wait for a result: so long the child is to be stopped.
    std::thread::sleep(time);
    // SAFETY: as above.
    unsafe { assert_eq!(libc::kill(id, libc::SIGCONT), 0) };
}

/// What goes on in the process that is stopped and continued, until `end`.
fn busy_process(end: &AtomicBool) {
    let runtime = Runtime::builder().workers(2).build().unwrap();
    let before_end = || !end.load(SeqCst);
    runtime.run(|| {
        thread::scope(|scope| {
            // Timers of all lengths, most of which pass while the process is stopped.
            scope.spawn(|| {
                while before_end() {
                    timers_fire_once();
                }
            });
            // Bytes there and back, with pauses in which the workers sleep.
            let (mut stream, mut peer) = pair();
            scope.spawn(move || {
                let mut sent = 0_u64;
                while before_end() {
                    stream.write_all(&sent.to_ne_bytes()).unwrap();
                    stream.read_exact(&mut [0; 8]).unwrap();
                    sent += 1;
                    thread::sleep(Duration::from_millis(sent % 5));
                }
            });
            scope.spawn(move || {
                let (mut expected, mut bytes) = (0, [0; 8]);
                while peer.read_exact(&mut bytes).is_ok() {
                    assert_eq!(u64::from_ne_bytes(bytes), expected);
                    expected += 1;
                    peer.write_all(&bytes).unwrap();
                }
                assert!(expected > 0);
            });
            // A plain thread, and a fiber that sleeps until it sends.
            let (sender, receiver) = mpsc::channel();
            let counting = std::thread::spawn(move || receiver.iter().count());
            let mut sent = 0;
            while before_end() {
                sender.send(()).unwrap();
                sent += 1;
                thread::sleep(Duration::from_millis(3));
            }
            drop(sender);
            assert_eq!(strands::unblock(|| counting.join().unwrap()), sent);
        });
    });
    runtime.shutdown_timeout(Duration::MAX).unwrap();
}

fn timers_fire_once() {
    let fired = Mutex::new(Vec::new());
    let start = Instant::now();
    thread::scope(|scope| {
        for number in 0..100 {
            let fired = &fired;
            let here = thread::Builder::new().placement(thread::Placement::Here);
            let timer = move || {
                let deadline = start + Duration::from_millis(number);
                thread::sleep(deadline.saturating_duration_since(Instant::now()));
                assert!(Instant::now() >= deadline);
                fired.lock().unwrap().push(number);
            };
            drop(here.spawn_scoped(scope, timer).unwrap());
        }
    });
    // In which order is not told here: a stop between looking at the clock and sleeping puts a
    // deadline off.
    let mut fired = fired.into_inner().unwrap();
    fired.sort_unstable();
    assert!(fired.into_iter().eq(0..100));
}

#[test]
fn a_process_that_is_stopped_and_continued_goes_on() {
    const TEST: &str = "a_process_that_is_stopped_and_continued_goes_on";
    if child_case().is_some() {
        let end = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| busy_process(&end));
            println!("\nbusy");
            // Until the parent closes its end.
            io::stdin().read_to_end(&mut Vec::new()).unwrap();
            end.store(true, SeqCst);
        });
        return;
    }
    let mut busy =
        child(TEST, "busy").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(busy.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "busy"));
    for time in [50, 300, 1_000 * stress() as u64] {
        stop_and_go(&busy, Duration::from_millis(time));
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(busy.stdin.take());
    assert!(lines.any(|line| line.contains("1 passed")), "the child has failed");
    assert!(busy.wait().unwrap().success());
}

/// A filter may answer so where the kernel by itself would not.
#[test]
fn a_call_that_was_interrupted_is_made_again() {
    const TEST: &str = "a_call_that_was_interrupted_is_made_again";
    alone(TEST, || {
        let wakes = calls(libc::SYS_write).with(2, 8);
        let [connect, accept] = [libc::SYS_connect, libc::SYS_accept4].map(calls);
        let [receive, send] = [libc::SYS_recvfrom, libc::SYS_sendto].map(calls);
        let Ok(supervisor) = Supervisor::of(&[wakes, connect, accept, receive, send]) else {
            return skip(TEST, NO_SECCOMP);
        };
        for backend in [Backend::Epoll, Backend::Mio] {
            let runtime = Runtime::builder().workers(2).backend(backend).build().unwrap();
            for nth in 1..=20 {
                supervisor.fail(nth..=nth, libc::EINTR);
                runtime.run(|| sums(4));
                assert_eq!(supervisor.failed(), 1);
                supervisor.fail(nth..=nth, libc::EINTR);
                sums(4);
                assert_eq!(supervisor.failed(), 1);
            }
        }
    });
}

/// As in a process whose `main` is not Rust's, which ignores the signal.
#[test]
fn a_broken_pipe_is_an_error_and_not_a_signal() {
    alone("a_broken_pipe_is_an_error_and_not_a_signal", || {
        set_handler(libc::SIGPIPE, libc::SIG_DFL);
        let until_broken = |mut write: Box<dyn FnMut() -> io::Result<usize>>| {
            let error = loop {
                match write() {
                    Ok(_) => {}
                    // The first answer to bytes that the peer never read.
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        };
        let writes = || {
            let (mut stream, peer) = pair();
            drop(peer);
            until_broken(Box::new(move || stream.write(b"x")));
            let (mut stream, peer) = pair();
            drop(peer);
            let two = [IoSlice::new(b"x"), IoSlice::new(b"y")];
            until_broken(Box::new(move || stream.write_vectored(&two)));
            let (mut stream, _peer) = pair();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            until_broken(Box::new(move || stream.write_all(b"x").map(|()| 1)));
        };
        writes();
        Runtime::builder().workers(2).build().unwrap().run(writes);
    });
}
