//! Reports: what every fiber does, told by the workers themselves, a little at a time.
//!
//! Whoever asks leaves a [`Request`] at the [`Desk`] of each worker and wakes it. A worker answers on its own
//! stack, where all its fibers are suspended and none can go on: so what it says of a fiber, its return addresses
//! too, is how that fiber is at one moment. It does so in slices of at most [`SLICE_FIBERS`] fibers, [`SLICE_FRAMES`] frames
//! and about [`SLICE_NS`], one whenever it looks at the clock or has nothing to do. Between slices fibers run. So
//! a report is no picture of one moment, but: each fiber that had started when its worker took up the request, and
//! has not ended by its turn, is in it once; none is in it twice.
//!
//! A worker that tells neither allocates, nor waits for a lock, nor touches memory for the first time: who asks gives it a
//! [`Chunk`] of memory that has been written to, takes it when it is full, and gives it back empty.
//!
//! Where the next slice begins is marked in the list of live fibers by the worker's own header, which is in
//! no such list otherwise: fibers that start and end meanwhile need not know.
//!
//! Fibers that have not started lie in queues that nobody can look into without taking them out. They are taken
//! out and put back in order, if a queue has few ([`LOOK_INTO`]); else they are only counted.
//!
//! A worker that does not answer (its fiber computes, or blocks the thread) is described from outside: what its
//! fibers' headers say, without their stacks. That goes by slices too, under the list's lock, as it may come back meanwhile.
//!
//! Turned down: to stop the workers (a look at 100,000 stacks takes half a second), and for others to walk the
//! stacks of fibers (their worker may resume them at any moment).

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::panic::Location;
use std::ptr;
use std::sync::{Arc, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use crate::about::{About, Followed, Noted};
use crate::atomic::{
    AcqRel, Acquire, AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Mutex, Relaxed,
    Release, Thread, lock, park_timeout, this_thread,
};
use crate::cancel;
use crate::current;
use crate::fork;
use crate::owner;
use crate::park::{self, Op, Outcome};
use crate::runtime::Shared;
use crate::task::{Header, JOIN, Run, TaskRef};
use crate::worker::Worker;

/// The most fibers that a worker tells of in one go.
pub(crate) const SLICE_FIBERS: usize = 32;
/// The most frames that it looks at. A walk that needs more is done anew in the next slice, where it is the first.
const SLICE_FRAMES: usize = 128;
/// How long it does so, but for one fiber more.
const SLICE_NS: u64 = 20_000;
/// A walk that is not done by then is done anew, too.
const LATEST_NS: u64 = 40_000;
/// Queues with more fibers that have not started than this are not looked into.
pub(crate) const LOOK_INTO: usize = 64;
/// The most return addresses of a fiber: what a walk costs is bounded too.
const MOST_FRAMES: usize = 64;
const _: () = assert!(MOST_FRAMES <= SLICE_FRAMES);
/// The most operations of a select that are told.
const MOST_ARMS: usize = 16;
/// The most bytes of a name.
const MOST_NAME: usize = 1024;
/// The most fibers of a chunk.
const CHUNK_FIBERS: usize = 1024;

/// What a fiber is about.
///
/// ```standalone_crate
/// use std::time::Duration;
/// use strands_sched::{Builder, FiberState, SpawnOptions, collect};
///
/// let runtime = Builder::new().workers(1).build()?;
/// let state = || collect(Duration::from_secs(10))[0].fibers().next().map(|fiber| fiber.state);
/// assert_eq!(runtime.run(SpawnOptions::default(), state)?, Some(FiberState::Running));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FiberState {
    /// It has been spawned and has no stack yet.
    NotStarted,
    /// It runs.
    Running,
    /// It could run, and others run.
    Ready,
    /// It waits.
    Parked,
}

/// What is known of one fiber.
///
/// ```standalone_crate
/// use std::time::Duration;
/// use strands_sched::{Builder, FiberReport, FiberState, SpawnOptions, collect, sleep_until, spawn_on};
///
/// let runtime = Builder::new().workers(1).build()?;
/// let options = SpawnOptions { name: Some("sleeper".into()), ..SpawnOptions::default() };
/// spawn_on(runtime.shared(), options, || sleep_until(None))?;
/// let report = loop {
///     let reports = collect(Duration::from_secs(10));
///     let fiber: &FiberReport = reports[0].fibers().next().unwrap();
///     if fiber.state == FiberState::Parked {
///         break fiber.clone();
///     }
/// };
/// assert_eq!(report.name.as_deref(), Some("sleeper"));
/// assert_eq!(report.spawned_at.file(), file!());
/// assert_eq!(report.wait.unwrap().operation, "thread::sleep");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FiberReport {
    /// Its id.
    pub id: u64,
    /// The name it was given.
    pub name: Option<String>,
    /// The runtime it is of.
    pub runtime: u64,
    /// The worker it is on. None: it may start on any.
    pub worker: Option<usize>,
    /// What it is about.
    pub state: FiberState,
    /// Where it was spawned.
    pub spawned_at: &'static Location<'static>,
    /// What it waits for, if it is parked.
    pub wait: Option<WaitReport>,
    /// Where it will go on, then return addresses, the innermost first; empty if they are not known.
    pub frames: Vec<usize>,
    /// Whether there are more frames than that.
    pub is_truncated: bool,
}

