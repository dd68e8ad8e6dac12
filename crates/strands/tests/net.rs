//! TCP as std's, from fibers on several workers and from plain threads, in any mix.

// On Windows much of it is meant otherwise: `net_windows.rs`.
#![cfg(unix)]

mod net_support;

use std::collections::HashSet;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use net_support::{PARTIES, Party, rounds, runtime, spawn};
use strands::net::{TcpListener, TcpStream, ToSocketAddrs};
use strands_sched::{Cancelled, SpawnOptions, yield_now};

/// A connection: ours, and a peer of std's.
fn pair() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0.into(), peer)
}

fn listen() -> (Arc<TcpListener>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (Arc::new(listener), addr)
}

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// A connection whose peer is reset when it is dropped.
fn reset_on_drop(peer: &std::net::TcpStream) {
    socket2::SockRef::from(peer).set_linger(Some(Duration::ZERO)).unwrap();
}

/// A listener of std's that accepts nobody and whose queue is full: a connect to it hangs.
struct Full {
    addr: SocketAddr,
    _listener: socket2::Socket,
    _filling: Vec<socket2::Socket>,
}

impl Full {
    fn new() -> Full {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let mut filling = Vec::new();
        loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let connected = socket.connect_timeout(&addr.into(), Duration::from_millis(200));
            filling.push(socket);
            if connected.is_err() {
                return Full { addr, _listener: listener, _filling: filling };
            }
        }
    }
}

// Many at one handle.

#[test]
fn all_that_accept_on_one_listener_are_served() {
    let runtime = runtime(2);
    for (parties, rounds) in [(2, rounds(100)), (100, rounds(5))] {
        for _ in 0..rounds {
            let (listener, addr) = listen();
            let at = (0..parties).map(|i| Party::Fiber(i % 2)).chain([Party::Thread; 2]);
            let waiting: Vec<_> = at
                .map(|party| {
                    let listener = listener.clone();
                    party.start(&runtime, move || {
                        let (mut stream, peer) = listener.accept().unwrap();
                        assert_eq!(stream.peer_addr().unwrap(), peer);
                        stream.write_all(b"!").unwrap();
                        peer
                    })
                })
                .collect();
            let clients: Vec<_> =
                waiting.iter().map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
            for mut client in &clients {
                client.read_exact(&mut [0]).unwrap();
            }
            let served: HashSet<_> = waiting.into_iter().map(|party| party.join()).collect();
            let expected: HashSet<_> =
                clients.iter().map(|client| client.local_addr().unwrap()).collect();
            assert_eq!(served, expected);
        }
    }
    runtime.shutdown(None).unwrap();
}

#[test]
fn one_edge_brings_two_connections() {
    let runtime = runtime(1);
    for _ in 0..rounds(100) {
        runtime
            .run(SpawnOptions::default(), || {
                let (listener, addr) = listen();
                let accepting: Vec<_> = (0..3)
                    .map(|_| {
                        let listener = listener.clone();
                        spawn(move || listener.accept().unwrap())
                    })
                    .collect();
                for _ in 0..5 {
                    yield_now(); // They park.
                }
                // The one worker is busy here, so it sees all connections as one event.
                let clients: Vec<_> =
                    (0..3).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
                accepting.into_iter().for_each(|fiber| drop(fiber.join().unwrap()));
                drop(clients);
            })
            .unwrap();
    }
}

#[test]
fn one_edge_brings_data_for_two_readers_and_then_the_end() {
    let runtime = runtime(1);
    for _ in 0..rounds(100) {
        runtime
            .run(SpawnOptions::default(), || {
                let (ours, mut peer) = pair();
                let ours = Arc::new(ours);
                let reading: Vec<_> = (0..4)
                    .map(|_| {
                        let ours = ours.clone();
                        spawn(move || (&*ours).read(&mut [0; 2]).unwrap())
                    })
                    .collect();
                for _ in 0..6 {
                    yield_now();
                }
                peer.write_all(b"abc").unwrap();
                drop(peer);
                let mut read: Vec<_> =
                    reading.into_iter().map(|fiber| fiber.join().unwrap()).collect();
                read.sort();
                assert_eq!(read, [0, 0, 1, 2]);
            })
            .unwrap();
    }
}

#[test]
fn a_reader_and_a_writer_share_a_stream() {
    const BYTES: usize = 1 << 20;
    let runtime = runtime(2);
    for reader in PARTIES {
        for writer in PARTIES {
            let (ours, peer) = pair();
            let ours = Arc::new(ours);
            let (mut peer_reads, mut peer_writes) = (peer.try_clone().unwrap(), peer);
            let echo = std::thread::spawn(move || {
                io::copy(&mut peer_reads, &mut peer_writes).unwrap();
                peer_writes.shutdown(Shutdown::Write).unwrap();
            });
            let data: Vec<u8> = (0..BYTES).map(|i| (i % 251) as u8).collect();
            let (its, sent) = (ours.clone(), data.clone());
            let writing = writer.start(&runtime, move || {
                (&*its).write_all(&sent).unwrap();
                its.shutdown(Shutdown::Write).unwrap();
            });
            let reading = reader.start(&runtime, move || {
                let mut got = Vec::new();
                (&*ours).read_to_end(&mut got).unwrap();
                got
            });
            writing.join();
            assert!(reading.join() == data, "{reader:?} reads, {writer:?} writes");
            echo.join().unwrap();
        }
    }
    runtime.shutdown(None).unwrap();
}

