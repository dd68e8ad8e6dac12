//! What every fiber does and waits for: for people when something hangs, and for tools.
//!
//! [`dump`] says it of all fibers of all runtimes, in release builds too. [`dump_on_sigquit`] prints it when the
//! process gets `SIGQUIT` (`kill -QUIT`, or Ctrl-\\ in a terminal).
//!
//! ```
//! use strands::{debug, thread};
//!
//! let runtime = strands::Runtime::builder().workers(1).build()?;
//! let waits = thread::Builder::new().name("waits".into());
//! runtime.run(move || {
//!     let waits = waits.spawn(thread::park).unwrap();
//!     thread::yield_now(); // Now it waits.
//!     let text = debug::dump().to_string(); // Before stdout is locked, as it takes a while.
//!     println!("{text}");
//!     waits.thread().unpark();
//! });
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What is reported unasked
//!
//! These are printed to standard error, once each:
//!
//! - **Fibers that wait for each other**, each for a lock ([`Mutex`](crate::sync::Mutex), [`RwLock`](crate::sync::RwLock)) that the
//!   next has locked (an `RwLock`: for writing), or to join the next: by name, with what each holds and waits for, and
//!   its backtrace. About a tenth of a second after it has happened, if their workers run other fibers or sleep. Nothing that
//!   others do can end such waits, but a cancel, or one to whom the holder has handed its guard. A wait below a time limit is
//!   none of these.
//! - **A runtime in which all fibers wait**, and nothing is armed that would wake one: no time limit, no socket, no blocking
//!   work. All of them with their backtraces, a second or two after it has happened. This tells of cycles over channels,
//!   condition variables, permits, and over readers of an `RwLock`, which nobody notes. Only a plain thread, or a fiber of another
//!   runtime, could still help. If it does, as in a program whose fibers wait for the work that threads send them, the report is made once for
//!   the same fibers, and [`deadlock_reports`](crate::runtime::Builder::deadlock_reports) turns it off.
//! - **A fiber that does not let others run**, for longer than [`stall_limit`](crate::runtime::Builder::stall_limit), if
//!   that is set: by name, with its backtrace on Linux, and which fibers it holds up.
//!
//! Who locks a lock that it holds itself, or joins itself, gets a panic that says so, and so does a fiber that drops the
//! runtime it is of. (Who locks so below a time limit, a token or a scope that may fail waits until that ends it.) So does who reads an `RwLock` that it writes; one that writes what it reads waits for ever, and is in the
//! reports and dumps of those that wait.
//!
//! # What is in it
//!
//! Of a fiber that waits: the operation and its object (the same for all who wait for the same), since when, when its
//! time is up (a time limit [around the call](crate::time::timeout) counts), who holds the lock or is joined, the
//! descriptor, the operations of a [`select!`](crate::select!). Of each fiber: which locks it holds. Those that somebody waits for
//! are always known: who holds a lock is in the lock, where those who wait look. To know of the others, and
//! for how long they have been held, each lock and unlock has to be written down, which costs more than they cost: so [`track_locks`] has to
//! be called first, or [`dump_on_sigquit`]. Then plain threads that hold locks are in the dump too, and locks whose guards were
//! leaked. A guard that lies with another fiber by now is shown with the one that took it.
//!
//! # How exact it is
//!
//! Workers are not stopped. Each tells of its own fibers, at most 32 of them with 128 frames at a time and for about 20 µs, and
//! runs fibers in between, however many there are. It
//! allocates nothing for that, takes no lock that it could wait for, and writes to memory that whoever asks has touched.
//! So each fiber is shown as it was at one
//! moment, two fibers perhaps at two. A fiber that had started when the dump reached its worker, and that has not ended
//! by its turn, is shown once. Fibers that have not started are shown if they are few, else counted.
//!
//! What is printed unasked, or on `SIGQUIT`, is written past the lock of std's handle on Unix, as who has that may be who hangs. To make
//! it, a thread of its own allocates memory and looks up symbols: a thread that hangs amid `malloc` or `dlopen`, with their
//! locks, may hold that up.
//!
//! A worker that does not answer for [some time](dump) is not waited for: its fiber computes, or blocks the thread. The dump
//! says so, and shows its fibers without their backtraces, but for the one that runs, on Linux: a signal has the thread look at its own
//! stack. For that the last real-time signal for which nobody has a handler is taken, when it is first needed. The handler
//! neither allocates nor takes a lock (with glibc 2.35 and GCC 12's libgcc, or later; nor does it look where they are
//! older). It walks the stack only if the fiber was not about to be switched. A bare
//! `strands_fiber::Coroutine` that it resumes cannot be told from it: interrupted amid that switch, the walk may show
//! nonsense, or at worst fault.
//!
//! # What it costs
//!
//! Measured in a release build, on a virtual machine with two cores that others used too:
//!
//! | what | cost |
//! |---|---|
//! | that dumps can be made | A wait notes when it began: one store. One for a lock, a descriptor or a select notes that too: two. A switch notes who runs in one word more. |
//! | that locks know their holder | One instruction of 25 for a lock and its unlock, as the holder is in the word that is exchanged anyway. |
//! | a dump of 100,000 parked fibers | 0.3 s from question to answer, about 3 µs a fiber; 0.9 s where seven times as many threads want to run as there are cores. A fiber of that worker that always wants to run waits for 27 µs or less in 99.9 % of its turns and 65 µs in 99.99 %, in time that the worker had a core. Of 2 million turns in 10 seconds of dumps 23 took more than 100 µs, the longest 0.16 ms; in 10 seconds without dumps 27 did, the longest 0.17 ms: they are the machine's own. |
//! | its text | 0.4 s, 13 MB; for a fiber that asks, on a thread of its own, as the dump is. |
//! | deadlock reports | While fibers always wait for locks, 0.01 % of a core with ten fibers, 0.05 % with 100,000 others that wait; workers spend at most one part in 200 on answers. Nothing while none waits. |
//! | `stall_limit` | 0.08 % of a core for a limit of 100 ms and two busy workers. Nothing while all workers sleep. A load and a test when a worker wakes. |
//! | `track_locks` | While it is off, nothing for a mutex or a write lock; of the 20 instructions of a read lock and its unlock one. While it is on, a lock and its unlock take about ten times as long, 0.2 µs in place of 0.02, and some 100 bytes for each lock that is held. |
//! | `dump_on_sigquit` | A thread that sleeps, and `track_locks`. |
//!
//! # JSON
//!
//! [`Dump::to_json`] gives one object. Numbers are decimal, addresses strings such as `"0x7f00"`. Members may be added; those
//! here keep their meaning as long as `version` is 1.
//!
//! ```json
//! {
//!   "format": "strands-dump",
//!   "version": 1,
//!   "tracks_locks": true,
//!   "runtimes": [{
//!     "id": 1,
//!     "name": "strands",
//!     "workers": [{
//!       "index": 0,
//!       "answered": true,
//!       "slices": 1,
//!       "longest_pause_ns": 20000,
//!       "more_not_started": 0
//!     }],
//!     "more_not_started": 0,
//!     "fibers": [{
//!       "id": 7,
//!       "name": "Plato",
//!       "worker": 0,
//!       "state": "parked",
//!       "spawned_at": { "file": "src/main.rs", "line": 3, "column": 5 },
//!       "wait": {
//!         "operation": "Mutex::lock",
//!         "object": "0x7f00",
//!         "waited_ns": 1000000,
//!         "held_by": 8,
//!         "timeout_ns": null,
//!         "descriptor": null,
//!         "by_thread": false,
//!         "arms": []
//!       },
//!       "holds": [{
//!         "operation": "Mutex::lock",
//!         "object": "0x7f40",
//!         "mode": "exclusive",
//!         "held_ns": 2000000
//!       }],
//!       "frames": [{
//!         "address": "0x5500",
//!         "symbols": [{ "name": "main::eat", "file": "src/main.rs", "line": 9 }]
//!       }],
//!       "truncated": false
//!     }]
//!   }],
//!   "other_holders": [{
//!     "id": 3,
//!     "thread": "main",
//!     "holds": []
//!   }]
//! }
//! ```
//!
//! `state` is `not started`, `running`, `ready` or `parked`; `wait` is null if it is not `parked`. `name`, `worker`, `held_by`, and
//! a symbol's `name`, `file` and `line` are null if there is none or it is not known. `holds` are its locks, with what `track_locks`
//! adds to them if `tracks_locks` is true; `mode` is `exclusive` or `shared`, and `held_ns` null if it is not known. `other_holders` are parties that
//! hold locks and are no fibers of the dump: plain threads, by their names (`thread` is empty if one has none), and what has ended
//! (`thread` is null). In `wait`, `timeout_ns` is what is left of a time limit, `by_thread` says that another thread of the process does it, such as one
//! of the pool, and `arms` are the first 16 operations of a select, each with `operation`, `object` and `descriptor`. `frames` begin
//! with the innermost; a frame has several symbols if functions were inlined into each other.