/// What a fiber waits for.
///
/// ```standalone_crate
/// use std::time::Duration;
/// use strands_sched::{Builder, SpawnOptions, WaitReport, collect, spawn_on};
///
/// let runtime = Builder::new().workers(1).build()?;
/// runtime.run(SpawnOptions::default(), || {
///     let parent = strands_sched::with_current_task(|me| me.id());
///     let look = move || {
///         let reports = collect(Duration::from_secs(10));
///         let parent = reports[0].fibers().find(|fiber| fiber.id == parent);
///         parent.and_then(|parent| parent.wait.clone())
///     };
///     let child = spawn_on(runtime.shared(), SpawnOptions::default(), look)?;
///     let id = child.task().id();
///     let wait: WaitReport = child.join().unwrap().unwrap();
///     assert_eq!((wait.operation, wait.held_by), ("join", Some(id)));
///     std::io::Result::Ok(())
/// })??;
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitReport {
    /// The operation, such as `Mutex::lock`.
    pub operation: &'static str,
    /// What it is waited for, by an address or an id: the same for all who wait for the same.
    pub object: usize,
    /// For how long, by the worker's clock, which is looked at about every 50 µs if fibers let it.
    pub waited: Duration,
    /// The party that can end the wait: who holds the lock, or who is joined. None if that is not one, or not
    /// known.
    pub held_by: Option<u64>,
    /// In what time it ends by itself: a time limit, also one around the call.
    pub timeout: Option<Duration>,
    /// The descriptor that it waits for.
    pub descriptor: Option<u64>,
    /// Another thread of the process does it: one of the pool for blocking work.
    pub by_thread: bool,
    /// The operations of a select, the first few of them.
    pub arms: Vec<About>,
    /// When it began, by the worker's clock.
    pub(crate) since_ns: u64,
    /// The mark of who holds it.
    holder: Option<u64>,
}

impl WaitReport {
    /// Whether somebody holds the lock that it waits for who is in no report: a plain thread, or a fiber that has ended.
    ///
    /// ```
    /// fn text(wait: &strands_sched::WaitReport) -> &str {
    ///     if wait.is_held_elsewhere() { "a plain thread has it" } else { "" }
    /// }
    /// ```
    pub fn is_held_elsewhere(&self) -> bool {
        self.holder.is_some() && self.held_by.is_none()
    }

    /// Whether something is armed that ends the wait: a time limit, a descriptor, a thread of the pool.
    ///
    /// ```standalone_crate
    /// use std::time::Duration;
    /// use strands_sched::{Builder, SpawnOptions, collect, sleep_until, spawn_on};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// spawn_on(runtime.shared(), SpawnOptions::default(), || sleep_until(None))?;
    /// let wait = loop {
    ///     let reports = collect(Duration::from_secs(10));
    ///     if let Some(wait) = &reports[0].fibers().next().unwrap().wait {
    ///         break wait.clone();
    ///     }
    /// };
    /// assert!(!wait.is_armed(), "it sleeps for ever");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn is_armed(&self) -> bool {
        self.timeout.is_some()
            || self.descriptor.is_some()
            || self.by_thread
            || self.arms.iter().any(|arm| arm.descriptor.is_some())
    }
}

/// What one worker said of its fibers.
///
/// ```standalone_crate
/// use std::time::Duration;
/// use strands_sched::{Builder, WorkerReport, collect};
///
/// let runtime = Builder::new().workers(2).build()?;
/// let reports = collect(Duration::from_secs(10));
/// let last: &WorkerReport = &reports[0].workers[1];
/// assert_eq!((last.index, last.has_answered, last.fibers.len()), (1, true, 0));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerReport {
    /// Its index.
    pub index: usize,
    /// Whether it answered. If not, its fibers are described from outside, without their stacks.
    pub has_answered: bool,
    /// What the runtime's builder had [`thread_token`](crate::Builder::thread_token) say; 0: nothing.
    pub thread_token: usize,
    /// Its fibers.
    pub fibers: Vec<FiberReport>,
    /// Fibers that have not started and are not among those, as they are many.
    pub more_not_started: usize,
    /// In how many slices it answered.
    pub slices: usize,
    /// The most fibers in a slice that had started.
    pub most_in_slice: usize,
    /// The longest that its fibers were held up, by the worker's own measurement: in its thread's time, if the runtime's
    /// builder had a [`thread_clock`](crate::Builder::thread_clock).
    pub longest_slice: Duration,
}

