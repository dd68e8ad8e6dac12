//! Waiting for the first of several operations, and performing exactly that one.
//!
//! The contract of [`park`](crate::park), for many: **try** each; **enrol** each, where those who can make it
//! possible look; **park** once; **withdraw** all; report the **outcome** of one. What is enrolled for each is a
//! [`Parker`] of its own, an *arm*, and all arms lead to one word on the waiter's frame, the *claim*. Who chooses an arm
//! claims the whole by one compare-exchange, and is told, as by any parker, whether it was in time. If not, because another
//! arm was chosen or the waiter has given up, it goes on to the next in line: what it has is not lost. So
//! locks, channels and sockets need not know that somebody who waits for them waits for others too.
//!
//! Who has claimed it does not touch the frame any more. Who came too late has the lock of the line that the arm
//! is in, which the waiter takes before it leaves; or, where there is no lock (a latch), it *rings* the arm, and the
//! waiter, which finds its arm taken, waits for that.
//!
//! **What becomes possible while arms are being enrolled.** An operation that looks possible when its arm is about to be enrolled is not
//! performed there: another arm may be claimed in the same moment. The waiter gives up all arms instead, like one whose
//! time is up, and tries again from the start, when nobody can claim it. Of two selects that meet, each
//! enrolled for what the other offers, one gives up and the other does not see it any more; or both do, and one of
//! them comes first at the next try.
//!
//! **Descriptors** are what nobody claims an arm for while a plain thread waits: it finds out by itself, in a system call. So
//! it waits for the whole select there, on all its descriptors and an alarm that rings once an arm is claimed; see
//! [`IoOperation`]. It claims nothing when one is ready, but gives up all arms and tries again.
//!
//! Turned down: to lock all lines at once, in the order of their addresses (Go's way: not everything that one may wait for has a lock,
//! and locks of many types cannot be held in a list without allocating); and a claim that is held for a while, to be
//! taken back (others would have to wait for it, and two that hold theirs for each other).

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::about::{About, Arms, Detail, while_waiting_for};
use crate::atomic::{AcqRel, Acquire, AtomicU32, Relaxed};
use crate::cancel;
use crate::current::{self, Alarm};
use crate::fork;
use crate::no_unwind::AbortOnUnwind;
use crate::park::{self, Op, Outcome, Parker, Wake, block_until, wait_until};
use crate::runtime::with_driver;
use crate::task::{Header, TaskRef};
use crate::worker::CALL_COST;

/// Something that can be chosen by [`select`].
///
/// It keeps what it gives and what it got: a message to send, a message received. An operation whose outcome has not been
/// fetched yet is ready.
///
/// # Safety
///
/// After [`withdraw`](Self::withdraw), and after an [`enrol`](Self::enrol) that returned false, nobody has the arm any more.
/// An operation may stand in one select several times: it is enrolled while it is enrolled already, and withdrawn
/// more often than it is.
///
/// ```
/// use std::cell::Cell;
/// use strands_sched::{Arm, Operation, Order, WaitQueue, Waiter, select};
///
/// /// To take from a stack: who pushes takes the first out of the line.
/// struct Pop<'a> {
///     stack: &'a WaitQueue<Vec<u32>>,
///     waiter: Waiter<()>,
///     popped: Cell<Option<u32>>,
/// }
///
/// // SAFETY: `withdraw` takes the waiter out of the only line it is put in.
/// unsafe impl Operation for Pop<'_> {
///     fn attempt(&self) -> bool {
///         self.waiter.assert_idle();
///         self.popped.set(self.stack.lock().pop());
///         self.popped.get().is_some()
///     }
///
///     unsafe fn enrol(&self, arm: Arm<'_>) -> bool {
///         let mut stack = self.stack.lock();
///         let (numbers, waiter) = (&*stack, &self.waiter);
///         // SAFETY: `select` borrows `self`, which so stays where it is until it is withdrawn.
///         numbers.is_empty() && unsafe { stack.enrol(waiter, arm, ()) }
///     }
///
///     unsafe fn withdraw(&self) {
///         self.stack.withdraw(&self.waiter);
///     }
///
///     unsafe fn complete(&self) -> bool {
///         self.attempt() // Somebody else may have been faster: then it goes on.
///     }
/// }
///
/// let stacks = [(); 2].map(|()| WaitQueue::new(Vec::new()));
/// let pops = [0, 1].map(|i| Pop { stack: &stacks[i], waiter: Waiter::new(), popped: Cell::new(None) });
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         let mut stack = stacks[1].lock();
///         stack.push(7);
///         stack.wake_first(|()| true);
///     });
///     let chosen = select(&[&pops[0], &pops[1]], Order::Fair, None);
///     assert_eq!(chosen, Some(1));
/// });
/// assert_eq!(pops[1].popped.get(), Some(7));
/// ```
pub unsafe trait Operation {
    /// Performs it, if that can be done now; says whether it was. Must not wait.
    ///
    /// # Panics
    ///
    /// If it is enrolled: others who share it use it in a select of theirs.
    fn attempt(&self) -> bool;

