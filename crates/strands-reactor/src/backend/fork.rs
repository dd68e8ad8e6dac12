//! What tells a forked child from its parent: a word that is zero in the child.
//!
//! What follows from it is `strands_sched`'s affair (its `fork.rs`) and, for descriptors, this
//! crate's: a child shares the parent's epoll instances and eventfds, so to register or
//! deregister there would act on the parent. A wait in a child is an error, and the drop of
//! a handle only closes the child's own descriptor.
//!
//! The word lies in a page that the kernel zeroes in a child (`MADV_WIPEONFORK`), for `fork`,
//! `clone` and whatever else copies the address space. Where that is not to be had, or is promised
//! and not done (qemu's user mode up to 7.2), a `pthread_atfork` handler zeroes the word, which raw
//! system calls bypass. Turned down: comparing `getpid`, a system call for each wait. Windows has no
//! `fork`.

#[cfg(unix)]
use std::io;
#[cfg(unix)]
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};

pub(crate) use strands_sched::{forked_error as error, in_forked_child as in_child};

/// To be called before there is anything that a child could spoil: before a worker is made.
pub(crate) fn prepare() {
    #[cfg(unix)]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            static WORD: AtomicU32 = AtomicU32::new(1);
            let word = wiped_page().unwrap_or(&WORD);
            zero_in_children(word);
            // SAFETY: nobody else knows the word, and what zeroes it does so in children only.
            unsafe { strands_sched::watch_forks(word) };
        });
    }
}

/// A word that the kernel zeroes.
#[cfg(target_os = "linux")]
fn wiped_page() -> io::Result<&'static AtomicU32> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
    // SAFETY: sysconf has no preconditions.
    let bytes = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })
        .map_err(|_| io::Error::last_os_error())?;
    // SAFETY: a new mapping, which is never unmapped; the advice is given to all of it.
    let page = unsafe {
        let page = mmap_anonymous(
            std::ptr::null_mut(),
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

#[cfg(all(unix, not(target_os = "linux")))]
fn wiped_page() -> io::Result<&'static AtomicU32> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Has a handler zero `word` in a child. If that cannot be installed, for want of memory, a child
/// is not recognised where the kernel does not help.
#[cfg(unix)]
fn zero_in_children(word: &'static AtomicU32) {
    static WORD: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
    unsafe extern "C" fn in_the_child() {
        // SAFETY: set before the handler was installed, to a static reference.
        unsafe { (*WORD.load(Relaxed)).store(0, Relaxed) };
    }
    WORD.store(std::ptr::from_ref(word).cast_mut(), Relaxed);
    // SAFETY: the handler does no more than store, and stays: whatever installs it has pinned the
    // library that it is in (see `overflow::install`).
    unsafe { libc::pthread_atfork(None, None, Some(in_the_child)) };
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Whether the word is zero in a child, and not in the parent.
    fn tells(word: &AtomicU32) -> bool {
        // SAFETY: the child does nothing but look and end.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends the child without running anything else.
            unsafe { libc::_exit(i32::from(word.load(Relaxed) == 0)) };
        }
        let mut status = 0;
        // SAFETY: our child, and a value of ours.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        word.load(Relaxed) == 1 && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 1
    }

    #[test]
    fn either_way_the_word_tells() {
        // An emulator may promise the advice and ignore it.
        let emulated = std::env::var_os("STRANDS_TEST_RUNNER").is_some();
        if let Ok(word) = wiped_page() {
            assert!(tells(word) || emulated, "MADV_WIPEONFORK");
        }
        static WORD: AtomicU32 = AtomicU32::new(1);
        zero_in_children(&WORD);
        assert!(tells(&WORD), "pthread_atfork");
    }
}