/// What is known of the fibers of one runtime.
///
/// ```standalone_crate
/// use std::time::Duration;
/// use strands_sched::{Builder, RuntimeReport, SpawnOptions, collect};
///
/// let runtime = Builder::new().workers(1).thread_name("render").build()?;
/// let reports = runtime.run(SpawnOptions::default(), || collect(Duration::from_secs(10)))?;
/// let report: &RuntimeReport = &reports[0];
/// assert_eq!((&*report.name, report.fibers().count()), ("render", 1));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RuntimeReport {
    /// Its number; never reused.
    pub id: u64,
    /// What its threads' names begin with.
    pub name: String,
    /// Its workers.
    pub workers: Vec<WorkerReport>,
    /// Fibers that have not started and may start on any worker.
    pub not_started: Vec<FiberReport>,
    /// More of those, which are only counted.
    pub more_not_started: usize,
}

impl RuntimeReport {
    /// All fibers that are described.
    ///
    /// ```standalone_crate
    /// use std::time::Duration;
    /// use strands_sched::{Builder, collect};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// assert_eq!(collect(Duration::from_secs(10))[0].fibers().count(), 0);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn fibers(&self) -> impl Iterator<Item = &FiberReport> {
        self.workers.iter().flat_map(|worker| &worker.fibers).chain(&self.not_started)
    }
}

/// Asks the workers of all runtimes what their fibers do, and waits for the answers.
///
/// A worker that says nothing for `patience` is described from outside. A fiber that asks is shown as
/// running. In a [forked child](crate::in_forked_child) there is nobody to ask.
///
/// ```standalone_crate
/// use std::time::Duration;
/// use strands_sched::{Builder, SpawnOptions, collect};
///
/// let runtime = Builder::new().workers(2).build()?;
/// let options = SpawnOptions { name: Some("curious".into()), ..SpawnOptions::default() };
/// let reports = runtime.run(options, || collect(Duration::from_secs(10)))?;
/// let me = reports[0].fibers().next().unwrap();
/// assert_eq!(me.name.as_deref(), Some("curious"));
/// # std::io::Result::Ok(())
/// ```
pub fn collect(patience: Duration) -> Vec<RuntimeReport> {
    collect_for(current::with(Header::id), patience)
}

/// As [`collect`], on behalf of the fiber with this id, which is shown as running: it waits for the caller.
///
/// ```
/// use std::time::Duration;
///
/// assert!(strands_sched::collect_for(0, Duration::from_secs(10)).is_empty(), "there is no runtime");
/// ```
pub fn collect_for(fiber: u64, patience: Duration) -> Vec<RuntimeReport> {
    ask(Wanted::Everything, fiber, patience)
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Everything,
    /// Fibers that wait for a party that is known, and where they stand if that is wanted.
    Blocked {
        frames: bool,
    },
}

pub(crate) fn ask(wanted: Wanted, asks_for: u64, patience: Duration) -> Vec<RuntimeReport> {
    if fork::in_forked_child() {
        return Vec::new();
    }
    let mut seen = 0;
    let asked: Vec<(Arc<Shared>, Vec<Arc<Request>>)> = runtimes()
        .into_iter()
        .map(|shared| {
            let requests = shared.workers().iter().map(|worker| {
                let chunk = Chunk::new(worker.live_count());
                Request::submit(wanted, chunk, worker)
            });
            let requests = requests.collect();
            (shared, requests)
        })
        .collect();
    let mut answers: Vec<Vec<Answer>> = asked
        .iter()
        .map(|(_, requests)| requests.iter().map(|_| Answer::default()).collect())
        .collect();
    let requests = || asked.iter().flat_map(|(_, requests)| requests);
    loop {
        let all_have = || requests().all(|request| request.state() == State::Answered);
        let any = || all_have() || requests().any(|request| !request.full.is_empty());
        let mut progress = Asker::wait_until(patience, any);
        let are_done = all_have(); // Before the last chunks are looked for.
        for ((shared, requests), answers) in asked.iter().zip(&mut answers) {
            let requests = shared.workers().iter().zip(requests).zip(answers);
            for ((worker, request), answer) in requests {
                progress |= answer.take_from(request, worker, shared.id());
            }
        }
        // It may be in the middle of many fibers of others, too, or answer somebody else first.
        let workers = asked.iter().flat_map(|(shared, _)| shared.workers());
        let slices: usize = workers.map(|worker| worker.desk().slices.load(Relaxed)).sum();
        progress |= std::mem::replace(&mut seen, slices) != slices;
        if are_done || !progress {
            break;
        }
    }
    let reports = asked.iter().zip(answers);
    let reports = reports.map(|((shared, requests), answers)| {
        gather(shared, requests, answers, wanted, asks_for) //
    });
    let mut reports: Vec<_> = reports.collect();
    name_holders(&mut reports);
    reports
}

/// Who waits for answers. A plain thread waits by its own token: to wake it otherwise takes a lock, and it may have
/// that while the system runs others.
enum Asker {
    Fiber(TaskRef),
    Thread(Thread),
}

impl Asker {
    /// The running party.
    fn new() -> Asker {
        current::with(|me| match me.is_thread() {
            true => Asker::Thread(this_thread()),
            false => Asker::Fiber(TaskRef::to(me)),
        })
    }

    fn wake(&self) {
        match self {
            Asker::Fiber(fiber) => fiber.wake(),
            Asker::Thread(thread) => thread.unpark(),
        }
    }