    /// Enrols `arm` where those look who can make it possible, unless it looks possible now: then
    /// false. It need not be: [`attempt`](Self::attempt) is asked.
    ///
    /// # Safety
    ///
    /// It stays where it is, and what it borrows lives, until it was [withdrawn](Self::withdraw).
    unsafe fn enrol(&self, arm: Arm<'_>) -> bool;

    /// Takes the arm out, if it is still there.
    ///
    /// # Safety
    ///
    /// Called by who has enrolled it.
    unsafe fn withdraw(&self);

    /// It was chosen and has been withdrawn. Says whether that has performed it; if not, all begins anew.
    ///
    /// # Safety
    ///
    /// It is so.
    unsafe fn complete(&self) -> bool {
        true
    }

    /// When it becomes possible by itself.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Itself, if it is on a descriptor.
    fn as_io(&self) -> Option<&dyn IoOperation> {
        None
    }

    /// What it is, for reports. Asked while the party that waits is suspended, by its worker: it only looks at what does not
    /// change meanwhile, and must neither wait nor panic.
    fn about(&self) -> About {
        About { operation: "operation", ..About::default() }
    }
}

// SAFETY: an operation that is not there is never enrolled.
unsafe impl<O: Operation> Operation for Option<O> {
    fn attempt(&self) -> bool {
        self.as_ref().is_some_and(O::attempt)
    }

    unsafe fn enrol(&self, arm: Arm<'_>) -> bool {
        // SAFETY: the caller's promise.
        self.as_ref().is_none_or(|operation| unsafe { operation.enrol(arm) })
    }

    unsafe fn withdraw(&self) {
        if let Some(operation) = self {
            // SAFETY: the caller's promise.
            unsafe { operation.withdraw() };
        }
    }

    unsafe fn complete(&self) -> bool {
        // SAFETY: the caller's promise.
        self.as_ref().is_some_and(|operation| unsafe { operation.complete() })
    }

    fn deadline(&self) -> Option<Instant> {
        self.as_ref()?.deadline()
    }

    fn as_io(&self) -> Option<&dyn IoOperation> {
        self.as_ref()?.as_io()
    }

    fn about(&self) -> About {
        self.as_ref().map_or(About { operation: "none", ..About::default() }, O::about)
    }
}

/// An [`Operation`] on a descriptor. It can fail, so a cancel may become its error (see [`fallible`](crate::fallible)); and
/// a plain thread waits for it in a system call, together with the others of its kind in the select.
///
/// # Safety
///
/// The descriptor that is [watched](Self::watched) stays open while the operation is borrowed.
///
/// ```
/// use std::sync::{Arc, mpsc};
/// use std::time::{Duration, Instant};
/// use strands_sched::{Alarm, Arm, IoOperation, Operation, Order, Outcome, ThreadWait, Timer, Watched, select};
///
/// struct Bell(mpsc::Sender<()>);
/// impl Alarm for Bell {
///     fn ring(&self) {
///         let _ = self.0.send(());
///     }
/// }
///
/// struct NeverReady;
///
/// // SAFETY: it is enrolled nowhere.
/// unsafe impl Operation for NeverReady {
///     fn attempt(&self) -> bool {
///         false
///     }
///     unsafe fn enrol(&self, _: Arm<'_>) -> bool {
///         true
///     }
///     unsafe fn withdraw(&self) {}
///     fn as_io(&self) -> Option<&dyn IoOperation> {
///         Some(self)
///     }
/// }
///
/// // SAFETY: nobody looks at the descriptor.
/// unsafe impl IoOperation for NeverReady {
///     fn watched(&self) -> Watched {
///         Watched { descriptor: 0, write: false }
///     }
///     fn block(&self, wait: &ThreadWait<'_>) -> Outcome {
///         assert_eq!(wait.watched().count(), 2);
///         let (sender, rings) = mpsc::channel();
///         let alarm: Arc<dyn Alarm> = Arc::new(Bell(sender));
///         // In place of `recv_timeout` a reactor has a `poll` of what is watched, and of its bell.
///         let block = |left: Option<Duration>| drop(rings.recv_timeout(left.unwrap()));
///         wait.block_until(&alarm, || false, block)
///     }
///     fn fail(&self, _: std::io::Error) {
///         unreachable!("it is not cancelled");
///     }
/// }
///
/// let soon = Timer::at(Instant::now() + Duration::from_millis(1));
/// assert_eq!(select(&[&NeverReady, &soon, &NeverReady], Order::Fair, None), Some(1));
/// ```
pub unsafe trait IoOperation {
    /// What it waits for.
    fn watched(&self) -> Watched;

