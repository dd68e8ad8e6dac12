//! How a plain thread waits: in `poll`, on the descriptor and on a wake descriptor of its own.
//!
//! No worker and no foreign driver is involved, so it works before the first runtime is built and
//! after the last has ended. `poll` tells of a state, not of an edge: no race can lose it. The
//! wake descriptor is for what the state does not tell: `Source::close`, or a wake of the thread
//! by others.
//!
//! Wake descriptors are kept for the next waiter, as making one costs two system calls. One that
//! is rung late, by somebody who still holds it, ends another's `poll` early; it looks and waits
//! again.

use std::cell::Cell;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use strands_sched::{Alarm, Op, Outcome, block_until, check_fallible, fallible};

use crate::backend::{Ready, WakeFd, poll_one};
use crate::slot::Direction;
use crate::source::Source;

/// How often a thread that could not get a wake descriptor looks whether its handle was closed.
const WITHOUT_BELL: Duration = Duration::from_millis(20);
/// Wake descriptors that are kept.
const MOST_KEPT: usize = 64;

static KEPT: Mutex<Kept> = Mutex::new(Kept { process: 0, fds: Vec::new() });

struct Kept {
    /// A forked child shares the parent's, and would take wakes from it.
    process: u32,
    fds: Vec<Arc<WakeFd>>,
}

fn kept() -> MutexGuard<'static, Kept> {
    let mut kept = KEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let process = std::process::id();
    if kept.process != process {
        *kept = Kept { process, fds: Vec::new() };
    }
    kept
}

/// Blocks this thread until `source` may be ready, is closed, or `deadline` passes.
#[cold]
pub(crate) fn wait(
    source: &Source,
    op: &'static Op,
    direction: Direction,
    deadline: Option<Instant>,
) -> io::Result<Outcome> {
    let object = std::ptr::from_ref(source.slot()).addr();
    // A process that is out of descriptors can still read what it has open.
    let Ok(bell) = Bell::enrol(source) else { return wait_without(source, direction, deadline) };
    let (ready, error) = (Cell::new(false), Cell::new(None));
    let alarm: Arc<dyn Alarm> = bell.fd.clone();
    let block = |left| match poll_one(source.raw_borrow(), direction, Some(&bell.fd), left) {
        Ok(Ready::Fd) => ready.set(true),
        Ok(Ready::No) => {}
        Err(failed) => {
            ready.set(true);
            error.set(Some(failed));
        }
    };
    let is_ready = || ready.get() || source.is_closed();
    let outcome = fallible(|| block_until(op, object, deadline, &alarm, is_ready, block));
    error.into_inner().map_or(Ok(outcome), Err)
}

fn wait_without(
    source: &Source,
    direction: Direction,
    deadline: Option<Instant>,
) -> io::Result<Outcome> {
    loop {
        if source.is_closed() {
            return Ok(Outcome::Woken);
        }
        check_fallible()?; // Nobody can wake us.
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(Outcome::TimedOut);
        }
        let time = left.map_or(WITHOUT_BELL, |left| left.min(WITHOUT_BELL));
        if poll_one(source.raw_borrow(), direction, None, Some(time))? == Ready::Fd {
            return Ok(Outcome::Woken);
        }
    }
}

/// A wake descriptor among a source's waiters, for the time of one wait.
struct Bell<'a> {
    source: &'a Source,
    fd: Arc<WakeFd>,
}

impl Bell<'_> {
    fn enrol(source: &Source) -> io::Result<Bell<'_>> {
        let spare = kept().fds.pop();
        let fd = match spare {
            Some(fd) => fd,
            None => Arc::new(WakeFd::new()?),
        };
        source.slot().queue.lock().threads.push(fd.clone());
        Ok(Bell { source, fd })
    }
}

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        let mut locked = self.source.slot().queue.lock();
        locked.threads.retain(|fd| !Arc::ptr_eq(fd, &self.fd));
        drop(locked);
        self.fd.drain();
        let mut kept = kept();
        if kept.fds.len() < MOST_KEPT {
            kept.fds.push(self.fd.clone());
        }
    }
}

/// Rings the plain threads that wait at a source which has been marked as closed.
pub(crate) fn ring_all(threads: &[Arc<WakeFd>]) {
    threads.iter().for_each(|fd| fd.raise());
}