    /// Has the running party wait until `ready`, for `patience` at most; says which.
    fn wait_until(patience: Duration, ready: impl Fn() -> bool) -> bool {
        static DUMP: Op = Op("debug::dump");
        let deadline = Instant::now() + patience;
        if !current::with(Header::is_thread) {
            let wait = || park::wait_until(&DUMP, 0, Some(deadline), ready);
            return cancel::uncancellable(wait) == Outcome::Woken;
        }
        let is_ready = loop {
            if ready() {
                break true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break false;
            }
            park_timeout(left);
        };
        // The token may have been another's: who waits for that looks again.
        this_thread().unpark();
        is_ready
    }
}

/// What a worker has told so far.
#[derive(Default)]
pub(crate) struct Answer {
    pub(crate) fibers: Vec<FiberReport>,
}

impl Answer {
    /// Takes a full chunk and gives it back, if there is one.
    pub(crate) fn take_from(&mut self, request: &Request, worker: &Worker, runtime: u64) -> bool {
        let Some(mut chunk) = request.full.take() else { return false };
        self.fibers.extend(chunk.reports(runtime, worker.index()));
        chunk.clear();
        if request.is_open() {
            request.empty.put(chunk);
            worker.poke();
        }
        true
    }
}

/// Replaces the marks of those who hold locks by their ids, as far as they are in the report.
fn name_holders(reports: &mut [RuntimeReport]) {
    let fibers = reports.iter().flat_map(RuntimeReport::fibers);
    let ids: HashMap<u64, u64> = fibers.map(|fiber| (owner::mark_of(fiber.id), fiber.id)).collect();
    let workers = reports.iter_mut().flat_map(|runtime| &mut runtime.workers);
    let waits =
        workers.flat_map(|worker| &mut worker.fibers).filter_map(|fiber| fiber.wait.as_mut());
    for wait in waits {
        let holder = wait.holder.and_then(|mark| ids.get(&mark));
        wait.held_by = wait.held_by.or(holder.copied());
    }
}

/// Puts a runtime's report together from what its workers have answered.
fn gather(
    shared: &Shared,
    requests: &[Arc<Request>],
    answers: Vec<Answer>,
    wanted: Wanted,
    asks_for: u64,
) -> RuntimeReport {
    let workers = shared.workers().iter().zip(requests).zip(answers);
    let workers = workers.map(|((worker, request), answer)| {
        request.finish(worker, answer.fibers, shared.id(), asks_for) //
    });
    let workers = workers.collect();
    let mut not_started = Vec::new();
    let mut more_not_started = 0;
    if wanted == Wanted::Everything {
        more_not_started = shared.look_into_shared_queues(|task| {
            not_started.push(FiberReport::of_fresh(task, shared.id()));
        });
    }
    let name = shared.config.thread_name.clone();
    RuntimeReport { id: shared.id(), name, workers, not_started, more_not_started }
}

/// All runtimes that are there.
static RUNTIMES: std::sync::Mutex<Vec<Weak<Shared>>> = std::sync::Mutex::new(Vec::new());

/// Makes `shared` one of those that are asked.
pub(crate) fn register(shared: &Arc<Shared>) {
    let mut runtimes = RUNTIMES.lock().unwrap_or_else(PoisonError::into_inner);
    runtimes.retain(|runtime| runtime.strong_count() > 0);
    runtimes.push(Arc::downgrade(shared));
}

pub(crate) fn runtimes() -> Vec<Arc<Shared>> {
    // One that has ended may be held for a moment by who has asked before.
    let is_there = |shared: &Arc<Shared>| {
        shared.workers().iter().any(|worker| !worker.has_ended() || worker.live_count() > 0)
    };
    let runtimes = RUNTIMES.lock().unwrap_or_else(PoisonError::into_inner);
    runtimes.iter().filter_map(Weak::upgrade).filter(is_there).collect()
}

impl FiberReport {
    /// One that has not started, and may start anywhere.
    fn of_fresh(task: &TaskRef, runtime: u64) -> FiberReport {
        FiberReport::new(&Told::of(task, FiberState::NotStarted), task.name(), runtime, None, 0)
    }

    /// One that has started, from any thread. None if it has just ended.
    pub(crate) fn of_started(
        header: &Header,
        runtime: u64,
        worker: &Worker,
    ) -> Option<FiberReport> {
        let told = Told::of_started(header)?;
        let (index, now_ns) = (Some(worker.index()), worker.now_ns());
        Some(FiberReport::new(&told, header.name(), runtime, index, now_ns))
    }

    fn new(
        told: &Told,
        name: Option<&str>,
        runtime: u64,
        worker: Option<usize>,
        now_ns: u64,
    ) -> FiberReport {
        let since = |ns: u64| Duration::from_nanos(now_ns.saturating_sub(ns));
        let wait = told.wait.map(|(op, object)| WaitReport {
            operation: op.0,
            object,
            waited: since(told.since_ns),
            held_by: ptr::eq(op, &JOIN).then_some(object as u64),
            timeout: told.until_ns.map(|ns| Duration::from_nanos(ns.saturating_sub(now_ns))),
            descriptor: match told.noted {
                Noted::Descriptor(descriptor) => Some(descriptor),
                _ => None,
            },
            by_thread: told.noted == Noted::Thread,
            arms: Vec::new(),
            since_ns: told.since_ns,
            holder: told.holder,
        });
        FiberReport {
            id: told.id,
            name: name.map(String::from),
            runtime,
            worker,
            state: told.state,
            spawned_at: told.spawned_at,
            wait,
            frames: Vec::new(),
            is_truncated: told.is_truncated,
        }
    }
}

