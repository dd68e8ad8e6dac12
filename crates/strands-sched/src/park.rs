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
use crate::task::{Header, TaskRef};

/// How a wait ended.
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
#[derive(Debug)]
pub struct Op(pub &'static str);

/// Waits until `ready`, which is asked now and after each [wake](Header::wake) of the party.
///
/// `ready` must be cheap and must not wait. `object` identifies what is waited for in reports (an
/// address, an id). From a fiber this suspends the fiber; from a plain thread it blocks the
/// thread. On [`Outcome::Cancelled`] the caller undoes what it enrolled and unwinds.
pub fn wait_until(
    op: &'static Op,
    object: usize,
    deadline: Option<Instant>,
    ready: impl Fn() -> bool,
) -> Outcome {
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
pub struct Parker {
    word: AtomicU32,
    party: NonNull<Header>,
}

/// A waker has taken it and will not touch it again.
const RUNG: u32 = 1;
/// The waiter gave up first.
const WITHDRAWN: u32 = 2;

// SAFETY: the word is atomic, and a `Header` may be shared between threads.
unsafe impl Sync for Parker {}

impl Default for Parker {
    fn default() -> Parker {
        Parker::new()
    }
}

impl Parker {
    /// The running party's.
    #[inline]
    pub fn new() -> Parker {
        Parker { word: AtomicU32::new(0), party: NonNull::from(current::header()) }
    }

    /// Wakes the waiter, unless it gave up first; says which.
    ///
    /// # Safety
    ///
    /// As for [`choose`](Self::choose).
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
    /// it. After the call it may be gone.
    #[inline]
    pub unsafe fn choose(parker: *const Parker) -> Option<Wake> {
        // SAFETY: the caller's promise; the frame stays until the word says RUNG.
        unsafe {
            let party = (*parker).party.as_ref();
            if current::on_worker(party.worker()) {
                // The waiter shares our thread and no other waker has the parker, so nobody else
                // writes the word; and it cannot run before we suspend, so no reference is needed.
                if (*parker).word.load(Relaxed) != 0 {
                    return None;
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
            // A waker holds it: a few instructions until it rings, if its thread runs.
            let mut round = 0;
            while !rung() {
                backoff(round);
                round += 1;
            }
        }
        outcome
    }
}

/// A party that has been [chosen](Parker::choose). Dropping this wakes it.
///
/// To wake a party on another thread may take a system call: drop this after releasing locks.
#[must_use = "a chosen party sleeps until this is dropped; drop it after releasing locks"]
pub struct Wake(Option<TaskRef>);

impl Wake {
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
    take();
    if outcome == Outcome::Cancelled {
        cancel::unwind();
    }
}

/// `std::thread::Thread::unpark`: makes the party's token available.
pub fn unpark_token(party: &Header) {
    if party.token.swap(1, AcqRel) == 0 {
        party.wake();
    }
}

/// Waits until `deadline`. Unwinds if the fiber is cancelled.
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
pub fn yield_now() {
    let me = current::header();
    if me.is_thread() {
        return std::thread::yield_now();
    }
    // SAFETY: a running fiber has a worker, whose thread this is.
    unsafe { (*me.worker()).yield_now(me) }
}

/// Counts one operation that succeeded without parking; lets others run when there were many.
///
/// Every such operation of every layer spends the one budget that a fiber gets each time it is
/// resumed, so that a loop over ready sockets, full channels or free locks starves nobody.
#[inline]
pub fn charge() {
    let me = current::header();
    let left = me.budget.get();
    if left > 0 {
        me.budget.set(left - 1);
    } else {
        exhausted(me);
    }
}

#[cold]
fn exhausted(me: &Header) {
    if !me.is_thread() {
        yield_now();
    }
}
