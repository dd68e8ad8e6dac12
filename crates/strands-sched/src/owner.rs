//! Who holds a lock, for reports and for those who would wait for themselves.
//!
//! The word of a lock that is held has its holder's [mark](crate::mark): the holder's id, and a bit that
//! says that it is held. It comes from the thread-local that says who runs, where it lies ready, so to lock and to unlock
//! cost what they cost with a constant. While a party waits, its header says [where the word lies](crate::Detail).
//!
//! An id is never given out again. So who finds its own mark in a lock has taken that lock, also where a guard outlives
//! its taker: leaked, or handed to another fiber of the same worker.
//!
//! Turned down: the address of the holder's header. It is there without a load, but the next fiber is likely to get the
//! memory of one that has ended, and would be taken for the holder of what that one has left locked. And a
//! field of its own beside the word. It is two instructions more to lock, two to unlock, and
//! for a moment it is not true: between taking the lock and saying so.

use crate::about::{Detail, while_waiting_for};
use crate::atomic::{AtomicU64, Relaxed};
use crate::current;
use crate::frame;
use crate::task::describe_party;
use crate::watch;

/// The bit of a lock's word that says that it is held: by one party, whose id is beside it. The highest, so that of a
/// word that counts instead one comparison says that it does.
pub const HELD: u64 = 1 << 63;

/// The bits of a lock's word that belong to the [mark](crate::mark). The lock has the others: three at the low end, and 14
/// near the high end.
pub const MARK: u64 = 0x0000_FFFF_FFFF_FFF8 | HELD;

/// The bit of a lock's word that says that who holds it is [in the books](crate::held).
pub const TRACKED: u64 = 1 << 61;

/// The mark of the party with this id: of 45 bits of it, which a million parties a second use up in a year.
#[inline(always)]
pub(crate) fn mark_of(id: u64) -> u64 {
    const LOWEST: u32 = (MARK & !HELD).trailing_zeros();
    id << LOWEST & MARK | HELD
}

/// Who holds the lock with this word. None: nobody, or it is not known.
pub(crate) fn holder_of(word: &AtomicU64) -> Option<u64> {
    let mark = word.load(Relaxed) & MARK;
    (mark & HELD != 0 && mark != HELD).then_some(mark)
}

/// Panics if the running party holds the lock with this `word` and would wait for itself for ever: for who is about to
/// wait. `lock` says what for, such as `Mutex`. Below a time limit, a token or a scope that may fail nobody waits for ever.
///
/// # Panics
///
/// If so.
///
/// ```
/// use std::sync::atomic::AtomicU64;
/// use strands_sched::{mark, owner, with_current_task};
///
/// with_current_task(|_| ()); // Now this thread has a mark of its own.
/// let word = AtomicU64::new(0);
/// owner::assert_not_me(&word, "Mutex", &word);
/// let held = AtomicU64::new(mark());
/// let refused = std::panic::catch_unwind(|| owner::assert_not_me(&held, "Mutex", &held));
/// assert!(refused.is_err());
/// ```
pub fn assert_not_me<T: ?Sized>(word: &AtomicU64, lock: &str, object: *const T) {
    current::with(|me| {
        assert!(
            holder_of(word) != Some(mark_of(me.id())) || frame::may_end(me),
            "{} waits for a {lock} ({:#x}) that it holds itself: it would wait for ever",
            describe_party(me),
            object.addr(),
        );
    });
}

/// Runs `wait`, in which the running party waits for the lock with this `word`.
///
/// ```
/// use std::sync::atomic::AtomicU64;
/// use strands_sched::owner;
///
/// let word = AtomicU64::new(0);
/// assert_eq!(owner::while_waiting(&word, || "waited"), "waited");
/// ```
pub fn while_waiting<R>(word: &AtomicU64, wait: impl FnOnce() -> R) -> R {
    watch::arm_in_fiber();
    while_waiting_for(Detail::Lock(word), wait)
}
