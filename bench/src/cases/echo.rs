//! TCP echo over loopback, 64 bytes a message: the server's CPU time.
//!
//! Two processes. The server runs on the first core with one worker; it is the program that differs
//! from peer to peer. The client, a plain epoll loop and the same for all, runs on the last core:
//! every connection has one message under way at all times. The figure is the CPU time of the whole
//! server process, its kernel's share included, by message.
//!
//! Two processes also because 10,000 connections have 20,000 ends, and a process may hold so many
//! files in few places.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::{configure_may, spawn_thread, tokio_runtime};
use crate::measure::{self, Figures, Latencies, cpu_of};
use crate::{Case, Peer, Plan, Row};

pub const CASES: &[Case] = &[
    case("echo/50", "TCP echo 64 B, 50 connections, server CPU", CPU, 50),
    case("echo/1000", "TCP echo 64 B, 1,000 connections, server CPU", CPU, 1_000),
    case("echo/10000", "TCP echo 64 B, 10,000 connections, server CPU", CPU_AND_TAIL, 10_000),
];

const CPU: &[Row] = &[Row { figure: "server_cpu", label: "", unit: "µs" }];

const CPU_AND_TAIL: &[Row] = &[
    Row { figure: "server_cpu", label: "", unit: "µs" },
    Row { figure: "p99", label: "p99 latency", unit: "ms" },
];

const fn case(
    name: &'static str,
    title: &'static str,
    rows: &'static [Row],
    connections: usize,
) -> Case {
    Case {
        name,
        title,
        rows,
        plan: Plan::new(0, connections),
        peers: &[
            #[cfg(feature = "strands")]
            (Peer::Strands, |plan| client("strands", plan)),
            (Peer::May, |plan| client("may", plan)),
            (Peer::Tokio, |plan| client("tokio", plan)),
            (Peer::Threads, |plan| client("threads", plan)),
            (Peer::Floor, |plan| client("floor", plan)),
        ],
    }
}

const MESSAGE_BYTES: usize = 64;

/// Every server reads into a buffer of this size, one for each connection but for the floor's.
const BUFFER_BYTES: usize = 1024;

const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

// ---- The servers ----

/// Runs one peer's server for as long as standard input stays open, and prints the port that it
/// listens on.
pub fn serve(peer: &str, core: &str, connections: &str) -> ExitCode {
    measure::settle(crate::LIMIT_S);
    measure::pin(core.parse().expect("the number of a core"));
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let plan = Plan::new(1, connections.parse().expect("a number of connections"));
    let result = match peer {
        #[cfg(feature = "strands")]
        "strands" => strands_server(),
        "may" => may_server(&plan),
        "tokio" => tokio_server(),
        "threads" => threads_server(),
        "floor" => floor_server(),
        _ => Err(io::Error::other("no such server")),
    };
    if let Err(error) = result {
        eprintln!("echo server of {peer}: {error}");
    }
    ExitCode::FAILURE
}

fn announce(address: io::Result<SocketAddr>) -> io::Result<()> {
    println!("{}", address?.port());
    Ok(())
}

#[cfg(feature = "strands")]
fn strands_server() -> io::Result<()> {
    use strands::net::TcpListener;
    super::strands_runtime(1).run(|| {
        let listener = TcpListener::bind(LOCALHOST)?;
        announce(listener.local_addr())?;
        loop {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            drop(strands::spawn(move || {
                let mut buffer = [0; BUFFER_BYTES];
                loop {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => return,
                        Ok(n) if stream.write_all(&buffer[..n]).is_err() => return,
                        Ok(_) => {}
                    }
                }
            }));
        }
    })
}

