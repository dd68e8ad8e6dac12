//! Stacks from the allocator, without guards: for Miri, which runs no code on them.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;

use super::GuardKind;

pub const GUARD_PAGES: usize = 1;
pub const TOP_BYTES: usize = 0;

pub fn page_bytes() -> usize {
    4096
}

pub fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a slab is not empty.
    NonNull::new(unsafe { alloc_zeroed(layout(bytes)) })
        .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

pub fn no_room(bytes: usize) -> io::Error {
    io::Error::new(io::ErrorKind::OutOfMemory, format!("cannot allocate {bytes} bytes"))
}

/// # Safety
///
/// `map(bytes)` returned `base`, and nobody uses the range.
pub unsafe fn unmap(base: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { dealloc(base.as_ptr(), layout(bytes)) }
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
/// The caller owns the range.
pub unsafe fn discard(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { start.write_bytes(0, bytes) }
}

/// # Safety
///
/// None needed.
pub unsafe fn protect(_start: NonNull<u8>, _bytes: usize, _kind: GuardKind) -> io::Result<()> {
    Ok(())
}

pub fn guard_works(kind: GuardKind) -> bool {
    kind == GuardKind::Mprotect
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, page_bytes()).expect("a slab is smaller than isize::MAX")
}
