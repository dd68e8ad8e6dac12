//! A wake, a deadline and a cancel that come at once: exactly one of them ends the wait.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use common::{Random, runtime, spawn_at, stress};
use strands_sched::{Op, Outcome, WaitQueue, park_token, unpark_token, with_current_task};

static WAIT: Op = Op("test");

#[derive(Default)]
struct Counts {
    woken: AtomicUsize,
    timed_out: AtomicUsize,
    cancelled: AtomicUsize,
}

/// Waits in `queue` with a short deadline until `stop`; counts the outcomes.
///
/// On a cancel it unwinds as any operation does: the join tells.
fn waiter(queue: &WaitQueue<()>, counts: &Counts, stop: &AtomicBool, seed: u64) {
    let mut random = Random(seed);
    while !stop.load(SeqCst) {
        let patience = Duration::from_nanos(random.below(60_000));
        match queue.wait::<()>(&WAIT, Some(Instant::now() + patience), (), |()| None) {
            Ok(()) => unreachable!("nothing is attempted"),
            Err(Outcome::Woken) => counts.woken.fetch_add(1, SeqCst),
            Err(Outcome::TimedOut) => counts.timed_out.fetch_add(1, SeqCst),
            Err(Outcome::Cancelled) => {
                counts.cancelled.fetch_add(1, SeqCst);
                strands_sched::cancel_unwind();
            }
        };
    }
}

#[test]
fn a_hundred_thousand_wakes_timeouts_and_cancels_have_one_outcome_each() {
    let runtime = runtime(2);
    let rounds = 100_000 * stress();
    let queue = Arc::new(WaitQueue::new(()));
    let counts = Arc::new(Counts::default());
    let stop = Arc::new(AtomicBool::new(false));
    let spawn_waiter = |index: usize| {
        let (queue, counts, stop) = (queue.clone(), counts.clone(), stop.clone());
        let seed = 0x9e37_79b9 + index as u64;
        spawn_at(&runtime, index % 2, move || waiter(&queue, &counts, &stop, seed))
    };
    let mut fibers: Vec<_> = (0..16).map(spawn_waiter).collect();
    let threads: Vec<_> = (0..2)
        .map(|index| {
            let (queue, counts, stop) = (queue.clone(), counts.clone(), stop.clone());
            thread::spawn(move || waiter(&queue, &counts, &stop, 77 + index))
        })
        .collect();

    // This thread wakes; another fiber wakes too; now and then a waiter is cancelled and replaced.
    let woken_there = {
        let (queue, stop) = (queue.clone(), stop.clone());
        spawn_at(&runtime, 0, move || {
            let mut woken = 0;
            while !stop.load(SeqCst) {
                woken += usize::from(queue.lock().wake_first(|()| true));
                strands_sched::yield_now();
            }
            woken
        })
    };
    let mut woken = 0;
    let mut cancelled = 0;
    let mut random = Random(42);
    let ended = || counts.woken.load(SeqCst) + counts.timed_out.load(SeqCst);
    while ended() < rounds {
        woken += usize::from(queue.lock().wake_first(|()| true));
        if random.below(64) == 0 {
            let place = random.below(fibers.len() as u64) as usize;
            let fiber = std::mem::replace(&mut fibers[place], spawn_waiter(place));
            fiber.task().cancel();
            let payload = fiber.join().unwrap_err();
            assert!(payload.is::<strands_sched::Cancelled>());
            cancelled += 1;
        }
    }
    stop.store(true, SeqCst);
    for fiber in fibers {
        fiber.join().unwrap();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    woken += woken_there.join().unwrap();
    assert_eq!(counts.woken.load(SeqCst), woken, "a wake was lost or doubled");
    // A cancel may also meet a fiber that has not started or that yields.
    assert!(counts.cancelled.load(SeqCst) <= cancelled);
    assert!(queue.lock().is_empty(), "a waiter was left in the queue");
    runtime.shutdown(None).unwrap();
}

#[test]
fn tokens_are_never_lost_across_workers_and_threads() {
    let runtime = runtime(2);
    let rounds = 20_000 * stress();
    // A ring of parties, each of which waits for its token and hands one to the next.
    let parties = 6;
    let tasks = Arc::new(std::sync::Mutex::new(HashMap::new()));
    let done = Arc::new(AtomicUsize::new(0));
    let party = |index: usize| {
        let (tasks, done) = (tasks.clone(), done.clone());
        move || {
            with_current_task(|me| {
                tasks.lock().unwrap().insert(index, strands_sched::TaskRef::to(me));
            });
            let next = loop {
                if let Some(next) = tasks.lock().unwrap().get(&((index + 1) % parties)) {
                    break next.clone();
                }
                strands_sched::yield_now();
            };
            if index == 0 {
                unpark_token(&next);
            }
            for round in 0..rounds {
                // Every other wait has a deadline that never comes.
                let deadline = Instant::now().checked_add(Duration::from_secs(1 << 30));
                park_token(deadline.filter(|_| round % 2 == 0));
                if index != 0 || round + 1 < rounds {
                    unpark_token(&next);
                }
            }
            done.fetch_add(1, SeqCst);
        }
    };
    let fibers: Vec<_> = (0..4).map(|index| spawn_at(&runtime, index % 2, party(index))).collect();
    let threads: Vec<_> = (4..6).map(|index| thread::spawn(party(index))).collect();
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(done.load(SeqCst), parties);
}