use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use strands_sched::held::{self, HeldLock, Kind};
use strands_sched::{
    Detail, FiberReport, FiberState, RuntimeReport, Trouble, WaitReport, WorkerReport,
    while_waiting_for, with_current_task,
};
use strands_sync::oneshot;

use crate::os::debug as os;

/// How long a worker may take until its next slice.
const PATIENCE: Duration = Duration::from_millis(200);

/// What every fiber of the process does.
///
/// From a fiber or a plain thread; a fiber that asks is shown as running. A worker that does not
/// answer for 200 ms is not waited for. In a [forked child](crate::soundness#the-life-of-the-process) the dump is
/// empty.
///
/// ```
/// let runtime = strands::Runtime::builder().workers(1).build()?;
/// let text = runtime.run(|| strands::debug::dump().to_string());
/// assert!(text.contains("running"), "{text}");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn dump() -> Dump {
    let me = with_current_task(|me| me.id());
    Dump { state: Arc::new(aside(move || State::of(collect(me)))) }
}

/// The state of things, on behalf of the fiber with this id.
fn collect(me: u64) -> Vec<RuntimeReport> {
    let mut runtimes = strands_sched::collect_for(me, PATIENCE);
    for worker in runtimes.iter_mut().flat_map(|runtime| &mut runtime.workers) {
        if !worker.has_answered
            && let Some((id, frames)) = os::sample(worker.thread_token)
            && let Some(fiber) = worker.fibers.iter_mut().find(|fiber| fiber.id == id)
        {
            fiber.frames = frames;
        }
    }
    runtimes
}

