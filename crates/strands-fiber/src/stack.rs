//! Stacks: mapped in slabs, guarded below, given back when they are cold.
//!
//! A [`Stack`] owns its memory; whoever drops it promises nothing more than that nobody runs on
//! it, and leaking one is sound. Below each stack lies a guard that faults when touched, and
//! [`crate::overflow`] knows all of them. A [`StackPool`] recycles stacks.
//!
//! # Slabs
//!
//! Stacks are cut from slabs, one mapping of many equal slots:
//!
//! ```text
//!   slab base                    stride                 stride
//!   | guard | stack ............ | guard | stack ...... | guard | …
//!           ^ bottom        top ^                              higher addresses →
//! ```
//!
//! - The stride is an odd number of pages, so the tops of neighbours fall into different sets of
//!   the caches; an even stride costs two to four times as much a visit at 1,000 fibers. The page
//!   that makes it odd widens the guard. Within a page the tops are coloured too ([`Stack::top`]).
//! - A slot is used by one [`Stack`] at a time. The type that hands out slots for the first time
//!   (`FreshSlab`) counts upwards, and afterwards a slot travels inside a `Stack`, or inside a
//!   `ColdSlab` while its memory is given back.
//! - A slab is unmapped when its last owner goes: each of its stacks counts as one.
//! - Guards are installed when a slot is used for the first time, and stay until the slab goes.
//!
//! Turned down: a mapping for each stack (two of the 65,530 mappings that a process may have by
//! default, so fibers end at 32,700), and `MAP_GROWSDOWN` (32 µs a stack).
//!
//! # What a platform file defines
//!
//! | item | meaning |
//! |---|---|
//! | `fn page_bytes() -> usize` | the page size, a power of two |
//! | `fn map(bytes) -> io::Result<NonNull<u8>>` | reserve a slab, readable and writable, not backed by memory before it is touched; `OutOfMemory` if there is no room |
//! | `fn no_room(bytes) -> io::Error` | that `OutOfMemory`, with its likely cause and what to do about it |
//! | `unsafe fn unmap(base, bytes)` | undo `map` |
//! | `unsafe fn discard(start, bytes)` | give the memory of a range back and keep the range; guards in it survive |
//! | `unsafe fn protect(start, bytes, kind) -> io::Result<()>` | make a range fault when touched |
//! | `fn guard_works(kind) -> bool` | whether `protect` does what it says, found out by effect |

use std::env;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::{Arc, OnceLock};

use crate::overflow::registry;

#[cfg_attr(all(unix, not(miri)), path = "stack/unix.rs")]
#[cfg_attr(miri, path = "stack/heap.rs")]
mod platform;
mod pool;

pub(crate) use platform::page_bytes;
pub use pool::{PoolConfig, StackPool};

/// The smallest stack, in bytes. Smaller sizes are raised to it.
pub const MIN_STACK_BYTES: usize = 16 * 1024;

/// The environment variable that forces a [`GuardKind`]: `madvise` or `mprotect`.
const GUARD_VARIABLE: &str = "STRANDS_STACK_GUARD";

/// A stack of its own memory, with a guard below it.
///
/// Dropping it gives its memory back to the system, and its address range once the last of the
/// stacks mapped together with it has gone. Forgetting it leaks both.
pub struct Stack {
    slab: Arc<Slab>,
    bottom: NonNull<u8>,
}

// SAFETY: a Stack is the only owner of its slot's memory, like a Box<[u8]>.
unsafe impl Send for Stack {}

impl Stack {
    /// Maps a stack of at least `size_bytes`, on its own.
    ///
    /// The size is rounded up to whole pages and to [`MIN_STACK_BYTES`]. A [`StackPool`] is the
    /// better source of many stacks.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: the size does not fit the address space, or `STRANDS_STACK_GUARD` has an
    ///   unknown value.
    /// - `OutOfMemory`: a limit of the system was met; the message names the likely one.
    /// - `Unsupported`: the kernel lacks the guard that `STRANDS_STACK_GUARD` asks for.
    pub fn new(size_bytes: usize) -> io::Result<Stack> {
        let layout = Layout::of(size_bytes)?;
        let mut slab = FreshSlab::map_up_to(layout, 1, guard_kind()?)?;
        Ok(slab.take()?.expect("a new slab has a slot"))
    }

