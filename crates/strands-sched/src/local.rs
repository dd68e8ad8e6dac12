//! Values that each fiber has for itself: what a thread-local is to a thread.
//!
//! A [`FiberKey`] is a number; a fiber's values lie in a table, under the numbers of their keys.
//! The table is found from the fiber's header, so an access is four loads: who runs, its table, the
//! value's place, the value. A fiber that uses no key pays one null word. A key gets its number
//! when a fiber first uses it.
//!
//! # Why a value may be referred to
//!
//! Each value lies in an allocation of its own, which never moves: the table may grow, and the
//! fiber may suspend, while a value is lent. [`Lent`] counts itself in the value, and a value that
//! is lent is never destroyed. A fiber's own frames have gone before its values go, so this matters
//! only to a bare coroutine that was suspended inside of an access and outlives the fiber: it keeps
//! the value, which leaks.
//!
//! # When values are destroyed
//!
//! On the fiber's own stack, after its closure has returned or unwound and before anybody can see
//! its end: so destructors may wait, lock and spawn, and `join` returns after them. The newest
//! first, one at a time, until none is left, as one destructor may make further values. A key whose
//! value is being destroyed, or was, has none. Types without drop glue are never destroyed, and are
//! there to the last. All this is what std does on Linux. No cancel is delivered meanwhile, as none
//! is to a fiber that unwinds: a destructor that a cancel leaves half-way would abort the process.
//! A fiber that is leaked because it cannot be unwound leaks its values too.
//!
//! Memory comes from the system's allocator directly, as std's does: a global allocator may keep
//! its own state in such values.
//!
//! Turned down: a hash map by the key's address (it costs more to search, and no less memory), values
//! inside of the table (they must not move), and room for all keys in every fiber (a million fibers
//! pay for keys they never use). What a plain thread has is not here: std's
//! thread-locals are that already, and the caller asks them.

use std::alloc::{GlobalAlloc, Layout, System, handle_alloc_error};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::cancel;
use crate::current;
use crate::no_unwind::AbortOnUnwind;
use crate::task::Header;

/// Names a value of type `T` that each fiber has for itself.
///
/// ```
/// use std::cell::Cell;
/// use strands_sched::{Access, Builder, FiberKey, SpawnOptions};
///
/// static COUNT: FiberKey<Cell<u32>> = FiberKey::new();
///
/// fn next() -> Option<u32> {
///     match COUNT.get(|| Cell::new(0)) {
///         Access::Value(count) => Some(count.replace(count.get() + 1)),
///         Access::Destroyed | Access::Thread => None,
///     }
/// }
///
/// let runtime = Builder::new().workers(1).build()?;
/// for _ in 0..2 {
///     let numbers = runtime.run(SpawnOptions::default(), || [next(), next()])?;
///     assert_eq!(numbers, [Some(0), Some(1)], "each fiber has its own");
/// }
/// assert_eq!(next(), None, "this is a plain thread");
/// # std::io::Result::Ok(())
/// ```
pub struct FiberKey<T: 'static> {
    /// The place in every fiber's table; [`UNUSED`] before any fiber has used the key.
    index: AtomicU32,
    /// Invariant, so that all who use the key agree on the type of the value.
    value: PhantomData<fn(T) -> T>,
}

/// More than any table's length.
const UNUSED: u32 = u32::MAX;
static NEXT_INDEX: AtomicU32 = AtomicU32::new(0);

/// What [`FiberKey::get`] found.
///
/// ```
/// use strands_sched::{Access, FiberKey};
///
/// static KEY: FiberKey<u32> = FiberKey::new();
/// assert!(matches!(KEY.get(|| 7), Access::Thread), "no fiber runs here");
/// ```
#[derive(Debug)]
pub enum Access<T: 'static> {
    /// The caller is no fiber: it has a thread, with thread-locals.
    Thread,
    /// The running fiber's value.
    Value(Lent<T>),
    /// The running fiber's value is being destroyed, or was.
    Destroyed,
}

