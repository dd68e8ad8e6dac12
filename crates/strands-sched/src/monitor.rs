//! The monitor: wakes a sleeping worker for fresh fibers that their worker does not get to.
//!
//! A spawn does not wake a sleeping worker at once: most often the spawner soon waits for its
//! child, which then runs at the same worker, warm, and a pair that chats stays together. But a
//! spawner that goes on computing would keep its child waiting beside an idle core. So while
//! fresh fibers lie beside sleepers, this thread looks every [`INTERVAL`], and where a worker has
//! made no turn since the last look and has fresh fibers, it has a sleeper search. When
//! there has been nothing to see for a while it sleeps too, without a timeout.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::atomic::{AtomicU32, Relaxed, SeqCst, fence};
use crate::runtime::{Shared, start_thread};

/// The kernel adds up to 50 µs of its own to such a sleep.
const INTERVAL: Duration = Duration::from_micros(20);
/// Looks without any fresh fiber before it sleeps.
const PATIENCE: u32 = 40;

pub(crate) struct Monitor {
    state: AtomicU32,
    thread: std::sync::OnceLock<thread::Thread>,
}

const ASLEEP: u32 = 0;
const WATCHING: u32 = 1;
const STOPPED: u32 = 2;

impl Monitor {
    pub(crate) fn new() -> Monitor {
        Monitor { state: AtomicU32::new(ASLEEP), thread: std::sync::OnceLock::new() }
    }

    /// Starts the thread.
    pub(crate) fn start(shared: &Arc<Shared>) -> std::io::Result<thread::JoinHandle<()>> {
        let its = shared.clone();
        let name = format!("{}-monitor", shared.config.thread_name);
        let handle = start_thread(&name, move || watch(&its))?;
        shared.monitor.thread.set(handle.thread().clone()).expect("the monitor was started twice");
        Ok(handle)
    }

    /// There are fresh fibers beside sleepers: watch them.
    #[inline]
    pub(crate) fn arm(&self) {
        if self.state.load(Relaxed) == ASLEEP {
            self.wake_up();
        }
    }

    #[cold]
    fn wake_up(&self) {
        let woken = self.state.compare_exchange(ASLEEP, WATCHING, SeqCst, SeqCst).is_ok();
        if woken && let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Declares the monitor asleep, unless it is stopped or `has_fresh` finds something to watch.
    pub(crate) fn fall_asleep(&self, has_fresh: impl Fn() -> bool) {
        let _ = self.state.compare_exchange(WATCHING, ASLEEP, SeqCst, SeqCst);
        // Declared asleep before the last look: a spawner that saw us watching has published
        // a fiber that we see.
        fence(SeqCst);
        if has_fresh() {
            let _ = self.state.compare_exchange(ASLEEP, WATCHING, SeqCst, SeqCst);
        }
    }

    #[cfg(all(test, loom))]
    pub(crate) fn is_asleep(&self) -> bool {
        self.state.load(SeqCst) == ASLEEP
    }

    pub(crate) fn stop(&self) {
        self.state.store(STOPPED, SeqCst);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

fn watch(shared: &Shared) {
    let mut turns = vec![0; shared.workers().len()];
    let mut quiet = 0;
    loop {
        match shared.monitor.state.load(SeqCst) {
            STOPPED => return,
            ASLEEP => {
                thread::park();
                quiet = 0;
                for (worker, turns) in shared.workers().iter().zip(&mut turns) {
                    *turns = worker.turns();
                }
                continue;
            }
            _ => thread::sleep(INTERVAL),
        }
        let mut fresh = false;
        for (worker, turns_before) in shared.workers().iter().zip(&mut turns) {
            let before = std::mem::replace(turns_before, worker.turns());
            if worker.has_fresh() {
                fresh = true;
                if before == *turns_before {
                    shared.wake_one();
                }
            }
        }
        quiet = if fresh { 0 } else { quiet + 1 };
        if quiet >= PATIENCE {
            shared.monitor.fall_asleep(|| shared.workers().iter().any(|worker| worker.has_fresh()));
            quiet = 0;
        }
    }
}
