//! The slabs that are mapped, readable from a signal handler.
//!
//! A table that only grows, in chunks that are never freed nor moved, so a handler may walk it at
//! any moment, even one that interrupted a writer. An entry has one writer at a time, the owner of
//! its [`Ticket`], and a version that is odd while it is written; a reader that meets a change
//! skips the entry. It loses nothing: the slab of a stack that somebody runs on is not changing.
//!
//! The entries not in use form a list, linked by index; the head carries a count that makes each
//! state of it unique, so that an entry which left the list and came back is not mistaken for one
//! that stayed.
//!
//! Turned down: a lock around a `Vec` (the handler might interrupt its holder), and looking at the
//! memory just above the fault for a mark (nothing says that it is readable).

use std::alloc::{self, Layout};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// One slab: `slots` slots from `base` on, `stride` bytes apart, each with `guard` bytes of guard
/// at its lower end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Range {
    pub base: usize,
    pub slots: usize,
    pub stride: usize,
    pub guard: usize,
}

/// A slab's place in the table, given up on drop.
pub(crate) struct Ticket {
    index: u32,
}

impl Ticket {
    /// Enters `range`. `OutOfMemory` if the table cannot grow.
    pub(crate) fn new(range: Range) -> io::Result<Ticket> {
        let index = match pop_free() {
            Some(index) => index,
            None => grow()?,
        };
        entry(index).write(range);
        Ok(Ticket { index })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        entry(self.index).write(Range::default());
        push_free(self.index);
    }
}

/// If `address` lies in the guard of a stack: the stack's size, in bytes.
pub(crate) fn stack_above_guard(address: usize) -> Option<usize> {
    let len = LEN.load(Ordering::Acquire);
    (0..len).find_map(|index| {
        let Range { base, slots, stride, guard } = entry(index).read()?;
        let offset = address.checked_sub(base)?;
        let hit = offset < slots * stride && offset % stride < guard;
        hit.then_some(stride - guard)
    })
}

/// How many stacks the slabs have room for. One that comes or goes meanwhile counts or not.
pub(crate) fn slots() -> usize {
    let len = LEN.load(Ordering::Acquire);
    (0..len).filter_map(|index| entry(index).read()).map(|range| range.slots).sum()
}

/// How many entries are or were in use; the chunks up to there exist.
static LEN: AtomicU32 = AtomicU32::new(0);

/// Chunk `k` has `FIRST_CHUNK << k` entries.
static CHUNKS: [AtomicPtr<Entry>; 24] = [const { AtomicPtr::new(ptr::null_mut()) }; 24];
const FIRST_CHUNK: u32 = 64;

/// The list of entries not in use: the first one's index + 1 (0: none), and above it a count of
/// changes.
static FREE: AtomicU64 = AtomicU64::new(0);

#[derive(Default)]
struct Entry {
    /// Odd while the range is being written.
    version: AtomicU32,
    /// In the list of free entries: the next one's index + 1.
    next_free: AtomicU32,
    base: AtomicUsize,
    slots: AtomicUsize,
    stride: AtomicUsize,
    guard: AtomicUsize,
}

