//! A ring of slots: the room of a bounded channel.
//!
//! Whoever finds a message, or room, takes it without the channel's lock: one compare-exchange claims the slot, and
//! the slot's own stamp says when it may be used. (The array queue of D. Vyukov, as crossbeam's and std's channels have.)
//!
//! `tail` is the position that the next message gets, `head` that of the next to be taken. Positions count
//! up: the low bits are flags, then comes the index of the slot, then the lap. The stamp of the slot is the
//! position at which it may be written, or one more, while it has the message of that position.
//!
//! # Freezing
//!
//! Who waits must not be overtaken, nor missed. So the ends can be *frozen*, under the channel's lock: a frozen tail takes
//! no message and a frozen head gives none, but to who has the lock. A tail can be frozen only while the ring is empty,
//! and a head only while it is full. As that is asked and done by one compare-exchange on the very word that
//! would have to move for it to become untrue, it stays true until whoever has the lock changes it.
//!
//! Turned down: fences, by which either who waits sees the message or who sends sees that somebody waits
//! (crossbeam's way). They wake somebody, who then races with those who come by.

use std::mem::MaybeUninit;

use crate::atomic::{AcqRel, Acquire, AtomicUsize, Relaxed, Release, UnsafeCell, backoff};

/// Room for a fixed number of messages.
pub(super) struct Ring<T> {
    head: Line<AtomicUsize>,
    tail: Line<AtomicUsize>,
    slots: Box<[Slot<T>]>,
    /// From a position to the one with the same slot a lap later: a power of two.
    lap: usize,
}

/// Has a cache line of its own, as senders and receivers are to leave each other alone.
#[repr(align(64))]
struct Line<T>(T);

struct Slot<T> {
    stamp: AtomicUsize,
    message: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: a message in a slot is touched only by who claimed the position that the stamp tells: one party, which
// may be on any thread, for which `T: Send` is enough.
unsafe impl<T: Send> Sync for Ring<T> {}
// SAFETY: the messages in it go where it goes.
unsafe impl<T: Send> Send for Ring<T> {}

/// The end may be used under the channel's lock only.
const FROZEN: usize = 1;
/// No message will come any more: on the tail.
const CLOSED: usize = 2;
/// From a position to the next, within a lap.
const STEP: usize = 4;
const FLAGS: usize = STEP - 1;

/// Added to a position: the stamp of its slot while the message is in it.
const WRITTEN: usize = 1;

/// Why there was nothing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hurdle {
    /// The ring is full, or, for who takes, empty.
    NotNow,
    /// Frozen or closed: to be decided under the channel's lock.
    Frozen,
}

