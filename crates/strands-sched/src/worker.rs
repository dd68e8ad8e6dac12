//! A worker: what runs fibers, one at a time.
//!
//! One type for all drivers. Its parts:
//!
//! - what others may touch: the inbox and its bell, the live list, the end of the deque that is
//!   stolen from, a few counters;
//! - [`Own`]: what only its own thread touches, from its own stack or from a fiber on it, without
//!   atomics or locks: the run queue, timers, stacks, the driver.
//!
//! # The loop
//!
//! A *turn* on the worker's own stack empties the inbox, looks at the clock (timers, the driver's
//! events, cold stacks) if it is time for that, starts a share of the fresh fibers and then a share of the ready
//! ones. A fiber that suspends switches straight to the next ready fiber while the share lasts, so a turn costs two
//! switches for up to [`SHARE`] visits. Polling, starting, reaping and stealing all happen on the worker's stack:
//! they dirty no second page of every fiber, and a small stack need not hold them.
//!
//! # Fairness
//!
//! Ready fibers run first come, first served. A turn starts at most [`FRESH_SHARE`] fresh ones and visits at most a share
//! of ready ones, so neither starves; one fresh fiber in [`OLDEST_EVERY`] is the oldest, so that none waits for
//! ever beside others that spawn. The share shrinks when visits are long, so that timers and events are
//! looked at about every [`CLOCK_NS`] if fibers let us. Operations that succeed without parking spend [`BUDGET`]: who
//! has none left suspends, and ends the turn.
//!
//! # Lifetime
//!
//! The struct is never freed, as whoever holds a handle to an ended fiber may still look at its worker. What is heavy in it
//! is dropped when its thread ends, which happens only when no fiber of it is left.

use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use strands_fiber::CAN_UNWIND;
use strands_fiber::arch::{Context, Exit, Word, switch};
use strands_fiber::stack::{PoolConfig, Stack, StackPool};

use crate::atomic::{
    AtomicBool, AtomicU32, AtomicUsize, Mutex, Relaxed, SeqCst, backoff, fence, lock,
};
use crate::cancel;
use crate::current::{self, PlainThread};
use crate::driver::{Driver, DriverWaker};
use crate::frame;
use crate::fresh::{Fresh, Theirs};
use crate::idle;
use crate::inbox::{Bell, Inbox};
use crate::live::{Live, Step};
use crate::park::Outcome;
use crate::report::{self, Chunk, Clerk, Desk, Request, Slice, Teller};
use crate::run_queue::RunQueue;
use crate::runtime::{self, Shared};
use crate::spin::Spin;
use crate::task::{Header, Run, TaskRef};
use crate::timer::{TimerKey, Wheel};
use crate::watch;

/// Visits to ready fibers a turn, at most.
const SHARE: i32 = 64;
/// Fresh fibers started a turn, at most.
const FRESH_SHARE: u32 = 16;
/// One in so many is the oldest there is; the others are the newest.
const OLDEST_EVERY: u32 = 16;
/// What a fiber may spend, each time it is resumed, on operations without parking: 1 for what is done in
/// memory, [`CALL_COST`] for a system call. That is some twenty microseconds of the former.
pub(crate) const BUDGET: u32 = 1024;
/// It takes a hundred times as long; but to suspend costs it less, too.
pub(crate) const CALL_COST: u32 = 8;
/// How often timers and events are looked at while fibers are ready.
const CLOCK_NS: u64 = 50_000;
/// How long stacks lie unused before their memory is given back.
const TRIM_NS: u64 = 1_000_000_000;
/// Stacks looked at in one go: half a millisecond's worth at most.
const TRIM_SHARE: usize = 512;
/// How soon a fiber that got no stack tries again when none was released.
const STARVED_NS: u64 = 20_000_000;
/// From this many live fibers on a worker compares itself with the others.
const FORWARD_FROM: usize = 32;

/// See the module's head.
pub struct Worker {
    inbox: Inbox<Header>,
    /// Gone once the thread has ended: nobody who rings after that need be heard.
    bell: Mutex<Option<Arc<dyn DriverWaker>>>,
    made_at: Instant,
    /// When the bell was last rung for what was sent, counted from then: a hint for `Spin`.
    rung_at: AtomicU64,
    live: Live,
    live_count: AtomicUsize,
    /// Fibers that others have forwarded here and that have not started.
    incoming: AtomicUsize,
    /// It starts no fiber any more.
    ended: AtomicBool,
    theirs: Theirs,
    /// Counts turns, for the monitor.
    turns: AtomicU32,
    /// What others want to know.
    desk: Desk,
    /// What the builder's `thread_token` said on its thread.
    thread_token: std::sync::atomic::AtomicUsize,
    epoch: Instant,
    index: usize,
    own: UnsafeCell<Option<Own>>,
}

// SAFETY: `own` is used by the worker's thread only (its functions say so, and are unsafe to
// call); the rest is atomic or locked.
unsafe impl Sync for Worker {}

