//! Two fibers and two unbounded channels: one number goes there and comes back. A round trip is two
//! messages.
//!
//! On two workers the runtime may place the two as it likes. Apart, each has a worker of its own to itself; may and
//! Go cannot be told so.

use tokio::runtime::{Builder, Handle};

use super::{WALL, WALL_AND_CPU, configure_may, spawn_thread, tokio_runtime};
use crate::measure::{Figures, Meter};
use crate::{Case, Peer, Plan, Row};

pub const CASES: &[Case] = &[
    case("ping-pong/1", "channel ping-pong, 1 worker", WALL, Plan::new(1, 2)),
    case("ping-pong/2", "channel ping-pong, 2 workers", WALL_AND_CPU, Plan::new(2, 2)),
    #[cfg(feature = "strands")]
    Case {
        name: "ping-pong/apart",
        title: "channel ping-pong, a worker each",
        rows: WALL_AND_CPU,
        plan: Plan::new(2, 2),
        peers: &[
            (Peer::Strands, strands_apart),
            (Peer::Tokio, tokio_apart),
            (Peer::Threads, threads),
        ],
    },
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
            (Peer::Go, |plan| super::go("ping-pong", plan)),
            (Peer::Threads, threads),
        ],
    }
}

/// Round trips between two looks at the clock.
const CHUNK: u64 = 100;

/// Those of `there_and_back`, which waits as its peer does.
fn round_trips(plan: Plan, mut there_and_back: impl FnMut(u64) -> u64) -> Figures {
    let mut meter = Meter::start(plan.budget());
    while meter.more() {
        for i in 0..CHUNK {
            assert_eq!(there_and_back(i), i);
        }
        meter.add(CHUNK);
    }
    meter.per_op()
}

#[cfg(feature = "strands")]
fn strands(plan: &Plan) -> Figures {
    let plan = *plan;
    super::strands_runtime(plan.workers)
        .run(move || strands_pair(plan, strands::thread::Builder::new()))
}

#[cfg(feature = "strands")]
fn strands_apart(plan: &Plan) -> Figures {
    use strands::thread::{self, Placement};
    let plan = *plan;
    let on = |worker| thread::Builder::new().placement(Placement::Worker(worker));
    super::strands_runtime(plan.workers).run(move || {
        let pair = on(0).spawn(move || strands_pair(plan, on(1)));
        pair.expect("a fiber").join().expect("nobody panics")
    })
}

#[cfg(feature = "strands")]
fn strands_pair(plan: Plan, other: strands::thread::Builder) -> Figures {
    use strands::sync::mpsc::channel;
    let (ping, pings) = channel();
    let (pong, pongs) = channel();
    let echo = other.spawn(move || {
        while let Ok(number) = pings.recv() {
            pong.send(number).expect("the other end waits");
        }
    });
    let figures = round_trips(plan, |i| {
        ping.send(i).expect("the other end waits");
        pongs.recv().expect("an answer")
    });
    drop(ping);
    echo.expect("a fiber").join().expect("the other end");
    figures
}

fn may(plan: &Plan) -> Figures {
    use may::sync::mpsc::channel;
    configure_may(plan, plan.workers);
    let plan = *plan;
    let (ping, pings) = channel();
    let (pong, pongs) = channel();
    // SAFETY: the closure touches no thread-local and needs far less than a stack.
    let echo = unsafe {
        may::coroutine::spawn(move || {
            while let Ok(number) = pings.recv() {
                pong.send(number).expect("the other end waits");
            }
        })
    };
    // SAFETY: as above.
    let main = unsafe {
        may::coroutine::spawn(move || {
            round_trips(plan, |i| {
                ping.send(i).expect("the other end waits");
                pongs.recv().expect("an answer")
            })
        })
    };
    let figures = main.join().expect("the main coroutine");
    echo.join().expect("the other end");
    figures
}

fn tokio(plan: &Plan) -> Figures {
    let plan = *plan;
    let runtime = tokio_runtime(plan.workers);
    let main = runtime.spawn(async move { tokio_pair(plan, &Handle::current()).await });
    runtime.block_on(main).expect("the main task")
}

/// A runtime of one worker for each of the two.
fn tokio_apart(plan: &Plan) -> Figures {
    let plan = *plan;
    let runtime = || Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let (here, there) = (runtime(), runtime());
    let other = there.handle().clone();
    let main = here.spawn(async move { tokio_pair(plan, &other).await });
    here.block_on(main).expect("the main task")
}

async fn tokio_pair(plan: Plan, other: &Handle) -> Figures {
    use tokio::sync::mpsc::unbounded_channel as channel;
    let (ping, mut pings) = channel();
    let (pong, mut pongs) = channel();
    let echo = other.spawn(async move {
        while let Some(number) = pings.recv().await {
            pong.send(number).expect("the other end waits");
        }
    });
    let mut meter = Meter::start(plan.budget());
    while meter.more() {
        for i in 0..CHUNK {
            ping.send(i).expect("the other end waits");
            assert_eq!(pongs.recv().await.expect("an answer"), i);
        }
        meter.add(CHUNK);
    }
    let figures = meter.per_op();
    drop(ping);
    echo.await.expect("the other end");
    figures
}

fn threads(plan: &Plan) -> Figures {
    use std::sync::mpsc::channel;
    let (ping, pings) = channel();
    let (pong, pongs) = channel();
    let echo = spawn_thread(move || {
        while let Ok(number) = pings.recv() {
            pong.send(number).expect("the other end waits");
        }
    });
    let figures = round_trips(*plan, |i| {
        ping.send(i).expect("the other end waits");
        pongs.recv().expect("an answer")
    });
    drop(ping);
    echo.join().expect("the other end");
    figures
}