#[test]
fn readers_everywhere_lose_no_byte_and_none_of_them_hangs() {
    let runtime = runtime(2);
    for round in 0..rounds(30) {
        let (ours, mut peer) = pair();
        let ours = Arc::new(ours);
        let reading: Vec<_> = (0..9)
            .map(|i| {
                let ours = ours.clone();
                PARTIES[i % 3].start(&runtime, move || {
                    let mut total = 0;
                    loop {
                        match (&*ours).read(&mut [0; 7]).unwrap() {
                            0 => return total,
                            bytes => total += bytes,
                        }
                    }
                })
            })
            .collect();
        for i in 0..300 {
            peer.write_all(&[0; 10][..1 + (i + round) % 10]).unwrap();
        }
        let expected: usize = (0..300).map(|i| 1 + (i + round) % 10).sum();
        drop(peer);
        assert_eq!(reading.into_iter().map(|party| party.join()).sum::<usize>(), expected);
    }
    runtime.shutdown(None).unwrap();
}

#[test]
fn ping_pong_between_all_kinds_of_parties() {
    let runtime = runtime(2);
    for a in PARTIES {
        for b in PARTIES {
            let (listener, addr) = listen();
            let serving = a.start(&runtime, move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut byte = [0; 16];
                loop {
                    match stream.read(&mut byte).unwrap() {
                        0 => return,
                        bytes => stream.write_all(&byte[..bytes]).unwrap(),
                    }
                }
            });
            let asking = b.start(&runtime, move || {
                let mut stream = TcpStream::connect(addr).unwrap();
                for i in 0..rounds(200) as u64 {
                    stream.write_all(&i.to_ne_bytes()).unwrap();
                    let mut answer = [0; 8];
                    stream.read_exact(&mut answer).unwrap();
                    assert_eq!(u64::from_ne_bytes(answer), i);
                }
            });
            asking.join();
            serving.join();
        }
    }
    runtime.shutdown(None).unwrap();
}

// Short reads and ends: what the hint could get wrong.

#[test]
fn data_and_end_in_one_edge_are_both_seen() {
    let runtime = runtime(1);
    for parked_first in [true, false] {
        for _ in 0..rounds(200) {
            runtime
                .run(SpawnOptions::default(), || {
                    let (mut ours, mut peer) = pair();
                    let read = |stream: &mut TcpStream| stream.read(&mut [0; 64]).unwrap();
                    peer.write_all(b"once, to be registered").unwrap();
                    read(&mut ours);
                    let reading =
                        spawn(move || [read(&mut ours), read(&mut ours), read(&mut ours)]);
                    if parked_first {
                        yield_now();
                        yield_now();
                    }
                    peer.write_all(b"abc").unwrap();
                    peer.shutdown(Shutdown::Write).unwrap();
                    assert_eq!(reading.join().unwrap(), [3, 0, 0]);
                })
                .unwrap();
        }
    }
}

#[test]
fn a_short_read_that_stops_at_urgent_data_is_not_the_end_of_it() {
    let runtime = runtime(1);
    runtime
        .run(SpawnOptions::default(), || {
            let (mut ours, mut peer) = pair();
            let reading = spawn(move || {
                let mut all = Vec::new();
                let mut some = [0; 64];
                while !all.ends_with(b"f") {
                    let bytes = ours.read(&mut some).unwrap();
                    all.extend_from_slice(&some[..bytes]);
                }
                all
            });
            yield_now();
            peer.write_all(b"abc").unwrap();
            socket2::SockRef::from(&peer).send_out_of_band(b"!").unwrap();
            peer.write_all(b"def").unwrap();
            assert_eq!(reading.join().unwrap(), b"abcdef");
        })
        .unwrap();
}

#[test]
fn data_that_came_while_the_worker_was_busy_beats_the_time_limit() {
    let runtime = runtime(1);
    runtime
        .run(SpawnOptions::default(), || {
            let (mut ours, mut peer) = pair();
            let reading = spawn(move || {
                let mut buf = [0; 64];
                ours.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                while ours.read(&mut buf).is_err() {}
                // Drained now, so this waits at once.
                ours.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                ours.read(&mut buf).unwrap()
            });
            yield_now();
            peer.write_all(b"a").unwrap();
            while !reading.is_finished() {
                // Its second read is under way or will be. Its time runs out before it is looked
                // at.
                peer.write_all(b"bc").unwrap();
                let until = Instant::now() + Duration::from_millis(30);
                while Instant::now() < until {}
                yield_now();
            }
            assert!(reading.join().unwrap() > 0);
        })
        .unwrap();
}

