//! Runtimes: workers with their drivers, and a pool for blocking work.
//!
//! Most programs never name one: the *default runtime* starts at first use and lives as long as
//! the process. A [`Runtime`] of one's own has its own workers and settings, and an end.
//!
//! # Environment
//!
//! | variable | meaning |
//! |---|---|
//! | `STRANDS_WORKERS` | how many workers the default runtime has, where the program does not say; else one a CPU |
//! | `STRANDS_BACKEND` | the reactor's backend, for runtimes whose builder does not say: see [`Backend`] |
//! | `STRANDS_STACK_GUARD` | `madvise` or `mprotect`: see [`GuardKind`] |
//!
//! A value that makes no sense is an error where the runtime is started, which names the variable.
//!
//! # Limits and faults
//!
//! What the system refuses is an error for whoever asked, or is done another way, and
//! [`Runtime::describe`] says so. Fibers that were accepted run; nothing else is lost.
//!
//! | what is refused | what happens |
//! |---|---|
//! | memory for stacks (`ulimit -v`, `ulimit -d`, `ulimit -l`, `vm.max_map_count`) | [`thread::Builder::spawn`](crate::thread::Builder::spawn) gives `OutOfMemory`, with the limit that was probably met; [`spawn`](crate::spawn()) panics, as std's. Accepted fibers take the next stack that is released, or start when there is room again. If none of them holds a stack, standard error says which wait. |
//! | guards by `madvise` (before Linux 6.13, in locked memory, by a filter) | They are made by `mprotect`: two of the `vm.max_map_count` mappings a stack. |
//! | file descriptors (`ulimit -n`, `fs.file-max`) | A runtime, which needs up to three a worker, does not start; `connect`, `accept`, `bind` and `try_clone` give the system's error. What is open goes on: waiting needs none. |
//! | registrations with epoll (`fs.epoll.max_user_watches`) | A runtime does not start; an operation that has to wait on a socket gives the system's error, `StorageFull`, with the limit. |
//! | `rt_sigaction`, `sigaltstack` (by a filter) | A runtime does not start: it could not report stack overflows. |
//! | threads (`ulimit -u`, a container's `pids.max`) | A runtime does not start: the error has the kind that std gives, `WouldBlock`. What is given to [`unblock`](crate::unblock) waits for a pool thread that there is or, if there is none, holds up its worker. |
//! | `epoll_pwait2` (before Linux 5.11, by a filter) | Workers sleep for whole milliseconds, rounded up. |
//!
//! - **Address space, not memory.** A stack is reserved whole (256 KiB by default) and gets memory
//!   page by page as it is used. Limits that count what is reserved count all of it, and so does
//!   strict overcommit (`vm.overcommit_memory=2`), which ignores that stacks ask for no reservation
//!   (`MAP_NORESERVE`): with these take a smaller [`stack_size`](Builder::stack_size), or bound
//!   [`max_stacks`](Builder::max_stacks). When stacks are mapped, 2 MiB are left to
//!   others: an allocation that fails ends a Rust program. Memory that was promised and is not there
//!   when it is touched ends a process too (the kernel's out-of-memory killer); nobody can prevent
//!   that from inside.
//! - **Locked memory.** After `mlockall(MCL_FUTURE)` a stack is in memory whole from the start, and
//!   stays.
//! - **Clocks.** Waits go by the monotonic clock alone: setting the time changes nothing. It stands
//!   still while the machine is suspended, and so do the waits. After a stop (`SIGSTOP`, a paused
//!   machine) what was due fires at once, in the order of deadlines.
//! - **Signals.** No operation on a socket returns `Interrupted`, whatever handlers there are. A write to
//!   a socket whose peer has gone is `BrokenPipe` and raises no `SIGPIPE`. A handler that is
//!   installed without `SA_ONSTACK` runs on the stack of the fiber that it interrupts, and needs
//!   room there: some kilobytes for the registers alone.

use std::env;
use std::fmt;
use std::io;
use std::num::NonZero;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use strands_sched::{Shared, SpawnOptions};

use crate::thread::JoinHandle;
use crate::{debug, os};

/// The interface of the operating system that the reactor uses; for [`Builder::backend`].
///
/// ```
/// use strands::runtime::Backend;
///
/// let runtime = strands::Runtime::builder().workers(1).backend(Backend::Mio).build()?;
/// assert!(runtime.describe().contains("mio"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub use strands_reactor::Backend;

