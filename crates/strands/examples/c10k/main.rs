//! 10,000 TCP connections, one fiber each, in blocking style; then the same server on OS threads.
//!
//! Run it without arguments: `cargo run --release --example c10k`. The server is `server.rs`, as
//! short as with threads; the rest of this program drives it and reports.
//!
//! Three processes take part: this one conducts, a server, and a client that holds the other ends
//! of the connections (they are processes of their own so that each has its own file descriptors
//! and its memory and CPU time can be told apart).

mod client;
mod host;
mod fibers {
    use strands as imp;
    include!("server.rs");
}
mod threads {
    use std as imp;
    include!("server.rs");
}

use std::env;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use client::Results;
use host::{Usage, raise_descriptor_limit};

/// The stack of a connection's fiber or thread.
const STACK_BYTES: usize = 64 * 1024;
/// More than there is memory for, on most machines.
const MOST_CONNECTIONS: u64 = 10_000_000;
/// A day.
const MOST_SECONDS: u64 = 86_400;

const HELP: &str = "\
10,000 TCP connections in blocking style, on fibers and on threads.

usage: cargo run --release --example c10k [-- OPTIONS]

  --connections N   how many connections (default 10000)
  --seconds N       how long to measure each server (default 5)
  --serve ADDR      only serve, on ADDR (for example 127.0.0.1:7000), until killed
  --threads         with --serve: on OS threads instead of fibers
  --drive ADDR      only be the client of a server at ADDR
  --help            this text
";

struct Options {
    mode: Mode,
    connections: usize,
    seconds: u64,
}

enum Mode {
    Conduct,
    Serve { address: SocketAddr, kind: Kind },
    Drive { address: SocketAddr },
    Help,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fibers,
    Threads,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Fibers => "fibers",
            Kind::Threads => "threads",
        }
    }
}