#[test]
fn halves_are_shut_down_separately() {
    let runtime = runtime(2);
    for party in PARTIES {
        let (mut ours, mut peer) = pair();
        let running = party.start(&runtime, move || {
            let mut all = String::new();
            ours.read_to_string(&mut all).unwrap();
            ours.write_all(all.to_uppercase().as_bytes()).unwrap();
            ours.flush().unwrap();
            (&ours).flush().unwrap();
            ours.shutdown(Shutdown::Write).unwrap();
            assert_eq!(kind(ours.write(b"more")), ErrorKind::BrokenPipe);
            let (mut ours, _peer) = pair();
            ours.shutdown(Shutdown::Read).unwrap();
            assert_eq!(ours.read(&mut [0]).unwrap(), 0);
            assert_eq!(ours.write(b"more").unwrap(), 4);
        });
        peer.write_all(b"half").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        peer.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "HALF");
        running.join();
    }
    runtime.shutdown(None).unwrap();
}

#[test]
fn shutdown_by_another_ends_a_read() {
    let runtime = runtime(2);
    for _ in 0..rounds(50) {
        for party in PARTIES {
            let (ours, _peer) = pair();
            let ours = Arc::new(ours);
            let its = ours.clone();
            let reading = party.start(&runtime, move || (&*its).read(&mut [0]).unwrap());
            ours.shutdown(Shutdown::Both).unwrap();
            assert_eq!(reading.join(), 0);
        }
    }
    runtime.shutdown(None).unwrap();
}

