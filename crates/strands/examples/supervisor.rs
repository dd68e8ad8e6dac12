//! A supervisor: it starts again what fails, after a pause that grows, and gives up what fails too often.
//!
//! Run it without arguments: `cargo run --release --example supervisor`. Each child is started again alone
//! ("one for one", in Erlang's words); when the supervisor ends, for whatever reason, its children have ended.

mod options;

use std::any::Any;
use std::collections::HashMap;
use std::panic;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use strands::FiberGroup;
use strands::thread::{Builder, ThreadId, sleep};
use strands::time::{Duration, Elapsed, Instant, timeout};

const HELP: &str = "\
Starts workers again that panic, and gives up those that do so too often.

usage: supervisor [--run-ms N] [--restarts N] [--pause-ms N]

  --run-ms N    how long it runs (1500)
  --restarts N  how often a worker is started again before it is given up (5)
  --pause-ms N  the pause before the first time; it doubles each time (10)
";

#[strands::main]
fn main() -> ExitCode {
    let defaults = [("--run-ms", 1500), ("--restarts", 5), ("--pause-ms", 10)];
    let [run_ms, restarts, pause_ms] = match options::read("supervisor", HELP, defaults) {
        Ok(numbers) => numbers,
        Err(code) => return code,
    };
    panic::set_hook(Box::new(|_| {})); // The supervisor reports panics.
    let mut supervisor = Supervisor {
        restarts: u32::try_from(restarts).expect("a million at most"),
        pause: Duration::from_millis(pause_ms),
        start: Instant::now(),
        children: vec![
            Child::new("steady", |jobs| work(jobs, u64::MAX)),
            Child::new("flaky", |jobs| work(jobs, 40)),
            Child::new("broken", |_| panic!("it is misconfigured")),
            Child::new("finite", |jobs| (0..30).for_each(|_| job(jobs))),
        ],
    };
    let end = timeout(Duration::from_millis(run_ms), || supervisor.run());
    if end == Err(Elapsed) {
        supervisor.log("the time is up");
    }
    print!("\n{}", supervisor.table());
    ExitCode::SUCCESS
}

/// Panics each time that so many more jobs are done.
fn work(jobs: &AtomicU64, stumble: u64) {
    loop {
        job(jobs);
        let done = jobs.load(Relaxed);
        assert!(!done.is_multiple_of(stumble), "it stumbled over job {done}");
    }
}

fn job(jobs: &AtomicU64) {
    sleep(Duration::from_millis(1));
    jobs.fetch_add(1, Relaxed);
}

struct Supervisor {
    restarts: u32,
    pause: Duration,
    start: Instant,
    children: Vec<Child>,
}

struct Child {
    name: &'static str,
    work: fn(&AtomicU64),
    /// Done in all its lives.
    jobs: Arc<AtomicU64>,
    starts: u32,
    fate: &'static str,
}

impl Child {
    fn new(name: &'static str, work: fn(&AtomicU64)) -> Child {
        Child { name, work, jobs: Arc::default(), starts: 0, fate: "was running" }
    }
}

impl Supervisor {
    /// Until all children have come to their end or were given up.
    fn run(&mut self) {
        let group = FiberGroup::new(); // Whoever ends us, and however, ends the children first.
        let mut who = HashMap::new();
        for child in 0..self.children.len() {
            who.insert(self.start_child(child, &group), child);
        }
        while let Some((id, result)) = group.join_next_with_id() {
            let index = who.remove(&id).expect("it is one of ours");
            let child = &mut self.children[index];
            let (name, starts) = (child.name, child.starts);
            match result {
                Ok(()) => child.fate = "came to its end",
                Err(payload) if starts > self.restarts => {
                    child.fate = "was given up";
                    self.log(&format!("{name} panicked: {}; it is given up", text(&*payload)));
                }
                Err(payload) => {
                    let pause = self.pause_before(starts);
                    self.log(&format!("{name} panicked: {}; again in {pause:?}", text(&*payload)));
                    who.insert(self.start_child(index, &group), index);
                }
            }
        }
    }

    /// The child waits out its pause itself, so the supervisor waits for nothing but ends.
    fn start_child(&mut self, index: usize, group: &FiberGroup<()>) -> ThreadId {
        let pause = self.pause_before(self.children[index].starts);
        let child = &mut self.children[index];
        child.starts += 1;
        let (work, jobs) = (child.work, child.jobs.clone());
        let builder = Builder::new().name(child.name.into());
        let spawned = group.spawn_with(builder, move || {
            sleep(pause);
            work(&jobs);
        });
        spawned.expect("a fiber").id()
    }

    fn pause_before(&self, starts: u32) -> Duration {
        match starts {
            0 => Duration::ZERO,
            _ => self.pause.saturating_mul(1 << (starts - 1).min(16)),
        }
    }

    fn log(&self, what: &str) {
        println!("[{:7.3} s] {what}", self.start.elapsed().as_secs_f64());
    }

    fn table(&self) -> String {
        let mut table =
            format!("{:<10} {:>6} {:>6}  {}\n", "worker", "starts", "jobs", "at the end it");
        for Child { name, jobs, starts, fate, .. } in &self.children {
            table += &format!("{name:<10} {starts:>6} {:>6}  {fate}\n", jobs.load(Relaxed));
        }
        table
    }
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

#[cfg(test)]
#[strands::test]
fn what_fails_is_started_again_and_given_up_alone() {
    let mut supervisor = Supervisor {
        restarts: 2,
        pause: Duration::from_micros(10),
        start: Instant::now(),
        children: vec![
            Child::new("flaky", |jobs| (0..5).for_each(|_| work(jobs, 3))),
            Child::new("finite", |jobs| (0..9).for_each(|_| job(jobs))),
        ],
    };
    supervisor.run();
    let ends = supervisor
        .children
        .iter()
        .map(|child| (child.starts, child.jobs.load(Relaxed), child.fate));
    assert!(ends.eq([(3, 9, "was given up"), (1, 9, "came to its end")]), "{}", supervisor.table());
}
