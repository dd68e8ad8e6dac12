//! What is spawned, and what can wait.
//!
//! A [`Header`] stands for a party that can wait and be woken: a fiber or a plain OS thread. It is
//! counted, so a waker that holds a [`TaskRef`] may use it whatever has become of the waiter's
//! frame. A fiber's header is the first field of its [`Task`], whose other half is the closure,
//! later the result: until it first runs a fiber is no more than that.
//!
//! # Who touches what
//!
//! - `run`, `context`, `stack`, `locals`, `lot`, `shields`, `fallible`, `frames`: the owning worker's thread
//!   only (of a plain thread's header: that thread only). `run` may be *read* by reports.
//! - `refs`, `flags`, `token`, `link`, `worker`, `joined`, `op`, `object`, `since_ns`, `until_ns`, `detail`:
//!   any thread, by atomics. What `detail` leads to: the owning worker's thread only, while the party is parked.
//! - the `live` links: under the owning worker's live-list lock.
//! - the rest does not change.
//!
//! # Waking
//!
//! Only the owner changes `run`. A waker of another thread publishes its reason first (a latch, a
//! parker's word, the token), then queues the header in the owner's inbox. The owner makes it ready if it
//! is parked, and drops the matter if not: a fiber looks at its reason before it parks, and
//! the inbox is emptied only when no fiber runs, so a reason published before the look is
//! seen by the look and one published after it is found in the inbox after the park. One link and one
//! `QUEUED` bit suffice: a wake that finds the bit set is covered by the one that set it, as the owner clears
//! the bit by a read-modify-write before it acts.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::mem::{self, ManuallyDrop};
use std::panic::{self, AssertUnwindSafe, Location};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize as StdAtomicUsize};
use std::thread;

use strands_fiber::arch::Context;
use strands_fiber::stack::Stack;

use crate::about::{About, Noted};
use crate::atomic::{AcqRel, Acquire, AtomicPtr, AtomicU32, Relaxed, Release, acquire_last};
use crate::cancel::{self, Cancelled};
use crate::children::{Member, Unhandled};
use crate::current::{self, PlainThread};
use crate::fork;
use crate::frame::{Frames, Shields};
use crate::inbox::Linked;
use crate::latch::{Latch, Set};
use crate::local::Locals;
use crate::park::{self, Op, Parker};
use crate::select::{Arm, Operation};
use crate::watch;
use crate::worker::Worker;

/// A party that can wait and be woken.
///
/// ```
/// use strands_sched::{Builder, Header, SpawnOptions, with_current_task};
///
/// fn describe(party: &Header) -> String {
///     format!("{} {:?}", if party.is_thread() { "thread" } else { "fiber" }, party.name())
/// }
///
/// let runtime = Builder::new().workers(1).build()?;
/// let options = SpawnOptions { name: Some("parser".into()), ..SpawnOptions::default() };
/// let text = runtime.run(options, || with_current_task(describe))?;
/// assert_eq!(text, "fiber Some(\"parser\")");
/// # std::io::Result::Ok(())
/// ```
#[repr(C)]
pub struct Header {
    context: UnsafeCell<Context>,
    /// The owner. Null for a plain thread, and for a fiber until it starts.
    worker: AtomicPtr<Worker>,
    /// Beside what a switch looks at anyway, as it looks at this too.
    id: u64,
    flags: AtomicU32,
    refs: AtomicU32,
    run: AtomicU8,
    /// Those that are inside of its innermost frame.
    pub(crate) shields: Cell<Shields>,
    /// It does what can fail: a cancel may become an error.
    pub(crate) fallible: Cell<bool>,
    /// Where an unwinding may stop.
    pub(crate) frames: Frames,
    /// [`Cancelled`] payloads of it that exist; owner only, like `shields`.
    pub(crate) cancel_payloads: Cell<u32>,
    /// What a select draws lots from; owner only, like `shields`. Never 0.
    pub(crate) lot: Cell<u32>,
    /// `thread::park`'s token.
    pub(crate) token: AtomicU32,
    link: AtomicPtr<Header>,
    pub(crate) joined: Latch,
    op: std::sync::atomic::AtomicPtr<Op>,
    object: StdAtomicUsize,
    /// When it last parked, by its worker's clock.
    since_ns: std::sync::atomic::AtomicU64,
    /// When the time is up for which it waits, by its worker's clock; 0: it has no time limit.
    until_ns: std::sync::atomic::AtomicU64,
    /// More about what it waits for: see [`about`](crate::about).
    detail: StdAtomicUsize,
    live_next: Cell<*mut Header>,
    live_previous: Cell<*mut Header>,
    stack: UnsafeCell<Option<Stack>>,
    /// Empty for a plain thread, which has thread-locals.
    pub(crate) locals: Locals,
    vtable: &'static VTable,
    spawned_at: &'static Location<'static>,
    extras: Option<Box<Extras>>,
}

// SAFETY: see "Who touches what": fields that are not atomic are confined to the owner's thread,
// or to the holder of the live-list lock, or do not change.
unsafe impl Sync for Header {}
// SAFETY: as above; nothing in it is tied to the thread that made it.
unsafe impl Send for Header {}

