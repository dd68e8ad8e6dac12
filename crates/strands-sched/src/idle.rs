//! Who sleeps, who searches, and whom to wake: see `idle/README.md` for the protocol and its races.
//!
//! Promise: a fresh fiber that lies where others may take it is taken by a worker that is awake
//! and will look, or a worker that sleeps is woken for it. At most one worker searches at a time
//! on behalf of a waker, so a burst of spawns does not wake everybody; a searcher that finds work
//! passes the search on before it runs it.

use crate::atomic::{AtomicUsize, Mutex, SeqCst, fence, lock};

pub(crate) struct Idle {
    /// The workers that announced they would sleep and have not been chosen, latest last.
    sleepers: Mutex<Vec<usize>>,
    /// How many, for those who only want to know whether there are any.
    count: AtomicUsize,
    /// 1 while a worker that was woken to search has not said what it found.
    searching: AtomicUsize,
}

/// What the protocol asks of a worker that has nothing to do.
pub(crate) trait Worker {
    /// Whether a fresh fiber lies outside or at another worker.
    fn sees_work(&self) -> bool;

    /// Moves fresh fibers here from where they lie; true if there were any.
    fn take_work(&self) -> bool;

    /// How many fresh fibers lie at this worker.
    fn fresh_here(&self) -> usize;

    /// There are more of them here than it starts at once, and others sleep.
    fn offer(&self);

    /// Waits until somebody reaches this worker, unless somebody has since it last looked.
    fn sleep(&self);

    /// Makes another worker look around.
    fn poke(&self, other: usize);
}

impl Idle {
    pub(crate) fn new() -> Idle {
        Idle {
            sleepers: Mutex::new(Vec::new()),
            count: AtomicUsize::new(0),
            searching: AtomicUsize::new(0),
        }
    }

    /// Takes fresh fibers from others; true if there were any.
    pub(crate) fn steal(&self, worker: &impl Worker) -> bool {
        let found = worker.take_work();
        if found {
            self.moved(worker);
        }
        found
    }

    /// Fresh fibers were moved to `worker`, which starts one of them next.
    pub(crate) fn moved(&self, worker: &impl Worker) {
        // On their way they lay nowhere, so one that fell asleep meanwhile has not seen them.
        if worker.fresh_here() > 1 && self.anyone_asleep() {
            worker.offer();
        }
    }

    /// Has `worker` sleep, unless there is something to do.
    pub(crate) fn rest(&self, index: usize, worker: &impl Worker) {
        self.announce(index);
        if !worker.sees_work() {
            worker.sleep();
        }
        if self.retract(index) {
            self.search(worker);
        }
    }

    /// `worker` has been chosen to search.
    fn search(&self, worker: &impl Worker) {
        worker.take_work();
        self.search_ended();
        // Pass it on, if there is more than this one takes. Who published while we searched has
        // left that to us.
        let more = worker.fresh_here() > 1 || worker.sees_work();
        if more && let Some(sleeper) = self.choose() {
            worker.poke(sleeper);
        }
    }

    /// `worker` is about to sleep: it looks for work once more after this, and only then sleeps.
    pub(crate) fn announce(&self, worker: usize) {
        let mut sleepers = lock(&self.sleepers);
        sleepers.push(worker);
        self.count.store(sleepers.len(), SeqCst);
        drop(sleepers);
        // Announce ourselves before the last look, so that a spawner that misses us has published
        // work that we see.
        fence(SeqCst);
    }

    /// `worker` does not sleep (any more). True: it has been chosen to search.
    fn retract(&self, worker: usize) -> bool {
        let mut sleepers = lock(&self.sleepers);
        let place = sleepers.iter().position(|&sleeper| sleeper == worker);
        if let Some(place) = place {
            sleepers.remove(place);
            self.count.store(sleepers.len(), SeqCst);
        }
        place.is_none()
    }

    /// Work was published: whether anybody sleeps who could do it.
    #[inline]
    pub(crate) fn anyone_asleep(&self) -> bool {
        // Publish before looking for sleepers: the other half of `announce`.
        fence(SeqCst);
        self.count.load(SeqCst) > 0
    }

    /// Chooses a sleeper to search; the caller pokes it. None if nobody sleeps or one searches.
    pub(crate) fn choose(&self) -> Option<usize> {
        if self.searching.compare_exchange(0, 1, SeqCst, SeqCst).is_err() {
            return None; // It looks everywhere, or passes the search on.
        }
        let mut sleepers = lock(&self.sleepers);
        let chosen = sleepers.pop();
        match chosen {
            Some(_) => self.count.store(sleepers.len(), SeqCst),
            None => self.searching.store(0, SeqCst),
        }
        chosen
    }

    /// The chosen worker has looked everywhere, or has found something.
    ///
    /// Before it goes on it must look (or [`choose`](Self::choose)) once more: who published work
    /// in between relied on it.
    fn search_ended(&self) {
        self.searching.store(0, SeqCst);
        fence(SeqCst);
    }

    #[cfg(all(test, loom))]
    pub(crate) fn is_searching(&self) -> bool {
        self.searching.load(SeqCst) != 0
    }
}
