//! Locks under contention: 2 workers, and every party does nothing else.
//!
//! What is guarded is one number, so the lock is all that is measured. The share of the slowest
//! party tells a fast lock from an unfair one.

use std::sync::Arc;

use super::{WALL_AND_CPU, contest};
use crate::measure::Figures;
use crate::{Case, Peer, Plan, Program};

pub const CASES: &[Case] = &[
    mutex("mutex/4", "mutex, 4 fibers, 2 workers", 4),
    mutex("mutex/64", "mutex, 64 fibers", 64),
    Case {
        name: "rwlock",
        title: "rwlock, 8 fibers, 2 workers, 1 in 20 writes",
        rows: contest::ROWS,
        plan: Plan::new(2, 8),
        peers: &[
            #[cfg(feature = "strands")]
            (Peer::Strands, rwlock_strands),
            (Peer::May, rwlock_may),
            (Peer::Tokio, rwlock_tokio),
            (Peer::Go, |plan| super::go("rwlock", plan)),
            (Peer::Threads, rwlock_threads),
        ],
    },
    Case {
        name: "condvar",
        title: "condvar, notify_all of 1,000 fibers, each",
        rows: WALL_AND_CPU,
        plan: Plan::new(2, 1_000),
        peers: &[
            #[cfg(feature = "strands")]
            (Peer::Strands, condvar_strands),
            (Peer::May, condvar_may),
            (Peer::Tokio, condvar_tokio),
            (Peer::Go, |plan| super::go("condvar", plan)),
            (Peer::Threads, condvar_threads),
        ],
    },
    Case {
        name: "semaphore",
        title: "semaphore of 4, 64 fibers, 2 workers",
        rows: contest::ROWS,
        plan: Plan::new(2, 64),
        peers: &[
            #[cfg(feature = "strands")]
            (Peer::Strands, semaphore_strands),
            (Peer::May, semaphore_may),
            (Peer::Tokio, semaphore_tokio),
            (Peer::Go, |plan| super::go("semaphore", plan)),
        ],
    },
];

const fn mutex(name: &'static str, title: &'static str, parties: usize) -> Case {
    const PEERS: &[(Peer, Program)] = &[
        #[cfg(feature = "strands")]
        (Peer::Strands, mutex_strands),
        (Peer::May, mutex_may),
        (Peer::Tokio, mutex_tokio),
        (Peer::Go, |plan| super::go("mutex", plan)),
        (Peer::Threads, mutex_threads),
    ];
    Case { name, title, rows: contest::ROWS, plan: Plan::new(2, parties), peers: PEERS }
}

// ---- mutex ----

#[cfg(feature = "strands")]
fn mutex_strands(plan: &Plan) -> Figures {
    let mutex = Arc::new(strands::sync::Mutex::new(0u64));
    contest::strands(plan, plan.count, move |mut tick| {
        loop {
            *mutex.lock().expect("nobody panics") += 1;
            tick.add(1);
        }
    })
}

fn mutex_may(plan: &Plan) -> Figures {
    let mutex = Arc::new(may::sync::Mutex::new(0u64));
    contest::may(plan, plan.count, move |mut tick| {
        loop {
            *mutex.lock().expect("nobody panics") += 1;
            tick.add(1);
        }
    })
}

fn mutex_tokio(plan: &Plan) -> Figures {
    let mutex = Arc::new(tokio::sync::Mutex::new(0u64));
    contest::tokio(plan, plan.count, move |mut tick| {
        let mutex = mutex.clone();
        async move {
            loop {
                *mutex.lock().await += 1;
                tick.add(1);
            }
        }
    })
}

fn mutex_threads(plan: &Plan) -> Figures {
    let mutex = Arc::new(std::sync::Mutex::new(0u64));
    contest::threads(plan, plan.count, move |mut tick| {
        loop {
            *mutex.lock().expect("nobody panics") += 1;
            tick.add(1);
        }
    })
}

// ---- rwlock ----

/// One acquisition in so many is to write.
const WRITE_EVERY: u64 = 20;

#[cfg(feature = "strands")]
fn rwlock_strands(plan: &Plan) -> Figures {
    let lock = Arc::new(strands::sync::RwLock::new(0u64));
    contest::strands(plan, plan.count, move |mut tick| {
        for turn in 0u64.. {
            if turn % WRITE_EVERY == 0 {
                *lock.write().expect("nobody panics") += 1;
            } else {
                std::hint::black_box(*lock.read().expect("nobody panics"));
            }
            tick.add(1);
        }
    })
}

fn rwlock_may(plan: &Plan) -> Figures {
    let lock = Arc::new(may::sync::RwLock::new(0u64));
    contest::may(plan, plan.count, move |mut tick| {
        for turn in 0u64.. {
            if turn % WRITE_EVERY == 0 {
                *lock.write().expect("nobody panics") += 1;
            } else {
                std::hint::black_box(*lock.read().expect("nobody panics"));
            }
            tick.add(1);
        }
    })
}

fn rwlock_tokio(plan: &Plan) -> Figures {
    let lock = Arc::new(tokio::sync::RwLock::new(0u64));
    contest::tokio(plan, plan.count, move |mut tick| {
        let lock = lock.clone();
        async move {
            for turn in 0u64.. {
                if turn % WRITE_EVERY == 0 {
                    *lock.write().await += 1;
                } else {
                    std::hint::black_box(*lock.read().await);
                }
                tick.add(1);
            }
        }
    })
}

fn rwlock_threads(plan: &Plan) -> Figures {
    let lock = Arc::new(std::sync::RwLock::new(0u64));
    contest::threads(plan, plan.count, move |mut tick| {
        for turn in 0u64.. {
            if turn % WRITE_EVERY == 0 {
                *lock.write().expect("nobody panics") += 1;
            } else {
                std::hint::black_box(*lock.read().expect("nobody panics"));
            }
            tick.add(1);
        }
    })
}

