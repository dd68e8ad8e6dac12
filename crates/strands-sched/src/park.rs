//! Waiting: the one way that a party suspends.
//!
//! Every operation that may wait keeps one contract: **try** it; **enrol**, where those who can
//! make it possible will find us; **park**; if the park ended without success, **withdraw**;
//! report the **outcome**. [`Parker`] is what is enrolled. Its word decides a race between a waker and the
//! waiter's own giving up (time, cancel) by one read-modify-write each: the first wins, and both know.
//!
//! A waker takes its reference to the waiting party before it publishes and never touches the
//! waiter's frame after. It rings every parker that it has taken out of a list, also when
//! it comes second, so a waiter that finds itself taken out can wait for the ring and then leave.
//!
//! Turned down: a wait that returns without saying why (each caller then guesses, and a wake-up
//! meant for somebody is lost), and one token a party for all its waits (a late wake of one
//! operation then ends another).

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::atomic::{AcqRel, Acquire, AtomicU32, Relaxed, Release, backoff};
use crate::cancel;
use crate::current::{self, Alarm, PlainThread};
use crate::fork;
use crate::select::Choice;
use crate::task::{Header, TaskRef};
use crate::worker::BUDGET;

/// How a wait ended.
///
/// ```
/// use std::time::Instant;
/// use strands_sched::{Op, Outcome, wait_until};
///
/// static WAIT: Op = Op("an example");
/// assert_eq!(wait_until(&WAIT, 0, None, || true), Outcome::Woken);
/// assert_eq!(wait_until(&WAIT, 0, Some(Instant::now()), || false), Outcome::TimedOut);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What was waited for has happened.
    Woken,
    /// The deadline passed first.
    TimedOut,
    /// The fiber was cancelled first; it shall unwind, see [`cancel::unwind`](crate::cancel_unwind).
    Cancelled,
}

