//! The runtime: workers with their drivers, a blocking pool, and what they share.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::panic::{self, Location};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use strands_fiber::CAN_UNWIND;
use strands_fiber::overflow;
use strands_fiber::stack::{self, GuardKind};

use crate::about::{Detail, while_waiting_for};
use crate::atomic::{AtomicBool, AtomicUsize, Mutex, Relaxed, SeqCst, fence, lock};
use crate::blocking::{Hook, Pool, PoolConfig, run_hook};
use crate::cancel;
use crate::current;
use crate::driver::{Driver, DriverFactory, TimeDriver};
use crate::fork;
use crate::fresh;
use crate::idle::Idle;
use crate::monitor::Monitor;
use crate::no_unwind::AbortOnUnwind;
use crate::park::{self, Op, Outcome};
use crate::report;
use crate::task::{Extras, Header, Join, Place, Run, Task, TaskRef};
use crate::unblock::unblock;
use crate::wait_queue::WaitQueue;
use crate::watch;
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
    pub(crate) stall_limit: Option<Duration>,
    pub(crate) reports_deadlocks: bool,
    pub(crate) thread_token: Option<fn() -> usize>,
    pub(crate) thread_clock: Option<fn() -> u64>,
    blocking_threads: usize,
    blocking_keep_alive: Duration,
}

/// More are a mistake, and room for them could not be had.
const MOST_WORKERS: usize = 1 << 16;

/// What the workers of a runtime share.
///
/// ```
/// use std::sync::Arc;
/// use strands_sched::{Builder, Shared, SpawnOptions, spawn_on};
///
/// let runtime = Builder::new().workers(1).build()?;
/// let shared: Arc<Shared> = runtime.shared().clone();
/// let sum = spawn_on(&shared, SpawnOptions::default(), || 1 + 1)?;
/// assert_eq!(sum.join().unwrap(), 2);
/// # std::io::Result::Ok(())
/// ```
pub struct Shared {
    pub(crate) config: Config,
    workers: OnceLock<Box<[&'static Worker]>>,
    pub(crate) injector: fresh::Shared,
    pub(crate) idle: Idle,
    pub(crate) monitor: Monitor,
    /// Workers may spin before they sleep: each can have a processor to itself.
    pub(crate) may_spin: bool,
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
    starved: Mutex<Starved>,
    starved_count: AtomicUsize,
    starvation_reported: AtomicBool,
    /// What the drivers say of themselves.
    driver: OnceLock<String>,
    id: u64,
}

#[derive(Default)]
struct Starved {
    fibers: VecDeque<TaskRef>,
    /// Why the last of them got no stack.
    why: String,
}

impl Starved {
    /// "3 fibers wait".
    fn waiting(&self) -> String {
        let count = self.fibers.len();
        format!("{} wait{}", counted(count, "fiber"), if count == 1 { "s" } else { "" })
    }
}

/// Where a fiber should start.
///
/// ```
/// use strands_sched::{Builder, Placement, SpawnOptions, worker_index};
///
/// let runtime = Builder::new().workers(2).build()?;
/// let options = SpawnOptions { placement: Placement::Worker(1), ..SpawnOptions::default() };
/// assert_eq!(runtime.run(options, worker_index)?, Some(1));
/// # std::io::Result::Ok(())
/// ```
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
///
/// ```
/// use strands_sched::{Builder, Placement, SpawnOptions, with_current_task};
///
/// let runtime = Builder::new().workers(1).build()?;
/// let options = SpawnOptions {
///     name: Some("parser".into()),
///     stack_bytes: Some(1024 * 1024),
///     stack_help: None,
///     placement: Placement::Anywhere,
/// };
/// let name = runtime.run(options, || with_current_task(|me| me.name().map(String::from)))?;
/// assert_eq!(name.as_deref(), Some("parser"));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Default)]
pub struct SpawnOptions {
    /// For reports and `Thread::name`.
    pub name: Option<String>,
    /// In bytes; the runtime's default if none.
    pub stack_bytes: Option<usize>,
    /// What the user can do if the stack of `stack_bytes` is too small, for the message when it
    /// overflows; if none, what people do who spawn a fiber.
    pub stack_help: Option<&'static str>,
    /// Where it starts.
    pub placement: Placement,
}

impl Shared {
    pub(crate) fn workers(&self) -> &[&'static Worker] {
        self.workers.get().expect("a worker runs before the runtime is built")
    }

    /// Its number, which no other runtime has or had.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Whether fibers wait to be started, but for those that lie with a worker.
    pub(crate) fn has_fresh(&self) -> bool {
        !self.injector.is_empty() || self.has_starved()
    }

