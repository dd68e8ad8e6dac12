//! Who is running: one thread-local, of a pointer and a count.
//!
//! It points at the header of the running fiber; on a worker's own stack at the worker's header;
//! on a plain thread at a header made at first use. The worker is found through the header. It is
//! set by whoever goes on after a switch, and fibers never change threads, so it needs no more
//! care than any thread-local. No other thread-local exists above the machine layer, but for the
//! guard that frees a plain thread's header. Beside it is what locks look at: see [`held`](crate::held).
//!
//! Beside the pointer lies the budget of whoever runs: see [`charge`](crate::charge). A fiber gets a whole one each
//! time it is resumed, so nobody has to keep what was left. In the header it would cost each
//! operation two loads and a test for null more than the one instruction that it is here.

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::atomic::{Condvar, Mutex, lock, thread_local};
use crate::cancel;
use crate::fork;
use crate::frame;
use crate::held::Switch;
use crate::owner;
use crate::park::Outcome;
use crate::task::{self, Header, TaskRef};
use crate::worker::{self, Worker};

struct Current {
    header: Cell<*const Header>,
    /// What stands in locks that it takes: see [`mark`].
    mark: Cell<u64>,
    /// What may be spent on operations without parking before others are let run.
    budget: Cell<u32>,
    /// The switch follows everybody's.
    is_listed: Cell<bool>,
    /// Whether locks are [written down](crate::held).
    switch: Switch,
}

impl Current {
    const fn nobody() -> Current {
        Current {
            header: Cell::new(ptr::null()),
            mark: Cell::new(owner::HELD),
            budget: Cell::new(0),
            is_listed: Cell::new(false),
            switch: Switch::off(),
        }
    }
}

impl Current {
    #[inline(always)]
    fn set(&self, header: *const Header, mark: u64) {
        self.header.set(header);
        self.mark.set(mark);
    }
}

#[cfg(not(loom))]
thread_local! {
    static CURRENT: Current = const { Current::nobody() };
    static OWN: Own = const { Own(Cell::new(None)) };
}
#[cfg(loom)]
thread_local! {
    static CURRENT: Current = Current { switch: Switch::of_model(), ..Current::nobody() };
    static OWN: Own = Own(Cell::new(None));
}

/// Gives back a plain thread's header when the thread ends, and takes any thread off the list of those with a switch.
struct Own(Cell<Option<TaskRef>>);

impl Drop for Own {
    fn drop(&mut self) {
        // Under loom the word itself may be gone already.
        let _ = CURRENT.try_with(|current| {
            current.set(ptr::null(), owner::HELD);
            if current.is_listed.get() && !fork::in_forked_child() {
                current.switch.unlist();
            }
        });
    }
}

/// The running party, or null on a plain thread that has none yet.
#[inline(always)]
pub(crate) fn get() -> *const Header {
    CURRENT.with(|current| current.header.get())
}

/// Says who runs from here on. See the module's head for who says so.
#[inline(always)]
pub(crate) fn set(header: &Header) {
    CURRENT.with(|current| current.set(header, owner::mark_of(header.id())));
}

/// Says that nobody runs.
pub(crate) fn set_nobody() {
    CURRENT.with(|current| current.set(ptr::null(), owner::HELD));
}

/// What stands in the word of a lock that the running party has taken: that it is held, and by whom.
///
/// A plain thread is nobody in particular before it has waited, or spent its budget, once.
///
/// ```
/// # strands_sched::with_current_task(|_| ());
/// let here = strands_sched::mark();
/// assert_eq!(strands_sched::mark(), here);
/// let there = std::thread::spawn(strands_sched::mark).join().unwrap();
/// assert_ne!(here, there);
/// ```
#[inline(always)]
pub fn mark() -> u64 {
    CURRENT.with(|current| current.mark.get())
}

/// Runs `f` with this thread's switch.
#[inline(always)]
pub(crate) fn with_switch<R>(f: impl FnOnce(&Switch) -> R) -> R {
    CURRENT.with(|current| f(&current.switch))
}

/// Has this thread's switch follow everybody's, if it does not yet. The thread is called what `party` is called.
#[inline(always)]
pub(crate) fn follow_switch(party: &Header) {
    if !CURRENT.with(|current| current.is_listed.get()) {
        list(party);
    }
}

