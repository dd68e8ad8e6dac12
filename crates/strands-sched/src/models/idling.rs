//! Idle workers: no fresh fiber lies where one sleeps that could start it.

use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::thread;

use super::{Signal, all, bounded};
use crate::atomic::{Mutex, Relaxed, lock};
use crate::fresh::{Fresh, Shared, Theirs};
use crate::idle::{self, Idle};
use crate::inbox::{Bell, Inbox};
use crate::monitor::Monitor;
use crate::task::Header;

/// What the workers of a model share: as a runtime, with numbers for fibers.
struct Model {
    idle: Idle,
    outside: Shared<u32>,
    workers: Vec<(Inbox<Header>, Signal, Theirs<u32>)>,
    started: Mutex<Vec<u32>>,
}

/// A worker that starts one fiber, which never ends.
struct Worker<'a> {
    model: &'a Model,
    index: usize,
    fresh: Fresh<u32>,
}

impl Model {
    fn new(workers: usize) -> (Arc<Model>, Vec<Fresh<u32>>) {
        let (mine, theirs): (Vec<_>, Vec<_>) = (0..workers).map(|_| Fresh::new()).unzip();
        let parts = theirs.into_iter().map(|theirs| (Inbox::new(), Signal::new(), theirs));
        let model = Model {
            idle: Idle::new(),
            outside: Shared::new(),
            workers: parts.collect(),
            started: Mutex::new(Vec::new()),
        };
        (Arc::new(model), mine)
    }

    fn poke(&self, worker: usize) {
        let (inbox, signal, _) = &self.workers[worker];
        if inbox.poke() == Bell::Ring {
            signal.raise();
        }
    }

    fn wake_one(&self) {
        if let Some(sleeper) = self.idle.choose() {
            self.poke(sleeper);
        }
    }

    /// Spawns from outside.
    fn publish(&self, fiber: u32) {
        self.outside.push(fiber);
        if self.idle.anyone_asleep() {
            self.wake_one();
        }
    }
}

impl Worker<'_> {
    fn run(&self) {
        loop {
            assert_eq!(self.model.workers[self.index].0.take().count(), 0);
            if let Some(fiber) = self.fresh.pop() {
                return lock(&self.model.started).push(fiber);
            }
            if !self.model.idle.steal(self) {
                self.model.idle.rest(self.index, self);
            }
        }
    }
}

impl idle::Worker for Worker<'_> {
    fn sees_work(&self) -> bool {
        let mut others = self.model.workers.iter().enumerate();
        !self.model.outside.is_empty()
            || others.any(|(index, (_, _, theirs))| index != self.index && !theirs.is_empty())
    }

    fn take_work(&self) -> bool {
        let mut others = self.model.workers.iter().enumerate();
        if !self.model.outside.is_empty() && self.fresh.steal_shared(&self.model.outside) {
            return true;
        }
        others.any(|(index, (_, _, theirs))| {
            index != self.index && !theirs.is_empty() && self.fresh.steal_from(theirs)
        })
    }

    fn fresh_here(&self) -> usize {
        self.fresh.len()
    }

    /// As the monitor does in the end.
    fn offer(&self) {
        self.model.wake_one();
    }

    fn sleep(&self) {
        let (inbox, signal, _) = &self.model.workers[self.index];
        if inbox.fall_asleep() {
            signal.wait();
        }
    }

    fn poke(&self, other: usize) {
        self.model.poke(other);
    }
}

/// `before` are spawned before the workers run, `after` beside them. As many workers as fibers, and
/// each starts one fiber only, so each fiber must reach a worker that has none.
fn each_fiber_finds_a_worker(before: u32, after: u32) {
    let (model, mine) = Model::new((before + after) as usize);
    (0..before).for_each(|fiber| model.outside.push(fiber));
    let workers: Vec<_> = mine
        .into_iter()
        .enumerate()
        .map(|(index, fresh)| {
            let model = model.clone();
            thread::spawn(move || Worker { model: &model, index, fresh }.run())
        })
        .collect();
    if after > 0 {
        // Lets the workers fall asleep, which costs no preemption this way.
        thread::yield_now();
    }
    (before..before + after).for_each(|fiber| model.publish(fiber));
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let mut started = std::mem::take(&mut *lock(&model.started));
    started.sort_unstable();
    assert!(started.into_iter().eq(0..before + after), "a fiber was lost or started twice");
    assert!(!model.idle.is_searching(), "nobody would ever be woken again");
    assert!(!model.idle.anyone_asleep(), "a worker that runs is counted among the sleepers");
}

#[test]
fn a_fiber_from_outside_is_found() {
    all(|| each_fiber_finds_a_worker(0, 1));
}

#[test]
fn a_search_is_passed_on() {
    bounded(2, || each_fiber_finds_a_worker(0, 2));
}

#[test]
fn a_fiber_on_its_way_is_found() {
    bounded(3, || each_fiber_finds_a_worker(2, 0));
}

/// A worker spawns beside a sleeper while the monitor goes to sleep.
#[test]
fn the_monitor_sees_a_last_spawn() {
    all(|| {
        let shared = Arc::new((Idle::new(), Monitor::new(), AtomicBool::new(false)));
        shared.0.announce(0);
        shared.1.arm();
        let monitor = {
            let shared = shared.clone();
            thread::spawn(move || shared.1.fall_asleep(|| shared.2.load(Relaxed)))
        };
        shared.2.store(true, Relaxed);
        if shared.0.anyone_asleep() {
            shared.1.arm();
        }
        monitor.join().unwrap();
        assert!(!shared.1.is_asleep(), "a fresh fiber lies beside a sleeper unwatched");
    });
}