/// What is written down of a fiber: no more than a copy of words.
struct Told {
    id: u64,
    state: FiberState,
    spawned_at: &'static Location<'static>,
    wait: Option<(&'static Op, usize)>,
    since_ns: u64,
    until_ns: Option<u64>,
    noted: Noted,
    holder: Option<u64>,
    is_truncated: bool,
    /// How many bytes, frames and operations it has in the chunk.
    name: Option<usize>,
    frames: usize,
    arms: usize,
}

impl Told {
    fn of(header: &Header, state: FiberState) -> Told {
        Told {
            id: header.id(),
            state,
            spawned_at: header.spawned_at(),
            wait: None,
            since_ns: 0,
            until_ns: None,
            noted: Noted::Nothing,
            holder: None,
            is_truncated: false,
            name: None,
            frames: 0,
            arms: 0,
        }
    }

    /// As its header says; from any thread. None if it has just ended.
    fn of_started(header: &Header) -> Option<Told> {
        let state = match header.run() {
            Run::Running => FiberState::Running,
            Run::Ready => FiberState::Ready,
            Run::Parked => FiberState::Parked,
            // Linked and not yet entered: its worker is about to run it.
            Run::Fresh => FiberState::Ready,
            Run::Ended => return None,
        };
        let mut told = Told::of(header, state);
        if state == FiberState::Parked {
            told.wait = header.wait();
            told.since_ns = header.since_ns();
            told.until_ns = header.until_ns();
            told.noted = Noted::of(header.detail());
        }
        Some(told)
    }
}

/// Memory that a worker writes to, and does not allocate: it belongs to who asks.
pub(crate) struct Chunk {
    told: Vec<Told>,
    names: String,
    frames: Vec<usize>,
    arms: Vec<About>,
    /// The worker's clock.
    now_ns: u64,
}

impl Chunk {
    /// One for a worker with so many fibers, or for the first of them.
    fn new(fibers: usize) -> Box<Chunk> {
        // Those that have not started, and some more that have.
        Chunk::with_room((fibers + 2 * LOOK_INTO + SLICE_FIBERS).min(CHUNK_FIBERS))
    }

    /// One for so many fibers of the usual kind. The memory has been written to.
    pub(crate) fn with_room(fibers: usize) -> Box<Chunk> {
        fn touched<T>(count: usize) -> Vec<T> {
            /// No system has smaller ones.
            const PAGE: usize = 4096;
            let mut vec = Vec::with_capacity(count);
            let spare = vec.spare_capacity_mut();
            let (bytes, start) = (size_of_val(spare), spare.as_mut_ptr().cast::<u8>());
            for offset in (0..bytes).step_by(PAGE).chain(bytes.checked_sub(1)) {
                // Not a loop of zeros, for which the compiler asks the system for pages of zeros: those come when
                // they are first written to.
                // SAFETY: within what was allocated, which nobody reads before it is written.
                unsafe { start.add(offset).write_volatile(0) };
            }
            vec
        }
        let names = String::from_utf8(touched(fibers * 32 + MOST_NAME)).expect("nothing");
        Box::new(Chunk {
            told: touched(fibers),
            names,
            frames: touched(fibers * 12 + MOST_FRAMES),
            arms: touched(fibers / 4 + MOST_ARMS),
            now_ns: 0,
        })
    }

    fn clear(&mut self) {
        self.told.clear();
        self.names.clear();
        self.frames.clear();
        self.arms.clear();
    }

    /// Whether any fiber finds a place.
    pub(crate) fn has_room(&self) -> bool {
        let Chunk { told, names, frames, arms, .. } = self;
        told.len() < told.capacity()
            && names.capacity() - names.len() >= MOST_NAME
            && frames.capacity() - frames.len() >= MOST_FRAMES
            && arms.capacity() - arms.len() >= MOST_ARMS
    }