#[cold]
fn list(party: &Header) {
    // From here on the destructor will run, unless it has.
    let ends = OWN.try_with(|_| ()).is_ok();
    if cfg!(not(loom)) && ends && !fork::in_forked_child() {
        CURRENT.with(|current| {
            current.is_listed.set(true);
            // SAFETY: `Own::drop` takes it off the list, and has not run. The word outlives that: it has no destructor; where
            // thread-locals are in the heap, those first used go last.
            unsafe { current.switch.list(party) };
        });
    }
}

/// What the running party may spend on operations without parking.
#[inline(always)]
pub(crate) fn set_budget(budget: u32) {
    CURRENT.with(|current| current.budget.set(budget));
}

/// Spends `cost` of it. False: so much was not left; now it is about as much as a `u32` can tell.
#[inline(always)]
pub(crate) fn spend_budget(cost: u32) -> bool {
    CURRENT.with(|current| {
        let left = current.budget.get();
        current.budget.set(left.wrapping_sub(cost));
        left >= cost
    })
}

/// The running party.
#[inline(always)]
pub(crate) fn header<'a>() -> &'a Header {
    let header = get();
    // SAFETY: whoever set it runs now, so its header is alive for as long as this stack frame.
    // The lifetime is not told to the compiler: callers keep the reference within their frames.
    if header.is_null() { adopt() } else { unsafe { &*header } }
}

/// Runs `f` with the running party.
///
/// ```
/// use strands_sched::{Builder, SpawnOptions, with_current_task};
///
/// let runtime = Builder::new().workers(1).build()?;
/// let options = SpawnOptions { name: Some("parser".into()), ..SpawnOptions::default() };
/// let name = runtime.run(options, || with_current_task(|me| me.name().map(String::from)))?;
/// assert_eq!(name.as_deref(), Some("parser"));
/// assert!(with_current_task(|me| me.is_thread()), "a plain thread is a party too");
/// # std::io::Result::Ok(())
/// ```
#[inline(always)]
pub fn with<R>(f: impl FnOnce(&Header) -> R) -> R {
    f(header())
}

/// Whether `task` is the running party.
pub(crate) fn is(task: &TaskRef) -> bool {
    ptr::eq(get(), task.as_ptr().as_ptr())
}

/// Whether this is the thread of `worker`.
#[inline(always)]
pub(crate) fn on_worker(worker: *const Worker) -> bool {
    let current = get();
    // SAFETY: as in `header`.
    !worker.is_null() && !current.is_null() && unsafe { (*current).worker() } == worker
}

/// The worker whose thread this is.
#[inline(always)]
pub(crate) fn worker() -> Option<&'static Worker> {
    let current = get();
    if current.is_null() {
        return None;
    }
    // SAFETY: as in `header`; workers are never freed.
    unsafe { (*current).worker().as_ref() }
}

/// Gives a plain thread its header.
#[cold]
fn adopt<'a>() -> &'a Header {
    let name = std::thread::current().name().map(Into::into);
    let task = PlainThread::allocate(name, ptr::null_mut());
    let header = task.as_ptr();
    let mut task = Some(task);
    if OWN.try_with(|own| own.0.set(task.take())).is_err() {
        // A destructor of another thread-local waits, and ours has run: leak the header.
        std::mem::forget(task);
    }
    // SAFETY: `OWN` keeps it until the thread's locals are destroyed, or it was leaked.
    let header = unsafe { header.as_ref() };
    set(header);
    follow_switch(header);
    header
}

/// The header of a party that is a whole OS thread, and what it sleeps on.
#[repr(C)]
pub(crate) struct PlainThread {
    header: Header,
    state: Mutex<ThreadState>,
    changed: Condvar,
}

#[derive(Default)]
struct ThreadState {
    notified: bool,
    /// Set while the thread waits in something else than the condition variable.
    alarm: Option<Arc<dyn Alarm>>,
}

/// Ends the wait of a plain thread that waits in something else than a lock, such as `ppoll`.
///
/// ```
/// use std::sync::mpsc::{Sender, channel};
/// use strands_sched::Alarm;
///
/// /// For a thread that waits in `Receiver::recv`.
/// struct Bell(Sender<()>);
/// impl Alarm for Bell {
///     fn ring(&self) {
///         let _ = self.0.send(()); // If it has gone it does not wait.
///     }
/// }
///
/// let (sender, receiver) = channel();
/// Bell(sender).ring();
/// receiver.recv().unwrap(); // Ends, as it rang before.
/// ```
pub trait Alarm: Send + Sync {
    /// Ends the wait, also one that begins after this.
    fn ring(&self);
}

