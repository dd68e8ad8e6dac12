//! Stack overflow: met by a guard, reported by name.
//!
//! A coroutine that outgrows its stack touches the guard below it. After [`install`] that fault
//! prints who overflowed a stack of which size and how to raise it, and aborts the process, as
//! std does for threads. Every other fault goes on to the handler that was there before: std's, so
//! that the overflow of a plain thread is still reported, or the user's.
//!
//! - A fault is ours exactly if its address lies in a guard that the registry knows. Every
//!   slab of stacks is in it for as long as it is mapped.
//! - The handler runs on the thread's alternate signal stack, as there is no room left on the
//!   other. std gives one to its threads; [`ensure_alt_stack`] serves those that have none.
//! - From the fault to the abort nothing allocates, locks or panics.
//!
//! A system call that is handed an address in a guard returns `EFAULT`; there is no fault, and
//! nothing to do.
//!
//! # What a platform file defines
//!
//! | item | meaning |
//! |---|---|
//! | `fn install() -> io::Result<()>` | have `report_overflow` called with each address that faults, on any thread, before anybody else sees the fault |
//! | `fn write_stderr(&[u8])` | write, from within a fault |
//! | `fn abort() -> !` | end the process as std does after an overflow |
//! | `struct AltStack`, `fn ensure_alt_stack() -> io::Result<AltStack>` | what the thread needs to handle the fault |

use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

#[cfg_attr(unix, path = "overflow/unix.rs")]
#[cfg_attr(windows, path = "overflow/windows.rs")]
mod platform;
pub(crate) mod registry;

/// What [`ensure_alt_stack`] gives a thread.
///
/// ```
/// std::thread::spawn(|| {
///     let alt_stack: strands_fiber::overflow::AltStack =
///         strands_fiber::overflow::ensure_alt_stack()?;
///     // Coroutines run here; an overflow of one is reported.
///     drop(alt_stack);
///     std::io::Result::Ok(())
/// })
/// .join()
/// .unwrap()
/// .unwrap();
/// ```
pub use platform::AltStack;

/// Has stack overflows reported from now on, in the whole process.
///
/// From then on the shared library that this code is in is not unloaded any more, whoever closes it.
///
/// Does nothing when called again. A handler for `SIGSEGV` or `SIGBUS` that is installed later
/// must call the one it replaces for faults that are not its own, else overflows go unreported.
///
/// # Errors
///
/// Those of `sigaction`, which fails where a filter of system calls forbids it.
///
/// ```
/// strands_fiber::overflow::install()?;
/// let mut coroutine = strands_fiber::Coroutine::new(|_, ()| {
///     // Were it to recurse without end, the process would end with: "a coroutine has
///     // overflowed its stack of 256 KiB", and how to give it more.
/// });
/// assert_eq!(coroutine.resume(()), strands_fiber::CoroutineResult::<(), ()>::Return(()));
/// # std::io::Result::Ok(())
/// ```
pub fn install() -> io::Result<()> {
    platform::install()
}

/// Gives the calling thread an alternate signal stack if it has none, for as long as the result
/// lives.
///
/// Threads made by std have one if std installed its own overflow handler, which it does not when
/// a handler was there before `main`; threads made by C have none. Without one an overflow ends the
/// process by a bare `SIGSEGV`.
///
/// # Errors
///
/// `OutOfMemory` if it cannot be mapped.
///
/// ```
/// use strands_fiber::{Coroutine, CoroutineResult, overflow};
///
/// /// What a thread that C has made calls.
/// extern "C" fn callback() -> u32 {
///     let _alt_stack = overflow::ensure_alt_stack().expect("no memory for a signal stack");
///     let mut coroutine = Coroutine::<(), (), u32>::new(|_, ()| 42);
///     match coroutine.resume(()) {
///         CoroutineResult::Return(answer) => answer,
///         CoroutineResult::Yield(()) => unreachable!("it does not suspend"),
///     }
/// }
/// assert_eq!(callback(), 42);
/// ```
pub fn ensure_alt_stack() -> io::Result<AltStack> {
    platform::ensure_alt_stack()
}