/// Runs `f`, which takes longer than others should be held up: on a thread of its own, if a fiber calls.
fn aside<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    if with_current_task(|me| me.is_thread()) || strands_sched::in_forked_child() {
        return f();
    }
    // Not one of the pool: they may all hang.
    let work = Arc::new(std::sync::Mutex::new(Some(f)));
    let take = |work: &std::sync::Mutex<Option<_>>| {
        work.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    };
    let (sender, receiver) = oneshot::channel();
    let its = work.clone();
    let main = move || {
        if let Some(f) = take(&its) {
            let _ = sender.send(f());
        }
    };
    let started = std::thread::Builder::new().name("strands-dump".into()).spawn(main);
    let refused = if started.is_err() { take(&work) } else { None };
    match refused {
        Some(f) => f(),
        None => {
            let wait = || strands_sched::uncancellable(|| receiver.recv());
            while_waiting_for(Detail::Thread, wait).expect("it does not panic")
        }
    }
}

/// Has dumps and reports say of all locks who holds them, since when, also of those that nobody waits for; or no more.
/// Says whether they did before.
///
/// Locks are a [`Mutex`](crate::sync::Mutex) and an [`RwLock`](crate::sync::RwLock), held by a fiber or a plain thread. It is for the whole
/// process, and may be called at any time: what was locked before is not known, and what is known is until it
/// is unlocked. Each lock and unlock is written down, which [costs](self#what-it-costs) several times what they
/// cost; while it is off they cost nothing more than without it. An `RwLock` that is always read by somebody, without a gap,
/// has the cost until there is one.
///
/// ```standalone_crate
/// use strands::{debug, sync::Mutex};
///
/// let runtime = strands::Runtime::builder().workers(1).build()?;
/// debug::track_locks(true);
/// let text = runtime.run(|| {
///     let mutex = Mutex::new(());
///     let _guard = mutex.lock().unwrap();
///     debug::dump().to_string()
/// });
/// assert!(text.contains("holds the Mutex 0x"), "{text}");
/// debug::track_locks(false);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn track_locks(on: bool) -> bool {
    held::track(on)
}

/// Prints a [`dump`] to standard error whenever the process gets `SIGQUIT`, instead of ending it, and
/// [tracks locks](track_locks) from now on.
///
/// A thread of its own does it, so it also works while all workers hang. Other handlers of that signal are called
/// as before. The handler has no stack of its own, as a fiber may have been interrupted: see
/// [Signals](crate::runtime#limits-and-faults).
///
/// # Errors
///
/// What the system says if the handler or the thread cannot be had; `Unsupported` where there is no such signal.
///
/// ```standalone_crate
/// # if cfg!(unix) {
/// strands::debug::dump_on_sigquit()?;
/// # }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn dump_on_sigquit() -> io::Result<()> {
    os::on_sigquit(|| os::print(&dump().to_string()))?;
    track_locks(true);
    Ok(())
}

/// What every fiber did when it was asked for: see [`dump`]. Printed, it is for people.
///
/// Symbols are looked up when it is printed, or made JSON of.
///
/// ```
/// let runtime = strands::Runtime::builder().workers(2).build()?;
/// let dump: strands::debug::Dump = runtime.run(strands::debug::dump);
/// assert!(dump.fibers() >= 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dump {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    runtimes: Vec<RuntimeReport>,
    /// Those that are written down.
    held: Vec<HeldLock>,
    tracks_locks: bool,
}

impl State {
    fn of(runtimes: Vec<RuntimeReport>) -> State {
        State { runtimes, held: held::all(), tracks_locks: held::is_tracking() }
    }

    fn fibers(&self) -> impl Iterator<Item = &FiberReport> {
        self.runtimes.iter().flat_map(RuntimeReport::fibers)
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        /// To free more than this is left to another thread.
        const MANY: usize = 1_000;
        if self.fibers() > MANY {
            let state = std::mem::take(&mut self.state);
            aside(move || drop(state));
        }
    }
}