#[strands::main]
fn main() -> ExitCode {
    let args = env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let result = parse(args).and_then(|options| match options.mode {
        Mode::Help => {
            print!("{HELP}");
            Ok(())
        }
        Mode::Conduct => conduct(options.connections, options.seconds),
        Mode::Serve { address, kind } => serve(address, kind, options.connections),
        Mode::Drive { address } => {
            raise_descriptor_limit(options.connections)?;
            client::drive(address, options.connections, options.seconds)
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("c10k: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { mode: Mode::Conduct, connections: 10_000, seconds: 5 };
    let (mut to_serve, mut to_drive, mut on_threads, mut timed) = (None, None, false, false);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value; see --help"));
        match arg.as_str() {
            "--help" | "-h" => return Ok(Options { mode: Mode::Help, ..options }),
            "--connections" => {
                options.connections = number(&arg, &value()?, MOST_CONNECTIONS)? as usize;
            }
            "--seconds" => {
                options.seconds = number(&arg, &value()?, MOST_SECONDS)?;
                timed = true;
            }
            "--threads" => on_threads = true,
            "--serve" => to_serve = Some(address(&value()?)?),
            "--drive" => to_drive = Some(address(&value()?)?),
            _ => return Err(format!("unknown option {arg}; see --help")),
        }
    }
    let kind = if on_threads { Kind::Threads } else { Kind::Fibers };
    options.mode = match (to_serve, to_drive) {
        (Some(_), Some(_)) => return Err("--serve and --drive are for a process each".into()),
        (Some(_), None) if timed => {
            return Err(
                "--seconds does not go with --serve, which serves until it is killed".into()
            );
        }
        (Some(address), None) => Mode::Serve { address, kind },
        (None, _) if on_threads => return Err("--threads goes with --serve; see --help".into()),
        (None, Some(address)) => Mode::Drive { address },
        (None, None) => Mode::Conduct,
    };
    Ok(options)
}

fn number(option: &str, text: &str, most: u64) -> Result<u64, String> {
    match text.replace('_', "").parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("{option} takes a whole number from 1 to {most}, not {text:?}")),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let example = "an address and a port such as 127.0.0.1:7000";
    text.parse().map_err(|_| format!("{text:?} is not {example}"))
}

fn serve(address: SocketAddr, kind: Kind, connections: usize) -> Result<(), String> {
    raise_descriptor_limit(connections)?;
    let text = |error: io::Error| format!("cannot serve on {address}: {error}");
    let announce = |local: io::Result<SocketAddr>| {
        let local = local.map_err(text)?;
        println!("serving {} on {local}", kind.name());
        Ok::<(), String>(())
    };
    match kind {
        Kind::Fibers => {
            let listener = strands::net::TcpListener::bind(address).map_err(text)?;
            announce(listener.local_addr())?;
            fibers::serve(listener).map_err(text)
        }
        Kind::Threads => {
            let listener = std::net::TcpListener::bind(address).map_err(text)?;
            announce(listener.local_addr())?;
            // Not on the main fiber's worker: this one blocks.
            strands::unblock(|| threads::serve(listener)).map_err(text)
        }
    }
}

/// A thread's stack, the stack for its signals and a guard of each are mappings, of which Linux lets a
/// process have 65,530.
const MOST_THREADS: usize = 12_000;

/// Runs both servers and prints the table.
fn conduct(connections: usize, seconds: u64) -> Result<(), String> {
    raise_descriptor_limit(connections)?;
    let mut rows = Vec::new();
    for (kind, most) in [(Kind::Fibers, usize::MAX), (Kind::Threads, MOST_THREADS)] {
        rows.push((kind, measure(kind, connections.min(most), seconds)?));
    }
    print!("{}", table(&rows));
    for (kind, row) in &rows {
        if row.results.connections < connections as u64 {
            let missing = connections as u64 - row.results.connections;
            println!("{missing} connections could not be held by {}", kind.name());
        }
    }
    Ok(())
}

/// What one server did.
struct Row {
    results: Results,
    /// What it used, where the system tells.
    cost: Option<Cost>,
}

struct Cost {
    cpu_us_per_message: f64,
    bytes_per_connection: f64,
}

/// Runs one server and its client, each in a process of its own.
fn measure(kind: Kind, connections: usize, seconds: u64) -> Result<Row, String> {
    let count = connections.to_string();
    let mut args = vec!["--serve", "127.0.0.1:0", "--connections", &count];
    if kind == Kind::Threads {
        args.push("--threads");
    }
    let mut server = spawn(&args)?;
    let line = server.next_line().ok_or("the server ended before it served")?;
    let address = line.rsplit(' ').next().unwrap_or_default().to_owned();
    let empty = server.usage()?;

    let secs = seconds.to_string();
    let mut client = spawn(&["--drive", &address, "--connections", &count, "--seconds", &secs])?;
    let bar = Bar::new(kind.name());
    let (mut full, mut results) = (None, None);
    while let Some(line) = client.next_line() {
        if let Some(connected) = line.strip_prefix("connected ") {
            bar.draw(connected.parse().unwrap_or(0), connections, "connected");
        } else if line == "running" {
            full = Some(server.usage()?);
            bar.pass(Duration::from_secs(seconds));
        } else if let Some(found) = Results::from_line(&line) {
            results = Some(found);
        }
    }
    bar.end();
    let after = server.usage()?;
    let Some(results) = results else {
        return Err(format!("the client of the {} server failed", kind.name()));
    };
    if results.connections == 0 {
        return Err(format!("the {} server held no connection", kind.name()));
    }
    let (held, messages) = (results.connections as f64, results.messages.max(1) as f64);
    let cost = empty.zip(full.flatten()).zip(after).map(|((empty, full), after)| Cost {
        cpu_us_per_message: (after.cpu_us - full.cpu_us) / messages,
        // Buffers and stacks are touched by the first message, so memory is read at the end.
        bytes_per_connection: (after.bytes.max(full.bytes) - empty.bytes) / held,
    });
    Ok(Row { results, cost })
}

/// A process of this program, ended when it is dropped.
struct Part {
    child: Child,
    lines: io::Lines<BufReader<ChildStdout>>,
}

fn spawn(args: &[&str]) -> Result<Part, String> {
    let spawned = env::current_exe()
        .and_then(|program| Command::new(program).args(args).stdout(Stdio::piped()).spawn());
    let mut child = spawned.map_err(|error| format!("cannot start {}: {error}", args[0]))?;
    let output = child.stdout.take().expect("it was asked for");
    Ok(Part { child, lines: BufReader::new(output).lines() })
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Part {
    /// The next line that it printed; None when it has ended.
    fn next_line(&mut self) -> Option<String> {
        // A pipe blocks its reader, so it is read where that holds up no fiber.
        strands::unblock(|| self.lines.next()?.ok())
    }

    /// None where the system does not tell.
    fn usage(&self) -> Result<Option<Usage>, String> {
        Usage::of(self.child.id()).map_err(|error| format!("the server has ended: {error}"))
    }
}

/// A progress bar, where somebody watches.
struct Bar {
    name: &'static str,
    watched: bool,
}

impl Bar {
    const WIDTH: usize = 40;

    fn new(name: &'static str) -> Bar {
        let bar = Bar { name, watched: io::stderr().is_terminal() };
        if !bar.watched {
            eprintln!("measuring {name} …");
        }
        bar
    }

    fn draw(&self, done: usize, all: usize, what: &str) {
        if !self.watched {
            return;
        }
        let full = Self::WIDTH * done.min(all) / all.max(1);
        let (name, width) = (self.name, Self::WIDTH);
        let filled = "█".repeat(full);
        eprint!("\r{name:>8} [{filled:<width$}] {done:>6} of {all} {what}   ");
        let _ = io::stderr().flush();
    }

    /// Shows time passing, from a fiber of its own.
    fn pass(&self, time: Duration) {
        let bar = Bar { name: self.name, watched: self.watched };
        strands::spawn(move || {
            let start = Instant::now();
            while let Some(left) = time.checked_sub(start.elapsed()) {
                let (done, all) = ((time - left).as_secs_f64(), time.as_secs_f64());
                bar.draw((done * 10.0) as usize, (all * 10.0) as usize, "tenths of a second");
                strands::sleep(Duration::from_millis(100).min(left));
            }
        });
    }

    fn end(&self) {
        if self.watched {
            eprint!("\r{:80}\r", "");
        }
    }
}

fn table(rows: &[(Kind, Row)]) -> String {
    let mut text = String::new();
    let header = ["", "connections", "messages/s", "p50", "p99", "p99.9", "CPU/message", "memory"];
    let mut lines = vec![header.map(String::from)];
    for (kind, Row { results, cost }) in rows {
        let of_cost = |text: fn(&Cost) -> String| cost.as_ref().map_or("not known".into(), text);
        lines.push([
            kind.name().into(),
            results.connections.to_string(),
            format!("{:.0}", results.messages as f64 / results.seconds),
            latency(results.p50_us),
            latency(results.p99_us),
            latency(results.p999_us),
            of_cost(|cost| format!("{:.1} µs", cost.cpu_us_per_message)),
            of_cost(|cost| format!("{:.0} B", cost.bytes_per_connection)),
        ]);
    }
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let width = lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
            let gap = if column == 0 { "" } else { "  " };
            let _ = match column {
                0 => write!(text, "{gap}{cell:<width$}"),
                _ => write!(text, "{gap}{cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text.push_str(
        "Every connection sends its next 64 bytes as soon as the last have come back.\n\
         CPU is the server's alone; memory is a connection's, page tables included.\n",
    );
    text
}

fn latency(us: u64) -> String {
    if us < 1000 { format!("{us} µs") } else { format!("{:.1} ms", us as f64 / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(args: &str) -> String {
        let parsed = parse(args.split_whitespace().map(String::from));
        parsed.err().unwrap_or_else(|| panic!("{args:?} was taken"))
    }

    #[test]
    fn options_that_make_no_sense_are_rejected() {
        let text = rejected("--serve 127.0.0.1:1 --drive 127.0.0.1:1");
        assert!(text.contains("--serve and --drive"), "{text}");
        assert!(rejected("--threads").contains("goes with --serve"));
        assert!(rejected("--threads --drive 127.0.0.1:1").contains("goes with --serve"));
        assert!(rejected("--serve 127.0.0.1:1 --seconds 3").contains("does not go with --serve"));
        assert!(rejected("--bogus").contains("--bogus"));
        for option in ["--connections", "--seconds"] {
            assert!(rejected(option).contains("needs a value"));
            for value in ["0", "-1", "ten", "1.5", "99999999", "99999999999999999999999"] {
                let text = rejected(&format!("{option} {value}"));
                assert!(
                    text.contains("a whole number from 1 to") && text.contains(value),
                    "{text}"
                );
            }
        }
        for option in ["--serve", "--drive"] {
            assert!(rejected(option).contains("needs a value"));
            for value in ["127.0.0.1", "7000", "localhost:7000", "127.0.0.1:65536"] {
                assert!(rejected(&format!("{option} {value}")).contains("127.0.0.1:7000"));
            }
        }
    }

    #[test]
    fn options_that_make_sense_are_taken() {
        let parsed = |args: &str| parse(args.split_whitespace().map(String::from)).unwrap();
        let options = parsed("");
        assert_eq!((options.connections, options.seconds), (10_000, 5));
        assert!(matches!(options.mode, Mode::Conduct));
        let options = parsed("--seconds 2 --connections 1_000 --drive [::1]:80");
        assert_eq!((options.connections, options.seconds), (1_000, 2));
        assert!(matches!(options.mode, Mode::Drive { .. }));
        let on_threads = parsed("--threads --serve 127.0.0.1:0");
        assert!(matches!(on_threads.mode, Mode::Serve { kind: Kind::Threads, .. }));
        assert!(matches!(parsed("--serve 127.0.0.1:0 --help").mode, Mode::Help));
    }

    #[strands::test]
    fn a_server_that_does_not_serve_is_named() {
        // Taken, so that nobody else takes it, and not listened on.
        let taken =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        taken.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = taken.local_addr().unwrap().as_socket().unwrap();
        let error = client::drive(address, 10_000, 1).unwrap_err();
        assert!(error.contains(&address.to_string()) && error.contains("refused"), "{error}");
        // It accepts, and hangs up.
        let listener = strands::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        strands::spawn(move || listener.incoming().for_each(drop));
        let error = client::drive(address, 10_000, 1).unwrap_err();
        assert!(error.contains(&address.to_string()), "{error}");
    }
}
