//! What a source promises its waiters, on the default backend and on mio, on every system: fibers
//! of several workers and plain threads wait at once, and none is forgotten.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags};
use strands_reactor::{Backend, Direction, First, Limit, Request, Source, driver_factory};
use strands_sched::{Builder, Op, Placement, Runtime, SpawnOptions, spawn_on};

const WORKERS: usize = 2;

/// Does `test` on each backend that there is always.
fn with_backends(test: fn(&Runtime)) {
    for backend in [Backend::Auto, Backend::Mio] {
        let driver = driver_factory(backend);
        let runtime = Builder::new().workers(WORKERS).driver(driver).build().unwrap();
        let named = backend != Backend::Mio || runtime.describe().contains("mio");
        assert!(named, "{}", runtime.describe());
        test(&runtime);
        runtime.shutdown(None).unwrap();
    }
}

/// Runs `f` as a fiber of that worker, or on a plain thread if there is no such worker.
fn start<T: Send + 'static>(
    runtime: &Runtime,
    at: usize,
    f: impl FnOnce() -> T + Send + 'static,
) -> mpsc::Receiver<T> {
    let (done, result) = mpsc::channel();
    let f = move || {
        let _ = done.send(f());
    };
    if at < WORKERS {
        let placement = Placement::Worker(at);
        let options = SpawnOptions { placement, ..SpawnOptions::default() };
        drop(spawn_on(runtime.shared(), options, f).unwrap());
    } else {
        thread::spawn(f);
    }
    result
}

struct Socket(Source);

impl Socket {
    fn new(socket: impl Into<rustix::fd::OwnedFd>) -> Arc<Socket> {
        let fd = socket.into();
        rustix::io::ioctl_fionbio(&fd, true).unwrap();
        Arc::new(Socket(Source::new(fd)))
    }

    fn request(direction: Direction, limit: Limit) -> Request {
        static OP: Op = Op("test");
        Request { op: &OP, direction, limit, first: First::Try }
    }

    fn read_within(&self, limit: Limit, buf: &mut [u8]) -> io::Result<usize> {
        self.0.perform(&Socket::request(Direction::Read, limit), |fd| {
            rustix::net::recv(fd, &mut *buf, RecvFlags::empty()).map(|(_, bytes)| bytes)
        })
    }

    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_within(Limit::None, buf)
    }

    fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let request = Socket::request(Direction::Write, Limit::None);
            let sent =
                self.0.perform(&request, |fd| rustix::net::send(fd, data, SendFlags::empty()))?;
            data = &data[sent..];
        }
        Ok(())
    }

    fn shutdown(&self) {
        rustix::net::shutdown(self.0.open_fd().unwrap(), rustix::net::Shutdown::Write).unwrap();
    }

    fn accept(&self) -> io::Result<Arc<Socket>> {
        let request = Socket::request(Direction::Read, Limit::None);
        self.0.perform(&request, |fd| rustix::net::accept(fd)).map(Socket::new)
    }
}

/// Ours, and a peer of std's.
fn pair() -> (Arc<Socket>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (Socket::new(listener.accept().unwrap().0), peer)
}

#[test]
fn a_socket_is_waited_at_over_and_over() {
    with_backends(|runtime| {
        for at in 0..=WORKERS {
            let (ours, mut peer) = pair();
            let echo = start(runtime, at, move || {
                let mut buf = [0; 8];
                loop {
                    match ours.read(&mut buf).unwrap() {
                        0 => return,
                        bytes => ours.write_all(&buf[..bytes]).unwrap(),
                    }
                }
            });
            for i in 0..300_u64 {
                peer.write_all(&i.to_ne_bytes()).unwrap();
                let mut answer = [0; 8];
                peer.read_exact(&mut answer).unwrap();
                assert_eq!(u64::from_ne_bytes(answer), i);
            }
            peer.shutdown(Shutdown::Write).unwrap();
            echo.recv().unwrap();
        }
    });
}