#[test]
fn a_reset_ends_readers_and_writers() {
    let runtime = runtime(2);
    for _ in 0..rounds(20) {
        for party in PARTIES {
            let (ours, peer) = pair();
            let ours = Arc::new(ours);
            reset_on_drop(&peer);
            let its = ours.clone();
            let reading = party.start(&runtime, move || (&*its).read(&mut [0; 8]));
            let writing = party.start(&runtime, move || {
                loop {
                    if let Err(error) = (&*ours).write(&[0; 65536]) {
                        return error.kind();
                    }
                }
            });
            drop(peer);
            // The error goes to whoever asks first; the other finds a dead socket.
            let read = reading.join().map_err(|error| error.kind());
            let write = writing.join();
            assert!(matches!(read, Ok(0) | Err(ErrorKind::ConnectionReset)), "{read:?}");
            assert!(matches!(write, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{write}");
            assert!(read.is_err() || write == ErrorKind::ConnectionReset, "nobody saw the reset");
        }
    }
    runtime.shutdown(None).unwrap();
}

// Time.

#[test]
fn time_limits_are_kept() {
    let runtime = runtime(2);
    for party in PARTIES {
        let running = party.start(&runtime, || {
            let (mut ours, mut peer) = pair();
            assert_eq!(kind(ours.set_read_timeout(Some(Duration::ZERO))), ErrorKind::InvalidInput);
            assert_eq!(kind(ours.set_write_timeout(Some(Duration::ZERO))), ErrorKind::InvalidInput);
            let any = ours.local_addr().unwrap();
            let connected = TcpStream::connect_timeout(&any, Duration::ZERO);
            assert_eq!(kind(connected), ErrorKind::InvalidInput);
            assert_eq!(ours.read_timeout().unwrap(), None);

            for time in [1, 100, 3_000].map(Duration::from_micros) {
                ours.set_read_timeout(Some(time)).unwrap();
                assert!(ours.read_timeout().unwrap().unwrap() >= time);
                let start = Instant::now();
                let error = ours.read(&mut [0]).unwrap_err();
                assert!(start.elapsed() >= time);
                assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
                assert_eq!(kind(ours.peek(&mut [0])), ErrorKind::WouldBlock);

                ours.set_write_timeout(Some(time)).unwrap();
                let error = loop {
                    let start = Instant::now();
                    if let Err(error) = ours.write(&[0; 65536]) {
                        assert!(start.elapsed() >= time);
                        break error;
                    }
                };
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
            }
            peer.write_all(b"x").unwrap();
            for huge in [Duration::from_secs(u64::from(u32::MAX)), Duration::MAX] {
                ours.set_read_timeout(Some(huge)).unwrap();
                assert_eq!(ours.peek(&mut [0]).unwrap(), 1);
            }
            assert_eq!(ours.read(&mut [0; 8]).unwrap(), 1);
            let late = std::thread::spawn(move || peer.write_all(b"late").unwrap());
            assert_eq!(ours.read(&mut [0; 4]).unwrap(), 4);
            late.join().unwrap();
        });
        running.join();
    }
    runtime.shutdown(None).unwrap();
}

#[test]
fn a_connect_that_hangs_times_out() {
    let full = Full::new();
    let runtime = runtime(2);
    for party in PARTIES {
        let addr = full.addr;
        let running = party.start(&runtime, move || {
            for time in [1, 5_000].map(Duration::from_micros) {
                let start = Instant::now();
                assert_eq!(kind(TcpStream::connect_timeout(&addr, time)), ErrorKind::TimedOut);
                assert!(start.elapsed() >= time);
            }
        });
        running.join();
    }
    runtime.shutdown(None).unwrap();
}

#[test]
fn nonblocking_handles_do_not_wait() {
    let runtime = runtime(2);
    for party in PARTIES {
        let running = party.start(&runtime, || {
            let (listener, _) = listen();
            let other = listener.try_clone().unwrap();
            other.set_nonblocking(true).unwrap();
            assert_eq!(kind(listener.accept()), ErrorKind::WouldBlock);
            assert_eq!(kind(listener.incoming().next().unwrap()), ErrorKind::WouldBlock);
            let (ours, mut peer) = pair();
            let mut clone = ours.try_clone().unwrap();
            ours.set_nonblocking(true).unwrap();
            assert_eq!(kind(clone.read(&mut [0])), ErrorKind::WouldBlock);
            peer.write_all(b"x").unwrap();
            // Loopback delivers before `write` returns.
            assert_eq!(clone.read(&mut [0; 2]).unwrap(), 1);
            peer.write_all(b"y").unwrap();
            assert_eq!(clone.read(&mut [0; 2]).unwrap(), 1, "although it was drained before");
            clone.set_nonblocking(false).unwrap();
            let late = std::thread::spawn(move || peer.write_all(b"z").unwrap());
            assert_eq!((&ours).read(&mut [0]).unwrap(), 1);
            late.join().unwrap();
        });
        running.join();
    }
    runtime.shutdown(None).unwrap();
}

extern "C" fn ignore(_: libc::c_int) {}

#[test]
fn signals_do_not_end_a_wait() {
    // SAFETY: the handler does nothing; without SA_RESTART system calls are interrupted.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
    let (mut ours, mut peer) = pair();
    let (send_id, id) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        // SAFETY: plain call.
        send_id.send(unsafe { libc::pthread_self() }).unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let start = Instant::now();
        assert_eq!(kind(ours.read(&mut [0])), ErrorKind::WouldBlock);
        assert!(start.elapsed() >= Duration::from_millis(20), "a signal shortened the wait");
        ours.set_read_timeout(None).unwrap();
        ours.read(&mut [0; 8]).unwrap()
    });
    let id = id.recv().unwrap();
    for i in 0..2000 {
        // SAFETY: the thread is not joined before the last signal: it reads until we write.
        assert_eq!(unsafe { libc::pthread_kill(id, libc::SIGUSR1) }, 0);
        if i % 50 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    peer.write_all(b"at last").unwrap();
    assert_eq!(reading.join().unwrap(), 7);
}

// Ends of handles.

#[test]
fn close_ends_all_that_wait_and_all_that_come() {
    let runtime = runtime(2);
    for _ in 0..rounds(50) {
        let (listener, _) = listen();
        let (ours, mut peer) = pair();
        let ours = Arc::new(ours);
        let begun = Arc::new(AtomicUsize::new(0));
        let waiting: Vec<_> = [PARTIES, PARTIES]
            .concat()
            .into_iter()
            .map(|party| {
                let (listener, ours, begun) = (listener.clone(), ours.clone(), begun.clone());
                let accepting = party.start(&runtime, move || {
                    begun.fetch_add(1, SeqCst);
                    kind(listener.accept())
                });
                let reading = party.start(&runtime, move || kind((&*ours).read(&mut [0])));
                (accepting, reading)
            })
            .collect();
        while begun.load(SeqCst) == 0 {
            std::hint::spin_loop();
        }
        listener.close();
        ours.close();
        for (accepting, reading) in waiting {
            assert_eq!(accepting.join(), ErrorKind::NotConnected);
            assert_eq!(reading.join(), ErrorKind::NotConnected);
        }
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "the connection was closed");
        ours.close();
        assert_eq!(kind(listener.accept()), ErrorKind::NotConnected);
        assert_eq!(kind((&*ours).write(b"x")), ErrorKind::NotConnected);
        assert_eq!(kind(ours.peek(&mut [0])), ErrorKind::NotConnected);
        assert_eq!(kind(ours.peer_addr()), ErrorKind::NotConnected);
        assert_eq!(kind(ours.try_clone()), ErrorKind::NotConnected);
        assert_eq!(kind(ours.set_nodelay(true)), ErrorKind::NotConnected);
    }
    runtime.shutdown(None).unwrap();
}

#[test]
fn close_of_a_listener_turns_away_those_in_its_queue() {
    let (listener, addr) = listen();
    let mut client = std::net::TcpStream::connect(addr).unwrap();
    listener.close();
    assert_eq!(kind(client.read(&mut [0])), ErrorKind::ConnectionReset);
}