    pub(crate) fn set_now_ns(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// Adds one that has not started, if there is room; says how many it left out.
    pub(crate) fn add_fresh(&mut self, task: &TaskRef) -> usize {
        if self.has_room() {
            self.add(Told::of(task, FiberState::NotStarted), task);
            return 0;
        }
        1
    }

    /// Adds one that runs, as any party of a model may.
    #[cfg(all(test, loom))]
    pub(crate) fn add_running(&mut self, header: &Header) {
        self.add(Told::of(header, FiberState::Running), header);
    }

    fn add(&mut self, mut told: Told, header: &Header) {
        if let Some(name) = header.name() {
            let name = &name[..name.floor_char_boundary(MOST_NAME)];
            self.names.push_str(name);
            told.name = Some(name.len());
        }
        self.told.push(told);
    }

    fn reports(&self, runtime: u64, worker: usize) -> impl Iterator<Item = FiberReport> {
        let (mut names, mut frames, mut arms) = (&*self.names, &*self.frames, &*self.arms);
        self.told.iter().map(move |told| {
            let name = told.name.map(|length| {
                let (name, rest) = names.split_at(length);
                names = rest;
                name
            });
            let mut report = FiberReport::new(told, name, runtime, Some(worker), self.now_ns);
            report.frames = frames.split_off(..told.frames).unwrap_or_default().to_vec();
            let arms = arms.split_off(..told.arms).unwrap_or_default();
            if let Some(wait) = &mut report.wait {
                wait.arms = arms.to_vec();
            }
            report
        })
    }
}

/// Where one thread puts a box, and another takes it. Neither waits.
pub(crate) struct Handoff<T>(AtomicPtr<T>);

impl<T> Handoff<T> {
    pub(crate) fn new(first: Option<Box<T>>) -> Handoff<T> {
        Handoff(AtomicPtr::new(first.map_or(ptr::null_mut(), Box::into_raw)))
    }

    fn is_empty(&self) -> bool {
        self.0.load(Relaxed).is_null()
    }

    pub(crate) fn put(&self, value: Box<T>) {
        drop(Handoff(AtomicPtr::new(self.0.swap(Box::into_raw(value), AcqRel))));
    }

    pub(crate) fn take(&self) -> Option<Box<T>> {
        let taken = self.0.swap(ptr::null_mut(), AcqRel);
        // SAFETY: what is in there came from `Box::into_raw`, and the swap has made it ours.
        (!taken.is_null()).then(|| unsafe { Box::from_raw(taken) })
    }
}

impl<T> Drop for Handoff<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

// SAFETY: it owns a box, which it hands from thread to thread.
unsafe impl<T: Send> Send for Handoff<T> {}
// SAFETY: as above; nobody gets a reference to what is in the box.
unsafe impl<T: Send> Sync for Handoff<T> {}

/// Where requests lie until their worker has answered.
pub(crate) struct Desk {
    /// Whether any lie there: a hint.
    is_busy: AtomicBool,
    /// In how many slices the worker has answered, whoever asked.
    slices: AtomicUsize,
    requests: Mutex<Requests>,
}

#[derive(Default)]
struct Requests {
    open: VecDeque<Arc<Request>>,
    /// The worker has no fibers any more, and looks no more.
    is_closed: bool,
}

impl Desk {
    pub(crate) fn new() -> Desk {
        Desk {
            is_busy: AtomicBool::new(false),
            slices: AtomicUsize::new(0),
            requests: Mutex::new(Requests::default()),
        }
    }

    /// Leaves `request`; false if the worker has ended, which answers it.
    fn submit(&self, request: &Arc<Request>) -> bool {
        let mut requests = lock(&self.requests);
        if requests.is_closed {
            request.state.store(State::Answered as u32, Release); // Nobody waits yet.
            return false;
        }
        requests.open.push_back(request.clone());
        self.is_busy.store(true, Relaxed);
        true
    }

    #[inline(always)]
    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy.load(Relaxed)
    }

