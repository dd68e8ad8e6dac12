//! The timers of one worker: a hierarchical timing wheel (Varghese & Lauck, "Hashed and Hierarchical
//! Timing Wheels", SOSP 1987, scheme 7).
//!
//! Promised: an entry never fires before its deadline; `advance(now)` fires every entry whose deadline,
//! rounded up to a tick of [`TICK_NS`], is at or before `now`, the earliest tick first and in order of
//! insertion within a tick. Insert and remove are O(1), and allocate only when the wheel grows.
//!
//! A deadline in ticks is read as a number to the base 64, one level for each digit. An entry belongs to
//! the level of the highest digit in which its tick differs from the wheel's `now_tick`, in the slot that
//! this digit names. From that, and from "no armed tick is before `now_tick`", follows everything else:
//!
//! - On level 0 the slots in use are at or after the digit of `now_tick`; on every other level strictly
//!   after it. So no level wraps around, every entry of a level is due before all those of the levels
//!   above, and the earliest slot is found by two `trailing_zeros`.
//! - The place of an entry is a function of its tick and of `now_tick` alone, and does not change until
//!   `now_tick` enters its slot. So no entry stores its slot, and two entries of one tick always share one:
//!   their order of insertion survives every move.
//! - When `now_tick` enters a slot above level 0, its entries move to lower levels, each at most once a
//!   level in its life. They link by index within one slab, so a move touches 24 bytes of an entry, and
//!   nothing of the sleeper's stack. The price of the scheme is that a slot moves as a whole: a million
//!   entries within one took 5 ms (measured on a busy 2-core machine).
//!
//! Each slot keeps the least tick that was put in it, so an idle worker sleeps until the entry itself is
//! due, not until its slot must be moved. Removing that least entry leaves the figure too low: finding the
//! next would mean a walk over the slot, and one slot can hold every connection's time limit. The worker
//! then wakes once for nothing, which moves the slot and makes its figures exact again. So the wake-ups
//! for nothing are never more than the entries removed.
//!
//! Turned down: a binary heap (a million entries are twenty cache misses an operation, and removing needs
//! a back-link that every sift rewrites), nodes in the sleepers' frames (moving a slot would touch a page
//! of each stack), a timer thread (each sleep would cost two wakes across threads), and removing lazily
//! (time limits are nearly always removed before they fire; they would pile up).

/// The width of a slot of the lowest level, in nanoseconds. A power of two, so no division.
pub(crate) const TICK_NS: u64 = 1 << TICK_BITS;

const TICK_BITS: u32 = 10;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// u64 nanoseconds are 54 bits of ticks, and 2^54 itself when rounded up.
const LEVELS: usize = (u64::BITS - TICK_BITS) as usize / SLOT_BITS as usize + 1;

/// An empty wheel gives back the memory of more entries than this.
const KEEP_ENTRIES: usize = 1024;

/// No entry: the end of a list.
const NIL: u32 = u32::MAX;
/// In `Entry::prev`: the entry has fired and is in no list.
const FIRED: u32 = u32::MAX - 1;
const MAX_ENTRIES: usize = FIRED as usize;

/// Timers of one owner; not shared, so without atomics.
///
/// Times are nanoseconds since an epoch of the owner's choice. A deadline within the last tick of the
/// `u64` range (so `u64::MAX` too) is never reached: such an entry is armed, but does not fire.
pub(crate) struct Wheel<T> {
    /// Everything before this tick has fired.
    now_tick: u64,
    /// The latest time given to `advance`; `now_tick` is its tick except while entries are being fired.
    now_ns: u64,
    /// Bit n: level n has an occupied slot.
    occupied_levels: u32,
    /// Bit n of a level: slot n is not empty.
    occupied_slots: [u64; LEVELS],
    slots: Box<[[Slot; SLOTS]; LEVELS]>,
    entries: Vec<Entry<T>>,
    /// First free entry, linked by `next`.
    free: u32,
    allocated: usize,
}

/// One entry's place in the wheel that made it. Only [`Wheel::remove`] frees the place, and it consumes the
/// key, which cannot be copied: a key never names a later entry, so no generation is needed.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an entry is freed by `remove` only"]
pub(crate) struct TimerKey(u32);

#[derive(Clone, Copy)]
struct Slot {
    /// No entry of this slot is due before this tick.
    min_tick: u64,
    head: u32,
    tail: u32,
}

