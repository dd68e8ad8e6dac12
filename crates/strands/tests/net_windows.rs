//! TCP on Windows, where sockets, their modes and the way to wait for them differ from all that
//! `net.rs` tests: from fibers on several workers and from plain threads.

#![cfg(windows)]

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::windows::io::{AsRawSocket, AsSocket, FromRawSocket, IntoRawSocket, OwnedSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use strands::net::{TcpListener, TcpStream};
use strands::{Runtime, spawn};

fn listen() -> (Arc<TcpListener>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (Arc::new(listener), addr)
}

fn pair() -> (TcpStream, TcpStream) {
    let (listener, addr) = listen();
    let connecting = thread::spawn(move || TcpStream::connect(addr).unwrap());
    (listener.accept().unwrap().0, connecting.join().unwrap())
}

/// On a plain thread, on one worker and on two.
fn everywhere(f: fn()) {
    f();
    for workers in [1, 2] {
        Runtime::builder().workers(workers).build().unwrap().run(f);
    }
}

#[test]
fn many_connections_echo() {
    fn echo() {
        const CLIENTS: usize = 8;
        const ROUNDS: usize = 10;
        let (listener, addr) = listen();
        let server = spawn(move || {
            let serving: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    let (stream, _) = listener.accept().unwrap();
                    spawn(move || std::io::copy(&mut &stream, &mut &stream).unwrap())
                })
                .collect();
            serving.into_iter().map(|fiber| fiber.join().unwrap()).sum::<u64>()
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                spawn(move || {
                    let mut stream = TcpStream::connect(addr).unwrap();
                    for round in 0..ROUNDS {
                        let sent = [(client + round) as u8; 100];
                        let mut received = [0; 100];
                        stream.write_all(&sent).unwrap();
                        stream.read_exact(&mut received).unwrap();
                        assert_eq!(received, sent);
                    }
                    stream.shutdown(Shutdown::Write).unwrap();
                    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        assert_eq!(server.join().unwrap(), (CLIENTS * ROUNDS * 100) as u64);
    }
    everywhere(echo);
}

#[test]
fn more_than_the_buffers_hold_arrives_through_several_buffers() {
    everywhere(|| {
        const BYTES: usize = 1 << 20;
        let (mut ours, mut theirs) = pair();
        let writing = spawn(move || {
            let (a, b) = ([1u8; 3000], [2u8; 5000]);
            let mut left = BYTES;
            while left > 0 {
                let bufs = [IoSlice::new(&a), IoSlice::new(&b[..left.min(5000)])];
                left -= theirs.write_vectored(&bufs).unwrap().min(left);
            }
        });
        let (mut a, mut b) = ([0u8; 100], [0u8; 4000]);
        let mut bytes = 0;
        loop {
            let mut bufs = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
            match ours.read_vectored(&mut bufs).unwrap() {
                0 => break,
                read => bytes += read,
            }
        }
        writing.join().unwrap();
        assert!(bytes >= BYTES, "{bytes}");
    });
}

#[test]
fn limits_are_kept_and_modes_are_ours() {
    everywhere(|| {
        let (mut ours, mut theirs) = pair();
        let limit = Duration::from_millis(20);
        ours.set_read_timeout(Some(limit)).unwrap();
        let start = Instant::now();
        assert_eq!(ours.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(start.elapsed() >= limit);
        ours.set_read_timeout(None).unwrap();
        ours.set_nonblocking(true).unwrap();
        assert_eq!(ours.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        ours.set_nonblocking(false).unwrap();
        let late = thread::spawn(move || {
            theirs.write_all(b"x").unwrap();
            theirs
        });
        assert_eq!(ours.read(&mut [0; 4]).unwrap(), 1);
        drop(late.join().unwrap());

        // Nobody listens there any more.
        let (listener, addr) = listen();
        drop(listener);
        assert!(TcpStream::connect(addr).is_err());
    });
}

#[test]
fn close_ends_a_wait() {
    everywhere(|| {
        let (ours, _theirs) = pair();
        let ours = Arc::new(ours);
        let its = ours.clone();
        let reading = spawn(move || (&*its).read(&mut [0]).map_err(|error| error.kind()));
        ours.close();
        // 0 if the end of the connection came first.
        assert!(matches!(reading.join().unwrap(), Ok(0) | Err(ErrorKind::NotConnected)));
        assert_eq!((&*ours).read(&mut [0]).unwrap_err().kind(), ErrorKind::NotConnected);
    });
}

#[test]
fn handles_convert_to_stds_and_back() {
    everywhere(|| {
        let (ours, theirs) = pair();
        assert_eq!(ours.as_raw_socket(), ours.as_socket().as_raw_socket());
        assert!(format!("{ours:?}").contains("socket: "));
        // A std stream blocks: the byte comes later than the read begins.
        let mut std_ours = std::net::TcpStream::from(ours);
        let reading = thread::spawn(move || {
            assert_eq!(std_ours.read(&mut [0; 4]).unwrap(), 1);
            std_ours
        });
        (&theirs).write_all(b"x").unwrap();
        let mut ours = TcpStream::from(reading.join().unwrap());
        (&theirs).write_all(b"yz").unwrap();
        assert_eq!(ours.read(&mut [0; 4]).unwrap(), 2);
        let raw = OwnedSocket::from(ours).into_raw_socket();
        // SAFETY: just taken out.
        let mut ours = unsafe { TcpStream::from_raw_socket(raw) };
        drop(theirs);
        assert_eq!(ours.read(&mut [0; 4]).unwrap(), 0);

        let (listener, addr) = listen();
        let its = std::net::TcpListener::from(listener.try_clone().unwrap());
        let connecting = thread::spawn(move || TcpStream::connect(addr).unwrap());
        its.accept().unwrap();
        connecting.join().unwrap();
    });
}