/// What only the worker's thread touches.
struct Own {
    /// The worker's own stack, while a fiber runs.
    context: UnsafeCell<Context>,
    /// Stands for the worker's own stack: a plain thread that belongs to a worker.
    header: TaskRef,
    shared: Arc<Shared>,
    ready: UnsafeCell<RunQueue>,
    /// Visits left in this turn.
    share: Cell<i32>,
    fresh: Fresh,
    /// Counts the fresh fibers that were looked for.
    starts: Cell<u32>,
    /// Fresh fibers that shall run here and nowhere else.
    pinned: UnsafeCell<VecDeque<TaskRef>>,
    timers: UnsafeCell<Wheel<NonNull<Header>>>,
    stacks: UnsafeCell<StackPool>,
    driver: Box<dyn Driver>,
    /// The fiber that has just left its stack for good.
    ended: Cell<*mut Header>,
    /// The next clock time at which stacks may have become cold; `u64::MAX` if none is warm.
    trim_at: Cell<u64>,
    epoch: Instant,
    /// When the clock was last looked at, in ns since the epoch.
    now: Cell<u64>,
    polled_at: Cell<u64>,
    /// When fibers that got no stack try again though none was released here.
    starved_retry_at: Cell<u64>,
    /// Visits until the clock is looked at again, and how many there were to be.
    until_clock: Cell<i32>,
    clock_interval: Cell<i32>,
    spin: Spin,
    clerk: Clerk,
    next_id: Cell<u64>,
    ids_left: Cell<u64>,
}

/// Ids are given out in blocks, so that spawning touches no line that all share.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
const ID_BLOCK: u64 = 1024;

/// An id that no other party has or had.
pub(crate) fn next_id() -> u64 {
    match current::worker() {
        // SAFETY: this is the worker's thread.
        Some(worker) => unsafe { worker.own() }.next_id(),
        None => NEXT_ID.fetch_add(1, Relaxed),
    }
}