fn may_server(plan: &Plan) -> io::Result<()> {
    use may::net::TcpListener;
    configure_may(plan, 1);
    // SAFETY: the closures touch no thread-local, and their buffer is a small part of their stack.
    let main = unsafe {
        may::coroutine::spawn(|| -> io::Result<()> {
            let listener = TcpListener::bind(LOCALHOST)?;
            announce(listener.local_addr())?;
            loop {
                let (mut stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                drop(may::coroutine::spawn(move || {
                    let mut buffer = [0; BUFFER_BYTES];
                    loop {
                        match stream.read(&mut buffer) {
                            Ok(0) | Err(_) => return,
                            Ok(n) if stream.write_all(&buffer[..n]).is_err() => return,
                            Ok(_) => {}
                        }
                    }
                }));
            }
        })
    };
    main.join().expect("the accepting coroutine")
}

fn tokio_server() -> io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    let runtime = tokio_runtime(1);
    let main = runtime.spawn(async {
        let listener = TcpListener::bind(LOCALHOST).await?;
        announce(listener.local_addr())?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            drop(tokio::spawn(async move {
                let mut buffer = [0; BUFFER_BYTES];
                loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(n) if stream.write_all(&buffer[..n]).await.is_err() => return,
                        Ok(_) => {}
                    }
                }
            }));
        }
    });
    runtime.block_on(main).expect("the accepting task")
}

fn threads_server() -> io::Result<()> {
    use std::net::TcpListener;
    let listener = TcpListener::bind(LOCALHOST)?;
    announce(listener.local_addr())?;
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        drop(spawn_thread(move || {
            let mut buffer = [0; BUFFER_BYTES];
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => return,
                    Ok(n) if stream.write_all(&buffer[..n]).is_err() => return,
                    Ok(_) => {}
                }
            }
        }));
    }
}

/// Bare epoll, edge-triggered. A read that fills less than the buffer has drained the socket: no
/// second one to hear EAGAIN.
fn floor_server() -> io::Result<()> {
    use std::net::TcpListener;
    let listener = TcpListener::bind(LOCALHOST)?;
    listener.set_nonblocking(true)?;
    announce(listener.local_addr())?;
    let epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), (libc::EPOLLIN | libc::EPOLLET) as u32)?;
    // By file descriptor, which the kernel gives out from the lowest.
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut buffer = [0; BUFFER_BYTES];
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 1024];
    loop {
        for event in epoll.wait(&mut events, None)? {
            let fd = event.u64 as usize;
            if fd == listener.as_raw_fd() as usize {
                while let Some((stream, _)) = unless_would_block(listener.accept())? {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let fd = stream.as_raw_fd();
                    epoll.add(fd, (libc::EPOLLIN | libc::EPOLLET) as u32)?;
                    streams.resize_with(streams.len().max(fd as usize + 1), || None);
                    streams[fd as usize] = Some(stream);
                }
                continue;
            }
            let Some(stream) = &mut streams[fd] else { continue };
            let hung_up =
                event.events & (libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLRDHUP) as u32 != 0;
            loop {
                match unless_would_block(stream.read(&mut buffer)) {
                    Ok(None) => break,
                    Ok(Some(0)) | Err(_) => {
                        streams[fd] = None;
                        break;
                    }
                    Ok(Some(n)) => {
                        // One message under way: the answer always fits the socket's buffer.
                        stream.write_all(&buffer[..n])?;
                        if n < BUFFER_BYTES && !hung_up {
                            break;
                        }
                    }
                }
            }
        }
    }
}

// ---- The client ----

fn client(peer: &str, plan: &Plan) -> Figures {
    let cores = measure::cores();
    let server = Server::start(peer, cores[0], plan.count);
    measure::pin(*cores.last().expect("a core"));
    let result = load(&server, plan)
        .unwrap_or_else(|error| panic!("client of {peer}'s echo server: {error}"));
    if cores.len() == 1 {
        eprintln!("warning: client and server share the only core");
    }
    result
}

