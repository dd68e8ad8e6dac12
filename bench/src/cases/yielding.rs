//! Fibers that do nothing but yield to each other, on one worker.
//!
//! All of them stand behind a barrier until the last has begun, and each yields equally often: so a
//! queue of the full length turns from the first yield that is counted to the last, and no fiber is
//! through before another begins.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::{WALL, configure_may, spawn_thread, tokio_runtime};
use crate::measure::{Figures, Stopwatch};
use crate::{Case, Peer, Plan, Program};

pub const CASES: &[Case] = &[
    case("yield/2", "yield, 2 fibers, 1 worker", Plan::new(1, 2), PEERS),
    case("yield/1000", "yield, 1,000 fibers", Plan::new(1, 1_000), PEERS),
    case("yield/100000", "yield, 100,000 fibers", Plan::new(1, 100_000), PEERS_OF_MANY),
];

const fn case(
    name: &'static str,
    title: &'static str,
    plan: Plan,
    peers: &'static [(Peer, Program)],
) -> Case {
    Case { name, title, rows: WALL, plan, peers }
}

const PEERS: &[(Peer, Program)] = &[
    #[cfg(feature = "strands")]
    (Peer::Strands, strands),
    (Peer::May, may),
    (Peer::Tokio, tokio),
    (Peer::Go, |plan| super::go("yield", plan)),
    (Peer::Threads, threads),
];

/// may fails above 30,000 coroutines; so many threads are more than the machine allows.
const PEERS_OF_MANY: &[(Peer, Program)] = &[
    #[cfg(feature = "strands")]
    (Peer::Strands, strands),
    (Peer::Tokio, tokio),
    (Peer::Go, |plan| super::go("yield", plan)),
];

/// What the fibers of one measurement share.
struct Race {
    fibers: usize,
    yields_each: usize,
    started: AtomicUsize,
    finished: AtomicUsize,
    watch: OnceLock<Stopwatch>,
    result: OnceLock<Figures>,
}

impl Race {
    /// `yields` over all fibers, a tenth of that in a quick run; at least 20 each, so that the
    /// first and last round do not count.
    fn new(plan: &Plan, yields: usize) -> Arc<Race> {
        let yields = if plan.quick { yields / 10 } else { yields };
        Arc::new(Race {
            fibers: plan.count,
            yields_each: (yields / plan.count).max(20),
            started: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            watch: OnceLock::new(),
            result: OnceLock::new(),
        })
    }

    /// The last fiber that begins starts the clock.
    fn begin(&self) {
        if self.started.fetch_add(1, Ordering::AcqRel) + 1 == self.fibers {
            let _ = self.watch.set(Stopwatch::start());
        }
    }

    fn has_begun(&self) -> bool {
        self.started.load(Ordering::Acquire) == self.fibers
    }

    /// The last fiber that ends stops it.
    fn end(&self) {
        if self.finished.fetch_add(1, Ordering::AcqRel) + 1 == self.fibers {
            let yields = self.fibers as u64 * self.yields_each as u64;
            let _ = self.result.set(self.watch.get().expect("all have begun").per_op(yields));
        }
    }

    fn result(self: Arc<Race>) -> Figures {
        Arc::into_inner(self)
            .and_then(|mut race| race.result.take())
            .expect("all fibers have ended")
    }
}

const YIELDS: usize = 5_000_000;

#[cfg(feature = "strands")]
fn strands(plan: &Plan) -> Figures {
    let race = Race::new(plan, YIELDS);
    let root = race.clone();
    super::strands_runtime(1).run(move || {
        let fiber = |race: Arc<Race>| {
            race.begin();
            while !race.has_begun() {
                strands::yield_now();
            }
            for _ in 0..race.yields_each {
                strands::yield_now();
            }
            race.end();
        };
        let handles: Vec<_> = (0..root.fibers)
            .map(|_| {
                let race = root.clone();
                strands::spawn(move || fiber(race))
            })
            .collect();
        for handle in handles {
            handle.join().expect("a fiber that yields");
        }
    });
    race.result()
}

fn may(plan: &Plan) -> Figures {
    configure_may(plan, 1);
    let race = Race::new(plan, YIELDS);
    let fiber = |race: Arc<Race>| {
        race.begin();
        while !race.has_begun() {
            may::coroutine::yield_now();
        }
        for _ in 0..race.yields_each {
            may::coroutine::yield_now();
        }
        race.end();
    };
    let handles: Vec<_> = (0..race.fibers)
        .map(|_| {
            let race = race.clone();
            // SAFETY: the closure touches no thread-local and needs far less than a stack.
            unsafe { may::coroutine::spawn(move || fiber(race)) }
        })
        .collect();
    for handle in handles {
        handle.join().expect("a coroutine that yields");
    }
    race.result()
}

fn tokio(plan: &Plan) -> Figures {
    let race = Race::new(plan, YIELDS);
    let root = race.clone();
    let runtime = tokio_runtime(1);
    let main = runtime.spawn(async move {
        let fiber = |race: Arc<Race>| async move {
            race.begin();
            while !race.has_begun() {
                tokio::task::yield_now().await;
            }
            for _ in 0..race.yields_each {
                tokio::task::yield_now().await;
            }
            race.end();
        };
        let handles: Vec<_> = (0..root.fibers).map(|_| tokio::spawn(fiber(root.clone()))).collect();
        for handle in handles {
            handle.await.expect("a task that yields");
        }
    });
    runtime.block_on(main).expect("the main task");
    race.result()
}

/// Threads on one core.
fn threads(plan: &Plan) -> Figures {
    let race = Race::new(plan, YIELDS / 10);
    let fiber = |race: Arc<Race>| {
        race.begin();
        while !race.has_begun() {
            std::thread::yield_now();
        }
        for _ in 0..race.yields_each {
            std::thread::yield_now();
        }
        race.end();
    };
    let handles: Vec<_> = (0..race.fibers)
        .map(|_| {
            let race = race.clone();
            spawn_thread(move || fiber(race))
        })
        .collect();
    for handle in handles {
        handle.join().expect("a thread that yields");
    }
    race.result()
}