impl Worker {
    /// Makes the worker of this thread. It is never freed.
    pub(crate) fn new(
        index: usize,
        shared: Arc<Shared>,
        driver: Box<dyn Driver>,
    ) -> std::io::Result<&'static Worker> {
        let (fresh, theirs) = Fresh::new();
        let stacks = StackPool::new(PoolConfig {
            stack_bytes: shared.config.stack_bytes,
            guard: shared.config.guard,
            ..PoolConfig::default()
        })?;
        let epoch = driver.now();
        let worker = Worker::leak(index, driver.waker(), theirs, epoch);
        let name = Some(shared.worker_name(index).into());
        let header = PlainThread::allocate(name, ptr::from_mut(worker));
        if let Some(token) = shared.config.thread_token {
            *worker.thread_token.get_mut() = token();
        }
        *worker.own.get_mut() = Some(Own {
            context: UnsafeCell::new(Context::new()),
            header,
            shared,
            ready: UnsafeCell::new(RunQueue::new()),
            share: Cell::new(0),
            fresh,
            starts: Cell::new(0),
            pinned: UnsafeCell::default(),
            timers: UnsafeCell::new(Wheel::new(0)),
            stacks: UnsafeCell::new(stacks),
            driver,
            ended: Cell::new(ptr::null_mut()),
            trim_at: Cell::new(u64::MAX),
            epoch,
            now: Cell::new(0),
            polled_at: Cell::new(0),
            starved_retry_at: Cell::new(0),
            until_clock: Cell::new(SHARE),
            clock_interval: Cell::new(SHARE),
            spin: Spin::new(),
            clerk: Clerk::new(),
            next_id: Cell::new(0),
            ids_left: Cell::new(0),
        });
        Ok(worker)
    }

    /// A worker that others can reach, without what only its own thread touches.
    #[cfg(all(test, loom))]
    pub(crate) fn for_models(bell: Arc<dyn DriverWaker>) -> &'static Worker {
        Worker::leak(0, bell, Fresh::new().1, Instant::now())
    }

    /// What others can reach.
    fn leak(
        index: usize,
        bell: Arc<dyn DriverWaker>,
        theirs: Theirs,
        epoch: Instant,
    ) -> &'static mut Worker {
        Box::leak(Box::new(Worker {
            inbox: Inbox::new(),
            bell: Mutex::new(Some(bell)),
            made_at: Instant::now(),
            rung_at: AtomicU64::new(0),
            live: Live::new(),
            live_count: AtomicUsize::new(0),
            incoming: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            theirs,
            turns: AtomicU32::new(0),
            desk: Desk::new(),
            thread_token: std::sync::atomic::AtomicUsize::new(0),
            epoch,
            index,
            own: UnsafeCell::new(None),
        }))
    }

    #[cfg(all(test, loom))]
    pub(crate) fn inbox(&self) -> &Inbox<Header> {
        &self.inbox
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// How many fibers have started here and not ended.
    pub(crate) fn live_count(&self) -> usize {
        self.live_count.load(Relaxed)
    }

    /// How many fibers have been placed here for good.
    fn load(&self) -> usize {
        self.live_count() + self.incoming.load(Relaxed)
    }

    pub(crate) fn turns(&self) -> u32 {
        self.turns.load(Relaxed)
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.desk
    }

    pub(crate) fn thread_token(&self) -> usize {
        self.thread_token.load(Relaxed)
    }

    /// The time since its clock began, for who is not on its thread: by the system's clock.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether it waits in its driver, or is about to; a hint.
    pub(crate) fn is_asleep(&self) -> bool {
        self.inbox.is_asleep()
    }

    /// How many fresh fibers lie here that may also start elsewhere.
    pub(crate) fn fresh_count(&self) -> usize {
        self.theirs.len()
    }

    /// Calls `f` with the headers of the fibers that have started here, from any thread, until it says `false`. It
    /// holds up a worker that comes to start or end a fiber for a few of them at a time.
    pub(crate) fn look_from_outside(&self, mut f: impl FnMut(&Header) -> bool) {
        let marker = PlainThread::allocate(None, ptr::null_mut());
        // SAFETY: it is in no list, and stays until it is taken out.
        unsafe { self.live.link(marker.as_ptr()) };
        let (mut goes_on, mut round) = (true, 0);
        while goes_on {
            let mut left = report::SLICE_FIBERS;
            let look = |header: &Header| {
                goes_on = f(header);
                left -= 1;
                if goes_on && left > 0 { Step::Next } else { Step::Stop }
            };
            // SAFETY: the marker was put in above, and is in the list as long as there are more. If `f` panics it is not.
            match unsafe { self.live.try_advance(marker.as_ptr(), look) } {
                Some(true) => round = 0,
                Some(false) => return,
                None => {
                    backoff(round);
                    round += 1;
                }
            }
        }
        // SAFETY: as above.
        unsafe { self.live.unlink(marker.as_ptr()) };
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    pub(crate) fn has_fresh(&self) -> bool {
        !self.theirs.is_empty()
    }

    /// Puts a header in the inbox and rings if the worker sleeps. From any thread.
    ///
    /// # Safety
    ///
    /// One reference goes with `header`, and its link is free: see [`Inbox::push`].
    pub(crate) unsafe fn send(&self, header: NonNull<Header>) {
        // SAFETY: the caller's promise.
        if unsafe { self.inbox.push(header.as_ptr()) } == Bell::Ring {
            self.rung_at.store(self.lifetime_ns(), Relaxed);
            self.ring();
        }
    }

    /// Hands a fresh fiber over to this worker. From any thread.
    ///
    /// # Safety
    ///
    /// `task` is the scheduler's reference, and in no queue.
    pub(crate) unsafe fn send_fresh(&self, task: TaskRef) {
        // SAFETY: the reference goes with it; a fresh fiber's link is free.
        unsafe { self.send(task.into_raw()) };
        // Sent before the look, as the worker says that it has ended before it empties its inbox
        // for the last time: one of the two sees the other.
        fence(SeqCst);
        if self.ended.load(Relaxed) {
            self.discard_leftovers();
        }
    }

    /// Makes the worker look around. From any thread.
    pub(crate) fn poke(&self) {
        if self.inbox.poke() == Bell::Ring {
            self.ring();
        }
    }

    fn ring(&self) {
        if let Some(bell) = lock(&self.bell).clone() {
            bell.wake();
        }
    }

    /// For how long there has been this worker.
    fn lifetime_ns(&self) -> u64 {
        self.made_at.elapsed().as_nanos() as u64
    }

    /// Calls `f` with every fiber that has started here and not ended. From any thread.
    ///
    /// The worker cannot start or end a fiber meanwhile, so be short.
    pub(crate) fn for_each_live(&self, f: impl FnMut(&Header)) {
        self.live.for_each(f);
    }

    /// # Safety
    ///
    /// On the worker's thread only, while the worker is in [`run`](Self::run) or not yet there.
    #[inline(always)]
    unsafe fn own(&self) -> &Own {
        // SAFETY: `new` fills it in before anybody can reach the worker by its thread; only
        // `dismantle` empties it, when no fiber is left and `current` does not lead here any more.
        unsafe { (*self.own.get()).as_ref().unwrap_unchecked() }
    }
}

// What is called from fibers (and from the worker's own stack): on the worker's thread only.
impl Worker {
    /// Queues a parked fiber of this worker; nothing if it is not parked.
    ///
    /// # Safety
    ///
    /// On the worker's thread; `fiber` is alive and belongs to this worker.
    #[inline]
    pub(crate) unsafe fn make_ready(&self, fiber: NonNull<Header>) {
        // SAFETY: the caller's promise.
        let (own, header) = unsafe { (self.own(), fiber.as_ref()) };
        if header.become_ready() {
            // SAFETY: no other reference to the queue is held across a call.
            unsafe { (*own.ready.get()).push(fiber) };
        }
    }

    /// Suspends the running fiber until `ready`, `deadline` or a cancel.
    ///
    /// # Safety
    ///
    /// On the worker's thread; `me` is the running fiber.
    #[inline]
    pub(crate) unsafe fn wait_until(
        &self,
        me: &Header,
        deadline: Option<Instant>,
        ready: impl Fn() -> bool,
    ) -> Outcome {
        // SAFETY: the caller's promise.
        let own = unsafe { self.own() };
        if ready() {
            return Outcome::Woken;
        }
        if deadline.is_none() && me.frames.is_empty() {
            if cancel::deliverable(me) {
                return Outcome::Cancelled;
            }
            // SAFETY: as above.
            return unsafe { self.park_until(own, me, ready, || false) };
        }
        // SAFETY: as above.
        unsafe { self.wait_until_deadline(own, me, deadline, &ready) }
    }

    /// As `wait_until`, with timers: for the deadline, and for a time limit around the wait that
    /// comes first. `ready` has been asked once.
    ///
    /// # Safety
    ///
    /// As for `wait_until`.
    unsafe fn wait_until_deadline(
        &self,
        own: &Own,
        me: &Header,
        deadline: Option<Instant>,
        ready: &dyn Fn() -> bool,
    ) -> Outcome {
        if deadline.is_some_and(|deadline| deadline <= own.driver.now()) {
            // Nothing to wait for, but a loop over such waits must not starve others. Shielded: the
            // waiter is enrolled, so it must not unwind from here.
            cancel::uncancellable(crate::park::charge);
            return match () {
                () if ready() => Outcome::Woken,
                () if cancel::deliverable(me) => Outcome::Cancelled,
                () => Outcome::TimedOut,
            };
        }
        let timer = deadline.map(|at| Armed::new(own, me, at));
        // When it fires the party looks at its frames. If it may not unwind then, it parks again.
        let limit = frame::limit(me).filter(|&limit| deadline.is_none_or(|at| limit < at));
        let _limit = limit.map(|at| Armed::new(own, me, at));
        if cancel::deliverable(me) {
            return Outcome::Cancelled;
        }
        struct Limited<'a>(&'a Header);
        impl Drop for Limited<'_> {
            fn drop(&mut self) {
                self.0.set_until_ns(0);
            }
        }
        let limited = Limited(me);
        if let Some(until) = [deadline, limit].into_iter().flatten().min() {
            limited.0.set_until_ns(own.since_epoch(until).max(1));
        }
        let timed_out = || timer.as_ref().is_some_and(Armed::has_fired);
        // SAFETY: as above.
        unsafe { self.park_until(own, me, ready, timed_out) }
    }

    /// Parks the running fiber until one of the three outcomes, looking after each wake.
    ///
    /// # Safety
    ///
    /// As for `wait_until`.
    #[inline]
    unsafe fn park_until(
        &self,
        own: &Own,
        me: &Header,
        ready: impl Fn() -> bool,
        timed_out: impl Fn() -> bool,
    ) -> Outcome {
        me.set_since_ns(own.now.get());
        loop {
            me.set_run(Run::Parked);
            // SAFETY: `me` is the running fiber; who wakes it, or its timer, makes it ready.
            unsafe { self.suspend(own, me) };
            if ready() {
                return Outcome::Woken;
            }
            if timed_out() {
                return Outcome::TimedOut;
            }
            if cancel::deliverable(me) {
                return Outcome::Cancelled;
            }
        }
    }

    /// Puts the running fiber at the end of the run queue and runs the next.
    ///
    /// # Safety
    ///
    /// On the worker's thread; `me` is the running fiber.
    #[inline]
    pub(crate) unsafe fn yield_now(&self, me: &Header) {
        // SAFETY: the caller's promise; the queue is not referred to across the suspension.
        unsafe {
            let own = self.own();
            me.set_run(Run::Ready);
            (*own.ready.get()).push(me.whole());
            self.suspend(own, me);
        }
        if cancel::deliverable(me) {
            cancel::unwind();
        }
    }

    /// The next suspension leads to the loop, which looks at the clock: the visit took long.
    ///
    /// # Safety
    ///
    /// On the worker's thread.
    pub(crate) unsafe fn end_turn(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.own() }.share.set(0);
    }

    /// Leaves the running fiber's stack until it is resumed.
    ///
    /// # Safety
    ///
    /// On the worker's thread; `me` is the running fiber, marked as parked, or as ready and queued.
    #[inline]
    unsafe fn suspend(&self, own: &Own, me: &Header) {
        let next = own.next_context();
        if !ptr::eq(next, me.context()) {
            // SAFETY: `next` is the worker's own context, saved when it entered a fiber, or that of a
            // ready fiber taken from the queue, which was saved when it suspended here.
            // Ours is saved here and switched to once: by who takes us from the queue.
            unsafe { switch(me.context(), next, Word::uninit()) };
            current::set(me);
        }
        me.set_run(Run::Running);
        current::set_budget(BUDGET);
    }

    /// The runtime that this worker belongs to.
    ///
    /// # Safety
    ///
    /// On the worker's thread.
    pub(crate) unsafe fn shared(&self) -> &Arc<Shared> {
        // SAFETY: the caller's promise.
        &unsafe { self.own() }.shared
    }

    /// # Safety
    ///
    /// On the worker's thread.
    pub(crate) unsafe fn driver(&self) -> &dyn Driver {
        // SAFETY: the caller's promise.
        &*unsafe { self.own() }.driver
    }

    /// Queues a fresh fiber here, for this worker or for thieves.
    ///
    /// # Safety
    ///
    /// On the worker's thread.
    #[inline]
    pub(crate) unsafe fn push_fresh(&self, task: TaskRef) {
        // SAFETY: the caller's promise; the queue is not referred to elsewhere meanwhile.
        let own = unsafe { self.own() };
        // Forwarded ones are not for thieves either, or the balance would be lost again.
        if task.is_pinned() || task.is_forwarded() {
            // SAFETY: as above.
            unsafe { (*own.pinned.get()).push_back(task) };
            return;
        }
        own.fresh.push(task);
        if own.shared.workers().len() > 1 && own.shared.idle.anyone_asleep() {
            own.shared.fresh_beside_sleepers(own.fresh.len());
        }
    }
}

