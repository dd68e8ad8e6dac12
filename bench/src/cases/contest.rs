//! Parties that do the same thing over and over, at once, for as long as the clock runs.
//!
//! Each counts what it has done in a line of memory of its own. The OS main thread sleeps, reads
//! the counts, sleeps, and reads them again: nobody has to stop (runtimes are left running when the
//! process ends), and who did how much of it shows.

#[cfg(feature = "strands")]
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{configure_may, spawn_thread, tokio_runtime};
use crate::measure::{Figures, Stopwatch};
use crate::{Plan, Row};

/// What a contest between equals shows.
pub const ROWS: &[Row] = &[
    Row { figure: "wall", label: "", unit: "ns" },
    Row { figure: "cpu", label: "CPU of all cores", unit: "ns" },
    Row { figure: "uneven", label: "the fastest's share over the slowest's", unit: "×" },
];

/// The counts of all parties. Two lines of memory each: processors fetch them in pairs.
struct Counts(Vec<Count>);

#[repr(align(128))]
struct Count(AtomicU64);

/// One party's count.
pub struct Tick {
    counts: Arc<Counts>,
    party: usize,
    done: u64,
}

impl Tick {
    #[inline]
    pub fn add(&mut self, ops: u64) {
        self.done += ops;
        self.counts.0[self.party].0.store(self.done, Ordering::Relaxed);
    }

    /// Which party this is, from 0.
    pub fn party(&self) -> usize {
        self.party
    }
}

/// Has `start` start each of `parties`, and measures what they do together.
///
/// A fiber (a task, a coroutine) starts them, as in most programs: so it is the runtime that
/// chooses where each goes.
///
/// Sleeps a fifth of the budget first; then counts all of it. Parties that do not count (the
/// senders of a channel whose receivers do) are left out of the comparison.
fn measure(plan: &Plan, parties: usize, start: impl FnOnce(Vec<Tick>)) -> Figures {
    let counts = Arc::new(Counts((0..parties).map(|_| Count(AtomicU64::new(0))).collect()));
    let tick = |party| Tick { counts: counts.clone(), party, done: 0 };
    start((0..parties).map(tick).collect());
    let look =
        || -> Vec<u64> { counts.0.iter().map(|count| count.0.load(Ordering::Relaxed)).collect() };

    std::thread::sleep(plan.budget() / 5);
    // A case that takes long to get going is not measured while it does.
    while look().iter().all(|count| *count == 0) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let before = look();
    let watch = Stopwatch::start();
    std::thread::sleep(plan.budget());
    let after = look();
    let done: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    let figures = watch.per_op(done.iter().sum::<u64>().max(1));

    let counting = done.iter().zip(after).filter(|(_, ever)| *ever > 0).map(|(done, _)| *done);
    let (least, most) =
        counting.fold((u64::MAX, 0), |(least, most), done| (least.min(done), most.max(done)));
    figures.with("uneven", most as f64 / least.max(1) as f64)
}

#[cfg(feature = "strands")]
pub fn strands<F: Fn(Tick) + Clone + Send + 'static>(
    plan: &Plan,
    parties: usize,
    party: F,
) -> Figures {
    let runtime = ManuallyDrop::new(super::strands_runtime(plan.workers));
    measure(plan, parties, |ticks| {
        runtime.run(move || {
            for tick in ticks {
                let party = party.clone();
                drop(strands::spawn(move || party(tick)));
            }
        });
    })
}

pub fn may<F: Fn(Tick) + Clone + Send + 'static>(plan: &Plan, parties: usize, party: F) -> Figures {
    configure_may(plan, plan.workers);
    measure(plan, parties, |ticks| {
        let root = move || {
            for tick in ticks {
                let party = party.clone();
                // SAFETY: the parties touch no thread-local and need far less than a stack.
                drop(unsafe { may::coroutine::spawn(move || party(tick)) });
            }
        };
        // SAFETY: as above.
        drop(unsafe { may::coroutine::spawn(root) });
    })
}

pub fn tokio<F, T>(plan: &Plan, parties: usize, party: F) -> Figures
where
    F: Fn(Tick) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let runtime = Arc::new(tokio_runtime(plan.workers));
    // The one of one worker runs tasks while somebody blocks on it.
    let driven = runtime.clone();
    std::thread::spawn(move || driven.block_on(std::future::pending::<()>()));
    measure(plan, parties, |ticks| {
        drop(runtime.spawn(async move {
            for tick in ticks {
                drop(tokio::spawn(party(tick)));
            }
        }));
    })
}

pub fn threads<F: Fn(Tick) + Clone + Send + 'static>(
    plan: &Plan,
    parties: usize,
    party: F,
) -> Figures {
    measure(plan, parties, |ticks| {
        for tick in ticks {
            let party = party.clone();
            drop(spawn_thread(move || party(tick)));
        }
    })
}