struct Entry<T> {
    tick: u64,
    next: u32,
    prev: u32,
    /// `None`: the entry is free.
    payload: Option<T>,
}

impl<T> Wheel<T> {
    /// An empty wheel whose time is `now_ns`.
    pub(crate) fn new(now_ns: u64) -> Self {
        Self {
            now_tick: now_ns >> TICK_BITS,
            now_ns,
            occupied_levels: 0,
            occupied_slots: [0; LEVELS],
            slots: Box::new([[Slot::EMPTY; SLOTS]; LEVELS]),
            entries: Vec::new(),
            free: NIL,
            allocated: 0,
        }
    }

    /// Arms an entry. If `deadline_ns` is not after the time of the last `advance`, the next one fires it.
    ///
    /// # Panics
    /// If 2^32 - 2 entries are in use.
    #[inline]
    pub(crate) fn insert(&mut self, deadline_ns: u64, payload: T) -> TimerKey {
        let tick = if deadline_ns <= self.now_ns {
            self.now_tick
        } else {
            // Up, so never early.
            deadline_ns.div_ceil(TICK_NS)
        };
        let index = self.allocate(tick, payload);
        self.link(index);
        TimerKey(index)
    }

    /// Takes the entry out, drops its payload and frees its place. True if it had not fired yet.
    #[inline]
    pub(crate) fn remove(&mut self, key: TimerKey) -> bool {
        let index = key.0;
        let was_armed = !self.fired(&key);
        if was_armed {
            self.unlink(index);
        }
        self.release(index);
        was_armed
    }

    /// Whether an `advance` has fired the entry.
    #[inline]
    pub(crate) fn fired(&self, key: &TimerKey) -> bool {
        self.entries[key.0 as usize].prev == FIRED
    }