/// What guards the ends of stacks; for [`Builder::guard`].
///
/// ```
/// use strands::runtime::GuardKind;
///
/// let runtime = strands::Runtime::builder().workers(1).guard(GuardKind::Mprotect).build()?;
/// assert!(runtime.describe().contains("Mprotect"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub use strands_sched::GuardKind;
/// What had not ended when the time of [`Runtime::shutdown_timeout`] was up. Printed, it is a
/// report.
///
/// ```
/// use std::sync::mpsc;
/// use std::time::Duration;
///
/// let runtime = strands::Runtime::builder().workers(1).build()?;
/// let (started, has_started) = mpsc::channel();
/// let (release, released) = mpsc::channel::<()>();
/// runtime.spawn(move || {
///     started.send(()).unwrap();
///     released.recv().unwrap(); // std's: blocks the worker, and no cancel can end it.
/// });
/// has_started.recv().unwrap();
/// let unfinished = runtime.shutdown_timeout(Duration::from_millis(1)).unwrap_err();
/// println!("{unfinished}");
/// assert_eq!(unfinished.fibers().len(), 1);
/// assert_eq!(unfinished.busy_pool_threads(), 0);
/// release.send(()).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
pub use strands_sched::Unfinished;
/// One fiber of an [`Unfinished`].
///
/// ```
/// use strands::runtime::{Unfinished, UnfinishedFiber};
///
/// fn names(unfinished: &Unfinished) -> Vec<Option<&str>> {
///     unfinished.fibers().iter().map(UnfinishedFiber::name).collect()
/// }
/// ```
pub use strands_sched::UnfinishedFiber;

/// Workers, their drivers, and a pool for blocking work.
///
/// Runtimes stand beside each other and beside the default one. A fiber of one may
/// use another: spawn on it, or [`run`](Self::run) a closure there, which suspends it meanwhile.
///
/// Dropping a runtime shuts it down: fibers that wait are cancelled, those that never started are
/// dropped, and the drop waits for all to end. Dropped on one of its own threads (by a fiber of it,
/// in a closure that one gave to [`unblock`](crate::unblock), by a hook) it cannot wait: then it
/// only cancels, that fiber too, and its threads end by themselves. A fiber that has done so panics, unless it unwinds:
/// nobody knows when they have ended. With `panic = "abort"`, and in a forked child, it is
/// otherwise: see [`soundness`](crate::soundness#the-life-of-the-process).
///
/// ```
/// let runtime = strands::Runtime::builder().workers(2).build()?;
/// let text = String::from("borrowed");
/// let length = runtime.run(|| strands::scope(|scope| scope.spawn(|| text.len()).join().unwrap()));
/// assert_eq!(length, 8);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Runtime {
    inner: strands_sched::Runtime,
}

