//! The soak: everything that strands can do, at once and at random, for as long as it is left
//! running.
//!
//! An *epoch* has a fresh runtime, with a plan drawn from the seed and its number. Fibers of that
//! runtime, fibers of the default one and plain threads ("parties") go from one *episode* to the
//! next, each with others that they start: they spawn, join, send, lock, talk by TCP, sleep, park,
//! panic, block. Then the runtime ends, in the midst of it or when all is quiet, and everything
//! must be accounted for: what is wrong is a *violation*, and fails the run. What the schedule does
//! is not repeatable; what is tried is.
//!
//! - [`activities`]: what parties do, and what they check while they do it;
//! - [`party`]: who they are, and how each ends exactly once;
//! - [`books`]: what is counted, and the violations;
//! - [`epoch`]: from a plan to the balance; [`census`]: what the process holds after;
//! - [`watchdog`]: says what it knows when nothing goes on.
//!
//! Turned down: a model of what should happen, to compare with. It would be a second runtime; that
//! things happen once, in order, not early, and leave nothing behind can be checked without.

#![forbid(unsafe_code)]

mod activities;
mod books;
mod census;
mod epoch;
mod options;
mod party;
mod watchdog;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use books::{Count, Page, grouped};
use census::Census;
use epoch::Plan;
use options::Options;

/// How often a line says how far it is, where nobody watches a terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(15);
/// After so many epochs it waits until the default runtime has given its stacks back.
const BETWEEN_STACK_COUNTS: u64 = 20;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {error}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    println!("soak: seed {}, {} s", options.seed, options.time.as_secs());
    println!("(to repeat it: {})", options.command(options.first_epoch));
    party::install_panic_hook();
    watchdog::start(&options);
    if options.busy {
        spin_on_all_cores();
    }
    make_what_stays();
    let mut census = Census::take();

    let start = Instant::now();
    let mut report = Report::new();
    let mut epoch = options.first_epoch;
    loop {
        watchdog::EPOCH.store(epoch, SeqCst);
        let mut rng = fastrand::Rng::with_seed(seed_of(options.seed, epoch));
        let plan = Plan::draw(&mut rng);
        epoch::run(&plan, &mut rng, options.stall);
        let epochs = epoch - options.first_epoch + 1;
        census.compare(epochs);
        let is_last = start.elapsed() >= options.time || books::violations() > 0;
        if is_last || epochs.is_multiple_of(BETWEEN_STACK_COUNTS) {
            census.expect_no_stacks();
        }
        report.tell(epoch, start.elapsed());
        if is_last {
            return end(&options, epoch, epochs, &plan, start.elapsed());
        }
        epoch += 1;
    }
}

fn end(options: &Options, epoch: u64, epochs: u64, plan: &Plan, time: Duration) -> ExitCode {
    let kib = census::resident_kib();
    println!("\nsoak: {epochs} epochs in {:.0} s, {kib} KiB resident", time.as_secs_f64());
    print!("{}", Page::now().table());
    match books::violations() {
        0 => {
            println!("soak: ok, seed {}", options.seed);
            ExitCode::SUCCESS
        }
        number => {
            println!("soak: FAILED with {number} violations in epoch {epoch}: {plan}");
            println!("to repeat it: {}", options.command(epoch));
            ExitCode::FAILURE
        }
    }
}

/// What is made once and lives for ever counts as having been there before: the default runtime,
/// and what closed handles refer to.
fn make_what_stays() {
    strands::spawn(|| {}).join().expect("a fiber that does nothing ends");
    let listener = strands::net::TcpListener::bind(("127.0.0.1", 0));
    listener.expect("a port on loopback is free").close();
}

/// The seed of an epoch, so that one can be run without those before it.
fn seed_of(seed: u64, epoch: u64) -> u64 {
    fastrand::Rng::with_seed(seed).u64(..) ^ fastrand::Rng::with_seed(epoch).u64(..)
}

fn spin_on_all_cores() {
    for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
        thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
}

/// Says how far it is: one line that changes on a terminal, else a line at times.
struct Report {
    watched: bool,
    told: Instant,
}

impl Report {
    fn new() -> Report {
        Report { watched: io::stdout().is_terminal(), told: Instant::now() }
    }

    fn tell(&mut self, epoch: u64, time: Duration) {
        if !self.watched && self.told.elapsed() < BETWEEN_LINES {
            return;
        }
        self.told = Instant::now();
        let page = Page::now();
        let of = |count| grouped(page.of(count));
        let line = format!(
            "epoch {epoch}, {:.0} s: {} parties, {} messages, {} MB echoed, {} cancelled, {} panicked",
            time.as_secs_f64(),
            of(Count::Begun),
            of(Count::Received),
            grouped(page.of(Count::Bytes) / 1_000_000),
            of(Count::Cancelled),
            of(Count::Panicked),
        );
        if self.watched {
            use std::io::Write;
            print!("\r\x1b[K{line}");
            // A terminal that is gone takes the line with it.
            let _ = io::stdout().flush();
        } else {
            println!("{line}");
        }
    }
}