impl Own {
    fn next_id(&self) -> u64 {
        if self.ids_left.get() == 0 {
            self.next_id.set(NEXT_ID.fetch_add(ID_BLOCK, Relaxed));
            self.ids_left.set(ID_BLOCK);
        }
        self.ids_left.set(self.ids_left.get() - 1);
        self.next_id.replace(self.next_id.get() + 1)
    }

    fn since_epoch(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// Where to go on when a fiber suspends: the next ready fiber, or the worker's own stack if
    /// the share of this turn is used up, somebody has sent something, or nobody is ready.
    #[inline(always)]
    fn next_context(&self) -> *const Context {
        let share = self.share.get();
        if share > 0 && self.inbox_is_empty() {
            // SAFETY: the queue is not referred to elsewhere meanwhile; fibers in it are alive.
            if let Some(next) = unsafe { (*self.ready.get()).pop() } {
                self.share.set(share - 1);
                // SAFETY: as above.
                return unsafe { next.as_ref() }.context();
            }
        }
        self.context.get()
    }

    #[inline(always)]
    fn inbox_is_empty(&self) -> bool {
        // SAFETY: the worker is never freed.
        unsafe { (*self.header.worker()).inbox.is_empty() }
    }
}

// What runs on the worker's own stack.
impl Worker {
    /// Runs fibers until the runtime stops and none is left to run. Whether none is left at all:
    /// where panics abort, those that wait cannot be unwound, and the thread must not end.
    ///
    /// # Safety
    ///
    /// Once, on the worker's thread.
    pub(crate) unsafe fn run(&'static self) -> bool {
        // SAFETY: the caller's promise.
        let own = unsafe { self.own() };
        current::set(&own.header);
        current::follow_switch(&own.header);
        loop {
            self.turns.store(self.turns.load(Relaxed).wrapping_add(1), Relaxed);
            if !self.inbox.is_empty() {
                self.receive();
            }
            if own.until_clock.get() <= 0 {
                self.look_at_clock(own, true);
                self.answer_some(own);
            }
            let mut started = 0;
            while started < FRESH_SHARE {
                let Some(task) = self.next_fresh(own) else { break };
                self.begin(own, task);
                started += 1;
            }
            // SAFETY: the queue is not referred to across the switch.
            if let Some(next) = unsafe { (*own.ready.get()).pop() } {
                self.enter(own, next);
            } else if started == 0 {
                if own.shared.is_stopping() && self.is_done(own) {
                    break;
                }
                self.idle(own);
            }
        }
        own.clerk.leave(&self.desk, &Idling { worker: self, own });
        if self.live_count() > 0 {
            self.retire();
            return false;
        }
        // SAFETY: no fiber of this worker is left.
        unsafe { self.dismantle() };
        true
    }

