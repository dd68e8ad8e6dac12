//! A worker's stacks: taken and given back in a few nanoseconds, trimmed when cold.
//!
//! A stack that is given back stays *warm*, its memory as the last fiber left it, and is the next
//! one taken. What is not wanted for a while becomes *cold*: its memory goes back to the system,
//! its address range and guard stay. A slab that is cold as a whole is unmapped, and its page
//! tables (513 bytes for each stack of 256 KiB) go with it.
//!
//! - Warm stacks are bounded for each size: beyond the bound the oldest become cold at once.
//! - Warm stacks that nobody took between two calls of [`StackPool::trim`] become cold in the
//!   second. So the pool of an idle owner is empty after two calls, and
//!   [`StackPool::needs_trim`] then says that a third would do nothing.
//! - A trim can be done in slices, so that it does not hold up the owner for long: what it will
//!   discard is fixed when it begins, less what is taken meanwhile.
//! - Cold stacks are taken from the slab at the lowest address, so that the others empty.
//!
//! A pool has one owner, hence no locks and no atomics but the slabs' reference counts, which a
//! warm stack does not touch.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;

use super::{
    ColdSlab, FreshSlab, GuardKind, Layout, Stack, check_guard, discard_all, guard_kind, platform,
};

/// The first slab of a size has at most so many stacks …
const FIRST_SLAB_SLOTS: usize = 16;
/// … and bytes; later ones double up to …
const FIRST_SLAB_BYTES: usize = 5 << 20;
/// … so many stacks …
const MAX_SLAB_SLOTS: usize = 1024;
/// … and bytes.
const MAX_SLAB_BYTES: usize = if usize::BITS >= 64 { 512 << 20 } else { 16 << 20 };

/// How a [`StackPool`] is set up.
///
/// ```
/// use strands_fiber::stack::{PoolConfig, StackPool};
///
/// let config = PoolConfig { stack_bytes: 64 * 1024, warm_max: 1, ..PoolConfig::default() };
/// let mut pool = StackPool::new(config)?;
/// let two = [pool.take(64 * 1024)?, pool.take(64 * 1024)?];
/// two.into_iter().for_each(|stack| pool.give(stack));
/// assert_eq!((pool.warm(), pool.cold()), (1, 1), "at most one stays warm");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// The size that is taken most, in bytes: taking it is fast. 256 KiB by default.
    pub stack_bytes: usize,
    /// How many stacks of each size stay warm at most. 16,384 by default.
    pub warm_max: usize,
    /// The kind of guard; None, the default, leaves the choice to [`guard_kind`].
    pub guard: Option<GuardKind>,
}

impl Default for PoolConfig {
    fn default() -> PoolConfig {
        PoolConfig { stack_bytes: crate::DEFAULT_STACK_BYTES, warm_max: 16_384, guard: None }
    }
}

/// Stacks of any sizes, recycled. See the crate's `stack/pool.rs` for how.
///
/// Dropping it drops the stacks it holds; those that were taken live on.
///
/// ```
/// use strands_fiber::stack::{PoolConfig, StackPool};
///
/// let mut pool = StackPool::new(PoolConfig::default())?;
/// let stack = pool.take(256 * 1024)?;
/// let bottom = stack.bottom();
/// pool.give(stack);
/// assert_eq!(pool.take(256 * 1024)?.bottom(), bottom, "it is used again");
/// # std::io::Result::Ok(())
/// ```
pub struct StackPool {
    /// The size that `take` tries first, in bytes, as configured (not rounded).
    default_bytes: usize,
    default: Class,
    others: BTreeMap<usize, Class>,
    warm_max: usize,
    guard: GuardKind,
    /// Cold stacks have come in since the last trim, so a slab may have become cold as a whole.
    cold_grew: bool,
    /// A trim has begun and is not done.
    trimming: bool,
}

