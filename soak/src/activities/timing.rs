//! Time limits, which never pass early, and parking.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use strands::sync::mpsc;
use strands::thread::{self, Thread};

use crate::books::{self, Count, check};
use crate::party::{Party, Started};

/// Some who sleep, for very different times.
pub fn sleep(party: &mut Party) {
    let mut others: Vec<Started<()>> = Vec::new();
    for _ in 0..party.rng.u32(..40) {
        others.extend(party.start(|party| nap(party, 30_000)));
    }
    for _ in 0..party.rng.u32(1..10) {
        nap(party, 2_000);
    }
    for other in others {
        other.join();
    }
}

fn nap(party: &mut Party, most_us: u64) {
    let most_us = party.rng.u64(1..=most_us);
    let time = Duration::from_nanos(party.rng.u64(..most_us * 1_000));
    let start = Instant::now();
    strands::sleep(time);
    let took = start.elapsed();
    check(took >= time, || format!("a sleep of {time:?} took {took:?}"));
    books::count(Count::Timers);
}

/// Waits for what never comes.
pub fn time_out(party: &mut Party) {
    let (_sender, receiver) = mpsc::channel::<()>();
    for _ in 0..party.rng.u32(1..10) {
        let timeout = Duration::from_micros(party.rng.u64(..3_000));
        let start = Instant::now();
        match party.rng.bool() {
            true => {
                check(receiver.recv_timeout(timeout).is_err(), || "nothing was received".into())
            }
            false => {
                // A park may end without a reason, and the token of an earlier episode is one.
                let start = Instant::now();
                while start.elapsed() < timeout {
                    thread::park_timeout(timeout - start.elapsed().min(timeout));
                }
            }
        }
        let took = start.elapsed();
        check(took >= timeout, || format!("{timeout:?} were over after {took:?}"));
        books::count(Count::Timers);
    }
}

/// Two take turns: each waits parked until the other unparks it.
pub fn park(party: &mut Party) {
    let turns = Arc::new([Turn::default(), Turn::default()]);
    let rounds = party.rng.u32(1..100);
    let (first, second) = (Player::new(&turns, 0), Player::new(&turns, 1));
    let other = party.start(move |_| second.play(rounds));
    first.play(rounds);
    other.map(Started::join);
}

#[derive(Default)]
struct Turn {
    /// Who waits for it.
    waiter: OnceLock<Thread>,
    /// It has come.
    is_now: AtomicBool,
    /// It may never come: the other has gone.
    other_left: AtomicBool,
}

impl Turn {
    fn give(&self) {
        self.is_now.store(true, SeqCst);
        self.unpark();
    }

    fn leave(&self) {
        self.other_left.store(true, SeqCst);
        self.unpark();
    }

    fn unpark(&self) {
        // One that has not said who it is looks before it parks.
        if let Some(waiter) = self.waiter.get() {
            waiter.unpark();
        }
    }
}

/// One of the two. It tells the other when it goes, in whatever way, also if it never played.
struct Player {
    turns: Arc<[Turn; 2]>,
    place: usize,
}

impl Player {
    fn new(turns: &Arc<[Turn; 2]>, place: usize) -> Player {
        Player { turns: turns.clone(), place }
    }

    fn play(self, rounds: u32) {
        let (mine, other) = (&self.turns[self.place], &self.turns[1 - self.place]);
        mine.waiter.set(thread::current()).expect("a turn has one waiter");
        for round in 0..rounds {
            let begins = self.place == 0 && round == 0;
            while !begins && !mine.is_now.swap(false, SeqCst) {
                // It gave its last turn before it left.
                if mine.other_left.load(SeqCst) && !mine.is_now.load(SeqCst) {
                    return;
                }
                thread::park();
            }
            books::count(Count::Unparked);
            other.give();
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.turns[1 - self.place].leave();
    }
}
