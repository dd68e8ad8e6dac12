//! One epoch: a fresh runtime with a plan drawn from the seed, many parties on it and beside it,
//! and its end.

use std::fmt;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use strands::Runtime;

use crate::activities::ACTIVITIES;
use crate::books::{self, Count, Page, check, violation};
use crate::party::{Home, LIVE, OVER, Party, RUNTIME, STACKS_ARE_LIMITED, STOPPING, THREADS};

/// What kind of epoch it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    workers: usize,
    stack_kib: usize,
    max_stacks: Option<usize>,
    pool_threads: usize,
    /// Parties that go from one episode to the next: on the runtime, on the default one, and plain
    /// threads.
    drivers: u32,
    default_drivers: u32,
    threads: u32,
    time: Duration,
    end: End,
}

/// How the runtime ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// When all parties have ended. So a wake that was lost is a stall.
    Quiet,
    /// While they are busy, which cancels them.
    Shutdown,
    /// The same, by a drop.
    Drop,
}

impl Plan {
    /// The plan of an epoch.
    pub fn draw(rng: &mut Rng) -> Plan {
        let max_stacks = (rng.u32(..6) == 0).then(|| rng.usize(20..200));
        let end = match rng.u32(..4) {
            // With few stacks, those who hold them may all wait for those who wait for one.
            _ if max_stacks.is_some() => End::Shutdown,
            0..2 => End::Quiet,
            2 => End::Shutdown,
            _ => End::Drop,
        };
        Plan {
            workers: [2, 2, 2, 2, 1, 3][rng.usize(..6)],
            stack_kib: [256, 256, 64, 100, 1024][rng.usize(..5)],
            max_stacks,
            pool_threads: rng.usize(1..8),
            drivers: rng.u32(1..48),
            default_drivers: rng.u32(..6),
            threads: rng.u32(1..5),
            time: Duration::from_millis(rng.u64(50..1_500)),
            end,
        }
    }

    /// The runtime, as the plan wants it.
    fn build(&self) -> Runtime {
        let builder = Runtime::builder()
            .workers(self.workers)
            .stack_size(self.stack_kib * 1024)
            .blocking_threads(self.pool_threads)
            .thread_name("soak");
        let builder = match self.max_stacks {
            Some(stacks) => builder.max_stacks(stacks),
            None => builder,
        };
        builder.build().expect("a runtime can be built")
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { workers, stack_kib, pool_threads, drivers, default_drivers, threads, .. } = self;
        write!(f, "{workers} workers, {pool_threads} pool threads, stacks of {stack_kib} KiB")?;
        if let Some(stacks) = self.max_stacks {
            write!(f, " (at most {stacks})")?;
        }
        write!(f, ", {drivers}+{default_drivers} fibers and {threads} threads drive")?;
        write!(f, " for {} ms, end: {:?}", self.time.as_millis(), self.end)
    }
}

/// Runs the epoch of `plan` to its end and checks what it counted.
pub fn run(plan: &Plan, rng: &mut Rng, stall: Duration) {
    let before = Page::now();
    OVER.store(false, SeqCst);
    STOPPING.store(false, SeqCst);
    STACKS_ARE_LIMITED.store(plan.max_stacks.is_some(), SeqCst);
    *RUNTIME.write().unwrap_or_else(PoisonError::into_inner) = Some(plan.build());

    start_drivers(plan, rng);
    thread::sleep(plan.time);
    match plan.end {
        End::Quiet => {
            OVER.store(true, SeqCst);
            wait_for_all();
            let runtime = take_runtime();
            expect_no_fibers(&runtime);
            shut_down(runtime, stall);
        }
        End::Shutdown | End::Drop => {
            // Drivers go on, against a runtime that ends beneath them.
            STOPPING.store(true, SeqCst);
            let runtime = take_runtime();
            match plan.end {
                End::Drop => drop(runtime),
                _ => shut_down(runtime, stall),
            }
            OVER.store(true, SeqCst);
            wait_for_all();
        }
    }
    let threads = std::mem::take(&mut *THREADS.lock().unwrap_or_else(PoisonError::into_inner));
    for thread in threads {
        thread.join().unwrap_or_else(|_| violation("a thread died by a panic"));
    }
    balance(&Page::now().since(&before), plan);
}