impl StackPool {
    /// An empty pool.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the default size does not fit the address space; the errors of
    /// [`guard_kind`]; `Unsupported` if the kind asked for does not work.
    ///
    /// ```
    /// use strands_fiber::stack::{PoolConfig, StackPool};
    ///
    /// let pool = StackPool::new(PoolConfig { stack_bytes: 64 * 1024, ..PoolConfig::default() })?;
    /// assert_eq!((pool.warm(), pool.cold()), (0, 0));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new(config: PoolConfig) -> io::Result<StackPool> {
        let guard = match config.guard {
            Some(kind) => check_guard(kind, "PoolConfig::guard")?,
            None => guard_kind()?,
        };
        Ok(StackPool {
            default_bytes: config.stack_bytes,
            default: Class::new(Layout::of(config.stack_bytes)?),
            others: BTreeMap::new(),
            warm_max: config.warm_max,
            guard,
            cold_grew: false,
            trimming: false,
        })
    }

    /// A stack of at least `size_bytes`, rounded as by [`Stack::new`]: a warm one, else a cold
    /// one, else a new one.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: the size does not fit the address space.
    /// - `OutOfMemory`: not even one stack could be mapped, or its guard not be made, although the
    ///   pool has given back what it held unused; the message names the likely cause.
    ///
    /// ```
    /// use strands_fiber::stack::{PoolConfig, StackPool};
    ///
    /// let mut pool = StackPool::new(PoolConfig::default())?;
    /// assert!(pool.take(256 * 1024)?.size() >= 256 * 1024);
    /// assert!(pool.take(1024 * 1024)?.size() >= 1024 * 1024, "of any size");
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn take(&mut self, size_bytes: usize) -> io::Result<Stack> {
        if size_bytes == self.default_bytes
            && let Some(stack) = self.default.take_warm()
        {
            return Ok(stack);
        }
        self.take_other(size_bytes)
    }

    /// Gives a stack back. It may come from another pool, and have any size.
    ///
    /// ```
    /// use strands_fiber::stack::{PoolConfig, StackPool};
    ///
    /// let mut pool = StackPool::new(PoolConfig::default())?;
    /// let stack = pool.take(256 * 1024)?;
    /// pool.give(stack);
    /// assert_eq!(pool.warm(), 1);
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn give(&mut self, stack: Stack) {
        if stack.size() == self.default.layout.size && self.default.warm.len() < self.warm_max {
            self.default.warm.push(stack);
        } else {
            self.give_other(stack);
        }
    }

    /// Makes those stacks cold that were warm since the last call, and unmaps cold slabs.
    ///
    /// Takes about 0.4 µs for each stack that becomes cold, 0.1 µs for each that is unmapped:
    /// [`trim_some`](Self::trim_some) does it in slices. To be called now and then, as long as
    /// [`needs_trim`](Self::needs_trim).
    ///
    /// ```
    /// use strands_fiber::stack::{PoolConfig, StackPool};
    ///
    /// let mut pool = StackPool::new(PoolConfig::default())?;
    /// let stack = pool.take(256 * 1024)?;
    /// pool.give(stack);
    /// pool.trim();
    /// assert_eq!(pool.warm(), 1, "it was in use since the trim before, of which there was none");
    /// pool.trim();
    /// assert_eq!((pool.warm(), pool.cold()), (0, 0), "nor is its slab left");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn trim(&mut self) {
        let done = self.trim_some(usize::MAX);
        debug_assert!(done, "the work was not bounded");
    }

    /// As [`trim`](Self::trim), but stops after about as much work as making `max_stacks` stacks
    /// cold. Returns whether all is done; until then the next call goes on where this one stopped.
    ///
    /// ```
    /// use strands_fiber::stack::{PoolConfig, StackPool};
    ///
    /// let mut pool = StackPool::new(PoolConfig::default())?;
    /// let stacks = (0..100).map(|_| pool.take(64 * 1024)).collect::<Result<Vec<_>, _>>()?;
    /// stacks.into_iter().for_each(|stack| pool.give(stack));
    /// while pool.needs_trim() {
    ///     pool.trim_some(30);
    ///     // Others may run here.
    /// }
    /// assert_eq!(pool.warm(), 0);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn trim_some(&mut self, max_stacks: usize) -> bool {
        if !self.trimming {
            self.trimming = true;
            self.default.begin_trim();
            self.others.values_mut().for_each(Class::begin_trim);
        }
        let mut budget = max_stacks.max(1);
        let mut done = self.default.trim(&mut budget);
        self.others.retain(|_, class| {
            done &= class.trim(&mut budget);
            !class.is_empty()
        });
        if done {
            self.trimming = false;
            self.cold_grew = false;
        }
        done
    }

    /// Whether a call of [`trim`](Self::trim), or a second one, may give anything back.
    ///
    /// ```
    /// use strands_fiber::stack::{PoolConfig, StackPool};
    ///
    /// let mut pool = StackPool::new(PoolConfig::default())?;
    /// assert!(!pool.needs_trim(), "there is nothing in it");
    /// let stack = pool.take(256 * 1024)?;
    /// pool.give(stack);
    /// assert!(pool.needs_trim());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn needs_trim(&self) -> bool {
        self.trimming || self.cold_grew || self.classes().any(|class| !class.warm.is_empty())
    }

    /// How many stacks are warm.
    ///
    /// ```
    /// use strands_fiber::stack::{PoolConfig, StackPool};
    ///
    /// let mut pool = StackPool::new(PoolConfig::default())?;
    /// let stack = pool.take(256 * 1024)?;
    /// assert_eq!(pool.warm(), 0, "it is in use");
    /// pool.give(stack);
    /// assert_eq!(pool.warm(), 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn warm(&self) -> usize {
        self.classes().map(|class| class.warm.len()).sum()
    }

    /// How many stacks are cold.
    ///
    /// ```
    /// use strands_fiber::stack::{PoolConfig, StackPool};
    ///
    /// let mut pool = StackPool::new(PoolConfig { warm_max: 0, ..PoolConfig::default() })?;
    /// let stack = pool.take(256 * 1024)?;
    /// pool.give(stack);
    /// assert_eq!((pool.warm(), pool.cold()), (0, 1), "it may not stay warm");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn cold(&self) -> usize {
        self.classes().map(|class| class.cold_count).sum()
    }

    #[cold]
    fn take_other(&mut self, size_bytes: usize) -> io::Result<Stack> {
        let layout = Layout::of(size_bytes)?;
        let guard = self.guard;
        let class = self.class(layout);
        if let Some(stack) = class.take_warm() {
            return Ok(stack);
        }
        match class.take_cold()? {
            Some(stack) => Ok(stack),
            None => match class.take_fresh(guard) {
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory && self.needs_trim() => {
                    // What lies unused in other sizes may make room.
                    self.trim();
                    self.trim();
                    self.class(layout).take_fresh(guard)
                }
                taken => taken,
            },
        }
    }

    #[cold]
    fn give_other(&mut self, stack: Stack) {
        let warm_max = self.warm_max;
        let class = self.class(stack.slab.layout);
        if warm_max == 0 {
            class.discard(&mut vec![stack]);
            self.cold_grew = true;
            return;
        }
        let full = class.warm.len() >= warm_max;
        if full {
            class.discard_oldest((warm_max / 32).max(1));
        }
        class.warm.push(stack);
        self.cold_grew |= full;
    }

    fn class(&mut self, layout: Layout) -> &mut Class {
        if layout == self.default.layout {
            return &mut self.default;
        }
        self.others.entry(layout.size).or_insert_with(|| Class::new(layout))
    }

    fn classes(&self) -> impl Iterator<Item = &Class> {
        std::iter::once(&self.default).chain(self.others.values())
    }
}

