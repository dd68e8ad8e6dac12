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
//! default, so fibers end at 32,700), `MAP_GROWSDOWN` (32 µs a stack), and the guards of many slots by one
//! `process_madvise`: a guard costs 0.3 µs of the 2.3 µs that a stack's first page costs, page tables
//! included, and at most half of that is the call.
//!
//! # What a platform file defines
//!
//! | item | meaning |
//! |---|---|
//! | `fn page_bytes() -> usize` | the page size, a power of two |
//! | `const GUARD_PAGES` | the fewest pages that a guard has |
//! | `fn map(bytes) -> io::Result<NonNull<u8>>` | reserve a slab, readable and writable (on some systems after `commit` only), not backed by memory before it is touched; `OutOfMemory` if there is no room |
//! | `fn no_room(bytes) -> io::Error` | that `OutOfMemory`, with its likely cause and what to do about it |
//! | `unsafe fn unmap(base, bytes)` | undo `map` |
//! | `const TOP_BYTES` | what the platform keeps for itself at the end of a stack, a multiple of 16 |
//! | `unsafe fn commit(bottom, size) -> io::Result<()>` | before the first use of a stack and after `discard`: make it fit to run on |
//! | `unsafe fn commit_top(bottom, size, bytes) -> io::Result<()>` | make the highest `bytes` of such a stack writable from elsewhere than from itself |
//! | `unsafe fn discard(start, bytes)` | give the memory of a range back and keep the range; guards in it survive |
//! | `unsafe fn protect(start, bytes, kind) -> io::Result<()>` | make a range fault when touched |
//! | `fn guard_works(kind) -> bool` | whether `protect` does what it says, found out by effect |

use std::env;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::overflow::registry;

#[cfg_attr(all(unix, not(miri)), path = "stack/unix.rs")]
#[cfg_attr(all(windows, not(miri)), path = "stack/windows.rs")]
#[cfg_attr(miri, path = "stack/heap.rs")]
mod platform;
mod pool;