    /// Calls `f` with the fibers that may start on any worker, those of each queue if they are few; says how many it left
    /// out.
    pub(crate) fn look_into_shared_queues(&self, mut f: impl FnMut(&TaskRef)) -> usize {
        let starved = lock(&self.starved);
        starved.fibers.iter().take(report::LOOK_INTO).for_each(&mut f);
        let left_out = starved.fibers.len().saturating_sub(report::LOOK_INTO);
        drop(starved);
        let waiting = self.injector.len();
        if waiting > report::LOOK_INTO {
            return left_out + waiting;
        }
        // Each goes to the end, so that when all have the order is as before.
        for _ in 0..waiting {
            let Some(task) = self.injector.take() else { break };
            f(&task);
            self.injector.push(task);
        }
        if waiting > 0 {
            // A worker that did not see one on its way may have gone to sleep, or have ended.
            if self.idle.anyone_asleep() {
                self.wake_one();
            }
            self.sweep_if_ended();
        }
        left_out
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

    /// Keeps an accepted fiber for which there is no stack, and why. While the runtime stops there
    /// need never be one again: then it is dropped like others that have not started.
    pub(crate) fn starve(&self, task: TaskRef, why: &io::Error) {
        if self.is_stopping() {
            return discard(task);
        }
        let mut starved = lock(&self.starved);
        starved.fibers.push_back(task);
        starved.why = why.to_string();
        self.starved_count.store(starved.fibers.len(), SeqCst);
        let nobody_lives = self.workers().iter().all(|worker| worker.live_count() == 0);
        if nobody_lives && !self.starvation_reported.swap(true, Relaxed) {
            report_starvation(&starved);
        }
        drop(starved);
        // Another worker may have a stack to spare.
        self.wake_one();
    }

    pub(crate) fn has_starved(&self) -> bool {
        self.starved_count.load(Relaxed) > 0
    }

    /// The first starved fiber that may start on `worker`.
    pub(crate) fn take_starved(&self, worker: &Worker) -> Option<TaskRef> {
        let mut starved = lock(&self.starved);
        let here = |task: &TaskRef| !task.is_pinned() || std::ptr::eq(task.worker(), worker);
        let place = starved.fibers.iter().position(here);
        let task = place.and_then(|place| starved.fibers.remove(place));
        let nobody_left = starved.fibers.is_empty();
        self.starved_count.store(starved.fibers.len(), SeqCst);
        drop(starved);
        if nobody_left && self.is_stopping() {
            // Others may have stayed, and gone to sleep, for the one that we take.
            self.workers().iter().for_each(|worker| worker.poke());
        }
        task
    }

    /// Spawns a fiber on this runtime.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` while stacks are exhausted, and for one so large that it cannot be mapped;
    /// `InvalidInput` for one that does not fit the address space, for a worker that does not exist
    /// or, with [`Placement::Here`], if the caller is not on a worker of this runtime; `Other`
    /// when the runtime is shutting down.
    ///
    /// # Safety
    ///
    /// What `f` borrows outlives the fiber, and `f` and its result are Send; or the fiber is
    /// pinned to this worker and the join stays here.
    pub(crate) unsafe fn spawn<F, T, P: Place>(
        &self,
        options: SpawnOptions,
        place: P,
        spawned_at: &'static Location<'static>,
        f: F,
    ) -> io::Result<Join<T>>
    where
        F: FnOnce() -> thread::Result<T>,
    {
        if fork::in_forked_child() {
            return Err(fork::forked_error());
        }
        park::charge();
        if self.is_stopping() {
            return Err(stopped());
        }
        if self.has_starved() {
            return Err(no_stacks(&lock(&self.starved).why));
        }
        if let Some(bytes) = options.stack_bytes {
            stack::check_size(bytes)?;
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
            let SpawnOptions { stack_bytes, stack_help, .. } = options;
            Box::new(Extras { name, stack_bytes, stack_help })
        });
        let id = worker::next_id();
        let (task, handle) = Task::allocate(f, id, spawned_at, extras, place, home.is_some());
        // It may run as soon as it is found; the caller awaits what it spawned, if told so.
        let on_its_way = AbortOnUnwind("a panic would deny a fiber that is on its way");
        if let Some(home) = home {
            task.set_home(home);
        }
        let only = || match self.workers() {
            [only] => Some(*only),
            _ => None,
        };
        match home.or(here).or_else(only) {
            Some(worker) if here.is_some_and(|here| std::ptr::eq(here, worker)) => {
                // SAFETY: this is the worker's thread.
                unsafe { worker.push_fresh(task) };
            }
            // SAFETY: this is the scheduler's reference, to a fresh fiber.
            Some(worker) => unsafe { worker.send_fresh(task) },
            None => {
                self.injector.push(task);
                if self.idle.anyone_asleep() {
                    self.wake_one();
                }
                self.sweep_if_ended();
            }
        }
        on_its_way.disarm();
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
        left.extend(lock(&self.starved).fibers.drain(..));
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
fn report_starvation(starved: &Starved) {
    let first = starved.fibers.front().map(|task| describe_fiber(task)).unwrap_or_default();
    // Not `eprintln!`, which panics if nobody reads it.
    let _ = writeln!(
        io::stderr(),
        "strands: {} for a stack and no fiber holds one; the first is {first}\n\
         {}\n\
         help: it is tried again meanwhile; free memory, or raise the limit",
        starved.waiting(),
        starved.why,
    );
}

/// For a handler of a signal: the id of the fiber that it has interrupted, if that runs its own code. Then the thread is not
/// between two stacks, and an unwinder may walk the one it was on.
///
/// It takes no lock and allocates nothing.
///
/// ```
/// assert_eq!(strands_sched::interrupted_fiber(), None, "a plain thread");
/// ```
pub fn interrupted_fiber() -> Option<u64> {
    // SAFETY: whoever is current has not ended, and this is its thread.
    let header = unsafe { current::get().as_ref() }?;
    // It is marked as running once it has arrived on its stack, and as something else before it leaves.
    (!header.is_thread() && header.run() == Run::Running).then(|| header.id())
}

/// Such as `1 worker`, `2 workers`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn stopped() -> io::Error {
    io::Error::other("the runtime is shutting down and accepts no more fibers")
}

/// Why a fiber starves though memory may be left.
pub(crate) fn too_many_stacks(limit: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!("all stacks that the runtime may use (max_stacks: {limit}) are in use"),
    )
}

fn no_stacks(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!("fibers that were accepted before wait for a stack already: {why}"),
    )
}