impl fmt::Debug for StackPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackPool")
            .field("warm", &self.warm())
            .field("cold", &self.cold())
            .finish_non_exhaustive()
    }
}

/// The stacks of one size.
struct Class {
    layout: Layout,
    /// The last is the next one taken.
    warm: Vec<Stack>,
    /// The fewest that were warm since the last trim began: so many nobody missed.
    low_water: usize,
    /// How many of the oldest warm ones (at the front) this trim has yet to discard, unless they are taken first.
    unused: usize,
    /// By the address of the slab.
    cold: BTreeMap<usize, ColdSlab>,
    cold_count: usize,
    fresh: Option<FreshSlab>,
    /// How many slots the next slab gets.
    next_slots: usize,
}

impl Class {
    fn new(layout: Layout) -> Class {
        Class {
            layout,
            warm: Vec::new(),
            low_water: 0,
            unused: 0,
            cold: BTreeMap::new(),
            cold_count: 0,
            fresh: None,
            next_slots: first_slots(layout),
        }
    }

    #[inline]
    fn take_warm(&mut self) -> Option<Stack> {
        let stack = self.warm.pop()?;
        self.low_water = self.low_water.min(self.warm.len());
        Some(stack)
    }

    fn take_cold(&mut self) -> io::Result<Option<Stack>> {
        let Some(mut lowest) = self.cold.first_entry() else { return Ok(None) };
        let stack = lowest.get_mut().take().expect("a slab without cold slots is not listed");
        if lowest.get().bottoms.is_empty() {
            lowest.remove();
        }
        self.cold_count -= 1;
        // SAFETY: the stack is ours.
        match unsafe { platform::commit(stack.bottom, stack.size()) } {
            Ok(()) => Ok(Some(stack)),
            Err(error) => {
                self.put_cold(stack);
                Err(error)
            }
        }
    }