/// What few fibers have.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    pub(crate) name: Option<Box<str>>,
    pub(crate) stack_bytes: Option<usize>,
    pub(crate) stack_help: Option<&'static str>,
}

pub(crate) struct VTable {
    /// Runs the closure on the fiber's own stack and stores the result; never unwinds.
    run: unsafe fn(NonNull<Header>),
    /// Moves the result out to `*mut thread::Result<T>`.
    take: unsafe fn(NonNull<Header>, *mut ()),
    /// Frees the task with what it still holds.
    free: unsafe fn(NonNull<Header>),
    /// It is a `Task<_, _, Member>`.
    is_member: bool,
}

const STARTED: u32 = 1 << 0;
const QUEUED: u32 = 1 << 1;
const CANCEL: u32 = 1 << 2;
const THREAD: u32 = 1 << 3;
const PINNED: u32 = 1 << 4;
const FORWARDED: u32 = 1 << 5;

/// What its owner knows of a fiber.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Run {
    Fresh,
    Running,
    Ready,
    Parked,
    Ended,
}

/// The header of a new task or thread, from where it was allocated: `whole` starts with it.
pub(crate) fn expose<T>(whole: Box<T>) -> NonNull<Header> {
    let whole = Box::into_raw(whole);
    whole.expose_provenance();
    // SAFETY: a box is not null.
    unsafe { NonNull::new_unchecked(whole.cast()) }
}

impl Header {
    fn new(
        vtable: &'static VTable,
        flags: u32,
        refs: u32,
        id: u64,
        spawned_at: &'static Location<'static>,
        extras: Option<Box<Extras>>,
    ) -> Header {
        Header {
            context: UnsafeCell::new(Context::new()),
            worker: AtomicPtr::new(ptr::null_mut()),
            id,
            flags: AtomicU32::new(flags),
            refs: AtomicU32::new(refs),
            run: AtomicU8::new(Run::Fresh as u8),
            shields: Cell::default(),
            fallible: Cell::new(false),
            frames: Frames::default(),
            cancel_payloads: Cell::new(0),
            lot: Cell::new((id as u32).wrapping_mul(0x9E37_79B9) | 1),
            token: AtomicU32::new(0),
            link: AtomicPtr::new(ptr::null_mut()),
            joined: Latch::new(),
            op: std::sync::atomic::AtomicPtr::new(ptr::null_mut()),
            object: StdAtomicUsize::new(0),
            since_ns: std::sync::atomic::AtomicU64::new(0),
            until_ns: std::sync::atomic::AtomicU64::new(0),
            detail: StdAtomicUsize::new(0),
            live_next: Cell::new(ptr::null_mut()),
            live_previous: Cell::new(ptr::null_mut()),
            stack: UnsafeCell::new(None),
            locals: Locals::new(),
            vtable,
            spawned_at,
            extras,
        }
    }

