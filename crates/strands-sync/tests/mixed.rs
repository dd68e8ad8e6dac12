//! Locks, condition variables and channels at once, by fibers of two workers and plain threads.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Kind, runtime, start, stress};
use strands_sync::mpsc::{RecvTimeoutError, channel, sync_channel};
use strands_sync::{Condvar, Mutex};

/// Tickets in a bowl: put in by some, taken out by others, waited for with and without time.
#[test]
fn a_hundred_thousand_operations_come_out_even() {
    const OPERATIONS: usize = 100_000;
    const PARTIES: usize = 12;
    let each = OPERATIONS * stress() / PARTIES;
    let runtime = runtime(2);
    let bowl = Arc::new((Mutex::new(0usize), Condvar::new()));
    let (done, all_done) = channel();
    let started: Vec<_> = (0..PARTIES)
        .map(|me| {
            let (bowl, done) = (bowl.clone(), done.clone());
            let kind = [Kind::Thread, Kind::Fiber(0), Kind::Fiber(1)][me % 3];
            start(runtime.shared(), kind, move || {
                let (tickets, put) = &*bowl;
                let mut timeouts = 0;
                for round in 0..each {
                    // As many put as take: parties 0–5 put, 6–11 take.
                    if me < PARTIES / 2 {
                        *tickets.lock().unwrap() += 1;
                        if round % 5 == 0 {
                            put.notify_all()
                        } else {
                            put.notify_one()
                        }
                        continue;
                    }
                    loop {
                        let guard = tickets.lock().unwrap();
                        let mut guard = if round % 3 == 0 {
                            put.wait_while(guard, |tickets| *tickets == 0).unwrap()
                        } else {
                            let timeout = Duration::from_micros([0, 1, 100][round % 7 % 3]);
                            put.wait_timeout_while(guard, timeout, |tickets| *tickets == 0)
                                .unwrap()
                                .0
                        };
                        if *guard > 0 {
                            *guard -= 1;
                            break;
                        }
                        timeouts += 1;
                        drop(guard);
                        strands_sched::yield_now();
                    }
                }
                done.send(timeouts).unwrap();
            })
        })
        .collect();
    drop(done);
    assert_eq!(all_done.iter().count(), PARTIES);
    started.into_iter().for_each(|join| join().unwrap());
    assert_eq!(*bowl.0.lock().unwrap(), 0);
}

/// A ring of parties, each with its own inlet, that pass tokens on; all kinds of channel and wait.
#[test]
fn a_ring_passes_every_token_round() {
    const PARTIES: usize = 6;
    let (tokens, rounds) = (4, 100 * stress());
    let runtime = runtime(2);
    let (first, mut inlet) = channel::<usize>();
    let started: Vec<_> = (0..PARTIES)
        .map(|me| {
            let (sender, receiver) = sync_channel(me % 3);
            let from = std::mem::replace(&mut inlet, receiver);
            let kind = [Kind::Thread, Kind::Fiber(0), Kind::Fiber(1)][me % 3];
            start(runtime.shared(), kind, move || {
                let mut passed = 0;
                loop {
                    match from.recv_timeout(Duration::from_micros(passed % 3 * 50)) {
                        Ok(token) => {
                            sender.send(token + 1).unwrap();
                            passed += 1;
                        }
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return passed,
                    }
                }
            })
        })
        .collect();
    (0..tokens).for_each(|_| first.send(0).unwrap());
    for _ in 0..tokens * (rounds - 1) {
        let token = inlet.recv().unwrap();
        first.send(token).unwrap();
    }
    let sum: usize = (0..tokens).map(|_| inlet.recv().unwrap()).sum();
    assert_eq!(sum, tokens * rounds * PARTIES);
    drop(first);
    for join in started {
        assert_eq!(join().unwrap() as usize, tokens * rounds);
    }
}