    /// Drops what is heavy.
    ///
    /// # Safety
    ///
    /// On the worker's thread, at its end; no fiber of this worker is left.
    pub(crate) unsafe fn dismantle(&self) {
        // Nobody rings any more, and nobody need be heard.
        *lock(&self.bell) = None;
        current::set_nobody();
        // SAFETY: only fibers of this worker and its loop refer to it.
        unsafe { *self.own.get() = None };
        self.retire();
    }

    /// Says that no fiber is started here any more.
    fn retire(&self) {
        self.ended.store(true, Relaxed);
        fence(SeqCst);
        self.discard_leftovers();
    }

    /// Switches to a fiber, until it (or one that it switched to) comes back here.
    fn enter(&self, own: &Own, fiber: NonNull<Header>) {
        let share = own.clock_interval.get();
        own.share.set(share - 1);
        // SAFETY: the fiber was ready, or has just been set up; it belongs to this worker. Our own
        // context is saved here and gone on from once, by a fiber that finds nobody to switch to.
        unsafe {
            switch(own.context.get(), fiber.as_ref().context(), Word::new(fiber.as_ptr().cast()))
        };
        current::set(&own.header);
        own.until_clock.set(own.until_clock.get() - (share - own.share.get()));
        if let Some(ended) = NonNull::new(own.ended.replace(ptr::null_mut())) {
            self.reap(own, ended);
        }
    }

    fn next_fresh(&self, own: &Own) -> Option<TaskRef> {
        let starts = own.starts.get().wrapping_add(1);
        own.starts.set(starts);
        if starts.is_multiple_of(OLDEST_EVERY) {
            let shared_first = (starts / OLDEST_EVERY).is_multiple_of(2);
            if let Some(task) = self.oldest_fresh(own, shared_first) {
                return Some(task);
            }
        }
        // SAFETY: the queue is not referred to elsewhere meanwhile.
        if let Some(task) = unsafe { (*own.pinned.get()).pop_front() } {
            return Some(task);
        }
        if let Some(task) = own.fresh.pop() {
            return Some(task);
        }
        if own.shared.injector.is_empty() || self.better_place(own).is_some() {
            return None;
        }
        own.fresh.steal_shared(&own.shared.injector);
        own.shared.idle.moved(&Idling { worker: self, own });
        own.fresh.pop()
    }

    /// The oldest of what was spawned outside or of our own, whichever there is.
    fn oldest_fresh(&self, own: &Own, shared_first: bool) -> Option<TaskRef> {
        let shared = || match self.better_place(own) {
            None => own.shared.injector.take(),
            Some(_) => None,
        };
        let ours = || self.theirs.take();
        if shared_first { shared().or_else(ours) } else { ours().or_else(shared) }
    }