#[test]
fn a_closed_handle_leaves_its_clones_alone() {
    let runtime = runtime(2);
    for party in PARTIES {
        let running = party.start(&runtime, || {
            let (ours, mut peer) = pair();
            let mut clone = ours.try_clone().unwrap();
            ours.close();
            peer.write_all(b"still here").unwrap();
            assert_eq!(clone.read(&mut [0; 64]).unwrap(), 10);
            clone.write_all(b"yes").unwrap();
            peer.read_exact(&mut [0; 3]).unwrap();
        });
        running.join();
    }
    runtime.shutdown(None).unwrap();
}

#[test]
fn a_clone_waits_while_another_is_dropped() {
    let runtime = runtime(2);
    for _ in 0..rounds(50) {
        for party in PARTIES {
            let (mut ours, mut peer) = pair();
            let mut other = ours.try_clone().unwrap();
            let (waits, waiting) = mpsc::channel();
            let reading = party.start(&runtime, move || {
                // Both have waited on this worker: both are registered.
                for stream in [&mut ours, &mut other] {
                    stream.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
                    assert_eq!(kind(stream.read(&mut [0])), ErrorKind::WouldBlock);
                    stream.set_read_timeout(None).unwrap();
                }
                drop(other);
                waits.send(()).unwrap();
                ours.read(&mut [0; 8]).unwrap()
            });
            waiting.recv().unwrap();
            peer.write_all(b"1").unwrap();
            assert_eq!(reading.join(), 1);
        }
    }
    runtime.shutdown(None).unwrap();
}

#[test]
fn reused_numbers_and_slots_wake_the_right_ones() {
    let runtime = runtime(2);
    let running: Vec<_> = (0..8)
        .map(|i| {
            PARTIES[i % 3].start(&runtime, move || {
                for _ in 0..rounds(100) {
                    let (listener, addr) = listen();
                    let mut a = TcpStream::connect(addr).unwrap();
                    let (mut b, _) = listener.accept().unwrap();
                    b.write_all(b"x").unwrap();
                    assert_eq!(a.read(&mut [0; 2]).unwrap(), 1);
                    drop(b);
                    assert_eq!(a.read(&mut [0; 2]).unwrap(), 0);
                }
            })
        })
        .collect();
    running.into_iter().for_each(|party| party.join());
    runtime.shutdown(None).unwrap();
}

