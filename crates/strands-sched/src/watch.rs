//! The watch: notices fibers that wait for each other, runtimes in which all wait, and fibers that do not let others run.
//!
//! One thread for all runtimes. It sleeps without a timeout while there is nothing to look for:
//!
//! - A fiber that is about to wait for a lock or for another fiber arms it. It looks [`PAUSE`] later, once, at those that
//!   wait so then, and sleeps again if nobody has armed it since. So a wait that lasts is looked at once or twice,
//!   however long it lasts.
//! - A worker that has fibers and goes to sleep without a time limit arms it too. It looks [`LULL`] later, once, from
//!   outside: that wakes nobody, and ends at the first fiber for which something is armed.
//! - Where a runtime has a stall limit, it looks four times in that time at the turns its workers have made, until all
//!   workers sleep; the first to wake arms it again.
//!
//! # Cycles
//!
//! Who waits for a lock waits for its holder, who joins waits for the joined: each for one party. Following that from
//! party to party ends at one that does not wait so, or comes round. Then all of these wait for ever, whatever
//! others do. A report is not of one moment, so a cycle in it may never have been. It is looked at
//! again, and is reported if each of them is still in the same wait: one that began before the first look. Then all were in
//! them at once.
//!
//! A fiber that waits for a message, a socket or a permit is part of no cycle: any thread may still end that wait. Nor is
//! one that waits below a time limit. So no program is called dead that is not, but one in which a holder has handed its guard
//! to another fiber.
//!
//! # A standstill
//!
//! All fibers of a runtime wait, and nothing is armed that would wake one: no time limit, no descriptor, no job of the
//! pool, nothing outside that holds what one waits for or is joined. Only a plain thread, or a fiber of another runtime, could still send a message
//! to one of them, and the report says so: it is made once for the same fibers. For the stacks the workers are asked then.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::about::Noted;
use crate::atomic::{AtomicBool, Relaxed, SeqCst, fence};
use crate::current;
use crate::report::{self, FiberReport, FiberState, Wanted, WorkerReport};
use crate::runtime::{Shared, start_thread};
use crate::task::Run;
use crate::worker::Worker;

/// How long after a wait began it is looked at.
const PAUSE: Duration = Duration::from_millis(100);
/// Looking takes at most one part of so many of a CPU's time.
const SHARE: u32 = 200;
/// For how long all fibers of a runtime have to wait.
const LULL: Duration = Duration::from_millis(500);
/// Of the fibers that one holds up, so many are named.
const MOST_NAMED: usize = 16;
/// How long workers may take to say what their fibers wait for.
const PATIENCE: Duration = Duration::from_millis(100);

/// Something that a program should not do, and that ends in a hang.
///
/// ```
/// use strands_sched::{Trouble, on_trouble};
///
/// on_trouble(|trouble| match trouble {
///     Trouble::Cycle(cycle) => eprintln!("{} fibers wait for each other", cycle.fibers.len()),
///     Trouble::Stall(stall) => eprintln!("fiber {} lets nobody else run", stall.fiber.id),
///     _ => {}
/// });
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Trouble {
    /// Fibers wait for each other.
    Cycle(Cycle),
    /// All fibers of a runtime wait for each other, or for a plain thread.
    Standstill(Standstill),
    /// A fiber does not let others run.
    Stall(Box<Stall>),
}

/// Fibers of which each waits for the next, and the last for the first.
///
/// ```
/// fn ids(cycle: &strands_sched::Cycle) -> Vec<u64> {
///     cycle.fibers.iter().map(|fiber| fiber.id).collect()
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Cycle {
    /// The fibers, with their frames.
    pub fibers: Vec<FiberReport>,
    /// How many more wait for one of these, or for one that does.
    pub others_waiting: usize,
}

/// The fibers of a runtime, all of which wait for what only they, or a plain thread, can bring about.
///
/// ```
/// fn line(standstill: &strands_sched::Standstill) -> String {
///     format!("all {} fibers of {} wait", standstill.fibers.len(), standstill.name)
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Standstill {
    /// The number of the runtime.
    pub runtime: u64,
    /// What its threads' names begin with.
    pub name: String,
    /// The fibers, with their frames.
    pub fibers: Vec<FiberReport>,
}

