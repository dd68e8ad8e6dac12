//! What a party waits for, where the operation and the object do not say it all: for reports.
//!
//! It is a word in the party's header, set for the time of the wait. What it leads to is borrowed by the
//! wait, so the party's worker may look at it while the party is parked.

use std::marker::PhantomData;
use std::ptr;

use crate::atomic::AtomicU64;
use crate::current;
use crate::select::Operation;
use crate::task::Header;

/// What a wait is for.
///
/// ```
/// use strands_sched::{Detail, while_waiting_for};
///
/// let fd = 7; // Of the socket that is waited for.
/// assert_eq!(while_waiting_for(Detail::Descriptor(fd), || "waited"), "waited");
/// ```
#[derive(Clone, Copy)]
pub enum Detail<'a> {
    /// The lock with this word, which has the [mark](crate::mark) of its holder.
    Lock(&'a AtomicU64),
    /// A descriptor, or a socket's handle.
    Descriptor(u64),
    /// What another thread of the process does for it.
    Thread,
    /// One of several operations.
    Arms(&'a Arms<'a>),
}

/// The operations of a select.
///
/// ```
/// use strands_sched::{Arms, Detail, Timer, while_waiting_for};
///
/// let timer = Timer::at(None);
/// let arms = Arms(&[&timer]);
/// while_waiting_for(Detail::Arms(&arms), || ());
/// ```
#[repr(align(8))]
pub struct Arms<'a>(pub &'a [&'a dyn Operation]);

/// What an [operation](Operation) of a select is: see [`Operation::about`].
///
/// ```
/// use strands_sched::{About, Operation, Timer};
///
/// let about: About = Timer::at(None).about();
/// assert_eq!(about.operation, "thread::sleep");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct About {
    /// Its name, as of the call that waits for it alone.
    pub operation: &'static str,
    /// What it is waited for, as in [`wait_until`](crate::wait_until).
    pub object: usize,
    /// The descriptor, if there is one.
    pub descriptor: Option<u64>,
}

/// Runs `wait`, in which the running party waits for what `detail` says.
///
/// ```
/// use strands_sched::{Detail, while_waiting_for};
///
/// assert_eq!(while_waiting_for(Detail::Thread, || 1 + 1), 2);
/// ```
pub fn while_waiting_for<R>(detail: Detail<'_>, wait: impl FnOnce() -> R) -> R {
    struct Reset<'a>(&'a Header);
    impl Drop for Reset<'_> {
        fn drop(&mut self) {
            self.0.set_detail(0);
        }
    }
    let reset = Reset(current::header());
    reset.0.set_detail(detail.encode());
    wait()
}

const KIND: usize = 0b11;
const LOCK: usize = 0;
const DESCRIPTOR: usize = 1;
const ARMS: usize = 2;
const THREAD: usize = 3;

impl Detail<'_> {
    /// Not zero.
    fn encode(self) -> usize {
        match self {
            Detail::Lock(word) => ptr::from_ref(word).expose_provenance() | LOCK,
            Detail::Descriptor(descriptor) => (descriptor as usize) << 2 | DESCRIPTOR,
            Detail::Arms(arms) => ptr::from_ref(arms).expose_provenance() | ARMS,
            Detail::Thread => THREAD,
        }
    }
}

/// What a header's word says, without what it leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    Nothing,
    Lock,
    Descriptor(u64),
    Arms,
    Thread,
}

impl Noted {
    pub(crate) fn of(word: usize) -> Noted {
        match word & KIND {
            _ if word == 0 => Noted::Nothing,
            LOCK => Noted::Lock,
            DESCRIPTOR => Noted::Descriptor((word >> 2) as u64),
            ARMS => Noted::Arms,
            _ => Noted::Thread,
        }
    }
}

/// The word of a header whose party is parked, with the right to follow it.
pub(crate) struct Followed<'a>(usize, PhantomData<&'a Header>);

impl<'a> Followed<'a> {
    /// # Safety
    ///
    /// `word` is that of the header of a party that is parked, and cannot go on while `'a` lasts: on its worker's own
    /// stack.
    pub(crate) unsafe fn new(word: usize) -> Followed<'a> {
        Followed(word, PhantomData)
    }

    /// The lock's word.
    pub(crate) fn lock(&self) -> Option<&'a AtomicU64> {
        // SAFETY: `while_waiting_for`, which sets it and takes it back, borrows the word meanwhile, and has
        // not returned, as the party is parked in it.
        (Noted::of(self.0) == Noted::Lock)
            .then(|| unsafe { &*ptr::with_exposed_provenance::<AtomicU64>(self.0) })
    }

    /// The operations.
    pub(crate) fn arms(&self) -> &'a [&'a dyn Operation] {
        if Noted::of(self.0) != Noted::Arms {
            return &[];
        }
        // SAFETY: as in `lock`. This is the thread of the party that shares them, so they need not be Sync.
        unsafe { (*ptr::with_exposed_provenance::<Arms<'a>>(self.0 & !KIND)).0 }
    }
}
