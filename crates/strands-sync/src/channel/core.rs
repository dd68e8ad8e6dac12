//! What a channel's two ends share: the messages, the line, and how a message goes from hand to hand.
//!
//! See the head of [`channel`](super) for the promises and the invariants.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem;
use std::sync::mpsc::{RecvError, RecvTimeoutError, TryRecvError};
use std::time::Instant;

use strands_sched::{
    Arm, Locked, Op, Outcome, Place, WaitQueue, Waiter, Wake, cancel_unwind, charge,
};

use super::ring::{Hurdle, Ring};
use crate::atomic::{AcqRel, Arc, AtomicUsize, Relaxed};

pub(crate) struct Channel<T> {
    /// Where messages are. Without one, in the state's queue.
    ring: Option<Ring<T>>,
    line: WaitQueue<State<T>, Slot<T>>,
    pub(super) senders: Count,
    pub(super) receivers: Count,
}

type Line<'a, T> = Locked<'a, State<T>, Slot<T>>;

struct State<T> {
    /// The messages, if there is no ring.
    queue: VecDeque<T>,
    bound: usize,
    closed: bool,
    /// Who is in line, if anybody is.
    in_line: Side,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Senders,
    Receivers,
    /// Of a rendezvous only: a select wants to do either, and nobody else is in line.
    Both,
}

impl Side {
    /// Whether any of `side` may be in line.
    fn has(self, side: Side) -> bool {
        self == side || self == Side::Both
    }
}

/// Where a message passes through: on the frame of who is in line.
pub(super) struct Slot<T> {
    pub(super) cell: *const Cell<Option<T>>,
    pub(super) side: Side,
}

// SAFETY: it is used under the line's lock until its owner has been chosen or has left the line,
// and by its owner after; so the message moves from one thread to the other.
unsafe impl<T: Send> Send for Slot<T> {}

impl<T> Slot<T> {
    /// For [`Locked::choose_first`]: exchanges what is in the slot for what is in `hand`.
    #[inline]
    fn exchange(hand: &Cell<Option<T>>) -> impl Fn(&Slot<T>) {
        // SAFETY: whose slot it is, is in line or gives up; it waits for the lock that we
        // hold before it leaves its frame.
        |slot| unsafe { (*slot.cell).swap(hand) }
    }
}

impl<T> State<T> {
    /// Exchanges what is in `hand` with the first of `side` in line, and chooses it. None: nobody.
    #[inline]
    fn choose(line: &mut Line<'_, T>, side: Side, hand: &Cell<Option<T>>) -> Option<Wake> {
        match line.in_line {
            Side::Both => line.choose_suiting(|slot| slot.side == side, Slot::exchange(hand)),
            _ => line.choose_first(Slot::exchange(hand)),
        }
    }
}

/// What the only receiver there is has taken together and not yet asked for: it comes before the queue.
pub(crate) type Rest<T> = RefCell<VecDeque<T>>;

/// Why a message was not sent.
pub(super) enum NotSent<T> {
    /// The channel is full; the time is up, if there was any.
    Full(T),
    Closed(T),
}

/// Why no message was received.
pub(crate) enum NotReceived {
    /// The channel is empty; the time is up, if there was any.
    Empty,
    Closed,
}

/// A buffer of up to this many messages is kept, however few they are later.
const MANY: usize = 1024;
/// Larger bounds than this get a queue that grows, as nobody wants to pay for such a ring beforehand.
const LARGEST_RING: usize = 1 << 16;

impl<T> Channel<T> {
    /// With room for `bound` messages; `usize::MAX` is for any number.
    pub(super) fn new(bound: usize) -> Arc<Channel<T>> {
        let ring = (1..=LARGEST_RING).contains(&bound).then(|| Ring::new(bound));
        let (queue, in_line) = (VecDeque::new(), Side::Senders);
        Arc::new(Channel {
            ring,
            line: WaitQueue::new(State { queue, bound, closed: false, in_line }),
            senders: Count::one(),
            receivers: Count::one(),
        })
    }

    #[inline]
    pub(super) fn try_send(&self, message: T) -> Result<(), NotSent<T>> {
        charge();
        self.poll_send(message)
    }

    /// As `try_send`, without spending budget: it does not suspend.
    #[inline]
    pub(super) fn poll_send(&self, message: T) -> Result<(), NotSent<T>> {
        let message = match &self.ring {
            Some(ring) => match ring.push(message) {
                Ok(()) => return Ok(()),
                Err((Hurdle::NotNow, message)) => return Err(NotSent::Full(message)),
                Err((Hurdle::Frozen, message)) => message,
            },
            None => message,
        };
        self.offer(message).map_err(|refused| match refused {
            Refused::Full(line, message) => {
                drop(line);
                NotSent::Full(message)
            }
            Refused::Closed(message) => NotSent::Closed(message),
        })
    }