// ---- condvar ----
//
// The last party is who notifies. It waits until all others are in line, counts a generation and
// notifies all; an operation is one of them woken.

#[derive(Default)]
struct Line {
    generation: u64,
    waiting: usize,
}

#[cfg(feature = "strands")]
fn condvar_strands(plan: &Plan) -> Figures {
    use strands::sync::{Condvar, Mutex};
    let waiters = plan.count;
    let line = Arc::new((Mutex::new(Line::default()), Condvar::new(), Condvar::new()));
    contest::strands(plan, waiters + 1, move |mut tick| {
        let (line, next, all_wait) = &*line;
        let mut state = line.lock().expect("nobody panics");
        loop {
            if tick.party() == waiters {
                state = all_wait
                    .wait_while(state, |line| line.waiting < waiters)
                    .expect("nobody panics");
                state.waiting = 0;
                state.generation += 1;
                next.notify_all();
                tick.add(waiters as u64);
            } else {
                let generation = state.generation;
                state.waiting += 1;
                if state.waiting == waiters {
                    all_wait.notify_one();
                }
                state = next
                    .wait_while(state, |line| line.generation == generation)
                    .expect("nobody panics");
            }
        }
    })
}

fn condvar_may(plan: &Plan) -> Figures {
    use may::sync::{Condvar, Mutex};
    let waiters = plan.count;
    let line = Arc::new((Mutex::new(Line::default()), Condvar::new(), Condvar::new()));
    contest::may(plan, waiters + 1, move |mut tick| {
        let (line, next, all_wait) = &*line;
        let mut state = line.lock().expect("nobody panics");
        loop {
            if tick.party() == waiters {
                while state.waiting < waiters {
                    state = all_wait.wait(state).expect("nobody panics");
                }
                state.waiting = 0;
                state.generation += 1;
                next.notify_all();
                tick.add(waiters as u64);
            } else {
                let generation = state.generation;
                state.waiting += 1;
                if state.waiting == waiters {
                    all_wait.notify_one();
                }
                while state.generation == generation {
                    state = next.wait(state).expect("nobody panics");
                }
            }
        }
    })
}

/// tokio has no condition variable: the same with its `Notify`, armed under a lock.
fn condvar_tokio(plan: &Plan) -> Figures {
    use std::pin::pin;
    use std::sync::Mutex;
    use tokio::sync::Notify;
    let waiters = plan.count;
    let line = Arc::new((Mutex::new(Line::default()), Notify::new(), Notify::new()));
    contest::tokio(plan, waiters + 1, move |mut tick| {
        let line = line.clone();
        async move {
            let (line, next, all_wait) = &*line;
            loop {
                if tick.party() == waiters {
                    all_wait.notified().await;
                    let mut state = line.lock().expect("nobody panics");
                    state.waiting = 0;
                    state.generation += 1;
                    drop(state);
                    next.notify_waiters();
                    tick.add(waiters as u64);
                } else {
                    let mut woken = pin!(next.notified());
                    {
                        let mut state = line.lock().expect("nobody panics");
                        woken.as_mut().enable();
                        state.waiting += 1;
                        if state.waiting == waiters {
                            all_wait.notify_one();
                        }
                    }
                    woken.await;
                }
            }
        }
    })
}

fn condvar_threads(plan: &Plan) -> Figures {
    use std::sync::{Condvar, Mutex};
    let waiters = plan.count;
    let line = Arc::new((Mutex::new(Line::default()), Condvar::new(), Condvar::new()));
    contest::threads(plan, waiters + 1, move |mut tick| {
        let (line, next, all_wait) = &*line;
        let mut state = line.lock().expect("nobody panics");
        loop {
            if tick.party() == waiters {
                state = all_wait
                    .wait_while(state, |line| line.waiting < waiters)
                    .expect("nobody panics");
                state.waiting = 0;
                state.generation += 1;
                next.notify_all();
                tick.add(waiters as u64);
            } else {
                let generation = state.generation;
                state.waiting += 1;
                if state.waiting == waiters {
                    all_wait.notify_one();
                }
                state = next
                    .wait_while(state, |line| line.generation == generation)
                    .expect("nobody panics");
            }
        }
    })
}

// ---- semaphore ----
//
// Who has a permit yields once, as one does who has a semaphore for a reason: so permits are short.
// std has none; Go's is a channel with room for as many as there are permits.

const PERMITS: usize = 4;

#[cfg(feature = "strands")]
fn semaphore_strands(plan: &Plan) -> Figures {
    let semaphore = Arc::new(strands::sync::Semaphore::new(PERMITS));
    contest::strands(plan, plan.count, move |mut tick| {
        loop {
            let permit = semaphore.acquire().expect("it is never closed");
            strands::yield_now();
            drop(permit);
            tick.add(1);
        }
    })
}

fn semaphore_may(plan: &Plan) -> Figures {
    let semaphore = Arc::new(may::sync::Semphore::new(PERMITS));
    contest::may(plan, plan.count, move |mut tick| {
        loop {
            semaphore.wait();
            may::coroutine::yield_now();
            semaphore.post();
            tick.add(1);
        }
    })
}

fn semaphore_tokio(plan: &Plan) -> Figures {
    let semaphore = Arc::new(tokio::sync::Semaphore::new(PERMITS));
    contest::tokio(plan, plan.count, move |mut tick| {
        let semaphore = semaphore.clone();
        async move {
            loop {
                let permit = semaphore.acquire().await.expect("it is never closed");
                tokio::task::yield_now().await;
                drop(permit);
                tick.add(1);
            }
        }
    })
}
