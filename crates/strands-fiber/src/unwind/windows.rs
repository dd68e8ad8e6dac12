//! The walk, by the tables of Windows. With the GNU tools, a function's handler data are the
//! tables of the other systems; with the MSVC tools they are not, and it cannot be told.

use std::mem;
use std::ptr;

use windows_sys::Win32::System::Diagnostics::Debug::{
    CONTEXT, IMAGE_RUNTIME_FUNCTION_ENTRY, RtlCaptureContext, RtlLookupFunctionEntry,
    RtlVirtualUnwind, UNW_FLAG_EHANDLER, UNW_FLAG_UHANDLER,
};

use super::lsda::{self, Seen};

/// None if the stack did not begin with `entry`, or it cannot be told.
pub(super) fn is_cleaning_up(entry: usize) -> Option<bool> {
    if cfg!(target_env = "gnu") { walk(entry) } else { None }
}

/// As the system wants it; the binding's type does not say so.
#[repr(C, align(16))]
struct Aligned(CONTEXT);

fn walk(entry: usize) -> Option<bool> {
    let (own_image, _) = lookup(walk as *const () as u64);
    // SAFETY: a context is plain data, and the next call fills it in.
    let Aligned(context) = &mut unsafe { mem::zeroed::<Aligned>() };
    // SAFETY: it is aligned.
    unsafe { RtlCaptureContext(context) };
    let mut seen = Seen::default();
    // The first frame is this one, which has nothing to clean up.
    loop {
        let pc = context.Rip;
        let (image, function) = lookup(pc);
        if function.is_null() {
            return seen.aborts.then_some(true); // The end.
        }
        // SAFETY: it is the row of the table that was found.
        let start = (image + u64::from(unsafe { (*function).BeginAddress })) as usize;
        if start == entry {
            return Some(seen.cleanup);
        }
        let (mut table, mut frame) = (ptr::null_mut(), 0);
        // SAFETY: the context is that of a frame of this stack, in this function.
        let handler = unsafe {
            RtlVirtualUnwind(
                UNW_FLAG_EHANDLER | UNW_FLAG_UHANDLER,
                image,
                pc,
                function,
                context,
                &mut table,
                &mut frame,
                ptr::null_mut(),
            )
        };
        // Other images, the system's among them, may have handlers of another kind.
        if handler.is_some() && image == own_image {
            // SAFETY: the data of a handler in an image made by the GNU tools. The call lies before
            // where it returns to.
            seen.meet(unsafe { lsda::landing(table.cast(), start, pc as usize - 1) });
        }
    }
}

/// The image that `pc` lies in, and the row of its function. Null if it is in none, or in a function
/// that calls nothing.
fn lookup(pc: u64) -> (u64, *const IMAGE_RUNTIME_FUNCTION_ENTRY) {
    let mut image = 0;
    // SAFETY: it looks the address up, whatever it is.
    let function = unsafe { RtlLookupFunctionEntry(pc, &mut image, ptr::null_mut()) };
    (image, function)
}
