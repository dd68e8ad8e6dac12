//! Whether this process is a child that was forked without `exec`.
//!
//! Such a child has one thread and no workers, but shares the parent's epoll instances and
//! eventfds: to register or deregister a descriptor there would act on the parent. Locks may have
//! been held by threads that do not exist here. So a wait in a child is an error, and the drop of
//! a handle only closes the child's own descriptor.
//!
//! One page that the kernel zeroes in a child (`MADV_WIPEONFORK`) tells, by one load, for `fork`,
//! `clone` and whatever else copies the address space. Turned down: `pthread_atfork`, which raw
//! system calls bypass, and comparing `getpid`, a system call for each wait; it is left for
//! kernels that lack the advice.

use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What tells a child.
enum Mark {
    /// In a page of its own: not zero in the process that made it.
    Page(&'static AtomicU32),
    /// The process that made it.
    Pid(u32),
}

static MARK: OnceLock<Mark> = OnceLock::new();

/// Called before there is anything that a child could spoil.
pub(crate) fn prepare() {
    MARK.get_or_init(|| match wiped_page() {
        Ok(word) => Mark::Page(word),
        Err(_) => Mark::Pid(std::process::id()),
    });
}

/// Whether this is a child forked from the process that first used the reactor.
#[inline]
pub fn in_child() -> bool {
    match MARK.get() {
        Some(Mark::Page(word)) => word.load(Relaxed) == 0,
        Some(Mark::Pid(pid)) => *pid != std::process::id(),
        None => false,
    }
}

/// What a wait in a child is answered with.
#[cold]
pub(crate) fn error() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "this process was forked and has no workers, so nothing can wait here; \
         exec, or do the work in the parent",
    )
}

fn wiped_page() -> io::Result<&'static AtomicU32> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
    // SAFETY: plain call.
    let bytes = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })
        .map_err(|_| io::Error::last_os_error())?;
    // SAFETY: a new mapping, which is never unmapped; the advice is given to all of it.
    let page = unsafe {
        let page = mmap_anonymous(
            ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )?;
        madvise(page, bytes, Advice::LinuxWipeOnFork)?;
        page
    };
    // SAFETY: zeroed, aligned and large enough for the word; nobody else knows it.
    let word = unsafe { &*page.cast::<AtomicU32>() };
    word.store(1, Relaxed);
    Ok(word)
}