    /// The header of a plain thread, whose whole is freed by `free`.
    pub(crate) fn of_thread(id: u64, name: Option<Box<str>>, worker: *mut Worker) -> Header {
        static THREAD_VTABLE: VTable = VTable {
            run: |_| unreachable!("a plain thread's header was run"),
            take: |_, _| unreachable!("a plain thread's header was joined"),
            free: PlainThread::free,
            is_member: false,
        };
        let extras = name.map(|name| Box::new(Extras { name: Some(name), ..Extras::default() }));
        let header =
            Header::new(&THREAD_VTABLE, THREAD | STARTED, 1, id, Location::caller(), extras);
        header.worker.store(worker, Relaxed);
        header.set_run(Run::Running);
        header
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn for_tests() -> TaskRef {
        let (task, _) = Task::allocate(|| Ok(()), 1, Location::caller(), None, (), false);
        task
    }

    /// A pointer to the whole that the header is the first part of, not to the header alone.
    ///
    /// A reference to the header may be used for the header's bytes only; this goes back to the
    /// pointer that [`expose`] was given.
    #[inline(always)]
    pub(crate) fn whole(&self) -> NonNull<Header> {
        let whole = ptr::with_exposed_provenance_mut(ptr::from_ref(self).addr());
        // SAFETY: the address of a reference.
        unsafe { NonNull::new_unchecked(whole) }
    }

    #[inline(always)]
    pub(crate) fn context(&self) -> *mut Context {
        self.context.get()
    }

    #[inline(always)]
    pub(crate) fn stack_pointer(&self) -> *const u8 {
        // SAFETY: asked on the owner's thread only, where each switch that writes it happens too.
        unsafe { (*self.context.get()).stack_pointer() }
    }

    #[inline(always)]
    pub(crate) fn worker(&self) -> *const Worker {
        self.worker.load(Relaxed)
    }

    /// Whether it is a whole OS thread: a plain one, or a worker on its own stack.
    ///
    /// ```
    /// use strands_sched::{Builder, SpawnOptions, with_current_task};
    ///
    /// assert!(with_current_task(|me| me.is_thread()));
    /// let runtime = Builder::new().workers(1).build()?;
    /// let in_fiber = || with_current_task(|me| me.is_thread());
    /// assert!(!runtime.run(SpawnOptions::default(), in_fiber)?);
    /// # std::io::Result::Ok(())
    /// ```
    #[inline(always)]
    pub fn is_thread(&self) -> bool {
        // Set at birth, so any order will do.
        self.flags.load(Relaxed) & THREAD != 0
    }

    #[inline(always)]
    pub(crate) fn run(&self) -> Run {
        match self.run.load(Relaxed) {
            0 => Run::Fresh,
            1 => Run::Running,
            2 => Run::Ready,
            3 => Run::Parked,
            _ => Run::Ended,
        }
    }

    #[inline(always)]
    pub(crate) fn set_run(&self, run: Run) {
        self.run.store(run as u8, Relaxed);
    }

    /// Marks the fiber as ready if it is parked; says whether it was. Owner only.
    #[inline(always)]
    pub(crate) fn become_ready(&self) -> bool {
        let parked = self.run() == Run::Parked;
        if parked {
            self.set_run(Run::Ready);
        }
        parked
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.flags.load(Relaxed) & PINNED != 0
    }

    pub(crate) fn is_forwarded(&self) -> bool {
        self.flags.load(Relaxed) & FORWARDED != 0
    }

    /// Whether it was marked as forwarded; it is not any more.
    pub(crate) fn take_forwarded(&self) -> bool {
        self.is_forwarded() && self.flags.fetch_and(!FORWARDED, Relaxed) & FORWARDED != 0
    }

    pub(crate) fn set_forwarded(&self) {
        self.flags.fetch_or(FORWARDED, Relaxed);
    }

    /// Whether a cancel has been asked for.
    #[inline(always)]
    pub(crate) fn cancel_requested(&self) -> bool {
        self.flags.load(Acquire) & CANCEL != 0
    }

    /// Notes why the party is about to wait, for reports.
    #[inline(always)]
    pub(crate) fn set_wait(&self, op: &'static Op, object: usize) {
        self.op.store(ptr::from_ref(op).cast_mut(), Relaxed);
        self.object.store(object, Relaxed);
    }

    /// What the party waits for, or last waited for.
    pub(crate) fn wait(&self) -> Option<(&'static Op, usize)> {
        let op = self.op.load(Relaxed);
        // SAFETY: only `set_wait` stores there, from a `&'static Op`.
        (!op.is_null()).then(|| (unsafe { &*op }, self.object.load(Relaxed)))
    }

    /// Notes when it parks.
    #[inline(always)]
    pub(crate) fn set_since_ns(&self, now_ns: u64) {
        self.since_ns.store(now_ns, Relaxed);
    }

    pub(crate) fn since_ns(&self) -> u64 {
        self.since_ns.load(Relaxed)
    }

    /// Notes when the time is up for which it waits; 0: it has no time limit.
    pub(crate) fn set_until_ns(&self, until_ns: u64) {
        self.until_ns.store(until_ns, Relaxed);
    }

    pub(crate) fn until_ns(&self) -> Option<u64> {
        Some(self.until_ns.load(Relaxed)).filter(|&until_ns| until_ns != 0)
    }

    /// See [`about`](crate::about); 0: there is no more to say.
    pub(crate) fn set_detail(&self, detail: usize) {
        self.detail.store(detail, Relaxed);
    }

    pub(crate) fn detail(&self) -> usize {
        self.detail.load(Relaxed)
    }

    /// Whether it may be in wait for a party that is known.
    pub(crate) fn may_be_blocked(&self) -> bool {
        Noted::of(self.detail()) == Noted::Lock
            || self.wait().is_some_and(|(op, _)| ptr::eq(op, &JOIN))
    }

    /// The stack, from start to end of the fiber. Owner only.
    pub(crate) fn stack(&self) -> *mut Option<Stack> {
        self.stack.get()
    }

    pub(crate) fn live_links(&self) -> (&Cell<*mut Header>, &Cell<*mut Header>) {
        (&self.live_previous, &self.live_next)
    }

    /// Marks the fiber as started by `worker`. Owner only.
    ///
    /// From here on wakes go to that worker's inbox; a wake that came before left its reason where the fiber
    /// looks before it first parks. The read-modify-write orders the two.
    pub(crate) fn start(&self, worker: *const Worker) {
        self.worker.store(worker.cast_mut(), Relaxed);
        let before = self.flags.fetch_or(STARTED, AcqRel);
        debug_assert_eq!(before & STARTED, 0, "fiber {} was started twice", self.id);
    }

    /// The worker that a pinned fiber shall start on, before it is handed over.
    pub(crate) fn set_home(&self, worker: *const Worker) {
        self.worker.store(worker.cast_mut(), Relaxed);
    }

    pub(crate) fn is_started(&self) -> bool {
        self.flags.load(Relaxed) & STARTED != 0
    }

    /// Taken out of the inbox: from here on a wake queues it anew. Owner only.
    pub(crate) fn clear_queued(&self) {
        let before = self.flags.fetch_and(!QUEUED, AcqRel);
        debug_assert_ne!(before & QUEUED, 0, "fiber {} was in the inbox unqueued", self.id);
    }

    /// Runs the closure. See [`VTable::run`].
    ///
    /// # Safety
    ///
    /// On the fiber's own stack, once.
    pub(crate) unsafe fn run_closure(&self) {
        // SAFETY: passed on.
        unsafe { (self.vtable.run)(self.whole()) }
    }

    /// Identifies the party for as long as the process lives; never reused.
    ///
    /// ```
    /// use strands_sched::with_current_task;
    ///
    /// let here = with_current_task(|me| me.id());
    /// let there = std::thread::spawn(|| with_current_task(|me| me.id())).join().unwrap();
    /// assert_ne!(here, there);
    /// ```
    #[inline]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The name it was given.
    ///
    /// ```
    /// use strands_sched::with_current_task;
    ///
    /// let name = || with_current_task(|me| me.name().map(String::from));
    /// let thread = std::thread::Builder::new().name("reader".into()).spawn(name)?;
    /// assert_eq!(thread.join().unwrap().as_deref(), Some("reader"));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn name(&self) -> Option<&str> {
        self.extras.as_ref()?.name.as_deref()
    }

