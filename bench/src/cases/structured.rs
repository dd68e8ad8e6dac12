//! Structured concurrency: scopes, what a cancel of many costs, and a time limit around a call.
//!
//! A scope of 1,000 children is opened, filled, and left when all have ended; by what each peer has for that: a scope, a
//! `JoinSet` whose results are taken, a `WaitGroup`. A cancel of 100,000 counts from the call until all have ended and
//! their destructors have run. The time limit that does not pass is put around a call that returns at once, and around one
//! that waits for a neighbour's answer.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::{THREAD_STACK_BYTES, WALL, WALL_AND_CPU, tokio_runtime};
use crate::measure::{Figures, Meter, Stopwatch};
use crate::{Case, Peer, Plan, Row};

pub const CASES: &[Case] = &[
    scope("scope/1", "a child, in a scope of 1,000, 1 worker", WALL, Plan::new(1, 1_000)),
    scope("scope/2", "a child, in a scope of 1,000, 2 workers", WALL_AND_CPU, Plan::new(2, 1_000)),
    Case {
        name: "group/1",
        title: "a child whose result is taken, in a group of 1,000, 1 worker",
        rows: WALL,
        plan: Plan::new(1, 1_000),
        peers: &[
            #[cfg(feature = "strands")]
            (Peer::Strands, strands_group),
            (Peer::Tokio, tokio_scope),
        ],
    },
    Case {
        name: "cancel/100000",
        title: "to cancel a fiber that waits, of 100,000",
        rows: WALL,
        plan: Plan::new(1, 100_000),
        peers: &[
            #[cfg(feature = "strands")]
            (Peer::Strands, strands_cancel),
            (Peer::Tokio, tokio_cancel),
            (Peer::Go, |plan| super::go("cancel", plan)),
        ],
    },
    timeout("timeout/at-once", "time limit around a call that returns at once", Plan::new(1, 0)),
    timeout("timeout/waits", "time limit around a channel round trip", Plan::new(1, 1)),
];

const fn scope(name: &'static str, title: &'static str, rows: &'static [Row], plan: Plan) -> Case {
    Case {
        name,
        title,
        rows,
        plan,
        peers: &[
            #[cfg(feature = "strands")]
            (Peer::Strands, strands_scope),
            (Peer::Tokio, tokio_scope),
            (Peer::Go, |plan| super::go("scope", plan)),
            (Peer::Threads, threads_scope),
        ],
    }
}

/// `plan.count` says how many channels the call waits for.
const fn timeout(name: &'static str, title: &'static str, plan: Plan) -> Case {
    Case {
        name,
        title,
        rows: WALL,
        plan,
        peers: &[
            #[cfg(feature = "strands")]
            (Peer::Strands, strands_timeout),
            (Peer::Tokio, tokio_timeout),
            (Peer::Go, |plan| super::go("timeout", plan)),
        ],
    }
}

#[cfg(feature = "strands")]
fn strands_scope(plan: &Plan) -> Figures {
    let plan = *plan;
    super::strands_runtime(plan.workers).run(move || {
        let ended = AtomicUsize::new(0);
        let mut meter = Meter::start(plan.budget());
        while meter.more() {
            strands::scope(|scope| {
                for _ in 0..plan.count {
                    scope.spawn(|| ended.fetch_add(1, Relaxed));
                }
            });
            meter.add(plan.count as u64);
        }
        meter.per_op()
    })
}

#[cfg(feature = "strands")]
fn strands_group(plan: &Plan) -> Figures {
    let plan = *plan;
    super::strands_runtime(plan.workers).run(move || {
        let ended = Arc::new(AtomicUsize::new(0));
        let mut meter = Meter::start(plan.budget());
        while meter.more() {
            let group = strands::FiberGroup::new();
            for _ in 0..plan.count {
                let ended = ended.clone();
                group.spawn(move || ended.fetch_add(1, Relaxed));
            }
            while let Some(result) = group.join_next() {
                result.expect("a child");
            }
            meter.add(plan.count as u64);
        }
        meter.per_op()
    })
}

fn tokio_scope(plan: &Plan) -> Figures {
    let plan = *plan;
    let runtime = tokio_runtime(plan.workers);
    let main = runtime.spawn(async move {
        let ended = Arc::new(AtomicUsize::new(0));
        let mut meter = Meter::start(plan.budget());
        while meter.more() {
            let mut set = tokio::task::JoinSet::new();
            for _ in 0..plan.count {
                let ended = ended.clone();
                set.spawn(async move { ended.fetch_add(1, Relaxed) });
            }
            while let Some(result) = set.join_next().await {
                result.expect("a child");
            }
            meter.add(plan.count as u64);
        }
        meter.per_op()
    });
    runtime.block_on(main).expect("the main task")
}