    #[inline]
    pub(super) fn send_until(
        &self,
        op: &'static Op,
        deadline: Option<Instant>,
        message: T,
    ) -> Result<(), NotSent<T>> {
        charge();
        let message = match &self.ring {
            Some(ring) => match ring.push(message) {
                Ok(()) => return Ok(()),
                Err((_, message)) => message,
            },
            None => message,
        };
        match self.offer(message) {
            Ok(()) => Ok(()),
            Err(Refused::Closed(message)) => Err(NotSent::Closed(message)),
            Err(Refused::Full(line, message)) => self.wait_to_send(line, op, deadline, message),
        }
    }

    #[cold]
    fn wait_to_send(
        &self,
        mut line: Line<'_, T>,
        op: &'static Op,
        deadline: Option<Instant>,
        mut message: T,
    ) -> Result<(), NotSent<T>> {
        // Receivers that came by may have made room since we looked.
        while self.ring.as_ref().is_some_and(|ring| !ring.freeze_full()) {
            match self.put(line, message) {
                Ok(()) => return Ok(()),
                Err(refused) => (line, message) = refused,
            }
        }
        line.in_line = Side::Senders;
        let cell = Cell::new(Some(message));
        let slot = Slot { cell: &cell, side: Side::Senders };
        let outcome = line.wait(Place::Last, op, deadline, slot, || {});
        match (outcome, cell.into_inner()) {
            (_, None) => Ok(()),
            (Outcome::Woken, Some(message)) => Err(NotSent::Closed(message)),
            (Outcome::TimedOut, Some(message)) => Err(NotSent::Full(message)),
            (Outcome::Cancelled, Some(_message)) => cancel_unwind(),
        }
    }