#[test]
fn shutdown_of_the_runtime_unwinds_fibers_in_every_wait() {
    struct Note(Arc<AtomicUsize>);
    impl Drop for Note {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let full = Full::new();
    for _ in 0..rounds(20) {
        let runtime = runtime(2);
        let unwound = Arc::new(AtomicUsize::new(0));
        let listener = Arc::try_unwrap(listen().0).unwrap();
        let (mut reader, mut reader_peer) = pair();
        let (mut writer, mut writer_peer) = pair();
        let full_addr = full.addr;
        let note = || Note(unwound.clone());
        let (a, b, c, d) = (note(), note(), note(), note());
        let fibers = [
            Party::Fiber(0).start(&runtime, move || {
                let _a = a;
                listener.accept().map(|_| ())
            }),
            Party::Fiber(1).start(&runtime, move || {
                let _b = b;
                reader.read(&mut [0]).map(|_| ())
            }),
            Party::Fiber(0).start(&runtime, move || {
                let _c = c;
                loop {
                    writer.write_all(&[0; 65536])?;
                }
            }),
            Party::Fiber(1).start(&runtime, move || {
                let _d = d;
                TcpStream::connect(full_addr).map(|_| ())
            }),
        ];
        // The writer is in its wait when the buffers are full: its peer has then something.
        writer_peer.read_exact(&mut [0; 65536]).unwrap();
        runtime.shutdown(None).unwrap();
        for fiber in fibers {
            assert!(fiber.outcome().unwrap_err().is::<Cancelled>());
        }
        assert_eq!(unwound.load(SeqCst), 4);
        assert_eq!(reader_peer.read(&mut [0]).unwrap(), 0, "its stream was closed");
        io::copy(&mut writer_peer, &mut io::sink()).unwrap();
    }
}

#[test]
fn handles_outlive_their_runtime() {
    let (mut ours, mut peer) = pair();
    for workers in [1, 2] {
        let runtime = runtime(workers);
        peer.write_all(b"xy").unwrap();
        ours = Party::Fiber(workers - 1)
            .start(&runtime, move || {
                ours.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
                assert_eq!(ours.read(&mut [0; 64]).unwrap(), 2);
                assert_eq!(kind(ours.read(&mut [0; 64])), ErrorKind::WouldBlock);
                ours
            })
            .join();
        runtime.shutdown(None).unwrap();
    }
    peer.write_all(b"z").unwrap();
    assert_eq!(ours.read(&mut [0; 64]).unwrap(), 1);
}

#[test]
fn without_a_reactor_a_wait_is_an_error() {
    let runtime = strands_sched::Builder::new().workers(1).build().unwrap();
    let waited = runtime.run(SpawnOptions::default(), || kind(listen().0.accept())).unwrap();
    assert_eq!(waited, ErrorKind::Unsupported);
    let selected = runtime.run(SpawnOptions::default(), || {
        let (listener, _) = listen();
        strands::select! { ready = readable(listener) => kind(ready) }
    });
    assert_eq!(selected.unwrap(), ErrorKind::Unsupported);
}

// As std's.

#[test]
fn addresses_and_errors_are_those_of_std() {
    let runtime = runtime(2);
    for party in PARTIES {
        let running = party.start(&runtime, || {
            for text in
                ["127.0.0.1:80", "[::1]:8", "localhost:443", "x", "127.0.0.1", "a:b", "1:2:3"]
            {
                let ours = text.to_socket_addrs().map(|addrs| addrs.collect::<Vec<_>>());
                let its = std::net::ToSocketAddrs::to_socket_addrs(text)
                    .map(|addrs| addrs.collect::<Vec<_>>());
                match (ours, its) {
                    (Ok(ours), Ok(its)) => assert_eq!(ours, its, "of {text}"),
                    (ours, its) => {
                        let (ours, its) = (ours.unwrap_err(), its.unwrap_err());
                        assert_eq!(ours.kind(), its.kind(), "of {text}");
                        assert_eq!(ours.to_string(), its.to_string(), "of {text}");
                    }
                }
            }
            let none: &[SocketAddr] = &[];
            for (ours, its) in [
                (
                    TcpStream::connect(none).unwrap_err(),
                    std::net::TcpStream::connect(none).unwrap_err(),
                ),
                (
                    TcpListener::bind(none).unwrap_err(),
                    std::net::TcpListener::bind(none).unwrap_err(),
                ),
            ] {
                assert_eq!((ours.kind(), ours.to_string()), (its.kind(), its.to_string()));
            }

            let (listener, addr) = listen();
            let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let stream = TcpStream::connect(&[refused, addr][..]).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), addr);
            let error = TcpStream::connect(&[refused, refused][..]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
            // Refused at once.
            let everybody = "255.255.255.255:1";
            assert_eq!(
                TcpStream::connect(everybody).unwrap_err().raw_os_error(),
                std::net::TcpStream::connect(everybody).unwrap_err().raw_os_error()
            );
            assert_eq!(kind(TcpListener::bind(addr)), ErrorKind::AddrInUse);
            let other = TcpListener::bind(&[addr, "127.0.0.1:0".parse().unwrap()][..]).unwrap();
            assert_ne!(other.local_addr().unwrap(), addr);
            for addrs in [
                ("127.0.0.1", addr.port()).to_socket_addrs().unwrap().collect::<Vec<_>>(),
                (String::from("127.0.0.1"), addr.port()).to_socket_addrs().unwrap().collect(),
                (addr.ip(), addr.port()).to_socket_addrs().unwrap().collect(),
                addr.to_string().to_socket_addrs().unwrap().collect(),
                (&&addr).to_socket_addrs().unwrap().collect(),
            ] {
                assert_eq!(addrs, [addr]);
            }
            drop(listener);
        });
        running.join();
    }
    runtime.shutdown(None).unwrap();
}

#[test]
fn peek_takes_nothing_and_vectors_are_filled_in_order() {
    let runtime = runtime(2);
    for party in PARTIES {
        let running = party.start(&runtime, || {
            let (mut ours, mut peer) = pair();
            let bufs = [IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"llo")];
            assert_eq!(ours.write_vectored(&bufs).unwrap(), 5);
            let mut got = [0; 5];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"hello");
            let many = vec![IoSlice::new(b"x"); 3000];
            assert_eq!(ours.write_vectored(&many).unwrap(), 1024);
            io::copy(&mut (&peer).take(1024), &mut io::sink()).unwrap();

            peer.write_all(b"world").unwrap();
            for _ in 0..2 {
                let mut start = [0; 3];
                assert_eq!(ours.peek(&mut start).unwrap(), 3);
                assert_eq!(&start, b"wor");
            }
            let (mut a, mut b) = ([0; 2], [0; 8]);
            let mut into = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
            assert_eq!(ours.read_vectored(&mut into).unwrap(), 5);
            assert_eq!((&a, &b[..3]), (b"wo", &b"rld"[..]));
            let late = std::thread::spawn(move || {
                peer.write_all(b"!").unwrap();
                peer
            });
            assert_eq!(ours.peek(&mut [0; 8]).unwrap(), 1);
            assert_eq!(ours.read(&mut [0; 8]).unwrap(), 1);
            drop(late.join().unwrap());
            assert_eq!(ours.peek(&mut [0; 8]).unwrap(), 0);
        });
        running.join();
    }
    runtime.shutdown(None).unwrap();
}