    /// Blocks the calling thread, a plain one, until what is [watched](ThreadWait::watched) in the whole select may be ready, or
    /// the [wait](ThreadWait::block_until) ends for another reason. Must not panic.
    fn block(&self, wait: &ThreadWait<'_>) -> Outcome;

    /// It is chosen, as the select was cancelled where nothing unwinds: `error` is its outcome.
    fn fail(&self, error: io::Error);
}

/// What an [`IoOperation`] waits for.
///
/// ```
/// use strands_sched::Watched;
///
/// let stdin = Watched { descriptor: 0, write: false };
/// assert!(!stdin.write);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// The descriptor, as the system tells it from others.
    pub descriptor: u64,
    /// Until it can be written to; else until it can be read from.
    pub write: bool,
}

/// A wait of a plain thread in a select with an [`IoOperation`]; see the example there.
///
/// ```
/// use strands_sched::ThreadWait;
///
/// fn descriptors(wait: &ThreadWait<'_>) -> Vec<u64> {
///     wait.watched().map(|watched| watched.descriptor).collect()
/// }
/// ```
pub struct ThreadWait<'a> {
    operations: &'a [&'a dyn Operation],
    choice: &'a Choice,
    deadline: Option<Instant>,
}

impl ThreadWait<'_> {
    /// What all operations of the select wait for that are on descriptors.
    ///
    /// ```
    /// use strands_sched::ThreadWait;
    ///
    /// fn wait_for_writing(wait: &ThreadWait<'_>) -> usize {
    ///     wait.watched().filter(|watched| watched.write).count()
    /// }
    /// ```
    pub fn watched(&self) -> impl Iterator<Item = Watched> {
        self.operations.iter().filter_map(|operation| Some(operation.as_io()?.watched()))
    }

    /// As [`block_until`], until an arm is claimed, `ready`, or the select's deadline.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use strands_sched::{Alarm, Outcome, ThreadWait};
    ///
    /// /// For a system in which `poll` takes no time limit.
    /// fn wait(wait: &ThreadWait<'_>, alarm: &Arc<dyn Alarm>, poll: impl Fn()) -> Outcome {
    ///     wait.block_until(alarm, || false, |_left| poll())
    /// }
    /// ```
    pub fn block_until(
        &self,
        alarm: &Arc<dyn Alarm>,
        ready: impl Fn() -> bool,
        block: impl FnMut(Option<Duration>),
    ) -> Outcome {
        let ready = || !self.choice.is_open() || ready();
        block_until(&SELECT, self.choice.object(), self.deadline, alarm, ready, block)
    }
}

static SELECT: Op = Op("select");

/// Which operation is performed if several are possible at once.
///
/// ```
/// use std::time::Instant;
/// use strands_sched::{Order, Timer, select};
///
/// let now = Instant::now();
/// let (first, second) = (Timer::at(now), Timer::at(now));
/// assert_eq!(select(&[&first, &second], Order::Biased, None), Some(0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By lot. Each that is possible has a chance of one in as many as there are operations, or better; of two that are,
    /// both the same.
    #[default]
    Fair,
    /// The first of them.
    Biased,
}