    /// Starts a fresh fiber, unless it is better off elsewhere or there is no stack for it.
    fn begin(&self, own: &Own, task: TaskRef) {
        if task.take_forwarded() {
            self.incoming.fetch_sub(1, Relaxed);
        } else if !task.is_pinned()
            && let Some(other) = self.better_place(own)
        {
            task.set_forwarded();
            other.incoming.fetch_add(1, Relaxed);
            // SAFETY: this is the scheduler's reference, to a fresh fiber.
            unsafe { other.send_fresh(task) };
            return;
        }
        let bytes = task.stack_bytes().unwrap_or(own.shared.config.stack_bytes);
        let stack = match own.shared.admit_stack() {
            // SAFETY: the pool is not referred to elsewhere meanwhile.
            true => unsafe { (*own.stacks.get()).take(bytes) }
                .inspect_err(|_| own.shared.release_stack()),
            false => Err(runtime::too_many_stacks(own.shared.config.max_stacks)),
        };
        let stack = match stack {
            Ok(stack) => stack,
            Err(why) => return own.shared.starve(task, &why),
        };
        let fiber = task.into_raw();
        // SAFETY: fresh, so ours alone until `start` tells others where it is. The stack is the
        // fiber's from here on until it is reaped.
        unsafe {
            let header = fiber.as_ref();
            (*header.context()).start(stack.top(), &stack, fiber_main);
            *header.stack() = Some(stack);
            header.start(self);
            self.live_count.store(self.live_count.load(Relaxed) + 1, Relaxed);
            self.live.link(fiber);
            // Linked before the look: whoever stops the runtime either finds it in the list or is seen here.
            if own.shared.is_stopping() {
                header.cancel();
            }
        }
        if own.shared.has_starved() {
            self.feed_starved(own); // There may be room for more.
        }
        self.enter(own, fiber);
    }

    /// The worker that holds the fewest fibers, if this one holds so many more that an unstarted
    /// fiber should rather start there.
    fn better_place(&self, own: &Own) -> Option<&'static Worker> {
        let load = self.load();
        if load < FORWARD_FROM || own.shared.is_stopping() {
            return None;
        }
        let other = own.shared.workers().iter().copied().min_by_key(|worker| worker.load())?;
        let least = other.load();
        (load > least + least / 16 + FORWARD_FROM / 2).then_some(other)
    }

    /// Takes back what an ended fiber used.
    fn reap(&self, own: &Own, fiber: NonNull<Header>) {
        // SAFETY: it has left its stack for good; the scheduler's reference, which is dropped last,
        // keeps the header. The pool is not referred to elsewhere meanwhile.
        unsafe {
            let header = fiber.as_ref();
            self.live.unlink(fiber);
            self.live_count.store(self.live_count.load(Relaxed) - 1, Relaxed);
            let stack: Option<Stack> = (*header.stack()).take();
            let stack = stack.expect("a fiber ran without a stack");
            (*own.stacks.get()).give(stack);
            drop(TaskRef::from_raw(fiber));
        }
        own.shared.release_stack();
        if own.trim_at.get() == u64::MAX {
            own.trim_at.set(own.now.get().saturating_add(TRIM_NS));
        }
        if own.shared.has_starved() {
            self.feed_starved(own);
        }
    }

    /// A stack may be free: lets a fiber that could not start try again.
    fn feed_starved(&self, own: &Own) {
        if let Some(task) = own.shared.take_starved(self) {
            // SAFETY: the queue is not referred to elsewhere meanwhile.
            unsafe { (*own.pinned.get()).push_front(task) };
        }
    }

    /// Empties the inbox.
    fn receive(&self) {
        for item in self.inbox.take() {
            // SAFETY: what is in the inbox is not null and comes with one reference.
            let task = unsafe { TaskRef::from_raw(NonNull::new_unchecked(item)) };
            if task.is_started() {
                task.clear_queued();
                // SAFETY: wakes go to the fiber's own worker, and this is its thread.
                unsafe { self.make_ready(task.as_ptr()) };
            } else {
                // SAFETY: this is the worker's thread.
                unsafe { self.push_fresh(task) };
            }
        }
    }

    /// Fires what is due; polls the driver if that was long ago.
    fn look_at_clock(&self, own: &Own, poll: bool) {
        let now = own.since_epoch(own.driver.now());
        let elapsed = now.saturating_sub(own.now.replace(now));
        // Visits take as long as they take: look after so many that it is about time then.
        let interval = own.clock_interval.get();
        if elapsed > CLOCK_NS && interval > 1 {
            own.clock_interval.set(interval / 2);
        } else if elapsed < CLOCK_NS / 4 && interval < SHARE {
            own.clock_interval.set(interval * 2);
        }
        own.until_clock.set(own.clock_interval.get());
        self.fire_timers(own, now);
        if now >= own.trim_at.get() {
            // SAFETY: the pool is not referred to elsewhere meanwhile.
            let stacks = unsafe { &mut *own.stacks.get() };
            own.trim_at.set(match () {
                () if !stacks.trim_some(TRIM_SHARE) => now,
                () if stacks.needs_trim() => now.saturating_add(TRIM_NS),
                () => u64::MAX,
            });
        }
        // Those that starve while the runtime stops are dropped, so there is nothing to wait for.
        let try_now = || now >= own.starved_retry_at.get() || own.shared.is_stopping();
        if own.shared.has_starved() && try_now() {
            // No stack was released to them here: perhaps one was elsewhere, or memory came back.
            own.starved_retry_at.set(now.saturating_add(STARVED_NS));
            self.feed_starved(own);
        }
        // A clock that stands still must not keep events out.
        if poll && (elapsed == 0 || now.saturating_sub(own.polled_at.get()) >= CLOCK_NS) {
            own.polled_at.set(now);
            own.driver.poll(Some(Duration::ZERO));
        }
    }

    fn fire_timers(&self, own: &Own, now: u64) {
        // SAFETY: firing only queues fibers: it does not come back to the wheel. A fiber with an
        // entry in the wheel is parked in `wait_until_deadline`, or ready, and so alive.
        unsafe { (*own.timers.get()).advance(now, |&fiber| self.make_ready(fiber)) };
    }