    /// Takes the request that is to be answered next. None also if somebody is about to leave one, who then wakes the worker.
    pub(crate) fn next(&self) -> Option<Arc<Request>> {
        let mut requests = match self.requests.try_lock() {
            Ok(requests) => requests,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let request = requests.open.pop_front();
        self.is_busy.store(!requests.open.is_empty(), Relaxed);
        request
    }

    /// Takes back a request that was given up: a worker that hangs would keep all that come.
    fn withdraw(&self, request: &Arc<Request>) {
        lock(&self.requests).open.retain(|other| !Arc::ptr_eq(other, request));
    }

    /// Answers all requests, and those to come: there are no fibers.
    pub(crate) fn close(&self) {
        let open = {
            let mut requests = lock(&self.requests);
            requests.is_closed = true;
            self.is_busy.store(false, Relaxed);
            std::mem::take(&mut requests.open)
        };
        open.iter().for_each(|request| request.answered());
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum State {
    Open,
    Answered,
    /// Whoever asked does not wait any more.
    GivenUp,
}

/// One question to one worker.
pub(crate) struct Request {
    wanted: Wanted,
    asker: Asker,
    state: AtomicU32,
    /// For the worker to write to. There is one chunk.
    empty: Handoff<Chunk>,
    /// For who asks to read.
    full: Handoff<Chunk>,
    more_not_started: AtomicUsize,
    slices: AtomicUsize,
    most_in_slice: AtomicUsize,
    longest_ns: AtomicU64,
}

/// A request that a worker has taken up.
struct Answering {
    request: Arc<Request>,
    /// None: who asked has it.
    chunk: Option<Box<Chunk>>,
    /// The first slice was told.
    has_begun: bool,
}

/// What is told in one go, which others wait for.
pub(crate) struct Slice {
    begun_at: Instant,
    /// In the thread's time.
    begun_at_ns: u64,
    fibers: usize,
    frames: usize,
}

impl Slice {
    fn new(begun_at_ns: u64) -> Slice {
        Slice { begun_at: Instant::now(), begun_at_ns, fibers: 0, frames: 0 }
    }

    /// Whether there is room for one more.
    pub(crate) fn goes_on(&self) -> bool {
        let has_time = self.begun_at.elapsed() < Duration::from_nanos(SLICE_NS);
        self.fibers < SLICE_FIBERS && self.frames < SLICE_FRAMES && has_time
    }

    /// Whether a walk may not go on that has come so far. One that is the first in its slice may, so each is done once.
    fn is_over(&self, frames: usize) -> bool {
        let is_late = || self.begun_at.elapsed() > Duration::from_nanos(LATEST_NS);
        self.fibers > 0 && (self.frames + frames == SLICE_FRAMES || frames % 4 == 3 && is_late())
    }
}

/// Who knows the fibers of a worker: the worker, or in a model somebody who has others.
pub(crate) trait Teller {
    /// Before the first slice: marks where it begins, and tells of those that have not started. Says how many it left
    /// out.
    fn begin(&self, request: &Request, chunk: &mut Chunk) -> usize;

    /// Tells of those that come next, as many as `slice` and `chunk` have room for. Says whether there are more.
    fn tell(&self, request: &Request, chunk: &mut Chunk, slice: &mut Slice) -> bool;

    /// Takes the mark back, before all was told.
    fn stop(&self);

    /// For how long this thread has run, if that can be had; else the time of the clock.
    fn thread_ns(&self) -> u64;
}

/// Who answers what lies on a worker's desk: the worker, on its thread.
pub(crate) struct Clerk {
    answering: Cell<Option<Answering>>,
    is_answering: Cell<bool>,
}

impl Clerk {
    pub(crate) fn new() -> Clerk {
        Clerk { answering: Cell::new(None), is_answering: Cell::new(false) }
    }

    /// Whether there may be something to answer.
    #[inline(always)]
    pub(crate) fn is_busy(&self, desk: &Desk) -> bool {
        self.is_answering.get() || desk.is_busy()
    }

    /// One slice. Says whether there was any: if not, whoever asked or is about to ask will poke us.
    #[cold]
    pub(crate) fn answer(&self, desk: &Desk, teller: &impl Teller) -> bool {
        let next = || {
            let request = desk.next()?;
            Some(Answering { request, chunk: None, has_begun: false })
        };
        let Some(mut answering) = self.answering.take().or_else(next) else { return false };
        let told = answering.go_on(teller);
        desk.slices.fetch_add(1, Relaxed);
        let goes_on = told != Some(false);
        self.is_answering.set(goes_on);
        if goes_on {
            self.answering.set(Some(answering));
        }
        told.is_some()
    }

    /// Answers those who ask that there are no more fibers here.
    pub(crate) fn leave(&self, desk: &Desk, teller: &impl Teller) {
        if let Some(mut answering) = self.answering.take() {
            answering.stop(teller);
            if let Some(chunk) = answering.chunk {
                answering.request.deliver(chunk);
            }
            answering.request.answered();
        }
        desk.close();
    }
}

impl Answering {
    /// One slice. Whether there is more to tell; none: there is no room before who asked has made some.
    fn go_on(&mut self, teller: &impl Teller) -> Option<bool> {
        if !self.request.is_open() {
            self.stop(teller);
            return Some(false);
        }
        let request = &*self.request;
        let mut slice = Slice::new(teller.thread_ns());
        let mut chunk = self.chunk.take().or_else(|| request.empty.take())?;
        let mut more_not_started = 0;
        if !self.has_begun {
            self.has_begun = true;
            more_not_started = teller.begin(request, &mut chunk);
        }
        let goes_on = teller.tell(request, &mut chunk, &mut slice);
        debug_assert!(slice.fibers <= SLICE_FIBERS && slice.frames <= SLICE_FRAMES);
        if goes_on && chunk.has_room() {
            self.chunk = Some(chunk);
        } else {
            request.deliver(chunk);
        }
        request.note(&slice, teller.thread_ns(), more_not_started);
        if !goes_on {
            request.answered();
        }
        Some(goes_on)
    }

    fn stop(&mut self, teller: &impl Teller) {
        if std::mem::take(&mut self.has_begun) {
            teller.stop();
        }
    }
}

impl Request {
    /// Asks `worker`, on behalf of the running party.
    pub(crate) fn submit(wanted: Wanted, chunk: Box<Chunk>, worker: &Worker) -> Arc<Request> {
        let request = Arc::new(Request {
            wanted,
            asker: Asker::new(),
            state: AtomicU32::new(State::Open as u32),
            empty: Handoff::new(Some(chunk)),
            full: Handoff::new(None),
            more_not_started: AtomicUsize::new(0),
            slices: AtomicUsize::new(0),
            most_in_slice: AtomicUsize::new(0),
            longest_ns: AtomicU64::new(0),
        });
        if worker.desk().submit(&request) {
            worker.poke();
        }
        request
    }

    /// Waits for something to [take](Answer::take_from), or the end; says whether that has come.
    #[cfg(all(test, loom))]
    pub(crate) fn wait(&self) -> bool {
        let is_answered = || self.state() == State::Answered;
        Asker::wait_until(Duration::MAX / 4, || is_answered() || !self.full.is_empty());
        is_answered()
    }

    /// Hands over what was told so far.
    fn deliver(&self, chunk: Box<Chunk>) {
        self.full.put(chunk);
        self.asker.wake();
    }

    fn state(&self) -> State {
        match self.state.load(Acquire) {
            0 => State::Open,
            1 => State::Answered,
            _ => State::GivenUp,
        }
    }

    fn is_open(&self) -> bool {
        self.state() == State::Open
    }

    pub(crate) fn wants_everything(&self) -> bool {
        self.wanted == Wanted::Everything
    }

    /// Writes down what `header`'s worker says of it, on its own stack; nothing if that is not asked for. False: the slice is
    /// over, and it is to be asked again.
    ///
    /// # Safety
    ///
    /// On the own stack of `header`'s worker; `header` is a fiber of it that has started. The chunk has room.
    pub(crate) unsafe fn describe(
        &self,
        header: &Header,
        chunk: &mut Chunk,
        slice: &mut Slice,
    ) -> bool {
        let frames = match self.wanted {
            Wanted::Everything => true,
            Wanted::Blocked { frames } => {
                if header.run() != Run::Parked || !header.may_be_blocked() {
                    slice.fibers += 1;
                    return true;
                }
                frames
            }
        };
        let Some(mut told) = Told::of_started(header) else { return true };
        if told.state == FiberState::Parked {
            // SAFETY: it is parked, and cannot go on before this worker leaves its own stack.
            let detail = unsafe { Followed::new(header.detail()) };
            told.holder = detail.lock().and_then(owner::holder_of);
            let arms = detail.arms().iter().take(MOST_ARMS).map(|operation| operation.about());
            told.arms = arms.len();
            chunk.arms.extend(arms);
        }
        if frames {
            let (mut count, mut is_truncated, mut is_over) = (0, false, false);
            // SAFETY: it is suspended, as all fibers of a worker that is on its own stack, which is this.
            unsafe {
                (*header.context()).walk(&mut |address| {
                    is_truncated = count == MOST_FRAMES;
                    is_over = slice.is_over(count);
                    let goes_on = !is_truncated && !is_over;
                    if goes_on {
                        chunk.frames.push(address);
                        count += 1;
                    }
                    goes_on
                });
            }
            slice.frames += count;
            if is_over {
                chunk.frames.truncate(chunk.frames.len() - count);
                chunk.arms.truncate(chunk.arms.len() - told.arms);
                return false;
            }
            (told.frames, told.is_truncated) = (count, is_truncated);
        }
        chunk.add(told, header);
        slice.fibers += 1;
        true
    }

    /// Notes how a slice went.
    fn note(&self, slice: &Slice, ended_at_ns: u64, more_not_started: usize) {
        self.most_in_slice.fetch_max(slice.fibers, Relaxed);
        self.longest_ns.fetch_max(ended_at_ns.saturating_sub(slice.begun_at_ns), Relaxed);
        self.more_not_started.fetch_add(more_not_started, Relaxed);
        self.slices.fetch_add(1, Relaxed);
    }

    fn answered(&self) {
        let (open, answered) = (State::Open as u32, State::Answered as u32);
        let state = &self.state;
        if state.compare_exchange(open, answered, AcqRel, Relaxed).is_ok() {
            self.asker.wake();
        }
    }

    /// The answer as it stands; if there is none, what can be seen from outside.
    fn finish(
        self: &Arc<Request>,
        worker: &Worker,
        mut fibers: Vec<FiberReport>,
        runtime: u64,
        me: u64,
    ) -> WorkerReport {
        let (open, given_up) = (State::Open as u32, State::GivenUp as u32);
        let state = &self.state;
        let is_open = state.compare_exchange(open, given_up, AcqRel, Acquire);
        let has_answered = is_open.is_err();
        if !has_answered {
            fibers.clear();
            self.more_not_started.store(worker.fresh_count(), Relaxed);
            worker.desk().withdraw(self);
            worker.poke(); // If it has taken it up, it finds that nobody waits any more.
            worker.look_from_outside(|header| {
                fibers.extend(FiberReport::of_started(header, runtime, worker));
                true
            });
        } else if let Some(chunk) = self.full.take() {
            fibers.extend(chunk.reports(runtime, worker.index()));
        }
        // Who asks waits for the answer, but that is not what it is about.
        if let Some(asker) = fibers.iter_mut().find(|fiber| fiber.id == me) {
            asker.state = FiberState::Running;
            asker.wait = None;
        }
        WorkerReport {
            index: worker.index(),
            has_answered,
            thread_token: worker.thread_token(),
            fibers,
            more_not_started: self.more_not_started.load(Relaxed),
            slices: self.slices.load(Relaxed),
            most_in_slice: self.most_in_slice.load(Relaxed),
            longest_slice: Duration::from_nanos(self.longest_ns.load(Relaxed)),
        }
    }
}