/// A fiber that has run for longer than its runtime's stall limit.
///
/// ```
/// fn line(stall: &strands_sched::Stall) -> String {
///     format!("fiber {} has run for {:?}", stall.fiber.id, stall.stalled_for)
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stall {
    /// The fiber, as far as can be seen from outside.
    pub fiber: FiberReport,
    /// For how long its worker has done nothing else, at least.
    pub stalled_for: Duration,
    /// How many fibers its worker has besides.
    pub others: usize,
    /// How many of those are ready to run, and are held up.
    pub ready: usize,
    /// The first few of these.
    pub held_up: Vec<FiberReport>,
    /// As in [`WorkerReport`](crate::WorkerReport).
    pub thread_token: usize,
}

static ON_TROUBLE: OnceLock<fn(&Trouble)> = OnceLock::new();

/// Has `f` called with what the watch notices, on its thread. The first call counts; until there is one, nobody is told.
///
/// ```
/// strands_sched::on_trouble(|trouble| eprintln!("{trouble:?}"));
/// ```
pub fn on_trouble(f: fn(&Trouble)) {
    let _ = ON_TROUBLE.set(f);
}

static THREAD: OnceLock<Thread> = OnceLock::new();

/// Says that there is something to look at, since the watch has looked.
pub(crate) struct Flag(AtomicBool);