/// What a party waits for, for people to read: a static name such as `"TcpStream::read"`.
///
/// ```
/// use strands_sched::{Op, Outcome, wait_until};
///
/// fn wait_for_turn() -> Outcome {
///     static WAIT: Op = Op("wait_for_turn"); // One for each kind of wait.
///     wait_until(&WAIT, 0, None, || true)
/// }
/// assert_eq!(wait_for_turn(), Outcome::Woken);
/// ```
#[derive(Debug)]
pub struct Op(pub &'static str);

/// Waits until `ready`, which is asked now and after each [wake](Header::wake) of the party.
///
/// `ready` must be cheap and must not wait. `object` identifies what is waited for in reports (an
/// address, an id). From a fiber this suspends the fiber; from a plain thread it blocks the
/// thread. On [`Outcome::Cancelled`] the caller undoes what it enrolled and unwinds.
///
/// # Panics
///
/// In a [forked child](crate::in_forked_child), unless `ready` at once or `deadline` has passed.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering::{Acquire, Release}};
/// use strands_sched::{Op, Outcome, TaskRef, wait_until, with_current_task};
///
/// static OPEN: Op = Op("Gate::wait");
/// let is_open = AtomicBool::new(false);
/// let waiter = with_current_task(TaskRef::to);
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         is_open.store(true, Release); // The reason first,
///         waiter.wake(); // then the wake.
///     });
///     let outcome = wait_until(&OPEN, 0, None, || is_open.load(Acquire));
///     assert_eq!(outcome, Outcome::Woken);
/// });
/// ```
pub fn wait_until(
    op: &'static Op,
    object: usize,
    deadline: Option<Instant>,
    ready: impl Fn() -> bool,
) -> Outcome {
    if fork::in_forked_child() {
        if ready() {
            return Outcome::Woken;
        }
        fork::assert_may_wait(deadline);
        return Outcome::TimedOut;
    }
    let me = current::header();
    me.set_wait(op, object);
    if me.is_thread() {
        // SAFETY: only `PlainThread`s have the flag.
        return unsafe { PlainThread::of(me) }.wait_until(deadline, ready);
    }
    // SAFETY: a running fiber has a worker, whose thread this is.
    unsafe { (*me.worker()).wait_until(me, deadline, ready) }
}

/// Waits as [`wait_until`] does, on a plain thread that has something better to wait in.
///
/// `block` is called with the time left, and returns when it sees fit or `alarm` rings.
///
/// # Panics
///
/// If called from a fiber.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering::{Acquire, Release}};
/// use std::sync::{Arc, mpsc};
/// use strands_sched::{Alarm, Op, Outcome, TaskRef, block_until, with_current_task};
///
/// struct Bell(mpsc::Sender<()>);
/// impl Alarm for Bell {
///     fn ring(&self) {
///         let _ = self.0.send(());
///     }
/// }
///
/// static WAIT: Op = Op("an example");
/// let (sender, receiver) = mpsc::channel();
/// let alarm: Arc<dyn Alarm> = Arc::new(Bell(sender));
/// let is_ready = AtomicBool::new(false);
/// let waiter = with_current_task(TaskRef::to);
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         is_ready.store(true, Release);
///         waiter.wake();
///     });
///     // In place of `recv` a reactor has a `ppoll` that ends when the bell's descriptor is ready.
///     let block = |_left| receiver.recv().unwrap();
///     let outcome = block_until(&WAIT, 0, None, &alarm, || is_ready.load(Acquire), block);
///     assert_eq!(outcome, Outcome::Woken);
/// });
/// ```
pub fn block_until(
    op: &'static Op,
    object: usize,
    deadline: Option<Instant>,
    alarm: &Arc<dyn Alarm>,
    ready: impl Fn() -> bool,
    block: impl FnMut(Option<Duration>),
) -> Outcome {
    let me = current::header();
    assert!(me.is_thread(), "a fiber would block its worker");
    me.set_wait(op, object);
    // SAFETY: only `PlainThread`s have the flag.
    unsafe { PlainThread::of(me) }.block_until(deadline, alarm, ready, block)
}

/// A party's enrolment for one wait. It lies on the waiter's frame.
///
/// ```
/// use std::ptr;
/// use std::sync::atomic::{AtomicPtr, Ordering::AcqRel};
/// use std::thread;
/// use strands_sched::{Op, Outcome, Parker};
///
/// /// Where the one party that waits enrols.
/// static WAITER: AtomicPtr<Parker> = AtomicPtr::new(ptr::null_mut());
/// static WAIT: Op = Op("an example");
///
/// fn take() -> *mut Parker {
///     WAITER.swap(ptr::null_mut(), AcqRel)
/// }
///
/// let waiter = thread::spawn(|| {
///     let parker = Parker::new();
///     WAITER.swap((&raw const parker).cast_mut(), AcqRel);
///     parker.park(&WAIT, 0, None, || !take().is_null())
/// });
/// let parker = loop {
///     match take() {
///         parker if parker.is_null() => thread::yield_now(), // It has not enrolled yet.
///         parker => break parker,
///     }
/// };
/// // SAFETY: we have taken it out, so the waiter has not left it and nobody else has it.
/// assert!(unsafe { Parker::unpark(parker) });
/// assert_eq!(waiter.join().unwrap(), Outcome::Woken);
/// ```
pub struct Parker {
    word: AtomicU32,
    /// Of an arm, its [`Choice`].
    party: NonNull<Header>,
}

/// A waker has taken it and will not touch it again.
const RUNG: u32 = 1;
/// The waiter gave up first.
const WITHDRAWN: u32 = 2;
/// From birth: it is an arm of a select. Its index is in the bits above.
const ARM: u32 = 4;
const ARM_BITS: u32 = 3;

// SAFETY: the word is atomic, and a `Header` may be shared between threads.
unsafe impl Sync for Parker {}

impl Default for Parker {
    fn default() -> Parker {
        Parker::new()
    }
}

impl Parker {
    /// The running party's.
    ///
    /// # Panics
    ///
    /// In a [forked child](crate::in_forked_child): a wait that cannot end must not begin.
    ///
    /// ```
    /// use std::time::Instant;
    /// use strands_sched::{Op, Outcome, Parker};
    ///
    /// static WAIT: Op = Op("an example");
    /// let parker = Parker::new();
    /// let outcome = parker.park(&WAIT, 0, Some(Instant::now()), || true);
    /// assert_eq!(outcome, Outcome::TimedOut, "it is enrolled nowhere");
    /// ```
    #[inline]
    pub fn new() -> Parker {
        fork::assert_may_wait(None);
        Parker { word: AtomicU32::new(0), party: current::header().whole() }
    }

    /// An arm of a select: who chooses it claims the whole.
    pub(crate) fn arm(choice: &Choice, index: u32) -> Parker {
        let word = AtomicU32::new(ARM | index << ARM_BITS);
        Parker { word, party: NonNull::from(choice).cast() }
    }

    /// If it is an arm: of what, and the how manieth.
    #[inline]
    pub(crate) fn choice(&self) -> Option<(NonNull<Choice>, u32)> {
        let word = self.word.load(Relaxed); // The bits that count are there from birth.
        (word & ARM != 0).then(|| (self.party.cast(), word >> ARM_BITS))
    }

    /// Whether it can be chosen still, as far as that shows. Not so once is not so for ever.
    ///
    /// # Safety
    ///
    /// The waiter does not leave it meanwhile.
    pub(crate) unsafe fn is_waiting(&self) -> bool {
        match self.choice() {
            // SAFETY: the arms and what they share are on one frame.
            Some((choice, _)) => unsafe { choice.as_ref() }.is_open(),
            None => self.word.load(Acquire) == 0,
        }
    }

    /// Whether it is the arm that was chosen, of a select that has stopped to wait.
    pub(crate) fn was_chosen(&self) -> bool {
        // SAFETY: the arms and what they share are on one frame.
        self.choice().is_some_and(|(choice, index)| unsafe { choice.as_ref() }.has_chosen(index))
    }

    /// Says that the arm, whose select was claimed before, will not be touched again.
    ///
    /// # Safety
    ///
    /// The waiter waits for that, or for a lock that the caller has.
    pub(crate) unsafe fn ring(arm: *const Parker) {
        // SAFETY: the caller's promise.
        unsafe { (*arm).word.fetch_or(RUNG, Release) };
    }

    /// A waker holds it, and the waiter has given up, or is chosen by another arm: waits for the ring.
    pub(crate) fn wait_for_ring(&self) {
        // A few instructions, if the waker's thread runs.
        let mut round = 0;
        while self.word.load(Acquire) & RUNG == 0 {
            backoff(round);
            round += 1;
        }
    }

    /// Wakes the waiter, unless it gave up first; says which.
    ///
    /// # Safety
    ///
    /// As for [`choose`](Self::choose).
    ///
    /// ```
    /// use strands_sched::{Op, Outcome, Parker};
    ///
    /// static WAIT: Op = Op("an example");
    /// let parker = Parker::new();
    /// // SAFETY: it is enrolled nowhere, so nobody else has it, and it is still there.
    /// assert!(unsafe { Parker::unpark(&parker) });
    /// let outcome = parker.park(&WAIT, 0, None, || unreachable!("it does not give up"));
    /// assert_eq!(outcome, Outcome::Woken);
    /// ```
    #[inline]
    pub unsafe fn unpark(parker: *const Parker) -> bool {
        // SAFETY: passed on.
        unsafe { Parker::choose(parker) }.is_some()
    }

    /// Decides that the waiter's wait has ended well, unless it gave up first. The waiter is woken
    /// when the [`Wake`] is dropped, which may be after a lock has been released.
    ///
    /// # Safety
    ///
    /// The caller has taken `parker` out of where the waiter enrolled it (or holds the lock under
    /// which the waiter would take it out), so that it has not been left, and no other waker has
    /// it. The party that made it has not ended. After the call it may be gone.
    ///
    /// ```
    /// use std::sync::Mutex;
    /// use strands_sched::{Op, Outcome, Parker};
    ///
    /// static WAIT: Op = Op("an example");
    /// let lock = Mutex::new("of the list that it is in");
    /// let parker = Parker::new();
    /// let guard = lock.lock().unwrap();
    /// // SAFETY: it is enrolled nowhere, so nobody else has it, and it is still there.
    /// let wake = unsafe { Parker::choose(&parker) };
    /// drop(guard);
    /// drop(wake); // Here it is woken.
    /// assert_eq!(parker.park(&WAIT, 0, None, || true), Outcome::Woken);
    /// ```
    #[inline]
    pub unsafe fn choose(parker: *const Parker) -> Option<Wake> {
        // SAFETY: the caller's promise; the frame stays until the word says RUNG, and so does the
        // party whose frame it is. What is used after that is our own reference.
        unsafe {
            if (*parker).choice().is_some() {
                return Choice::claim(parker);
            }
            let party = (*parker).party.as_ref();
            if current::on_worker(party.worker()) {
                // The waiter shares our thread and no other waker has the parker, so nobody else
                // writes the word; and it cannot run before we suspend, so no reference is needed.
                if (*parker).word.load(Relaxed) != 0 {
                    return None; // It gave up, and waits on its way out of the line.
                }
                (*parker).word.store(RUNG, Release);
                party.wake();
                return Some(Wake(None));
            }
            let party = TaskRef::to(party);
            let won = (*parker).word.fetch_or(RUNG, AcqRel) & WITHDRAWN == 0;
            won.then(|| Wake(Some(party)))
        }
    }

    /// Waits until it is [unparked](Self::unpark).
    ///
    /// `withdraw` takes the parker out of where it was enrolled, after the waiter has given up;
    /// it returns false if it was not there any more, that is, if a waker has it.
    ///
    /// # Panics
    ///
    /// In a [forked child](crate::in_forked_child), unless it has been unparked: one that was made
    /// before the fork.
    ///
    /// ```
    /// use std::sync::Mutex;
    /// use std::time::{Duration, Instant};
    /// use strands_sched::{Op, Outcome, Parker};
    ///
    /// /// The address of a parker that its waiter keeps where it is while it is in here.
    /// struct Enrolled(*const Parker);
    /// let line: Mutex<Vec<Enrolled>> = Mutex::default();
    ///
    /// static WAIT: Op = Op("an example");
    /// let parker = Parker::new();
    /// line.lock().unwrap().push(Enrolled(&parker));
    /// let deadline = Instant::now() + Duration::from_millis(1);
    /// let outcome = parker.park(&WAIT, 0, Some(deadline), || {
    ///     let mut line = line.lock().unwrap();
    ///     let before = line.len();
    ///     line.retain(|other| !std::ptr::eq(other.0, &parker));
    ///     line.len() < before // Else somebody has taken us out, and will ring.
    /// });
    /// assert_eq!(outcome, Outcome::TimedOut);
    /// ```
    #[inline]
    pub fn park(
        &self,
        op: &'static Op,
        object: usize,
        deadline: Option<Instant>,
        withdraw: impl FnOnce() -> bool,
    ) -> Outcome {
        let rung = || self.word.load(Acquire) & RUNG != 0;
        let outcome = wait_until(op, object, deadline, rung);
        if outcome == Outcome::Woken || self.word.fetch_or(WITHDRAWN, AcqRel) & RUNG != 0 {
            return Outcome::Woken;
        }
        if !withdraw() {
            self.wait_for_ring();
        }
        outcome
    }
}

/// A party that has been [chosen](Parker::choose). Dropping this wakes it.
///
/// To wake a party on another thread may take a system call: drop this after releasing locks.
///
/// ```
/// use std::thread;
/// use strands_sched::{Op, Outcome, Wake, WaitQueue};
///
/// static WAIT: Op = Op("an example");
/// let queue: WaitQueue<u32> = WaitQueue::new(0);
/// thread::scope(|scope| {
///     let waiter = scope.spawn(|| queue.wait(&WAIT, None, (), |_| None::<()>));
///     let wake: Wake = loop {
///         let chosen = queue.lock().choose_first(|()| {});
///         match chosen {
///             Some(wake) => break wake,
///             None => thread::yield_now(),
///         }
///     };
///     drop(wake);
///     assert_eq!(waiter.join().unwrap(), Err(Outcome::Woken));
/// });
/// ```
#[must_use = "a chosen party sleeps until this is dropped; drop it after releasing locks"]
pub struct Wake(Option<TaskRef>);

impl Wake {
    /// For a party that is chosen; `None` if it was woken.
    pub(crate) fn of(party: Option<TaskRef>) -> Wake {
        Wake(party)
    }

    /// Whether there is something left to do.
    pub(crate) fn is_pending(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Wake {
    #[inline]
    fn drop(&mut self) {
        if let Some(party) = &self.0 {
            party.wake();
        }
    }
}

/// `std::thread::park`: waits for the token, or until the deadline; takes the token.
///
/// Unwinds if the fiber is cancelled.
///
/// # Panics
///
/// In a [forked child](crate::in_forked_child), unless the token is there or `deadline` has passed.
///
/// ```
/// use std::time::Instant;
/// use strands_sched::{park_token, unpark_token, with_current_task};
///
/// with_current_task(unpark_token);
/// park_token(None); // Takes the token that is there.
/// park_token(Some(Instant::now())); // There is none, but the time is up.
/// ```
pub fn park_token(deadline: Option<Instant>) {
    static PARK: Op = Op("thread::park");
    let me = current::header();
    let take = || me.token.swap(0, AcqRel) == 1;
    // First, as it may deliver a cancel, which must not cost the token.
    charge();
    if take() {
        return;
    }
    let outcome = wait_until(&PARK, me.id() as usize, deadline, || me.token.load(Acquire) == 1);
    if outcome == Outcome::Cancelled {
        cancel::unwind(); // A token that has come meanwhile stays.
    }
    take();
}

/// `std::thread::Thread::unpark`: makes the party's token available.
///
/// ```
/// use strands_sched::{TaskRef, park_token, unpark_token, with_current_task};
///
/// let me = with_current_task(TaskRef::to);
/// std::thread::spawn(move || unpark_token(&me));
/// park_token(None);
/// ```
pub fn unpark_token(party: &Header) {
    if party.token.swap(1, AcqRel) == 0 {
        party.wake();
    }
}

/// Waits until `deadline`; without one, until the fiber is cancelled. Unwinds if it is.
///
/// # Panics
///
/// In a [forked child](crate::in_forked_child), unless `deadline` has passed.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let deadline = Instant::now() + Duration::from_millis(1);
/// strands_sched::sleep_until(Some(deadline));
/// assert!(Instant::now() >= deadline);
/// ```
pub fn sleep_until(deadline: Option<Instant>) {
    static SLEEP: Op = Op("thread::sleep");
    let outcome = wait_until(&SLEEP, 0, deadline, || false);
    match outcome {
        Outcome::TimedOut => {}
        Outcome::Cancelled => cancel::unwind(),
        Outcome::Woken => unreachable!("nothing wakes a sleeper"),
    }
}

/// Lets the other ready parties run.
///
/// A cancel is delivered here. On a plain thread this is `std::thread::yield_now`.
///
/// ```
/// use strands_sched::{Builder, SpawnOptions, spawn_local, yield_now};
///
/// let runtime = Builder::new().workers(1).build()?;
/// runtime.run(SpawnOptions::default(), || {
///     let neighbour = spawn_local(SpawnOptions::default(), || "it has run")?;
///     while !neighbour.is_finished() {
///         yield_now();
///     }
///     assert_eq!(neighbour.join().unwrap(), "it has run");
///     std::io::Result::Ok(())
/// })??;
/// # std::io::Result::Ok(())
/// ```
pub fn yield_now() {
    let me = current::header();
    // In a forked child the other parties are the parent's.
    if me.is_thread() || fork::in_forked_child() {
        std::thread::yield_now();
        if me.is_thread() && cancel::deliverable(me) {
            cancel::unwind();
        }
        return;
    }
    // SAFETY: a running fiber has a worker, whose thread this is.
    unsafe { (*me.worker()).yield_now(me) }
}

/// Counts one operation that did not park; lets others run when there were many.
///
/// Every such operation of every layer spends the one budget that a fiber gets each time it is
/// resumed, so that a loop over ready sockets, full channels or free locks starves nobody. So does
/// one that fails instead of parking, and one that only looks: a loop that tries or asks again and again may
/// wait for a fiber of its own worker.
///
/// ```
/// use std::cell::Cell;
/// use strands_sched::{Builder, SpawnOptions, charge, spawn_local};
///
/// /// An operation that never has to wait.
/// fn next(counter: &Cell<u64>) -> u64 {
///     charge();
///     counter.replace(counter.get() + 1)
/// }
///
/// let runtime = Builder::new().workers(1).build()?;
/// runtime.run(SpawnOptions::default(), || {
///     let counter = Cell::new(0);
///     let neighbour = spawn_local(SpawnOptions::default(), || ())?;
///     while !neighbour.is_finished() {
///         next(&counter); // The loop does not starve the neighbour.
///     }
///     std::io::Result::Ok(())
/// })??;
/// # std::io::Result::Ok(())
/// ```
#[inline]
pub fn charge() {
    if !current::spend_budget(1) {
        exhausted();
    }
}

/// A fiber gets a new budget when it goes on. A plain thread has one now that will do: the system
/// sees to it that threads take turns. But one that may be asked to unwind looks from time to time.
#[cold]
pub(crate) fn exhausted() {
    let me = current::header();
    if !me.is_thread() {
        // SAFETY: a running fiber has a worker, whose thread this is.
        unsafe { (*me.worker()).end_turn() };
        return yield_now();
    }
    if !me.frames.is_empty() {
        current::set_budget(BUDGET);
        if cancel::deliverable(me) {
            cancel::unwind();
        }
    }
}
