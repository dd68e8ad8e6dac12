//! ThreadSanitizer. A party is what it calls a fiber: a logical thread with a clock and a call stack
//! of its own.
//!
//! A switch orders what was done before it before what is done after it, as it does for the
//! machine: parties of one thread do not race with each other.

use std::ffi::c_void;
use std::ptr;

use crate::stack::Stack;

unsafe extern "C" {
    fn __tsan_get_current_fiber() -> *mut c_void;
    fn __tsan_create_fiber(flags: u32) -> *mut c_void;
    fn __tsan_destroy_fiber(fiber: *mut c_void);
    fn __tsan_switch_to_fiber(fiber: *mut c_void, flags: u32);
}

#[derive(Debug, Clone)]
pub struct Party {
    fiber: *mut c_void,
}

impl Party {
    pub fn new() -> Party {
        Party { fiber: ptr::null_mut() }
    }

    pub fn on(_stack: &Stack) -> Party {
        Party::new()
    }

    /// # Safety
    ///
    /// None here.
    pub unsafe fn begin(&mut self) {
        // SAFETY: no preconditions; it is destroyed by `end`.
        self.fiber = unsafe { __tsan_create_fiber(0) };
    }

    /// # Safety
    ///
    /// `from` runs, and switches to `to` next. Nothing returns on the stack of `from` in between,
    /// so this is inlined into who switches: each function that is followed pops its call from the
    /// call stack of the party that it returns in.
    #[inline(always)]
    pub unsafe fn leave(from: &mut Party, to: &Party, _for_good: bool) {
        // SAFETY: `to` has begun or has left before, and so has a fiber.
        unsafe {
            from.fiber = __tsan_get_current_fiber();
            __tsan_switch_to_fiber(to.fiber, 0);
        }
    }

    /// # Safety
    ///
    /// None here.
    pub unsafe fn arrive(&mut self, _from: &mut Party) {}

    /// # Safety
    ///
    /// It has left for good.
    pub unsafe fn end(&mut self) {
        // SAFETY: `leave` noted the fiber, which runs no more.
        unsafe { __tsan_destroy_fiber(self.fiber) }
    }
}