    /// The size of stack it asked for, in bytes.
    pub(crate) fn stack_bytes(&self) -> Option<usize> {
        self.extras.as_ref()?.stack_bytes
    }

    /// What to do if that is too small; none: as for any fiber.
    pub(crate) fn stack_help(&self) -> Option<&'static str> {
        self.extras.as_ref()?.stack_help
    }

    /// Where it was spawned.
    ///
    /// ```
    /// use strands_sched::{Builder, SpawnOptions, spawn_on};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let fiber = spawn_on(runtime.shared(), SpawnOptions::default(), || ())?;
    /// assert_eq!(fiber.task().spawned_at().file(), file!());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at
    }

    /// Makes the party look again at what it waits for. Spurious wakes are allowed.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicBool, Ordering::{Acquire, Release}};
    /// use strands_sched::{Builder, Op, Outcome, SpawnOptions, spawn_on, wait_until};
    ///
    /// static OPEN: Op = Op("Gate::wait");
    /// static IS_OPEN: AtomicBool = AtomicBool::new(false);
    /// let runtime = Builder::new().workers(1).build()?;
    /// let fiber = spawn_on(runtime.shared(), SpawnOptions::default(), || {
    ///     wait_until(&OPEN, 0, None, || IS_OPEN.load(Acquire))
    /// })?;
    /// IS_OPEN.store(true, Release); // The reason first,
    /// fiber.task().wake(); // then the wake.
    /// assert_eq!(fiber.join().unwrap(), Outcome::Woken);
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn wake(&self) {
        if current::on_worker(self.worker()) {
            if !self.is_thread() {
                // SAFETY: `on_worker` found that this is the owner's thread.
                unsafe { (*self.worker()).make_ready(self.whole()) };
            }
            return;
        }
        self.wake_remote();
    }

    #[cold]
    fn wake_remote(&self) {
        if fork::in_forked_child() {
            return; // It is in the parent. Locks on the way to it may be held by threads that are there.
        }
        if self.is_thread() {
            // SAFETY: only a `PlainThread`'s header has the flag, and it is its first field.
            unsafe { PlainThread::of(self) }.notify();
            return;
        }
        if self.run() == Run::Ended {
            return; // A hint that spares the inbox; the owner would drop the wake.
        }
        let mut flags = self.flags.load(Relaxed);
        loop {
            // Written even where nothing changes: a fiber that starts later must see our reason.
            let queued = if flags & STARTED == 0 { flags } else { flags | QUEUED };
            match self.flags.compare_exchange_weak(flags, queued, AcqRel, Relaxed) {
                Ok(_) => break,
                Err(now) => flags = now,
            }
        }
        if flags & (STARTED | QUEUED) == STARTED {
            self.refs.fetch_add(1, Relaxed);
            // SAFETY: workers are never freed; the reference just counted goes into the inbox,
            // and the QUEUED bit, which was clear, says that the link is free.
            unsafe { (*self.worker()).send(self.whole()) };
        }
    }

    /// Asks the fiber to unwind from where it waits, or will next wait: see
    /// [`Cancelled`](crate::Cancelled).
    ///
    /// It stays asked: a fiber that swallows the unwinding is cancelled again at its next wait. A
    /// fiber that has not started drops its closure instead of running it.
    ///
    /// ```
    /// use strands_sched::{Builder, Cancelled, SpawnOptions, sleep_until, spawn_on};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let sleeper = spawn_on(runtime.shared(), SpawnOptions::default(), || sleep_until(None))?;
    /// sleeper.task().cancel();
    /// assert!(sleeper.join().unwrap_err().is::<Cancelled>());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn cancel(&self) {
        self.flags.fetch_or(CANCEL, AcqRel);
        self.wake();
    }
}

// SAFETY: `link` is used by inboxes only; QUEUED (a started fiber) and the hand-over of the one
// scheduler's reference (a fresh one) keep a header out of two inboxes.
unsafe impl Linked for Header {
    fn link(&self) -> &AtomicPtr<Header> {
        &self.link
    }
}

/// A counted reference to a [`Header`].
///
/// ```
/// use strands_sched::{Builder, SpawnOptions, TaskRef, spawn_on};
///
/// let runtime = Builder::new().workers(1).build()?;
/// let fiber = spawn_on(runtime.shared(), SpawnOptions::default(), || ())?;
/// let task: TaskRef = fiber.task().clone();
/// fiber.join().unwrap();
/// drop(runtime);
/// task.wake(); // Its fiber and its runtime have gone; the header has not.
/// # std::io::Result::Ok(())
/// ```
pub struct TaskRef(NonNull<Header>);