    /// Where the stack starts: the end of its memory, less its colour. Aligned to 16 bytes.
    ///
    /// The colour is up to 960 bytes and differs between neighbours, so that what all fibers keep
    /// near their tops does not compete for the same lines of the first-level cache.
    #[inline]
    pub fn top(&self) -> NonNull<u8> {
        let page = self.bottom.addr().get() >> self.slab.page_shift;
        let offset = self.size() - (page % 16) * 64;
        // SAFETY: the slot reaches `size` bytes up from `bottom`, and a stack has more than 1 KiB.
        unsafe { self.bottom.add(offset) }
    }

    /// The lowest usable byte; the guard lies below it.
    #[inline]
    pub fn bottom(&self) -> NonNull<u8> {
        self.bottom
    }

    /// The bytes between [`bottom`](Self::bottom) and the end of the stack's memory.
    #[inline]
    pub fn size(&self) -> usize {
        self.slab.layout.size
    }

    /// Whether `address` lies in the stack's usable memory.
    pub fn contains(&self, address: usize) -> bool {
        let bottom = self.bottom.addr().get();
        (bottom..bottom + self.size()).contains(&address)
    }

    /// Whether `address` lies in the guard below the stack.
    pub fn guard_contains(&self, address: usize) -> bool {
        let bottom = self.bottom.addr().get();
        (bottom - self.slab.layout.guard()..bottom).contains(&address)
    }

    /// Separates the slot from its share in the slab, without giving memory back.
    fn into_slot(self) -> (Arc<Slab>, NonNull<u8>) {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither dropped nor used again, so its share is moved out once.
        (unsafe { ptr::read(&this.slab) }, this.bottom)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // The last owner unmaps the slab next; no need to discard first.
        if Arc::strong_count(&self.slab) > 1 {
            // SAFETY: we own the slot's memory, and nobody will look at what it held.
            unsafe { platform::discard(self.bottom, self.size()) }
        }
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("bottom", &self.bottom).field("size", &self.size()).finish()
    }
}

/// How the guard below a stack is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardKind {
    /// `MADV_GUARD_INSTALL`, Linux 6.13 and later: takes no mapping of its own, so a million
    /// stacks fit the default `vm.max_map_count`.
    Madvise,
    /// `mprotect`, everywhere: splits the mapping, so that a stack costs two of the
    /// `vm.max_map_count` mappings that a process may have.
    Mprotect,
}

/// The kind of guard that stacks get unless [`PoolConfig::guard`] says otherwise.
///
/// The environment variable `STRANDS_STACK_GUARD` (`madvise` or `mprotect`) forces one. Without
/// it, it is [`Madvise`](GuardKind::Madvise) if a trial shows that it works, else
/// [`Mprotect`](GuardKind::Mprotect). A single stack whose memory the process has locked
/// (`mlockall`) gets its guard by `mprotect` even so, as the kernel refuses the other.
///
/// # Errors
///
/// `InvalidInput` for an unknown value of the variable, `Unsupported` if the kernel cannot do what
/// it asks for.
pub fn guard_kind() -> io::Result<GuardKind> {
    static VARIABLE: OnceLock<Option<String>> = OnceLock::new();
    let variable =
        VARIABLE.get_or_init(|| Some(env::var_os(GUARD_VARIABLE)?.to_string_lossy().into_owned()));
    let forced = match variable.as_deref() {
        None | Some("") => {
            let best = [GuardKind::Madvise, GuardKind::Mprotect];
            return best.into_iter().find(|&kind| platform::guard_works(kind)).ok_or_else(|| {
                io::Error::new(io::ErrorKind::Unsupported, "no kind of stack guard works here")
            });
        }
        Some("madvise") => GuardKind::Madvise,
        Some("mprotect") => GuardKind::Mprotect,
        Some(unknown) => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{GUARD_VARIABLE}={unknown}: expected `madvise` or `mprotect`"),
            ));
        }
    };
    check_guard(forced, GUARD_VARIABLE)
}