    /// Gives a message to the receiver that has waited longest, or puts it where messages are.
    #[inline]
    fn offer(&self, message: T) -> Result<(), Refused<'_, T>> {
        let line = self.line.lock();
        if line.closed {
            drop(line);
            return Err(Refused::Closed(message));
        }
        if line.is_empty() || !line.in_line.has(Side::Receivers) {
            return self.put(line, message).map_err(Refused::full);
        }
        self.hand_over(line, message)
    }

    /// Gives a message to the receiver that waits, unless it gives up.
    #[inline(never)]
    fn hand_over<'a>(&self, mut line: Line<'a, T>, message: T) -> Result<(), Refused<'a, T>> {
        let hand = Cell::new(Some(message));
        let chosen = State::choose(&mut line, Side::Receivers, &hand);
        match hand.into_inner() {
            None => {
                self.thaw(&line);
                drop(line);
                drop(chosen);
                Ok(())
            }
            Some(message) => self.put(line, message).map_err(Refused::full),
        }
    }

    /// Of several messages in a queue without a bound, all but the first go to `rest`, if there is one.
    #[inline]
    pub(crate) fn try_recv(&self, rest: Option<&Rest<T>>) -> Result<T, NotReceived> {
        charge();
        self.poll_recv(rest)
    }

    /// As `try_recv`, without spending budget: it does not suspend.
    #[inline]
    pub(super) fn poll_recv(&self, rest: Option<&Rest<T>>) -> Result<T, NotReceived> {
        if let Some(message) = next_of(rest) {
            return Ok(message);
        }
        if let Some(ring) = &self.ring {
            match ring.pop() {
                Ok(message) => return Ok(message),
                Err(Hurdle::NotNow) => return Err(NotReceived::Empty),
                Err(Hurdle::Frozen) => {}
            }
        }
        self.take(rest).map_err(|line| match line.closed {
            true => NotReceived::Closed,
            false => NotReceived::Empty,
        })
    }

    #[inline]
    pub(crate) fn recv_until(
        &self,
        op: &'static Op,
        deadline: Option<Instant>,
        rest: Option<&Rest<T>>,
    ) -> Result<T, NotReceived> {
        charge();
        if let Some(message) = next_of(rest) {
            return Ok(message);
        }
        if let Some(ring) = &self.ring
            && let Ok(message) = ring.pop()
        {
            return Ok(message);
        }
        self.recv_locked(op, deadline, rest)
    }

    /// Not inlined, that the whole wait is in one frame: those who switch to each other return the same way.
    #[inline(never)]
    fn recv_locked(
        &self,
        op: &'static Op,
        deadline: Option<Instant>,
        rest: Option<&Rest<T>>,
    ) -> Result<T, NotReceived> {
        match self.take(rest) {
            Ok(message) => Ok(message),
            Err(line) if line.closed => Err(NotReceived::Closed),
            Err(line) => self.wait_to_recv(line, op, deadline),
        }
    }

    #[inline(always)]
    fn wait_to_recv(
        &self,
        mut line: Line<'_, T>,
        op: &'static Op,
        deadline: Option<Instant>,
    ) -> Result<T, NotReceived> {
        // Senders that came by may have left something since we looked.
        while let Some(ring) = &self.ring
            && !ring.freeze_empty()
        {
            if let Ok(message) = ring.pop() {
                return Ok(message);
            }
        }
        line.in_line = Side::Receivers;
        let cell = Cell::new(None);
        let slot = Slot { cell: &cell, side: Side::Receivers };
        let outcome = line.wait(Place::Last, op, deadline, slot, || {});
        match (outcome, cell.into_inner()) {
            (_, Some(message)) => Ok(message),
            (Outcome::Woken, None) => Err(NotReceived::Closed),
            (Outcome::TimedOut, None) => Err(NotReceived::Empty),
            (Outcome::Cancelled, None) => cancel_unwind(),
        }
    }

    /// Takes a message. If there is none, the caller gets the lock, to get in line.
    #[inline]
    fn take(&self, rest: Option<&Rest<T>>) -> Result<T, Line<'_, T>> {
        let mut line = self.line.lock();
        if !line.is_empty() && line.in_line.has(Side::Senders) {
            let (message, chosen) = self.take_and_refill(&mut line);
            if let Some(message) = message {
                self.thaw(&line);
                drop(line);
                drop(chosen);
                return Ok(message);
            }
        }
        self.get(line, rest)
    }

    /// Takes the first message of a full channel, and puts that of the first sender in line at the
    /// end; without room for any, takes that. None only if there is no room and all have given up.
    fn take_and_refill(&self, line: &mut Line<'_, T>) -> (Option<T>, Option<Wake>) {
        let hand = Cell::new(None);
        let mut chosen = None;
        let message = match &self.ring {
            Some(ring) => Some(ring.exchange(|| {
                chosen = State::choose(line, Side::Senders, &hand);
                hand.take()
            })),
            None => {
                let first = line.queue.pop_front();
                chosen = State::choose(line, Side::Senders, &hand);
                match first {
                    None => hand.take(),
                    Some(first) => {
                        line.queue.extend(hand.take());
                        Some(first)
                    }
                }
            }
        };
        (message, chosen)
    }

    /// Puts a message where messages are, if there is room.
    #[inline]
    fn put<'a>(&self, mut line: Line<'a, T>, message: T) -> Result<(), (Line<'a, T>, T)> {
        if let Some(ring) = &self.ring {
            self.thaw(&line);
            return ring.push(message).map_err(|(_, message)| (line, message));
        }
        if line.queue.len() >= line.bound {
            return Err((line, message));
        }
        line.queue.push_back(message);
        Ok(())
    }

    /// Takes a message from where messages are, if there is one.
    #[inline]
    fn get<'a>(&self, mut line: Line<'a, T>, rest: Option<&Rest<T>>) -> Result<T, Line<'a, T>> {
        if let Some(ring) = &self.ring {
            self.thaw(&line);
            return ring.pop().map_err(|_| line);
        }
        if let Some(rest) = rest
            && line.bound == usize::MAX
            && !line.queue.is_empty()
        {
            let mut rest = rest.borrow_mut();
            // One alone is not worth it, but where a burst has left us a large buffer.
            if line.queue.len() > 1 || rest.capacity() > MANY {
                return Ok(take_all(line, &mut rest));
            }
        }
        let Some(message) = line.queue.pop_front() else { return Err(line) };
        if line.queue.capacity() > MANY && line.queue.is_empty() {
            let spare = mem::take(&mut line.queue);
            drop(line);
            drop(spare);
        }
        Ok(message)
    }

    /// If nobody is in line: who comes by may use the ring.
    #[inline]
    fn thaw(&self, line: &Line<'_, T>) {
        if let Some(ring) = &self.ring
            && line.is_empty()
        {
            ring.thaw();
        }
    }

    /// Takes all messages, those of senders in line included.
    pub(super) fn drain(&self) -> VecDeque<T> {
        let (mut drained, mut wakes) = (VecDeque::new(), Vec::new());
        let mut line = self.line.lock();
        while line.in_line.has(Side::Senders) && !line.is_empty() {
            let (message, chosen) = self.take_and_refill(&mut line);
            if message.is_none() {
                break; // Those left in line gave up, or are receivers.
            }
            drained.extend(message);
            wakes.extend(chosen);
        }
        self.thaw(&line);
        match &self.ring {
            // No more than there are now: senders may come by faster than we take.
            Some(ring) => (0..ring.len())
                .map_while(|_| ring.pop().ok())
                .for_each(|message| drained.push_back(message)),
            None if drained.is_empty() => mem::swap(&mut drained, &mut line.queue),
            None => drained.append(&mut line.queue),
        }
        drop(line);
        drop(wakes);
        drained
    }

    /// Gets a select's arm in line to send or to receive what is, or will be, in `slot`; false if that looks possible now.
    ///
    /// # Safety
    ///
    /// `waiter` and the slot's cell stay where they are until the waiter was [withdrawn](Self::withdraw).
    pub(super) unsafe fn enrol(
        &self,
        waiter: &Waiter<Slot<T>>,
        arm: Arm<'_>,
        slot: Slot<T>,
    ) -> bool {
        let mut line = self.line.lock();
        let (side, others) = match slot.side {
            Side::Senders => (Side::Senders, Side::Receivers),
            _ => (Side::Receivers, Side::Senders),
        };
        if line.closed {
            return false; // Since the select looked.
        }
        let in_line = !line.is_empty() && line.in_line.has(others);
        let met = in_line.then(|| line.look_for(arm, |slot| slot.side == others));
        let meets_itself = met.is_some_and(|met| met.own);
        let possible = met.is_some_and(|met| met.other)
            || match (&self.ring, side) {
                (Some(ring), Side::Senders) => !ring.freeze_full(),
                (Some(ring), _) => !ring.freeze_empty(),
                (None, Side::Senders) => line.queue.len() < line.bound,
                (None, _) => !line.queue.is_empty(),
            };
        if possible {
            return false;
        }
        line.in_line = if meets_itself { Side::Both } else { side };
        // SAFETY: the caller's promise.
        unsafe { line.enrol(waiter, arm, slot) }
    }

    /// Takes a select's arm out of the line, if it is there.
    pub(super) fn withdraw(&self, waiter: &Waiter<Slot<T>>) {
        self.line.withdraw(waiter);
    }

    /// Nothing is sent from here on. False: that was so already.
    pub(super) fn close(&self) -> bool {
        let mut line = self.line.lock();
        if mem::replace(&mut line.closed, true) {
            return false;
        }
        if let Some(ring) = &self.ring {
            ring.close();
            ring.thaw();
        }
        // Nobody gets in line from here on. A sender that is finds its message still in the slot.
        line.release_all();
        true
    }

    pub(super) fn is_closed(&self) -> bool {
        self.line.lock().closed
    }

    pub(super) fn len(&self) -> usize {
        match &self.ring {
            Some(ring) => ring.len(),
            None => self.line.lock().queue.len(),
        }
    }

    /// `None`: any number.
    pub(super) fn capacity(&self) -> Option<usize> {
        match &self.ring {
            Some(ring) => Some(ring.capacity()),
            None => Some(self.line.lock().bound).filter(|&bound| bound < usize::MAX),
        }
    }
}