// SAFETY: a header is Send and Sync; the count is atomic; the last reference may be dropped by any
// thread, as what a task then still holds is Send or gone. A closure that has not run and is not
// Send is in a queue of its own worker, which runs it (`push_fresh`, `take_starved`). A result is
// taken out by the join, or by the fiber if that was dropped; a join that was forgotten keeps its
// reference for ever.
unsafe impl Send for TaskRef {}
// SAFETY: as above.
unsafe impl Sync for TaskRef {}

impl TaskRef {
    /// Takes over a count.
    ///
    /// # Safety
    ///
    /// `header` is alive, and one of its references is the caller's to give.
    pub(crate) unsafe fn from_raw(header: NonNull<Header>) -> TaskRef {
        TaskRef(header)
    }

    /// Gives the count to whoever reads the pointer.
    pub(crate) fn into_raw(self) -> NonNull<Header> {
        ManuallyDrop::new(self).0
    }

    pub(crate) fn as_ptr(&self) -> NonNull<Header> {
        self.0
    }

    /// Another reference to a header that is alive.
    ///
    /// # Panics
    ///
    /// If there are two thousand million already, long before the count would overflow.
    ///
    /// ```
    /// use strands_sched::{TaskRef, park_token, unpark_token, with_current_task};
    ///
    /// let me: TaskRef = with_current_task(TaskRef::to);
    /// std::thread::spawn(move || unpark_token(&me));
    /// park_token(None);
    /// ```
    #[inline]
    pub fn to(header: &Header) -> TaskRef {
        if header.refs.fetch_add(1, Relaxed) >= u32::MAX / 2 {
            // Taken back: a panic can be caught, and tried again until the count overflows.
            header.refs.fetch_sub(1, Relaxed);
            panic!("too many references to fiber {}", header.id);
        }
        TaskRef(header.whole())
    }
}

impl std::ops::Deref for TaskRef {
    type Target = Header;

    #[inline(always)]
    fn deref(&self) -> &Header {
        // SAFETY: counted, so alive.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for TaskRef {
    #[inline]
    fn clone(&self) -> TaskRef {
        TaskRef::to(self)
    }
}

impl Drop for TaskRef {
    #[inline]
    fn drop(&mut self) {
        if self.refs.fetch_sub(1, Release) == 1 {
            acquire_last(&self.refs);
            // SAFETY: that was the last reference, and all others' uses come before.
            unsafe { (self.vtable.free)(self.0) };
        }
    }
}

impl std::fmt::Debug for TaskRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskRef").field("id", &self.id()).field("name", &self.name()).finish()
    }
}

/// A fiber's header with its closure, later its result; between them its place among siblings, if it is one of many.
#[repr(C)]
pub(crate) struct Task<F, T, P> {
    header: Header,
    place: P,
    stage: UnsafeCell<Stage<F, T>>,
}

/// `()`, or [`Member`]: those without siblings shall not pay for those with.
pub(crate) trait Place {
    /// It is a [`Member`].
    const IS_MEMBER: bool;
}

impl Place for () {
    const IS_MEMBER: bool = false;
}

impl Place for Member {
    const IS_MEMBER: bool = true;
}

/// A fiber's place among the children of a scope or a group, if it is one of them.
///
/// # Safety
///
/// It is alive.
pub(crate) unsafe fn member_of<'a>(fiber: NonNull<Header>) -> Option<&'a Member> {
    // SAFETY: the caller's promise. The place does not depend on the closure's type, as it comes before the
    // stage in a repr(C) struct; it is a member by the vtable, and does not change.
    unsafe {
        let is_member = fiber.as_ref().vtable.is_member;
        is_member.then(|| &(*fiber.cast::<Task<(), (), Member>>().as_ptr()).place)
    }
}

enum Stage<F, T> {
    Fresh(F),
    Ended(thread::Result<T>),
    Empty,
}

impl<F: FnOnce() -> thread::Result<T>, T, P: Place> Task<F, T, P> {
    const VTABLE: VTable =
        VTable { run: Self::run, take: Self::take, free: Self::free, is_member: P::IS_MEMBER };

    /// A fresh fiber, and a second reference to it.
    pub(crate) fn allocate(
        f: F,
        id: u64,
        spawned_at: &'static Location<'static>,
        extras: Option<Box<Extras>>,
        place: P,
        pinned: bool,
    ) -> (TaskRef, TaskRef) {
        let flags = if pinned { PINNED } else { 0 };
        let header = Header::new(&Self::VTABLE, flags, 2, id, spawned_at, extras);
        let stage = UnsafeCell::new(Stage::<F, T>::Fresh(f));
        let header = expose(Box::new(Task { header, place, stage }));
        let (task, handle) = (TaskRef(header), TaskRef(header));
        // SAFETY: it is alive, and nobody else knows of it.
        unsafe {
            if let Some(member) = member_of(header) {
                member.children.begins(&task);
            }
        }
        (task, handle)
    }