impl Dump {
    /// How many fibers are in it.
    ///
    /// ```
    /// let runtime = strands::Runtime::builder().workers(1).build()?;
    /// assert!(runtime.run(|| strands::debug::dump().fibers()) >= 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn fibers(&self) -> usize {
        self.state.fibers().count()
    }

    /// The longest time for which a worker held up its fibers for the dump, by its own measurement: the time for which its
    /// thread ran, and on Windows the time that passed, in which the system may have run others.
    ///
    /// ```
    /// println!("{:?}", strands::debug::dump().longest_pause());
    /// ```
    pub fn longest_pause(&self) -> Duration {
        let workers = self.state.runtimes.iter().flat_map(|runtime| &runtime.workers);
        workers.map(|worker| worker.longest_slice).max().unwrap_or_default()
    }

    /// The most fibers that a worker told of in one go, those not counted that had not started.
    ///
    /// ```
    /// assert!(strands::debug::dump().most_at_once() <= 32);
    /// ```
    pub fn most_at_once(&self) -> usize {
        let workers = self.state.runtimes.iter().flat_map(|runtime| &runtime.workers);
        workers.map(|worker| worker.most_in_slice).max().unwrap_or_default()
    }

    /// The dump for tools: see [the format](self#json).
    ///
    /// ```
    /// let json = strands::debug::dump().to_json();
    /// assert!(json.starts_with(r#"{"format":"strands-dump","version":1,"#));
    /// ```
    pub fn to_json(&self) -> String {
        let state = self.state.clone();
        aside(move || json(&state))
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.clone();
        f.write_str(&aside(move || {
            let mut text = String::new();
            let _ = write_text(&mut text, &state); // A string takes all.
            text
        }))
    }
}

fn json(state: &State) -> String {
    let holds = Holds::of(state.fibers(), &state.held);
    let mut symbols = Symbols::default();
    let mut json = Json::default();
    json.object(|json| {
        json.member("format", |json| json.string("strands-dump"));
        json.member("version", |json| json.number(1));
        json.member("tracks_locks", |json| json.boolean(state.tracks_locks));
        json.member("runtimes", |json| {
            json.array(&state.runtimes, |json, runtime| {
                runtime_json(json, runtime, &holds, &mut symbols);
            });
        });
        json.member("other_holders", |json| {
            json.array(other_holders(state), |json, (id, thread)| {
                json.object(|json| {
                    json.member("id", |json| json.number(id));
                    json.member("thread", |json| json.optional(thread, Json::string));
                    json.member("holds", |json| holds_json(json, holds.by(id)));
                });
            });
        });
    });
    json.text
}

fn write_text(f: &mut String, state: &State) -> fmt::Result {
    let holds = Holds::of(state.fibers(), &state.held);
    let names = Names::of(state.fibers());
    let mut symbols = Symbols::default();
    for runtime in &state.runtimes {
        let (fibers, workers) = (runtime.fibers().count(), runtime.workers.len());
        writeln!(
            f,
            "runtime {} '{}': {workers} workers, {fibers} fibers",
            runtime.id, runtime.name
        )?;
        for worker in runtime.workers.iter().filter(|worker| !worker.has_answered) {
            f.write_str(&describe_hung(worker))?;
        }
        let more = runtime.workers.iter().map(|worker| worker.more_not_started).sum::<usize>();
        let more = more + runtime.more_not_started;
        if more > 0 {
            writeln!(f, "  {more} more fibers have not started")?;
        }
        // A stack that many have is printed once.
        let mut printed: HashMap<&[usize], u64> = HashMap::new();
        for fiber in runtime.fibers() {
            writeln!(f, "\n{}", describe(fiber, &names))?;
            f.write_str(&holds.text(fiber.id))?;
            if fiber.frames.is_empty() {
                continue;
            }
            match printed.get(&*fiber.frames) {
                Some(other) => writeln!(f, "    stands where fiber {other} stands")?,
                None => {
                    printed.insert(&fiber.frames, fiber.id);
                    f.write_str(&backtrace(fiber, &mut symbols))?;
                }
            }
        }
    }
    for (id, thread) in other_holders(state) {
        let who = match thread {
            Some("") => format!("a plain thread (id {id})"),
            Some(name) => format!("thread '{name}' (id {id})"),
            None => format!("a fiber or thread that has ended (id {id})"),
        };
        write!(f, "\n{who}\n{}", holds.text(id))?;
    }
    if !state.tracks_locks {
        writeln!(
            f,
            "\nhelp: locks that nobody waits for are not shown: call strands::debug::track_locks(true) before"
        )?;
    }
    Ok(())
}

/// Who holds up whom on a worker that does not answer, and what could not be read for that.
fn describe_hung(worker: &WorkerReport) -> String {
    let mut text = format!("  worker {} does not answer: ", worker.index);
    let running = worker.fibers.iter().find(|fiber| fiber.state == FiberState::Running);
    let ready = worker.fibers.iter().filter(|fiber| fiber.state == FiberState::Ready).count();
    let others = worker.fibers.len() - usize::from(running.is_some());
    let _ = match running {
        Some(fiber) => {
            let name = named(fiber.id, fiber.name.as_deref());
            write!(text, "{name} does not let others run, and holds up {others} fibers")
        }
        None => write!(text, "no fiber runs there, as far as can be seen; it has {others} fibers"),
    };
    let _ = write!(text, ", {ready} of them ready.");
    let own = match running {
        Some(fiber) if fiber.frames.is_empty() => "Its stack, and theirs,",
        _ => "Their stacks",
    };
    let _ = writeln!(text, " {own} could not be read");
    text
}