    /// When to call `advance` next, in nanoseconds: never later than the first entry can fire, and exactly
    /// then unless an entry was removed from its slot since the slot was last empty or moved (module
    /// documentation). In the past if an entry is overdue. `None` if no entry will ever fire.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let (level, slot) = self.first_slot()?;
        self.slots[level][slot].min_tick.checked_mul(TICK_NS)
    }

    /// Moves the time to `now_ns` (not back: an earlier time counts as no time passed) and calls `fire` for
    /// each entry that is due. The entries stay, marked fired, until they are removed.
    ///
    /// If `fire` panics, its entry counts as fired and the others stay due.
    #[inline]
    pub(crate) fn advance(&mut self, now_ns: u64, fire: impl FnMut(&T)) {
        self.now_ns = self.now_ns.max(now_ns);
        let target = self.now_ns >> TICK_BITS;
        if self.occupied_levels != 0 {
            self.advance_occupied(target, fire);
        }
        self.now_tick = target;
    }

    /// Entries armed: inserted, and neither fired nor removed.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let armed = |entry: &&Entry<T>| entry.payload.is_some() && entry.prev != FIRED;
        self.entries.iter().filter(armed).count()
    }

    fn advance_occupied(&mut self, target: u64, mut fire: impl FnMut(&T)) {
        while let Some((level, slot)) = self.first_slot() {
            if self.slot_start(level, slot) > target {
                break;
            }
            // Nothing is due before the slot's least tick: go straight there, past the levels between.
            self.now_tick = self.slots[level][slot].min_tick.min(target);
            if level == 0 {
                self.fire_slot(slot, &mut fire);
            } else {
                self.redistribute(level, slot);
            }
        }
    }

    fn fire_slot(&mut self, slot: usize, fire: &mut impl FnMut(&T)) {
        loop {
            // Unlinked before `fire` runs: if it panics, the wheel is whole.
            let index = self.slots[0][slot].head;
            let next = self.entries[index as usize].next;
            self.unlink_head(0, slot, next);
            let entry = &mut self.entries[index as usize];
            entry.prev = FIRED;
            fire(entry.payload.as_ref().expect("an armed entry has a payload"));
            if next == NIL {
                return;
            }
        }
    }

    /// Moves the entries of a slot that `now_tick` has entered to the levels below.
    fn redistribute(&mut self, level: usize, slot: usize) {
        let mut index = self.slots[level][slot].head;
        self.clear_slot(level, slot);
        while index != NIL {
            let next = self.entries[index as usize].next;
            debug_assert!(self.place(self.entries[index as usize].tick).0 < level);
            self.link(index);
            index = next;
        }
    }

    /// The slot of the entries that are due first.
    #[inline]
    fn first_slot(&self) -> Option<(usize, usize)> {
        if self.occupied_levels == 0 {
            return None;
        }
        let level = self.occupied_levels.trailing_zeros() as usize;
        let slot = self.occupied_slots[level].trailing_zeros() as usize;
        Some((level, slot))
    }

    /// The first tick that belongs in the slot.
    #[inline]
    fn slot_start(&self, level: usize, slot: usize) -> u64 {
        let shift = level as u32 * SLOT_BITS;
        let above = shift + SLOT_BITS;
        (self.now_tick >> above << above) | (slot as u64) << shift
    }

    /// Level and slot of a tick.
    #[inline]
    fn place(&self, tick: u64) -> (usize, usize) {
        debug_assert!(tick >= self.now_tick);
        let highest_bit = ((tick ^ self.now_tick) | 1).ilog2();
        let level = highest_bit / SLOT_BITS;
        let slot = (tick >> (level * SLOT_BITS)) as usize % SLOTS;
        (level as usize, slot)
    }

    /// Appends the entry to its slot.
    #[inline]
    fn link(&mut self, index: u32) {
        let tick = self.entries[index as usize].tick;
        let (level, slot_index) = self.place(tick);
        let slot = &mut self.slots[level][slot_index];
        let last = slot.tail;
        slot.tail = index;
        slot.min_tick = slot.min_tick.min(tick);
        if last == NIL {
            slot.head = index;
            self.occupied_slots[level] |= 1 << slot_index;
            self.occupied_levels |= 1 << level;
        } else {
            self.entries[last as usize].next = index;
        }
        let entry = &mut self.entries[index as usize];
        entry.prev = last;
        entry.next = NIL;
    }

    #[inline]
    fn unlink(&mut self, index: u32) {
        let Entry { tick, next, prev, .. } = self.entries[index as usize];
        let (level, slot) = self.place(tick);
        if prev == NIL {
            debug_assert_eq!(self.slots[level][slot].head, index);
            self.unlink_head(level, slot, next);
            return;
        }
        self.entries[prev as usize].next = next;
        if next == NIL {
            debug_assert_eq!(self.slots[level][slot].tail, index);
            self.slots[level][slot].tail = prev;
        } else {
            self.entries[next as usize].prev = prev;
        }
    }

    #[inline]
    fn unlink_head(&mut self, level: usize, slot: usize, next: u32) {
        if next == NIL {
            self.clear_slot(level, slot);
        } else {
            self.slots[level][slot].head = next;
            self.entries[next as usize].prev = NIL;
        }
    }

    #[inline]
    fn clear_slot(&mut self, level: usize, slot: usize) {
        self.slots[level][slot] = Slot::EMPTY;
        self.occupied_slots[level] &= !(1 << slot);
        if self.occupied_slots[level] == 0 {
            self.occupied_levels &= !(1 << level);
        }
    }

    #[inline]
    fn allocate(&mut self, tick: u64, payload: T) -> u32 {
        self.allocated += 1;
        let entry = Entry { tick, next: NIL, prev: NIL, payload: Some(payload) };
        if self.free != NIL {
            let index = self.free;
            let place = &mut self.entries[index as usize];
            debug_assert!(place.payload.is_none());
            self.free = place.next;
            *place = entry;
            return index;
        }
        let index = self.entries.len();
        assert!(index < MAX_ENTRIES, "a worker has 2^32 - 2 timers");
        self.entries.push(entry);
        index as u32
    }

    #[inline]
    fn release(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let payload = entry.payload.take();
        debug_assert!(payload.is_some());
        entry.next = self.free;
        self.free = index;
        self.allocated -= 1;
        if self.allocated == 0 && self.entries.len() > KEEP_ENTRIES {
            self.trim();
        }
        // Last: a payload's drop may panic, and finds the wheel whole.
        drop(payload);
    }

    /// Starts the slab afresh: the memory of a burst goes back, and the next entries are contiguous again.
    #[cold]
    fn trim(&mut self) {
        debug_assert_eq!(self.allocated, 0);
        self.entries.clear();
        self.entries.shrink_to(KEEP_ENTRIES);
        self.free = NIL;
    }
}

impl Slot {
    const EMPTY: Slot = Slot { min_tick: u64::MAX, head: NIL, tail: NIL };
}

#[cfg(test)]
mod tests;