    /// # Safety
    ///
    /// See [`VTable::run`]: once, on the fiber's stack.
    unsafe fn run(header: NonNull<Header>) {
        let task = header.cast::<Self>().as_ptr();
        // SAFETY: until the latch is set the stage is the fiber's own; the scheduler's reference
        // keeps the task alive throughout.
        unsafe {
            let stage = (*task).stage.get();
            let cancelled = (*task).header.cancel_requested();
            // What may be large is moved from where it is to where it is used, and not once more: the stack is small.
            let caught = panic::catch_unwind(AssertUnwindSafe(|| {
                let Stage::Fresh(f) = &*stage else { unreachable!("a fiber was run twice") };
                let f = ptr::read(f);
                stage.write(Stage::Empty);
                if cancelled {
                    // As in one that unwinds; and whoever discards it may be asked himself.
                    cancel::uncancellable(|| drop(f));
                    stage.write(Stage::Ended(Err(Cancelled::not_unwound())));
                } else {
                    stage.write(Stage::Ended(f()));
                }
            }));
            let header = &(*task).header;
            if fork::in_forked_child() {
                header.locals.destroy();
                fork::end_child(caught.is_err());
            }
            if let Err(payload) = caught {
                stage.write(Stage::Ended(Err(payload)));
            }
            let mut unhandled = match &*stage {
                Stage::Ended(Err(payload)) => Some(Unhandled::by(&**payload)),
                _ => None,
            };
            // As std has it: a result that nobody wants goes first, then the fiber's locals, and only then is
            // the fiber seen to have ended.
            if header.joined.is_abandoned() {
                unhandled = Self::drop_result(stage).or(unhandled);
            }
            header.locals.destroy();
            if header.joined.set() == Set::Abandoned {
                unhandled = Self::drop_result(stage).or(unhandled);
            } else {
                // It is for whoever holds the handle to say whether a panic was looked at.
                unhandled = None;
            }
            if P::IS_MEMBER
                && let Some(Member { children, .. }) = member_of(header.whole())
                && !children.ends(header.whole(), true, unhandled)
            {
                Self::drop_result(stage);
                children.ends(header.whole(), false, None);
            }
        }
    }

    /// Drops the result, if that has not been done, where its destructors may park. Says whether and how they unwound.
    ///
    /// # Safety
    ///
    /// The stage is the fiber's own: the latch is not set, or was abandoned before, or nobody will look.
    unsafe fn drop_result(stage: *mut Stage<F, T>) -> Option<Unhandled> {
        // SAFETY: the caller's promise; what was dropped, or whose destructor unwound, is not there afterwards.
        let dropped = panic::catch_unwind(AssertUnwindSafe(|| unsafe {
            cancel::uncancellable(|| ptr::drop_in_place(stage));
        }));
        // SAFETY: as above.
        unsafe { stage.write(Stage::Empty) };
        let payload = dropped.err()?;
        let how = Unhandled::by(&*payload);
        drop_payload(payload);
        Some(how)
    }

    /// # Safety
    ///
    /// The latch is set, and `out` is room for a `thread::Result<T>`; once.
    unsafe fn take(header: NonNull<Header>, out: *mut ()) {
        // SAFETY: the latch hands the stage to the holder of the handle.
        unsafe {
            let stage = (*header.cast::<Self>().as_ptr()).stage.get();
            let Stage::Ended(result) = &*stage else {
                unreachable!("a fiber's result was taken twice")
            };
            ptr::copy_nonoverlapping(result, out.cast(), 1);
            stage.write(Stage::Empty);
        }
    }

    /// # Safety
    ///
    /// No reference is left.
    unsafe fn free(header: NonNull<Header>) {
        // SAFETY: `allocate` made it as a box of this type.
        drop(unsafe { Box::from_raw(header.cast::<Self>().as_ptr()) });
    }
}

/// Drops what a closure panicked with. Its drop may panic too, and so may that payload's.
pub(crate) fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(payload);
    }
}

/// Such as `fiber 'parser' (id 7)`.
pub(crate) fn describe_party(party: &Header) -> String {
    let kind = if party.is_thread() { "thread" } else { "fiber" };
    match party.name() {
        Some(name) => format!("{kind} '{name}' (id {})", party.id()),
        None => format!("{kind} <unnamed> (id {})", party.id()),
    }
}

/// In [`Join::join`]; the object is the id of the fiber.
pub(crate) static JOIN: Op = Op("join");

/// The right to a fiber's result. Dropping it detaches the fiber.
///
/// ```
/// use strands_sched::{Builder, Join, SpawnOptions, spawn_on};
///
/// let runtime = Builder::new().workers(1).build()?;
/// let fiber: Join<u32> = spawn_on(runtime.shared(), SpawnOptions::default(), || 42)?;
/// assert_eq!(fiber.join().unwrap(), 42);
/// # std::io::Result::Ok(())
/// ```
pub struct Join<T> {
    task: TaskRef,
    /// A [`JoinOperation`] has taken the result. Only who has the whole join, or borrows it mutably, looks.
    is_taken: Cell<bool>,
    result: std::marker::PhantomData<T>,
}

// SAFETY: `new`'s contract: the `T` may move to another thread, or the join does not.
unsafe impl<T> Send for Join<T> {}
// SAFETY: `&Join` gives access to no `T`, nor to the mark.
unsafe impl<T> Sync for Join<T> {}