/// Writes who overflowed, and returns how to give it a larger stack (None: as any coroutine): see
/// [`set_describe`].
///
/// ```
/// let describe: strands_fiber::overflow::Describe = |sink| {
///     sink(b"the parser's coroutine");
///     Some("raise PARSER_STACK_BYTES")
/// };
/// let mut text = Vec::new();
/// // SAFETY: there is no condition on calling this one.
/// let help = unsafe { describe(&mut |piece| text.extend_from_slice(piece)) };
/// assert_eq!(text, b"the parser's coroutine");
/// assert_eq!(help, Some("raise PARSER_STACK_BYTES"));
/// ```
pub type Describe = unsafe fn(sink: &mut dyn FnMut(&[u8])) -> Option<&'static str>;

/// Sets what writes the subject of the message to its sink, for example `fiber 'name' (id 12)`,
/// and knows the help. Until then it is `a coroutine`.
///
/// # Safety
///
/// `describe` is called in a signal handler, on the thread that overflowed: it must not allocate,
/// lock, panic, or need more than about a kilobyte of stack.
///
/// ```
/// fn describe(sink: &mut dyn FnMut(&[u8])) -> Option<&'static str> {
///     sink(b"the parser's coroutine");
///     Some("raise PARSER_STACK_BYTES")
/// }
/// // SAFETY: it only passes texts on.
/// unsafe { strands_fiber::overflow::set_describe(describe) };
/// strands_fiber::overflow::install()?;
/// # std::io::Result::Ok(())
/// ```
pub unsafe fn set_describe(describe: Describe) {
    DESCRIBE.store(describe as *mut (), Ordering::Release);
}

/// The [`Describe`] that was set, or null.
static DESCRIBE: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

const HELP_COROUTINE: &str = "give it more with Coroutine::with_stack(Stack::new(bytes)?, ..)";

/// Reports and aborts if `address` lies in the guard of a stack; returns otherwise.
///
/// # Safety
///
/// Called for a fault at `address`, by the thread that it happened on.
unsafe fn report_overflow(address: usize) {
    let Some(stack_bytes) = registry::stack_above_guard(address) else { return };
    let mut message = Message { bytes: [0; 512], len: 0 };
    message.push(b"\n");
    let describe = DESCRIBE.load(Ordering::Acquire);
    let help = if describe.is_null() {
        message.push(b"a coroutine");
        None
    } else {
        // SAFETY: `set_describe` stored a pointer of this type.
        let describe = unsafe { mem::transmute::<*mut (), Describe>(describe) };
        // A long name must leave room for the rest.
        let mut room = 200;
        // SAFETY: `set_describe`'s caller promised that it may be called here.
        unsafe {
            describe(&mut |text| {
                let text = text.get(..room).unwrap_or(text);
                room -= text.len();
                message.push(text);
            })
        }
    };
    message.push(b" has overflowed its stack of ");
    message.push_number(stack_bytes / 1024);
    message.push(b" KiB\nhelp: ");
    message.push(help.unwrap_or(HELP_COROUTINE).as_bytes());
    message.push(b"\nfatal runtime error: stack overflow, aborting\n");
    // One write, so that other output does not come in between.
    platform::write_stderr(message.bytes.get(..message.len).unwrap_or_default());
    platform::abort();
}

/// Text of bounded length; what does not fit is left out.
struct Message {
    bytes: [u8; 512],
    len: usize,
}

impl Message {
    fn push(&mut self, text: &[u8]) {
        for (place, &byte) in self.bytes.iter_mut().skip(self.len).zip(text) {
            *place = byte;
            self.len += 1;
        }
    }

    fn push_number(&mut self, mut number: usize) {
        let mut digits = [0; 20];
        let mut len = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
            len += 1;
            if number == 0 {
                break;
            }
        }
        self.push(digits.get(digits.len() - len..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_writes_numbers_and_drops_what_does_not_fit() {
        let mut message = Message { bytes: [0; 512], len: 0 };
        message.push_number(0);
        message.push(b" ");
        message.push_number(10_240);
        message.push(b" ");
        message.push_number(usize::MAX);
        assert_eq!(&message.bytes[..message.len], format!("0 10240 {}", usize::MAX).as_bytes());
        message.push(&[b'x'; 600]);
        assert_eq!(message.len, 512);
        assert_eq!(message.bytes[511], b'x');
    }
}