/// Who holds locks and is no fiber that is described: each once, with its name if it is a thread.
fn other_holders(state: &State) -> impl Iterator<Item = (u64, Option<&str>)> {
    let mut seen: HashSet<u64> = state.fibers().map(|fiber| fiber.id).collect();
    let held = state.held.iter().filter(move |held| seen.insert(held.holder));
    held.map(|held| (held.holder, held.thread.as_deref()))
}

/// Such as `fiber 'Plato' (id 7) waits in Mutex::lock …`.
fn describe(fiber: &FiberReport, names: &Names) -> String {
    let mut text = named(fiber.id, fiber.name.as_deref());
    match (fiber.state, &fiber.wait) {
        (FiberState::Parked, Some(wait)) => describe_wait(&mut text, wait, names),
        (state, _) => text.extend([" is ", state_name(state)]),
    }
    if let Some(worker) = fiber.worker {
        let _ = write!(text, "; on worker {worker}");
    }
    let _ = write!(text, "; spawned at {}", fiber.spawned_at);
    text
}

fn describe_wait(text: &mut String, wait: &WaitReport, names: &Names) {
    let operation = wait.operation;
    let _ = match wait.held_by {
        Some(id) if operation == "join" => write!(text, " waits to join {}", names.name(id)),
        Some(id) => {
            write!(text, " waits in {operation} {:#x}, which {} holds", wait.object, names.name(id))
        }
        None if wait.is_held_elsewhere() => write!(
            text,
            " waits in {operation} {:#x}, which a plain thread holds, or a fiber that has ended",
            wait.object
        ),
        None if wait.by_thread => write!(text, " waits in {operation} for another thread"),
        None => write!(text, " waits in {operation} {:#x}", wait.object),
    };
    if let Some(descriptor) = wait.descriptor {
        let _ = write!(text, " of descriptor {descriptor}");
    }
    for (i, arm) in wait.arms.iter().enumerate() {
        text.push_str(if i == 0 { " over " } else { ", " });
        text.push_str(arm.operation);
        let _ = match arm.descriptor {
            Some(descriptor) => write!(text, " of descriptor {descriptor}"),
            None if arm.operation == "join" => {
                write!(text, " of {}", names.name(arm.object as u64))
            }
            None if arm.object != 0 => write!(text, " {:#x}", arm.object),
            None => Ok(()),
        };
    }
    let _ = write!(text, ", for {}", rounded(wait.waited));
    if let Some(timeout) = wait.timeout {
        let _ = write!(text, "; time is up in {}", rounded(timeout));
    }
}

fn named(id: u64, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("fiber '{name}' (id {id})"),
        None => format!("fiber {id}"),
    }
}

fn state_name(state: FiberState) -> &'static str {
    match state {
        FiberState::NotStarted => "not started",
        FiberState::Running => "running",
        FiberState::Ready => "ready",
        FiberState::Parked => "parked",
    }
}

/// What is held, from the operation that waits for it: `Mutex` of `Mutex::lock`.
fn lock_of(operation: &str) -> &str {
    operation.split("::").next().unwrap_or(operation)
}

/// To three places or so.
fn rounded(time: Duration) -> String {
    match time.as_nanos() {
        0..=999_999 => format!("{} µs", time.as_micros()),
        1_000_000..=9_999_999_999 => format!("{} ms", time.as_millis()),
        _ => format!("{} s", time.as_secs()),
    }
}

/// The frames of `fiber`, one a line, without what is below its closure and above the operation that it called.
fn backtrace(fiber: &FiberReport, symbols: &mut Symbols) -> String {
    let mut lines = Vec::new();
    for &address in &fiber.frames {
        for symbol in symbols.at(address) {
            lines.push((symbol.is_machinery(), symbol.name.clone(), symbol.place()));
        }
    }
    // From the operation that the user's code called.
    let first = lines.iter().position(|(is_machinery, ..)| !is_machinery).unwrap_or(0);
    let first = first.saturating_sub(1);
    let last = lines.iter().rposition(|(is_machinery, ..)| !is_machinery);
    let lines = lines.get(first..last.map_or(lines.len(), |last| last + 1)).unwrap_or(&lines);
    let mut text = String::new();
    for (_, name, place) in lines {
        let _ = writeln!(text, "    at {name}{place}");
    }
    if fiber.is_truncated {
        let _ = writeln!(text, "    and more frames");
    }
    text
}

