//! The runtime: workers with their drivers, a blocking pool, and what they share.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{self, Location};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use strands_fiber::overflow;
use strands_fiber::stack::{GuardKind, guard_kind};

use crate::atomic::{AtomicBool, AtomicUsize, Mutex, Relaxed, SeqCst, fence, lock};
use crate::blocking::{Hook, Pool, PoolConfig};
use crate::cancel;
use crate::current;
use crate::driver::{Driver, DriverFactory, TimeDriver};
use crate::fresh;
use crate::idle::Idle;
use crate::monitor::Monitor;
use crate::park::{self, Op, Outcome};
use crate::scope::ScopeData;
use crate::task::{Extras, Header, Join, Run, Task, TaskRef};
use crate::wait_queue::WaitQueue;
use crate::worker::{self, Worker};

/// Settings of a runtime. Each is documented at the method of [`Builder`] that sets it.
pub(crate) struct Config {
    pub(crate) workers: usize,
    pub(crate) stack_bytes: usize,
    pub(crate) max_stacks: usize,
    pub(crate) guard: Option<GuardKind>,
    pub(crate) thread_name: String,
    pub(crate) on_start: Option<Hook>,
    pub(crate) on_stop: Option<Hook>,
    blocking_threads: usize,
    blocking_keep_alive: Duration,
}

/// What the workers of a runtime share.
pub struct Shared {
    pub(crate) config: Config,
    workers: OnceLock<Box<[&'static Worker]>>,
    pub(crate) injector: fresh::Shared,
    pub(crate) idle: Idle,
    pub(crate) monitor: Monitor,
    pub(crate) pool: Pool,
    /// No fiber is accepted any more; those that live are cancelled.
    stopping: AtomicBool,
    /// All worker threads have ended.
    ended: AtomicBool,
    /// Workers that may still run fibers; the last to end drops what nobody can start.
    unfinished_workers: AtomicUsize,
    /// Worker threads that have not ended, for those who wait for them.
    running: WaitQueue<usize>,
    stacks_in_use: AtomicUsize,
    /// Accepted fibers for which there was no stack; they take the next that is released.
    starved: Mutex<VecDeque<TaskRef>>,
    starved_count: AtomicUsize,
    starvation_reported: AtomicBool,
    /// What the drivers say of themselves.
    driver: OnceLock<String>,
    id: u64,
}

/// Where a fiber should start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// On any worker: the spawner's first of all, an idle one if that is busy, the one with the
    /// fewest fibers if the spawner's has many more.
    #[default]
    Anywhere,
    /// On the spawner's worker, whatever the load.
    Here,
    /// On the worker with this index, whatever the load.
    Worker(usize),
}

/// What a spawn may ask for.
#[derive(Debug, Default)]
pub struct SpawnOptions {
    /// For reports and `Thread::name`.
    pub name: Option<String>,
    /// In bytes; the runtime's default if none.
    pub stack_bytes: Option<usize>,
    /// Where it starts.
    pub placement: Placement,
}

impl Shared {
    pub(crate) fn workers(&self) -> &[&'static Worker] {
        self.workers.get().expect("a worker runs before the runtime is built")
    }

