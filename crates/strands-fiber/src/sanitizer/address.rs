//! AddressSanitizer, and the LeakSanitizer in it.
//!
//! It wants to know the bounds of the stack that is run on, to find frames in it, and keeps a
//! second one, the *fake stack*, whose frames are not reused at once: so it tells that a local is
//! used after its function has returned. Each party has a fake stack of its own.

use std::ffi::c_void;
use std::ptr;

use crate::stack::Stack;

unsafe extern "C" {
    fn __sanitizer_start_switch_fiber(
        fake_stack_save: *mut *mut c_void,
        bottom: *const c_void,
        size: usize,
    );
    fn __sanitizer_finish_switch_fiber(
        fake_stack: *mut c_void,
        bottom_old: *mut *const c_void,
        size_old: *mut usize,
    );
    fn __asan_unpoison_memory_region(start: *const c_void, size: usize);
    fn __lsan_register_root_region(start: *const c_void, size: usize);
    fn __lsan_unregister_root_region(start: *const c_void, size: usize);
}

#[derive(Debug, Clone)]
pub struct Party {
    /// Null while it runs, and until it makes a fake stack.
    fake_stack: *mut c_void,
    /// The stack. For one of the system's, the sanitizer tells when the party has left it.
    bottom: *const c_void,
    size: usize,
}

impl Party {
    pub fn new() -> Party {
        Party { fake_stack: ptr::null_mut(), bottom: ptr::null(), size: 0 }
    }

    pub fn on(stack: &Stack) -> Party {
        Party { bottom: stack.bottom().as_ptr().cast(), size: stack.size(), ..Party::new() }
    }

    /// # Safety
    ///
    /// Its stack is mapped, and stays so until it has left for good.
    pub unsafe fn begin(&mut self) {
        // What only a suspended stack refers to is not leaked.
        // SAFETY: the caller's promise.
        unsafe { __lsan_register_root_region(self.bottom, self.size) }
    }

    /// # Safety
    ///
    /// `from` runs, and switches to `to` next.
    #[inline(always)]
    pub unsafe fn leave(from: &mut Party, to: &Party, for_good: bool) {
        // Null: it needs its fake stack no more.
        let save = if for_good { ptr::null_mut() } else { &raw mut from.fake_stack };
        // SAFETY: the caller's promise. The bounds of `to` are known: its stack is ours, or it has
        // left it and who arrived after it was told.
        unsafe { __sanitizer_start_switch_fiber(save, to.bottom, to.size) }
    }

    /// # Safety
    ///
    /// This party has just arrived, after `from`.
    pub unsafe fn arrive(&mut self, from: &mut Party) {
        // SAFETY: the caller's promise; the fake stack is this party's, from when it left.
        unsafe {
            __sanitizer_finish_switch_fiber(self.fake_stack, &mut from.bottom, &mut from.size);
        }
        self.fake_stack = ptr::null_mut();
    }

    /// # Safety
    ///
    /// It has left for good, and its stack is still mapped.
    pub unsafe fn end(&mut self) {
        // Frames that were left without a return have red zones still. Copied first: this party may lie there.
        let (bottom, size) = (self.bottom, self.size);
        // SAFETY: the caller's promise; `begin` registered the region.
        unsafe {
            __lsan_unregister_root_region(bottom, size);
            __asan_unpoison_memory_region(bottom, size);
        }
    }
}