/// Messages on `plan.count` connections, one under way on each.
fn load(server: &Server, plan: &Plan) -> io::Result<Figures> {
    let epoll = Epoll::new()?;
    let mut message = [0x5A; MESSAGE_BYTES];
    let mut streams = Vec::with_capacity(plan.count);
    for index in 0..plan.count {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port))?;
        stream.set_nodelay(true)?;
        close_by_reset(&stream)?;
        // One message there and back at once: so the server has accepted this one before the next
        // asks, and no backlog overflows.
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        stream.set_nonblocking(true)?;
        epoll.add_as(stream.as_raw_fd(), index as u64, (libc::EPOLLIN | libc::EPOLLET) as u32)?;
        streams.push((stream, Instant::now()));
    }
    for (stream, sent) in &mut streams {
        *sent = Instant::now();
        stream.write_all(&message)?;
    }

    // The first part warms both sides up: every connection has been served, and the queues have
    // their usual length.
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 1024];
    let mut pump = |until: Instant, latencies: &mut Latencies| -> io::Result<u64> {
        let mut answers = 0;
        loop {
            let ready = epoll.wait(&mut events, Some(Duration::from_secs(10)))?;
            if ready.is_empty() {
                return Err(io::Error::other("the server has not answered for 10 seconds"));
            }
            for event in ready {
                let (stream, sent) = &mut streams[event.u64 as usize];
                match unless_would_block(stream.read(&mut message))? {
                    None => continue,
                    Some(MESSAGE_BYTES) => {}
                    // A message of 64 bytes crosses loopback in one piece; if not, the count below
                    // would lie.
                    Some(n) => return Err(io::Error::other(format!("an answer of {n} bytes"))),
                }
                let now = Instant::now();
                latencies.record((now - *sent).as_nanos() as u64);
                *sent = now;
                stream.write_all(&message)?;
                answers += 1;
            }
            if Instant::now() >= until {
                return Ok(answers);
            }
        }
    };
    let budget = 2 * plan.budget();
    pump(Instant::now() + budget / 4, &mut Latencies::new())?;

    let mut latencies = Latencies::new();
    let (wall, server_cpu, client_cpu) =
        (Instant::now(), cpu_of(server.process.id()), measure::process_cpu());
    let answers = pump(wall + budget, &mut latencies)?;
    let wall = wall.elapsed();
    let server_cpu = cpu_of(server.process.id()) - server_cpu;
    let client_cpu = measure::process_cpu() - client_cpu;

    let micros = |time: Duration| time.as_secs_f64() * 1e6 / answers as f64;
    Ok(Figures::new()
        .with("server_cpu", micros(server_cpu))
        .with("client_cpu", micros(client_cpu))
        .with("wall", micros(wall))
        .with("p50", latencies.quantile(0.5) / 1e6)
        .with("p99", latencies.quantile(0.99) / 1e6)
        .with("answers", answers as f64)
        .with("server_busy", server_cpu.as_secs_f64() / wall.as_secs_f64()))
}

/// This binary again, as the server. Killed when dropped.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(peer: &str, core: usize, connections: usize) -> Server {
        let mut process = Command::new(std::env::current_exe().expect("the path of this program"))
            .args(["echo-server", peer, &core.to_string(), &connections.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again, as the server");
        let mut line = String::new();
        let stdout = process.stdout.as_mut().expect("the server's output is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the server's first line");
        let port = line
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("{peer}'s server did not say its port, but {line:?}"));
        Server { process, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Close by RST: thousands of connections in TIME_WAIT would weigh on the next measurement.
fn close_by_reset(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: `linger` is a valid value of the size passed.
    check(unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

// ---- Bare epoll, for the floor's server and for the client ----

struct Epoll(RawFd);

impl Epoll {
    fn new() -> io::Result<Epoll> {
        // SAFETY: takes no pointers.
        check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Epoll)
    }

    fn add(&self, fd: RawFd, interest: u32) -> io::Result<()> {
        self.add_as(fd, fd as u64, interest)
    }

    fn add_as(&self, fd: RawFd, token: u64, interest: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest, u64: token };
        // SAFETY: `event` is a valid event.
        check(unsafe { libc::epoll_ctl(self.0, libc::EPOLL_CTL_ADD, fd, &mut event) })?;
        Ok(())
    }

    fn wait<'a>(
        &self,
        events: &'a mut [libc::epoll_event],
        timeout: Option<Duration>,
    ) -> io::Result<&'a [libc::epoll_event]> {
        let timeout_ms = timeout.map_or(-1, |timeout| timeout.as_millis() as i32);
        // SAFETY: `events` is valid for as many events as is passed.
        let ready = check(unsafe {
            libc::epoll_wait(self.0, events.as_mut_ptr(), events.len() as i32, timeout_ms)
        })?;
        Ok(&events[..ready as usize])
    }
}

fn check(status: i32) -> io::Result<i32> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(status) }
}

fn unless_would_block<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