impl Flag {
    #[cfg(not(loom))]
    const fn new() -> Flag {
        Flag(AtomicBool::new(false))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Flag {
        Flag(AtomicBool::new(false))
    }

    #[inline]
    fn is_raised(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// True: the watch may sleep, and has to be woken.
    ///
    /// Enough where the worker itself says what there is to see: it says so later, on this thread.
    #[inline]
    pub(crate) fn raise(&self) -> bool {
        !self.is_raised() && !self.0.swap(true, SeqCst)
    }

    /// The same where the watch looks from outside, for what was stored before.
    #[inline]
    pub(crate) fn raise_after_store(&self) -> bool {
        // The watch lowers the flag, then looks. If we read the flag before that, it sees what we have stored.
        fence(SeqCst);
        self.raise()
    }

    /// Whether it was raised; it is not any more. What is looked at after this is as new as that.
    pub(crate) fn lower(&self) -> bool {
        let was_raised = self.0.swap(false, SeqCst);
        fence(SeqCst);
        was_raised
    }
}

struct Flags {
    /// Somebody is about to wait for a party.
    armed: Flag,
    /// A worker that has fibers went to sleep without a time limit.
    rests: Flag,
    /// A worker that may stall is awake, as far as is known.
    awake: Flag,
}

#[cfg(not(loom))]
static FLAGS: Flags = Flags { armed: Flag::new(), rests: Flag::new(), awake: Flag::new() };
#[cfg(loom)]
loom::lazy_static! {
    static ref FLAGS: Flags = Flags { armed: Flag::new(), rests: Flag::new(), awake: Flag::new() };
}

/// Starts the thread, if there is none.
pub(crate) fn start() -> io::Result<()> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if THREAD.get().is_none() {
        let _ = THREAD.set(start_thread("strands-watch", watch)?.thread().clone());
    }
    Ok(())
}

/// The running party is about to wait for another; nothing if it is a plain thread.
#[inline]
pub(crate) fn arm_in_fiber() {
    if !current::header().is_thread() && FLAGS.armed.raise() {
        rouse();
    }
}

/// A worker with fibers is about to sleep without a time limit, and has said that it sleeps.
#[inline]
pub(crate) fn worker_rests() {
    if FLAGS.rests.raise_after_store() {
        rouse();
    }
}

/// A worker has left its driver, and has said that it is awake.
#[inline]
pub(crate) fn worker_awake() {
    if FLAGS.awake.raise_after_store() {
        rouse();
    }
}

#[cold]
fn rouse() {
    if let Some(thread) = THREAD.get() {
        thread.unpark();
    }
}

/// When to look next for one kind of trouble.
#[derive(Default)]
pub(crate) struct Looks {
    pub(crate) at: Option<Instant>,
}

impl Looks {
    /// Looks, if it is time: `pause` after `flag` was raised. `look` says whether to look again in any case.
    pub(crate) fn step(
        &mut self,
        flag: &Flag,
        now: Instant,
        pause: Duration,
        look: impl FnOnce() -> bool,
    ) {
        match self.at {
            // Lowered before the pause: who raises it after this is seen by the next look.
            None if flag.lower() => self.at = Some(now + pause),
            Some(at) if at <= now => {
                let again = look();
                // Who has raised it meanwhile may have come after the look.
                let again = flag.lower() || again;
                let done = Instant::now();
                // To wait for one that does not answer takes no time of a CPU.
                let took = done.saturating_duration_since(now).saturating_sub(PATIENCE);
                self.at = again.then(|| done + pause.max(took * SHARE));
            }
            _ => {}
        }
    }
}

fn watch() {
    let mut cycles = Cycles::default();
    let mut standstills = Standstills::default();
    let (mut for_cycles, mut for_standstills) = (Looks::default(), Looks::default());
    let mut stalls = Stalls { look_at: None, seen: HashMap::new() };
    loop {
        let now = Instant::now();
        for_cycles.step(&FLAGS.armed, now, PAUSE, || cycles.look());
        for_standstills.step(&FLAGS.rests, now, 2 * LULL, || standstills.look(&cycles));
        stalls.step(now);
        let looks = [for_cycles.at, for_standstills.at, stalls.look_at];
        match looks.into_iter().flatten().min() {
            Some(at) => thread::park_timeout(at.saturating_duration_since(Instant::now())),
            None => thread::park(),
        }
    }
}

fn tell(trouble: Trouble) {
    if let Some(on_trouble) = ON_TROUBLE.get() {
        on_trouble(&trouble);
    }
}

#[derive(Default)]
struct Cycles {
    /// Each by its fiber with the least id, and since when that has waited.
    reported: HashSet<(u64, u64)>,
    /// All fibers of those.
    members: HashSet<u64>,
}

impl Cycles {
    /// Says whether there may be one that it could not tell.
    fn look(&mut self) -> bool {
        let before = Waits::of(false);
        let mut again = !before.is_whole;
        if before.cycles().is_empty() {
            return again;
        }
        let mut after = Waits::of(true);
        for ids in after.cycles() {
            let is_same = |id: &u64| {
                before.fibers.get(id).zip(after.fibers.get(id)).is_some_and(|(before, after)| {
                    let (before, after) = (before.wait.as_ref(), after.wait.as_ref());
                    // By its own clock it waited at the first look, and has begun no wait since.
                    before.zip(after).is_some_and(|(before, after)| {
                        before.since_ns == after.since_ns
                            && before.object == after.object
                            && before.held_by == after.held_by
                            && !before.waited.is_zero()
                    })
                })
            };
            if !ids.iter().all(is_same) {
                again = true; // Too young to tell.
                continue;
            }
            let first = &after.fibers[&ids[0]];
            let since_ns = first.wait.as_ref().map_or(0, |wait| wait.since_ns);
            if self.reported.insert((first.id, since_ns)) {
                let others_waiting = after.behind(&ids);
                let fibers: Vec<_> = ids.iter().filter_map(|id| after.fibers.remove(id)).collect();
                self.members.extend(ids);
                if !report::runtimes().iter().any(|shared| {
                    shared.config.reports_deadlocks && shared.id() == fibers[0].runtime
                }) {
                    continue;
                }
                tell(Trouble::Cycle(Cycle { fibers, others_waiting }));
            }
        }
        again
    }
}

/// The fibers that wait for a party that is known.
struct Waits {
    /// By their ids.
    fibers: HashMap<u64, FiberReport>,
    /// All workers have answered. One that has not may come to itself, and nobody may wait anew then.
    is_whole: bool,
}

impl Waits {
    fn of(frames: bool) -> Waits {
        let reports = report::ask(Wanted::Blocked { frames }, 0, PATIENCE);
        let has_answered = |worker: &WorkerReport| worker.has_answered;
        let is_whole = reports.iter().flat_map(|it| &it.workers).all(has_answered);
        let workers = reports.into_iter().flat_map(|it| it.workers).filter(has_answered);
        let fibers = workers.flat_map(|worker| worker.fibers).map(|fiber| (fiber.id, fiber));
        Waits { is_whole, fibers: fibers.collect() }
    }