/// Starts a thread, and waits until it runs: std aborts the process if memory is out when a thread
/// begins, which must not come later than this.
pub(crate) fn start_thread(
    name: &str,
    main: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    let (begins, begun) = mpsc::channel::<()>();
    let main = move || {
        drop(begins);
        main();
    };
    let started = thread::Builder::new().name(name.into()).spawn(main);
    let _ = begun.recv();
    started.map_err(|error| no_thread(name, &error))
}

/// What the system said when a thread could not be started, with the limit that was probably met.
pub(crate) fn no_thread(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!(
            "cannot start the thread {name}: {error}. Likely cause: the user or the container may \
             have no more threads (`ulimit -u`, the cgroup's pids.max, kernel.threads-max), or \
             there is no room for its stack (`ulimit -v`, vm.max_map_count): raise the limit, or \
             use fewer workers"
        ),
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
///
/// ```
/// use strands_sched::{Builder, SpawnOptions};
///
/// let runtime = Builder::new().workers(2).stack_size(64 * 1024).thread_name("render").build()?;
/// assert_eq!(runtime.run(SpawnOptions::default(), || 1 + 1)?, 2);
/// # std::io::Result::Ok(())
/// ```
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
    ///
    /// ```
    /// let runtime = strands_sched::Builder::new().build()?;
    /// assert!(runtime.workers() >= 1);
    /// # std::io::Result::Ok(())
    /// ```
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
                stall_limit: None,
                reports_deadlocks: true,
                thread_token: None,
                thread_clock: None,
                blocking_threads: 64,
                blocking_keep_alive: Duration::from_secs(10),
            },
            driver: TimeDriver::factory(),
        }
    }

    /// How many workers.
    ///
    /// ```
    /// let runtime = strands_sched::Builder::new().workers(3).build()?;
    /// assert_eq!(runtime.workers(), 3);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn workers(mut self, workers: usize) -> Builder {
        self.config.workers = workers;
        self
    }

    /// The size of stacks for fibers that ask for none, in bytes.
    ///
    /// ```
    /// use strands_sched::{Builder, SpawnOptions};
    ///
    /// fn depth(left: u32) -> u32 {
    ///     let frame = std::hint::black_box([left; 256]); // A kilobyte.
    ///     if left == 0 { 0 } else { depth(left - 1) + frame[0] - left + 1 }
    /// }
    /// let runtime = Builder::new().workers(1).stack_size(4 * 1024 * 1024).build()?;
    /// assert_eq!(runtime.run(SpawnOptions::default(), || depth(300))?, 300);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.config.stack_bytes = bytes;
        self
    }

    /// How many stacks may be in use at once.
    ///
    /// ```
    /// use strands_sched::{Builder, SpawnOptions};
    ///
    /// let runtime = Builder::new().workers(1).max_stacks(100).build()?;
    /// assert!(runtime.describe().contains("at most 100 in use"));
    /// assert_eq!(runtime.run(SpawnOptions::default(), || 1 + 1)?, 2);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn max_stacks(mut self, stacks: usize) -> Builder {
        self.config.max_stacks = stacks;
        self
    }

    /// The kind of guard below stacks.
    ///
    /// ```
    /// use strands_sched::{Builder, GuardKind};
    ///
    /// let runtime = Builder::new().workers(1).guard(GuardKind::Mprotect).build()?;
    /// assert!(runtime.describe().contains("guard: Mprotect"));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn guard(mut self, guard: GuardKind) -> Builder {
        self.config.guard = Some(guard);
        self
    }

    /// What the names of the runtime's threads begin with.
    ///
    /// ```
    /// use std::{sync::mpsc, thread};
    /// use strands_sched::Builder;
    ///
    /// let (sender, names) = mpsc::channel();
    /// let tell = move || sender.send(thread::current().name().map(String::from)).unwrap();
    /// let runtime = Builder::new().workers(1).thread_name("render").on_start(tell).build()?;
    /// assert!(names.recv().unwrap().is_some_and(|name| name.starts_with("render")));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn thread_name(mut self, name: impl Into<String>) -> Builder {
        self.config.thread_name = name.into();
        self
    }

    /// Called on each worker and pool thread when it starts.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    /// use strands_sched::Builder;
    ///
    /// let started = Arc::new(AtomicUsize::new(0));
    /// let counter = started.clone();
    /// let count = move || drop(counter.fetch_add(1, Relaxed));
    /// let runtime = Builder::new().workers(2).on_start(count).build()?;
    /// drop(runtime);
    /// assert_eq!(started.load(Relaxed), 2);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn on_start(mut self, hook: impl Fn() + Send + Sync + 'static) -> Builder {
        self.config.on_start = Some(Arc::new(hook));
        self
    }

    /// Called on each worker and pool thread when it ends.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    /// use strands_sched::Builder;
    ///
    /// let stopped = Arc::new(AtomicUsize::new(0));
    /// let counter = stopped.clone();
    /// let count = move || drop(counter.fetch_add(1, Relaxed));
    /// let runtime = Builder::new().workers(2).on_stop(count).build()?;
    /// assert_eq!(stopped.load(Relaxed), 0);
    /// drop(runtime);
    /// assert_eq!(stopped.load(Relaxed), 2);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn on_stop(mut self, hook: impl Fn() + Send + Sync + 'static) -> Builder {
        self.config.on_stop = Some(Arc::new(hook));
        self
    }

    /// Reports a worker that has been in one fiber for longer than `limit`, once each time, as
    /// [`Trouble::Stall`](crate::Trouble); by default nobody looks.
    ///
    /// A thread that all runtimes share looks four times in that time; it sleeps while all workers sleep.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let builder = strands_sched::Builder::new().workers(1);
    /// let runtime = builder.stall_limit(Some(Duration::from_secs(1))).build()?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn stall_limit(mut self, limit: Option<Duration>) -> Builder {
        self.config.stall_limit = limit;
        self
    }

    /// Whether fibers of it that wait for each other are reported, as [`Trouble::Cycle`](crate::Trouble) and
    /// [`Trouble::Standstill`](crate::Trouble); so it is by default.
    ///
    /// ```
    /// let runtime = strands_sched::Builder::new().workers(1).deadlock_reports(false).build()?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn deadlock_reports(mut self, on: bool) -> Builder {
        self.config.reports_deadlocks = on;
        self
    }

    /// Has `token` called on each worker's thread when it starts: what it returns is in reports, for who wants to find
    /// that thread.
    ///
    /// ```standalone_crate
    /// use std::time::Duration;
    /// use strands_sched::collect;
    ///
    /// let runtime = strands_sched::Builder::new().workers(1).thread_token(|| 7).build()?;
    /// assert_eq!(collect(Duration::from_secs(10))[0].workers[0].thread_token, 7);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn thread_token(mut self, token: fn() -> usize) -> Builder {
        self.config.thread_token = Some(token);
        self
    }

    /// Has reports go by `clock`, which says for how many nanoseconds the calling thread has run, where they say how long
    /// fibers were held up for them; else by the time that passed, in which the system may have run others.
    ///
    /// ```standalone_crate
    /// use std::time::Duration;
    /// use strands_sched::collect;
    ///
    /// // A thread that never runs.
    /// let runtime = strands_sched::Builder::new().workers(1).thread_clock(|| 7).build()?;
    /// assert_eq!(collect(Duration::from_secs(10))[0].workers[0].longest_slice, Duration::ZERO);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn thread_clock(mut self, clock: fn() -> u64) -> Builder {
        self.config.thread_clock = Some(clock);
        self
    }

    /// How many threads run blocking work, at most.
    ///
    /// ```
    /// use strands_sched::{Builder, SpawnOptions, unblock};
    ///
    /// let runtime = Builder::new().workers(1).blocking_threads(1).build()?;
    /// let read = || unblock(|| std::env::current_dir());
    /// assert!(runtime.run(SpawnOptions::default(), read)?.is_ok());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn blocking_threads(mut self, threads: usize) -> Builder {
        self.config.blocking_threads = threads;
        self
    }

    /// How long a pool thread stays without work.
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands_sched::{Builder, SpawnOptions, unblock};
    ///
    /// // A thread for each piece of work that meets no idle one, and none for long.
    /// let runtime = Builder::new().workers(1).blocking_keep_alive(Duration::ZERO).build()?;
    /// assert_eq!(runtime.run(SpawnOptions::default(), || unblock(|| 1 + 1))?, 2);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn blocking_keep_alive(mut self, time: Duration) -> Builder {
        self.config.blocking_keep_alive = time;
        self
    }

    /// What the workers wait in.
    ///
    /// ```
    /// use strands_sched::{Builder, TimeDriver};
    ///
    /// let runtime = Builder::new().workers(1).driver(TimeDriver::factory()).build()?;
    /// assert!(runtime.describe().contains("time only"));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn driver(mut self, driver: DriverFactory) -> Builder {
        self.driver = driver;
        self
    }

    /// Starts the runtime.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for settings that make no sense; `Unsupported` for a guard that does not work
    /// here, and in a [forked child](crate::in_forked_child); else what the system returned when a
    /// thread, a driver or the overflow handler was made. Nothing is left running then.
    ///
    /// ```
    /// use strands_sched::Builder;
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// drop(runtime);
    /// assert!(Builder::new().stack_size(usize::MAX).build().is_err());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn build(self) -> io::Result<Runtime> {
        let invalid = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if fork::in_forked_child() {
            return Err(fork::forked_error());
        }
        let mut config = self.config;
        if config.workers == 0 {
            return invalid("a runtime needs at least one worker");
        }
        if config.workers > MOST_WORKERS {
            return invalid("a runtime has at most 65,536 workers: about one a CPU serves best");
        }
        stack::check_size(config.stack_bytes)?;
        config.stack_bytes = config.stack_bytes.max(stack::MIN_STACK_BYTES);
        if config.max_stacks == 0 {
            return invalid("a runtime needs at least one stack");
        }
        if config.blocking_threads == 0 {
            return invalid("a runtime needs at least one thread for blocking work");
        }
        if config.thread_name.contains('\0') {
            return invalid("a thread's name cannot contain a zero byte");
        }
        // Found out once, so that all workers take the same.
        config.guard = Some(config.guard.map_or_else(stack::guard_kind, Ok)?);
        overflow::install().map_err(|error| {
            let text = format!("cannot install the handler that reports stack overflows: {error}");
            io::Error::new(error.kind(), text)
        })?;
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
            may_spin: count > 1 && thread::available_parallelism().is_ok_and(|n| n.get() >= count),
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
        let mut threads = Vec::with_capacity(count + 1);
        let mut words = Vec::with_capacity(count);
        if let Err(error) = start(&shared, &self.driver, &mut threads, &mut words) {
            shared.monitor.stop();
            drop(words); // So that those who wait for the word end.
            threads.into_iter().for_each(|thread| drop(thread.join()));
            return Err(error);
        }
        report::register(&shared);
        if shared.config.stall_limit.is_some() {
            watch::worker_awake();
        }
        words.iter().for_each(|word| word.send(()).expect("a worker does not end by itself"));
        Ok(Runtime { shared, threads: Mutex::new(threads) })
    }
}