/// `kind`, if it works; an error that says who asked for it otherwise.
fn check_guard(kind: GuardKind, asked_by: &str) -> io::Result<GuardKind> {
    if platform::guard_works(kind) {
        return Ok(kind);
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        format!(
            "{asked_by} asks for stack guards by {kind:?}, which do not work here (Madvise needs \
             Linux 6.13 and memory that is not locked); leave the choice open, or take Mprotect"
        ),
    ))
}

/// The sizes of a slot, in bytes, all whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// Usable.
    size: usize,
    /// From one slot to the next: an odd number of pages.
    stride: usize,
}

impl Layout {
    fn of(size_bytes: usize) -> io::Result<Layout> {
        let page = platform::page_bytes();
        // Half of the address space leaves room for the guard, and for signed offsets.
        if size_bytes > isize::MAX as usize / 2 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a stack of {size_bytes} bytes does not fit the address space"),
            ));
        }
        let size = size_bytes.max(MIN_STACK_BYTES).next_multiple_of(page);
        let guard_pages = if (size / page).is_multiple_of(2) { 1 } else { 2 };
        Ok(Layout { size, stride: size + guard_pages * page })
    }

    fn guard(&self) -> usize {
        self.stride - self.size
    }
}

/// One mapping of `slots` slots, owned jointly by the stacks cut from it.
struct Slab {
    layout: Layout,
    slots: usize,
    guard: GuardKind,
    page_shift: u32,
    /// How a fault in one of the guards is recognised. Dropped before the mapping: as soon as that
    /// has gone, another slab may be mapped in its place.
    _registered: registry::Ticket,
    mapping: Mapping,
}

/// A range of memory that is unmapped on drop.
struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a Mapping hands out its address only; the memory belongs to the stacks in it.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing in it changes after it was made.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `map` made this range with this size. It goes with the slab, that is when no
        // stack is left in it.
        unsafe { platform::unmap(self.base, self.bytes) }
    }
}

/// The slots of a slab that have never been used. Each is handed out once.
struct FreshSlab {
    slab: Arc<Slab>,
    next: usize,
}

impl FreshSlab {
    /// Maps a slab of `slots` slots, or of fewer where there is no room for as many.
    fn map_up_to(layout: Layout, mut slots: usize, guard: GuardKind) -> io::Result<FreshSlab> {
        loop {
            match FreshSlab::map(layout, slots, guard) {
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                    if slots == 1 {
                        return Err(platform::no_room(layout.stride));
                    }
                    slots /= 2;
                }
                result => return result,
            }
        }
    }

    fn map(layout: Layout, slots: usize, guard: GuardKind) -> io::Result<FreshSlab> {
        let bytes = layout.stride * slots;
        let mapping = Mapping { base: platform::map(bytes)?, bytes };
        let registered = registry::Ticket::new(registry::Range {
            base: mapping.base.addr().get(),
            slots,
            stride: layout.stride,
            guard: layout.guard(),
        })?;
        let page_shift = platform::page_bytes().trailing_zeros();
        let slab = Slab { layout, slots, guard, page_shift, _registered: registered, mapping };
        Ok(FreshSlab { slab: Arc::new(slab), next: 0 })
    }

    /// A stack in the next unused slot, if there is one. After an error the slot is still unused.
    fn take(&mut self) -> io::Result<Option<Stack>> {
        let slab = &self.slab;
        if self.next == slab.slots {
            return Ok(None);
        }
        let guard_bytes = slab.layout.guard();
        // SAFETY: `next` is below `slots`, so the slot lies in the mapping.
        let guard = unsafe { slab.mapping.base.add(self.next * slab.layout.stride) };
        // SAFETY: as above; nobody has used this slot.
        unsafe { platform::protect(guard, guard_bytes, slab.guard)? };
        self.next += 1;
        // SAFETY: the stack follows the guard within the slot.
        let bottom = unsafe { guard.add(guard_bytes) };
        Ok(Some(Stack { slab: slab.clone(), bottom }))
    }
}

