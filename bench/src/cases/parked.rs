//! The memory of fibers that wait: resident pages and page tables, by the kernel's count.
//!
//! Each fiber parks three calls deep, and each call keeps a small array alive: a fiber that waits
//! somewhere, as in a program.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;

use super::{configure_may, tokio_runtime};
use crate::measure::{Figures, Memory, wait_until_idle};
use crate::{Case, Peer, Plan, Row};

pub const CASES: &[Case] = &[
    Case {
        name: "parked/10000",
        title: "memory of a parked fiber, of 10,000",
        rows: ROWS,
        plan: Plan::new(1, 10_000),
        peers: &[
            #[cfg(feature = "strands")]
            (Peer::Strands, strands),
            (Peer::May, may),
            (Peer::Tokio, tokio),
            (Peer::Threads, threads),
        ],
    },
    Case {
        name: "parked/1000000",
        title: "memory of a parked fiber, of 1,000,000",
        rows: ROWS,
        plan: Plan::new(1, 1_000_000),
        // may fails above 30,000 coroutines; so many threads are more than the machine allows.
        peers: &[
            #[cfg(feature = "strands")]
            (Peer::Strands, strands),
            (Peer::Tokio, tokio),
        ],
    },
];

const ROWS: &[Row] = &[Row { figure: "bytes", label: "", unit: "B" }];

/// The size of the array that each of the three frames keeps over the wait.
const FRAME_BYTES: usize = 64;

/// Starts fibers by `spawn`, waits until each has said that it is about to park and all is quiet,
/// and weighs them.
///
/// Runs on a plain thread, so that no peer's own idea of waiting is in it.
fn weigh(plan: &Plan, spawn: impl FnOnce(usize, Arc<AtomicUsize>)) -> Figures {
    let fibers = if plan.quick { plan.count.min(100_000) } else { plan.count };
    let parked = Arc::new(AtomicUsize::new(0));
    let before = Memory::now();
    spawn(fibers, parked.clone());
    while parked.load(Ordering::Acquire) < fibers {
        thread::sleep(Duration::from_millis(1));
    }
    wait_until_idle();
    let after = Memory::now();

    let per_fiber = |before: u64, after: u64| after.saturating_sub(before) as f64 / fibers as f64;
    let resident = per_fiber(before.resident, after.resident);
    let page_tables = per_fiber(before.page_tables, after.page_tables);
    Figures::new()
        .with("bytes", resident + page_tables)
        .with("resident", resident)
        .with("page_tables", page_tables)
        .with("kernel_stack", per_fiber(before.kernel_stacks, after.kernel_stacks))
}

/// Three frames, the innermost of which waits.
fn three_deep(wait: &dyn Fn()) {
    #[inline(never)]
    fn outer(wait: &dyn Fn()) {
        let frame = black_box([1u8; FRAME_BYTES]);
        middle(wait);
        black_box(&frame);
    }
    #[inline(never)]
    fn middle(wait: &dyn Fn()) {
        let frame = black_box([2u8; FRAME_BYTES]);
        inner(wait);
        black_box(&frame);
    }
    #[inline(never)]
    fn inner(wait: &dyn Fn()) {
        let frame = black_box([3u8; FRAME_BYTES]);
        wait();
        black_box(&frame);
    }
    outer(wait);
}

#[cfg(feature = "strands")]
fn strands(plan: &Plan) -> Figures {
    let runtime = super::strands_runtime(1);
    weigh(plan, |fibers, parked| {
        // `run` waits for its closure, and the closure for ever: let a thread do that.
        thread::spawn(move || {
            runtime.run(move || {
                for _ in 0..fibers {
                    let parked = parked.clone();
                    drop(strands::spawn(move || {
                        three_deep(&|| {
                            parked.fetch_add(1, Ordering::Release);
                            loop {
                                strands::thread::park();
                            }
                        })
                    }));
                }
                loop {
                    strands::thread::park();
                }
            })
        });
    })
}

fn may(plan: &Plan) -> Figures {
    configure_may(plan, 1);
    weigh(plan, |fibers, parked| {
        for _ in 0..fibers {
            let parked = parked.clone();
            // SAFETY: the closure touches no thread-local and needs far less than a stack.
            drop(unsafe {
                may::coroutine::spawn(move || {
                    three_deep(&|| {
                        parked.fetch_add(1, Ordering::Release);
                        loop {
                            may::coroutine::park();
                        }
                    })
                })
            });
        }
    })
}

fn tokio(plan: &Plan) -> Figures {
    let runtime = tokio_runtime(1);
    weigh(plan, |fibers, parked| {
        // The tasks wait for ever: let a thread wait with them.
        thread::spawn(move || {
            runtime.block_on(async move {
                let gate = Arc::new(Notify::new());
                for _ in 0..fibers {
                    drop(tokio::spawn(async_three_deep(parked.clone(), gate.clone())));
                }
                gate.notified().await;
            })
        });
    })
}

/// Three frames of a future: the compiler lays them into one object.
async fn async_three_deep(parked: Arc<AtomicUsize>, gate: Arc<Notify>) {
    async fn outer(parked: Arc<AtomicUsize>, gate: Arc<Notify>) {
        let frame = black_box([1u8; FRAME_BYTES]);
        middle(parked, gate).await;
        black_box(&frame);
    }
    async fn middle(parked: Arc<AtomicUsize>, gate: Arc<Notify>) {
        let frame = black_box([2u8; FRAME_BYTES]);
        inner(parked, gate).await;
        black_box(&frame);
    }
    async fn inner(parked: Arc<AtomicUsize>, gate: Arc<Notify>) {
        let frame = black_box([3u8; FRAME_BYTES]);
        parked.fetch_add(1, Ordering::Release);
        // tokio has no `park` for tasks; nobody notifies.
        gate.notified().await;
        black_box(&frame);
    }
    outer(parked, gate).await;
}

/// Its kernel stack is not in the figure: the kernel does not charge it to the process.
fn threads(plan: &Plan) -> Figures {
    weigh(plan, |fibers, parked| {
        for _ in 0..fibers {
            let parked = parked.clone();
            super::spawn_thread(move || {
                three_deep(&|| {
                    parked.fetch_add(1, Ordering::Release);
                    loop {
                        thread::park();
                    }
                })
            });
        }
    })
}
