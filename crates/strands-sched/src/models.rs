//! Loom models of the protocols that run between threads, on the modules that ship.
//!
//! A party is a loom thread. Loom has no clock: a wait that may time out gets a deadline that has
//! passed, so it gives up at any point between its enrolment and the waker's last step. A wake-up
//! that is lost shows as a deadlock, a frame or a result that is touched too early as a data race.
//!
//! Each model says what bounds its search: `bounded(n)` explores all executions in which the
//! scheduler takes a running thread off the processor at most n times.

mod children;
mod ending;
mod handing_over;
mod idling;
mod line;
mod reporting;
mod selecting;
mod waiting;
mod watching;

use loom::sync::atomic::AtomicUsize;
use loom::sync::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::atomic::lock;
use crate::driver::DriverWaker;
use crate::park::Op;

static OP: Op = Op("model");

/// All executions.
fn all(model: impl Fn() + Sync + Send + 'static) {
    explore(None, model);
}

/// All executions with at most `preemptions`.
fn bounded(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    explore(Some(preemptions), model);
}

fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 20_000;
    builder.check(model);
}

/// A time that has passed: who waits until then gives up at once, or when it loses a race.
fn passed() -> Option<Instant> {
    Some(Instant::now())
}

/// What an idle worker waits in. Workers are never freed, so loom shall not count this.
#[derive(Clone)]
struct Signal(Arc<(Mutex<bool>, Condvar, AtomicUsize)>);

impl Signal {
    fn new() -> Signal {
        Signal(Arc::new((Mutex::new(false), Condvar::new(), AtomicUsize::new(0))))
    }

    fn wait(&self) {
        let mut raised = lock(&self.0.0);
        while !*raised {
            raised = self.0.1.wait(raised).unwrap();
        }
        *raised = false;
    }

    fn raise(&self) {
        self.0.2.fetch_add(1, Relaxed);
        *lock(&self.0.0) = true;
        self.0.1.notify_one();
    }

    /// How often it was raised.
    fn count(&self) -> usize {
        self.0.2.load(Relaxed)
    }
}

impl DriverWaker for Signal {
    fn wake(&self) {
        self.raise();
    }
}
