//! The books: which locks are held by whom since when, while somebody [wants to know](track).
//!
//! Who takes a free lock writes that down nowhere but in the lock, as that would cost more than the lock. So the books
//! are kept while they are wanted only, and until then they cost not one instruction: the fast path of a lock
//! compares its word with [what a free lock has](free), from the thread-local that its holder's [mark](crate::mark)
//! comes from too. That is 0. While the books are kept it is what no lock ever has, so the fast path fails, and
//! the long way ends in [`note`] or [`note_reader`]. They set [`TRACKED`] in the word, which the fast path of an unlock
//! does not expect, so that one goes the long way too, and there [`forget`] or [`reader_has_left`] takes the lock out
//! of the books: also when they are not kept any more. What was locked before they were is not in them, and is unlocked the
//! fast way.
//!
//! # What makes it true
//!
//! 1. An exclusive lock is put in by who has just taken it, and taken out by who is about to release it. So nobody
//!    else does anything about it meanwhile. If a lock is found in the books that is taken anew, the old one has gone,
//!    with a guard that was leaked.
//! 2. Readers leave a word first and look then. So while any of its readers are in the books, the books themselves are counted as
//!    one more reader, and `TRACKED` is set: both under the lock of the books. That share keeps writers out until the last
//!    reader has left, and is then given to that one, to leave with. A reader that leaves and finds
//!    no other but that share clears the entry whatever is in it. So no mistake in the books can keep a lock from being released.
//!
//! Who reads is found by its id. If it is not there the guard was made before the books were kept, or was
//! handed to another fiber of the same thread. The latter if there are more entries than readers: then the newest of that
//! thread goes.
//!
//! The switch is in every thread's thread-local, so that no code has to find a global: the address of one in
//! another crate takes an instruction to load. So the threads are on a list: a plain one from its first look at its own
//! header, with which the first operation on a lock begins.
//!
//! Turned down: a list of held locks in the holder's header. It is written by other threads as locks are handed over.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;
use std::ptr;
use std::sync::atomic::AtomicU64 as StdAtomicU64;
use std::sync::{Mutex as StdMutex, MutexGuard as StdGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::atomic::{self, AtomicU64, Mutex, MutexGuard, Relaxed};
use crate::current;
use crate::fork;
use crate::owner::TRACKED;
use crate::task::Header;

/// How a lock is held.
///
/// ```
/// use strands_sched::held::Kind;
///
/// assert_ne!(Kind::Read, Kind::Write);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A mutex.
    Mutex,
    /// A read-write lock, for reading.
    Read,
    /// A read-write lock, for writing.
    Write,
}

/// A lock that is held.
///
/// ```
/// fn line(held: &strands_sched::held::HeldLock) -> String {
///     format!("{} holds {:#x} for {:?}", held.holder, held.object, held.held_for)
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HeldLock {
    /// The id of the party that took it.
    pub holder: u64,
    /// Its name, if it is a plain thread that is there.
    pub thread: Option<String>,
    /// How it is held.
    pub kind: Kind,
    /// The lock, as in [`WaitReport`](crate::WaitReport).
    pub object: usize,
    /// For how long.
    pub held_for: Duration,
}

/// Has all locks written down that are taken from now on; or no more. Says whether they were before. In a forked child, for
/// this thread only.
///
/// ```standalone_crate
/// use strands_sched::held;
///
/// assert!(!held::track(true));
/// assert!(held::is_tracking() && held::all().is_empty());
/// assert!(held::track(false));
/// ```
pub fn track(on: bool) -> bool {
    #[cfg(loom)]
    IN_MODEL.set(on);
    if fork::in_forked_child() {
        // The threads on the list are not there, nor are their thread-locals.
        return current::with_switch(|switch| {
            let before = switch.free.load(Relaxed) != 0;
            switch.set(on);
            before
        });
    }
    let mut threads = lock(&THREADS);
    for switch in threads.all.keys() {
        // SAFETY: a thread takes itself off the list before its thread-locals go, and the list is locked.
        unsafe { &*ptr::with_exposed_provenance::<Switch>(*switch) }.set(on);
    }
    mem::replace(&mut threads.are_tracked, on)
}

/// Whether locks are written down.
///
/// ```standalone_crate
/// assert!(!strands_sched::held::is_tracking());
/// ```
pub fn is_tracking() -> bool {
    if fork::in_forked_child() { free() != 0 } else { lock(&THREADS).are_tracked }
}