    pub(crate) fn worker_name(&self, index: usize) -> String {
        format!("{}-worker-{index}", self.config.thread_name)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Fresh fibers lie at a worker while others sleep: have them looked at, sooner if many.
    pub(crate) fn fresh_beside_sleepers(&self, fresh: usize) {
        const MANY: usize = 16;
        if fresh >= MANY { self.wake_one() } else { self.monitor.arm() }
    }

    /// Has one sleeping worker search, if there is one and none searches already.
    pub(crate) fn wake_one(&self) {
        if let Some(sleeper) = self.idle.choose() {
            self.workers()[sleeper].poke();
        }
    }

    /// Counts one more stack in use, if the limit allows.
    pub(crate) fn admit_stack(&self) -> bool {
        if self.config.max_stacks == usize::MAX {
            return true;
        }
        let admitted = self.stacks_in_use.fetch_add(1, Relaxed) < self.config.max_stacks;
        if !admitted {
            self.release_stack();
        }
        admitted
    }

    pub(crate) fn release_stack(&self) {
        if self.config.max_stacks != usize::MAX {
            self.stacks_in_use.fetch_sub(1, Relaxed);
        }
    }

    /// Keeps an accepted fiber for which there is no stack.
    pub(crate) fn starve(&self, task: TaskRef) {
        let mut starved = lock(&self.starved);
        starved.push_back(task);
        self.starved_count.store(starved.len(), SeqCst);
        let nobody_lives = self.workers().iter().all(|worker| worker.live_count() == 0);
        if nobody_lives && !self.starvation_reported.swap(true, Relaxed) {
            report_starvation(&starved);
        }
    }

    pub(crate) fn has_starved(&self) -> bool {
        self.starved_count.load(Relaxed) > 0
    }

    /// The first starved fiber that may start on `worker`.
    pub(crate) fn take_starved(&self, worker: &Worker) -> Option<TaskRef> {
        let mut starved = lock(&self.starved);
        let here = |task: &TaskRef| !task.is_pinned() || std::ptr::eq(task.worker(), worker);
        let task = starved.iter().position(here).and_then(|place| starved.remove(place));
        self.starved_count.store(starved.len(), SeqCst);
        task
    }

    /// Spawns a fiber on this runtime.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` while stacks are exhausted; `InvalidInput` for a worker that does not exist
    /// or, with [`Placement::Here`], if the caller is not on a worker of this runtime; `Other`
    /// when the runtime is shutting down.
    ///
    /// # Safety
    ///
    /// What `f` borrows outlives the fiber, and `f` and its result are Send; or the fiber is
    /// pinned to this worker and the join stays here.
    pub(crate) unsafe fn spawn<F, T>(
        &self,
        options: SpawnOptions,
        scope: Option<Arc<ScopeData>>,
        spawned_at: &'static Location<'static>,
        f: F,
    ) -> io::Result<Join<T>>
    where
        F: FnOnce() -> T,
    {
        park::charge();
        if self.is_stopping() {
            return Err(stopped());
        }
        if self.has_starved() {
            return Err(no_stacks());
        }
        let here = current::worker().filter(|worker| {
            // SAFETY: `worker` is that of this thread.
            std::ptr::eq(&raw const **unsafe { worker.shared() }, self)
        });
        let home = match options.placement {
            Placement::Anywhere => None,
            Placement::Here => Some(here.ok_or_else(not_here)?),
            Placement::Worker(index) => {
                let workers = self.workers();
                Some(*workers.get(index).ok_or_else(|| no_worker(index, workers.len()))?)
            }
        };
        let extras = (options.name.is_some() || options.stack_bytes.is_some()).then(|| {
            let name = options.name.map(String::into_boxed_str);
            Box::new(Extras { name, stack_bytes: options.stack_bytes })
        });
        if let Some(scope) = &scope {
            scope.child_begins();
        }
        let id = worker::next_id();
        let (task, handle) = Task::allocate(f, id, spawned_at, extras, scope, home.is_some());
        match (home, here) {
            (None, Some(here)) => {
                // SAFETY: this is `here`'s thread.
                unsafe { here.push_fresh(task) };
            }
            (None, None) => {
                match self.workers() {
                    // SAFETY: this is the scheduler's reference, to a fresh fiber.
                    [only] => unsafe { only.send_fresh(task) },
                    _ => {
                        self.injector.push(task);
                        if self.idle.anyone_asleep() {
                            self.wake_one();
                        }
                        self.sweep_if_ended();
                    }
                }
            }
            (Some(home), _) => {
                task.set_home(home);
                if here.is_some_and(|here| std::ptr::eq(here, home)) {
                    // SAFETY: this is `home`'s thread.
                    unsafe { home.push_fresh(task) };
                } else {
                    // SAFETY: this is the scheduler's reference, to a fresh fiber.
                    unsafe { home.send_fresh(task) };
                }
            }
        }
        // SAFETY: `allocate` made it for this `T`; the caller promises the rest.
        Ok(unsafe { Join::new(handle) })
    }

    /// Drops fibers that were accepted but that no worker is left to start.
    fn sweep_if_ended(&self) {
        fence(SeqCst);
        if self.ended.load(SeqCst) {
            self.sweep();
        }
    }

    fn sweep(&self) {
        let mut left: Vec<TaskRef> = std::iter::from_fn(|| self.injector.take()).collect();
        left.extend(lock(&self.starved).drain(..));
        left.into_iter().for_each(discard);
    }
}

/// Ends a fiber that was accepted but that no worker is left to start.
///
/// The caller has taken it out of a queue, so it has the scheduler's reference.
pub(crate) fn discard(task: TaskRef) {
    debug_assert!(!task.is_started());
    task.cancel();
    // SAFETY: fresh, and ours alone; with the cancel set it only drops its closure, which is
    // Send, as local fibers never leave their worker.
    unsafe { task.run_closure() };
}

/// Says that accepted fibers wait for stacks that nobody holds.
fn report_starvation(starved: &VecDeque<TaskRef>) {
    let first = starved.front().map(|task| describe_fiber(task)).unwrap_or_default();
    eprintln!(
        "strands: {} fibers wait for a stack and no fiber holds one; the first is {first}\n\
         help: its stack cannot be mapped: lower its size, raise RLIMIT_AS (ulimit -v), \
         vm.max_map_count or vm.overcommit_memory, or free memory; it is tried again meanwhile",
        starved.len(),
    );
}

fn stopped() -> io::Error {
    io::Error::other("the runtime is shutting down and accepts no more fibers")
}

fn no_stacks() -> io::Error {
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        "no stack can be mapped for another fiber; let some end, use smaller stacks \
         (Builder::stack_size), or raise max_stacks, RLIMIT_AS (ulimit -v) or vm.max_map_count",
    )
}