impl PlainThread {
    pub(crate) fn allocate(name: Option<Box<str>>, worker: *mut Worker) -> TaskRef {
        let thread = Box::new(PlainThread {
            header: Header::of_thread(worker::next_id(), name, worker),
            state: Mutex::new(ThreadState::default()),
            changed: Condvar::new(),
        });
        // SAFETY: the header is the first field; `of_thread` counted one reference, which is this
        // one.
        unsafe { TaskRef::from_raw(task::expose(thread)) }
    }

    /// # Safety
    ///
    /// No reference to `header`, a `PlainThread`'s, is left.
    pub(crate) unsafe fn free(header: NonNull<Header>) {
        // SAFETY: `allocate` made it as a box of this type.
        drop(unsafe { Box::from_raw(header.cast::<PlainThread>().as_ptr()) });
    }

    /// # Safety
    ///
    /// `header` is a `PlainThread`'s.
    pub(crate) unsafe fn of(header: &Header) -> &PlainThread {
        // SAFETY: it is the first field of a repr(C) struct, by the caller's promise.
        unsafe { header.whole().cast::<PlainThread>().as_ref() }
    }

    /// Makes the thread look again at what it waits for.
    pub(crate) fn notify(&self) {
        let mut state = lock(&self.state);
        state.notified = true;
        // Also beside an alarm: one may be left over from a wait that ended in a panic.
        self.changed.notify_one();
        let alarm = state.alarm.clone();
        drop(state);
        if let Some(alarm) = alarm {
            alarm.ring();
        }
    }

    /// Waits until `ready`, looking after each notification. The running thread's own only.
    pub(crate) fn wait_until(
        &self,
        deadline: Option<Instant>,
        ready: impl Fn() -> bool,
    ) -> Outcome {
        if ready() {
            return Outcome::Woken;
        }
        let mut limit = frame::limit(&self.header);
        loop {
            let has_passed = is_over(limit);
            if cancel::deliverable(&self.header) {
                return Outcome::Cancelled;
            }
            limit = limit.filter(|_| !has_passed);
            let mut state = lock(&self.state);
            // One that came between our look and the lock ends the wait before it begins.
            if !std::mem::take(&mut state.notified) {
                match time_left(deadline, limit) {
                    None => state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner()),
                    Some(Duration::ZERO) => {}
                    Some(left) => {
                        let waited = self.changed.wait_timeout(state, left);
                        state = waited.unwrap_or_else(|e| e.into_inner()).0;
                    }
                }
                state.notified = false;
            }
            drop(state);
            if ready() {
                return Outcome::Woken;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Outcome::TimedOut;
            }
        }
    }

    /// As [`wait_until`](Self::wait_until), but waits in `block`, which `alarm` ends.
    ///
    /// `block` gets what is left until the deadline and may return early.
    pub(crate) fn block_until(
        &self,
        deadline: Option<Instant>,
        alarm: &Arc<dyn Alarm>,
        ready: impl Fn() -> bool,
        mut block: impl FnMut(Option<Duration>),
    ) -> Outcome {
        lock(&self.state).alarm = Some(alarm.clone());
        let mut limit = frame::limit(&self.header);
        let outcome = loop {
            if ready() {
                break Outcome::Woken;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                break Outcome::TimedOut;
            }
            let has_passed = is_over(limit);
            if cancel::deliverable(&self.header) {
                break Outcome::Cancelled;
            }
            limit = limit.filter(|_| !has_passed);
            block(time_left(deadline, limit));
        };
        let mut state = lock(&self.state);
        state.alarm = None;
        state.notified = false;
        outcome
    }
}

/// Asked before it is asked whether a time limit may end the wait: one that has passed then, and may not, is none.
fn is_over(limit: Option<Instant>) -> bool {
    limit.is_some_and(|limit| limit <= Instant::now())
}

/// Until the deadline, or the time limit around the wait if that comes first.
fn time_left(deadline: Option<Instant>, limit: Option<Instant>) -> Option<Duration> {
    let first = [deadline, limit].into_iter().flatten().min()?;
    Some(first.saturating_duration_since(Instant::now()))
}