    /// For whom `id` waits without a time limit. Who has just been handed the lock that it waits for does not wait for itself.
    fn next(&self, id: u64) -> Option<u64> {
        let wait = self.fibers.get(&id)?.wait.as_ref()?;
        wait.held_by.filter(|&holder| holder != id && wait.timeout.is_none())
    }

    /// The cycles, each from its least id on.
    fn cycles(&self) -> Vec<Vec<u64>> {
        let mut visited = HashSet::new();
        let mut cycles = Vec::new();
        for &start in self.fibers.keys() {
            let mut path = Vec::new();
            let mut at = Some(start);
            while let Some(id) = at
                && visited.insert(id)
            {
                path.push(id);
                at = self.next(id);
            }
            // It ends at one that was visited before: in this walk, or in an earlier one.
            let Some(begin) = path.iter().position(|&id| Some(id) == at) else { continue };
            let mut cycle = path.split_off(begin);
            let least = cycle.iter().enumerate().min_by_key(|(_, id)| **id).map_or(0, |(i, _)| i);
            cycle.rotate_left(least);
            cycles.push(cycle);
        }
        cycles.sort();
        cycles
    }

    /// How many of the others wait for one of `cycle`, or for one that does.
    fn behind(&self, cycle: &[u64]) -> usize {
        let leads_there = |&&start: &&u64| {
            let steps =
                std::iter::successors(Some(start), |&id| self.next(id)).take(self.fibers.len() + 1);
            steps.skip(1).any(|id| cycle.contains(&id))
        };
        self.fibers.keys().filter(|id| !cycle.contains(id)).filter(leads_there).count()
    }
}

#[derive(Default)]
struct Standstills {
    /// Each by its fibers' ids.
    reported: HashSet<Vec<u64>>,
}

impl Standstills {
    /// Whether some have not waited for long enough.
    fn look(&mut self, cycles: &Cycles) -> bool {
        let mut is_too_young = false;
        for shared in report::runtimes().iter().filter(|shared| shared.config.reports_deadlocks) {
            let Some(ids) = waiting(shared) else { continue };
            // The workers are asked once for the same fibers.
            if self.reported.contains(&ids) || ids.iter().any(|id| cycles.members.contains(id)) {
                continue;
            }
            let reports = report::ask(Wanted::Everything, 0, PATIENCE);
            let Some(report) = reports.into_iter().find(|report| report.id == shared.id()) else {
                continue;
            };
            let all_told = report.more_not_started == 0
                && report.workers.iter().all(|it| it.has_answered && it.more_not_started == 0);
            let is_stuck = |fiber: &FiberReport| {
                fiber.state == FiberState::Parked
                    && fiber.wait.as_ref().is_some_and(|wait| {
                        let inside = |id| ids.binary_search(&id).is_ok();
                        !wait.is_armed()
                            && !wait.is_held_elsewhere()
                            && wait.held_by.is_none_or(inside)
                    })
            };
            let mut told: Vec<u64> = report.fibers().map(|fiber| fiber.id).collect();
            told.sort_unstable();
            // Somebody may have been woken, or have ended, before the workers told.
            if !all_told || told != ids || !report.fibers().all(is_stuck) {
                continue;
            }
            let has_waited =
                |fiber: &FiberReport| fiber.wait.as_ref().map(|wait| wait.waited) > Some(LULL);
            if !report.fibers().all(has_waited) {
                is_too_young = true;
                continue;
            }
            self.reported.insert(ids);
            let fibers = report.fibers().cloned().collect();
            let standstill = Standstill { runtime: report.id, name: report.name, fibers };
            tell(Trouble::Standstill(standstill));
        }
        is_too_young
    }
}

/// The ids of the fibers of a runtime, in order, if all seem to wait and nothing seems to be armed. Wakes nobody.
fn waiting(shared: &Shared) -> Option<Vec<u64>> {
    if shared.has_fresh() || shared.pool.is_busy() {
        return None;
    }
    let mut ids = Vec::new();
    for worker in shared.workers() {
        let rests = || worker.is_asleep() || worker.has_ended();
        let mut is_stuck = !worker.has_fresh();
        if is_stuck && rests() {
            worker.look_from_outside(|header| {
                let is_armed = header.until_ns().is_some()
                    || matches!(Noted::of(header.detail()), Noted::Descriptor(_) | Noted::Thread);
                is_stuck = rests() && header.run() == Run::Parked && !is_armed;
                ids.push(header.id());
                is_stuck
            });
        }
        if !is_stuck || !rests() {
            return None;
        }
    }
    ids.sort_unstable();
    Some(ids).filter(|ids| !ids.is_empty())
}

struct Stalls {
    look_at: Option<Instant>,
    /// Workers by their address, as none is ever freed.
    seen: HashMap<*const Worker, Turn>,
}

/// What a worker was about when it was last looked at.
struct Turn {
    turns: u32,
    since: Instant,
    /// The fiber that ran when half of the limit had passed.
    culprit: Option<u64>,
    is_reported: bool,
}

impl Stalls {
    fn step(&mut self, now: Instant) {
        match self.look_at {
            // Not at once: a worker that has just left its driver still seems asleep.
            None if FLAGS.awake.is_raised() => {
                self.look_at = shortest_limit().map(|limit| now + limit / 4)
            }
            Some(at) if at <= now => {
                let is_someone_awake = self.look_at_all(now);
                // All seem asleep: once more, as one may have said that it is awake since. Who wakes after this says so.
                let again = is_someone_awake || FLAGS.awake.lower();
                let limit = shortest_limit().filter(|_| again);
                self.look_at = limit.map(|limit| Instant::now() + limit / 4);
            }
            _ => {}
        }
    }

