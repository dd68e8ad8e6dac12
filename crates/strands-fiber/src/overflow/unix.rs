//! Overflows by `SIGSEGV` and `SIGBUS`.

use std::io;
use std::marker::PhantomData;
use std::mem::{self, MaybeUninit};
use std::ptr::{self, NonNull};
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_int, c_void, sigaction, siginfo_t, stack_t};
use rustix::mm::{self, MapFlags, MprotectFlags, ProtFlags};

use super::report_overflow;

const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// What each of [`SIGNALS`] did before. Null: the default. Never freed, as a handler may be
/// reading it.
static PREVIOUS: [AtomicPtr<sigaction>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];

pub fn install() -> io::Result<()> {
    static INSTALLED: Mutex<[bool; 2]> = Mutex::new([false; 2]);
    if cfg!(miri) {
        return Ok(()); // It has no signals.
    }
    // A panic is impossible while it is held.
    let mut installed = INSTALLED.lock().unwrap();
    if *installed == [false; 2] {
        stay_loaded();
    }
    for ((&signal, installed), previous) in SIGNALS.iter().zip(&mut *installed).zip(&PREVIOUS) {
        if *installed {
            continue;
        }
        // Known before we take over: another thread may fault right then.
        let before = set_action(signal, None).map_err(no_handler)?;
        previous.store(Box::into_raw(Box::new(before)), Ordering::Release);
        let mut ours = before;
        ours.sa_sigaction = on_fault as *const () as usize;
        // The previous handler runs inside of ours, with the signals blocked that it asked for.
        let inherited = before.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART);
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | inherited;
        set_action(signal, Some(&ours)).map_err(no_handler)?;
        *installed = true;
    }
    Ok(())
}

#[cold]
fn no_handler(error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!(
            "{error}. Likely cause: a filter of system calls; allow `rt_sigaction` for SIGSEGV and \
             SIGBUS"
        ),
    )
}

/// Keeps the shared library that this code is in, if it is in one, from being unloaded.
///
/// The handler stays installed for as long as the process lives: others may have chained to it, so
/// it cannot be taken back. Threads too run code of this library, without asking it first when it
/// is closed. `dlclose` succeeds nevertheless, and a later `dlopen` finds the library as it was.
#[cfg(all(
    any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_vendor = "apple"
    ),
    not(target_feature = "crt-static")
))]
fn stay_loaded() {
    let mut here = MaybeUninit::<libc::Dl_info>::zeroed();
    let address = on_fault as *const c_void;
    // SAFETY: `here` has room for the answer, and is filled in if there is one.
    let found = unsafe { libc::dladdr(address, here.as_mut_ptr()) } != 0;
    if found {
        // SAFETY: the name is one of the dynamic linker's own, which lives while the library is
        // loaded. It fails for the program itself, which nobody unloads; else it finds what is
        // loaded, so that no code runs.
        unsafe {
            let name = here.assume_init().dli_fname;
            libc::dlopen(name, libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE);
        }
    }
}

/// Nothing is unloaded from a static program; elsewhere there is no such request.
#[cfg(not(all(
    any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_vendor = "apple"
    ),
    not(target_feature = "crt-static")
)))]
fn stay_loaded() {}