fn not_here() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "only a fiber can spawn on \"this worker\"; this is a plain thread, or a fiber of another \
         runtime",
    )
}

fn no_worker(index: usize, workers: usize) -> io::Error {
    let text = format!("there is no worker {index}; the runtime has {workers}");
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Builds a [`Runtime`].
pub struct Builder {
    config: Config,
    driver: DriverFactory,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// The defaults: one worker a CPU, 256 KiB stacks, no limit on their number, 64 pool threads.
    pub fn new() -> Builder {
        Builder {
            config: Config {
                workers: thread::available_parallelism().map_or(1, |n| n.get()),
                stack_bytes: strands_fiber::DEFAULT_STACK_BYTES,
                max_stacks: usize::MAX,
                guard: None,
                thread_name: "strands".into(),
                on_start: None,
                on_stop: None,
                blocking_threads: 64,
                blocking_keep_alive: Duration::from_secs(10),
            },
            driver: TimeDriver::factory(),
        }
    }

    /// How many workers.
    pub fn workers(mut self, workers: usize) -> Builder {
        self.config.workers = workers;
        self
    }

    /// The size of stacks for fibers that ask for none, in bytes.
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.config.stack_bytes = bytes;
        self
    }

    /// How many stacks may be in use at once.
    pub fn max_stacks(mut self, stacks: usize) -> Builder {
        self.config.max_stacks = stacks;
        self
    }

    /// The kind of guard below stacks.
    pub fn guard(mut self, guard: GuardKind) -> Builder {
        self.config.guard = Some(guard);
        self
    }

    /// What the names of the runtime's threads begin with.
    pub fn thread_name(mut self, name: impl Into<String>) -> Builder {
        self.config.thread_name = name.into();
        self
    }

    /// Called on each worker and pool thread when it starts.
    pub fn on_start(mut self, hook: impl Fn() + Send + Sync + 'static) -> Builder {
        self.config.on_start = Some(Arc::new(hook));
        self
    }

    /// Called on each worker and pool thread when it ends.
    pub fn on_stop(mut self, hook: impl Fn() + Send + Sync + 'static) -> Builder {
        self.config.on_stop = Some(Arc::new(hook));
        self
    }

    /// How many threads run blocking work, at most.
    pub fn blocking_threads(mut self, threads: usize) -> Builder {
        self.config.blocking_threads = threads;
        self
    }

    /// How long a pool thread stays without work.
    pub fn blocking_keep_alive(mut self, time: Duration) -> Builder {
        self.config.blocking_keep_alive = time;
        self
    }

    /// What the workers wait in.
    pub fn driver(mut self, driver: DriverFactory) -> Builder {
        self.driver = driver;
        self
    }

    /// Starts the runtime.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for settings that make no sense; else what the system returned when a
    /// thread, a driver or the overflow handler was made. Nothing is left running then.
    pub fn build(self) -> io::Result<Runtime> {
        let invalid = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        let config = self.config;
        if config.workers == 0 {
            return invalid("a runtime needs at least one worker");
        }
        if config.max_stacks == 0 {
            return invalid("a runtime needs at least one stack");
        }
        if config.blocking_threads == 0 {
            return invalid("a runtime needs at least one thread for blocking work");
        }
        if config.thread_name.contains('\0') {
            return invalid("a thread's name cannot contain a zero byte");
        }
        overflow::install()?;
        // SAFETY: `describe_overflow` reads one thread-local and fields that do not change, and
        // writes on its own frame.
        unsafe { overflow::set_describe(describe_overflow) };
        let pool = Pool::new(PoolConfig {
            max_threads: config.blocking_threads,
            keep_alive: config.blocking_keep_alive,
            thread_name: format!("{}-blocking", config.thread_name),
            on_start: config.on_start.clone(),
            on_stop: config.on_stop.clone(),
        });
        static NEXT_RUNTIME: AtomicU64 = AtomicU64::new(1);
        let count = config.workers;
        let shared = Arc::new(Shared {
            config,
            workers: OnceLock::new(),
            injector: fresh::Shared::new(),
            idle: Idle::new(),
            monitor: Monitor::new(),
            pool,
            stopping: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            unfinished_workers: AtomicUsize::new(count),
            running: WaitQueue::new(count),
            stacks_in_use: AtomicUsize::new(0),
            starved: Mutex::default(),
            starved_count: AtomicUsize::new(0),
            starvation_reported: AtomicBool::new(false),
            driver: OnceLock::new(),
            id: NEXT_RUNTIME.fetch_add(1, Relaxed),
        });
        // A worker is made on its thread, reports, and waits for the word to go. If any cannot be
        // made, the word never comes and the others end.
        let mut threads = Vec::with_capacity(count + 1);
        let mut workers = Vec::with_capacity(count);
        let mut words = Vec::with_capacity(count);
        for index in 0..count {
            let (report, made) = mpsc::channel();
            let (word, go) = mpsc::channel::<()>();
            let (its, driver) = (shared.clone(), self.driver.clone());
            let main = move || worker_main(index, &its, &driver, &report, &go);
            threads.push(thread::Builder::new().name(shared.worker_name(index)).spawn(main)?);
            words.push(word);
            let died = || Err(io::Error::other("a worker's thread died while it started"));
            workers.push(made.recv().unwrap_or_else(|_| died())?);
        }
        shared.workers.set(workers.into()).unwrap_or_else(|_| unreachable!());
        if count > 1 {
            threads.push(Monitor::start(&shared)?);
        }
        words.iter().for_each(|word| word.send(()).expect("a worker does not end by itself"));
        Ok(Runtime { shared, threads: Mutex::new(threads) })
    }
}