impl<T: 'static> FiberKey<T> {
    /// A key of which no fiber has a value yet.
    ///
    /// ```
    /// static KEY: strands_sched::FiberKey<String> = strands_sched::FiberKey::new();
    /// ```
    pub const fn new() -> FiberKey<T> {
        FiberKey { index: AtomicU32::new(UNUSED), value: PhantomData }
    }

    /// The running fiber's value, made by `init` if it has none yet.
    ///
    /// If `init` comes back here for the same key, the value that it made there gives way to the
    /// one that it returns, as with std's thread-locals.
    ///
    /// # Panics
    ///
    /// With the panic of `init`: then there is no value, as before. If `init` suspends a bare
    /// coroutine that another fiber goes on with.
    ///
    /// ```
    /// use strands_sched::{Access, Builder, FiberKey, SpawnOptions};
    ///
    /// static KEY: FiberKey<u32> = FiberKey::new();
    /// let runtime = Builder::new().workers(1).build()?;
    /// runtime.run(SpawnOptions::default(), || {
    ///     assert!(matches!(KEY.get(|| 1), Access::Value(value) if *value == 1));
    ///     assert!(matches!(KEY.get(|| 2), Access::Value(value) if *value == 1));
    /// })?;
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn get(&'static self, init: impl FnOnce() -> T) -> Access<T> {
        let me = current::get();
        if me.is_null() {
            return Access::Thread; // A plain thread that has never waited.
        }
        // SAFETY: whoever runs is alive, and nothing but `lent` comes between here and the last
        // use.
        let me = unsafe { &*me };
        let found = me.locals.find(self.index.load(Relaxed));
        if found.addr() > DESTROYED {
            // SAFETY: alive, under the number of this key, and so one of our `T`s.
            return Access::Value(unsafe { Lent::new(found) });
        }
        if me.is_thread() { Access::Thread } else { self.make(init) }
    }

    #[cold]
    fn make(&'static self, init: impl FnOnce() -> T) -> Access<T> {
        let (index, fiber) = (self.index(), current::with(Header::id));
        if current::with(|me| me.locals.find(index)).addr() == DESTROYED {
            return Access::Destroyed;
        }
        let value = init();
        // `init` may do anything: nothing that was found before it holds now.
        let same = current::with(Header::id) == fiber;
        assert!(same, "a fiber-local's initializer went on in another fiber");
        let (access, left_over) = current::with(|me| {
            let found = me.locals.find(index);
            match found.addr() {
                0 => (Access::Value(Slot::add(value, index, me)), None),
                DESTROYED => (Access::Destroyed, Some(value)),
                _ => {
                    // SAFETY: alive, and one of our `T`s: `init` came back here.
                    let (lent, old) = unsafe { Slot::put_over(found, value, me) };
                    (Access::Value(lent), old)
                }
            }
        });
        drop(left_over); // This too may do anything.
        access
    }

    /// The key's number.
    fn index(&self) -> u32 {
        let index = self.index.load(Relaxed);
        if index != UNUSED {
            return index;
        }
        let new = NEXT_INDEX.fetch_add(1, Relaxed);
        assert!(new < UNUSED / 2, "too many fiber-local keys");
        // If another fiber was faster, a number is lost. A number publishes nothing, so any order
        // will do.
        self.index.compare_exchange(UNUSED, new, Relaxed, Relaxed).map_or_else(|its| its, |_| new)
    }
}

impl<T: 'static> Default for FiberKey<T> {
    fn default() -> FiberKey<T> {
        FiberKey::new()
    }
}

impl<T: 'static> fmt::Debug for FiberKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FiberKey").finish_non_exhaustive()
    }
}

/// A fiber's value, which is not destroyed while this lives.
///
/// ```
/// use strands_sched::{Access, Builder, FiberKey, Lent, SpawnOptions};
///
/// static NAME: FiberKey<String> = FiberKey::new();
/// let runtime = Builder::new().workers(1).build()?;
/// let length = runtime.run(SpawnOptions::default(), || {
///     let Access::Value(name) = NAME.get(|| "fiber".into()) else { unreachable!() };
///     let name: Lent<String> = name;
///     name.len()
/// })?;
/// assert_eq!(length, 5);
/// # std::io::Result::Ok(())
/// ```
pub struct Lent<T: 'static>(NonNull<Slot<T>>);