/// The slots of one slab whose memory has been given back. Their guards are in place.
///
/// It counts as one owner of the slab however many slots it holds, so that the slab's owners tell
/// whether anybody else has a stack in it.
struct ColdSlab {
    slab: Arc<Slab>,
    bottoms: Vec<NonNull<u8>>,
}

// SAFETY: it owns its slots' memory as a Stack does.
unsafe impl Send for ColdSlab {}

impl ColdSlab {
    fn new(slab: Arc<Slab>) -> ColdSlab {
        ColdSlab { slab, bottoms: Vec::new() }
    }

    /// Takes over the slot of a stack whose memory has been discarded.
    fn put(&mut self, stack: Stack) {
        let (slab, bottom) = stack.into_slot();
        debug_assert!(Arc::ptr_eq(&slab, &self.slab));
        self.bottoms.push(bottom);
    }

    fn take(&mut self) -> Option<Stack> {
        let bottom = self.bottoms.pop()?;
        Some(Stack { slab: self.slab.clone(), bottom })
    }
}

/// Discards the memory of `stacks`, with one call for each run of neighbours.
fn discard_all(stacks: &mut [Stack]) {
    stacks.sort_unstable_by_key(Stack::bottom);
    let neighbours = |a: &Stack, b: &Stack| {
        Arc::ptr_eq(&a.slab, &b.slab)
            && b.bottom.addr().get() - a.bottom.addr().get() == a.slab.layout.stride
    };
    for run in stacks.chunk_by(neighbours) {
        let [first, .., last] = run else {
            // SAFETY: we own the only stack of the run.
            unsafe { platform::discard(run[0].bottom, run[0].size()) };
            continue;
        };
        let bytes = last.bottom.addr().get() + last.size() - first.bottom.addr().get();
        // SAFETY: between the first bottom and the last end lie only stacks of the run, which we
        // own, and their guards, which survive.
        unsafe { platform::discard(first.bottom, bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stride_is_an_odd_number_of_pages_with_room_for_a_guard() {
        let page = platform::page_bytes();
        for size in [0, 1, 16 << 10, (16 << 10) + 1, 20 << 10, 64 << 10, 256 << 10, 8 << 20] {
            let layout = Layout::of(size).unwrap();
            assert!(layout.size >= size.max(MIN_STACK_BYTES));
            assert!(layout.size < size.max(MIN_STACK_BYTES) + page);
            assert_eq!(layout.size % page, 0);
            assert_eq!(layout.stride % page, 0);
            assert_eq!(layout.stride / page % 2, 1, "stride of {size}");
            assert!([page, 2 * page].contains(&layout.guard()));
        }
    }

    #[test]
    fn a_slab_hands_out_each_slot_once() {
        let layout = Layout::of(MIN_STACK_BYTES).unwrap();
        let mut fresh = FreshSlab::map(layout, 4, guard_kind().unwrap()).unwrap();
        let stacks: Vec<_> = std::iter::from_fn(|| fresh.take().unwrap()).collect();
        assert_eq!(stacks.len(), 4);
        for pair in stacks.windows(2) {
            assert_eq!(pair[1].bottom.addr().get() - pair[0].bottom.addr().get(), layout.stride);
            assert_ne!(
                pair[0].top().addr().get() % 1024,
                pair[1].top().addr().get() % 1024,
                "neighbours have different colours"
            );
        }
    }
}
