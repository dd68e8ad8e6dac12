//! Signals, for [`debug`](crate::debug).

#![allow(unsafe_code)]

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};

#[cfg(target_os = "linux")]
pub(crate) use sampling::{sample, thread_token};

/// Has `f` called on a thread of its own whenever the process gets `SIGQUIT`. Only the first call counts.
pub(crate) fn on_sigquit(f: fn()) -> io::Result<()> {
    static INSTALLED: std::sync::Mutex<bool> = std::sync::Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if *installed {
        return Ok(());
    }
    let (mut caught, signalled) = UnixStream::pair()?;
    // A handler must not block: what does not fit is one more signal of many.
    signalled.set_nonblocking(true)?;
    let main = move || {
        let mut byte = [0];
        while caught.read_exact(&mut byte).is_ok() {
            f();
        }
    };
    thread::Builder::new().name("strands-debug".into()).spawn(main)?;
    let handler = move || {
        if strands_sched::in_forked_child() {
            // It has the same socket, and nobody who reads for it: the signal does what it does by default.
            // SAFETY: both may be called in a handler.
            unsafe {
                libc::signal(libc::SIGQUIT, libc::SIG_DFL);
                libc::raise(libc::SIGQUIT);
            }
            return;
        }
        let _ = (&signalled).write(&[0]);
    };
    // SAFETY: the handler makes one system call, which does not block, and nothing else; or two in a forked child. It changes no
    // `errno` that the interrupted code could miss, as the registry keeps it.
    unsafe { signal_hook_registry::register(libc::SIGQUIT, handler)? };
    *installed = true;
    Ok(())
}

/// Prints to standard error, past the lock of std's handle: whoever has that may hang, and be what is told of.
pub(crate) fn print(text: &str) {
    let stderr = io::stderr();
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match rustix::io::write(&stderr, rest) {
            Ok(count) => rest = &rest[count..],
            Err(rustix::io::Errno::INTR) => {}
            // Somebody has made it non-blocking, and reads slowly.
            Err(rustix::io::Errno::AGAIN) => {
                let mut polled = [PollFd::new(&stderr, PollFlags::OUT)];
                if poll(&mut polled, None).is_err_and(|error| error != rustix::io::Errno::INTR) {
                    return;
                }
            }
            Err(_) => return, // Nobody reads it.
        }
    }
}

/// For how many nanoseconds the calling thread has run.
pub(crate) const THREAD_CLOCK: Option<fn() -> u64> = Some(|| {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to what it is given, which is on this frame.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
});

/// Threads cannot be found here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn thread_token() -> usize {
    0
}

/// Nothing is known of the stacks of other threads here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn sample(_token: usize) -> Option<(u64, Vec<usize>)> {
    None
}

/// Another thread's stack, by a signal to it.
#[cfg(target_os = "linux")]
mod sampling {
    use std::ffi::{c_int, c_void};
    use std::mem;
    use std::ptr;
    use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    use std::sync::{Mutex, OnceLock, PoisonError};
    use std::thread;
    use std::time::{Duration, Instant};

    /// How long a thread may take to answer.
    const PATIENCE: Duration = Duration::from_millis(100);
    const MOST_FRAMES: usize = 64;

    /// The calling thread, for [`sample`].
    pub(crate) fn thread_token() -> usize {
        // SAFETY: it has no conditions.
        unsafe { libc::gettid() as usize }
    }

    /// What a sample is put into. One at a time is taken, under the lock in `sample`.
    static STATE: AtomicU32 = AtomicU32::new(IDLE);
    static THREAD: AtomicI32 = AtomicI32::new(0);
    static FIBER: AtomicU64 = AtomicU64::new(0);
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    static FRAMES: [AtomicUsize; MOST_FRAMES] = [const { AtomicUsize::new(0) }; MOST_FRAMES];

    /// A signal that comes now comes too late.
    const IDLE: u32 = 0;
    const ASKED: u32 = 1;
    const WALKING: u32 = 2;
    const DONE: u32 = 3;