fn worker_main(
    index: usize,
    shared: &Arc<Shared>,
    driver: &DriverFactory,
    report: &mpsc::Sender<io::Result<&'static Worker>>,
    go: &mpsc::Receiver<()>,
) {
    let made = overflow::ensure_alt_stack().and_then(|alt_stack| {
        let driver = driver(index)?;
        shared.driver.get_or_init(|| driver.describe());
        let worker = Worker::new(index, shared.clone(), driver)?;
        Ok((alt_stack, worker))
    });
    let (_alt_stack, worker) = match made {
        Ok((alt_stack, worker)) => {
            let _ = report.send(Ok(worker));
            (alt_stack, worker)
        }
        Err(error) => {
            let _ = report.send(Err(error));
            return;
        }
    };
    if go.recv().is_err() {
        // SAFETY: this is the worker's thread, and it has never run a fiber.
        return unsafe { worker.dismantle() };
    }
    worker::run_hook(&shared.config.on_start);
    // SAFETY: this is the worker's thread.
    unsafe { worker.run() };
    worker::run_hook(&shared.config.on_stop);
    if shared.unfinished_workers.fetch_sub(1, SeqCst) == 1 {
        shared.ended.store(true, SeqCst);
        fence(SeqCst);
        shared.sweep();
    }
    let mut running = shared.running.lock();
    *running -= 1;
    running.wake_all(|()| true);
}