#[test]
fn options_are_those_of_the_socket() {
    let (ours, _peer) = pair();
    let clone = ours.try_clone().unwrap();
    ours.set_nodelay(true).unwrap();
    ours.set_ttl(77).unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    ours.set_write_timeout(Some(Duration::from_secs(6))).unwrap();
    assert!(clone.nodelay().unwrap());
    assert_eq!(clone.ttl().unwrap(), 77);
    assert_eq!(clone.read_timeout().unwrap(), Some(Duration::from_secs(5)));
    assert_eq!(clone.write_timeout().unwrap(), Some(Duration::from_secs(6)));
    assert!(clone.take_error().unwrap().is_none());
    #[cfg(target_os = "linux")]
    for on in [false, true] {
        use strands::os::linux::net::TcpStreamExt;
        ours.set_quickack(on).unwrap();
        assert_eq!(clone.quickack().unwrap(), on);
    }
    let its: std::net::TcpStream = clone.into();
    assert_eq!(its.read_timeout().unwrap(), Some(Duration::from_secs(5)));
    assert_eq!(
        format!("{ours:?}").replace(&fd_text(&ours), ""),
        format!("{its:?}").replace(&fd_text(&its), "")
    );
    let (listener, _) = listen();
    listener.set_ttl(66).unwrap();
    assert_eq!(listener.ttl().unwrap(), 66);
    assert!(listener.take_error().unwrap().is_none());
    let its: std::net::TcpListener = listener.try_clone().unwrap().into();
    assert_eq!(
        format!("{listener:?}").replace(&fd_text(&*listener), ""),
        format!("{its:?}").replace(&fd_text(&its), "")
    );
    assert!(format!("{:?}", listener.incoming()).starts_with("Incoming { listener: TcpListener {"));
    #[allow(deprecated)]
    if let Ok(its) = std::net::TcpListener::bind("[::1]:0") {
        let ours = TcpListener::bind("[::1]:0").unwrap();
        assert_eq!(ours.only_v6().unwrap(), its.only_v6().unwrap());
        let [ours, its] = [ours.set_only_v6(true), its.set_only_v6(true)];
        assert_eq!(ours.map_err(|error| error.kind()), its.map_err(|error| error.kind()));
    }

    fn fd_text(fd: &impl AsRawFd) -> String {
        format!("fd: {}", fd.as_raw_fd())
    }
}

#[test]
fn closed_on_exec() {
    let (listener, addr) = listen();
    let stream = TcpStream::connect(addr).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let clone = stream.try_clone().unwrap();
    for fd in [listener.as_fd(), stream.as_fd(), accepted.as_fd(), clone.as_fd()] {
        // SAFETY: plain call.
        assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
    }
}

fn blocks(fd: &impl AsRawFd) -> bool {
    // SAFETY: plain call.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) & libc::O_NONBLOCK == 0 }
}

#[test]
fn handles_convert_to_stds_and_back() {
    let runtime = runtime(2);
    for party in PARTIES {
        let running = party.start(&runtime, || {
            let (listener, addr) = listen();
            let connected = TcpStream::connect(addr).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            accepted.set_read_timeout(Some(Duration::from_micros(10))).unwrap();
            assert!((&accepted).read(&mut [0]).is_err(), "it has waited, so it is registered");
            accepted.set_read_timeout(None).unwrap();
            let mut accepted = std::net::TcpStream::from(accepted);
            let connected = std::net::TcpStream::from(connected);
            assert!(blocks(&accepted) && blocks(&connected));

            let mut ours = TcpStream::from(connected.try_clone().unwrap());
            assert!(blocks(&connected), "its clone's mode did not change");
            accepted.write_all(b"x").unwrap();
            assert_eq!(ours.read(&mut [0; 4]).unwrap(), 1);
            drop(ours);

            connected.set_nonblocking(true).unwrap();
            let fd = connected.into_raw_fd();
            // SAFETY: just taken out.
            let mut ours = unsafe { TcpStream::from_raw_fd(fd) };
            assert_eq!(kind(ours.read(&mut [0; 4])), ErrorKind::WouldBlock);
            ours.set_nonblocking(false).unwrap();
            let fd = ours.into_raw_fd();
            // SAFETY: just taken out.
            let its = unsafe { OwnedFd::from_raw_fd(fd) };
            assert!(blocks(&its));

            // A clone of a listener becomes blocking: the other goes on.
            let its = std::net::TcpListener::from(listener.try_clone().unwrap());
            assert!(blocks(&its));
            listener.set_nonblocking(true).unwrap();
            assert_eq!(kind(listener.accept()), ErrorKind::WouldBlock);
            listener.set_nonblocking(false).unwrap();
            let client = std::thread::spawn(move || std::net::TcpStream::connect(addr).unwrap());
            listener.accept().unwrap();
            client.join().unwrap();
            its.set_nonblocking(true).unwrap();
            assert_eq!(kind(TcpListener::from(its).accept()), ErrorKind::WouldBlock);
        });
        running.join();
    }
    runtime.shutdown(None).unwrap();
}