/// Prints what the watch has noticed.
pub(crate) fn report(trouble: &Trouble) {
    let mut symbols = Symbols::default();
    let mut text = String::new();
    let _ = match trouble {
        Trouble::Cycle(cycle) => {
            let names = Names::of(&cycle.fibers);
            let holds = Holds::of(&cycle.fibers, &held::all());
            let count = cycle.fibers.len();
            let _ = writeln!(text, "strands: deadlock: {count} fibers wait for each other");
            for fiber in &cycle.fibers {
                let _ = writeln!(text, "\n{}", describe(fiber, &names));
                text.push_str(&holds.text(fiber.id));
                text.push_str(&backtrace(fiber, &mut symbols));
            }
            match cycle.others_waiting {
                0 => Ok(()),
                others => writeln!(text, "\n{others} more wait for these"),
            }
        }
        Trouble::Standstill(standstill) => {
            /// So many are described.
            const MOST: usize = 64;
            let names = Names::of(&standstill.fibers);
            let holds = Holds::of(&standstill.fibers, &held::all());
            let (count, name) = (standstill.fibers.len(), &standstill.name);
            let _ = writeln!(
                text,
                "strands: deadlock: all {count} fibers of runtime {} '{name}' wait, and nothing is armed that would wake \
                 one: no time limit, no descriptor, no blocking work",
                standstill.runtime,
            );
            for fiber in standstill.fibers.iter().take(MOST) {
                let _ = writeln!(text, "\n{}", describe(fiber, &names));
                text.push_str(&holds.text(fiber.id));
                text.push_str(&backtrace(fiber, &mut symbols));
            }
            if count > MOST {
                let _ = writeln!(text, "\nand {} more", count - MOST);
            }
            writeln!(
                text,
                "\nhelp: if a plain thread or a fiber of another runtime is to wake one of them, all is well: see \
                 Builder::deadlock_reports"
            )
        }
        Trouble::Stall(stall) => {
            let mut fiber = stall.fiber.clone();
            if let Some((id, frames)) = os::sample(stall.thread_token)
                && id == fiber.id
            {
                fiber.frames = frames;
            }
            let _ = writeln!(
                text,
                "strands: {} has not let others run for {}, and holds up {} fibers, {} of them ready; on worker {}; \
                 spawned at {}",
                named(fiber.id, fiber.name.as_deref()),
                rounded(stall.stalled_for),
                stall.others,
                stall.ready,
                fiber.worker.unwrap_or(0),
                fiber.spawned_at,
            );
            text.push_str(&backtrace(&fiber, &mut symbols));
            for held_up in &stall.held_up {
                let name = named(held_up.id, held_up.name.as_deref());
                let _ = writeln!(text, "  holds up {name}; spawned at {}", held_up.spawned_at);
            }
            if stall.ready > stall.held_up.len() {
                let more = stall.ready - stall.held_up.len();
                let _ = writeln!(text, "  and {more} more that are ready");
            }
            writeln!(
                text,
                "help: call strands::yield_now now and then, or run what blocks by strands::unblock"
            )
        }
        _ => Ok(()),
    };
    os::print(&text);
}

/// Which locks a party holds: those that are written down, and those that somebody waits for.
struct Holds(HashMap<u64, Vec<Hold>>);

struct Hold {
    kind: Kind,
    object: usize,
    /// None: it is not known.
    held_for: Option<Duration>,
}

impl Holds {
    fn of<'a>(
        fibers: impl IntoIterator<Item = &'a FiberReport>,
        written_down: &[HeldLock],
    ) -> Holds {
        let mut holds: HashMap<u64, Vec<Hold>> = HashMap::new();
        for &HeldLock { holder, kind, object, held_for, .. } in written_down {
            let hold = Hold { kind, object, held_for: Some(held_for) };
            holds.entry(holder).or_default().push(hold);
        }
        for fiber in fibers {
            let Some(wait) = &fiber.wait else { continue };
            let Some(id) = wait.held_by.filter(|_| wait.operation != "join") else { continue };
            let held = holds.entry(id).or_default();
            if held.iter().all(|hold| hold.object != wait.object) {
                // Of those who read nobody says who waits for them.
                let is_mutex = lock_of(wait.operation) == "Mutex";
                let kind = if is_mutex { Kind::Mutex } else { Kind::Write };
                held.push(Hold { kind, object: wait.object, held_for: None });
            }
        }
        for held in holds.values_mut() {
            held.sort_by_key(|hold| std::cmp::Reverse(hold.held_for)); // As they were taken.
        }
        Holds(holds)
    }

    fn by(&self, id: u64) -> &[Hold] {
        self.0.get(&id).map_or(&[], |held| held)
    }

    /// Each on a line of its own.
    fn text(&self, id: u64) -> String {
        let mut text = String::new();
        for Hold { kind, object, held_for } in self.by(id) {
            let (lock, mode) = match kind {
                Kind::Mutex => ("Mutex", ""),
                Kind::Read => ("RwLock", " for reading"),
                Kind::Write => ("RwLock", " for writing"),
            };
            let _ = write!(text, "    holds the {lock} {object:#x}{mode}");
            if let Some(time) = held_for {
                let _ = write!(text, ", for {}", rounded(*time));
            }
            text.push('\n');
        }
        text
    }
}