#[test]
fn both_directions_are_waited_for_at_once() {
    const BYTES: usize = 4 << 20;
    with_backends(|runtime| {
        for (reader, writer) in [(0, 0), (0, 1), (1, 2), (2, 0)] {
            let (ours, peer) = pair();
            let (mut peer_reads, mut peer_writes) = (peer.try_clone().unwrap(), peer);
            let echo = thread::spawn(move || {
                io::copy(&mut peer_reads, &mut peer_writes).unwrap();
                peer_writes.shutdown(Shutdown::Write).unwrap();
            });
            let its = ours.clone();
            let writing = start(runtime, writer, move || {
                its.write_all(&vec![7; BYTES]).unwrap();
                its.shutdown();
            });
            let reading = start(runtime, reader, move || {
                let (mut total, mut buf) = (0, vec![0; 65536]);
                loop {
                    match ours.read(&mut buf).unwrap() {
                        0 => return total,
                        bytes => total += bytes,
                    }
                }
            });
            writing.recv().unwrap();
            assert_eq!(reading.recv().unwrap(), BYTES);
            echo.join().unwrap();
        }
    });
}

#[test]
fn many_readers_share_what_comes_and_all_see_the_end() {
    with_backends(|runtime| {
        let (ours, mut peer) = pair();
        let reading: Vec<_> = (0..9)
            .map(|i| {
                let ours = ours.clone();
                start(runtime, i % 3, move || {
                    let mut total = 0;
                    loop {
                        match ours.read(&mut [0; 3]).unwrap() {
                            0 => return total,
                            bytes => total += bytes,
                        }
                    }
                })
            })
            .collect();
        for i in 0..500 {
            peer.write_all(&[0; 10][..1 + i % 10]).unwrap();
        }
        drop(peer);
        let total: usize = reading.into_iter().map(|reading| reading.recv().unwrap()).sum();
        assert_eq!(total, (0..500).map(|i| 1 + i % 10).sum());
    });
}

#[test]
fn one_burst_of_connections_serves_all_that_accept() {
    with_backends(|runtime| {
        for _ in 0..20 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let listener = Socket::new(listener);
            let accepting: Vec<_> = (0..9)
                .map(|i| {
                    let listener = listener.clone();
                    start(runtime, i % 3, move || listener.accept().unwrap().write_all(b"!"))
                })
                .collect();
            let clients: Vec<_> = (0..9).map(|_| TcpStream::connect(addr).unwrap()).collect();
            for mut client in clients {
                client.read_exact(&mut [0]).unwrap();
            }
            accepting.into_iter().for_each(|accepting| accepting.recv().unwrap().unwrap());
        }
    });
}

#[test]
fn a_wait_that_timed_out_leaves_the_others_in_line() {
    with_backends(|runtime| {
        for at in 0..=WORKERS {
            let (ours, mut peer) = pair();
            let its = ours.clone();
            let patient = start(runtime, at, move || its.read(&mut [0; 8]).unwrap());
            let hasty = start(runtime, at, move || {
                for time in [100, 3_000].map(Duration::from_micros) {
                    let start = Instant::now();
                    let result = ours.read_within(Limit::Within(time), &mut [0]);
                    assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock);
                    assert!(start.elapsed() >= time);
                }
            });
            hasty.recv().unwrap();
            peer.write_all(b"at last").unwrap();
            assert_eq!(patient.recv().unwrap(), 7);
        }
    });
}

#[test]
fn a_close_ends_all_waits_and_the_connection() {
    with_backends(|runtime| {
        for _ in 0..20 {
            let (ours, mut peer) = pair();
            let waiting: Vec<_> = (0..6)
                .map(|i| {
                    let ours = ours.clone();
                    start(runtime, i % 3, move || ours.read(&mut [0]).unwrap_err().kind())
                })
                .collect();
            assert!(format!("{:?}", ours.0).ends_with("closed: false }"));
            ours.0.close();
            assert!(format!("{:?}", ours.0).ends_with("closed: true }"));
            for waiting in waiting {
                assert_eq!(waiting.recv().unwrap(), ErrorKind::NotConnected);
            }
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        }
    });
}

#[test]
fn a_reset_ends_readers() {
    with_backends(|runtime| {
        for at in 0..=WORKERS {
            let (ours, peer) = pair();
            let its = ours.clone();
            let reading = start(runtime, at, move || ours.read(&mut [0]).map_err(|e| e.kind()));
            // What it has not read makes the peer's end a reset.
            its.write_all(b"unread").unwrap();
            peer.peek(&mut [0]).unwrap();
            drop(peer);
            let result = reading.recv().unwrap();
            // wine makes an end of it.
            assert!(matches!(result, Ok(0) | Err(ErrorKind::ConnectionReset)), "{result:?}");
        }
    });
}