fn threads_scope(plan: &Plan) -> Figures {
    let ended = AtomicUsize::new(0);
    let mut meter = Meter::start(plan.budget());
    while meter.more() {
        thread::scope(|scope| {
            for _ in 0..plan.count {
                let builder = thread::Builder::new().stack_size(THREAD_STACK_BYTES);
                let child = || ended.fetch_add(1, Relaxed);
                builder.spawn_scoped(scope, child).expect("a thread");
            }
        });
        meter.add(plan.count as u64);
    }
    meter.per_op()
}

/// How many shall be cancelled.
fn count(plan: &Plan) -> usize {
    if plan.quick { plan.count / 10 } else { plan.count }
}

/// What a fiber that is cancelled drops.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Waits<'a> {
        waiting.fetch_add(1, Relaxed);
        Waits(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(feature = "strands")]
fn strands_cancel(plan: &Plan) -> Figures {
    let (count, workers) = (count(plan), plan.workers);
    super::strands_runtime(workers).run(move || {
        let waiting = AtomicUsize::new(0);
        let watch = strands::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| {
                    let _waits = Waits::new(&waiting);
                    strands::thread::park();
                });
            }
            while waiting.load(Relaxed) < count {
                strands::yield_now();
            }
            let watch = Stopwatch::start();
            scope.cancel();
            watch
        });
        assert_eq!(waiting.into_inner(), 0);
        watch.per_op(count as u64)
    })
}

fn tokio_cancel(plan: &Plan) -> Figures {
    let count = count(plan);
    let runtime = tokio_runtime(plan.workers);
    let main = runtime.spawn(async move {
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut set = tokio::task::JoinSet::new();
        for _ in 0..count {
            let waiting = waiting.clone();
            set.spawn(async move {
                let _waits = Waits::new(&waiting);
                std::future::pending::<()>().await;
            });
        }
        while waiting.load(Relaxed) < count {
            tokio::task::yield_now().await;
        }
        let watch = Stopwatch::start();
        set.shutdown().await;
        assert_eq!(waiting.load(Relaxed), 0);
        watch.per_op(count as u64)
    });
    runtime.block_on(main).expect("the main task")
}

/// Far away.
const LIMIT: Duration = Duration::from_secs(3600);
/// Calls between two looks at the clock.
const CHUNK: u64 = 100;

#[cfg(feature = "strands")]
fn strands_timeout(plan: &Plan) -> Figures {
    let (waits, budget) = (plan.count > 0, plan.budget());
    super::strands_runtime(1).run(move || {
        let (ask, questions) = strands::channel::bounded(1);
        let (tell, answers) = strands::channel::bounded(1);
        let neighbour = strands::spawn(move || {
            for question in questions {
                tell.send(question).expect("it is waited for");
            }
        });
        let call = |number: u64| {
            if !waits {
                return black_box(number);
            }
            ask.send(number).expect("the neighbour is there");
            answers.recv().expect("the neighbour is there")
        };
        let mut meter = Meter::start(budget);
        while meter.more() {
            for number in 0..CHUNK {
                assert_eq!(strands::time::timeout(LIMIT, || call(number)), Ok(number));
            }
            meter.add(CHUNK);
        }
        let figures = meter.per_op();
        drop(ask);
        neighbour.join().expect("the neighbour");
        figures
    })
}

fn tokio_timeout(plan: &Plan) -> Figures {
    let (waits, budget) = (plan.count > 0, plan.budget());
    let runtime = tokio_runtime(1);
    let main = runtime.spawn(async move {
        let (ask, mut questions) = tokio::sync::mpsc::channel(1);
        let (tell, mut answers) = tokio::sync::mpsc::channel(1);
        let neighbour = tokio::spawn(async move {
            while let Some(question) = questions.recv().await {
                tell.send(question).await.expect("it is waited for");
            }
        });
        let mut meter = Meter::start(budget);
        while meter.more() {
            for number in 0..CHUNK {
                let call = async {
                    if !waits {
                        return black_box(number);
                    }
                    ask.send(number).await.expect("the neighbour is there");
                    answers.recv().await.expect("the neighbour is there")
                };
                let answer = tokio::time::timeout(LIMIT, call).await;
                assert_eq!(answer.expect("in time"), number);
            }
            meter.add(CHUNK);
        }
        let figures = meter.per_op();
        drop(ask);
        neighbour.await.expect("the neighbour");
        figures
    });
    runtime.block_on(main).expect("the main task")
}