struct Names(HashMap<u64, String>);

impl Names {
    fn of<'a>(fibers: impl IntoIterator<Item = &'a FiberReport>) -> Names {
        let names = fibers.into_iter().filter_map(|fiber| Some((fiber.id, fiber.name.clone()?)));
        Names(names.collect())
    }

    fn name(&self, id: u64) -> String {
        named(id, self.0.get(&id).map(String::as_str))
    }
}

/// What is at return addresses, each looked up once.
#[derive(Default)]
struct Symbols(HashMap<usize, Vec<Symbol>>);

struct Symbol {
    name: String,
    file: Option<String>,
    line: Option<u32>,
}

impl Symbols {
    fn at(&mut self, address: usize) -> &[Symbol] {
        self.0.entry(address).or_insert_with(|| {
            let mut symbols = Vec::new();
            backtrace::resolve(std::ptr::without_provenance_mut::<c_void>(address), |symbol| {
                symbols.push(Symbol {
                    // Without the hash at its end.
                    name: symbol.name().map_or("<unknown>".into(), |name| format!("{name:#}")),
                    file: symbol.filename().map(|file| file.display().to_string()),
                    line: symbol.lineno(),
                });
            });
            if symbols.is_empty() {
                symbols.push(Symbol { name: "<unknown>".into(), file: None, line: None });
            }
            symbols
        })
    }
}

impl Symbol {
    /// Whether it is of what fibers wait by and what starts them, or of what std has in between.
    fn is_machinery(&self) -> bool {
        let crates = ["strands-sched", "strands-fiber", "strands-sync", "strands-reactor"];
        let names = ["strands_", "core::", "std::", "__rust_try", "unknown>"];
        match &self.file {
            Some(file) => {
                let mut parts = file.split(['/', '\\']);
                file.starts_with("/rustc/")
                    || parts.any(|part| crates.iter().any(|name| part.starts_with(name)))
            }
            None => names.iter().any(|name| self.name.trim_start_matches('<').starts_with(name)),
        }
    }

    fn place(&self) -> String {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("  ({}:{line})", from_here(file)),
            _ => String::new(),
        }
    }
}

/// A path as one would type it: relative, if it is below the working directory.
fn from_here(file: &str) -> &str {
    let here = std::env::current_dir().ok();
    let below = here.as_deref().and_then(|here| Path::new(file).strip_prefix(here).ok());
    below.and_then(Path::to_str).unwrap_or(file)
}

fn runtime_json(json: &mut Json, runtime: &RuntimeReport, holds: &Holds, symbols: &mut Symbols) {
    json.object(|json| {
        json.member("id", |json| json.number(runtime.id));
        json.member("name", |json| json.string(&runtime.name));
        json.member("workers", |json| {
            json.array(&runtime.workers, |json, worker| {
                json.object(|json| {
                    json.member("index", |json| json.number(worker.index as u64));
                    json.member("answered", |json| json.boolean(worker.has_answered));
                    json.member("slices", |json| json.number(worker.slices as u64));
                    let pause_ns = worker.longest_slice.as_nanos() as u64;
                    json.member("longest_pause_ns", |json| json.number(pause_ns));
                    let more = worker.more_not_started as u64;
                    json.member("more_not_started", |json| json.number(more));
                });
            });
        });
        json.member("more_not_started", |json| json.number(runtime.more_not_started as u64));
        json.member("fibers", |json| {
            json.array(runtime.fibers(), |json, fiber| fiber_json(json, fiber, holds, symbols));
        });
    });
}

