//! How other threads reach a worker: one word that is its mailbox and its bell.
//!
//! The head word is a Treiber stack of fibers that the owner empties with one swap, so there is
//! no ABA problem, and it says at the same time whether the owner sleeps:
//!
//! | head | meaning |
//! |---|---|
//! | `EMPTY` | nothing there, the owner is awake |
//! | `ASLEEP` | nothing there, the owner waits in its driver (or is about to) |
//! | `POKED` | nothing there, but the owner must look around before it sleeps |
//! | a task | a list, newest first |
//!
//! Whoever replaces `ASLEEP` rings the bell, and only one can. The owner falls asleep by a
//! compare-and-swap from `EMPTY`, which fails when anything came since it last looked. As both
//! facts are in one word, no fence is needed between "I push" and "do you sleep?".
//!
//! Promise: after `push` or `poke` the owner takes what is there before it waits in its driver,
//! or its wait ends.

use std::ptr;

use crate::atomic::{AcqRel, Acquire, AtomicPtr, Relaxed};

/// What can lie in an inbox: it has a link of its own for that.
///
/// # Safety
///
/// `link` returns the same field of the same item each time, and nobody else uses that field
/// between a `push` of the item and the `take` that returns it.
pub(crate) unsafe trait Linked: Sized {
    fn link(&self) -> &AtomicPtr<Self>;
}

pub(crate) struct Inbox<T> {
    head: AtomicPtr<T>,
}

/// Addresses that no item has, as items are aligned to more.
const ASLEEP: usize = 1;
const POKED: usize = 2;

/// Whether the caller has to ring: the owner sleeps, and this call is the one that ends it.
#[must_use]
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Bell {
    Ring,
    Quiet,
}

impl<T: Linked> Inbox<T> {
    pub(crate) fn new() -> Inbox<T> {
        const { assert!(align_of::<T>() > 2) };
        Inbox { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Puts `item` in. From any thread.
    ///
    /// # Safety
    ///
    /// `item` is valid until it has been taken out, and is not in an inbox already.
    pub(crate) unsafe fn push(&self, item: *mut T) -> Bell {
        let mut head = self.head.load(Relaxed);
        loop {
            let next = if is_item(head) { head } else { ptr::null_mut() };
            // SAFETY: the caller promises that `item` is valid and its link unused.
            unsafe { (*item).link().store(next, Relaxed) };
            match self.head.compare_exchange_weak(head, item, AcqRel, Relaxed) {
                Ok(old) => return bell(old),
                Err(now) => head = now,
            }
        }
    }

    /// Makes the owner look around once more before it sleeps, or wake up. From any thread.
    pub(crate) fn poke(&self) -> Bell {
        let mut head = self.head.load(Relaxed);
        loop {
            // A list makes the owner look around too. Even so the word is written, so that what
            // the poker did before is visible to the owner when it has taken the list.
            let poked = if is_item(head) { head } else { ptr::without_provenance_mut(POKED) };
            match self.head.compare_exchange_weak(head, poked, AcqRel, Relaxed) {
                Ok(old) => return bell(old),
                Err(now) => head = now,
            }
        }
    }

    /// Whether there is anything to take: a hint, cheap enough for every switch.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Relaxed).is_null()
    }

    /// Whether the owner waits in its driver, or is about to: a hint.
    pub(crate) fn is_asleep(&self) -> bool {
        self.head.load(Relaxed).addr() == ASLEEP
    }

    /// Takes all that is there, oldest first. The owner is awake afterwards. Owner only.
    pub(crate) fn take(&self) -> Taken<T> {
        let mut newest = self.head.swap(ptr::null_mut(), AcqRel);
        let mut oldest = ptr::null_mut();
        if is_item(newest) {
            while !newest.is_null() {
                // SAFETY: items in the list are valid until they are taken, and from the swap on
                // the list is ours.
                let next = unsafe { (*newest).link().load(Relaxed) };
                // SAFETY: as above.
                unsafe { (*newest).link().store(oldest, Relaxed) };
                oldest = newest;
                newest = next;
            }
        }
        Taken { next: oldest }
    }

    /// Declares the owner asleep if nothing came since the last `take`. Owner only.
    ///
    /// `true`: the owner may wait in its driver; whoever comes rings. `false`: look again.
    pub(crate) fn fall_asleep(&self) -> bool {
        let asleep = ptr::without_provenance_mut(ASLEEP);
        self.head.compare_exchange(ptr::null_mut(), asleep, AcqRel, Acquire).is_ok()
    }
}

fn is_item<T>(head: *mut T) -> bool {
    head.addr() > POKED
}

fn bell<T>(old: *mut T) -> Bell {
    if old.addr() == ASLEEP { Bell::Ring } else { Bell::Quiet }
}

/// What was in an inbox, oldest first.
pub(crate) struct Taken<T> {
    next: *mut T,
}

impl<T: Linked> Iterator for Taken<T> {
    type Item = *mut T;

    #[inline]
    fn next(&mut self) -> Option<*mut T> {
        let item = self.next;
        if item.is_null() {
            return None;
        }
        // SAFETY: taken items are ours; the link is read before the item is handed on.
        self.next = unsafe { (*item).link().load(Relaxed) };
        Some(item)
    }
}