fn start_drivers(plan: &Plan, rng: &mut Rng) {
    Party::root(rng.fork(), Home::Thread, |party| {
        let drivers = plan.drivers;
        let (_, _, starter) = party.body(Home::Epoch, move |party| {
            for _ in 0..drivers {
                party.start_fiber(drive);
            }
        });
        let runtime = RUNTIME.read().unwrap_or_else(PoisonError::into_inner);
        drop(runtime.as_ref().expect("it was just built").spawn(starter));
        drop(runtime);
        for _ in 0..plan.default_drivers {
            party.start_fiber(drive);
        }
        for _ in 0..plan.threads {
            let (_, _, body) = party.body(Home::Thread, drive);
            let thread = thread::Builder::new().name("soak-driver".into()).spawn(body);
            let thread = thread.expect("a thread can be started");
            THREADS.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
    });
}

/// One episode after the other.
fn drive(party: &mut Party) {
    let total: u32 = ACTIVITIES.iter().map(|activity| activity.weight).sum();
    while !crate::party::is_over() {
        let mut draw = party.rng.u32(..total);
        let activity = ACTIVITIES.iter().find(|activity| {
            let hit = draw < activity.weight;
            draw = draw.saturating_sub(activity.weight);
            hit
        });
        let activity = activity.expect("the draw is below the sum");
        party.turn_to(activity.name);
        let ended = party.catch(activity.run);
        check(ended.is_some(), || format!("a planned panic came out of `{}`", activity.name));
        books::count(Count::Episodes);
        party.look_at_canaries();
        strands::yield_now();
    }
}

fn take_runtime() -> Runtime {
    let runtime = RUNTIME.write().unwrap_or_else(PoisonError::into_inner).take();
    runtime.expect("the epoch's runtime is there until its end")
}

fn shut_down(runtime: Runtime, stall: Duration) {
    let about = runtime.describe();
    if let Err(unfinished) = runtime.shutdown_timeout(stall) {
        violation(format_args!("a shutdown did not end: {unfinished}\n{about}"));
        crate::watchdog::give_up("the runtime did not shut down");
    }
}

fn wait_for_all() {
    // The watchdog sees to it that this ends.
    while LIVE.load(SeqCst) > 0 {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Parties have ended; the fibers beneath them do a moment later.
fn expect_no_fibers(runtime: &Runtime) {
    let end = Instant::now() + Duration::from_secs(10);
    while runtime.live_fibers().iter().sum::<usize>() > 0 {
        if Instant::now() > end {
            return violation(format_args!("fibers are left: {:?}", runtime.live_fibers()));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Everything that began has ended, once.
fn balance(page: &Page, plan: &Plan) {
    let of = |count| page.of(count);
    let ended =
        of(Count::Returned) + of(Count::Panicked) + of(Count::Cancelled) + of(Count::Unstarted);
    check(of(Count::Begun) == ended, || {
        format!("{} parties began, {ended} ended", of(Count::Begun))
    });
    let gone = of(Count::Received) + of(Count::Lost);
    check(of(Count::Minted) == gone, || {
        format!("{} messages were made, {gone} received or dropped", of(Count::Minted))
    });
    if plan.end == End::Quiet {
        check(of(Count::Refused) == 0, || format!("{} spawns were refused", of(Count::Refused)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_plan_again() {
        for seed in 0..100 {
            let plans = [0, 1].map(|_| Plan::draw(&mut Rng::with_seed(seed)));
            assert_eq!(plans[0], plans[1]);
            assert!(plans[0].max_stacks.is_none() || plans[0].end == End::Shutdown);
            assert!(plans[0].to_string().contains("workers"));
        }
    }
}
