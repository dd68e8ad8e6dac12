//! The run queue: the ready fibers of one worker, first come, first served.
//!
//! A ring of header pointers. A ready fiber is a few cold cache lines (its header, the top of its
//! stack), so with many of them the queue knows well before the fiber runs what will be needed:
//! `pop` prefetches the header of the fiber [`HEADER_AHEAD`] places behind and the stack of the
//! one [`STACK_AHEAD`] behind, whose header has come by then. With 100,000 fibers this makes a
//! visit several times cheaper. An intrusive list was turned down: its next-but-one element
//! is not known without loading the next.

use std::ptr::NonNull;

use strands_fiber::arch::prefetch;

use crate::task::Header;

pub(crate) struct RunQueue {
    /// A power of two of slots; those from `head` to `tail` are filled.
    ring: Box<[*mut Header]>,
    head: usize,
    tail: usize,
}

const STACK_AHEAD: usize = 3;
const HEADER_AHEAD: usize = 6;

impl RunQueue {
    pub(crate) fn new() -> RunQueue {
        RunQueue { ring: vec![std::ptr::null_mut(); 256].into_boxed_slice(), head: 0, tail: 0 }
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head)
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, fiber: NonNull<Header>) {
        if self.len() == self.ring.len() {
            self.grow();
        }
        let slot = self.tail & (self.ring.len() - 1);
        self.ring[slot] = fiber.as_ptr();
        self.tail = self.tail.wrapping_add(1);
    }

    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<NonNull<Header>> {
        let ready = self.len();
        if ready == 0 {
            return None;
        }
        let mask = self.ring.len() - 1;
        let fiber = self.ring[self.head & mask];
        if ready > STACK_AHEAD {
            self.prefetch(ready, mask);
        }
        self.head = self.head.wrapping_add(1);
        NonNull::new(fiber)
    }

    #[inline(always)]
    fn prefetch(&self, ready: usize, mask: usize) {
        if ready > HEADER_AHEAD {
            prefetch(self.ring[(self.head + HEADER_AHEAD) & mask].cast());
        }
        let soon = self.ring[(self.head + STACK_AHEAD) & mask];
        // SAFETY: fibers in the queue are alive. A switch writes where they stand, and those happen
        // on this thread, not now. (One that has just queued itself has its former place: a hint.)
        let sp = unsafe { (*soon).stack_pointer() };
        prefetch(sp);
        prefetch(sp.wrapping_add(64));
    }

    #[cold]
    fn grow(&mut self) {
        let len = self.ring.len();
        let mut larger = Vec::with_capacity(2 * len);
        larger.extend((0..len).map(|i| self.ring[self.head.wrapping_add(i) & (len - 1)]));
        larger.resize(2 * len, std::ptr::null_mut());
        (self.ring, self.head, self.tail) = (larger.into_boxed_slice(), 0, len);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_through_growth_and_wrapping() {
        let mut queue = RunQueue::new();
        let headers: Vec<_> = (0..1000).map(|_| Header::for_tests()).collect();
        let mut expected = std::collections::VecDeque::new();
        for (i, header) in headers.iter().cycle().take(5000).enumerate() {
            let header = header.as_ptr();
            queue.push(header);
            expected.push_back(header);
            if i % 3 == 0 {
                assert_eq!(queue.pop(), expected.pop_front());
            }
            assert_eq!(queue.len(), expected.len());
        }
        while let Some(fiber) = queue.pop() {
            assert_eq!(Some(fiber), expected.pop_front());
        }
        assert!(expected.is_empty() && queue.is_empty());
    }
}
