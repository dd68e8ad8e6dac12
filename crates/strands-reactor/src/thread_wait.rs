//! How a plain thread waits: in `poll`, on the descriptor and on a wake descriptor of its own. In a select, on all
//! descriptors that the select waits for.
//!
//! No worker and no foreign driver is involved, so it works before the first runtime is built and
//! after the last has ended. `poll` tells of a state, not of an edge: no race can lose it. The
//! wake descriptor is for what the state does not tell: `Source::close`, or a wake of the thread
//! by others.
//!
//! Wake descriptors are kept for the next waiter, as making one costs two system calls; with each the memory for a list of
//! descriptors, so that a select in a loop does not allocate. One that is rung late, by somebody who still holds
//! it, ends another's `poll` early; it looks and waits again.

use std::cell::Cell;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::event::PollFd;
use rustix::fd::{AsRawFd, BorrowedFd, RawFd};
use strands_sched::{Alarm, Op, Outcome, ThreadWait, block_until, check_fallible, fallible};

use crate::backend::{Ready, WakeFd, poll_any, poll_fd, poll_one};
use crate::slot::Direction;
use crate::source::Source;

/// How often a thread that could not get a wake descriptor looks whether its handle was closed.
const WITHOUT_BELL: Duration = Duration::from_millis(20);
/// Wake descriptors that are kept.
const MOST_KEPT: usize = 64;

static KEPT: Mutex<Kept> = Mutex::new(Kept { process: 0, bells: Vec::new() });

struct Kept {
    /// A forked child shares the parent's, and would take wakes from it.
    process: u32,
    bells: Vec<Bell>,
}

fn kept() -> MutexGuard<'static, Kept> {
    let mut kept = KEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let process = std::process::id();
    if kept.process != process {
        *kept = Kept { process, bells: Vec::new() };
    }
    kept
}

/// What ends a `poll`, for the time of one wait.
struct Bell {
    fd: Arc<WakeFd>,
    /// For a select. Empty between two waits.
    polled: Vec<PollFd<'static>>,
}

impl Bell {
    fn take() -> io::Result<Bell> {
        let spare = kept().bells.pop();
        spare.map_or_else(|| Ok(Bell { fd: Arc::new(WakeFd::new()?), polled: Vec::new() }), Ok)
    }

    /// For the next.
    fn give_back(self) {
        self.fd.drain();
        let mut kept = kept();
        if kept.bells.len() < MOST_KEPT {
            kept.bells.push(self);
        }
    }
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
    let Ok(bell) = Enrolled::at(source) else { return wait_without(source, direction, deadline) };
    let (ready, error) = (Cell::new(false), Cell::new(None));
    let alarm: Arc<dyn Alarm> = bell.fd().clone();
    let block = |left| match poll_one(source.raw_borrow(), direction, Some(bell.fd()), left) {
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

/// A bell among a source's waiters.
struct Enrolled<'a> {
    source: &'a Source,
    /// There until it is given back.
    bell: Option<Bell>,
}

impl Enrolled<'_> {
    fn at(source: &Source) -> io::Result<Enrolled<'_>> {
        let bell = Bell::take()?;
        source.slot().queue.lock().threads.push(bell.fd.clone());
        Ok(Enrolled { source, bell: Some(bell) })
    }

    fn fd(&self) -> &Arc<WakeFd> {
        &self.bell.as_ref().expect("it is given back last").fd
    }
}

impl Drop for Enrolled<'_> {
    fn drop(&mut self) {
        let mut locked = self.source.slot().queue.lock();
        locked.threads.retain(|fd| !Arc::ptr_eq(fd, self.fd()));
        drop(locked);
        self.bell.take().into_iter().for_each(Bell::give_back);
    }
}

/// [`IoOperation::block`](strands_sched::IoOperation::block): `poll` for all descriptors of a select. Its arms are in the
/// sources' lines, where a close claims one.
#[cold]
pub(crate) fn wait_for_any(wait: &ThreadWait<'_>) -> Outcome {
    /// For one that nobody can ring: it looks from time to time.
    struct Silent;
    impl Alarm for Silent {
        fn ring(&self) {}
    }
    // A process that is out of descriptors can still wait for those it has.
    let mut bell = Bell::take().ok();
    let alarm: Arc<dyn Alarm> = match &bell {
        Some(bell) => bell.fd.clone(),
        None => Arc::new(Silent),
    };
    let mut polled = bell.as_mut().map_or_else(Vec::new, |bell| std::mem::take(&mut bell.polled));
    polled.extend(wait.watched().map(|watched| {
        let direction = if watched.write { Direction::Write } else { Direction::Read };
        // SAFETY: the select that `wait` is of borrows the operation, which keeps it open; the list is emptied below.
        let fd = unsafe { BorrowedFd::borrow_raw(watched.descriptor as RawFd) };
        poll_fd(fd, direction)
    }));
    let bell_fd = bell.as_ref().map(|bell| &*bell.fd);
    if let Some(bell) = &bell {
        // SAFETY: `bell` keeps it open; the list is emptied below.
        let fd = unsafe { BorrowedFd::borrow_raw(bell.fd.as_fd().as_raw_fd()) };
        polled.push(poll_fd(fd, Direction::Read));
    }
    let ready = Cell::new(false);
    let block = |left: Option<Duration>| {
        let short = left.map_or(WITHOUT_BELL, |left| left.min(WITHOUT_BELL));
        match poll_any(&mut polled, bell_fd, if bell_fd.is_some() { left } else { Some(short) }) {
            Ok(found) => ready.set(found == Ready::Fd),
            // More than the system takes at once: each is asked from time to time.
            Err(_) => {
                std::thread::sleep(short);
                ready.set(true);
            }
        }
    };
    let outcome = wait.block_until(&alarm, || ready.get(), block);
    polled.clear();
    if let Some(mut bell) = bell {
        bell.polled = polled;
        bell.give_back();
    }
    outcome
}