impl Runtime {
    /// A runtime with the default settings: see [`Builder`].
    ///
    /// # Errors
    ///
    /// As for [`Builder::build`].
    ///
    /// ```
    /// let runtime = strands::Runtime::new()?;
    /// assert_eq!(runtime.run(|| 1 + 1), 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new() -> io::Result<Runtime> {
        Runtime::builder().build()
    }

    /// Settings for a runtime.
    ///
    /// ```
    /// let runtime = strands::Runtime::builder().workers(3).build()?;
    /// assert_eq!(runtime.workers(), 3);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Runs `f` as a fiber of this runtime and waits for it.
    ///
    /// A plain thread is blocked meanwhile; a fiber, of this runtime or of another, is suspended.
    /// `f` may borrow. The wait is not cut short by a cancel, as `f` may be at work on what it
    /// borrowed.
    ///
    /// # Panics
    ///
    /// Goes on with the panic of `f`. Panics if no fiber can be spawned: see
    /// [`thread::Builder::spawn`](crate::thread::Builder::spawn).
    ///
    /// ```
    /// let runtime = strands::Runtime::builder().workers(1).build()?;
    /// let mut log = Vec::new();
    /// runtime.run(|| log.push("ran"));
    /// assert_eq!(log, ["ran"]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn run<F, T>(&self, f: F) -> T
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        self.run_with(SpawnOptions::default(), f)
    }

    #[track_caller]
    fn run_with<F, T>(&self, options: SpawnOptions, f: F) -> T
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        self.inner.run(options, f).expect("failed to spawn thread")
    }

    /// Spawns a fiber on this runtime, from wherever.
    ///
    /// # Panics
    ///
    /// As [`thread::spawn`](crate::thread::spawn()).
    ///
    /// ```
    /// let runtime = strands::Runtime::builder().workers(1).build()?;
    /// let handle = runtime.spawn(|| "from there");
    /// assert_eq!(handle.join().unwrap(), "from there");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let join = strands_sched::spawn_on(self.inner.shared(), SpawnOptions::default(), f);
        JoinHandle::new(join.expect("failed to spawn thread"))
    }

    /// How many workers it has.
    ///
    /// ```
    /// assert_eq!(strands::Runtime::builder().workers(2).build()?.workers(), 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn workers(&self) -> usize {
        self.inner.workers()
    }

    /// For each worker, how many of its fibers have started and not ended.
    ///
    /// ```
    /// let runtime = strands::Runtime::builder().workers(1).build()?;
    /// assert_eq!(runtime.run(|| runtime.live_fibers()), [1]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn live_fibers(&self) -> Vec<usize> {
        self.inner.live_fibers()
    }

    /// A line on what it is made of, for people: workers, backend, stacks, guard, pool; and what is
    /// done in another way than it would be, as the system refused that.
    ///
    /// ```
    /// let runtime = strands::Runtime::builder().workers(1).build()?;
    /// assert!(runtime.describe().contains("1 worker;"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn describe(&self) -> String {
        self.inner.describe()
    }

    /// Ends the runtime: accepts no more fibers, drops those that never started, cancels the
    /// others, and waits up to `timeout` until all have ended and the work given to
    /// [`unblock`](crate::unblock) is done.
    ///
    /// A cancelled fiber unwinds from where it waits, so its destructors run; its join handle gets
    /// a payload of type [`Cancelled`](crate::cancel::Cancelled). One that never waits is not
    /// interrupted. A `timeout` too long for the clock is no limit. When all has ended, the destructors of the
    /// workers' std thread-locals are waited for, however long they take.
    ///
    /// # Errors
    ///
    /// When the time is up: who has not ended, and where it waits. Those fibers go on, and what
    /// they use stays.
    ///
    /// # Panics
    ///
    /// If called on a thread of this runtime, which would wait for itself: by a fiber, in a closure
    /// given to [`unblock`](crate::unblock), or by a hook. The runtime is dropped then.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = strands::Runtime::builder().workers(1).build()?;
    /// let waits_for_ever = runtime.spawn(|| loop { strands::thread::park() });
    /// runtime.shutdown_timeout(Duration::MAX).unwrap();
    /// assert!(waits_for_ever.join().unwrap_err().is::<strands::cancel::Cancelled>());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn shutdown_timeout(self, timeout: Duration) -> Result<(), Unfinished> {
        self.inner.shutdown(Some(timeout))
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Settings of a [`Runtime`].
///
/// ```
/// let runtime = strands::runtime::Builder::new()
///     .workers(2)
///     .stack_size(64 * 1024)
///     .thread_name("background")
///     .build()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "nothing runs before it is built"]
pub struct Builder {
    inner: strands_sched::Builder,
    backend: Backend,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// The defaults: one worker a CPU, stacks of 256 KiB without a limit on their number, up to 64
    /// threads for blocking work.
    ///
    /// ```
    /// let runtime = strands::runtime::Builder::new().build()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new() -> Builder {
        Builder { inner: strands_sched::Builder::new(), backend: Backend::Auto }
    }

    fn map(self, f: impl FnOnce(strands_sched::Builder) -> strands_sched::Builder) -> Builder {
        Builder { inner: f(self.inner), ..self }
    }

    /// How many workers, at least one. Each is an OS thread that runs one fiber at a time.
    ///
    /// ```
    /// let runtime = strands::Runtime::builder().workers(4).build()?;
    /// assert_eq!(runtime.live_fibers().len(), 4);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn workers(self, workers: usize) -> Builder {
        self.map(|inner| inner.workers(workers))
    }

    /// The size in bytes of the stacks of fibers that ask for none of their own, rounded up to
    /// whole pages; 16 KiB at least.
    ///
    /// ```
    /// let runtime = strands::Runtime::builder().workers(1).stack_size(1024 * 1024).build()?;
    /// assert!(runtime.describe().contains("1024 KiB"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn stack_size(self, bytes: usize) -> Builder {
        self.map(|inner| inner.stack_size(bytes))
    }

    /// How many stacks may be in use at once, which is how many fibers may have started and not
    /// ended.
    ///
    /// Beyond, accepted fibers wait for a stack; while any does,
    /// [`thread::Builder::spawn`](crate::thread::Builder::spawn) gives `OutOfMemory`.
    ///
    /// ```
    /// let runtime = strands::Runtime::builder().workers(1).max_stacks(10).build()?;
    /// let handles: Vec<_> = (0..10).map(|i| runtime.spawn(move || i)).collect();
    /// assert_eq!(handles.into_iter().map(|handle| handle.join().unwrap()).sum::<i32>(), 45);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn max_stacks(self, stacks: usize) -> Builder {
        self.map(|inner| inner.max_stacks(stacks))
    }

    /// What guards the ends of stacks; by default the best that works here.
    ///
    /// ```
    /// use strands::runtime::GuardKind;
    ///
    /// let runtime = strands::Runtime::builder().workers(1).guard(GuardKind::Mprotect).build()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn guard(self, guard: GuardKind) -> Builder {
        self.map(|inner| inner.guard(guard))
    }

    /// What the names of its OS threads begin with, `strands` by default: `NAME-worker-0`,
    /// `NAME-blocking-0`.
    ///
    /// ```
    /// let runtime = strands::Runtime::builder().workers(1).thread_name("web").build()?;
    /// let name = runtime.run(|| std::thread::current().name().map(String::from));
    /// assert_eq!(name.as_deref(), Some("web-worker-0"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn thread_name(self, name: impl Into<String>) -> Builder {
        self.map(|inner| inner.thread_name(name))
    }

    /// The reactor's backend; by default the best that works here, or what `STRANDS_BACKEND` says.
    ///
    /// ```
    /// use strands::runtime::Backend;
    ///
    /// let runtime = strands::Runtime::builder().workers(1).backend(Backend::Mio).build()?;
    /// assert!(runtime.describe().contains("mio"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn backend(self, backend: Backend) -> Builder {
        Builder { backend, ..self }
    }

    /// Called on each worker's and pool thread when it starts, before it runs anything. A panic in
    /// it is reported and goes no further.
    ///
    /// ```
    /// let runtime = strands::Runtime::builder()
    ///     .workers(1)
    ///     .on_start(|| println!("{:?} starts", std::thread::current().name()))
    ///     .build()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn on_start(self, hook: impl Fn() + Send + Sync + 'static) -> Builder {
        self.map(|inner| inner.on_start(hook))
    }

    /// Called on each worker's and pool thread when it ends, after all that it ran. A panic in it is
    /// reported and goes no further.
    ///
    /// ```
    /// let runtime = strands::Runtime::builder()
    ///     .workers(1)
    ///     .on_stop(|| println!("{:?} ends", std::thread::current().name()))
    ///     .build()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn on_stop(self, hook: impl Fn() + Send + Sync + 'static) -> Builder {
        self.map(|inner| inner.on_stop(hook))
    }

    /// Has a fiber reported that does not let others run for longer than `limit`: on standard error, by its name, with
    /// its backtrace on Linux, once each time. By default nobody looks, as a program may mean to compute for long.
    ///
    /// A thread that all runtimes share looks four times in `limit`, which is 4 ms or more; while all workers sleep it
    /// sleeps. It goes by the clock: a worker's thread that the system does not run for so long looks the same.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let builder = strands::Runtime::builder().workers(1);
    /// let runtime = builder.stall_limit(Duration::from_secs(1)).build()?;
    /// assert_eq!(runtime.run(|| 1 + 1), 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn stall_limit(self, limit: Duration) -> Builder {
        self.map(|inner| inner.stall_limit(Some(limit)))
    }

    /// Whether fibers of the runtime that wait for each other are reported on standard error: see
    /// [`debug`](crate::debug#what-is-reported-unasked). By default they are. A program in which all fibers often wait for
    /// long for plain threads may not want that.
    ///
    /// ```
    /// let runtime = strands::Runtime::builder().workers(1).deadlock_reports(false).build()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn deadlock_reports(self, on: bool) -> Builder {
        self.map(|inner| inner.deadlock_reports(on))
    }

    /// How many threads run what is given to [`unblock`](crate::unblock), at most; at least one.
    /// They start when they are needed, and end after ten seconds without work.
    ///
    /// ```
    /// let runtime = strands::Runtime::builder().workers(1).blocking_threads(1).build()?;
    /// assert_eq!(runtime.run(|| strands::unblock(|| 5)), 5);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn blocking_threads(self, threads: usize) -> Builder {
        self.map(|inner| inner.blocking_threads(threads))
    }

    /// Starts the runtime.
    ///
    /// # Errors
    ///
    /// - `InvalidInput` for no workers, stacks or pool threads, for a thread name with a zero byte,
    ///   and for a value of an environment variable that makes no sense.
    /// - `Unsupported` for a guard or a backend that this system does not have, and in a
    ///   [forked child](crate::soundness#the-life-of-the-process).
    /// - What the system said when a thread or a driver could not be made, and which limit was
    ///   probably met: see [Limits and faults](crate::runtime#limits-and-faults). Nothing is left
    ///   running then.
    ///
    /// ```
    /// let error = strands::Runtime::builder().workers(0).build().unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    /// ```
    pub fn build(self) -> io::Result<Runtime> {
        strands_sched::on_trouble(debug::report);
        let driver = strands_reactor::driver_factory(self.backend);
        let inner = self.inner.driver(driver).thread_token(os::debug::thread_token);
        let inner = match os::debug::THREAD_CLOCK {
            Some(clock) => inner.thread_clock(clock),
            None => inner,
        };
        Ok(Runtime { inner: inner.build()? })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("backend", &self.backend).finish_non_exhaustive()
    }
}