/// What is enrolled for one operation of a select. Made by [`select`], for [`Operation::enrol`].
///
/// ```
/// use strands_sched::{Arm, WaitQueue, Waiter};
///
/// /// Of an operation that has nothing to look at first.
/// fn enrol(line: &WaitQueue<()>, waiter: &'static Waiter<()>, arm: Arm<'_>) -> bool {
///     // SAFETY: it stays where it is for ever.
///     unsafe { line.lock().enrol(waiter, arm, ()) }
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Arm<'a> {
    choice: &'a Choice,
    index: u32,
}

impl Arm<'_> {
    pub(crate) fn parker(self) -> Parker {
        Parker::arm(self.choice, self.index)
    }

    /// Notes that it gets in the line at this address. Under its lock.
    pub(crate) fn joins(self, line: usize) {
        let bit = 1 << (((line >> 4) ^ (line >> 9)) % 31);
        let lines = self.choice.lines.load(Relaxed);
        let shared = if lines & bit == 0 { 0 } else { SHARED };
        self.choice.lines.store(lines | bit | shared, Relaxed);
    }

    /// Whether another arm of its select may be in the same line, so that each may be what holds up the other: who
    /// enrols looks whether one of them can be chosen.
    ///
    /// ```
    /// use strands_sched::Arm;
    ///
    /// fn look_after_enrolling(arm: Arm<'_>, hand_out: impl Fn()) {
    ///     if arm.may_share_a_line() {
    ///         hand_out();
    ///     }
    /// }
    /// ```
    pub fn may_share_a_line(self) -> bool {
        self.choice.may_share_a_line()
    }

    /// Whether `parker` is an arm of the same select.
    pub(crate) fn is_of_same(self, parker: &Parker) -> bool {
        parker.choice().is_some_and(|(choice, _)| choice == NonNull::from(self.choice))
    }
}

/// What the arms of a select share: on the frame of who waits.
pub(crate) struct Choice {
    claim: AtomicU32,
    /// A bit for each line that it stands in, by a hash of the address, and [`SHARED`]. Written by the waiter, under the
    /// lock of the line that it joins: who has the lock of a line knows whether it is in it twice.
    lines: AtomicU32,
    party: NonNull<Header>,
}

/// Of `lines`: two arms may be in one.
const SHARED: u32 = 1 << 31;

/// Nobody has chosen yet.
const OPEN: u32 = 0;
/// The waiter gave up first.
const GIVEN_UP: u32 = 1;
/// Plus the index of the arm that was chosen.
const CHOSEN: u32 = 2;

impl Choice {
    fn new() -> Choice {
        let (claim, lines) = (AtomicU32::new(OPEN), AtomicU32::new(0));
        Choice { claim, lines, party: current::header().whole() }
    }

    /// For reports.
    fn object(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.claim.load(Acquire) == OPEN
    }

    pub(crate) fn may_share_a_line(&self) -> bool {
        self.lines.load(Relaxed) & SHARED != 0
    }

    /// Whether the arm with this index was chosen.
    pub(crate) fn has_chosen(&self, index: u32) -> bool {
        self.claim.load(Acquire) == CHOSEN + index
    }

    /// [`Parker::choose`] of an arm.
    ///
    /// # Safety
    ///
    /// As there.
    #[cold]
    pub(crate) unsafe fn claim(arm: *const Parker) -> Option<Wake> {
        // SAFETY: the arm's frame, which is the choice's too, stays until the waiter has been told, and so does the
        // party. If we win, that is by the exchange: what is used after that is our own reference. If not, the waiter waits for
        // the ring, or for the lock that our caller has.
        unsafe {
            let (choice, index) = (*arm).choice().expect("it is an arm");
            let choice = choice.as_ref();
            let party = choice.party.as_ref();
            // One that shares our thread cannot run before we suspend, so no reference is needed.
            let remote = (!current::on_worker(party.worker())).then(|| TaskRef::to(party));
            let claimed = choice.claim.compare_exchange(OPEN, CHOSEN + index, AcqRel, Acquire);
            if claimed.is_err() {
                Parker::ring(arm);
                return None;
            }
            if remote.is_none() {
                party.wake();
            }
            Some(Wake::of(remote))
        }
    }

