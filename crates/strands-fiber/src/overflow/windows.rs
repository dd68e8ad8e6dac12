//! Overflows by a vectored exception handler, which Windows calls before it looks at any frame.
//!
//! It runs on the stack that overflowed, in what the kernel keeps for that: see the platform file
//! of the stacks.

use std::io;
use std::marker::PhantomData;
use std::process;
use std::ptr;
use std::sync::Mutex;

use windows_sys::Win32::Foundation::{EXCEPTION_ACCESS_VIOLATION, EXCEPTION_STACK_OVERFLOW};
use windows_sys::Win32::Storage::FileSystem::WriteFile;
use windows_sys::Win32::System::Console::{GetStdHandle, STD_ERROR_HANDLE};
use windows_sys::Win32::System::Diagnostics::Debug::{
    AddVectoredExceptionHandler, EXCEPTION_CONTINUE_SEARCH, EXCEPTION_POINTERS,
};
use windows_sys::Win32::System::LibraryLoader::{
    GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GET_MODULE_HANDLE_EX_FLAG_PIN, GetModuleHandleExW,
};
use windows_sys::Win32::System::Threading::GetCurrentThreadStackLimits;

use super::report_overflow;

pub fn install() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    // A panic is impossible while it is held.
    let mut installed = INSTALLED.lock().unwrap();
    if !*installed {
        stay_loaded()?;
        // First, before std's: that would report the thread.
        // SAFETY: the handler stays valid, and touches nothing but what it is handed.
        if unsafe { AddVectoredExceptionHandler(1, Some(on_exception)) }.is_null() {
            return Err(io::Error::last_os_error());
        }
        *installed = true;
    }
    Ok(())
}

/// Keeps the DLL that this code is in, if it is in one, from being unloaded: the handler stays
/// installed for as long as the process lives.
fn stay_loaded() -> io::Result<()> {
    let flags = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN;
    let (here, mut module) = (on_exception as *const (), ptr::null_mut());
    // SAFETY: with this flag it takes an address in a module for the name, and only looks it up.
    match unsafe { GetModuleHandleExW(flags, here.cast(), &mut module) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// # Safety
///
/// Called by Windows, on the thread that raised the exception.
unsafe extern "system" fn on_exception(exception: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: it comes with a record.
    let record = unsafe { &*(*exception).ExceptionRecord };
    let address = match record.ExceptionCode {
        EXCEPTION_STACK_OVERFLOW => {
            // Not each version of Windows says at which address. The stack is the one we are on,
            // and its range starts with our guard, if it is ours.
            let (mut start, mut end) = (0, 0);
            // SAFETY: it fills in what it is given.
            unsafe { GetCurrentThreadStackLimits(&mut start, &mut end) };
            start
        }
        // The second word is the address. One in a guard: a frame that was not probed went over
        // all that the kernel watches.
        EXCEPTION_ACCESS_VIOLATION => record.ExceptionInformation[1],
        _ => return EXCEPTION_CONTINUE_SEARCH,
    };
    // SAFETY: as above, and this is the thread.
    unsafe { report_overflow(address) };
    EXCEPTION_CONTINUE_SEARCH
}

pub fn write_stderr(mut text: &[u8]) {
    while !text.is_empty() {
        let mut written = 0;
        // SAFETY: `text` is readable. A process without stderr has a handle that it refuses.
        let done = unsafe {
            let stderr = GetStdHandle(STD_ERROR_HANDLE);
            WriteFile(stderr, text.as_ptr(), text.len() as u32, &mut written, ptr::null_mut())
        };
        match written as usize {
            written if done != 0 && written > 0 => text = text.get(written..).unwrap_or_default(),
            _ => return,
        }
    }
}

/// By `__fastfail`, which takes no stack and lets Windows write its dump.
pub fn abort() -> ! {
    process::abort()
}

/// Nothing: a handler runs on the stack that overflowed.
///
/// From [`ensure_alt_stack`](super::ensure_alt_stack); to be dropped on the thread that made it.
#[derive(Debug)]
#[must_use = "the alternate signal stack is removed when this is dropped"]
pub struct AltStack {
    /// It belongs to one thread, elsewhere.
    _not_send: PhantomData<*mut ()>,
}

pub fn ensure_alt_stack() -> io::Result<AltStack> {
    Ok(AltStack { _not_send: PhantomData })
}