/// Names the running fiber, for the overflow message.
///
/// # Safety
///
/// Called by a signal handler on the thread that overflowed.
unsafe fn describe_overflow(sink: &mut dyn FnMut(&[u8])) {
    let current = current::get();
    // SAFETY: the running party's header is alive.
    let Some(header) = (unsafe { current.as_ref() }).filter(|header| !header.is_thread()) else {
        return sink(b"a coroutine");
    };
    let mut digits = [0; 20];
    match header.name() {
        Some(name) => {
            sink(b"fiber '");
            sink(name.as_bytes());
            sink(b"' (id ");
        }
        None => sink(b"fiber <unnamed> (id "),
    }
    sink(decimal(header.id(), &mut digits));
    sink(b")");
}

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[first..];
        }
    }
}

fn describe_fiber(header: &Header) -> String {
    let name = header.name().unwrap_or("<unnamed>");
    format!("'{name}' (id {}, spawned at {})", header.id(), header.spawned_at())
}

/// Workers, their drivers and a blocking pool.
///
/// Dropping it cancels its fibers and waits until all have ended. Dropped by one of its own
/// fibers it cannot wait: then it only cancels.
pub struct Runtime {
    shared: Arc<Shared>,
    /// Empty once they have been joined or left to themselves.
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("id", &self.shared.id)
            .field("workers", &self.shared.workers().len())
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// What spawning needs.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How many workers it has.
    pub fn workers(&self) -> usize {
        self.shared.workers().len()
    }

    /// A few lines on what it is made of, for people.
    pub fn describe(&self) -> String {
        let shared = &self.shared;
        let stacks = match shared.config.max_stacks {
            usize::MAX => String::new(),
            limit => format!(", at most {limit} in use"),
        };
        let guard = match shared.config.guard.map_or_else(guard_kind, Ok) {
            Ok(guard) => format!("{guard:?}"),
            Err(error) => error.to_string(),
        };
        format!(
            "runtime {}: {} workers; driver: {}; stacks of {} KiB, guard: {guard}{stacks}; \
             blocking pool: {} of {} threads, {} idle, {} jobs queued",
            shared.id,
            self.workers(),
            shared.driver.get().map_or("none", |text| text),
            shared.config.stack_bytes / 1024,
            shared.pool.threads(),
            shared.config.blocking_threads,
            shared.pool.idle(),
            shared.pool.queued(),
        )
    }

    /// For each worker, how many of its fibers have started and not ended.
    pub fn live_fibers(&self) -> Vec<usize> {
        self.shared.workers().iter().map(|worker| worker.live_count()).collect()
    }

    /// Runs `f` as a fiber here and waits for it, blocking the calling thread or suspending the
    /// calling fiber. `f` may borrow.
    ///
    /// # Errors
    ///
    /// Those of spawning.
    ///
    /// # Panics
    ///
    /// Goes on with the panic of `f`.
    #[track_caller]
    pub fn run<F, T>(&self, options: SpawnOptions, f: F) -> io::Result<T>
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        let at = Location::caller();
        // SAFETY: the join below cannot be left before the fiber has ended, so what it borrows
        // outlives it.
        let join = unsafe { self.shared.spawn(options, None, at, f) }?;
        match cancel::uncancellable(|| join.join()) {
            Ok(value) => Ok(value),
            Err(payload) => panic::resume_unwind(payload),
        }
    }

    /// Cancels all fibers, drops those that never started, and waits for up to `timeout` (`None`:
    /// as long as it takes) until all have ended, and the pool's work too.
    ///
    /// # Errors
    ///
    /// Who has not ended, and where it waits. Those fibers, their workers' threads and the
    /// pool's go on.
    ///
    /// # Panics
    ///
    /// If called by a fiber of this runtime, which would wait for itself.
    pub fn shutdown(self, timeout: Option<Duration>) -> Result<(), Unfinished> {
        assert!(
            !self.is_inside(),
            "a runtime cannot be shut down by one of its own fibers, which would wait for itself; \
             return from the fiber and shut it down outside"
        );
        self.stop(timeout)
    }

    fn is_inside(&self) -> bool {
        // SAFETY: `worker` is that of this thread.
        current::worker()
            .is_some_and(|worker| Arc::ptr_eq(unsafe { worker.shared() }, &self.shared))
    }

    /// Refuses new fibers and cancels those that live.
    fn cancel_all(&self) {
        self.shared.stopping.store(true, SeqCst);
        for worker in self.shared.workers() {
            let mut live = Vec::new();
            worker.for_each_live(|fiber| live.push(TaskRef::to(fiber)));
            live.iter().for_each(|fiber| fiber.cancel());
            worker.poke();
        }
    }

    fn stop(&self, timeout: Option<Duration>) -> Result<(), Unfinished> {
        static SHUTDOWN: Op = Op("Runtime::shutdown");
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.cancel_all();
        let all_ended = cancel::uncancellable(|| {
            loop {
                let attempt = |running: &mut usize| (*running == 0).then_some(());
                match self.shared.running.wait(&SHUTDOWN, deadline, (), attempt) {
                    Ok(()) => return true,
                    Err(Outcome::TimedOut) => return false,
                    Err(_) => {}
                }
            }
        });
        self.shared.monitor.stop();
        let busy_pool_threads = self.shared.pool.shutdown(deadline);
        let threads = std::mem::take(&mut *lock(&self.threads));
        if all_ended {
            // Its last act was to count itself out, so this takes no time to speak of.
            threads.into_iter().for_each(|thread| drop(thread.join()));
        }
        let mut fibers = Vec::new();
        for worker in self.shared.workers() {
            worker.for_each_live(|fiber| fibers.push(UnfinishedFiber::of(fiber, worker.index())));
        }
        if fibers.is_empty() && all_ended && busy_pool_threads == 0 {
            return Ok(());
        }
        Err(Unfinished { fibers, busy_pool_threads })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if lock(&self.threads).is_empty() {
            return; // Shut down already.
        }
        if self.is_inside() {
            self.cancel_all();
            self.shared.monitor.stop();
            return;
        }
        let _ = self.stop(None);
    }
}

