//! Who holds a lock, for reports and for those who would wait for themselves.
//!
//! The word of a lock that is held has its holder's [mark](crate::mark): the address of its header, and a bit that
//! says that it is held. It comes from the thread-local that says who runs, where it lies ready, so to lock and to unlock
//! cost what they cost with a constant. While a party waits, its header says [where the word lies](crate::Detail).
//!
//! The address is compared, never followed: a guard may be leaked, and then its fiber's header goes while the lock stays.
//! Another fiber's header may come to lie there and be taken for the holder, of a lock that nobody will ever
//! release.
//!
//! Turned down: a field of its own beside the word. It is two instructions more to lock, two to unlock, and
//! for a moment it is not true: between taking the lock and saying so.

use crate::about::{Detail, while_waiting_for};
use crate::atomic::{AtomicU64, Relaxed};
use crate::current;
use crate::task::{Header, describe_party};
use crate::watch;

/// The bit of a lock's word that says that it is held: by one party, whose address is beside it.
pub const HELD: u64 = 1;

/// The bits of a lock's word that belong to the [mark](crate::mark). The lock has the others: two at the low end, and the 16
/// highest.
pub const MARK: u64 = 0x0000_FFFF_FFFF_FFF8 | HELD;

/// The mark of the party with this header.
#[inline(always)]
pub(crate) fn mark_of(header: *const Header) -> u64 {
    header.addr() as u64 | HELD // It fits: see `assert_fits`.
}

/// Asked of each header when it is made.
///
/// # Panics
///
/// If its address has more than 48 bits, which no system gives to who does not ask for it.
#[inline]
pub(crate) fn assert_fits(header: *const Header) {
    assert_eq!(
        mark_of(header) & MARK,
        mark_of(header),
        "a header has an address of more than 48 bits"
    );
}

/// Who holds the lock with this word. None: nobody, or it is not known.
pub(crate) fn holder_of(word: &AtomicU64) -> Option<u64> {
    let mark = word.load(Relaxed) & MARK;
    (mark & HELD != 0 && mark != HELD).then_some(mark)
}

/// Panics if the running party holds the lock with this `word`, which would wait for itself: for who is about to wait.
/// `lock` says what for, such as `Mutex`.
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
    // Loom does not know that who gets the memory of a header that was freed has seen what its party did last.
    if cfg!(not(loom)) && current::with(|me| holder_of(word) == Some(mark_of(me))) {
        current::with(|me| {
            panic!(
                "{} waits for a {lock} ({:#x}) that it holds itself: it would wait for ever",
                describe_party(me),
                object.addr(),
            )
        });
    }
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
