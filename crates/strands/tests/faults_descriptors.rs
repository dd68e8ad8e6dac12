//! No file descriptor left, anywhere.
//!
//! What must hold: whatever needs one says `EMFILE` and nothing else happens; what is open goes on; and
//! once there are descriptors again, all is as before.
#![cfg(all(target_os = "linux", not(miri)))]

mod faults_support;
mod thread_common;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use faults_support::{NO_SECCOMP, Supervisor, alone, calls, limit, skip};
use rustix::process::Resource;
use strands::net::{TcpListener, TcpStream, ToSocketAddrs};
use strands::{Runtime, thread};

const MOST: u64 = 200;

/// Takes all descriptors that this process may have, but for `spare`.
fn take_all_but(spare: usize) -> Vec<File> {
    let mut taken = Vec::with_capacity(MOST as usize);
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    taken.truncate(taken.len() - spare);
    taken
}

/// As from a fiber, and as from a plain thread.
fn from_both(runtime: &Runtime, f: impl Fn() + Send + Sync) {
    runtime.run(&f);
    f();
}

#[track_caller]
fn is_too_many<T>(result: io::Result<T>) {
    let error = result.map(drop).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
}

#[test]
fn whatever_needs_a_descriptor_says_so_and_goes_on_later() {
    alone("whatever_needs_a_descriptor_says_so_and_goes_on_later", || {
        limit(Resource::Nofile, MOST);
        let runtime = Runtime::builder().workers(2).build().unwrap();
        thread::spawn(|| {}).join().unwrap(); // The default one, for those from the plain thread.
        for _ in 0..3 {
            from_both(&runtime, || {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let addr = listener.local_addr().unwrap();
                let mut open = TcpStream::connect(addr).unwrap();
                let mut peer = listener.accept().unwrap().0;
                let waiting = TcpStream::connect(addr).unwrap();

                let taken = take_all_but(0);
                is_too_many(TcpStream::connect(addr));
                is_too_many(TcpStream::connect_timeout(&addr, Duration::from_secs(60)));
                is_too_many(TcpListener::bind("127.0.0.1:0"));
                is_too_many(open.try_clone());
                is_too_many(listener.try_clone());
                is_too_many(listener.accept());
                // The resolver cannot read its files; what it says then is its own.
                let _ = ("no-such-host.invalid", 1).to_socket_addrs();
                let error = Runtime::builder().workers(2).build().unwrap_err();
                assert!(error.to_string().contains("ulimit -n"), "{error}");
                // What is open goes on, and waits.
                peer.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
                assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
                peer.set_read_timeout(None).unwrap();
                let select = || {
                    strands::select! {
                        ready = readable(peer) => ready.map(|()| "ready").unwrap(),
                        _ = after(Duration::from_millis(2)) => "time",
                    }
                };
                assert_eq!(select(), "time");
                // More threads at once than there are wake descriptors left from before.
                let all = std::sync::Barrier::new(8);
                std::thread::scope(|scope| {
                    for _ in 0..8 {
                        scope.spawn(|| {
                            all.wait();
                            assert_eq!(select(), "time");
                        });
                    }
                });
                thread::scope(|scope| {
                    scope.spawn(|| (&open).write_all(b"!").unwrap());
                    while select() != "ready" {}
                });
                assert_eq!(peer.read(&mut [0]).unwrap(), 1);
                thread::scope(|scope| {
                    let reading = scope.spawn(move || {
                        let mut text = String::new();
                        peer.read_to_string(&mut text).unwrap();
                        text
                    });
                    open.write_all(b"still ").unwrap();
                    thread::sleep(Duration::from_micros(100));
                    open.write_all(b"here").unwrap();
                    open.shutdown(std::net::Shutdown::Write).unwrap();
                    assert_eq!(reading.join().unwrap(), "still here");
                });

                drop(taken);
                let mut accepted = listener.accept().unwrap().0;
                accepted.write_all(b"x").unwrap();
                (&waiting).read_exact(&mut [0]).unwrap();
                assert!(("localhost", 1).to_socket_addrs().unwrap().count() > 0);
            });
        }
        Runtime::builder().workers(2).build().unwrap().run(|| {});
        runtime.shutdown_timeout(Duration::MAX).unwrap();
    });
}

/// A bit of all that needs descriptors.
fn exchange(addr: SocketAddr, listener: &TcpListener) -> io::Result<()> {
    let mut stream = TcpStream::connect(addr)?;
    let mut accepted = listener.accept()?.0;
    let mut clone = accepted.try_clone()?;
    accepted.write_all(b"there")?;
    let mut text = [0; 5];
    stream.read_exact(&mut text)?;
    stream.write_all(&text)?;
    clone.read_exact(&mut text)?;
    assert_eq!(&text, b"there");
    TcpListener::bind("127.0.0.1:0")?;
    let runtime = Runtime::builder().workers(1).build()?;
    runtime.run(|| thread::sleep(Duration::from_micros(10)));
    Ok(())
}

#[test]
fn with_each_number_of_descriptors_left_it_is_done_or_it_is_emfile() {
    alone("with_each_number_of_descriptors_left_it_is_done_or_it_is_emfile", || {
        limit(Resource::Nofile, MOST);
        let runtime = Runtime::builder().workers(1).build().unwrap();
        from_both(&runtime, || {
            let mut failures = 0;
            for spare in 0.. {
                // Its own each time, as what was left half way stays in its queue.
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let addr = listener.local_addr().unwrap();
                let taken = take_all_but(spare);
                let result = exchange(addr, &listener);
                drop(taken);
                match result {
                    Ok(()) => break,
                    Err(error) => {
                        let text = error.to_string();
                        assert!(text.contains("os error 24"), "with {spare} left: {text}");
                        failures += 1;
                    }
                }
            }
            assert!(failures >= 4, "it needs more than {failures}");
        });
    });
}

#[test]
fn a_limit_on_watched_descriptors_is_an_error_that_names_it() {
    const TEST: &str = "a_limit_on_watched_descriptors_is_an_error_that_names_it";
    alone(TEST, || {
        let adds = calls(libc::SYS_epoll_ctl).with(1, libc::EPOLL_CTL_ADD);
        let Ok(supervisor) = Supervisor::of(&[adds]) else { return skip(TEST, NO_SECCOMP) };
        let names_it = |error: io::Error| {
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
            assert!(error.to_string().contains("fs.epoll.max_user_watches"), "{error}");
        };
        supervisor.fail(.., libc::ENOSPC);
        names_it(Runtime::new().unwrap_err());
        supervisor.stop();
        let runtime = Runtime::builder().workers(1).build().unwrap();
        runtime.run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            supervisor.fail(.., libc::ENOSPC);
            names_it(listener.accept().unwrap_err());
            names_it(strands::select!(ready = readable(listener) => ready.unwrap_err()));
            supervisor.stop();
            exchange(addr, &listener).unwrap();
        });
    });
}
