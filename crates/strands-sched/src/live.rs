//! The list of a worker's started fibers, for reports and shutdown.
//!
//! It runs through the fibers' headers. Its lock is taken when a fiber starts and when it ends,
//! nearly always uncontended: one read-modify-write.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use crate::atomic::{AtomicBool, Release, SeqCst, backoff};
use crate::task::Header;

/// How a [walk](Live::try_advance) goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Next,
    /// This was the last.
    Stop,
    /// This comes again.
    StopBefore,
}

pub(crate) struct Live {
    locked: AtomicBool,
    first: Cell<*mut Header>,
}

/// The first in the list, for who has the lock.
struct First<'a>(&'a Cell<*mut Header>, &'a AtomicBool);

impl Drop for First<'_> {
    fn drop(&mut self) {
        self.1.store(false, Release);
    }
}

impl Live {
    pub(crate) fn new() -> Live {
        Live { locked: AtomicBool::new(false), first: Cell::new(ptr::null_mut()) }
    }

    fn with<R>(&self, f: impl FnOnce(&Cell<*mut Header>) -> R) -> R {
        let mut round = 0;
        loop {
            if let Some(first) = self.try_lock() {
                return f(first.0);
            }
            backoff(round);
            round += 1;
        }
    }

    fn try_lock(&self) -> Option<First<'_>> {
        (!self.locked.swap(true, SeqCst)).then(|| First(&self.first, &self.locked))
    }

    /// # Safety
    ///
    /// `fiber` is in no list, and stays alive until it is unlinked.
    pub(crate) unsafe fn link(&self, fiber: NonNull<Header>) {
        self.with(|first| {
            // SAFETY: the caller's promise, and that of whoever linked the others.
            unsafe {
                let (previous, next) = fiber.as_ref().live_links();
                previous.set(ptr::null_mut());
                next.set(first.get());
                if let Some(second) = first.get().as_ref() {
                    second.live_links().0.set(fiber.as_ptr());
                }
            }
            first.set(fiber.as_ptr());
        });
    }

    /// # Safety
    ///
    /// `fiber` is in this list.
    pub(crate) unsafe fn unlink(&self, fiber: NonNull<Header>) {
        self.with(|first| {
            // SAFETY: fibers in the list are alive.
            unsafe {
                let (previous, next) = fiber.as_ref().live_links();
                match previous.get().as_ref() {
                    Some(previous) => previous.live_links().1.set(next.get()),
                    None => first.set(next.get()),
                }
                if let Some(next) = next.get().as_ref() {
                    next.live_links().0.set(previous.get());
                }
            }
        });
    }

    /// Calls `f` with the fibers that come after `marker`, until it stops or there are no more; `marker`
    /// is put behind the last, or before it if that is to come again. Says whether there are more: if not, it is in the list
    /// no longer. None: somebody else has the lock, and nothing was done.
    ///
    /// # Safety
    ///
    /// `marker` is in this list, and a thread's header. `f` neither links nor unlinks.
    pub(crate) unsafe fn try_advance(
        &self,
        marker: NonNull<Header>,
        mut f: impl FnMut(&Header) -> Step,
    ) -> Option<bool> {
        let lock = self.try_lock()?;
        let first = lock.0;
        // SAFETY: what is in the list is alive, and nobody changes the list while we hold the lock.
        unsafe {
            let links = marker.as_ref().live_links();
            let (mut last, mut next) = (links.0.get(), links.1.get());
            // Taken out.
            match last.as_ref() {
                Some(last) => last.live_links().1.set(next),
                None => first.set(next),
            }
            if let Some(next) = next.as_ref() {
                next.live_links().0.set(last);
            }
            while let Some(header) = next.as_ref() {
                // A thread's header is a marker too.
                let step = if header.is_thread() { Step::Next } else { f(header) };
                if step != Step::StopBefore {
                    (last, next) = (next, header.live_links().1.get());
                }
                if step != Step::Next {
                    break;
                }
            }
            let Some(after) = next.as_ref() else { return Some(false) };
            // Put in again, between the last and the next.
            links.0.set(last);
            links.1.set(next);
            after.live_links().0.set(marker.as_ptr());
            match last.as_ref() {
                Some(last) => last.live_links().1.set(marker.as_ptr()),
                None => first.set(marker.as_ptr()),
            }
            Some(true)
        }
    }

    pub(crate) fn for_each(&self, mut f: impl FnMut(&Header)) {
        self.with(|first| {
            let mut fiber = first.get();
            // SAFETY: fibers in the list are alive, and stay in it while we hold the lock.
            while let Some(header) = unsafe { fiber.as_ref() } {
                // A thread's header only marks a place: see `try_advance`.
                if !header.is_thread() {
                    f(header);
                }
                fiber = header.live_links().1.get();
            }
        });
    }
}
