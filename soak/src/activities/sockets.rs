//! TCP on loopback: a server that echoes, clients that look at every byte, and some who leave.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use strands::net::{TcpListener, TcpStream};

use crate::activities::spawning::pause;
use crate::books::{self, Count, check, violation};
use crate::party::{Home, Party, Started, accepted, others_may_be_gone};

struct Service {
    listener: TcpListener,
    /// Somebody left before all was said, so others may meet errors.
    somebody_left: AtomicBool,
}

impl Service {
    /// Whether a connection may break.
    fn is_excused(&self) -> bool {
        self.somebody_left.load(SeqCst) || others_may_be_gone()
    }
}

/// Closes the listener in the end, however that comes: the server must not wait for clients that
/// are gone, nor clients in its backlog for a server that is.
struct Closes(Arc<Service>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.listener.close();
    }
}

/// A server and its clients.
pub fn echo(party: &mut Party) {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(address).expect("a port on loopback is free");
    let address = listener.local_addr().expect("a listener has an address");
    let service = Arc::new(Service { listener, somebody_left: AtomicBool::new(false) });
    // Closed when the server goes, also if that is before it serves: starting a client may be cut
    // by a cancel, and those that have started would wait in the backlog.
    let server_closes = Closes(service.clone());
    // And closed when the last client goes.
    let clients_closes = Arc::new(Closes(service.clone()));
    let mut clients: Vec<Started<()>> = Vec::new();
    for _ in 0..party.rng.u32(1..6) {
        let (closes, service) = (clients_closes.clone(), service.clone());
        clients.extend(party.start(move |party| {
            let _closes = closes;
            for _ in 0..party.rng.u32(1..4) {
                if let Err(error) = client(party, address, &service) {
                    check(service.is_excused(), || format!("a client met an error: {error:?}"));
                    return;
                }
            }
        }));
    }
    drop(clients_closes);
    serve(party, server_closes);
    for client in clients {
        client.join();
    }
}

fn serve(party: &mut Party, closes: Closes) {
    let service = &closes.0;
    let mut handlers = Vec::new();
    loop {
        let stream = match service.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::NotConnected => break,
            Err(error) => {
                violation(format_args!("accept met an error: {error:?}"));
                break;
            }
        };
        let its = service.clone();
        handlers.extend(party.start(move |party| {
            if let Err(error) = handle(party, &stream) {
                check(its.is_excused(), || format!("a server met an error: {error:?}"));
            }
        }));
    }
    for handler in handlers {
        handler.join();
    }
}

fn handle(party: &mut Party, mut stream: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; party.rng.usize(1..16_384)];
    loop {
        let read = match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => read,
        };
        pause(party);
        stream.write_all(&buffer[..read])?;
        books::add(Count::Bytes, read as u64);
    }
}

fn client(party: &mut Party, address: SocketAddr, service: &Service) -> io::Result<()> {
    let stream = match party.rng.bool() {
        true => TcpStream::connect(address)?,
        false => TcpStream::connect_timeout(&address, Duration::from_secs(600))?,
    };
    books::count(Count::Connections);
    let mut pattern = Pattern(party.rng.u64(..));
    let mut expected = pattern.clone();
    match party.rng.u32(..8) {
        0 => {
            // Leaves in the middle, with bytes on the way.
            service.somebody_left.store(true, SeqCst);
            let mut bytes = vec![0; party.rng.usize(1..100_000)];
            pattern.fill(&mut bytes);
            (&stream).write_all(&bytes)?;
            if party.rng.bool() {
                stream.close();
            }
            Ok(())
        }
        1..3 => {
            // Reads and writes at once, so that either side fills the kernel's buffers.
            let length = party.rng.usize(1..400_000);
            let home = if party.is_fiber() { party.home() } else { Home::Default };
            let (builder, writer) = (party.builder(), &stream);
            let (_, _, write) = party.body(home, move |party| {
                let mut left = length;
                while left > 0 {
                    let mut bytes = vec![0; party.rng.usize(1..30_000).min(left)];
                    pattern.fill(&mut bytes);
                    let mut writer = writer;
                    if let Err(error) = writer.write_all(&bytes) {
                        check(service.is_excused(), || format!("a writer met {error:?}"));
                        return;
                    }
                    left -= bytes.len();
                }
                if let Err(error) = writer.shutdown(Shutdown::Write) {
                    check(service.is_excused(), || format!("a shutdown met {error:?}"));
                }
            });
            strands::scope(|scope| {
                if accepted(builder.spawn_scoped(scope, write)).is_none() {
                    return Ok(());
                }
                let mut read = 0;
                let mut buffer = vec![0; 20_000];
                while read < length {
                    let count = (&stream).read(&mut buffer)?;
                    if count == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    expected.compare(&buffer[..count]);
                    read += count;
                }
                check(read == length, || format!("{read} bytes came back of {length}"));
                Ok(())
            })
        }
        _ => {
            for _ in 0..party.rng.u32(1..30) {
                let mut bytes = vec![0; party.rng.usize(1..2_000)];
                pattern.fill(&mut bytes);
                (&stream).write_all(&bytes)?;
                read_exact(party, &stream, &mut bytes)?;
                expected.compare(&bytes);
            }
            Ok(())
        }
    }
}

/// With time limits, which may pass often, but not early.
fn read_exact(party: &mut Party, mut stream: &TcpStream, bytes: &mut [u8]) -> io::Result<()> {
    let timeout = Duration::from_micros(party.rng.u64(1..2_000));
    stream.set_read_timeout((party.rng.u32(..4) == 0).then_some(timeout))?;
    let limited = stream.read_timeout()?.is_some();
    let mut filled = 0;
    while filled < bytes.len() {
        let start = Instant::now();
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if limited && error.kind() == io::ErrorKind::WouldBlock => {
                let took = start.elapsed();
                check(took >= timeout, || format!("{timeout:?} were over after {took:?}"));
                books::count(Count::Timers);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Bytes that can be told again from their beginning.
#[derive(Clone)]
struct Pattern(u64);

impl Pattern {
    fn next(&mut self) -> u8 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 56) as u8
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.next());
    }

    fn compare(&mut self, bytes: &[u8]) {
        if bytes.iter().filter(|byte| **byte != self.next()).count() > 0 {
            violation("bytes came back changed");
        }
    }
}
