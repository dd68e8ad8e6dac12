//! Spawn a fiber that returns a number, and join it: one at a time, and in batches of 10,000.
//!
//! The parent is a fiber (a task, a thread) itself. "One at a time" joins each child before the
//! next is spawned.

use super::{WALL, WALL_AND_CPU, configure_may, spawn_thread, tokio_runtime};
use crate::measure::{Figures, Meter};
use crate::{Case, Peer, Plan, Row};

pub const CASES: &[Case] = &[
    case("spawn-join/1", "spawn + join, one at a time, 1 worker", WALL, Plan::new(1, 1)),
    case("spawn-join/2", "spawn + join, one at a time, 2 workers", WALL_AND_CPU, Plan::new(2, 1)),
    case("spawn-batch/1", "spawn + join, batches of 10,000, 1 worker", WALL, Plan::new(1, 10_000)),
    case(
        "spawn-batch/2",
        "spawn + join, batches of 10,000, 2 workers",
        WALL_AND_CPU,
        Plan::new(2, 10_000),
    ),
];

const fn case(name: &'static str, title: &'static str, rows: &'static [Row], plan: Plan) -> Case {
    Case {
        name,
        title,
        rows,
        plan,
        peers: &[
            #[cfg(feature = "strands")]
            (Peer::Strands, strands),
            (Peer::May, may),
            (Peer::Tokio, tokio),
            (Peer::Go, |plan| super::go("spawn-join", plan)),
            (Peer::Threads, threads),
        ],
    }
}

/// Children between two looks at the clock.
const CHUNK: usize = 100;

#[cfg(feature = "strands")]
fn strands(plan: &Plan) -> Figures {
    let plan = *plan;
    super::strands_runtime(plan.workers).run(move || {
        let mut meter = Meter::start(plan.budget());
        while meter.more() {
            if plan.count == 1 {
                for i in 0..CHUNK {
                    assert_eq!(strands::spawn(move || i).join().expect("a child"), i);
                }
                meter.add(CHUNK as u64);
            } else {
                let children: Vec<_> = (0..plan.count).map(|i| strands::spawn(move || i)).collect();
                for (i, child) in children.into_iter().enumerate() {
                    assert_eq!(child.join().expect("a child"), i);
                }
                meter.add(plan.count as u64);
            }
        }
        meter.per_op()
    })
}

fn may(plan: &Plan) -> Figures {
    configure_may(plan, plan.workers);
    let plan = *plan;
    // SAFETY: the closures touch no thread-local and need far less than a stack.
    let main = unsafe {
        may::coroutine::spawn(move || {
            let mut meter = Meter::start(plan.budget());
            while meter.more() {
                if plan.count == 1 {
                    for i in 0..CHUNK {
                        assert_eq!(may::coroutine::spawn(move || i).join().expect("a child"), i);
                    }
                    meter.add(CHUNK as u64);
                } else {
                    let children: Vec<_> =
                        (0..plan.count).map(|i| may::coroutine::spawn(move || i)).collect();
                    for (i, child) in children.into_iter().enumerate() {
                        assert_eq!(child.join().expect("a child"), i);
                    }
                    meter.add(plan.count as u64);
                }
            }
            meter.per_op()
        })
    };
    main.join().expect("the main coroutine")
}

fn tokio(plan: &Plan) -> Figures {
    let plan = *plan;
    let runtime = tokio_runtime(plan.workers);
    let main = runtime.spawn(async move {
        let mut meter = Meter::start(plan.budget());
        while meter.more() {
            if plan.count == 1 {
                for i in 0..CHUNK {
                    assert_eq!(tokio::spawn(async move { i }).await.expect("a child"), i);
                }
                meter.add(CHUNK as u64);
            } else {
                let children: Vec<_> =
                    (0..plan.count).map(|i| tokio::spawn(async move { i })).collect();
                for (i, child) in children.into_iter().enumerate() {
                    assert_eq!(child.await.expect("a child"), i);
                }
                meter.add(plan.count as u64);
            }
        }
        meter.per_op()
    });
    runtime.block_on(main).expect("the main task")
}

fn threads(plan: &Plan) -> Figures {
    let plan = *plan;
    let mut meter = Meter::start(plan.budget());
    while meter.more() {
        if plan.count == 1 {
            for i in 0..CHUNK {
                assert_eq!(spawn_thread(move || i).join().expect("a child"), i);
            }
            meter.add(CHUNK as u64);
        } else {
            let children: Vec<_> = (0..plan.count).map(|i| spawn_thread(move || i)).collect();
            for (i, child) in children.into_iter().enumerate() {
                assert_eq!(child.join().expect("a child"), i);
            }
            meter.add(plan.count as u64);
        }
    }
    meter.per_op()
}