/// Sets the action of `signal`, if one is given; returns the one before.
fn set_action(signal: c_int, action: Option<&sigaction>) -> io::Result<sigaction> {
    let new = action.map_or(ptr::null(), ptr::from_ref);
    let mut old = MaybeUninit::<sigaction>::zeroed();
    // SAFETY: `new` is null or a valid action, whose handler has the signature that its flags say;
    // `old` has room for one.
    match unsafe { libc::sigaction(signal, new, old.as_mut_ptr()) } {
        // SAFETY: sigaction filled it in.
        0 => Ok(unsafe { old.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// # Safety
///
/// Called by the kernel for one of [`SIGNALS`], or by a handler that passes on what it got.
unsafe extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // Others (kill, raise) have no address, and may come at any time. Their codes are 0 or less on
    // Linux, and 0x10001 (SI_USER) or more on the BSDs.
    // SAFETY: SA_SIGINFO is set, so `info` is valid.
    let is_fault = (1..=0xffff).contains(unsafe { &(*info).si_code });
    if is_fault {
        // SAFETY: as above, and a fault has an address; it happened on this thread.
        unsafe { report_overflow((*info).si_addr().addr()) }
    }
    // SAFETY: the arguments are those we got.
    unsafe { pass_on(signal, info, context, is_fault) }
}

/// Does what would have been done without us.
///
/// # Safety
///
/// The arguments are those of a handler that was called for one of [`SIGNALS`].
unsafe fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void, is_fault: bool) {
    let place = &PREVIOUS[usize::from(signal != SIGNALS[0])];
    let previous = place.load(Ordering::Acquire);
    // SAFETY: null or a leaked Box.
    let (handler, flags) = match unsafe { previous.as_ref() } {
        Some(previous) => (previous.sa_sigaction, previous.sa_flags),
        None => (libc::SIG_DFL, 0),
    };
    match handler {
        // Only a signal that somebody sent can be ignored.
        libc::SIG_IGN if !is_fault => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // The fault happens again when we return; what was sent has to be sent again, and
            // arrives when we return.
            // SAFETY: the all-zero action is the default one.
            let _ = set_action(signal, Some(&unsafe { mem::zeroed() }));
            if !is_fault {
                // SAFETY: raise is async-signal-safe and has no preconditions.
                unsafe { libc::raise(signal) };
            }
        }
        handler => {
            if flags & libc::SA_RESETHAND != 0 {
                place.store(ptr::null_mut(), Ordering::Release);
            }
            if flags & libc::SA_SIGINFO != 0 {
                type Action = unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
                // SAFETY: SA_SIGINFO says that the handler has this type, and it is neither of
                // the two constants.
                let handler = unsafe { mem::transmute::<usize, Action>(handler) };
                // SAFETY: it gets what it would have got from the kernel.
                unsafe { handler(signal, info, context) }
            } else {
                type Handler = unsafe extern "C" fn(c_int);
                // SAFETY: without SA_SIGINFO a handler has this type.
                let handler = unsafe { mem::transmute::<usize, Handler>(handler) };
                // SAFETY: as above.
                unsafe { handler(signal) }
            }
        }
    }
}

pub fn write_stderr(mut text: &[u8]) {
    while !text.is_empty() {
        // SAFETY: `text` is readable.
        let written = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
        match usize::try_from(written) {
            Ok(written) if written > 0 => text = text.get(written..).unwrap_or_default(),
            _ => return,
        }
    }
}

pub fn abort() -> ! {
    // SAFETY: abort is async-signal-safe.
    unsafe { libc::abort() }
}

/// The alternate signal stack of a thread, removed on drop if it was added.
///
/// From [`ensure_alt_stack`](super::ensure_alt_stack); to be dropped on the thread that made it.
#[derive(Debug)]
#[must_use = "the alternate signal stack is removed when this is dropped"]
pub struct AltStack {
    /// None: the thread had one before.
    added: Option<Added>,
    /// It belongs to one thread.
    not_send: PhantomData<*mut ()>,
}

/// A guard page, and above it the stack.
#[derive(Debug)]
struct Added {
    mapping: NonNull<u8>,
    guard_bytes: usize,
    stack_bytes: usize,
}

pub fn ensure_alt_stack() -> io::Result<AltStack> {
    make_alt_stack().map_err(|error| {
        io::Error::new(
            error.kind(),
            format!(
                "cannot make the signal stack on which a thread reports stack overflows: {error}. \
                 Likely cause: a limit on memory (`ulimit -v`) or on mappings (vm.max_map_count), \
                 which can be raised, or a filter of system calls; allow `sigaltstack`"
            ),
        )
    })
}

fn make_alt_stack() -> io::Result<AltStack> {
    let none = AltStack { added: None, not_send: PhantomData };
    if cfg!(miri) || exchange_alt_stack(None)?.ss_flags & libc::SS_DISABLE == 0 {
        return Ok(none);
    }
    let page = crate::stack::page_bytes();
    let stack_bytes = libc::SIGSTKSZ.max(kernel_frame_bytes() + 16 * 1024).next_multiple_of(page);
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let bytes = page + stack_bytes;
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let mapping = unsafe { mm::mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::PRIVATE)? };
    let mapping = NonNull::new(mapping.cast::<u8>()).expect("nothing is mapped at address 0");
    let added = Added { mapping, guard_bytes: page, stack_bytes };
    // SAFETY: the first page is ours, and stays unused.
    let installed = unsafe { mm::mprotect(mapping.as_ptr().cast(), page, MprotectFlags::empty()) }
        .map_err(io::Error::from)
        .and_then(|()| {
            let stack = stack_t { ss_sp: added.start().cast(), ss_flags: 0, ss_size: stack_bytes };
            exchange_alt_stack(Some(&stack))
        });
    match installed {
        Ok(_) => Ok(AltStack { added: Some(added), ..none }),
        Err(error) => {
            added.unmap();
            Err(error)
        }
    }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        let Some(added) = self.added.take() else { return };
        // If somebody has put another in its place, they may mean to put ours back: leak it.
        if exchange_alt_stack(None).is_ok_and(|now| now.ss_sp == added.start().cast()) {
            let disable = stack_t {
                ss_sp: ptr::null_mut(),
                ss_flags: libc::SS_DISABLE,
                ss_size: libc::SIGSTKSZ,
            };
            if exchange_alt_stack(Some(&disable)).is_ok() {
                added.unmap();
            }
        }
    }
}

impl Added {
    fn start(&self) -> *mut u8 {
        self.mapping.as_ptr().wrapping_add(self.guard_bytes)
    }

    fn unmap(self) {
        let bytes = self.guard_bytes + self.stack_bytes;
        // SAFETY: mapped with this size by `ensure_alt_stack`, and the thread no longer uses it.
        let _ = unsafe { mm::munmap(self.mapping.as_ptr().cast(), bytes) };
    }
}

/// Sets the calling thread's alternate signal stack, if one is given; returns the one before.
fn exchange_alt_stack(new: Option<&stack_t>) -> io::Result<stack_t> {
    let new = new.map_or(ptr::null(), ptr::from_ref);
    let mut old = MaybeUninit::<stack_t>::zeroed();
    // SAFETY: `new` is null, or one that disables, or names memory that is kept until another is
    // set; `old` has room for one.
    match unsafe { libc::sigaltstack(new, old.as_mut_ptr()) } {
        // SAFETY: sigaltstack filled it in.
        0 => Ok(unsafe { old.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the kernel itself puts on a signal stack, which grows with the machine's registers.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn kernel_frame_bytes() -> usize {
    // SAFETY: getauxval has no preconditions.
    unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) as usize }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn kernel_frame_bytes() -> usize {
    libc::MINSIGSTKSZ
}