    /// Tells of some fibers, if anybody has asked: see [`report`](crate::report). Says whether it has.
    #[inline]
    fn answer_some(&self, own: &Own) -> bool {
        own.clerk.is_busy(&self.desk) && own.clerk.answer(&self.desk, &Idling { worker: self, own })
    }

    /// Describes the fibers here that have not started, those of each queue if they are few; says how many it
    /// left out.
    fn describe_fresh(&self, own: &Own, chunk: &mut Chunk) -> usize {
        // SAFETY: the queue is not referred to elsewhere meanwhile.
        let pinned = unsafe { &*own.pinned.get() };
        let mut left_out = pinned.len().saturating_sub(report::LOOK_INTO);
        left_out +=
            pinned.iter().take(report::LOOK_INTO).map(|task| chunk.add_fresh(task)).sum::<usize>();
        if own.fresh.len() > report::LOOK_INTO {
            left_out += own.fresh.len();
        } else {
            let mut taken = [const { None }; report::LOOK_INTO];
            let mut count = 0;
            while count < taken.len()
                && let Some(task) = own.fresh.pop()
            {
                left_out += chunk.add_fresh(&task);
                taken[count] = Some(task);
                count += 1;
            }
            taken.into_iter().rev().flatten().for_each(|task| own.fresh.push(task));
            // Nobody saw them meanwhile.
            own.shared.idle.moved(&Idling { worker: self, own });
        }
        left_out
    }

    /// Nothing is ready here: takes from others, or sleeps until something comes.
    fn idle(&self, own: &Own) {
        if self.answer_some(own) {
            return;
        }
        let others = own.shared.workers().len() > 1;
        let idling = Idling { worker: self, own };
        if others && own.shared.idle.steal(&idling) {
            return;
        }
        let spins = own.shared.may_spin && own.spin.is_worth_it();
        // A worker that spins and finds something time after time never sleeps in its driver. So its
        // events are looked at here, as often as where fibers are always ready.
        self.look_at_clock(own, spins);
        // SAFETY: the queue is not referred to elsewhere meanwhile.
        if unsafe { !(*own.ready.get()).is_empty() || !(*own.pinned.get()).is_empty() } {
            return;
        }
        if spins && self.spin(own) {
            return;
        }
        if others {
            own.shared.idle.rest(self.index, &idling);
        } else {
            idle::Worker::sleep(&idling);
        }
    }

    /// Looks for what others send for a while, or until a timer is due; true if there is something.
    ///
    /// The inbox does not say that we sleep, so who sends does not ring.
    fn spin(&self, own: &Own) -> bool {
        /// Between two looks at the clock: half a microsecond's worth.
        const LOOKS: u32 = 16;
        // SAFETY: the wheel is not referred to elsewhere meanwhile.
        let timer = unsafe { (*own.timers.get()).next_deadline() }.unwrap_or(u64::MAX);
        let length_ns = own.spin.length_ns().min(timer.saturating_sub(own.now.get()));
        // Not by the driver's clock, which may stand still.
        let until = self.lifetime_ns() + length_ns;
        while self.lifetime_ns() < until {
            for _ in 0..LOOKS {
                std::hint::spin_loop();
                if !self.inbox.is_empty() {
                    own.spin.has_paid();
                    return true;
                }
            }
            if !own.shared.injector.is_empty() {
                break; // Who spawns from outside sees nobody asleep. `rest` looks after it.
            }
        }
        own.spin.was_in_vain();
        own.now.set(own.since_epoch(own.driver.now()));
        false
    }

    /// Waits in the driver until something comes or a timer is due.
    fn sleep(&self, own: &Own) {
        // SAFETY: the wheel is not referred to elsewhere meanwhile.
        let timer = unsafe { (*own.timers.get()).next_deadline() };
        let starved = own.shared.has_starved().then(|| own.starved_retry_at.get());
        let until = [timer, Some(own.trim_at.get()), starved].into_iter().flatten().min();
        let timeout = match until {
            None | Some(u64::MAX) => None,
            Some(until) => Some(Duration::from_nanos(until.saturating_sub(own.now.get()))),
        };
        if timeout.is_none() && self.live_count() > 0 {
            watch::worker_rests();
        }
        let asleep_at = self.lifetime_ns();
        own.driver.poll(timeout);
        if own.shared.config.stall_limit.is_some() {
            self.receive(); // So that who looks after we have said so sees us awake.
            watch::worker_awake();
        }
        let rung_at = self.rung_at.load(Relaxed);
        if rung_at >= asleep_at {
            own.spin.was_rung(asleep_at, rung_at, self.lifetime_ns());
        }
        // The time asleep says nothing about how long visits take, so it is not left to
        // `look_at_clock`. The inbox still says that we sleep, or has something: the next turn
        // takes it.
        let now = own.since_epoch(own.driver.now());
        own.now.set(now);
        own.polled_at.set(now);
        own.until_clock.set(own.clock_interval.get());
        self.fire_timers(own, now);
    }

    /// Whether nothing is left to run, now or later. Asked while nothing is ready.
    fn is_done(&self, own: &Own) -> bool {
        (self.live_count() == 0 || !CAN_UNWIND)
            && own.fresh.is_empty()
            // SAFETY: the queue is not referred to elsewhere meanwhile.
            && unsafe { (*own.pinned.get()).is_empty() }
            && self.inbox.is_empty()
            && own.shared.injector.is_empty()
            && !own.shared.has_starved()
    }