    /// The id of the fiber that runs on the thread of `token`, and its return addresses. None if no fiber runs there, or
    /// it cannot be said.
    pub(crate) fn sample(token: usize) -> Option<(u64, Vec<usize>)> {
        static ONE: Mutex<()> = Mutex::new(());
        let thread = c_int::try_from(token).ok().filter(|&thread| thread > 0)?;
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let signal = signal()?;
        THREAD.store(thread, Ordering::Relaxed);
        STATE.store(ASKED, Ordering::Release);
        // SAFETY: the signal has our handler. A thread that is not there any more is not one of this process, or
        // is another than `THREAD` says when the handler looks whether a fiber runs on it.
        if !unsafe { send(thread, signal) } {
            STATE.store(IDLE, Ordering::Relaxed);
            return None;
        }
        let begun_at = Instant::now();
        while STATE.load(Ordering::Acquire) != DONE {
            // One that walks ends soon, and must not be left walking into what the next one uses.
            let withdrawn = begun_at.elapsed() > PATIENCE
                && STATE
                    .compare_exchange(ASKED, IDLE, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok();
            if withdrawn {
                return None;
            }
            thread::sleep(Duration::from_micros(100));
        }
        STATE.store(IDLE, Ordering::Relaxed);
        let count = COUNT.load(Ordering::Relaxed).min(MOST_FRAMES);
        let frames = FRAMES[..count].iter().map(|frame| frame.load(Ordering::Relaxed)).collect();
        Some((FIBER.load(Ordering::Relaxed), frames)).filter(|(fiber, _)| *fiber != 0)
    }

    /// Sends `signal` to a thread of this process; says whether it could.
    ///
    /// # Safety
    ///
    /// The signal has our handler.
    unsafe fn send(thread: c_int, signal: c_int) -> bool {
        // SAFETY: the caller's promise; it touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) == 0 }
    }

    /// The signal whose handler is ours: the last real-time one that nobody else handles.
    fn signal() -> Option<c_int> {
        static SIGNAL: OnceLock<Option<c_int>> = OnceLock::new();
        *SIGNAL.get_or_init(|| {
            // Where it is missing, the unwinder takes a lock that the interrupted code may hold.
            // SAFETY: a name that ends with a zero; nothing is called.
            if unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) }.is_null() {
                return None;
            }
            // What an unwinder sets up when it is first used is set up here, not in the handler.
            backtrace::trace(|_| true);
            (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev().find(|&signal| {
                // SAFETY: zeroed is a valid `sigaction`; both are on this frame; the handler does only what a
                // handler may.
                unsafe {
                    let mut before: libc::sigaction = mem::zeroed();
                    libc::sigaction(signal, ptr::null(), &mut before) == 0
                        && before.sa_sigaction == libc::SIG_DFL
                        && {
                            let mut ours: libc::sigaction = mem::zeroed();
                            ours.sa_sigaction = handler as *const () as usize;
                            ours.sa_flags = libc::SA_RESTART | libc::SA_SIGINFO | libc::SA_ONSTACK;
                            libc::sigaction(signal, &ours, ptr::null_mut()) == 0
                                // An emulator takes handlers for signals that it cannot send.
                                && send(libc::gettid(), signal)
                        }
                }
            })
        })
    }

    /// Notes where the interrupted fiber stands.
    ///
    /// It is on the thread's alternate stack, has atomics to write to, and takes no lock.
    extern "C" fn handler(_signal: c_int, _info: *mut libc::siginfo_t, _context: *mut c_void) {
        // SAFETY: it has no conditions.
        if THREAD.load(Ordering::Relaxed) != unsafe { libc::gettid() }
            || STATE.compare_exchange(ASKED, WALKING, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            return;
        }
        let fiber = strands_sched::interrupted_fiber().unwrap_or(0);
        FIBER.store(fiber, Ordering::Relaxed);
        let mut count = 0;
        if fiber != 0 {
            // This function's frame and the kernel's come first.
            let mut to_skip = None;
            let me = handler as *mut c_void;
            // SAFETY: the unwinder is what is not synchronized, and is not used by others through this crate in
            // ways that matter: it only reads. The fiber runs its own code, so its stack can be walked.
            unsafe {
                backtrace::trace_unsynchronized(|frame| {
                    match to_skip {
                        None if frame.symbol_address() == me => to_skip = Some(1),
                        None => {}
                        Some(0) => {
                            FRAMES[count].store(frame.ip().addr(), Ordering::Relaxed);
                            count += 1;
                        }
                        Some(left) => to_skip = Some(left - 1),
                    }
                    count < MOST_FRAMES
                });
            }
        }
        COUNT.store(count, Ordering::Relaxed);
        STATE.store(DONE, Ordering::Release);
    }
}
