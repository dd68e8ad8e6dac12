//! Who takes part: a fiber of the epoch's runtime, a fiber of the default one, or a plain thread.
//!
//! A [`Party`] lies on the stack of what it stands for, with words around it that must not change,
//! and with a [`Life`] that ends with it. The life was made before the spawn and moved into the
//! closure, so it is dropped exactly once whatever becomes of the closure, and its drop says which:
//! never started, returned, panicked, cancelled. Who joins compares that with what it got.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex as StdMutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
use std::sync::{Arc, TryLockError};

use fastrand::Rng;
use strands::Runtime;
use strands::cancel::Cancelled;
use strands::sync::mpsc;
use strands::thread::{Builder, JoinHandle, LocalJoinHandle, Placement};

use crate::books::{self, Count, check, violation};

/// Parties that were made and have not ended.
pub static LIVE: AtomicUsize = AtomicUsize::new(0);
/// Nobody begins another episode.
pub static OVER: AtomicBool = AtomicBool::new(false);
/// The epoch's runtime is being shut down: its fibers are cancelled, and it refuses new ones.
pub static STOPPING: AtomicBool = AtomicBool::new(false);
/// The epoch's runtime limits its stacks: it may refuse fibers for want of one.
pub static STACKS_ARE_LIMITED: AtomicBool = AtomicBool::new(false);
/// The epoch's runtime, while it accepts fibers from elsewhere. A party only ever tries to read:
/// it may hold up the writer, but must not block its worker.
pub static RUNTIME: RwLock<Option<Runtime>> = RwLock::new(None);
/// The plain threads that parties started.
pub static THREADS: StdMutex<Vec<std::thread::JoinHandle<()>>> = StdMutex::new(Vec::new());
static LIVE_THREADS: AtomicUsize = AtomicUsize::new(0);
const MOST_THREADS: usize = 6;

/// Whether the epoch wants to end.
pub fn is_over() -> bool {
    OVER.load(Relaxed)
}

/// Whether others may be gone without having done their part.
pub fn others_may_be_gone() -> bool {
    STOPPING.load(SeqCst) || STACKS_ARE_LIMITED.load(SeqCst)
}

/// Where a party runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// A fiber of the epoch's runtime.
    Epoch,
    /// A fiber of the default runtime: it is never cancelled.
    Default,
    /// A fiber of a runtime that a party made, and which cancels it.
    Inner,
    /// A plain thread.
    Thread,
}

/// How a party ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// Not yet.
    Open,
    Unstarted,
    Returned,
    Panicked,
    Cancelled,
}

impl Fate {
    fn from(byte: u8) -> Fate {
        let all = [Fate::Open, Fate::Unstarted, Fate::Returned, Fate::Panicked, Fate::Cancelled];
        all[usize::from(byte)]
    }
}

/// The payload of a panic that is part of the plan.
pub struct Deliberate {
    by: u64,
}

/// From a spawn to the end.
struct Life {
    id: u64,
    home: Home,
    started: Cell<bool>,
    returned: Cell<bool>,
    /// It is about to panic, or does.
    panics: Cell<bool>,
    /// It did once.
    has_panicked: Cell<bool>,
    fate: Arc<AtomicU8>,
}