impl<T> Join<T> {
    /// # Safety
    ///
    /// `task` is a `Task<_, T>`, and this is the only `Join` of it. Unless `T` is Send, the join
    /// stays on the fiber's thread.
    pub(crate) unsafe fn new(task: TaskRef) -> Join<T> {
        Join { task, is_taken: Cell::new(false), result: std::marker::PhantomData }
    }

    /// The fiber.
    ///
    /// ```
    /// use strands_sched::{Builder, SpawnOptions, spawn_on};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let options = SpawnOptions { name: Some("parser".into()), ..SpawnOptions::default() };
    /// let fiber = spawn_on(runtime.shared(), options, || ())?;
    /// assert_eq!(fiber.task().name(), Some("parser"));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn task(&self) -> &TaskRef {
        &self.task
    }

    /// Whether the closure has returned or panicked and its result is there.
    ///
    /// A loop that asks until it is so lets others run meanwhile: see [`charge`](crate::charge).
    ///
    /// ```
    /// use strands_sched::{Builder, SpawnOptions, spawn_on};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let fiber = spawn_on(runtime.shared(), SpawnOptions::default(), || ())?;
    /// drop(runtime); // Waits until all fibers have ended.
    /// assert!(fiber.is_finished());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn is_finished(&self) -> bool {
        park::charge();
        self.task.joined.is_set()
    }

    /// Waits for the fiber to end; its result.
    ///
    /// # Errors
    ///
    /// The payload it panicked with; of type [`Cancelled`] if it was cancelled.
    ///
    /// # Panics
    ///
    /// If a fiber joins itself, which would wait for ever; in a
    /// [forked child](crate::in_forked_child), unless the fiber has ended.
    ///
    /// ```
    /// use std::panic::resume_unwind;
    /// use strands_sched::{Builder, SpawnOptions, spawn_on};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let spawn = |f: fn() -> u32| spawn_on(runtime.shared(), SpawnOptions::default(), f);
    /// assert_eq!(spawn(|| 42)?.join().unwrap(), 42);
    /// let payload = spawn(|| resume_unwind(Box::new("a panic")))?.join().unwrap_err();
    /// assert_eq!(payload.downcast_ref(), Some(&"a panic"));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn join(self) -> thread::Result<T> {
        self.assert_joinable();
        watch::arm_in_fiber();
        let object = self.task.id() as usize;
        self.task.joined.wait(&JOIN, object);
        // SAFETY: the latch is set.
        let (task, result) = unsafe { self.into_result() };
        or_end_too(&task, result)
    }

    /// # Safety
    ///
    /// The latch is set, and the result was not taken.
    pub(crate) unsafe fn into_result(self) -> (TaskRef, thread::Result<T>) {
        let join = ManuallyDrop::new(self);
        // SAFETY: the caller's promise; the join is consumed, so this is the only taking. The reference moves out once.
        let (result, task) = unsafe { (join.take(), ptr::read(&join.task)) };
        (task, result)
    }

    /// Gives up the right to the result, which somebody else has got.
    pub(crate) fn into_task(self) -> TaskRef {
        let join = ManuallyDrop::new(self);
        // SAFETY: the join is consumed, and moves its reference out once.
        unsafe { ptr::read(&join.task) }
    }

    /// Cancels the fiber, and [joins](Self::join) it.
    ///
    /// # Errors
    ///
    /// As for [`join`](Self::join).
    ///
    /// # Panics
    ///
    /// As for [`join`](Self::join); then nothing is cancelled.
    ///
    /// ```
    /// use strands_sched::{Builder, Cancelled, SpawnOptions, sleep_until, spawn_on};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let sleeper = spawn_on(runtime.shared(), SpawnOptions::default(), || sleep_until(None))?;
    /// assert!(sleeper.cancel_and_join().unwrap_err().is::<Cancelled>());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn cancel_and_join(self) -> thread::Result<T> {
        self.assert_joinable();
        self.task.cancel();
        self.join()
    }

    /// To wait for the fiber to end, and to take its result, as one of several operations; see
    /// [`select`](crate::select).
    ///
    /// # Panics
    ///
    /// If a fiber joins itself, or the result was taken already.
    ///
    /// ```
    /// use strands_sched::{Builder, Order, SpawnOptions, Timer, select, spawn_on};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let mut fiber = spawn_on(runtime.shared(), SpawnOptions::default(), || 42)?;
    /// let end = fiber.select_join();
    /// assert_eq!(select(&[&Timer::at(None), &end], Order::Fair, None), Some(1));
    /// assert_eq!(end.take().unwrap().unwrap(), 42);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn select_join(&mut self) -> JoinOperation<'_, T> {
        self.assert_joinable();
        let arm = UnsafeCell::new(mem::MaybeUninit::uninit());
        JoinOperation { join: self, arm, enrolled: Cell::new(false) }
    }

    fn assert_joinable(&self) {
        assert!(
            !current::is(&self.task),
            "{} cannot join itself: it would wait for its own end for ever",
            describe_party(&self.task)
        );
        assert!(!self.is_taken.get(), "the fiber was joined by a select before");
    }

    /// # Safety
    ///
    /// The latch is set; once.
    unsafe fn take(&self) -> thread::Result<T> {
        let mut result = mem::MaybeUninit::<thread::Result<T>>::uninit();
        // SAFETY: the caller's promise; the task is one of a `T`, by `new`'s contract.
        unsafe {
            (self.task.vtable.take)(self.task.0, result.as_mut_ptr().cast());
            result.assume_init()
        }
    }
}