    /// Whether any worker that may stall is awake.
    fn look_at_all(&mut self, now: Instant) -> bool {
        let mut is_someone_awake = false;
        for shared in report::runtimes() {
            let Some(limit) = shared.config.stall_limit else { continue };
            for worker in shared.workers() {
                if worker.is_asleep() || worker.has_ended() {
                    self.seen.remove(&std::ptr::from_ref(*worker));
                } else {
                    is_someone_awake = true;
                    self.look(worker, shared.id(), limit, now);
                }
            }
        }
        if !is_someone_awake {
            self.seen.clear();
        }
        is_someone_awake
    }

    fn look(&mut self, worker: &'static Worker, runtime: u64, limit: Duration, now: Instant) {
        let fresh = Turn { turns: worker.turns(), since: now, culprit: None, is_reported: false };
        let seen = self.seen.entry(worker).or_insert(fresh);
        if seen.turns != worker.turns() {
            *seen = Turn { turns: worker.turns(), since: now, culprit: None, is_reported: false };
            return;
        }
        let stalled_for = now.duration_since(seen.since);
        if seen.is_reported || stalled_for < limit / 2 {
            return;
        }
        let Some(now_there) = look_at(worker, runtime) else { return };
        let fiber = &now_there.running;
        if seen.culprit != Some(fiber.id) {
            // Another fiber than before: it has been let run, in the middle of a long turn.
            (seen.culprit, seen.since) = (Some(fiber.id), now - stalled_for.min(limit / 2));
            return;
        }
        if stalled_for >= limit && seen.turns == worker.turns() {
            seen.is_reported = true;
            let thread_token = worker.thread_token();
            let Seen { running: fiber, held_up, ready, others } = now_there;
            let stall = Stall { fiber, stalled_for, others, ready, held_up, thread_token };
            tell(Trouble::Stall(Box::new(stall)));
        }
    }
}

fn shortest_limit() -> Option<Duration> {
    let limits = report::runtimes().into_iter().filter_map(|shared| shared.config.stall_limit);
    limits.min().map(|limit| limit.max(Duration::from_millis(4)))
}

/// What is on a worker, seen from outside.
struct Seen {
    running: FiberReport,
    /// The first few that are ready.
    held_up: Vec<FiberReport>,
    ready: usize,
    others: usize,
}

fn look_at(worker: &Worker, runtime: u64) -> Option<Seen> {
    let (mut running, mut held_up, mut ready, mut all) = (None, Vec::new(), 0, 0);
    worker.look_from_outside(|header| {
        all += 1;
        let report = || FiberReport::of_started(header, runtime, worker);
        match header.run() {
            Run::Running => running = report(),
            Run::Ready => {
                ready += 1;
                if ready <= MOST_NAMED {
                    held_up.extend(report());
                }
            }
            _ => {}
        }
        true
    });
    running.map(|running| Seen { running, held_up, ready, others: all - 1 })
}
