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
            (Peer::Strands, strands_locks::rwlock),
            (Peer::May, may_locks::rwlock),
            (Peer::Tokio, rwlock_tokio),
            (Peer::Go, |plan| super::go("rwlock", plan)),
            (Peer::Threads, std_locks::rwlock),
        ],
    },
    Case {
        name: "condvar",
        title: "condvar, notify_all of 1,000 fibers, each",
        rows: WALL_AND_CPU,
        plan: Plan::new(2, 1_000),
        peers: &[
            #[cfg(feature = "strands")]
            (Peer::Strands, strands_locks::condvar),
            (Peer::May, may_locks::condvar),
            (Peer::Tokio, condvar_tokio),
            (Peer::Go, |plan| super::go("condvar", plan)),
            (Peer::Threads, std_locks::condvar),
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
        (Peer::Strands, strands_locks::mutex),
        (Peer::May, may_locks::mutex),
        (Peer::Tokio, mutex_tokio),
        (Peer::Go, |plan| super::go("mutex", plan)),
        (Peer::Threads, std_locks::mutex),
    ];
    Case { name, title, rows: contest::ROWS, plan: Plan::new(2, parties), peers: PEERS }
}

// ---- those whose locks have std's names ----

/// The programs that differ in whose locks they take, and in what takes them.
macro_rules! with_the_locks_of {
    ($($sync:ident)::+, by $start:path, in $programs:ident) => {
        mod $programs {
            use std::sync::Arc;

            use $($sync)::+::{Condvar, Mutex, RwLock};

            use super::{Line, WRITE_EVERY};
            use crate::cases::contest;
            use crate::measure::Figures;
            use crate::Plan;

            pub fn mutex(plan: &Plan) -> Figures {
                let mutex = Arc::new(Mutex::new(0u64));
                $start(plan, plan.count, move |mut tick| {
                    loop {
                        *mutex.lock().expect("nobody panics") += 1;
                        tick.add(1);
                    }
                })
            }

            pub fn rwlock(plan: &Plan) -> Figures {
                let lock = Arc::new(RwLock::new(0u64));
                $start(plan, plan.count, move |mut tick| {
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

            pub fn condvar(plan: &Plan) -> Figures {
                let waiters = plan.count;
                let line = Arc::new((Mutex::new(Line::default()), Condvar::new(), Condvar::new()));
                $start(plan, waiters + 1, move |mut tick| {
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
        }
    };
}

#[cfg(feature = "strands")]
with_the_locks_of!(strands::sync, by contest::strands, in strands_locks);
with_the_locks_of!(may::sync, by contest::may, in may_locks);
with_the_locks_of!(std::sync, by contest::threads, in std_locks);

// The condition variable's last party is who notifies. It waits until all others are in line, counts a
// generation and notifies all; an operation is one of them woken.

#[derive(Default)]
struct Line {
    generation: u64,
    waiting: usize,
}

/// One acquisition of a rwlock in so many is to write.
const WRITE_EVERY: u64 = 20;

// ---- tokio's ----

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