#[cfg(windows)]
pub(crate) use platform::COMMITTED_FROM_BELOW_END;
#[cfg(unix)]
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
///
/// On Windows its memory is committed from the top down, as the party that runs on it needs it;
/// from elsewhere only what lies near the top can be touched.
///
/// ```
/// use strands_fiber::Coroutine;
/// use strands_fiber::stack::Stack;
///
/// let stack = Stack::new(64 * 1024)?;
/// let mut coroutine = Coroutine::with_stack(stack, |_, ()| "ran on 64 KiB");
/// assert_eq!(
///     coroutine.resume(()),
///     strands_fiber::CoroutineResult::<(), _>::Return("ran on 64 KiB"),
/// );
/// # std::io::Result::Ok(())
/// ```
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
    ///
    /// ```
    /// use strands_fiber::stack::{MIN_STACK_BYTES, Stack};
    ///
    /// assert!(Stack::new(0)?.size() >= MIN_STACK_BYTES);
    /// assert!(Stack::new(100_000)?.size() >= 100_000);
    /// let error = Stack::new(usize::MAX).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new(size_bytes: usize) -> io::Result<Stack> {
        let layout = Layout::of(size_bytes)?;
        let mut slab = FreshSlab::map_up_to(layout, 1, guard_kind()?)?;
        Ok(slab.take()?.expect("a new slab has a slot"))
    }

    /// Where the stack starts: the end of its memory, less its colour. Aligned to 16 bytes.
    ///
    /// The colour is up to 960 bytes and differs between neighbours, so that what all fibers keep
    /// near their tops does not compete for the same lines of the first-level cache.
    ///
    /// ```
    /// let stack = strands_fiber::stack::Stack::new(64 * 1024)?;
    /// let top = stack.top().addr().get();
    /// assert!(top.is_multiple_of(16));
    /// assert!(stack.contains(top - 1));
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn top(&self) -> NonNull<u8> {
        let page = self.bottom.addr().get() >> self.slab.page_shift;
        let offset = self.size() - platform::TOP_BYTES - (page % 16) * 64;
        // SAFETY: the slot reaches `size` bytes up from `bottom`, and a stack has more than 1 KiB.
        unsafe { self.bottom.add(offset) }
    }

    /// The lowest usable byte; the guard lies below it.
    ///
    /// ```
    /// let stack = strands_fiber::stack::Stack::new(64 * 1024)?;
    /// let bottom = stack.bottom().addr().get();
    /// assert!(stack.contains(bottom) && !stack.contains(bottom - 1));
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn bottom(&self) -> NonNull<u8> {
        self.bottom
    }

    /// The bytes between [`bottom`](Self::bottom) and the end of the stack's memory.
    ///
    /// ```
    /// let stack = strands_fiber::stack::Stack::new(64 * 1024)?;
    /// assert!(stack.size() >= 64 * 1024);
    /// assert!(stack.top().addr() > stack.bottom().addr());
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn size(&self) -> usize {
        self.slab.layout.size
    }

    /// Whether `address` lies in the stack's usable memory.
    ///
    /// ```
    /// let stack = strands_fiber::stack::Stack::new(64 * 1024)?;
    /// let local = 0;
    /// assert!(!stack.contains((&raw const local).addr()), "we run on another stack");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn contains(&self, address: usize) -> bool {
        let bottom = self.bottom.addr().get();
        (bottom..bottom + self.size()).contains(&address)
    }

    /// Whether `address` lies in the guard below the stack.
    ///
    /// ```
    /// let stack = strands_fiber::stack::Stack::new(64 * 1024)?;
    /// let bottom = stack.bottom().addr().get();
    /// assert!(stack.guard_contains(bottom - 1) && !stack.guard_contains(bottom));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn guard_contains(&self, address: usize) -> bool {
        let bottom = self.bottom.addr().get();
        (bottom - self.slab.layout.guard()..bottom).contains(&address)
    }

    /// Makes the memory from `from` to the end writable from elsewhere than from the stack itself,
    /// which is all that some systems allow.
    pub(crate) fn commit_from(&self, from: NonNull<u8>) -> io::Result<()> {
        let bytes = self.bottom.addr().get() + self.size() - from.addr().get();
        // SAFETY: the stack is ours.
        unsafe { platform::commit_top(self.bottom, self.size(), bytes) }
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

/// Whether a stack of so many bytes can ever be had, as far as that can be told beforehand.
///
/// # Errors
///
/// As for [`Stack::new`]. A large one is mapped, on trial: it may be larger than the process's
/// address space.
///
/// ```
/// use strands_fiber::stack::check_size;
///
/// check_size(256 * 1024)?;
/// assert_eq!(check_size(usize::MAX).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
/// # std::io::Result::Ok(())
/// ```
pub fn check_size(size_bytes: usize) -> io::Result<()> {
    const LARGE: usize = 64 << 20;
    let layout = Layout::of(size_bytes)?;
    if layout.size < LARGE {
        return Ok(());
    }
    let mapping = platform::map(layout.stride).map_err(|error| explain(layout, error))?;
    drop(Mapping { base: mapping, bytes: layout.stride });
    Ok(())
}

/// How many stacks are mapped in this process, in use or not: to find out whether any is left.
#[doc(hidden)]
pub fn mapped_stacks() -> usize {
    registry::slots()
}

/// How the guard below a stack is made.
///
/// ```
/// use strands_fiber::stack::{GuardKind, PoolConfig, StackPool};
///
/// // Everywhere there is this kind; the other needs a recent Linux.
/// let config = PoolConfig { guard: Some(GuardKind::Mprotect), ..PoolConfig::default() };
/// let stack = StackPool::new(config)?.take(64 * 1024)?;
/// assert!(stack.guard_contains(stack.bottom().addr().get() - 1));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardKind {
    /// `MADV_GUARD_INSTALL`, Linux 6.13 and later: takes no mapping of its own, so a million
    /// stacks fit the default `vm.max_map_count`.
    Madvise,
    /// `mprotect`, everywhere: splits the mapping, so that a stack costs two of the
    /// `vm.max_map_count` mappings that a process may have. On Windows, the guard pages that its
    /// own threads have, which cost nothing of the kind.
    Mprotect,
}

