//! The client: as many fibers as connections, each of which sends, waits for the echo, and repeats.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use strands::net::TcpStream;
use strands::sync::Mutex;
use strands::thread;

/// Connections that are being made at once: fewer than a listener queues.
const CONNECTING: usize = 64;
const MESSAGE_BYTES: usize = 64;

/// What one run found. It crosses from process to process as one line of text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Results {
    pub connections: u64,
    pub messages: u64,
    pub seconds: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
}

struct Run {
    address: SocketAddr,
    connected: AtomicUsize,
    failed: AtomicUsize,
    /// Why the first of them did.
    failure: Mutex<Option<io::Error>>,
    go: AtomicBool,
    messages: AtomicU64,
    deadline: Mutex<Option<Instant>>,
    latencies: Mutex<Histogram<u64>>,
}

/// Makes `connections` to `address`, uses all for `seconds`, and prints what it found.
///
/// On the way it prints `connected N` lines, and `running` when it starts to measure.
pub fn drive(address: SocketAddr, connections: usize, seconds: u64) -> Result<(), String> {
    try_out(address).map_err(|error| {
        let why = match error.kind() {
            ErrorKind::WouldBlock => "it does not echo what it is sent".into(),
            ErrorKind::UnexpectedEof => "it hangs up".into(),
            _ => error.to_string(),
        };
        format!("cannot use the server at {address}: {why}")
    })?;
    let run = Arc::new(Run {
        address,
        connected: AtomicUsize::new(0),
        failed: AtomicUsize::new(0),
        failure: Mutex::new(None),
        go: AtomicBool::new(false),
        messages: AtomicU64::new(0),
        deadline: Mutex::new(None),
        latencies: Mutex::new(Histogram::new_with_max(60_000_000, 3).expect("these are allowed")),
    });
    let connectors: Vec<_> = (0..CONNECTING.min(connections))
        .map(|first| {
            let run = run.clone();
            let count = (connections - first).div_ceil(CONNECTING);
            thread::spawn(move || connect(&run, count))
        })
        .collect();
    let mut seen = 0;
    while run.connected.load(Relaxed) + run.failed.load(Relaxed) < connections {
        thread::sleep(Duration::from_millis(50));
        let connected = run.connected.load(Relaxed);
        if connected != seen {
            println!("connected {connected}");
            seen = connected;
        }
    }
    let mut fibers = Vec::with_capacity(connections);
    for connector in connectors {
        fibers.extend(connector.join().expect("a connector does not panic"));
    }
    if let Some(error) = run.failure.lock().unwrap().take() {
        let failed = run.failed.load(Relaxed);
        eprintln!("c10k: {failed} connections to {address} could not be made: {error}");
    }
    println!("running");
    let start = Instant::now();
    *run.deadline.lock().unwrap() = Some(start + Duration::from_secs(seconds));
    run.go.store(true, Relaxed);
    for fiber in &fibers {
        fiber.thread().unpark();
    }
    let mut errors = Vec::new();
    for fiber in fibers {
        errors.extend(fiber.join().expect("a connection's fiber does not panic").err());
    }
    if let Some(error) = errors.first() {
        eprintln!("c10k: {} connections to {address} broke: {error}", errors.len());
    }
    let latencies = run.latencies.lock().unwrap();
    let results = Results {
        connections: (run.connected.load(Relaxed) - errors.len()) as u64,
        messages: run.messages.load(Relaxed),
        seconds: start.elapsed().as_secs_f64(),
        p50_us: latencies.value_at_quantile(0.5),
        p99_us: latencies.value_at_quantile(0.99),
        p999_us: latencies.value_at_quantile(0.999),
    };
    println!("{}", results.to_line());
    match results.connections {
        0 => Err(format!("no connection to {address} lasted")),
        _ => Ok(()),
    }
}

/// One connection, so that an address at which nobody serves is told before thousands have failed.
fn try_out(address: SocketAddr) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(&mut stream)
}

/// Makes `count` connections, and for each a fiber that will use it.
fn connect(run: &Arc<Run>, count: usize) -> Vec<thread::JoinHandle<io::Result<()>>> {
    let mut fibers = Vec::with_capacity(count);
    for _ in 0..count {
        // A connection counts when it has been served: the kernel makes them ahead of the server,
        // and drops those that it cannot queue.
        let greet = |mut stream: TcpStream| {
            exchange(&mut stream)?;
            Ok::<_, io::Error>(stream)
        };
        match TcpStream::connect(run.address).and_then(greet) {
            Ok(stream) => {
                run.connected.fetch_add(1, Relaxed);
                let run = run.clone();
                fibers.push(thread::spawn(move || converse(&run, stream)));
            }
            Err(error) => {
                run.failure.lock().unwrap().get_or_insert(error);
                run.failed.fetch_add(1, Relaxed);
            }
        }
    }
    fibers
}

fn converse(run: &Run, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    while !run.go.load(Relaxed) {
        thread::park();
    }
    let deadline = run.deadline.lock().unwrap().expect("it is set before the word to go");
    loop {
        let sent = Instant::now();
        if sent >= deadline {
            return Ok(());
        }
        exchange(&mut stream)?;
        run.messages.fetch_add(1, Relaxed);
        let latency_us = sent.elapsed().as_micros() as u64;
        run.latencies.lock().unwrap().saturating_record(latency_us);
    }
}

/// Sends a message and waits for its echo.
fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    let mut message = [7; MESSAGE_BYTES];
    stream.write_all(&message)?;
    stream.read_exact(&mut message)
}

impl Results {
    fn to_line(self) -> String {
        format!(
            "results {} {} {} {} {} {}",
            self.connections, self.messages, self.seconds, self.p50_us, self.p99_us, self.p999_us
        )
    }

    /// Reads what [`drive`] printed.
    pub fn from_line(line: &str) -> Option<Results> {
        let mut words = line.strip_prefix("results ")?.split(' ');
        let results = Results {
            connections: words.next()?.parse().ok()?,
            messages: words.next()?.parse().ok()?,
            seconds: words.next()?.parse().ok()?,
            p50_us: words.next()?.parse().ok()?,
            p99_us: words.next()?.parse().ok()?,
            p999_us: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(results)
    }
}