/// What a plain thread spawns on.
pub(crate) fn default_runtime() -> io::Result<Arc<Shared>> {
    Ok(start_default(None)?.inner.shared().clone())
}

/// The default runtime, started with as many workers if it does not run yet.
///
/// It is never dropped: it lives until the process exits, and its fibers end with it.
fn start_default(workers: Option<usize>) -> io::Result<&'static Runtime> {
    static DEFAULT: OnceLock<Runtime> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    if let Some(runtime) = DEFAULT.get() {
        return Ok(runtime);
    }
    // One starts it; if that fails, the next who comes tries again.
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = DEFAULT.get() {
        return Ok(runtime);
    }
    let workers = match workers {
        Some(workers) => Some(workers),
        None => workers_from_environment()?,
    };
    let builder = match workers {
        Some(workers) => Runtime::builder().workers(workers),
        None => Runtime::builder(),
    };
    let runtime = builder.build()?;
    Ok(DEFAULT.get_or_init(|| runtime))
}

fn workers_from_environment() -> io::Result<Option<usize>> {
    const VARIABLE: &str = "STRANDS_WORKERS";
    let Some(value) = env::var_os(VARIABLE) else { return Ok(None) };
    let workers = value.to_str().and_then(|text| text.parse::<NonZero<usize>>().ok());
    workers.map(|workers| Some(workers.get())).ok_or_else(|| {
        let text = format!(
            "the environment variable {VARIABLE} is {value:?}, and should be a number of workers, \
             1 or more"
        );
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

/// What the expansions of `#[strands::main]` and `#[strands::test]` call.
pub(crate) mod entry {
    use std::process::{ExitCode, Termination};

    use strands_sched::SpawnOptions;

    use super::{Runtime, start_default};

    /// What Linux reserves for the main thread.
    const MAIN_STACK_BYTES: usize = 8 * 1024 * 1024;
    /// What std reserves for a test's thread.
    const TEST_STACK_BYTES: usize = 2 * 1024 * 1024;
    const TEST_WORKERS: usize = 2;

    /// Runs `body` as the main fiber of the default runtime.
    #[track_caller]
    pub fn main<T: Termination>(
        workers: Option<usize>,
        stack_bytes: Option<usize>,
        body: fn() -> T,
    ) -> ExitCode {
        let runtime = start_default(workers).unwrap_or_else(|error| {
            panic!("#[strands::main] could not start its runtime: {error}");
        });
        let options = SpawnOptions {
            name: Some("main".into()),
            stack_bytes: Some(stack_bytes.unwrap_or(MAIN_STACK_BYTES)),
            stack_help: Some("give it more with #[strands::main(stack_size = BYTES)]"),
            ..SpawnOptions::default()
        };
        runtime.run_with(options, || body().report())
    }

    /// Runs `body` as a fiber of a runtime that ends with it.
    #[track_caller]
    pub fn test(workers: Option<usize>, stack_bytes: Option<usize>, body: fn()) {
        test_fiber(workers, stack_bytes, body);
    }

    /// As [`test`], for bodies that return something.
    #[track_caller]
    pub fn test_returning<T: Termination>(
        workers: Option<usize>,
        stack_bytes: Option<usize>,
        body: fn() -> T,
    ) -> ExitCode {
        test_fiber(workers, stack_bytes, || body().report())
    }

    #[track_caller]
    fn test_fiber<T: Send>(
        workers: Option<usize>,
        stack_bytes: Option<usize>,
        body: impl FnOnce() -> T + Send,
    ) -> T {
        let runtime = Runtime::builder().workers(workers.unwrap_or(TEST_WORKERS)).build();
        let runtime = runtime.unwrap_or_else(|error| {
            panic!("#[strands::test] could not start its runtime: {error}");
        });
        let options = SpawnOptions {
            // As std's test threads are called by their test.
            name: std::thread::current().name().map(String::from),
            stack_bytes: Some(stack_bytes.unwrap_or(TEST_STACK_BYTES)),
            stack_help: Some("give it more with #[strands::test(stack_size = BYTES)]"),
            ..SpawnOptions::default()
        };
        runtime.run_with(options, body)
    }
}