/// What had not ended when a shutdown's time was up.
#[derive(Debug, Clone)]
pub struct Unfinished {
    fibers: Vec<UnfinishedFiber>,
    busy_pool_threads: usize,
}

/// A fiber that had not ended when a shutdown's time was up.
#[derive(Debug, Clone)]
pub struct UnfinishedFiber {
    id: u64,
    name: Option<String>,
    worker: usize,
    spawned_at: &'static Location<'static>,
    /// None: it was running.
    waits_for: Option<&'static str>,
}

impl Unfinished {
    /// The fibers that have started and not ended.
    pub fn fibers(&self) -> &[UnfinishedFiber] {
        &self.fibers
    }

    /// Pool threads that were still busy with blocking work.
    pub fn busy_pool_threads(&self) -> usize {
        self.busy_pool_threads
    }
}

impl UnfinishedFiber {
    fn of(header: &Header, worker: usize) -> UnfinishedFiber {
        let parked = header.run() == Run::Parked;
        UnfinishedFiber {
            id: header.id(),
            name: header.name().map(String::from),
            worker,
            spawned_at: header.spawned_at(),
            waits_for: header.wait().filter(|_| parked).map(|(op, _)| op.0),
        }
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The index of its worker.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Where it was spawned.
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at
    }

    /// The operation it waits in; None if it is running or ready to run.
    pub fn waits_for(&self) -> Option<&'static str> {
        self.waits_for
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fibers have not ended", self.fibers.len())?;
        for fiber in &self.fibers {
            let name = fiber.name.as_deref().unwrap_or("<unnamed>");
            write!(f, "\n  '{name}' (id {}) on worker {}", fiber.id, fiber.worker)?;
            match fiber.waits_for {
                Some(op) => write!(f, " waits in {op}")?,
                None => write!(f, " runs")?,
            }
            write!(f, ", spawned at {}", fiber.spawned_at)?;
        }
        if self.busy_pool_threads > 0 {
            write!(f, "\n{} pool threads are busy with blocking work", self.busy_pool_threads)?;
        }
        Ok(())
    }
}

impl std::error::Error for Unfinished {}

/// Runs `f` with what the caller's worker shares with the others, if the caller is on a worker.
pub(crate) fn with_current<R>(f: impl FnOnce(&Arc<Shared>) -> R) -> Option<R> {
    // SAFETY: `worker` is that of this thread.
    current::worker().map(|worker| f(unsafe { worker.shared() }))
}

/// Runs `f` with the driver of this thread's worker, if it is a worker's.
pub fn with_driver<R>(f: impl FnOnce(&dyn Driver) -> R) -> Option<R> {
    // SAFETY: `worker` is that of this thread.
    current::worker().map(|worker| f(unsafe { worker.driver() }))
}

/// The index of the worker whose thread this is.
pub fn worker_index() -> Option<usize> {
    current::worker().map(Worker::index)
}