impl Entry {
    /// Called only by the owner of the entry's index.
    fn write(&self, range: Range) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // A reader that sees any of the new values sees the odd version too.
        fence(Ordering::Release);
        self.base.store(range.base, Ordering::Relaxed);
        self.slots.store(range.slots, Ordering::Relaxed);
        self.stride.store(range.stride, Ordering::Relaxed);
        self.guard.store(range.guard, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// None if it is being written.
    fn read(&self) -> Option<Range> {
        let version = self.version.load(Ordering::Acquire);
        let range = Range {
            base: self.base.load(Ordering::Relaxed),
            slots: self.slots.load(Ordering::Relaxed),
            stride: self.stride.load(Ordering::Relaxed),
            guard: self.guard.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        let unchanged = version == self.version.load(Ordering::Relaxed);
        (version.is_multiple_of(2) && unchanged).then_some(range)
    }
}

/// The entry of an index below [`LEN`].
fn entry(index: u32) -> &'static Entry {
    let (chunk, offset) = position(index);
    let entries = CHUNKS[chunk].load(Ordering::Acquire);
    // SAFETY: `grow` made the chunk, zeroed, which is a valid Entry, before it raised LEN; it is
    // never freed; `offset` is below its length.
    unsafe { &*entries.add(offset) }
}

/// Chunk `k` starts at index `FIRST_CHUNK * (2^k - 1)`.
fn position(index: u32) -> (usize, usize) {
    let shifted = index + FIRST_CHUNK;
    let chunk = shifted.ilog2() - FIRST_CHUNK.ilog2();
    (chunk as usize, (shifted - (FIRST_CHUNK << chunk)) as usize)
}

fn pop_free() -> Option<u32> {
    let mut head = FREE.load(Ordering::Acquire);
    loop {
        let index = (head as u32).checked_sub(1)?;
        let next = entry(index).next_free.load(Ordering::Relaxed);
        match FREE.compare_exchange_weak(
            head,
            changed(head, next),
            Ordering::Acquire,
            Ordering::Acquire,
        ) {
            Ok(_) => return Some(index),
            Err(now) => head = now,
        }
    }
}

fn push_free(index: u32) {
    let mut head = FREE.load(Ordering::Relaxed);
    loop {
        entry(index).next_free.store(head as u32, Ordering::Relaxed);
        match FREE.compare_exchange_weak(
            head,
            changed(head, index + 1),
            Ordering::Release,
            Ordering::Relaxed,
        ) {
            Ok(_) => return,
            Err(now) => head = now,
        }
    }
}

/// The head after `head`, with another first entry.
fn changed(head: u64, first: u32) -> u64 {
    ((head >> 32).wrapping_add(1) << 32) | u64::from(first)
}

/// The index of an entry that has never been used.
fn grow() -> io::Result<u32> {
    let mut len = LEN.load(Ordering::Acquire);
    loop {
        let (chunk, _) = position(len);
        let place = CHUNKS.get(chunk).ok_or(io::ErrorKind::OutOfMemory)?;
        if place.load(Ordering::Acquire).is_null() {
            let layout = Layout::array::<Entry>((FIRST_CHUNK as usize) << chunk)
                .map_err(|_| io::ErrorKind::OutOfMemory)?;
            // SAFETY: the layout is not empty.
            let entries = unsafe { alloc::alloc_zeroed(layout) }.cast::<Entry>();
            if entries.is_null() {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            let null = ptr::null_mut();
            if place.compare_exchange(null, entries, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                // Another thread was faster.
                // SAFETY: allocated above with this layout, and seen by nobody.
                unsafe { alloc::dealloc(entries.cast(), layout) };
            }
        }
        match LEN.compare_exchange(len, len + 1, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(len),
            Err(now) => len = now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A range that no mapping of this process has: above user space.
    fn imagined(number: usize) -> Range {
        Range {
            base: (usize::MAX >> 1) + 1 + (number << 20),
            slots: 3,
            stride: 0x5000,
            guard: 0x1000,
        }
    }

    #[test]
    fn positions_are_dense() {
        let mut expected = (0, 0);
        for index in 0..10_000 {
            assert_eq!(position(index), expected, "index {index}");
            expected.1 += 1;
            if expected.1 == (FIRST_CHUNK as usize) << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }

    #[test]
    fn guards_are_found_while_their_ticket_lives() {
        let range = imagined(1);
        let ticket = Ticket::new(range).unwrap();
        for slot in 0..3 {
            let guard = range.base + slot * range.stride;
            assert_eq!(stack_above_guard(guard), Some(0x4000));
            assert_eq!(stack_above_guard(guard + 0xfff), Some(0x4000));
            assert_eq!(stack_above_guard(guard + 0x1000), None);
            assert_eq!(stack_above_guard(guard + 0x4fff), None);
        }
        assert_eq!(stack_above_guard(range.base - 1), None);
        assert_eq!(stack_above_guard(range.base + 3 * range.stride), None);
        drop(ticket);
        assert_eq!(stack_above_guard(range.base), None);
    }

    #[test]
    fn an_entry_that_changes_is_never_read_in_part() {
        let other = Range { slots: 5, stride: 0x9000, guard: 0x8000, ..imagined(1001) };
        let ranges = [imagined(1000), other];
        let ticket = Ticket::new(ranges[0]).unwrap();
        let entry = entry(ticket.index);
        std::thread::scope(|scope| {
            let reads =
                scope.spawn(|| (0..200_000).filter_map(|_| entry.read()).collect::<Vec<_>>());
            while !reads.is_finished() {
                ranges.iter().for_each(|&range| entry.write(range));
            }
            let wrong = reads.join().unwrap().into_iter().find(|range| !ranges.contains(range));
            assert_eq!(wrong, None);
        });
    }

    #[test]
    fn threads_share_the_table_and_reuse_its_entries() {
        const THREADS: usize = 4;
        const LIVE: usize = 100;
        let work = |thread: usize| {
            for round in 0..200 {
                let tickets: Vec<_> = (0..LIVE)
                    .map(|i| Ticket::new(imagined(2 + thread * LIVE + i)).unwrap())
                    .collect();
                for i in [0, round % LIVE, LIVE - 1] {
                    let base = imagined(2 + thread * LIVE + i).base;
                    assert_eq!(stack_above_guard(base + 0x5000), Some(0x4000));
                }
                drop(tickets);
                assert_eq!(stack_above_guard(imagined(2 + thread * LIVE).base), None);
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || work(thread));
            }
        });
        // 80,000 tickets were made. Other tests of this process hold a few.
        let len = LEN.load(Ordering::Relaxed);
        assert!(len < 10_000, "entries are reused, yet there are {len}");
    }
}