/// The kind of guard that stacks get unless [`PoolConfig::guard`] says otherwise.
///
/// The environment variable `STRANDS_STACK_GUARD` (`madvise` or `mprotect`) forces one. Without
/// it, it is [`Madvise`](GuardKind::Madvise) if a trial shows that it works, else
/// [`Mprotect`](GuardKind::Mprotect). A single stack for which the kernel refuses it later (its
/// memory is locked by `mlockall`, say) gets its guard by `mprotect` even so.
///
/// # Errors
///
/// `InvalidInput` for an unknown value of the variable, `Unsupported` if the kernel cannot do what
/// it asks for.
///
/// ```
/// use strands_fiber::stack::{GuardKind, guard_kind};
///
/// match guard_kind()? {
///     GuardKind::Madvise => println!("a million stacks fit the default limits"),
///     GuardKind::Mprotect => println!("vm.max_map_count bounds the number of stacks"),
/// }
/// # std::io::Result::Ok(())
/// ```
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

/// What to tell people about guards of this kind: also what is used in its place, and why.
///
/// ```
/// use strands_fiber::stack::{describe_guard, guard_kind};
///
/// let kind = guard_kind()?;
/// let text = describe_guard(kind);
/// println!("stack guards: {text}");
/// assert!(text.starts_with(&format!("{kind:?}")));
/// # std::io::Result::Ok(())
/// ```
pub fn describe_guard(kind: GuardKind) -> String {
    match (kind, REFUSED.load(Ordering::Relaxed)) {
        (GuardKind::Madvise, 0) => "Madvise".into(),
        (GuardKind::Madvise, refused) => format!(
            "Madvise, but Mprotect for the {refused} stacks of this process for which the kernel \
             refused it (locked memory, or a filter of system calls)"
        ),
        (GuardKind::Mprotect, _) if platform::guard_works(GuardKind::Madvise) => "Mprotect".into(),
        (GuardKind::Mprotect, _) => "Mprotect (Madvise, which takes no mappings, does not work \
             here: it needs Linux 6.13, memory that is not locked, and no filter against it)"
            .into(),
    }
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
        let least = size / page + platform::GUARD_PAGES;
        let guard_pages = platform::GUARD_PAGES + usize::from(least.is_multiple_of(2));
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
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory && slots > 1 => slots /= 2,
                result => return result.map_err(|error| explain(layout, error)),
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
        unsafe { protect(guard, guard_bytes, slab.guard)? };
        // SAFETY: the stack follows the guard within the slot.
        let bottom = unsafe { guard.add(guard_bytes) };
        // SAFETY: as for the guard.
        unsafe { platform::commit(bottom, slab.layout.size)? };
        self.next += 1;
        Ok(Some(Stack { slab: slab.clone(), bottom }))
    }
}

/// What to tell people about a stack that could not be mapped.
fn explain(layout: Layout, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::OutOfMemory => platform::no_room(layout.stride),
        kind => io::Error::new(
            kind,
            format!(
                "cannot map a stack of {} KiB: {error}. Likely cause: a filter of system calls \
                 forbids mmap; allow it anonymous memory",
                layout.size / 1024
            ),
        ),
    }
}

/// Guards that were to be made by madvise, and that the kernel refused.
static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// Makes a guard, by mprotect where the kernel refuses the other kind.
///
/// # Safety
///
/// The caller owns the range, and nobody uses it.
unsafe fn protect(start: NonNull<u8>, bytes: usize, kind: GuardKind) -> io::Result<()> {
    if kind == GuardKind::Madvise {
        // SAFETY: the caller's promise.
        if unsafe { platform::protect(start, bytes, kind) }.is_ok() {
            return Ok(());
        }
        REFUSED.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: the caller's promise.
    unsafe { platform::protect(start, bytes, GuardKind::Mprotect) }
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
            assert!([0, page].contains(&(layout.guard() - platform::GUARD_PAGES * page)));
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