/// All that are written down: taken while that was wanted, and not yet released.
///
/// ```standalone_crate
/// assert!(strands_sched::held::all().is_empty(), "nobody has asked for it");
/// ```
pub fn all() -> Vec<HeldLock> {
    let (mut all, now) = (Vec::new(), Instant::now());
    for shard in BOOKS.iter() {
        let Some(shard) = shard.open() else { continue };
        for entry in shard.values() {
            all.extend(entry.holds.iter().map(|hold| HeldLock {
                holder: hold.holder,
                thread: None,
                kind: entry.kind,
                object: entry.object,
                held_for: now.saturating_duration_since(hold.since),
            }));
        }
    }
    if fork::in_forked_child() {
        return all; // The other threads are not there.
    }
    let threads = lock(&THREADS);
    let names: HashMap<u64, &str> =
        threads.all.values().map(|thread| (thread.id, &*thread.name)).collect();
    for held in &mut all {
        held.thread = names.get(&held.holder).map(|name| String::from(*name));
    }
    all
}

/// With what the word of a lock is compared to find it free: see [the module](self).
///
/// ```standalone_crate
/// assert_eq!(strands_sched::held::free(), 0);
/// ```
#[inline(always)]
pub fn free() -> u64 {
    current::with_switch(|switch| switch.free.load(Relaxed))
}

/// With what the word of a lock that counts readers is compared to find them few: see [the module](self).
///
/// ```standalone_crate
/// assert_eq!(strands_sched::held::few(), strands_sched::held::FEW);
/// ```
#[inline(always)]
pub fn few() -> u64 {
    current::with_switch(|switch| switch.few.load(Relaxed))
}

/// While nobody wants to know, [`few`] is this.
pub const FEW: u64 = 1 << 29;

/// The bits of a word in which readers are counted.
const READERS: u64 = (1 << 48) - 1;

/// No lock has it, and not by chance.
const IMPOSSIBLE: u64 = u64::MAX;

/// Says that the running party has just taken the lock with this `word`, which nobody else releases. `object` is the lock, as
/// in waits for it.
///
/// ```standalone_crate
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use strands_sched::held::{self, Kind};
/// use strands_sched::{mark, owner, with_current_task};
///
/// let me = with_current_task(|me| me.id());
/// held::track(true);
/// let word = AtomicU64::new(mark());
/// held::note(&word, 7, Kind::Mutex);
/// assert_eq!(word.load(Relaxed), mark() | owner::TRACKED);
/// assert_eq!((held::all()[0].object, held::all()[0].holder), (7, me));
/// held::track(false);
/// held::forget(&word);
/// assert!(held::all().is_empty());
/// ```
pub fn note(word: &AtomicU64, object: usize, kind: Kind) {
    if free() == 0 {
        return;
    }
    let hold = Hold::of_current();
    if let Some(mut shard) = shard(word).open() {
        word.fetch_or(TRACKED, Relaxed);
        shard.insert(address(word), Entry { kind, object, holds: Holds::one(hold) });
    }
}

/// Says that the lock with this `word` is about to be released by its holder, who is not a reader.
///
/// ```
/// use std::sync::atomic::AtomicU64;
///
/// let word = AtomicU64::new(strands_sched::mark());
/// strands_sched::held::forget(&word); // It was not written down.
/// ```
#[inline]
pub fn forget(word: &AtomicU64) {
    if word.load(Relaxed) & TRACKED != 0 {
        let forgotten = shard(word).open().map(|mut shard| shard.remove(&address(word)));
        word.fetch_and(!TRACKED, Relaxed); // Before the next holder may set it.
        drop(forgotten); // Not under the lock.
    }
}

/// Says that the running party has just become a reader of the lock with this `word`, which counts readers from its lowest
/// bit on.
///
/// ```standalone_crate
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use strands_sched::{held, owner};
///
/// strands_sched::with_current_task(|_| ());
/// held::track(true);
/// let word = AtomicU64::new(1);
/// held::note_reader(&word, 7);
/// assert_eq!(word.load(Relaxed), 2 | owner::TRACKED, "the books read too");
/// word.fetch_sub(1, Relaxed);
/// assert!(held::reader_has_left(&word));
/// assert_eq!(word.load(Relaxed), 1, "this is ours now");
/// held::track(false);
/// ```
pub fn note_reader(word: &AtomicU64, object: usize) {
    if free() == 0 {
        return;
    }
    let hold = Hold::of_current();
    let Some(mut shard) = shard(word).open() else { return };
    if word.load(Relaxed) & TRACKED == 0 {
        word.fetch_add(TRACKED + 1, Relaxed);
        let entry = Entry { kind: Kind::Read, object, holds: Holds::one(hold) };
        shard.insert(address(word), entry);
    } else if let Some(entry) = shard.get_mut(&address(word)) {
        entry.holds.add(hold);
    }
}