#[inline]
fn next_of<T>(rest: Option<&Rest<T>>) -> Option<T> {
    rest?.borrow_mut().pop_front()
}

/// Takes the first message, and the others to `rest`, which is empty and whose buffer becomes the queue.
fn take_all<T>(mut line: Line<'_, T>, rest: &mut VecDeque<T>) -> T {
    mem::swap(rest, &mut line.queue);
    // If a burst has left it far too large its memory goes back.
    let capacity = line.queue.capacity();
    let too_large = capacity > MANY && capacity / 8 > rest.len();
    let spare = if too_large { mem::take(&mut line.queue) } else { VecDeque::new() };
    drop(line);
    drop(spare);
    rest.pop_front().expect("there is one")
}

impl From<NotReceived> for RecvError {
    fn from(_: NotReceived) -> RecvError {
        RecvError
    }
}

impl From<NotReceived> for TryRecvError {
    fn from(why: NotReceived) -> TryRecvError {
        match why {
            NotReceived::Empty => TryRecvError::Empty,
            NotReceived::Closed => TryRecvError::Disconnected,
        }
    }
}

impl From<NotReceived> for RecvTimeoutError {
    fn from(why: NotReceived) -> RecvTimeoutError {
        match why {
            NotReceived::Empty => RecvTimeoutError::Timeout,
            NotReceived::Closed => RecvTimeoutError::Disconnected,
        }
    }
}

/// Why a message was not taken over under the lock.
enum Refused<'a, T> {
    Closed(T),
    /// There is no room. The sender may get in line.
    Full(Line<'a, T>, T),
}

impl<'a, T> Refused<'a, T> {
    fn full((line, message): (Line<'a, T>, T)) -> Refused<'a, T> {
        Refused::Full(line, message)
    }
}

/// How many handles of a kind there are.
pub(super) struct Count(AtomicUsize);

impl Count {
    fn one() -> Count {
        Count(AtomicUsize::new(1))
    }

    pub(super) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    pub(super) fn add(&self) {
        if self.0.fetch_add(1, Relaxed) > isize::MAX as usize {
            std::process::abort(); // As `Arc` does: they were forgotten by the billion.
        }
    }

    /// Whether it was the last.
    pub(super) fn remove(&self) -> bool {
        self.0.fetch_sub(1, AcqRel) == 1
    }
}