impl Life {
    fn new(home: Home, activity: &'static str) -> Life {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Relaxed);
        roll().insert(id, (activity, home));
        LIVE.fetch_add(1, SeqCst);
        books::count(Count::Begun);
        Life {
            id,
            home,
            started: Cell::new(false),
            returned: Cell::new(false),
            panics: Cell::new(false),
            has_panicked: Cell::new(false),
            fate: Arc::new(AtomicU8::new(Fate::Open as u8)),
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let fate = match (self.started.get(), self.returned.get(), self.panics.get()) {
            (false, ..) => Fate::Unstarted,
            (_, true, _) => Fate::Returned,
            (_, _, true) => Fate::Panicked,
            _ => Fate::Cancelled,
        };
        let before = Fate::from(self.fate.swap(fate as u8, SeqCst));
        check(before == Fate::Open, || {
            format!("party {} ended twice: {before:?}, {fate:?}", self.id)
        });
        let stopping = STOPPING.load(SeqCst) || self.home == Home::Inner;
        let may_be_cancelled = stopping && matches!(self.home, Home::Epoch | Home::Inner);
        match fate {
            Fate::Unstarted => {
                check(may_be_cancelled || others_may_be_gone(), || {
                    format!(
                        "party {} ({:?}) never started, and nobody stopped it",
                        self.id, self.home
                    )
                });
                books::count(Count::Unstarted);
            }
            Fate::Cancelled => {
                check(may_be_cancelled, || {
                    format!("party {} ({:?}) unwound without a reason", self.id, self.home)
                });
                books::count(Count::Cancelled);
            }
            Fate::Panicked => books::count(Count::Panicked),
            _ => books::count(Count::Returned),
        }
        roll().remove(&self.id);
        LIVE.fetch_sub(1, SeqCst);
    }
}

/// Who lives: what it does, and where.
pub fn roll() -> MutexGuard<'static, BTreeMap<u64, (&'static str, Home)>> {
    static ROLL: StdMutex<BTreeMap<u64, (&'static str, Home)>> = StdMutex::new(BTreeMap::new());
    ROLL.lock().unwrap_or_else(PoisonError::into_inner)
}

const CANARIES: usize = 16;

/// Who runs here. It lies on the stack of what it stands for.
pub struct Party {
    /// Its own random numbers.
    pub rng: Rng,
    /// What it does, for names.
    activity: &'static str,
    home: Home,
    low: [u64; CANARIES],
    life: Life,
    high: [u64; CANARIES],
}

/// A party that was started.
pub struct Started<T> {
    id: u64,
    fate: Arc<AtomicU8>,
    handle: Handle<T>,
}

/// A party that was started on the starter's worker.
pub struct StartedHere<T> {
    id: u64,
    fate: Arc<AtomicU8>,
    handle: LocalJoinHandle<T>,
}

enum Handle<T> {
    Fiber(JoinHandle<T>),
    /// Its value comes here. (Joining a thread would block the worker.)
    Thread(mpsc::Receiver<T>),
}

impl Party {
    fn new(rng: Rng, activity: &'static str, life: Life) -> Party {
        life.started.set(true);
        let word = life.id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Party {
            rng,
            activity,
            home: life.home,
            low: [word; CANARIES],
            life,
            high: [!word; CANARIES],
        }
    }

    /// A party for the calling plain thread or root fiber, to run `f` as.
    pub fn root<T>(rng: Rng, home: Home, f: impl FnOnce(&mut Party) -> T) -> T {
        let mut party = Party::new(rng, "driver", Life::new(home, "driver"));
        let value = f(&mut party);
        party.life.returned.set(true);
        value
    }

    /// It does something else now.
    pub fn turn_to(&mut self, activity: &'static str) {
        self.activity = activity;
        roll().insert(self.life.id, (activity, self.home));
    }

    /// Where it runs.
    pub fn home(&self) -> Home {
        self.home
    }

    /// Whether it is a fiber.
    pub fn is_fiber(&self) -> bool {
        self.home != Home::Thread
    }

    /// Looks whether the words around it are as they were.
    pub fn look_at_canaries(&self) {
        let word = self.life.id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let intact = self.low == [word; CANARIES] && self.high == [!word; CANARIES];
        check(intact, || format!("the stack of party {} was written to by others", self.life.id));
    }

    /// Panics, as planned.
    pub fn panic(&mut self) -> ! {
        self.life.panics.set(true);
        self.life.has_panicked.set(true);
        panic::panic_any(Deliberate { by: self.life.id })
    }

    /// Runs `f`; None if it panicked as planned. A cancel goes on.
    pub fn catch<T>(&mut self, f: impl FnOnce(&mut Party) -> T) -> Option<T> {
        match panic::catch_unwind(AssertUnwindSafe(|| f(self))) {
            Ok(value) => Some(value),
            Err(payload) if payload.is::<Deliberate>() => {
                self.life.panics.set(false);
                None
            }
            Err(payload) => panic::resume_unwind(payload),
        }
    }

    /// A closure that runs `f` as a party of its own.
    pub fn body<T, F: FnOnce(&mut Party) -> T>(
        &mut self,
        home: Home,
        f: F,
    ) -> (u64, Arc<AtomicU8>, impl FnOnce() -> T + use<T, F>) {
        let life = Life::new(home, self.activity);
        let (id, fate) = (life.id, life.fate.clone());
        let (rng, activity) = (self.rng.fork(), self.activity);
        let body = move || {
            let mut party = Party::new(rng, activity, life);
            let value = f(&mut party);
            party.look_at_canaries();
            let believed = strands::thread::panicking() && !party.life.has_panicked.get();
            check(!believed, || format!("party {id} unwinds, it seems, and never panicked"));
            party.life.returned.set(true);
            value
        };
        (id, fate, body)
    }

    /// A builder with some settings.
    pub fn builder(&mut self) -> Builder {
        let builder = Builder::new();
        let builder = match self.rng.u32(..8) {
            0 => builder.stack_size(64 * 1024),
            1 => builder.stack_size(512 * 1024),
            _ => builder,
        };
        let builder = match self.rng.u32(..8) {
            0 if self.is_fiber() => builder.placement(Placement::Here),
            1 => builder.placement(Placement::Worker(0)),
            _ => builder,
        };
        if self.rng.bool() { builder.name(self.activity.into()) } else { builder }
    }

    /// Starts a party somewhere: mostly a fiber of the same runtime, at times one of another
    /// runtime or a plain thread. None if that was refused, as it may be at the end of an epoch.
    #[track_caller]
    pub fn start<T, F>(&mut self, f: F) -> Option<Started<T>>
    where
        F: FnOnce(&mut Party) -> T + Send + 'static,
        T: Send + 'static,
    {
        match (self.rng.u32(..16), self.home) {
            (0, _) if LIVE_THREADS.load(Relaxed) < MOST_THREADS => self.start_thread(f),
            (1, Home::Epoch) => {
                // Inside, the caller is a plain thread, which spawns on the default runtime.
                let (id, fate, body) = self.body(Home::Default, f);
                let builder = Builder::new();
                let handle = accepted(strands::unblock(|| builder.spawn(body)))?;
                Some(Started { id, fate, handle: Handle::Fiber(handle) })
            }
            (1..8, Home::Default | Home::Thread) if !STACKS_ARE_LIMITED.load(SeqCst) => {
                let guard = match RUNTIME.try_read() {
                    Ok(guard) => guard,
                    Err(TryLockError::WouldBlock) => return self.start_fiber(f),
                    Err(TryLockError::Poisoned(_)) => unreachable!("nobody panics under it"),
                };
                let Some(runtime) = guard.as_ref() else {
                    drop(guard);
                    return self.start_fiber(f);
                };
                let (id, fate, body) = self.body(Home::Epoch, f);
                let handle = runtime.spawn(body);
                Some(Started { id, fate, handle: Handle::Fiber(handle) })
            }
            _ => self.start_fiber(f),
        }
    }

    /// Starts a fiber of the same runtime; of the default one, if this is a plain thread.
    #[track_caller]
    pub fn start_fiber<T, F>(&mut self, f: F) -> Option<Started<T>>
    where
        F: FnOnce(&mut Party) -> T + Send + 'static,
        T: Send + 'static,
    {
        let home = if self.home == Home::Thread { Home::Default } else { self.home };
        let builder = self.builder();
        let (id, fate, body) = self.body(home, f);
        let handle = accepted(builder.spawn(body))?;
        Some(Started { id, fate, handle: Handle::Fiber(handle) })
    }

    /// Starts a fiber of the same worker. Only for fibers.
    #[track_caller]
    pub fn start_local<T, F>(&mut self, f: F) -> Option<StartedHere<T>>
    where
        F: FnOnce(&mut Party) -> T + 'static,
        T: 'static,
    {
        let builder = self.builder();
        let (id, fate, body) = self.body(self.home, f);
        let handle = accepted(builder.spawn_local(body))?;
        Some(StartedHere { id, fate, handle })
    }

    fn start_thread<T, F>(&mut self, f: F) -> Option<Started<T>>
    where
        F: FnOnce(&mut Party) -> T + Send + 'static,
        T: Send + 'static,
    {
        let (id, fate, body) = self.body(Home::Thread, f);
        let (sender, receiver) = mpsc::channel();
        LIVE_THREADS.fetch_add(1, Relaxed);
        let main = move || {
            match panic::catch_unwind(AssertUnwindSafe(body)) {
                Ok(value) => drop(sender.send(value)),
                Err(payload) => {
                    let planned = payload.is::<Deliberate>();
                    check(planned, || format!("thread of party {id}: an unplanned panic"));
                }
            }
            LIVE_THREADS.fetch_sub(1, Relaxed);
        };
        let thread = std::thread::Builder::new().name("soak-party".into()).spawn(main);
        let thread = thread.expect("a thread can be started");
        THREADS.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Some(Started { id, fate, handle: Handle::Thread(receiver) })
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        self.look_at_canaries();
    }
}

/// The handle, or None for a refusal that has a reason.
#[track_caller]
pub fn accepted<H>(spawned: io::Result<H>) -> Option<H> {
    let error = match spawned {
        Ok(handle) => return Some(handle),
        Err(error) => error,
    };
    let has_reason = match error.kind() {
        io::ErrorKind::OutOfMemory => STACKS_ARE_LIMITED.load(SeqCst),
        io::ErrorKind::Other => STOPPING.load(SeqCst),
        _ => false,
    };
    check(has_reason, || format!("a spawn was refused: {error}"));
    books::count(Count::Refused);
    None
}

impl<T> Started<T> {
    /// Waits for it. None if it panicked as planned or was cancelled.
    pub fn join(self) -> Option<T> {
        let result = match self.handle {
            Handle::Fiber(handle) => handle.join(),
            Handle::Thread(receiver) => {
                let by = self.id;
                receiver.recv().map_err(|_| Box::new(Deliberate { by }) as Box<_>)
            }
        };
        joined(self.id, &self.fate, result)
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        match &self.handle {
            Handle::Fiber(handle) => handle.is_finished(),
            Handle::Thread(_) => Fate::from(self.fate.load(SeqCst)) != Fate::Open,
        }
    }
}

impl<T> StartedHere<T> {
    /// As [`Started::join`].
    pub fn join(self) -> Option<T> {
        joined(self.id, &self.fate, self.handle.join())
    }
}

/// Compares what a join gave with how the party ended.
fn joined<T>(id: u64, fate: &AtomicU8, result: strands::thread::Result<T>) -> Option<T> {
    books::count(Count::Joined);
    let fate = Fate::from(fate.load(SeqCst));
    let fits = match &result {
        Ok(_) => fate == Fate::Returned,
        Err(payload) if payload.is::<Cancelled>() => {
            matches!(fate, Fate::Cancelled | Fate::Unstarted)
        }
        Err(payload) => match payload.downcast_ref::<Deliberate>() {
            Some(deliberate) => fate == Fate::Panicked && deliberate.by == id,
            None => false,
        },
    };
    check(fits, || {
        let got = match &result {
            Ok(_) => "a value",
            Err(payload) if payload.is::<Cancelled>() => "Cancelled",
            Err(payload) if payload.is::<Deliberate>() => "a planned panic",
            Err(_) => "an unknown payload",
        };
        format!("joining party {} gave {got}, but it ended as {fate:?}", id)
    });
    result.ok()
}

/// Reports panics that nobody planned; the others are silent.
pub fn install_panic_hook() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().is::<Deliberate>() || info.payload().is::<InDrop>() {
            return;
        }
        let text = info.payload_as_str().unwrap_or_default();
        if text == "a scoped thread panicked" {
            return; // Counted by who opened the scope.
        }
        if text.starts_with("a fiber has dropped the runtime") {
            return; // Expected by who had it dropped.
        }
        violation(format_args!("an unplanned panic: {text}"));
        default(info);
    }));
}

/// The payload of a destructor's panic that is part of the plan.
pub struct InDrop;