#[test]
fn other_sockets_in_a_stream_are_not_taken_for_drained() {
    let runtime = runtime(1);
    runtime
        .run(SpawnOptions::default(), || {
            // A read from a unix socket stops before a message with descriptors.
            let (ours, peer) = std::os::unix::net::UnixStream::pair().unwrap();
            let mut ours = TcpStream::from(OwnedFd::from(ours));
            let reading = spawn(move || {
                let mut all = Vec::new();
                let mut some = [0; 64];
                while !all.ends_with(b"z") {
                    let bytes = ours.read(&mut some).unwrap();
                    all.extend_from_slice(&some[..bytes]);
                }
            });
            yield_now();
            (&peer).write_all(b"a").unwrap();
            let passed = [peer.as_fd()];
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
            control.push(rustix::net::SendAncillaryMessage::ScmRights(&passed));
            let flags = rustix::net::SendFlags::empty();
            rustix::net::sendmsg(&peer, &[IoSlice::new(b"yz")], &mut control, flags).unwrap();
            reading.join().unwrap();
        })
        .unwrap();
}

#[test]
fn auto_traits_are_those_of_std() {
    use std::panic::{RefUnwindSafe, UnwindSafe};
    fn check<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
    check::<TcpStream>();
    check::<TcpListener>();
    check::<strands::net::Incoming<'static>>();
}

// A loop over ready sockets starves nobody.

#[test]
fn a_stream_that_is_always_ready_lets_others_run() {
    let runtime = runtime(1);
    runtime
        .run(SpawnOptions::default(), || {
            let (mut ours, mut peer) = pair();
            let stop = Arc::new(AtomicBool::new(false));
            let seen = stop.clone();
            let other = spawn(move || seen.store(true, SeqCst));
            while !stop.load(SeqCst) {
                // Never waits: what it writes is read by the same loop.
                ours.write_all(b"x").unwrap();
                peer.read_exact(&mut [0]).unwrap();
            }
            other.join().unwrap();
        })
        .unwrap();
}

/// Calls that want no bytes: what they return, and which of them wait.
#[test]
fn reads_of_nothing_are_those_of_std() {
    fn outcomes(mut read: impl FnMut(bool, &mut [u8]) -> io::Result<usize>) -> [usize; 2] {
        [false, true].map(|vectored| read(vectored, &mut []).unwrap())
    }
    let timeout = Some(Duration::from_millis(20));
    let (mut ours, _peer) = pair();
    let (_other, mut stds) = pair();
    ours.set_read_timeout(timeout).unwrap();
    stds.set_read_timeout(timeout).unwrap();
    let expected = outcomes(|vectored, buf| match vectored {
        true => stds.read_vectored(&mut [IoSliceMut::new(buf)]),
        false => stds.read(buf).and_then(|bytes| Ok(bytes + stds.peek(&mut [])?)),
    });
    let got = outcomes(|vectored, buf| match vectored {
        true => ours.read_vectored(&mut [IoSliceMut::new(buf)]),
        false => ours.read(buf).and_then(|bytes| Ok(bytes + ours.peek(&mut [])?)),
    });
    assert_eq!(got, expected);
    ours.set_read_timeout(None).unwrap();
    assert_eq!(ours.read_vectored(&mut []).unwrap(), 0, "it does not wait");
}

/// Whoever set it to linger, and however it is closed: others of the worker run meanwhile, or here
/// nobody would end it.
#[test]
fn to_close_what_lingers_blocks_no_worker() {
    const LONG: Option<Duration> = Some(Duration::from_secs(3_600));
    let accepted = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&listener).set_linger(LONG).unwrap();
        let listener = TcpListener::from(listener);
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, peer)
    };
    let by_dropping: fn(TcpStream) = drop;
    let by_closing = |stream: TcpStream| stream.close();
    let by_clones = |stream: TcpStream| {
        let clone = stream.try_clone().unwrap();
        drop(stream);
        drop(clone);
    };
    let by_a_clone_made_before = |stream: TcpStream| {
        let clone = stream.try_clone().unwrap();
        socket2::SockRef::from(&stream).set_linger(LONG).unwrap();
        drop(stream);
        drop(clone);
    };
    runtime(1)
        .run(SpawnOptions::default(), || {
            for close in [by_dropping, by_closing, by_clones, by_a_clone_made_before] {
                let adopted = pair();
                socket2::SockRef::from(&adopted.0).set_linger(LONG).unwrap();
                for (mut stream, peer) in [adopted, accepted()] {
                    stream.set_nonblocking(true).unwrap();
                    while stream.write(&[0; 1 << 16]).is_ok() {}
                    let ends =
                        strands_sched::spawn_local(SpawnOptions::default(), move || drop(peer));
                    close(stream);
                    ends.unwrap().join().unwrap();
                }
            }
        })
        .unwrap();
}