/// Starts the threads. A worker is made on its thread, reports, and waits for the word to go.
fn start(
    shared: &Arc<Shared>,
    driver: &DriverFactory,
    threads: &mut Vec<thread::JoinHandle<()>>,
    words: &mut Vec<mpsc::Sender<()>>,
) -> io::Result<()> {
    let mut workers = Vec::with_capacity(shared.config.workers);
    for index in 0..shared.config.workers {
        let (report, made) = mpsc::channel();
        let (word, go) = mpsc::channel::<()>();
        let (its, driver) = (shared.clone(), driver.clone());
        let main = move || worker_main(index, &its, &driver, &report, &go);
        let name = shared.worker_name(index);
        let thread = thread::Builder::new().name(name.clone()).spawn(main);
        threads.push(thread.map_err(|error| no_thread(&name, &error))?);
        words.push(word);
        let died = || Err(io::Error::other("a worker's thread died while it started"));
        workers.push(made.recv().unwrap_or_else(|_| died())?);
    }
    shared.workers.set(workers.into()).unwrap_or_else(|_| unreachable!());
    if shared.config.workers > 1 {
        threads.push(Monitor::start(shared)?);
    }
    watch::start() // Last: it stays.
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
    run_hook(&shared.config.on_start);
    let inhabited =
        AbortOnUnwind("a worker panicked, and its thread must not end before its fibers");
    // SAFETY: this is the worker's thread, and it runs once.
    let nobody_left = unsafe { worker.run() };
    inhabited.disarm();
    if nobody_left {
        run_hook(&shared.config.on_stop);
    }
    if shared.unfinished_workers.fetch_sub(1, SeqCst) == 1 {
        shared.ended.store(true, SeqCst);
        fence(SeqCst);
        shared.sweep();
    }
    let mut running = shared.running.lock();
    *running -= 1;
    running.wake_all(|()| true);
    drop(running);
    if nobody_left {
        return;
    }
    // Fibers that cannot be unwound may have lent out thread-locals.
    loop {
        thread::park();
    }
}