/// Lets `become_readers` change this `word`, of a lock that is held for writing, so that two readers hold it and it is
/// [`TRACKED`] as before: its holder, and the books. False: it is not in the books, and was not changed.
///
/// ```standalone_crate
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use strands_sched::held::{self, Kind};
/// use strands_sched::owner::TRACKED;
///
/// strands_sched::with_current_task(|_| ());
/// held::track(true);
/// let word = AtomicU64::new(strands_sched::mark());
/// held::note(&word, 7, Kind::Write);
/// assert!(held::downgrade(&word, || word.store(TRACKED | 2, Relaxed)));
/// assert_eq!(held::all()[0].kind, Kind::Read);
/// # word.fetch_sub(1, Relaxed);
/// # assert!(held::reader_has_left(&word));
/// # held::track(false);
/// ```
pub fn downgrade(word: &AtomicU64, become_readers: impl FnOnce()) -> bool {
    if word.load(Relaxed) & TRACKED == 0 {
        return false;
    }
    let Some(mut shard) = shard(word).open() else { return false };
    let Some(entry) = shard.get_mut(&address(word)) else { return false };
    entry.kind = Kind::Read;
    become_readers(); // Under the lock: a newcomer writes itself down beside us.
    true
}

/// Says that the running party is no reader any more of the lock with this `word`, and found it `TRACKED` as it left. True:
/// now it has the share of the books, and is to leave once more.
///
/// ```
/// use std::sync::atomic::AtomicU64;
///
/// let not_tracked = AtomicU64::new(1);
/// assert!(!strands_sched::held::reader_has_left(&not_tracked));
/// ```
pub fn reader_has_left(word: &AtomicU64) -> bool {
    leaves(word, current::with(Header::id))
}

/// As [`reader_has_left`], of one that never was in the books.
///
/// ```
/// use std::sync::atomic::AtomicU64;
///
/// let not_tracked = AtomicU64::new(1);
/// assert!(!strands_sched::held::visitor_has_left(&not_tracked));
/// ```
pub fn visitor_has_left(word: &AtomicU64) -> bool {
    leaves(word, 0)
}

/// Given an id of 0, nobody is taken out.
fn leaves(word: &AtomicU64, id: u64) -> bool {
    let Some(mut shard) = shard(word).open() else { return false };
    let now = word.load(Relaxed);
    if now & TRACKED == 0 {
        return false;
    }
    let Some(entry) = shard.get_mut(&address(word)) else { return false };
    if entry.kind != Kind::Read {
        return false; // Of a writer that has come since.
    }
    let readers = (now & READERS) as usize - 1; // Without the books.
    if id != 0 {
        entry.holds.remove(id, readers);
    }
    if readers > 0 {
        return false;
    }
    word.fetch_and(!TRACKED, Relaxed);
    shard.remove(&address(word));
    true
}

/// A thread's copy of the switch.
pub(crate) struct Switch {
    free: StdAtomicU64,
    few: StdAtomicU64,
}

impl Switch {
    #[cfg(loom)]
    pub(crate) fn of_model() -> Switch {
        let switch = Switch::off();
        switch.set(IN_MODEL.get());
        switch
    }

    pub(crate) const fn off() -> Switch {
        Switch { free: StdAtomicU64::new(0), few: StdAtomicU64::new(FEW) }
    }

    fn set(&self, on: bool) {
        self.free.store(if on { IMPOSSIBLE } else { 0 }, Relaxed);
        self.few.store(if on { 0 } else { FEW }, Relaxed);
    }

    /// Puts the thread whose switch this is on the list.
    ///
    /// # Safety
    ///
    /// It stays where it is until [`unlist`](Self::unlist) is called.
    pub(crate) unsafe fn list(&self, party: &Header) {
        let name = party.name().unwrap_or_default().into();
        let mut threads = lock(&THREADS);
        let thread = Listed { id: party.id(), name };
        threads.all.insert(ptr::from_ref(self).expose_provenance(), thread);
        self.set(threads.are_tracked);
    }