/// What has ended the child may be meant for us too: then not with the panic of an `unwrap`.
///
/// One fiber is cancelled after the other, and the first to end must not look like failures to the last.
fn or_end_too<T>(child: &TaskRef, result: thread::Result<T>) -> thread::Result<T> {
    if result.as_ref().is_err_and(|payload| Cancelled::is(&**payload)) {
        cancel::expect_shutdown();
        let deliver = current::with(|me| {
            // SAFETY: one is counted, and one runs.
            let siblings = unsafe { member_of(me.whole()).zip(member_of(child.as_ptr())) };
            if let Some((mine, its)) = siblings
                && Arc::ptr_eq(&mine.children, &its.children)
                && mine.children.are_cancelled()
            {
                me.cancel();
            }
            cancel::deliverable(me)
        });
        if deliver {
            drop(result);
            cancel::unwind();
        }
    }
    result
}

/// A join as one of several operations. See [`Join::select_join`].
///
/// ```
/// use strands_sched::{Builder, JoinOperation, Order, SpawnOptions, spawn_on, try_select};
///
/// let runtime = Builder::new().workers(1).build()?;
/// let mut fiber = spawn_on(runtime.shared(), SpawnOptions::default(), || ())?;
/// drop(runtime); // Waits until all fibers have ended.
/// let end: JoinOperation<'_, ()> = fiber.select_join();
/// assert_eq!(try_select(&[&end], Order::Fair), Some(0));
/// assert!(end.take().is_some());
/// # std::io::Result::Ok(())
/// ```
pub struct JoinOperation<'a, T> {
    /// Nobody else can wait for the fiber: the latch has one waiter.
    join: &'a mut Join<T>,
    /// There while it is enrolled.
    arm: UnsafeCell<mem::MaybeUninit<Parker>>,
    enrolled: Cell<bool>,
}

impl<T> JoinOperation<'_, T> {
    /// The fiber's result, as [`Join::join`] has it, if it has ended and the result was not taken before.
    ///
    /// ```
    /// use strands_sched::{Builder, SpawnOptions, sleep_until, spawn_on};
    ///
    /// let runtime = Builder::new().workers(1).build()?;
    /// let mut sleeper = spawn_on(runtime.shared(), SpawnOptions::default(), || sleep_until(None))?;
    /// assert!(sleeper.select_join().take().is_none());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn take(&self) -> Option<thread::Result<T>> {
        if !self.attempt() {
            return None;
        }
        self.join.is_taken.set(true);
        // SAFETY: the latch is set, and by the mark this is the only taking.
        Some(or_end_too(&self.join.task, unsafe { self.join.take() }))
    }
}

// SAFETY: the latch keeps the one arm that it was given; it is withdrawn from there.
unsafe impl<T> Operation for JoinOperation<'_, T> {
    fn attempt(&self) -> bool {
        assert!(!self.enrolled.get(), "an operation is used by a select that waits");
        self.join.task.joined.is_set() && !self.join.is_taken.get()
    }

    unsafe fn enrol(&self, arm: Arm<'_>) -> bool {
        if self.join.is_taken.get() || self.enrolled.get() {
            return true;
        }
        let place = self.arm.get().cast::<Parker>();
        // SAFETY: as it is not enrolled the place is ours, and `select` borrows us until it is withdrawn.
        let enrolled = unsafe {
            place.write(arm.parker());
            self.join.task.joined.enrol(place)
        };
        self.enrolled.set(enrolled);
        enrolled
    }

    unsafe fn withdraw(&self) {
        if self.enrolled.replace(false) {
            // SAFETY: it is there, and is written by nobody else but for its atomic word.
            self.join.task.joined.withdraw(unsafe { &*self.arm.get().cast::<Parker>() });
        }
    }

    fn about(&self) -> About {
        About { operation: JOIN.0, object: self.join.task.id() as usize, descriptor: None }
    }
}

impl<T> Drop for Join<T> {
    fn drop(&mut self) {
        if self.is_taken.get() || self.task.joined.abandon() {
            return;
        }
        // It has ended, and the result was left for us.
        // SAFETY: the latch was found set, and the result was not taken.
        let result = unsafe { self.take() };
        if let Err(payload) = &result {
            // SAFETY: counted.
            if let Some(member) = unsafe { member_of(self.task.as_ptr()) } {
                member.children.note(Some(Unhandled::by(&**payload)));
            }
        }
        drop(result);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_reference_that_is_refused_is_not_counted() {
        let task = Header::for_tests();
        task.refs.store(u32::MAX / 2, Relaxed);
        for _ in 0..3 {
            // Else forgotten references, and panics that are caught, would make the count overflow.
            assert!(panic::catch_unwind(AssertUnwindSafe(|| task.clone())).is_err());
        }
        assert_eq!(task.refs.load(Relaxed), u32::MAX / 2);
        task.refs.store(1, Relaxed);
    }
}