    /// The arm that was chosen, after the waiter has stopped to wait.
    fn settle(&self) -> Option<usize> {
        match self.claim.compare_exchange(OPEN, GIVEN_UP, AcqRel, Acquire) {
            Ok(_) | Err(GIVEN_UP) => None,
            Err(chosen) => Some((chosen - CHOSEN) as usize),
        }
    }
}

/// Waits until one of `operations` can be performed, and performs it: its index. `None` if `deadline` passed first.
///
/// Without operations and without a deadline it waits for ever. What can be done at once is done, also if the deadline has passed. A cancelled fiber unwinds from here, and then no operation
/// was performed. Where nothing unwinds (see [`as_error`](crate::as_error)) the first [`IoOperation`] fails instead; without one the
/// select waits on.
///
/// # Panics
///
/// In a [forked child](crate::in_forked_child), if it has to wait.
///
/// ```
/// use std::time::{Duration, Instant};
/// use strands_sched::{Order, Timer, select};
///
/// let now = Instant::now();
/// let (soon, late) = (Timer::at(now + Duration::from_millis(1)), Timer::at(None));
/// assert_eq!(select(&[&late, &soon], Order::Fair, None), Some(1));
/// assert_eq!(select(&[&late], Order::Fair, Some(now)), None);
/// ```
pub fn select(
    operations: &[&dyn Operation],
    order: Order,
    deadline: Option<Instant>,
) -> Option<usize> {
    // The models have no clock: who waits until a time that has passed gives up there in the midst of it.
    let mut may_be_late = cfg!(not(loom));
    loop {
        if let Some(index) = charge(operations) {
            return Some(index);
        }
        let turns = Turns::new(operations.len(), order);
        if let Some(index) = turns.clone().find(|&index| operations[index].attempt()) {
            return Some(index);
        }
        if may_be_late && deadline.is_some_and(has_passed) {
            return None;
        }
        may_be_late = true;
        let timers = operations.iter().filter_map(|operation| operation.deadline());
        let chosen = wait(operations, turns, timers.chain(deadline).min());
        // SAFETY: this one was chosen, and all have been withdrawn.
        if let Some(index) = chosen.filter(|&index| unsafe { operations[index].complete() }) {
            return Some(index);
        }
    }
}

/// Performs one of `operations` if that can be done now: its index.
///
/// ```
/// use strands_sched::{Order, Timer, try_select};
///
/// assert_eq!(try_select(&[&Timer::at(None)], Order::Fair), None);
/// ```
pub fn try_select(operations: &[&dyn Operation], order: Order) -> Option<usize> {
    charge(operations)
        .or_else(|| Turns::new(operations.len(), order).find(|&index| operations[index].attempt()))
}

/// Here it can be cancelled, and others can run: nothing has happened yet. The operation that failed, if one did.
#[inline]
fn charge(operations: &[&dyn Operation]) -> Option<usize> {
    let cost = |operation: &&dyn Operation| if operation.as_io().is_some() { CALL_COST } else { 1 };
    let cost = operations.iter().map(cost).sum::<u32>().max(1);
    if current::spend_budget(cost) { None } else { let_others_run(operations) }
}

#[cold]
fn let_others_run(operations: &[&dyn Operation]) -> Option<usize> {
    let Some((index, io)) = first_io(operations) else {
        park::exhausted();
        return None;
    };
    io.fail(cancel::let_others_run_fallible().err()?);
    Some(index)
}

fn first_io<'a>(operations: &[&'a dyn Operation]) -> Option<(usize, &'a dyn IoOperation)> {
    operations.iter().enumerate().find_map(|(index, operation)| Some((index, operation.as_io()?)))
}