    /// Takes it off again; what the thread locks from here on is not written down.
    pub(crate) fn unlist(&self) {
        if !fork::in_forked_child() {
            lock(&THREADS).all.remove(&address(self));
        }
        self.set(false);
    }
}

struct Threads {
    are_tracked: bool,
    /// By the address of its switch.
    all: HashMap<usize, Listed, BuildHasherDefault<AddressHasher>>,
}

/// A thread that is there.
struct Listed {
    id: u64,
    name: Box<str>,
}

static THREADS: StdMutex<Threads> = StdMutex::new(Threads {
    are_tracked: false,
    all: HashMap::with_hasher(BuildHasherDefault::new()),
});

/// Some of the books, each in cache lines of its own.
#[repr(align(128))]
struct Shard(Mutex<Entries>);

/// By the address of the lock's word, which is never followed: a lock whose guard was leaked may be gone.
type Entries = HashMap<usize, Entry, BuildHasherDefault<AddressHasher>>;

#[cfg(not(loom))]
const SHARDS: usize = 64;
#[cfg(not(loom))]
static BOOKS: [Shard; SHARDS] =
    [const { Shard(Mutex::new(HashMap::with_hasher(BuildHasherDefault::new()))) }; SHARDS];

#[cfg(loom)]
const SHARDS: usize = 1;
#[cfg(loom)]
loom::lazy_static! {
    static ref BOOKS: [Shard; SHARDS] = [Shard(Mutex::new(HashMap::default()))];
}
#[cfg(loom)]
std::thread_local! {
    /// A model's threads are all on one thread of the system.
    static IN_MODEL: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// One lock that is held.
struct Entry {
    kind: Kind,
    object: usize,
    holds: Holds,
}

struct Hold {
    holder: u64,
    /// The thread that took it, by the address of a thread-local.
    thread: usize,
    since: Instant,
}

impl Hold {
    fn of_current() -> Hold {
        let holder = current::with(Header::id);
        Hold { holder, thread: current::with_switch(address), since: Instant::now() }
    }
}

/// One, usually.
struct Holds {
    first: Option<Hold>,
    more: Vec<Hold>,
}

impl Holds {
    fn one(hold: Hold) -> Holds {
        Holds { first: Some(hold), more: Vec::new() }
    }

    fn add(&mut self, hold: Hold) {
        match self.first {
            None => self.first = Some(hold),
            Some(_) => self.more.push(hold),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Hold> {
        self.first.iter().chain(&self.more)
    }

    /// Takes the newest of `id` out; if there is none, and there are more than `readers` left, the newest of this thread.
    fn remove(&mut self, id: u64, readers: usize) {
        let thread = current::with_switch(address);
        let is_left_over = self.iter().count() > readers;
        if !self.remove_newest(|hold| hold.holder == id) && is_left_over {
            self.remove_newest(|hold| hold.thread == thread);
        }
    }

    fn remove_newest(&mut self, is: impl Fn(&Hold) -> bool) -> bool {
        if let Some(i) = self.more.iter().rposition(&is) {
            self.more.remove(i);
            return true;
        }
        let is_first = self.first.as_ref().is_some_and(is);
        if is_first {
            self.first = if self.more.is_empty() { None } else { Some(self.more.remove(0)) };
        }
        is_first
    }
}

impl Shard {
    /// None: this is a forked child, and the one who has locked it is not there.
    fn open(&self) -> Option<MutexGuard<'_, Entries>> {
        atomic::lock_if_there(&self.0)
    }
}

fn shard(word: &AtomicU64) -> &'static Shard {
    &BOOKS[(spread(address(word)) >> 58) as usize % SHARDS]
}

fn address<T>(of: &T) -> usize {
    ptr::from_ref(of).addr()
}

fn lock<T>(mutex: &StdMutex<T>) -> StdGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All bits of the address are in the highest bits of this.
fn spread(address: usize) -> u64 {
    (address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Of addresses; nobody else chooses them.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        // A table looks at the lowest bits and the highest; those of one shard have the highest in common.
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_usize(byte.into()));
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = spread(address ^ self.0 as usize);
    }
}
