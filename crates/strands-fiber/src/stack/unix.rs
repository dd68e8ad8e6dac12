//! Stacks by `mmap`. What is special to Linux is in [`map_flags`] and [`advice`].

use std::io;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::mm::{self, MapFlags, MprotectFlags, ProtFlags};
use rustix::process::{Resource, getrlimit};

use super::GuardKind;

pub const GUARD_PAGES: usize = 1;
pub const TOP_BYTES: usize = 0;

pub fn page_bytes() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    // SAFETY: sysconf has no preconditions.
    *PAGE.get_or_init(|| unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize)
}

/// The room that [`map`] leaves to others where it is limited: a fiber without a stack waits for
/// one, but an allocation that fails aborts the process.
const SPARE_BYTES: usize = 2 << 20;

pub fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let asked = bytes.saturating_add(SPARE_BYTES);
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let spare = match unsafe { mm::mmap_anonymous(ptr::null_mut(), asked, access, map_flags()) } {
        Ok(base) => NonNull::new(base.cast::<u8>()).expect("the kernel maps nothing at address 0"),
        // AGAIN: all memory is to be locked (mlockall) and RLIMIT_MEMLOCK is met.
        Err(Errno::NOMEM | Errno::AGAIN) => return Err(io::ErrorKind::OutOfMemory.into()),
        Err(error) => return Err(error.into()),
    };
    // The lower end, so that slabs lie side by side and share a mapping.
    // SAFETY: it was mapped just now, and nobody knows it.
    let base = unsafe {
        let _ = mm::munmap(spare.as_ptr().cast(), SPARE_BYTES);
        spare.add(SPARE_BYTES)
    };
    // One touched page must not become a huge one. A kernel without huge pages refuses.
    // SAFETY: the range is ours, and the advice changes no contents.
    let _ = unsafe { advise(base, bytes, advice::NO_HUGE_PAGES) };
    Ok(base)
}

/// # Safety
///
/// `map(bytes)` returned `base`, and nobody uses the range.
pub unsafe fn unmap(base: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise.
    let result = unsafe { mm::munmap(base.as_ptr().cast(), bytes) };
    // Unmapping part of a merged mapping splits it, which max_map_count may forbid. Then the range
    // is leaked, but not its memory.
    if result.is_err() {
        // SAFETY: the caller's promise.
        unsafe { discard(base, bytes) }
    }
}

/// Nothing to do: memory comes when it is touched.
///
/// # Safety
///
/// None needed.
pub unsafe fn commit(_bottom: NonNull<u8>, _size: usize) -> io::Result<()> {
    Ok(())
}

/// As [`commit`].
///
/// # Safety
///
/// None needed.
pub unsafe fn commit_top(_bottom: NonNull<u8>, _size: usize, _bytes: usize) -> io::Result<()> {
    Ok(())
}

/// # Safety
///
/// The caller owns the range, and nobody relies on its contents.
pub unsafe fn discard(start: NonNull<u8>, bytes: usize) {
    // Refused for locked memory, which its owner wants to stay.
    // SAFETY: the caller's promise.
    let _ = unsafe { advise(start, bytes, advice::DISCARD) };
}

/// # Safety
///
/// The caller owns the range, and nobody uses it.
pub unsafe fn protect(start: NonNull<u8>, bytes: usize, kind: GuardKind) -> io::Result<()> {
    if kind == GuardKind::Madvise {
        // SAFETY: the caller's promise.
        return Ok(unsafe { advise(start, bytes, advice::INSTALL_GUARD) }?);
    }
    // SAFETY: the caller's promise.
    match unsafe { mm::mprotect(start.as_ptr().cast(), bytes, MprotectFlags::empty()) } {
        Err(Errno::NOMEM) => Err(io::Error::new(
            io::ErrorKind::OutOfMemory,
            "cannot guard another stack: each guard by mprotect takes two mappings, and the \
             process may have no more; raise the limit with `sysctl -w vm.max_map_count=1048576`, \
             or run on Linux 6.13 or later, whose guards take none",
        )),
        Err(error) => Err(io::Error::new(
            io::Error::from(error).kind(),
            format!(
                "cannot guard a stack by mprotect: {error}. Likely cause: a filter of system calls; \
                 allow mprotect with no access"
            ),
        )),
        Ok(()) => Ok(()),
    }
}