impl<T> Ring<T> {
    /// A ring of `capacity` slots, at least one and less than an eighth of what a `usize` can tell.
    pub(super) fn new(capacity: usize) -> Ring<T> {
        assert!(capacity > 0 && capacity < usize::MAX / 8);
        let slot = |index| Slot {
            stamp: AtomicUsize::new(index * STEP),
            message: UnsafeCell::new(MaybeUninit::uninit()),
        };
        Ring {
            head: Line(AtomicUsize::new(0)),
            tail: Line(AtomicUsize::new(0)),
            slots: (0..capacity).map(slot).collect(),
            lap: capacity.next_power_of_two() * STEP,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Appends a message.
    #[inline]
    pub(super) fn push(&self, message: T) -> Result<(), (Hurdle, T)> {
        let mut round = 0;
        let mut tail = self.tail.0.load(Relaxed);
        loop {
            if tail & FLAGS != 0 {
                return Err((Hurdle::Frozen, message));
            }
            let slot = &self.slots[self.index(tail)];
            let stamp = slot.stamp.load(Acquire);
            if stamp == tail {
                let next = self.next(tail);
                match self.tail.0.compare_exchange_weak(tail, next, Relaxed, Relaxed) {
                    Ok(_) => {
                        // SAFETY: we have claimed the position that the stamp tells.
                        unsafe { slot.write(message) };
                        slot.stamp.store(tail + WRITTEN, Release);
                        return Ok(());
                    }
                    Err(now) => tail = now,
                }
            } else {
                let head = self.head.0.load(Relaxed) & !FLAGS;
                if head.wrapping_add(self.lap) == tail {
                    return Err((Hurdle::NotNow, message));
                }
                // Another sender was faster, or a receiver has not yet taken what it claimed.
                backoff(&mut round);
                tail = self.tail.0.load(Relaxed);
            }
        }
    }

    /// Takes the first message.
    #[inline]
    pub(super) fn pop(&self) -> Result<T, Hurdle> {
        let mut round = 0;
        let mut head = self.head.0.load(Relaxed);
        loop {
            if head & FLAGS != 0 {
                return Err(Hurdle::Frozen);
            }
            let slot = &self.slots[self.index(head)];
            let stamp = slot.stamp.load(Acquire);
            if stamp == head + WRITTEN {
                let next = self.next(head);
                match self.head.0.compare_exchange_weak(head, next, Relaxed, Relaxed) {
                    Ok(_) => {
                        // SAFETY: we have claimed the position that the stamp tells, and it is written.
                        let message = unsafe { slot.read() };
                        slot.stamp.store(head.wrapping_add(self.lap), Release);
                        return Ok(message);
                    }
                    Err(now) => head = now,
                }
            } else {
                // Who closed shall be seen with all it did before.
                let tail = self.tail.0.load(Acquire);
                if tail & !FLAGS == head {
                    let closed = tail & CLOSED != 0;
                    return Err(if closed { Hurdle::Frozen } else { Hurdle::NotNow });
                }
                // Another receiver was faster, or a sender has not yet written what it claimed.
                backoff(&mut round);
                head = self.head.0.load(Relaxed);
            }
        }
    }

    /// How many messages are in it, those included that are being written or taken.
    pub(super) fn len(&self) -> usize {
        loop {
            let tail = self.tail.0.load(Acquire);
            let head = self.head.0.load(Acquire) & !FLAGS;
            if self.tail.0.load(Acquire) == tail {
                let tail = tail & !FLAGS;
                let (first, end) = (self.index(head), self.index(tail));
                return match end.checked_sub(first) {
                    Some(0) if head != tail => self.capacity(),
                    Some(len) => len,
                    None => self.capacity() - first + end,
                };
            }
        }
    }

    /// The slot of a position.
    #[inline(always)]
    fn index(&self, position: usize) -> usize {
        (position & (self.lap - 1)) / STEP
    }

    /// The position after this one.
    #[inline(always)]
    fn next(&self, position: usize) -> usize {
        if self.index(position) + 1 < self.slots.len() {
            position + STEP
        } else {
            (position & !(self.lap - 1)).wrapping_add(self.lap)
        }
    }
}

/// What is done under the channel's lock only.
impl<T> Ring<T> {
    /// If the ring is empty no message comes in until it is thawed. False: it is not empty.
    pub(super) fn freeze_empty(&self) -> bool {
        let head = self.head.0.load(Relaxed) & !FLAGS;
        match self.tail.0.compare_exchange(head, head | FROZEN, Relaxed, Relaxed) {
            Ok(_) => true,
            Err(now) => now & FROZEN != 0,
        }
    }

    /// If the ring is full no message goes out until it is thawed. False: it is not full.
    pub(super) fn freeze_full(&self) -> bool {
        let head = (self.tail.0.load(Relaxed) & !FLAGS).wrapping_sub(self.lap);
        match self.head.0.compare_exchange(head, head | FROZEN, Relaxed, Relaxed) {
            Ok(_) => true,
            Err(now) => now & FROZEN != 0,
        }
    }

    /// Nobody waits any more.
    pub(super) fn thaw(&self) {
        for end in [&self.head.0, &self.tail.0] {
            let position = end.load(Relaxed);
            if position & FROZEN != 0 {
                // While it is frozen nobody without the lock changes it.
                end.store(position & !FROZEN, Relaxed);
            }
        }
    }

    /// No message comes in from here on.
    pub(super) fn close(&self) {
        self.tail.0.fetch_or(CLOSED, AcqRel);
    }

    /// Takes the first message of a ring that is frozen because it is full, and puts what `refill`
    /// has, if anything, where there is room now: at the end. The head stays frozen.
    pub(super) fn exchange(&self, refill: impl FnOnce() -> Option<T>) -> T {
        let head = self.head.0.load(Relaxed);
        debug_assert!(head & FROZEN != 0, "it is not frozen");
        let head = head & !FLAGS;
        let slot = &self.slots[self.index(head)];
        let mut round = 0;
        while slot.stamp.load(Acquire) != head + WRITTEN {
            backoff(&mut round); // A sender has not yet written what it claimed.
        }
        // SAFETY: it is written, and we alone take from a frozen ring.
        let message = unsafe { slot.read() };
        let end = head.wrapping_add(self.lap);
        match refill() {
            Some(message) => {
                // SAFETY: the stamp still tells the position that we have taken, so nobody else
                // uses the slot.
                unsafe { slot.write(message) };
                slot.stamp.store(end + WRITTEN, Release);
                // Nobody has moved the tail: up to here the ring was full.
                self.tail.0.store(self.next(end), Relaxed);
            }
            None => slot.stamp.store(end, Release),
        }
        self.head.0.store(self.next(head) | FROZEN, Relaxed);
        message
    }
}

impl<T> Slot<T> {
    /// # Safety
    ///
    /// The caller alone uses the slot, which has no message.
    #[inline(always)]
    unsafe fn write(&self, message: T) {
        // SAFETY: the caller's promise.
        self.message.with_mut(|slot| unsafe { (*slot).write(message) });
    }

    /// # Safety
    ///
    /// The caller alone uses the slot, which has a message, and has none after that.
    #[inline(always)]
    unsafe fn read(&self) -> T {
        // SAFETY: the caller's promise.
        self.message.with_mut(|slot| unsafe { (*slot).assume_init_read() })
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        self.thaw();
        while self.pop().is_ok() {}
    }
}