/// Names the running fiber and what sets its stack's size, for the overflow message.
///
/// # Safety
///
/// Called by a signal handler on the thread that overflowed.
unsafe fn describe_overflow(sink: &mut dyn FnMut(&[u8])) -> Option<&'static str> {
    const HELP: &str = "give it more with thread::Builder::stack_size(bytes), or every fiber with \
                        Runtime::builder().stack_size(bytes)";
    let current = current::get();
    // SAFETY: the running party's header is alive.
    let Some(header) = (unsafe { current.as_ref() }).filter(|header| !header.is_thread()) else {
        sink(b"a coroutine");
        return None;
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
    Some(header.stack_help().unwrap_or(HELP))
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
/// Dropping it cancels its fibers and waits until all have ended. Dropped on one of its own
/// threads (by a fiber, in [`unblock`](crate::unblock), by a hook) it cannot wait: then it only cancels, and panics if a fiber did it that does not unwind. Where panics abort, a fiber that waits cannot be
/// cancelled: it stays as it is, with its stack and the thread beneath, and nobody waits for it.
///
/// ```
/// use strands_sched::{Builder, SpawnOptions, sleep_until, spawn_on};
///
/// let runtime = Builder::new().workers(2).build()?;
/// assert_eq!(runtime.run(SpawnOptions::default(), || 1 + 1)?, 2);
/// let sleeper = spawn_on(runtime.shared(), SpawnOptions::default(), || sleep_until(None))?;
/// drop(runtime);
/// assert!(sleeper.is_finished());
/// # std::io::Result::Ok(())
/// ```
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
    ///
    /// ```
    /// use strands_sched::{Builder, SpawnOptions, spawn_on};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let sum = spawn_on(runtime.shared(), SpawnOptions::default(), || 1 + 1)?;
    /// assert_eq!(sum.join().unwrap(), 2);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How many workers it has.
    ///
    /// ```
    /// let runtime = strands_sched::Builder::new().workers(2).build()?;
    /// assert_eq!(runtime.workers(), 2);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn workers(&self) -> usize {
        self.shared.workers().len()
    }

    /// A few lines on what it is made of, for people.
    ///
    /// ```
    /// let runtime = strands_sched::Builder::new().workers(2).build()?;
    /// println!("{}", runtime.describe());
    /// assert!(runtime.describe().contains("2 workers"));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn describe(&self) -> String {
        let shared = &self.shared;
        let stacks = match shared.config.max_stacks {
            usize::MAX => String::new(),
            limit => format!(", at most {limit} in use"),
        };
        let guard = shared.config.guard.map(stack::describe_guard).unwrap_or_default();
        let starved = {
            let starved = lock(&shared.starved);
            match starved.fibers.is_empty() {
                true => String::new(),
                false => format!(", {} for a stack ({})", starved.waiting(), starved.why),
            }
        };
        let refusal = match shared.pool.last_refusal() {
            Some(refusal) => format!(
                "; work waits for another pool thread or, if there is none, holds up its worker: \
                 {refusal}"
            ),
            None => String::new(),
        };
        format!(
            "runtime {}: {}; driver: {}; stacks of {} KiB, guard: {guard}{stacks}{starved}; \
             blocking pool: {} of {} threads, {} idle, {} queued{refusal}",
            shared.id,
            counted(self.workers(), "worker"),
            shared.driver.get().map_or("none", |text| text),
            shared.config.stack_bytes / 1024,
            shared.pool.threads(),
            shared.config.blocking_threads,
            shared.pool.idle(),
            counted(shared.pool.queued(), "job"),
        )
    }

    /// For each worker, how many of its fibers have started and not ended.
    ///
    /// ```
    /// use strands_sched::{Builder, Placement, SpawnOptions};
    ///
    /// let runtime = Builder::new().workers(2).build()?;
    /// let options = SpawnOptions { placement: Placement::Worker(1), ..SpawnOptions::default() };
    /// assert_eq!(runtime.run(options, || runtime.live_fibers())?, [0, 1], "the one that asks");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn live_fibers(&self) -> Vec<usize> {
        park::charge(); // For a loop that asks until all have ended.
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
    ///
    /// ```
    /// use strands_sched::{Builder, SpawnOptions};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let text = String::from("borrowed");
    /// assert_eq!(runtime.run(SpawnOptions::default(), || text.len())?, 8);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn run<F, T>(&self, options: SpawnOptions, f: F) -> io::Result<T>
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        let at = Location::caller();
        // SAFETY: if there is a fiber, the join below awaits its end before this frame is left: it
        // cannot be cancelled, and while `lent` lives no panic leaves the frame.
        let join = unsafe { self.shared.spawn(options, (), at, || Ok(f())) }?;
        let lent = AbortOnUnwind("a panic would leave a frame that a fiber uses");
        let result = cancel::uncancellable(|| join.join());
        lent.disarm();
        match result {
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
    /// If called on a thread of this runtime (by a fiber, in [`unblock`](crate::unblock), by a hook),
    /// which would wait for itself.
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands_sched::{Builder, SpawnOptions, sleep_until, spawn_on};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// spawn_on(runtime.shared(), SpawnOptions::default(), || sleep_until(None))?;
    /// if let Err(unfinished) = runtime.shutdown(Some(Duration::from_secs(10))) {
    ///     panic!("{unfinished}");
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn shutdown(self, timeout: Option<Duration>) -> Result<(), Unfinished> {
        assert!(
            !self.is_inside(),
            "a runtime cannot be shut down on one of its own threads (by a fiber of it, a closure \
             given to `unblock`, a hook), which would wait for itself; return from there and shut \
             it down outside"
        );
        self.stop(timeout)
    }

    /// Whether the calling thread is one of the runtime's, whose end it would await.
    fn is_inside(&self) -> bool {
        if fork::in_forked_child() {
            return false; // They are in the parent, and may hold the locks that are asked for below.
        }
        let me = thread::current().id();
        // By the worker too, as a fiber may have a thread of its own.
        let is_of =
            |worker: &Worker| self.shared.workers().iter().any(|own| std::ptr::eq(*own, worker));
        current::worker().is_some_and(is_of)
            || lock(&self.threads).iter().any(|thread| thread.thread().id() == me)
            || self.shared.pool.has_thread(me)
    }

    /// Whether this is a forked child: nothing of the runtime runs here. Its threads, which are
    /// not there, are forgotten, as not even their handles may be dropped.
    fn forget_if_forked(&self) -> bool {
        let is = fork::in_forked_child();
        if is {
            std::mem::forget(std::mem::take(&mut *lock(&self.threads)));
        }
        is
    }

    /// Refuses new fibers and cancels those that live.
    fn cancel_all(&self) {
        self.shared.stopping.store(true, SeqCst);
        for worker in self.shared.workers() {
            let mut live = Vec::new();
            worker.for_each_live(|fiber| live.push(TaskRef::to(fiber)));
            // Where panics abort, those that wait stay as they are: nobody asked them for errors.
            if CAN_UNWIND {
                live.iter().for_each(|fiber| fiber.cancel());
            }
            worker.poke();
        }
    }

    fn stop(&self, timeout: Option<Duration>) -> Result<(), Unfinished> {
        static SHUTDOWN: Op = Op("Runtime::shutdown");
        if self.forget_if_forked() {
            return Ok(());
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.cancel_all();
        let running_workers = cancel::uncancellable(|| {
            loop {
                let attempt = |running: &mut usize| (*running == 0).then_some(0);
                let wait = || self.shared.running.wait(&SHUTDOWN, deadline, (), attempt);
                match while_waiting_for(Detail::Thread, wait) {
                    Ok(none) => return none,
                    Err(Outcome::TimedOut) => return *self.shared.running.lock(),
                    Err(_) => {}
                }
            }
        });
        self.shared.monitor.stop();
        let mut fibers = Vec::new();
        for worker in self.shared.workers() {
            worker.for_each_live(|fiber| fibers.push(UnfinishedFiber::of(fiber, worker.index())));
        }
        let threads = std::mem::take(&mut *lock(&self.threads));
        // Their last hooks may take long, so a fiber of another runtime leaves its worker to others.
        let await_threads = || {
            let busy_pool_threads = self.shared.pool.shutdown(deadline);
            // Where panics abort, the threads beneath fibers that are left do not end.
            if running_workers == 0 && fibers.is_empty() {
                // Its last act was to count itself out, so this takes no time to speak of.
                threads.into_iter().for_each(|thread| drop(thread.join()));
            }
            busy_pool_threads
        };
        let busy_pool_threads = cancel::uncancellable(|| unblock(await_threads));
        if fibers.is_empty() && running_workers == 0 && busy_pool_threads == 0 {
            return Ok(());
        }
        Err(Unfinished { fibers, running_workers, busy_pool_threads })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if self.forget_if_forked() || lock(&self.threads).is_empty() {
            return; // Or shut down already.
        }
        if self.is_inside() {
            self.cancel_all();
            self.shared.monitor.stop();
            assert!(
                current::with(Header::is_thread) || thread::panicking(),
                "a fiber has dropped the runtime that it is of: the drop would wait for that fiber; all of its \
                 fibers were cancelled instead. Keep the runtime outside"
            );
            return;
        }
        let _ = self.stop(None);
    }
}

/// What had not ended when a shutdown's time was up.
///
/// ```
/// use std::sync::mpsc;
/// use std::time::Duration;
/// use strands_sched::{Builder, SpawnOptions, spawn_on};
///
/// let runtime = Builder::new().workers(1).build()?;
/// let (started, has_started) = mpsc::channel();
/// let (release, released) = mpsc::channel::<()>();
/// spawn_on(runtime.shared(), SpawnOptions::default(), move || {
///     started.send(()).unwrap();
///     released.recv().unwrap(); // std's: blocks the worker, and no cancel can end it.
/// })?;
/// has_started.recv().unwrap();
/// let unfinished = runtime.shutdown(Some(Duration::from_millis(1))).unwrap_err();
/// assert!(unfinished.to_string().starts_with("1 fiber has not ended"));
/// release.send(()).unwrap();
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct Unfinished {
    fibers: Vec<UnfinishedFiber>,
    /// They have fibers, or run a hook, or had no time to notice.
    running_workers: usize,
    busy_pool_threads: usize,
}

/// A fiber that had not ended when a shutdown's time was up.
///
/// ```
/// use std::sync::mpsc;
/// use std::time::Duration;
/// use strands_sched::{Builder, SpawnOptions, spawn_on};
///
/// let runtime = Builder::new().workers(1).build()?;
/// let (started, has_started) = mpsc::channel();
/// let (release, released) = mpsc::channel::<()>();
/// let options = SpawnOptions { name: Some("stuck".into()), ..SpawnOptions::default() };
/// let stuck = spawn_on(runtime.shared(), options, move || {
///     started.send(()).unwrap();
///     released.recv().unwrap(); // std's: blocks the worker, and no cancel can end it.
/// })?;
/// has_started.recv().unwrap();
/// let unfinished = runtime.shutdown(Some(Duration::from_millis(1))).unwrap_err();
/// let fiber = &unfinished.fibers()[0];
/// assert_eq!((fiber.id(), fiber.name()), (stuck.task().id(), Some("stuck")));
/// assert_eq!((fiber.worker(), fiber.spawned_at().file()), (0, file!()));
/// assert_eq!(fiber.waits_for(), None, "not in strands");
/// release.send(()).unwrap();
/// # std::io::Result::Ok(())
/// ```
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
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands_sched::{Builder, UnfinishedFiber};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// if let Err(unfinished) = runtime.shutdown(Some(Duration::from_secs(10))) {
    ///     let names: Vec<_> = unfinished.fibers().iter().map(UnfinishedFiber::name).collect();
    ///     panic!("nothing was spawned, but these have not ended: {names:?}");
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn fibers(&self) -> &[UnfinishedFiber] {
        &self.fibers
    }

    /// Pool threads that were still busy with blocking work.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = strands_sched::Builder::new().workers(1).build()?;
    /// if let Err(unfinished) = runtime.shutdown(Some(Duration::from_secs(10))) {
    ///     panic!("{} threads are in blocking calls", unfinished.busy_pool_threads());
    /// }
    /// # std::io::Result::Ok(())
    /// ```
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
    ///
    /// ```
    /// use strands_sched::{Unfinished, UnfinishedFiber};
    ///
    /// fn ids(unfinished: &Unfinished) -> Vec<u64> {
    ///     unfinished.fibers().iter().map(UnfinishedFiber::id).collect()
    /// }
    /// ```
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name, if it was given one.
    ///
    /// ```
    /// use strands_sched::{Unfinished, UnfinishedFiber};
    ///
    /// fn names(unfinished: &Unfinished) -> Vec<Option<&str>> {
    ///     unfinished.fibers().iter().map(UnfinishedFiber::name).collect()
    /// }
    /// ```
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The index of its worker.
    ///
    /// ```
    /// use strands_sched::Unfinished;
    ///
    /// fn on_worker(unfinished: &Unfinished, index: usize) -> usize {
    ///     unfinished.fibers().iter().filter(|fiber| fiber.worker() == index).count()
    /// }
    /// ```
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Where it was spawned.
    ///
    /// ```
    /// use strands_sched::UnfinishedFiber;
    ///
    /// fn line(fiber: &UnfinishedFiber) -> String {
    ///     format!("fiber {}, spawned at {}", fiber.id(), fiber.spawned_at())
    /// }
    /// ```
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at
    }

    /// The operation it waits in; None if it is running or ready to run.
    ///
    /// ```
    /// use strands_sched::UnfinishedFiber;
    ///
    /// fn what(fiber: &UnfinishedFiber) -> &'static str {
    ///     fiber.waits_for().unwrap_or("it runs")
    /// }
    /// ```
    pub fn waits_for(&self) -> Option<&'static str> {
        self.waits_for
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let have = |count| if count == 1 { "has" } else { "have" };
        let (fibers, workers) = (self.fibers.len(), self.running_workers);
        if fibers > 0 {
            write!(f, "{} {} not ended", counted(fibers, "fiber"), have(fibers))?;
        } else if workers > 0 {
            let workers_have = format!("{} {}", counted(workers, "worker"), have(workers));
            write!(f, "{workers_have} not ended, without a fiber: in a hook, or for lack of time")?;
        }
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
            let line = if fibers + workers > 0 { "\n" } else { "" };
            let busy = counted(self.busy_pool_threads, "pool thread");
            let are = if self.busy_pool_threads == 1 { "is" } else { "are" };
            write!(f, "{line}{busy} {are} busy with blocking work")?;
        }
        Ok(())
    }
}