impl<T: 'static> Lent<T> {
    /// # Safety
    ///
    /// `value` is alive, and that of a `T`. It is on its own fiber that this is called.
    #[inline(always)]
    unsafe fn new(value: *mut Head) -> Lent<T> {
        // SAFETY: the caller's promise.
        let lent = unsafe { &(*value).lent };
        lent.set(lent.get().checked_add(1).expect("a fiber-local is lent too often"));
        // SAFETY: alive, so not null.
        Lent(unsafe { NonNull::new_unchecked(value.cast()) })
    }
}

impl<T: 'static> Deref for Lent<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: counted, so neither moved out nor freed. All references to it are shared ones.
        unsafe { &(*self.0.as_ptr()).value }
    }
}

impl<T: 'static> Drop for Lent<T> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: as above. It is not Send, so this is the thread that counted.
        let lent = unsafe { &(*self.0.as_ptr()).head.lent };
        lent.set(lent.get() - 1);
    }
}

impl<T: fmt::Debug> fmt::Debug for Lent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

/// A value with what is known of it. The head comes first: a pointer to the one is one to the
/// other.
#[repr(C)]
struct Slot<T> {
    head: Head,
    value: T,
}

pub(crate) struct Head {
    /// The value that shall be destroyed after this one.
    next: Cell<*mut Head>,
    /// Drops and frees the whole. Once, when nobody refers to it any more.
    destroy: unsafe fn(NonNull<Head>),
    index: u32,
    /// How many [`Lent`]s there are.
    lent: Cell<u32>,
}

impl<T: 'static> Slot<T> {
    /// Gives the running fiber `me` a value.
    fn add(value: T, index: u32, me: &Header) -> Lent<T> {
        let layout = Layout::new::<Slot<T>>();
        // SAFETY: a head alone is larger than nothing.
        let slot = unsafe { System.alloc(layout) }.cast::<Slot<T>>();
        let slot = NonNull::new(slot).unwrap_or_else(|| handle_alloc_error(layout));
        let (next, lent) = (Cell::new(ptr::null_mut()), Cell::new(0));
        let head = Head { next, destroy: Slot::<T>::destroy, index, lent };
        // SAFETY: just allocated for it.
        unsafe { slot.write(Slot { head, value }) };
        me.locals.put(slot.cast(), mem::needs_drop::<T>());
        // SAFETY: alive, and the fiber is ours.
        unsafe { Lent::new(slot.as_ptr().cast()) }
    }

    /// Replaces the value that an initializer has made while it made this one. Returns what is to
    /// be dropped, too.
    ///
    /// # Safety
    ///
    /// `old` is alive, that of a `T`, and of the running fiber `me`.
    unsafe fn put_over(old: *mut Head, value: T, me: &Header) -> (Lent<T>, Option<T>) {
        // SAFETY: the caller's promise. Nothing refers to the value while it is not lent.
        unsafe {
            if (*old).lent.get() != 0 {
                // A coroutine was suspended with it: it stays where it is, to be destroyed in its
                // turn.
                return (Slot::add(value, (*old).index, me), None);
            }
            let old_value = mem::replace(&mut (*old.cast::<Slot<T>>()).value, value);
            (Lent::new(old), Some(old_value))
        }
    }

    /// # Safety
    ///
    /// `head` is the first part of a `Slot<T>` that nobody refers to or will use again.
    unsafe fn destroy(head: NonNull<Head>) {
        let slot = head.cast::<Slot<T>>();
        // SAFETY: the caller's promise; `add` had it from this allocator.
        unsafe {
            slot.drop_in_place();
            System.dealloc(slot.as_ptr().cast(), Layout::new::<Slot<T>>());
        }
    }
}

/// The values of one fiber; its own thread's only.
pub(crate) struct Locals {
    /// Null until there is a value.
    table: Cell<*mut Table>,
}

/// Followed by `length` words, each null, [`DESTROYED`] or a value that is alive.
#[repr(C)]
struct Table {
    /// Of the values that are to be destroyed, the last that was made.
    newest: *mut Head,
    length: usize,
}

/// In the place of a value that is being destroyed, or was.
const DESTROYED: usize = 1;

impl Locals {
    pub(crate) const fn new() -> Locals {
        Locals { table: Cell::new(ptr::null_mut()) }
    }

