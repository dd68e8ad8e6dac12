//! What concerns the whole process: its descriptors, its environment, its children.
//!
//! Each test runs in a process of its own, so that it counts and limits nobody else's descriptors.

#![cfg(unix)]

mod net_support;
mod thread_common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use net_support::{PARTIES, Party, rounds, runtime, spawn};
use strands::cancel::{cancel_as_error, is_cancel_error};
use strands::net::{TcpListener, TcpStream};
use strands::time::timeout;
use strands_reactor::{Backend, driver_factory};
use strands_sched::SpawnOptions;
use thread_common::this_program;

/// The reasons for which a test here may be skipped.
const SKIPS: [&str; 1] = ["the hard limit on open files (ulimit -Hn) is too low"];

fn skip(test: &str, reason: &'static str) {
    assert!(SKIPS.contains(&reason));
    // Not `eprintln`, which the test harness captures.
    #[allow(clippy::explicit_write)]
    writeln!(io::stderr(), "SKIPPED {test}: {reason}").unwrap();
}

const ROLE: &str = "STRANDS_TEST_ROLE";

/// This program again, to run only `test`, in the given role.
fn again(test: &str, role: &str) -> Command {
    let mut command = this_program();
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Runs `body` in a process of its own.
fn alone(test: &str, body: impl FnOnce()) {
    match role() {
        Some(_) => body(),
        None => assert!(again(test, "alone").status().unwrap().success(), "{test} failed"),
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Sets the soft limit; returns the hard one.
fn limit_open_files(soft: impl FnOnce(libc::rlim_t) -> libc::rlim_t) -> libc::rlim_t {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain calls on a value of ours.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = soft(limit.rlim_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    limit.rlim_max
}

fn listen() -> (Arc<TcpListener>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (Arc::new(listener), addr)
}

#[test]
fn too_many_open_files_are_an_error_and_then_it_goes_on() {
    alone("too_many_open_files_are_an_error_and_then_it_goes_on", || {
        let runtime = runtime(2);
        for party in PARTIES {
            for _ in 0..rounds(20) {
                let (listener, addr) = listen();
                // As many wait as will connect, so one wakes the other when it fails.
                let (failed, failure) = mpsc::channel();
                let mut clients: Vec<_> = Vec::new();
                // Unconnected sockets, as connecting must not need a descriptor.
                let made: Vec<_> = (0..2)
                    .map(|_| {
                        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
                    })
                    .collect();
                let accepting: Vec<_> = (0..2)
                    .map(|_| {
                        let (listener, failed) = (listener.clone(), failed.clone());
                        party.start(&runtime, move || {
                            loop {
                                match listener.accept() {
                                    Ok((stream, _)) => return stream,
                                    Err(error) => {
                                        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                                        let _ = failed.send(());
                                        strands_sched::yield_now();
                                    }
                                }
                            }
                        })
                    })
                    .collect();
                let mut taken = Vec::new();
                limit_open_files(|_| 256);
                while let Ok(file) = std::fs::File::open("/dev/null") {
                    taken.push(file);
                }
                for client in made {
                    let client = client.unwrap();
                    client.connect(&addr.into()).unwrap();
                    clients.push(client);
                }
                for _ in 0..4 {
                    failure.recv().unwrap();
                }
                // Even now data is read, in fibers and plain threads.
                drop(taken.pop());
                drop(taken);
                for accepting in accepting {
                    accepting.join().write_all(b"x").unwrap();
                }
                for mut client in clients {
                    client.read_exact(&mut [0]).unwrap();
                }
            }
        }
        runtime.shutdown(None).unwrap();
    });
}

#[test]
fn a_thread_waits_though_no_descriptor_is_left() {
    alone("a_thread_waits_though_no_descriptor_is_left", || {
        // Nobody has waited in this process, or a wake descriptor would be kept.
        let (listener, addr) = listen();
        let peer = std::net::TcpStream::connect(addr).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut clone = stream.try_clone().unwrap();
        limit_open_files(|_| 64);
        let mut taken = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            taken.push(file);
        }
        stream.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        stream.set_read_timeout(None).unwrap();
        let limited = timeout(Duration::from_millis(1), || {
            let error = cancel_as_error(|| stream.read(&mut [0]).unwrap_err());
            assert!(is_cancel_error(&error), "{error}");
        });
        limited.unwrap();
        let stream = Arc::new(stream);
        let its = stream.clone();
        let reading = std::thread::spawn(move || (&*its).read(&mut [0; 8]));
        (&peer).write_all(b"x").unwrap();
        assert_eq!(reading.join().unwrap().unwrap(), 1);
        let its = stream.clone();
        let (waits, waiting) = mpsc::channel();
        let reading = std::thread::spawn(move || {
            waits.send(()).unwrap();
            (&*its).read(&mut [0; 8])
        });
        waiting.recv().unwrap();
        std::thread::yield_now(); // It is likely to wait then.
        stream.close(); // Its clone keeps the connection.
        assert_eq!(reading.join().unwrap().unwrap_err().kind(), ErrorKind::NotConnected);
        (&peer).write_all(b"y").unwrap();
        assert_eq!(clone.read(&mut [0; 8]).unwrap(), 1);
    });
}

#[test]
fn nothing_leaks() {
    alone("nothing_leaks", || {
        let round = || {
            let runtime = runtime(2);
            let (listener, addr) = listen();
            for party in PARTIES {
                let listener = listener.clone();
                let running = party.start(&runtime, move || {
                    let mut stream = TcpStream::connect(addr).unwrap();
                    let (mut accepted, _) = listener.accept().unwrap();
                    accepted.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
                    assert!(accepted.read(&mut [0]).is_err());
                    stream.write_all(b"x").unwrap();
                    let clone = accepted.try_clone().unwrap();
                    clone.close();
                    std::net::TcpStream::from(accepted)
                });
                drop(running.join());
            }
            let parked: Vec<_> = (0..20)
                .map(|i| {
                    let listener = listener.clone();
                    Party::Fiber(i % 2).start(&runtime, move || {
                        let _stream = TcpStream::connect(addr).unwrap();
                        match i % 4 {
                            0 => drop((&_stream).read(&mut [0])),
                            _ => loop {
                                listener.accept().unwrap();
                            },
                        }
                    })
                })
                .collect();
            runtime.shutdown(None).unwrap();
            // Cancelled, or ended because its peer was.
            parked.into_iter().for_each(|fiber| drop(fiber.outcome()));
        };
        round();
        let before = open_files();
        (0..rounds(5)).for_each(|_| round());
        assert_eq!(open_files(), before);
    });
}

#[test]
fn a_runtime_for_which_descriptors_are_short_says_what_to_do() {
    alone("a_runtime_for_which_descriptors_are_short_says_what_to_do", || {
        for backend in [Backend::Epoll, Backend::Mio] {
            let build = || {
                let driver = driver_factory(backend);
                strands_sched::Builder::new().workers(2).driver(driver).build()
            };
            // What is opened once for ever is open after this.
            build().unwrap().shutdown(None).unwrap();
            let open = open_files();
            let mut limit = 0;
            loop {
                limit_open_files(|_| limit);
                match build() {
                    Ok(runtime) => break runtime.shutdown(None).unwrap(),
                    Err(error) => {
                        let text = error.to_string();
                        let told = text.contains("cannot make") && text.contains("ulimit -n");
                        assert!(told, "{backend:?}, {limit} descriptors: {text}");
                        let cause = error.get_ref().and_then(std::error::Error::source).unwrap();
                        let cause: &io::Error = cause.downcast_ref().unwrap();
                        assert_eq!(cause.raw_os_error(), Some(libc::EMFILE));
                    }
                }
                limit += 1;
            }
            assert!(limit >= 4, "{backend:?} was built with {limit} descriptors");
            limit_open_files(|hard| hard);
            assert_eq!(open_files(), open, "a failure left a descriptor open");
        }
    });
}

#[test]
fn an_unknown_backend_is_refused() {
    const TEST: &str = "an_unknown_backend_is_refused";
    let build = || {
        let driver = driver_factory(Backend::Auto);
        strands_sched::Builder::new().workers(1).driver(driver).build()
    };
    match role().as_deref() {
        Some("unknown") => {
            let error = build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let text = error.to_string();
            assert!(text.contains("STRANDS_BACKEND") && text.contains("epoll"), "{text}");
        }
        Some(name) => {
            let text = build().unwrap().describe();
            assert!(text.contains(name), "{text}");
        }
        None => {
            for (value, role) in
                [("kqueue", "unknown"), ("epoll", "epoll"), ("mio", "mio"), ("", "epoll")]
            {
                let status = again(TEST, role).env("STRANDS_BACKEND", value).status().unwrap();
                assert!(status.success(), "with {value:?}");
            }
        }
    }
}

#[test]
fn a_forked_child_cannot_wait_and_spoils_nothing() {
    alone("a_forked_child_cannot_wait_and_spoils_nothing", || {
        let runtime = runtime(1);
        let (listener, addr) = listen();
        let mut peer = std::net::TcpStream::connect(addr).unwrap();
        let stream = Arc::new(listener.accept().unwrap().0);
        let spare = TcpStream::connect(addr).unwrap();
        let spare_accepted = Arc::new(listener.accept().unwrap().0);
        // Registered, and somebody waits.
        let wait = |stream: &Arc<TcpStream>| {
            let (its, (waits, waiting)) = (stream.clone(), mpsc::channel());
            let reading = Party::Fiber(0).start(&runtime, move || {
                its.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
                assert!((&*its).read(&mut [0]).is_err());
                its.set_read_timeout(None).unwrap();
                waits.send(()).unwrap();
                (&*its).read(&mut [0; 8]).unwrap()
            });
            waiting.recv().unwrap();
            reading
        };
        let reading = wait(&stream);
        let spare_reading = wait(&spare_accepted);
        runtime.run(SpawnOptions::default(), strands_sched::yield_now).unwrap();
        // SAFETY: the child ends by `_exit` and takes no lock that another thread may hold.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let mut good = true;
            let is_refused = |result: io::Result<usize>| {
                result.is_err_and(|error| error.kind() == ErrorKind::Unsupported)
            };
            good &= is_refused((&spare).read(&mut [0]));
            good &= listener.accept().is_err_and(|error| error.kind() == ErrorKind::Unsupported);
            // What need not wait is done.
            good &= (&spare).write(b"child").is_ok_and(|bytes| bytes == 5);
            spare_accepted.close();
            // The only handles in this process that are not shared with threads that do not exist
            // here.
            drop(spare);
            drop(listener);
            // SAFETY: ends the child without running anything else.
            unsafe { libc::_exit(if good { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: our child, and a value of ours.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "the child's checks");
        assert_eq!(spare_reading.join(), 5, "what the child wrote woke the parent's fiber");
        peer.write_all(b"on").unwrap();
        assert_eq!(reading.join(), 2, "the parent's registration is still there");
        runtime.shutdown(None).unwrap();
    });
}

/// With a longer queue than std's, so that a burst is one: else clients are told to come back in
/// a second.
fn deep_listener() -> std::os::fd::OwnedFd {
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(4096).unwrap();
    listener.into()
}

#[test]
fn a_burst_of_connections_is_spread_over_the_workers() {
    const TEST: &str = "a_burst_of_connections_is_spread_over_the_workers";
    const CONNECTIONS: usize = 10_000;
    const FILES: libc::rlim_t = CONNECTIONS as libc::rlim_t + 200;
    match role().as_deref() {
        None => assert!(again(TEST, "server").status().unwrap().success()),
        Some("client") => {
            limit_open_files(|hard| hard);
            let mut addr = String::new();
            io::stdin().read_line(&mut addr).unwrap();
            let addr: SocketAddr = addr.trim().parse().unwrap();
            let _held: Vec<_> =
                (0..CONNECTIONS).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
            // Until the server has counted.
            io::stdin().read_to_end(&mut Vec::new()).unwrap();
        }
        Some(_) => {
            if limit_open_files(|hard| hard) < FILES {
                return skip(TEST, SKIPS[0]);
            }
            let runtime = runtime(2);
            let listener = TcpListener::from(deep_listener());
            let addr = listener.local_addr().unwrap();
            let mut client = again(TEST, "client").stdin(Stdio::piped()).spawn().unwrap();
            let (started, starting) = mpsc::channel();
            let accepting = Party::Fiber(0).start(&runtime, move || {
                for _ in 0..CONNECTIONS {
                    let mut stream = listener.accept().unwrap().0;
                    let started = started.clone();
                    drop(spawn(move || {
                        started.send(()).unwrap();
                        drop(started);
                        let _ = stream.read(&mut [0]);
                    }));
                }
            });
            let mut to_client = client.stdin.take().unwrap();
            writeln!(to_client, "{addr}").unwrap();
            accepting.join();
            assert_eq!(starting.iter().take(CONNECTIONS).count(), CONNECTIONS);
            let live = runtime.live_fibers();
            let mean = live.iter().sum::<usize>() as f64 / live.len() as f64;
            let most = *live.iter().max().unwrap() as f64;
            assert!(most <= 1.2 * mean, "the workers hold {live:?}");
            drop(to_client);
            assert!(client.wait().unwrap().success());
            runtime.shutdown(None).unwrap();
        }
    }
}
