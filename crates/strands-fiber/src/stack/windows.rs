//! Stacks that grow as Windows grows those of its threads.
//!
//! Windows does not overcommit: memory that is committed counts against the system's limit though
//! nobody has touched it. So a slab is only reserved, and of a stack only its upper end is
//! committed at first, with a guard below it. When the party that runs on the stack touches the
//! guard, the kernel commits the next page and moves the guard down: it takes the bounds of the
//! stack from the thread's environment block, where a switch puts them. Compilers probe frames
//! page by page, so no frame jumps over the guard.
//!
//! ```text
//!   slot                                      bottom                                      end
//!   | never     | for the handler | to spare | not yet committed | the guard  | committed |
//!   | committed | of an overflow  |          |                   | that moves |           |
//!   '-------- what we call its guard --------'
//! ```
//!
//! A guard that comes to stand too near to the start of the slot is an overflow: the kernel raises
//! an exception and leaves [`GUARANTEED_BYTES`] to its handler. It does the same where there is no
//! memory for the next page. Windows' own fibers are made so.
//!
//! Turned down: committing whole stacks, simpler (256 KiB a fiber against 32: 100,000 do not fit
//! the limit of most machines), and guards without access rights (the kernel has no room left to
//! tell anybody of the fault, and the process ends without a word).

use std::io;
use std::ptr::{self, NonNull};

use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_DECOMMIT, MEM_RELEASE, MEM_RESERVE, PAGE_GUARD, PAGE_READWRITE, VirtualAlloc,
    VirtualFree,
};

use super::{GuardKind, Stack};

/// On all instruction sets that Windows runs on.
const PAGE_BYTES: usize = 4096;

/// What an overflow leaves to its handler: as much as std asks for on its threads.
const GUARANTEED_BYTES: usize = 0x5000;

/// What is committed at first: many fibers need no more.
const FIRST_BYTES: usize = 8 << 10;

/// The page that is never committed, those for the handler of an overflow, and two that differing
/// versions of the kernel need to tell that it is one.
pub const GUARD_PAGES: usize = 1 + GUARANTEED_BYTES / PAGE_BYTES + 2;

/// For the word that says how far a stack is committed.
pub const TOP_BYTES: usize = 16;

/// Where that word is, in bytes below the end.
#[cfg_attr(strands_backend = "thread", allow(dead_code, reason = "runs on no stack of ours"))]
pub(crate) const COMMITTED_FROM_BELOW_END: usize = 8;

pub fn page_bytes() -> usize {
    PAGE_BYTES
}

pub fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new range at an address of the kernel's choice disturbs nothing.
    let base = unsafe { VirtualAlloc(ptr::null(), bytes, MEM_RESERVE, PAGE_READWRITE) };
    // It may also say that the size is no valid one, of a size that is only too large.
    NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// # Safety
///
/// `map(bytes)` returned `base`, and nobody uses the range.
pub unsafe fn unmap(base: NonNull<u8>, _bytes: usize) {
    // SAFETY: the caller's promise. It has no reason to fail, and if it did the range would leak.
    let _ = unsafe { VirtualFree(base.as_ptr().cast(), 0, MEM_RELEASE) };
}

/// # Safety
///
/// The caller owns the range, and nobody relies on its contents.
pub unsafe fn discard(start: NonNull<u8>, bytes: usize) {
    // Pages that are not committed do not matter to it.
    // SAFETY: the caller's promise.
    let _ = unsafe { VirtualFree(start.as_ptr().cast(), bytes, MEM_DECOMMIT) };
}

/// Nothing to do: what is not committed faults.
///
/// # Safety
///
/// The caller owns the range, and nobody uses it.
pub unsafe fn protect(_start: NonNull<u8>, _bytes: usize, _kind: GuardKind) -> io::Result<()> {
    Ok(())
}

pub fn guard_works(kind: GuardKind) -> bool {
    kind == GuardKind::Mprotect
}

/// # Safety
///
/// The caller owns the stack of `size` bytes at `bottom`, and the guard below it.
pub unsafe fn commit(bottom: NonNull<u8>, size: usize) -> io::Result<()> {
    // SAFETY: the caller's promise; stacks are larger.
    unsafe { commit_end(bottom.add(size), FIRST_BYTES) }
}

/// # Safety
///
/// As for [`commit`], which has been called, and `bytes` is `size` at most.
pub unsafe fn commit_top(bottom: NonNull<u8>, size: usize, bytes: usize) -> io::Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let end = bottom.add(size);
        if committed_from(end).read() <= end.addr().get() - bytes {
            return Ok(());
        }
        commit_end(end, bytes)
    }
}

/// # Safety
///
/// The caller owns the stack that ends at `end`, with its guard, and it has `bytes`.
unsafe fn commit_end(end: NonNull<u8>, bytes: usize) -> io::Result<()> {
    let bytes = bytes.next_multiple_of(PAGE_BYTES);
    let guard_bytes = GUARANTEED_BYTES + PAGE_BYTES;
    let start = end.as_ptr().wrapping_sub(bytes);
    let guard = start.wrapping_sub(guard_bytes);
    for (start, bytes, access) in
        [(guard, guard_bytes, PAGE_READWRITE | PAGE_GUARD), (start, bytes, PAGE_READWRITE)]
    {
        // SAFETY: the range is the caller's: what we call the guard of a stack has room for the
        // one that moves. Committing changes no contents.
        if unsafe { VirtualAlloc(start.cast(), bytes, MEM_COMMIT, access) }.is_null() {
            return Err(no_memory(bytes));
        }
    }
    // SAFETY: committed just now.
    unsafe { committed_from(end).write(start.addr()) };
    Ok(())
}

/// Where a stack that ends at `end` keeps the address from which on it is committed. Stacks grow
/// by themselves: who leaves one for good (`arch`) notes how far it has come.
///
/// Turned down: asking the kernel when a stack is used again (three calls).
fn committed_from(end: NonNull<u8>) -> NonNull<usize> {
    const { assert!(COMMITTED_FROM_BELOW_END == size_of::<usize>()) }
    // SAFETY: a stack is larger than a word.
    unsafe { end.cast::<usize>().sub(1) }
}

/// What Windows wants to know about the stack that a thread runs on.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Where the stack's address range starts: below its guard.
    pub start: usize,
    /// The lowest byte that is committed, above the guard that moves.
    pub committed_from: usize,
    pub end: usize,
    /// How much an overflow leaves to its handler.
    pub guaranteed_bytes: u32,
}

impl Stack {
    /// Of a stack that nobody is running on.
    #[cfg_attr(strands_backend = "thread", allow(dead_code, reason = "runs on no stack of ours"))]
    pub(crate) fn limits(&self) -> Limits {
        // SAFETY: the stack reaches `size` bytes up from `bottom`.
        let end = unsafe { self.bottom.add(self.size()) };
        Limits {
            start: self.bottom.addr().get() - self.slab.layout.guard(),
            // SAFETY: a Stack has been committed, and the word with it.
            committed_from: unsafe { committed_from(end).read() },
            end: end.addr().get(),
            guaranteed_bytes: GUARANTEED_BYTES as u32,
        }
    }
}

fn no_memory(bytes: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!(
            "cannot commit {} KiB for a stack: memory and page file are used up; let the page file \
             grow, or run fewer fibers",
            bytes / 1024
        ),
    )
}

/// `OutOfMemory`, with the limit that was probably met and what to do about it.
pub fn no_room(bytes: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!(
            "cannot reserve a stack of {} KiB. Likely cause: the process's address space is used \
             up, or a job object limits its memory; use smaller or fewer stacks",
            bytes / 1024
        ),
    )
}