fn fiber_json(json: &mut Json, fiber: &FiberReport, holds: &Holds, symbols: &mut Symbols) {
    json.object(|json| {
        json.member("id", |json| json.number(fiber.id));
        json.member("name", |json| json.optional(fiber.name.as_deref(), Json::string));
        let worker = fiber.worker.map(|worker| worker as u64);
        json.member("worker", |json| json.optional(worker, Json::number));
        json.member("state", |json| json.string(state_name(fiber.state)));
        json.member("spawned_at", |json| {
            json.object(|json| {
                json.member("file", |json| json.string(fiber.spawned_at.file()));
                json.member("line", |json| json.number(fiber.spawned_at.line().into()));
                json.member("column", |json| json.number(fiber.spawned_at.column().into()));
            });
        });
        json.member("wait", |json| {
            json.optional(fiber.wait.as_ref(), |json, wait| {
                json.object(|json| {
                    json.member("operation", |json| json.string(wait.operation));
                    json.member("object", |json| json.address(wait.object));
                    let waited_ns = wait.waited.as_nanos() as u64;
                    json.member("waited_ns", |json| json.number(waited_ns));
                    json.member("held_by", |json| json.optional(wait.held_by, Json::number));
                    let timeout_ns = wait.timeout.map(|timeout| timeout.as_nanos() as u64);
                    json.member("timeout_ns", |json| json.optional(timeout_ns, Json::number));
                    json.member("descriptor", |json| json.optional(wait.descriptor, Json::number));
                    json.member("by_thread", |json| json.boolean(wait.by_thread));
                    json.member("arms", |json| {
                        json.array(&wait.arms, |json, arm| {
                            json.object(|json| {
                                json.member("operation", |json| json.string(arm.operation));
                                json.member("object", |json| json.address(arm.object));
                                json.member("descriptor", |json| {
                                    json.optional(arm.descriptor, Json::number);
                                });
                            });
                        });
                    });
                });
            });
        });
        json.member("holds", |json| {
            holds_json(json, holds.by(fiber.id));
        });
        json.member("frames", |json| {
            json.array(&fiber.frames, |json, &address| {
                json.object(|json| {
                    json.member("address", |json| json.address(address));
                    json.member("symbols", |json| {
                        json.array(symbols.at(address), |json, symbol| {
                            json.object(|json| {
                                json.member("name", |json| json.string(&symbol.name));
                                let file = symbol.file.as_deref();
                                json.member("file", |json| json.optional(file, Json::string));
                                let line = symbol.line.map(u64::from);
                                json.member("line", |json| json.optional(line, Json::number));
                            });
                        });
                    });
                });
            });
        });
        json.member("truncated", |json| json.boolean(fiber.is_truncated));
    });
}

fn holds_json(json: &mut Json, holds: &[Hold]) {
    json.array(holds, |json, hold| {
        let (operation, mode) = match hold.kind {
            Kind::Mutex => ("Mutex::lock", "exclusive"),
            Kind::Read => ("RwLock::read", "shared"),
            Kind::Write => ("RwLock::write", "exclusive"),
        };
        json.object(|json| {
            json.member("operation", |json| json.string(operation));
            json.member("object", |json| json.address(hold.object));
            json.member("mode", |json| json.string(mode));
            let held_ns = hold.held_for.map(|time| time.as_nanos() as u64);
            json.member("held_ns", |json| json.optional(held_ns, Json::number));
        });
    });
}

/// Writes JSON: all that is needed here, with the escapes of RFC 8259.
#[derive(Default)]
struct Json {
    text: String,
    /// Something comes before, from which the next is to be separated.
    after_another: bool,
}

impl Json {
    fn object(&mut self, members: impl FnOnce(&mut Json)) {
        self.nested('{', '}', members);
    }

    fn member(&mut self, name: &str, value: impl FnOnce(&mut Json)) {
        self.separate();
        self.string(name);
        self.text.push(':');
        value(self);
        self.after_another = true;
    }

    fn array<T>(&mut self, items: impl IntoIterator<Item = T>, mut item: impl FnMut(&mut Json, T)) {
        self.nested('[', ']', |json| {
            for value in items {
                json.separate();
                item(json, value);
                json.after_another = true;
            }
        });
    }

    fn nested(&mut self, open: char, close: char, contents: impl FnOnce(&mut Json)) {
        self.text.push(open);
        self.after_another = false;
        contents(self);
        self.text.push(close);
    }

    fn separate(&mut self) {
        if self.after_another {
            self.text.push(',');
        }
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Json, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.text.push_str("null"),
        }
    }

    fn boolean(&mut self, value: bool) {
        self.text.push_str(if value { "true" } else { "false" });
    }

    fn number(&mut self, value: u64) {
        let _ = write!(self.text, "{value}");
    }

    fn address(&mut self, value: usize) {
        let _ = write!(self.text, "\"{value:#x}\"");
    }

    fn string(&mut self, value: &str) {
        self.text.push('"');
        for character in value.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\0'..' ' => {
                    let _ = write!(self.text, "\\u{:04x}", u32::from(character));
                }
                _ => self.text.push(character),
            }
        }
        self.text.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_a_parser_expects() {
        let nasty =
            "quote \" backslash \\ newline \n nul \0 escape \u{1b} delete \u{7f} é 🦀 \u{2028}";
        let mut json = Json::default();
        json.string(nasty);
        let parsed: serde_json::Value = serde_json::from_str(&json.text).unwrap();
        assert_eq!(parsed, serde_json::Value::from(nasty));
    }

    #[test]
    fn nested_values_are_separated() {
        let mut json = Json::default();
        json.object(|json| {
            json.member("empty", |json| json.object(|_| {}));
            json.member("list", |json| json.array([1, 2], Json::number));
            json.member("none", |json| json.optional(None::<u64>, Json::number));
            json.member("lists", |json| {
                json.array([vec![], vec![3]], |json, list| json.array(list, Json::number));
            });
            json.member("yes", |json| json.boolean(true));
        });
        let text = r#"{"empty":{},"list":[1,2],"none":null,"lists":[[],[3]],"yes":true}"#;
        assert_eq!(json.text, text);
    }
}
