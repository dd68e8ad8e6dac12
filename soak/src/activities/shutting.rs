//! Cancellation: runtimes inside the epoch's that end while they are busy, and steps that must not
//! be cut.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use strands::Runtime;
use strands::cancel::{Cancelled, uncancellable};
use strands::sync::mpsc;

use crate::activities::spawning::pause;
use crate::books::{self, Count, check};
use crate::party::{Home, Party};

/// A runtime of its own, full of fibers that would wait for ever.
pub fn inner_runtime(party: &mut Party) {
    let workers = party.rng.usize(1..3);
    let built = Runtime::builder().workers(workers).thread_name("soak-inner").build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => return books::violation(format_args!("no runtime: {error}")),
    };
    books::count(Count::Runtimes);
    let mut handles = Vec::new();
    let (sender, _receiver) = mpsc::sync_channel::<u64>(1);
    for _ in 0..party.rng.u32(..60) {
        let how = party.rng.u32(..4);
        let sender = sender.clone();
        let (_, _, body) = party.body(Home::Inner, move |party| {
            pause(party);
            loop {
                match how {
                    0 => strands::thread::park(),
                    1 => strands::sleep(Duration::from_secs(10_000)),
                    2 => drop(sender.send(1)), // Nobody receives, so the second waits.
                    _ => strands::yield_now(),
                }
            }
        });
        handles.push(runtime.spawn(body));
    }
    match party.rng.u32(..3) {
        0 => drop(runtime),
        1 => {
            // It cannot wait for itself, so it cancels only, that fiber too, and says so.
            let (sender, receiver) = std::sync::mpsc::channel();
            let (_, _, body) = party.body(Home::Inner, move |_| {
                if let Ok(runtime) = receiver.recv() {
                    let refused = catch_unwind(AssertUnwindSafe(|| drop::<Runtime>(runtime)));
                    check(refused.is_err(), || "a fiber dropped its runtime unnoticed".into());
                }
            });
            handles.push(runtime.spawn(body));
            sender.send(runtime).unwrap_or_else(|_| books::violation("its last fiber is gone"));
        }
        _ => {
            let ended = runtime.shutdown_timeout(Duration::from_secs(60));
            ended.unwrap_or_else(|unfinished| books::violation(unfinished));
        }
    }
    for handle in handles {
        match handle.join() {
            Ok(()) => {}
            Err(payload) => check(payload.is::<Cancelled>(), || "it ended by a panic".into()),
        }
        books::count(Count::Joined);
    }
}

/// Steps that a cancel must not cut in two.
fn step(party: &mut Party, halves: &Halves) {
    uncancellable(|| {
        halves.first.fetch_add(1, SeqCst);
        match party.rng.u32(..3) {
            0 => strands::sleep(Duration::from_micros(party.rng.u64(..1_000))),
            _ => pause(party),
        }
        halves.second.fetch_add(1, SeqCst);
    });
}

/// How often each half of a step was done.
#[derive(Default)]
struct Halves {
    first: AtomicU64,
    second: AtomicU64,
}

impl Drop for Halves {
    fn drop(&mut self) {
        let (first, second) = (self.first.load(SeqCst), self.second.load(SeqCst));
        check(first == second, || format!("of {first} steps, {second} were done to their end"));
    }
}

/// Some who do such steps.
pub fn uncancellable_steps(party: &mut Party) {
    let halves = Arc::new(Halves::default());
    let mut others = Vec::new();
    for _ in 0..party.rng.u32(1..6) {
        let halves = halves.clone();
        others.extend(party.start(move |party| {
            for _ in 0..party.rng.u32(1..20) {
                step(party, &halves);
                pause(party);
            }
        }));
    }
    for other in others {
        other.join();
    }
}