/// Waits until one is chosen, which has been taken out of where it was; `None` if none was, and all are to be tried.
fn wait(operations: &[&dyn Operation], turns: Turns, deadline: Option<Instant>) -> Option<usize> {
    fork::assert_may_wait(deadline);
    let io = first_io(operations);
    let choice = Choice::new();
    let in_line = AbortOnUnwind("a panic in the middle of a select would leave a waiter in line");
    let mut enrolled = 0;
    let mut outcome = Outcome::Woken;
    let all = turns.clone().all(|index| {
        let index_of_arm = u32::try_from(index).expect("`Turns` has looked");
        let arm = Arm { choice: &choice, index: index_of_arm };
        // SAFETY: it is borrowed, and withdrawn below: nothing unwinds before that.
        let goes_on = choice.is_open() && unsafe { operations[index].enrol(arm) };
        enrolled += usize::from(goes_on);
        goes_on
    });
    if all {
        let arms = Arms(operations);
        let wait = || {
            while_waiting_for(Detail::Arms(&arms), || {
                wait_until(&SELECT, choice.object(), deadline, || !choice.is_open())
            })
        };
        outcome = match io {
            None => wait(),
            Some((_, io)) => cancel::fallible(|| match fork::in_forked_child() || !is_thread() {
                true => wait(),
                false => io.block(&ThreadWait { operations, choice: &choice, deadline }),
            }),
        };
    }
    let chosen = choice.settle();
    for index in turns.take(enrolled) {
        // SAFETY: it was enrolled above.
        unsafe { operations[index].withdraw() };
    }
    in_line.disarm();
    if outcome == Outcome::Cancelled && chosen.is_none() {
        let Some((index, io)) = io else { cancel::unwind() };
        io.fail(cancel::error_or_unwind());
        return Some(index);
    }
    chosen
}

fn is_thread() -> bool {
    current::with(|me| me.is_thread())
}

/// The order in which the operations come: from one on, upwards or downwards, and around.
#[derive(Clone)]
struct Turns {
    next: usize,
    step: usize,
    left: usize,
    count: usize,
}

impl Turns {
    fn new(count: usize, order: Order) -> Turns {
        assert!(count < (u32::MAX / 16) as usize, "{count} operations are too many for a select");
        if order == Order::Biased || count < 2 {
            return Turns { next: 0, step: 1, left: count, count };
        }
        let lot = current::with(|me| {
            // Marsaglia's xorshift: a few instructions, and the same for the same fiber of the same run.
            let mut lot = me.lot.get();
            lot ^= lot << 13;
            lot ^= lot >> 17;
            lot ^= lot << 5;
            me.lot.set(lot);
            lot as usize
        });
        // Down as often as up: else who comes after one that is never possible would have its turns too.
        let step = if lot & 1 == 0 { 1 } else { count - 1 };
        Turns { next: (lot >> 1) % count, step, left: count, count }
    }
}

impl Iterator for Turns {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let index = self.next;
        self.next = (index + self.step) % self.count;
        Some(index)
    }
}

/// Becomes possible at a point in time.
///
/// ```
/// use std::time::{Duration, Instant};
/// use strands_sched::{Order, Timer, select};
///
/// let timer = Timer::at(Instant::now() + Duration::from_millis(1));
/// assert_eq!(select(&[&timer], Order::Fair, None), Some(0));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Timer(Option<Instant>);

impl Timer {
    /// At `instant`; `None` for never.
    ///
    /// ```
    /// use strands_sched::{Order, Timer, try_select};
    ///
    /// let now = std::time::Instant::now();
    /// assert_eq!(try_select(&[&Timer::at(now)], Order::Fair), Some(0));
    /// ```
    pub fn at(instant: impl Into<Option<Instant>>) -> Timer {
        Timer(instant.into())
    }

    /// Says that the time has come, if so.
    ///
    /// ```
    /// use strands_sched::Timer;
    ///
    /// assert_eq!(Timer::at(None).take(), None);
    /// assert_eq!(Timer::at(std::time::Instant::now()).take(), Some(()));
    /// ```
    pub fn take(&self) -> Option<()> {
        self.attempt().then_some(())
    }
}

// SAFETY: it is never enrolled anywhere.
unsafe impl Operation for Timer {
    fn attempt(&self) -> bool {
        self.0.is_some_and(has_passed)
    }

    unsafe fn enrol(&self, _: Arm<'_>) -> bool {
        true
    }

    unsafe fn withdraw(&self) {}

    fn deadline(&self) -> Option<Instant> {
        self.0
    }

    fn about(&self) -> About {
        About { operation: "thread::sleep", ..About::default() }
    }
}

/// By the clock of the worker's timers.
fn has_passed(deadline: Instant) -> bool {
    deadline <= with_driver(|driver| driver.now()).unwrap_or_else(Instant::now)
}