    /// What lies under a number: null, [`DESTROYED`] or a value that is alive.
    #[inline(always)]
    fn find(&self, index: u32) -> *mut Head {
        let table = self.table.get();
        // SAFETY: a table that is not null is alive, and `place` is asked for what it has.
        unsafe {
            match table.is_null() || index as usize >= (*table).length {
                true => ptr::null_mut(),
                false => *Table::place(table, index),
            }
        }
    }

    /// Puts a value under its number; it is destroyed in its turn if it `needs_drop`.
    fn put(&self, head: NonNull<Head>, needs_drop: bool) {
        // SAFETY: the head was just made, and the table has a place for its number.
        unsafe {
            let index = head.as_ref().index;
            self.reserve(index as usize + 1);
            let table = self.table.get();
            *Table::place(table, index) = head.as_ptr();
            if needs_drop {
                head.as_ref().next.set((*table).newest);
                (*table).newest = head.as_ptr();
            }
        }
    }

    /// Makes the table at least so long.
    fn reserve(&self, length: usize) {
        let old = self.table.get();
        // SAFETY: a table that is not null is alive; what is copied has room in the new one, which
        // is longer.
        unsafe {
            let old_length = if old.is_null() { 0 } else { (*old).length };
            if length <= old_length {
                return;
            }
            let length = length.max(2 * old_length).max(2);
            let new = System.alloc_zeroed(Table::layout(length)).cast::<Table>();
            if new.is_null() {
                handle_alloc_error(Table::layout(length));
            }
            (*new).length = length;
            if !old.is_null() {
                (*new).newest = (*old).newest;
                ptr::copy_nonoverlapping(Table::place(old, 0), Table::place(new, 0), old_length);
                System.dealloc(old.cast(), Table::layout(old_length));
            }
            self.table.set(new);
        }
    }

    /// Runs the destructors, and those of what they make. By the fiber whose values they are, when
    /// its closure has gone.
    pub(crate) fn destroy(&self) {
        if !self.table.get().is_null() {
            cancel::uncancellable(|| while self.destroy_newest() {});
        }
    }

    /// Destroys the newest value; says whether there was one.
    fn destroy_newest(&self) -> bool {
        let table = self.table.get();
        // SAFETY: the table is alive, and so is what it leads to. A value that was taken out of the
        // list is ours alone if it is not lent, as its place does not lead to it any more.
        unsafe {
            let Some(head) = NonNull::new((*table).newest) else { return false };
            (*table).newest = head.as_ref().next.get();
            let place = Table::place(table, head.as_ref().index);
            if *place == head.as_ptr() {
                *place = ptr::without_provenance_mut(DESTROYED);
            }
            if head.as_ref().lent.get() == 0 {
                let dropping = AbortOnUnwind("thread local panicked on drop");
                (head.as_ref().destroy)(head);
                dropping.disarm();
            }
        }
        true
    }

    /// Frees the table and what is left in it. By the fiber, when it runs nobody's code any more.
    pub(crate) fn free(&self) {
        self.destroy();
        let table = self.table.replace(ptr::null_mut());
        if table.is_null() {
            return;
        }
        // SAFETY: the table is alive. What is left has no destructor, and is not used again unless
        // it is lent.
        unsafe {
            let length = (*table).length;
            for index in 0..length as u32 {
                let head = *Table::place(table, index);
                if head.addr() > DESTROYED && (*head).lent.get() == 0 {
                    ((*head).destroy)(NonNull::new_unchecked(head));
                }
            }
            System.dealloc(table.cast(), Table::layout(length));
        }
    }
}

impl Table {
    /// # Safety
    ///
    /// `table` is alive and `index` less than its length; or 0, and the place is not used.
    #[inline(always)]
    unsafe fn place(table: *mut Table, index: u32) -> *mut *mut Head {
        // SAFETY: the places follow the table in its allocation.
        unsafe { table.add(1).cast::<*mut Head>().add(index as usize) }
    }

    fn layout(length: usize) -> Layout {
        const { assert!(align_of::<Table>() == align_of::<*mut Head>()) };
        let bytes = size_of::<Table>() + length * size_of::<*mut Head>();
        Layout::from_size_align(bytes, align_of::<Table>()).expect("a number has 32 bits")
    }
}