impl std::error::Error for Unfinished {}

/// Runs `f` with the driver of this thread's worker, if it is a worker's.
///
/// ```
/// use strands_sched::{Builder, SpawnOptions, with_driver};
///
/// let runtime = Builder::new().workers(1).build()?;
/// let describe = || with_driver(|driver| driver.describe());
/// assert_eq!(runtime.run(SpawnOptions::default(), describe)?.as_deref(), Some("time only"));
/// assert_eq!(describe(), None, "a plain thread has none");
/// # std::io::Result::Ok(())
/// ```
pub fn with_driver<R>(f: impl FnOnce(&dyn Driver) -> R) -> Option<R> {
    // SAFETY: `worker` is that of this thread.
    current::worker().map(|worker| f(unsafe { worker.driver() }))
}

/// The index of the worker whose thread this is.
///
/// ```
/// use strands_sched::{Builder, SpawnOptions, worker_index};
///
/// let runtime = Builder::new().workers(1).build()?;
/// assert_eq!(runtime.run(SpawnOptions::default(), worker_index)?, Some(0));
/// assert_eq!(worker_index(), None, "this is a plain thread");
/// # std::io::Result::Ok(())
/// ```
pub fn worker_index() -> Option<usize> {
    current::worker().map(Worker::index)
}