pub fn guard_works(kind: GuardKind) -> bool {
    static MADVISE: OnceLock<bool> = OnceLock::new();
    match kind {
        GuardKind::Mprotect => true,
        GuardKind::Madvise => *MADVISE.get_or_init(|| try_guard().unwrap_or(false)),
    }
}

/// Whether a guard by madvise makes a page inaccessible. The call's own answer does not tell:
/// qemu's user mode up to 7.2 accepts unknown advice and ignores it.
fn try_guard() -> io::Result<bool> {
    let page = map(page_bytes())?;
    // SAFETY: the page is ours.
    let accepted = unsafe { advise(page, page_bytes(), advice::INSTALL_GUARD) }.is_ok();
    let works = accepted && !kernel_can_read(page);
    // SAFETY: `map` made the page, and nobody else knows it.
    unsafe { unmap(page, page_bytes()) };
    Ok(works)
}

/// Asked by a futex wait, which needs no file descriptor: there may be none left.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn kernel_can_read(word: NonNull<u8>) -> bool {
    let (wait, other_value) = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, 1);
    let no_limit = ptr::null::<libc::timespec>();
    // SAFETY: the kernel checks the address: that it may not be read is what we ask. A new page
    // holds 0, so that the wait ends at once.
    let done =
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), wait, other_value, no_limit) };
    done != -1 || io::Error::last_os_error().raw_os_error() != Some(libc::EFAULT)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn kernel_can_read(_word: NonNull<u8>) -> bool {
    true // There is no such guard.
}

/// # Safety
///
/// The caller owns the range, and nobody relies on what `advice` changes.
unsafe fn advise(start: NonNull<u8>, bytes: usize, advice: Option<i32>) -> Result<(), Errno> {
    let Some(advice) = advice else { return Err(Errno::INVAL) };
    // rustix's Advice does not know all of these.
    // SAFETY: the caller's promise.
    match unsafe { libc::madvise(start.as_ptr().cast(), bytes, advice) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}

/// Of the 128 TiB that most systems give a process, the half cannot be had in one piece.
const LARGEST: u64 = 1 << 46;

/// `OutOfMemory`, with the limit that was probably met and what to do about it.
pub fn no_room(bytes: usize) -> io::Error {
    let limited = |resource| getrlimit(resource).current.is_some();
    let cause = if bytes as u64 >= LARGEST {
        "that is about as much as a process can address"
    } else if limited(Resource::As) {
        "the process's address space is limited (RLIMIT_AS): raise the limit with `ulimit -v`"
    } else if limited(Resource::Data) {
        "the process's data is limited (RLIMIT_DATA): raise the limit with `ulimit -d`"
    } else if accounts_strictly() {
        "the kernel accounts for all that is mapped (vm.overcommit_memory is 2): relax it with \
         `sysctl -w vm.overcommit_memory=0`, or raise vm.overcommit_ratio"
    } else {
        "the process may have too many mappings (`sysctl -w vm.max_map_count=1048576` allows \
         more), or lock too much memory (`ulimit -l`)"
    };
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!(
            "cannot map a stack of {} KiB. Likely cause: {cause}, or use smaller or fewer stacks",
            bytes / 1024
        ),
    )
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn accounts_strictly() -> bool {
    use std::io::Read;
    let mut mode = [0];
    let file = std::fs::File::open("/proc/sys/vm/overcommit_memory");
    file.and_then(|mut file| file.read(&mut mode)).is_ok() && mode == *b"2"
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn accounts_strictly() -> bool {
    false
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn map_flags() -> MapFlags {
    MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn map_flags() -> MapFlags {
    MapFlags::PRIVATE
}

/// The advice that the kernel understands; None where it has no such thing.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod advice {
    pub const NO_HUGE_PAGES: Option<i32> = Some(libc::MADV_NOHUGEPAGE);
    pub const DISCARD: Option<i32> = Some(libc::MADV_DONTNEED);
    /// `MADV_GUARD_INSTALL`, Linux 6.13 and later.
    pub const INSTALL_GUARD: Option<i32> = Some(102);
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod advice {
    pub const NO_HUGE_PAGES: Option<i32> = None;
    /// What DONTNEED does on Linux; elsewhere that is only a hint about paging.
    pub const DISCARD: Option<i32> = Some(libc::MADV_FREE);
    pub const INSTALL_GUARD: Option<i32> = None;
}