    fn take_fresh(&mut self, guard: GuardKind) -> io::Result<Stack> {
        if let Some(fresh) = &mut self.fresh
            && let Some(stack) = fresh.take()?
        {
            return Ok(stack);
        }
        let mut fresh = FreshSlab::map_up_to(self.layout, self.next_slots, guard)
            // While there is no room, do not try large slabs first each time.
            .inspect_err(|_| self.next_slots = 1)?;
        self.next_slots = grown(self.layout, fresh.slab.slots);
        let stack = fresh.take();
        self.fresh = Some(fresh);
        Ok(stack?.expect("a new slab has a slot"))
    }

    fn discard(&mut self, stacks: &mut Vec<Stack>) {
        discard_all(stacks);
        stacks.drain(..).for_each(|stack| self.put_cold(stack));
    }

    /// Makes room among the warm. Several at once, as neighbours are discarded in one call.
    fn discard_oldest(&mut self, count: usize) {
        let mut oldest: Vec<_> = self.warm.drain(..count).collect();
        self.discard(&mut oldest);
        self.low_water = self.low_water.saturating_sub(count);
        self.unused = self.unused.saturating_sub(count);
    }

    fn put_cold(&mut self, stack: Stack) {
        let base = stack.slab.mapping.base.addr().get();
        let slab = self.cold.entry(base).or_insert_with(|| ColdSlab::new(stack.slab.clone()));
        slab.put(stack);
        self.cold_count += 1;
    }

    fn begin_trim(&mut self) {
        self.unused = self.low_water;
        self.low_water = self.warm.len();
    }

    /// Spends from `budget`, the number of stacks to make cold; returns whether all is done.
    fn trim(&mut self, budget: &mut usize) -> bool {
        // What was taken since the trim began is no longer unused.
        self.unused = self.unused.min(self.low_water);
        let count = self.unused.min(*budget);
        if count > 0 {
            self.discard_oldest(count);
            *budget -= count;
        }
        if self.warm.is_empty() {
            self.warm = Vec::new();
        }
        self.unused == 0 && self.unmap_cold_slabs(budget)
    }

    /// Drops the slabs in which nobody has a stack. Spends from `budget` and returns whether that
    /// was enough.
    fn unmap_cold_slabs(&mut self, budget: &mut usize) -> bool {
        let fresh = self.fresh.as_ref().map(|fresh| Arc::as_ptr(&fresh.slab));
        let (mut unmapped, mut done, cold_count) = (false, true, &mut self.cold_count);
        self.cold.retain(|_, cold| {
            // We are one owner here, and one more for slots never used. All others are stacks,
            // and only owners make owners, so the count cannot rise meanwhile.
            let ours = 1 + usize::from(fresh == Some(Arc::as_ptr(&cold.slab)));
            if Arc::strong_count(&cold.slab) > ours {
                return true;
            }
            if *budget == 0 {
                done = false;
                return true;
            }
            // Unmapping a stack takes a quarter of the time of discarding it.
            *budget = budget.saturating_sub(cold.slab.slots.div_ceil(4));
            *cold_count -= cold.bottoms.len();
            unmapped = true;
            false
        });
        // What is left of the slab in use goes if its cold slots have just gone, or if all of its
        // stacks were dropped elsewhere.
        if self.fresh.as_ref().is_some_and(|fresh| Arc::strong_count(&fresh.slab) == 1) {
            self.fresh = None;
            unmapped = true;
        }
        if unmapped {
            // Demand has fallen. Doubling is quick to catch up.
            self.next_slots = first_slots(self.layout);
        }
        done
    }

    fn is_empty(&self) -> bool {
        self.warm.is_empty() && self.cold.is_empty() && self.fresh.is_none()
    }
}

impl Drop for Class {
    fn drop(&mut self) {
        // Slabs in which nobody else has a stack are unmapped as a whole, so do not discard the
        // warm stacks one by one before. Those in slabs that stay are discarded after.
        for stack in mem::take(&mut self.warm) {
            self.put_cold(stack);
        }
        self.unmap_cold_slabs(&mut { usize::MAX });
        for cold in self.cold.values_mut() {
            while let Some(stack) = cold.take() {
                drop(stack);
            }
        }
    }
}

fn first_slots(layout: Layout) -> usize {
    (FIRST_SLAB_BYTES / layout.stride).clamp(1, FIRST_SLAB_SLOTS)
}

fn grown(layout: Layout, slots: usize) -> usize {
    (slots * 2).min(MAX_SLAB_SLOTS).min(MAX_SLAB_BYTES / layout.stride).max(1)
}
