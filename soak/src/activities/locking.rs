//! Mutexes and condition variables: one inside at a time, no poison without a panic, no wake lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use strands::sync::{Condvar, Mutex, MutexGuard, TryLockError};

use crate::activities::messaging::Message;
use crate::activities::spawning::pause;
use crate::books::{self, Count, check, violation};
use crate::party::{Party, Started};

#[derive(Default)]
struct Counter {
    value: Mutex<u64>,
    /// The same, without the lock.
    tally: AtomicU64,
    /// Somebody is between lock and unlock.
    inside: AtomicBool,
    /// Somebody panicked there, or is about to.
    may_be_poisoned: AtomicBool,
}

/// Dropped before the guard of the lock.
struct Inside<'a>(&'a Counter);

impl Counter {
    fn enter(&self) -> Inside<'_> {
        check(!self.inside.swap(true, SeqCst), || "two were inside one mutex".into());
        Inside(self)
    }

    fn lock(&self, party: &mut Party) -> MutexGuard<'_, u64> {
        books::count(Count::Locks);
        let locked = match party.rng.u32(..4) {
            0 => match self.value.try_lock() {
                Ok(guard) => Ok(guard),
                Err(TryLockError::Poisoned(poisoned)) => Err(poisoned),
                Err(TryLockError::WouldBlock) => self.value.lock(),
            },
            _ => self.value.lock(),
        };
        locked.unwrap_or_else(|poisoned| {
            let planned = self.may_be_poisoned.load(SeqCst);
            check(planned, || "a mutex was poisoned without a panic".into());
            let guard = poisoned.into_inner();
            if party.rng.bool() {
                // Nobody else is inside, so nobody panics there meanwhile.
                self.value.clear_poison();
                self.may_be_poisoned.store(false, SeqCst);
            }
            guard
        })
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        check(self.0.inside.swap(false, SeqCst), || "the mutex was left by another".into());
    }
}

/// Some who count to the same counter, and wait, panic or are cancelled while they hold it.
pub fn counter(party: &mut Party) {
    let counter = Arc::new(Counter::default());
    let rounds = party.rng.u64(1..40);
    let panics = party.rng.u32(..4) == 0;
    let mut others = Vec::new();
    for _ in 0..party.rng.u32(1..8) {
        let counter = counter.clone();
        others.extend(party.start(move |party| {
            for _ in 0..rounds {
                let mut value = counter.lock(party);
                let _inside = counter.enter();
                *value += 1;
                counter.tally.fetch_add(1, SeqCst);
                pause(party);
                if panics && party.rng.u32(..50) == 0 {
                    counter.may_be_poisoned.store(true, SeqCst);
                    party.panic();
                }
                drop(_inside);
                drop(value);
                pause(party);
            }
        }));
    }
    for other in others {
        other.join();
    }
    let value = counter.lock(party);
    let tally = counter.tally.load(SeqCst);
    check(*value == tally, || format!("a mutex counted {}, not {tally}", *value));
}

const CAPACITY: usize = 4;

#[derive(Default)]
struct Buffer {
    state: Mutex<State>,
    not_empty: Condvar,
    not_full: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Message>,
    producers: usize,
    consumers: usize,
    put: u64,
    taken: u64,
}

/// Counts a party out, in whatever way it ends: it may have to wait for the lock in its unwinding.
struct Role {
    buffer: Arc<Buffer>,
    produces: bool,
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, State> {
        books::count(Count::Locks);
        self.state.lock().unwrap_or_else(|poisoned| {
            violation("a mutex was poisoned by a cancel");
            poisoned.into_inner()
        })
    }

    fn role(self: &Arc<Buffer>, produces: bool) -> Role {
        let mut state = self.lock();
        if produces {
            state.producers += 1
        } else {
            state.consumers += 1
        }
        Role { buffer: self.clone(), produces }
    }

    /// Waits on `condvar` in one of its ways while `goes_on`.
    fn wait<'a>(
        party: &mut Party,
        condvar: &Condvar,
        mut guard: MutexGuard<'a, State>,
        goes_on: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        while goes_on(&guard) {
            books::count(Count::Waits);
            guard = if party.rng.u32(..4) == 0 {
                let (start, timeout) =
                    (Instant::now(), Duration::from_micros(party.rng.u64(..900)));
                let waited = condvar.wait_timeout(guard, timeout);
                let (guard, result) = waited.unwrap_or_else(|poisoned| {
                    violation("a mutex was poisoned by a cancel");
                    poisoned.into_inner()
                });
                if result.timed_out() {
                    let took = start.elapsed();
                    check(took >= timeout, || format!("{timeout:?} were over after {took:?}"));
                    books::count(Count::Timers);
                }
                guard
            } else {
                condvar.wait(guard).unwrap_or_else(|poisoned| {
                    violation("a mutex was poisoned by a cancel");
                    poisoned.into_inner()
                })
            };
        }
        guard
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let mut state = self.buffer.lock();
        if self.produces {
            state.producers -= 1
        } else {
            state.consumers -= 1
        }
        if state.producers == 0 && state.consumers == 0 {
            let (put, taken, left) = (state.put, state.taken, state.queue.len() as u64);
            let balances = put == taken + left;
            check(balances, || format!("{put} were put in a buffer, {taken} taken, {left} left"));
        }
        drop(state);
        self.buffer.not_empty.notify_all();
        self.buffer.not_full.notify_all();
    }
}

/// A bounded buffer with producers and consumers. One notification a change, so one that is lost
/// is one that somebody waits for.
pub fn buffer(party: &mut Party) {
    let buffer = Arc::new(Buffer::default());
    let each = party.rng.u64(1..60);
    let (producers, consumers) = (party.rng.usize(1..4), party.rng.usize(1..4));
    let mut others: Vec<Started<()>> = Vec::new();
    for sender in 0..producers {
        let (role, buffer) = (buffer.role(true), buffer.clone());
        others.extend(party.start(move |party| {
            let _role = role;
            for number in 0..each {
                let full = |state: &State| state.queue.len() == CAPACITY && state.consumers > 0;
                let guard = buffer.lock();
                let mut state = Buffer::wait(party, &buffer.not_full, guard, full);
                if state.consumers == 0 {
                    return;
                }
                state.queue.push_back(Message::new(sender, number));
                state.put += 1;
                drop(state);
                buffer.not_empty.notify_one();
                pause(party);
            }
        }));
    }
    for _ in 0..consumers {
        let (role, buffer) = (buffer.role(false), buffer.clone());
        others.extend(party.start(move |party| {
            let _role = role;
            loop {
                let empty = |state: &State| state.queue.is_empty() && state.producers > 0;
                let guard = buffer.lock();
                let mut state = Buffer::wait(party, &buffer.not_empty, guard, empty);
                let Some(message) = state.queue.pop_front() else { return };
                state.taken += 1;
                drop(state);
                buffer.not_full.notify_one();
                message.receive();
                pause(party);
            }
        }));
    }
    for other in others {
        other.join();
    }
}