    /// Ends the fresh fibers in the inbox of a worker that starts none any more.
    fn discard_leftovers(&self) {
        for item in self.inbox.take() {
            // SAFETY: what is in the inbox is not null and comes with one reference.
            let task = unsafe { TaskRef::from_raw(NonNull::new_unchecked(item)) };
            if !task.is_started() {
                runtime::discard(task);
            }
        }
    }
}

/// A timer of the running fiber. It must not outlive the wait, also if `ready` panics: the wheel
/// refers to the fiber's header.
struct Armed<'a> {
    own: &'a Own,
    /// There until it is dropped.
    key: Option<TimerKey>,
}

impl<'a> Armed<'a> {
    /// One that makes `me`, which runs, ready at `at`.
    #[inline]
    fn new(own: &'a Own, me: &Header, at: Instant) -> Armed<'a> {
        let at_ns = own.since_epoch(at);
        // SAFETY: the wheel is not referred to across a suspension, here or elsewhere.
        let key = unsafe { (*own.timers.get()).insert(at_ns, me.whole()) };
        Armed { own, key: Some(key) }
    }

    fn has_fired(&self) -> bool {
        // SAFETY: the wheel is not referred to across a suspension, here or elsewhere.
        self.key.as_ref().is_some_and(|key| unsafe { (*self.own.timers.get()).fired(key) })
    }
}

impl Drop for Armed<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            // SAFETY: as above; this is the worker's thread, as only a wait on it makes an `Armed`.
            unsafe { (*self.own.timers.get()).remove(key) };
        }
    }
}

/// A worker on its own stack with nothing to do.
struct Idling<'a> {
    worker: &'a Worker,
    own: &'a Own,
}

impl idle::Worker for Idling<'_> {
    // That this worker holds many fibers does not count here. The one with fewer may sleep, and what
    // is taken here by one that is overloaded goes on to it, see `begin`.
    fn sees_work(&self) -> bool {
        let me = self.worker.index;
        let mut workers = self.own.shared.workers().iter();
        !self.own.shared.injector.is_empty()
            || workers.any(|worker| worker.index != me && worker.has_fresh())
    }

    fn take_work(&self) -> bool {
        let Idling { worker, own } = *self;
        if !own.shared.injector.is_empty() && own.fresh.steal_shared(&own.shared.injector) {
            return true;
        }
        let workers = own.shared.workers();
        let mut after = (1..workers.len()).map(|i| workers[(worker.index + i) % workers.len()]);
        after.any(|victim| victim.has_fresh() && own.fresh.steal_from(&victim.theirs))
    }

    fn fresh_here(&self) -> usize {
        self.own.fresh.len()
    }

    fn offer(&self) {
        self.own.shared.fresh_beside_sleepers(self.own.fresh.len());
    }

    fn sleep(&self) {
        if self.worker.inbox.fall_asleep() {
            self.worker.sleep(self.own);
        }
    }

    fn poke(&self, other: usize) {
        self.own.shared.workers()[other].poke();
    }
}

impl Teller for Idling<'_> {
    fn begin(&self, request: &Request, chunk: &mut Chunk) -> usize {
        let Idling { worker, own } = self;
        worker.look_at_clock(own, false); // For how long they have waited.
        // SAFETY: our own header is in no list, and stays until we end, when it is taken out.
        unsafe { worker.live.link(own.header.as_ptr()) };
        if request.wants_everything() { worker.describe_fresh(own, chunk) } else { 0 }
    }

    fn tell(&self, request: &Request, chunk: &mut Chunk, slice: &mut Slice) -> bool {
        let Idling { worker, own } = self;
        chunk.set_now_ns(own.now.get());
        if !chunk.has_room() {
            return true;
        }
        let tell = |fiber: &Header| {
            // SAFETY: this is our own stack, and what is in the live list has started, and is alive. There is
            // room: that was asked before the first, and after each.
            if !unsafe { request.describe(fiber, chunk, slice) } {
                return Step::StopBefore;
            }
            if slice.goes_on() && chunk.has_room() { Step::Next } else { Step::Stop }
        };
        // SAFETY: our own header is in the list from the first slice to the last.
        unsafe { worker.live.try_advance(own.header.as_ptr(), tell) }.unwrap_or(true)
    }

    fn stop(&self) {
        // SAFETY: between the slices of an answer it is in the list.
        unsafe { self.worker.live.unlink(self.own.header.as_ptr()) };
    }

    fn thread_ns(&self) -> u64 {
        self.own
            .shared
            .config
            .thread_clock
            .map_or_else(|| self.worker.lifetime_ns(), |clock| clock())
    }
}

/// What every fiber's stack starts with: `argument` is its header.
pub(crate) unsafe extern "C" fn fiber_main(argument: Word) -> Exit {
    // SAFETY: `enter` hands over the header.
    let fiber = unsafe { argument.assume_init() }.cast::<Header>();
    // SAFETY: the scheduler's reference keeps the header alive until the fiber is reaped, after this
    // frame has gone.
    let header = unsafe { &*fiber };
    current::set(header);
    current::follow_switch(header); // It may have a thread of its own.
    header.set_run(Run::Running);
    current::set_budget(BUDGET);
    // SAFETY: this is its own stack, and it is started once. The worker's own data is used on its thread.
    unsafe {
        // `run_closure` catches panics, those of destructors too.
        header.run_closure();
        header.locals.free();
        header.set_run(Run::Ended);
        let own = (*header.worker()).own();
        own.ended.set(fiber);
        current::set_nobody();
        Exit { next: own.context.get(), arg: Word::uninit() }
    }
}
