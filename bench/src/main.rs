//! One measurement per process: `strands-bench run CASE PEER [--quick]`.
//!
//! `cargo xtask bench` at the root of the repository runs all of them, interleaved round by round,
//! and prints the table.
//!
//! Every case is one file in `cases/`, and holds the same program written once for each peer, side
//! by side. All peers are in this one binary, built with one set of flags. What a program does
//! before the clock starts (building a runtime, starting its fibers behind a barrier) and after it
//! stops is not measured.

mod cases;
mod measure;

use std::process::ExitCode;
use std::time::Duration;

use measure::Figures;

/// A system that is measured: one column of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    #[cfg(feature = "strands-fiber")]
    Strands,
    Corosensei,
    May,
    Tokio,
    Go,
    /// crossbeam's channels between OS threads.
    Crossbeam,
    Threads,
    /// No runtime at all: the least that the machine asks for the same work. Not a competitor.
    Floor,
}

impl Peer {
    const fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "strands-fiber")]
            Peer::Strands => "strands",
            Peer::Corosensei => "corosensei",
            Peer::May => "may",
            Peer::Tokio => "tokio",
            Peer::Go => "go",
            Peer::Crossbeam => "crossbeam",
            Peer::Threads => "threads",
            Peer::Floor => "floor",
        }
    }
}

/// One program to measure, in one size.
pub struct Case {
    pub name: &'static str,
    pub title: &'static str,
    /// What the table shows of a measurement, a row each.
    pub rows: &'static [Row],
    pub plan: Plan,
    /// The same program for each peer that can run it.
    pub peers: &'static [(Peer, Program)],
}

/// One peer's way to write a case.
type Program = fn(&Plan) -> Figures;

/// A figure that the table shows.
pub struct Row {
    /// The name of the figure in `Figures`.
    pub figure: &'static str,
    /// What it is called below the case's first row; empty in that one, which bears the case's
    /// title.
    pub label: &'static str,
    pub unit: &'static str,
}

/// The size of a case.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Threads that run fibers. One worker is pinned to one core, with everything else of its
    /// process.
    pub workers: usize,
    /// Fibers or connections; 0 where the case has no such size.
    pub count: usize,
    pub quick: bool,
}

impl Plan {
    pub const fn new(workers: usize, count: usize) -> Plan {
        Plan { workers, count, quick: false }
    }

    /// How long to measure.
    pub fn budget(&self) -> Duration {
        Duration::from_millis(if self.quick { 100 } else { 500 })
    }
}

/// Nothing here takes minutes: what does has hung.
const LIMIT_S: u32 = 60;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let quick = args.iter().any(|arg| arg == "--quick");
    args.retain(|arg| arg != "--quick");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();

    match args.as_slice() {
        ["list"] => list(),
        ["run", case, peer] => return run(case, peer, quick),
        // The other half of an echo case, which starts it.
        ["echo-server", peer, core, connections] => {
            return cases::echo::serve(peer, core, connections);
        }
        _ => {
            eprintln!("usage: strands-bench list | run CASE PEER [--quick]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// What there is to run, a line each, fields separated by tabs:
/// `row CASE FIGURE UNIT TITLE` and `peer CASE PEER`.
fn list() {
    for case in cases::all() {
        for row in case.rows {
            let title = match row.label {
                "" => case.title.to_owned(),
                label => format!("  {label}"),
            };
            println!("row\t{}\t{}\t{}\t{title}", case.name, row.figure, row.unit);
        }
        // Its programs are another binary, which not every machine can build.
        let peers = case.peers.iter().filter(|(peer, _)| *peer != Peer::Go || cases::has_go());
        for (peer, _) in peers {
            println!("peer\t{}\t{}", case.name, peer.name());
        }
    }
}

fn run(case_name: &str, peer_name: &str, quick: bool) -> ExitCode {
    let Some(case) = cases::all().find(|case| case.name == case_name) else {
        eprintln!("no case {case_name}: see `strands-bench list`");
        return ExitCode::from(2);
    };
    let Some((_, program)) = case.peers.iter().find(|(peer, _)| peer.name() == peer_name) else {
        eprintln!("no {peer_name} in case {case_name}: see `strands-bench list`");
        return ExitCode::from(2);
    };
    measure::settle(LIMIT_S);
    if case.plan.workers == 1 {
        measure::pin(measure::cores()[0]);
    }
    let figures = program(&Plan { quick, ..case.plan });
    println!("case={case_name} peer={peer_name}{}", figures.line());
    // Fibers that are parked for ever are part of some cases: leave without waiting for them.
    std::process::exit(0)
}
