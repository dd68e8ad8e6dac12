//! Parties in line: what locks, channels and sockets keep their waiters in.
//!
//! An intrusive list under a small lock. A waiter's node lies on its frame; it is touched by others only
//! under the lock, and it is out of the list before the waiter leaves. `T` is the owner's own state that the same
//! lock guards (a count, a flag), so that "is it still not possible?" and "then put me in line" are
//! one step: [`WaitQueue::wait`] is the whole contract of [`park`](crate::park) in one call.
//!
//! First come, first served. A waiter that was chosen while it gave up is passed over in the same
//! step, so a wake-up is never spent on somebody who does not take it.
//!
//! Nobody allocates: neither who waits nor who wakes. [`Locked::release_all`] takes the whole line out in one step,
//! hung on an anchor on its own frame, and then lets the lock go for each wake that may be a system call. Turned
//! down: an array of those to be woken (it allocates, or chooses those who came in between two
//! fillings), and to wake under the lock (a system call for each plain thread in line).

use std::cell::{Cell, UnsafeCell};
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::time::Instant;

use crate::atomic::{Mutex, MutexGuard, lock};
use crate::fork;
use crate::no_unwind::AbortOnUnwind;
use crate::park::{Op, Outcome, Parker, Wake};
use crate::select::Arm;

/// State `T` and the parties that wait for it to change; each carries a tag `W`.
///
/// ```
/// use strands_sched::{Op, Outcome, WaitQueue, cancel_unwind};
///
/// struct Semaphore {
///     permits: WaitQueue<usize>,
/// }
///
/// impl Semaphore {
///     fn acquire(&self) {
///         static ACQUIRE: Op = Op("Semaphore::acquire");
///         let take = |permits: &mut usize| permits.checked_sub(1).map(|left| *permits = left);
///         loop {
///             match self.permits.wait(&ACQUIRE, None, (), take) {
///                 Ok(()) => return,
///                 Err(Outcome::Cancelled) => cancel_unwind(),
///                 Err(_) => {} // There is one, unless somebody else was faster.
///             }
///         }
///     }
///
///     fn release(&self) {
///         let mut permits = self.permits.lock();
///         *permits += 1;
///         permits.wake_first(|()| true);
///     }
/// }
///
/// let semaphore = Semaphore { permits: WaitQueue::new(0) };
/// std::thread::scope(|scope| {
///     scope.spawn(|| semaphore.acquire());
///     semaphore.release();
/// });
/// assert_eq!(*semaphore.permits.lock(), 0);
/// ```
pub struct WaitQueue<T, W = ()> {
    inner: Mutex<Inner<T, W>>,
}

struct Inner<T, W> {
    state: T,
    waiters: List<W>,
}

struct List<W> {
    first: *mut Node<W>,
    last: *mut Node<W>,
}

#[repr(C)] // A pointer to a node is one to its links.
struct Node<W> {
    links: Links<W>,
    linked: Cell<bool>,
    parker: Parker,
    tag: W,
}

/// A place in line for an [operation](crate::Operation) of a select.
///
/// ```
/// use strands_sched::Waiter;
///
/// struct Receive {
///     waiter: Waiter<()>, // Where it is enrolled while a select waits.
/// }
/// let receive = Receive { waiter: Waiter::new() };
/// assert!(!receive.waiter.is_enrolled());
/// ```
pub struct Waiter<W> {
    /// There while it is enrolled.
    node: UnsafeCell<MaybeUninit<Node<W>>>,
    /// The address of the queue that it is enrolled in; 0: in none.
    queue: Cell<usize>,
}

impl<W> Default for Waiter<W> {
    fn default() -> Waiter<W> {
        Waiter::new()
    }
}

impl<W> Waiter<W> {
    /// One that is in no line.
    ///
    /// ```
    /// let waiter: strands_sched::Waiter<u32> = strands_sched::Waiter::new();
    /// assert!(!waiter.is_enrolled());
    /// ```
    pub const fn new() -> Waiter<W> {
        Waiter { node: UnsafeCell::new(MaybeUninit::uninit()), queue: Cell::new(0) }
    }

    /// Whether a select that waits uses it.
    ///
    /// ```
    /// assert!(!strands_sched::Waiter::<()>::new().is_enrolled());
    /// ```
    #[inline]
    pub fn is_enrolled(&self) -> bool {
        self.queue.get() != 0
    }

    /// The line it is enrolled in, as reports call it: the object of who waits there. 0: in none.
    ///
    /// ```
    /// assert_eq!(strands_sched::Waiter::<()>::new().line(), 0);
    /// ```
    pub fn line(&self) -> usize {
        self.queue.get()
    }

    /// For [`Operation::attempt`](crate::Operation::attempt).
    ///
    /// # Panics
    ///
    /// If a select that waits uses it.
    ///
    /// ```
    /// strands_sched::Waiter::<()>::new().assert_idle();
    /// ```
    #[inline]
    pub fn assert_idle(&self) {
        assert!(!self.is_enrolled(), "an operation is used by a select that waits");
    }

    fn node(&self) -> *mut Node<W> {
        self.node.get().cast()
    }
}

/// The neighbours. In the line's list null is its end; in a list that hangs on an anchor, which is a ring,
/// the anchor is. So a node may be taken out without knowing in which of the two it is.
struct Links<W> {
    previous: Cell<*mut Node<W>>,
    next: Cell<*mut Node<W>>,
}

// SAFETY: the raw pointers lead to nodes on the frames of parties that wait, used under the lock.
// So are their tags: by one thread at a time, for which `W: Send` is enough.
unsafe impl<T: Send, W: Send> Send for Inner<T, W> {}

impl<T: Default, W> Default for WaitQueue<T, W> {
    fn default() -> Self {
        WaitQueue::new(T::default())
    }
}

impl<T, W> WaitQueue<T, W> {
    const EMPTY: List<W> = List { first: ptr::null_mut(), last: ptr::null_mut() };

    /// A queue in which nobody waits.
    ///
    /// ```
    /// static OPEN: strands_sched::WaitQueue<bool> = strands_sched::WaitQueue::new(false);
    /// assert!(!*OPEN.lock());
    /// ```
    #[cfg(not(loom))]
    pub const fn new(state: T) -> Self {
        WaitQueue { inner: Mutex::new(Inner { state, waiters: Self::EMPTY }) }
    }

    /// A queue in which nobody waits.
    #[cfg(loom)]
    pub fn new(state: T) -> Self {
        WaitQueue { inner: Mutex::new(Inner { state, waiters: Self::EMPTY }) }
    }

    /// The state and the waiters. Do not wait while holding this.
    ///
    /// ```
    /// let count: strands_sched::WaitQueue<u32> = strands_sched::WaitQueue::new(0);
    /// *count.lock() += 1;
    /// assert_eq!(*count.lock(), 1);
    /// ```
    #[inline]
    pub fn lock(&self) -> Locked<'_, T, W> {
        Locked { queue: self, inner: lock(&self.inner) }
    }

    /// The state, without locking.
    ///
    /// ```
    /// let mut count: strands_sched::WaitQueue<u32> = strands_sched::WaitQueue::new(0);
    /// *count.get_mut() += 1;
    /// assert_eq!(*count.lock(), 1);
    /// ```
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).state
    }

    /// The state.
    ///
    /// ```
    /// let count: strands_sched::WaitQueue<u32> = strands_sched::WaitQueue::new(0);
    /// *count.lock() += 1;
    /// assert_eq!(count.into_inner(), 1);
    /// ```
    pub fn into_inner(self) -> T {
        self.inner.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).state
    }

    /// Waits at the end of the line until chosen by [`Locked::wake_first`] or `wake_all`, unless
    /// `attempt`, which is asked once under the lock, finds that there is no need: then its value
    /// comes back at once.
    ///
    /// # Errors
    ///
    /// How the wait ended, also if it ended well: the operation is not done yet. On `TimedOut` and
    /// `Cancelled` the waiter has left the line and nobody has chosen it.
    ///
    /// # Panics
    ///
    /// In a [forked child](crate::in_forked_child), if it has to wait and `deadline` has not passed.
    ///
    /// ```
    /// use std::time::Instant;
    /// use strands_sched::{Op, Outcome, WaitQueue};
    ///
    /// static POP: Op = Op("pop");
    /// let stack: WaitQueue<Vec<u32>> = WaitQueue::new(vec![7]);
    /// let pop = || stack.wait(&POP, Some(Instant::now()), (), Vec::pop);
    /// assert_eq!(pop(), Ok(7));
    /// assert_eq!(pop(), Err(Outcome::TimedOut));
    /// ```
    pub fn wait<R>(
        &self,
        op: &'static Op,
        deadline: Option<Instant>,
        tag: W,
        attempt: impl FnOnce(&mut T) -> Option<R>,
    ) -> Result<R, Outcome> {
        let mut locked = self.lock();
        if let Some(value) = attempt(&mut locked.inner.state) {
            return Ok(value);
        }
        Err(locked.wait(Place::Last, op, deadline, tag, || {}))
    }

    /// Takes a `waiter` that was [enrolled](Locked::enrol) in this queue out of it, if it is there.
    ///
    /// For [`Operation::withdraw`](crate::Operation::withdraw); see there for the whole.
    ///
    /// # Panics
    ///
    /// If it was enrolled in another queue.
    ///
    /// ```
    /// use strands_sched::{WaitQueue, Waiter};
    ///
    /// let (queue, waiter) = (WaitQueue::new(()), Waiter::<()>::new());
    /// queue.withdraw(&waiter); // It is in no line.
    /// assert!(queue.lock().is_empty());
    /// ```
    pub fn withdraw(&self, waiter: &Waiter<W>) {
        if !waiter.is_enrolled() {
            return;
        }
        assert_eq!(waiter.queue.get(), ptr::from_ref(self).addr(), "a waiter is in another queue");
        let node = waiter.node();
        // SAFETY: it is there. If it was chosen it is in no line, and nobody looks at it any more; if not, it may be in
        // this one, and who has it holds the lock.
        unsafe {
            if !(*node).parker.was_chosen() {
                self.lock().inner.waiters.remove(node);
            }
            node.drop_in_place();
        }
        waiter.queue.set(0);
    }
}

impl<T: std::fmt::Debug, W> std::fmt::Debug for WaitQueue<T, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitQueue").field("state", &self.lock().inner.state).finish_non_exhaustive()
    }
}

/// Where in the line a waiter enrols.
///
/// ```
/// use std::time::Instant;
/// use strands_sched::{Op, Outcome, Place, WaitQueue};
///
/// static WAIT: Op = Op("an example");
/// let queue: WaitQueue<()> = WaitQueue::new(());
/// // It was woken, but somebody else was faster: it does not line up behind all others again.
/// let outcome = queue.lock().wait(Place::First, &WAIT, Some(Instant::now()), (), || {});
/// assert_eq!(outcome, Outcome::TimedOut);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Behind all others.
    Last,
    /// Before all others: for one that was chosen before and came too late.
    First,
}

/// A [`WaitQueue`]'s state and waiters, locked. Dereferences to the state.
///
/// ```
/// use strands_sched::{Locked, WaitQueue};
///
/// fn open(mut is_open: Locked<'_, bool, ()>) -> usize {
///     *is_open = true;
///     is_open.wake_all(|()| true)
/// }
/// let gate: WaitQueue<bool> = WaitQueue::new(false);
/// assert_eq!(open(gate.lock()), 0, "nobody waits");
/// assert!(gate.into_inner());
/// ```
pub struct Locked<'a, T, W> {
    queue: &'a WaitQueue<T, W>,
    inner: MutexGuard<'a, Inner<T, W>>,
}

impl<T, W> std::ops::Deref for Locked<'_, T, W> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner.state
    }
}

impl<T, W> std::ops::DerefMut for Locked<'_, T, W> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner.state
    }
}

impl<T, W> Locked<'_, T, W> {
    /// Whether nobody waits.
    ///
    /// ```
    /// let queue: strands_sched::WaitQueue<()> = strands_sched::WaitQueue::new(());
    /// assert!(queue.lock().is_empty());
    /// ```
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.inner.waiters.first.is_null()
    }

    /// Gets in line, unlocks, calls `enrolled`, and waits until chosen. See [`WaitQueue::wait`].
    ///
    /// `enrolled` is for what may only be let go once the waiter can be found. A panic in it
    /// aborts the process, as the waiter's frame must not be left while it is in line.
    ///
    /// # Panics
    ///
    /// In a [forked child](crate::in_forked_child), unless `deadline` has passed.
    ///
    /// ```
    /// use std::sync::Mutex;
    /// use std::time::{Duration, Instant};
    /// use strands_sched::{Op, Outcome, Place, WaitQueue};
    ///
    /// static WAIT: Op = Op("Condvar::wait");
    /// let mutex = Mutex::new(());
    /// let changed: WaitQueue<()> = WaitQueue::new(());
    /// let guard = mutex.lock().unwrap();
    /// let deadline = Some(Instant::now() + Duration::from_millis(1));
    /// // Who unlocks only now, in line, misses no change made under the mutex.
    /// let outcome = changed.lock().wait(Place::Last, &WAIT, deadline, (), || drop(guard));
    /// assert_eq!(outcome, Outcome::TimedOut);
    /// ```
    #[inline]
    pub fn wait(
        mut self,
        place: Place,
        op: &'static Op,
        deadline: Option<Instant>,
        tag: W,
        enrolled: impl FnOnce(),
    ) -> Outcome {
        if fork::in_forked_child() {
            fork::assert_may_wait(deadline);
            drop(self);
            enrolled(); // As good as in line: no time is left in which it could be chosen.
            return Outcome::TimedOut;
        }
        let node =
            Node { links: Links::new(), linked: Cell::new(false), parker: Parker::new(), tag };
        let in_line = AbortOnUnwind("a panic in the middle of a wait would leave a waiter in line");
        // SAFETY: the node stays on this frame until `park` returns; an unwinding aborts. By then
        // it is out of the list: the waker that rang took it out, or the closure did.
        unsafe { self.inner.waiters.push(&node, place) };
        let queue = self.queue;
        drop(self);
        enrolled();
        let outcome = node.parker.park(op, ptr::from_ref(queue).addr(), deadline, || {
            // SAFETY: the node is ours, and in this list or in none.
            unsafe { queue.lock().inner.waiters.remove(&node) };
            // Under the lock nobody else looks at it, and now nobody can find it.
            true
        });
        in_line.disarm();
        outcome
    }

    /// Puts a select's `arm` at the end of the line; if it is there already it stays where it is.
    ///
    /// Always true, for [`Operation::enrol`](crate::Operation::enrol); see there for the whole.
    ///
    /// # Safety
    ///
    /// `waiter` stays where it is until it was [withdrawn](WaitQueue::withdraw) from this queue.
    ///
    /// # Panics
    ///
    /// If another select uses `waiter`, or it is enrolled in another queue.
    ///
    /// ```
    /// use strands_sched::{Arm, WaitQueue, Waiter};
    ///
    /// /// # Safety
    /// ///
    /// /// `waiter` stays where it is until it was withdrawn.
    /// unsafe fn stand_in_line(queue: &WaitQueue<()>, waiter: &Waiter<()>, arm: Arm<'_>) -> bool {
    ///     // SAFETY: the caller's promise.
    ///     unsafe { queue.lock().enrol(waiter, arm, ()) }
    /// }
    /// ```
    pub unsafe fn enrol(&mut self, waiter: &Waiter<W>, arm: Arm<'_>, tag: W) -> bool {
        let (node, queue) = (waiter.node(), ptr::from_ref(self.queue).addr());
        // SAFETY: the node is there while it is enrolled. If not it is the caller's alone, and stays where it is.
        unsafe {
            if waiter.is_enrolled() {
                assert_eq!(waiter.queue.get(), queue, "a waiter is in another queue");
                assert!(arm.is_of_same(&(*node).parker), "an operation is in two selects at once");
                return true;
            }
            waiter.queue.set(queue);
            arm.joins(queue);
            let (links, linked) = (Links::new(), Cell::new(false));
            node.write(Node { links, linked, parker: arm.parker(), tag });
            self.inner.waiters.push(node, Place::Last);
        }
        true
    }

    /// Looks at those in line who can be chosen still and whose tag suits: until one is found that is not of the select
    /// that `arm` is of. With [`Seen::own`], its own arms were among them.
    ///
    /// ```
    /// use strands_sched::{Arm, WaitQueue};
    ///
    /// /// Whether an operation looks possible, if all that it needs is somebody else in line.
    /// fn would_meet(queue: &WaitQueue<()>, arm: Arm<'_>) -> bool {
    ///     queue.lock().look_for(arm, |()| true).other
    /// }
    /// ```
    pub fn look_for(&self, arm: Arm<'_>, suits: impl Fn(&W) -> bool) -> Seen {
        let mut seen = Seen { own: false, other: false };
        let mut node = self.inner.waiters.first;
        while !node.is_null() && !seen.other {
            // SAFETY: nodes in the list, and the frames that they are on, are alive while the lock is held.
            unsafe {
                if suits(&(*node).tag) && (*node).parker.is_waiting() {
                    let own = arm.is_of_same(&(*node).parker);
                    seen = Seen { own: seen.own || own, other: !own };
                }
                node = (*node).links.next.get();
            }
        }
        seen
    }

    /// Takes the first waiter out of the line, and chooses it. None if nobody waits.
    ///
    /// `exchange` is called with its tag before the waiter can know, to pass something through the tag. If
    /// the waiter turns out to have given up, `exchange` is called with the same tag once more,
    /// which must undo the first call, and then with the next waiter's.
    ///
    /// ```
    /// use std::thread;
    /// use strands_sched::{Op, Outcome, WaitQueue};
    ///
    /// static WAIT: Op = Op("an example");
    /// let queue: WaitQueue<()> = WaitQueue::new(());
    /// thread::scope(|scope| {
    ///     let waiter = scope.spawn(|| queue.wait(&WAIT, None, (), |()| None::<()>));
    ///     loop {
    ///         let chosen = queue.lock().choose_first(|()| {});
    ///         // The lock has been released: waking another thread may take a system call.
    ///         match chosen {
    ///             Some(wake) => break drop(wake),
    ///             None => thread::yield_now(), // It is not in line yet.
    ///         }
    ///     }
    ///     assert_eq!(waiter.join().unwrap(), Err(Outcome::Woken));
    /// });
    /// ```
    #[inline]
    pub fn choose_first(&mut self, exchange: impl Fn(&W)) -> Option<Wake> {
        self.choose_first_if(|_| true, exchange)
    }

    /// As [`choose_first`](Self::choose_first), but nobody is chosen once the first in line does
    /// not suit: those behind it are not asked, so it is not overtaken. But if it is a select's, which may
    /// be content with something else, its other arms in this line are asked.
    ///
    /// ```
    /// use std::thread;
    /// use strands_sched::{Op, WaitQueue};
    ///
    /// static WAIT: Op = Op("an example");
    /// let queue: WaitQueue<(), u32> = WaitQueue::new(());
    /// thread::scope(|scope| {
    ///     scope.spawn(|| queue.wait(&WAIT, None, 3, |()| None::<()>));
    ///     while queue.lock().is_empty() {
    ///         thread::yield_now(); // It is not in line yet.
    ///     }
    ///     let choose_up_to = |limit| queue.lock().choose_first_if(|&tag| tag <= limit, |_| {});
    ///     assert!(choose_up_to(2).is_none());
    ///     assert!(choose_up_to(3).is_some());
    /// });
    /// ```
    #[inline]
    pub fn choose_first_if(
        &mut self,
        suits: impl Fn(&W) -> bool,
        exchange: impl Fn(&W),
    ) -> Option<Wake> {
        loop {
            let mut node = self.inner.waiters.first;
            if node.is_null() {
                return None;
            }
            // SAFETY: nodes in the list are alive while the lock is held.
            unsafe {
                if !suits(&(*node).tag) {
                    node = self.inner.waiters.arm_beside(node, &suits)?;
                }
                if let Some(wake) = self.choose(node, &exchange) {
                    return Some(wake);
                }
            }
        }
    }

    /// Takes `node` out and chooses it, unless it has given up.
    ///
    /// # Safety
    ///
    /// `node` is in the list. It may be gone after the call.
    #[inline]
    unsafe fn choose(&mut self, node: *mut Node<W>, exchange: impl Fn(&W)) -> Option<Wake> {
        // SAFETY: the caller's promise, and nodes in the list are alive while the lock is held. A
        // waiter that was chosen may leave, so the node is not touched after that; one that gave up
        // takes this lock before it leaves. Out of the list, so no other waker has it.
        unsafe {
            self.inner.waiters.remove(node);
            exchange(&(*node).tag);
            let wake = Parker::choose(&raw const (*node).parker);
            if wake.is_none() {
                exchange(&(*node).tag);
            }
            wake
        }
    }

    /// Takes all waiters out of the line in one step, unlocks, and wakes them; says how many.
    ///
    /// Who gets in line meanwhile is not woken. Drop other locks first: waking takes system calls.
    ///
    /// ```
    /// use std::thread;
    /// use strands_sched::{Op, WaitQueue};
    ///
    /// static WAIT: Op = Op("an example");
    /// let queue: WaitQueue<()> = WaitQueue::new(());
    /// thread::scope(|scope| {
    ///     for _ in 0..2 {
    ///         scope.spawn(|| queue.wait(&WAIT, None, (), |()| None::<()>));
    ///     }
    ///     let mut all = 0;
    ///     while all < 2 {
    ///         all += queue.lock().release_all();
    ///         thread::yield_now();
    ///     }
    /// });
    /// ```
    pub fn release_all(mut self) -> usize {
        if self.is_empty() {
            return 0;
        }
        let anchor = Links::new();
        let in_line = AbortOnUnwind("a panic amid waking would leave a dangling anchor");
        // SAFETY: the anchor stays on this frame until nothing hangs on it; an unwinding aborts.
        unsafe { self.inner.waiters.hang_on(&anchor) };
        let queue = self.queue;
        let mut woken = 0;
        while ptr::from_ref(&anchor) != anchor.next.get().cast() {
            let node = anchor.next.get();
            // SAFETY: as in `choose_first_if`: the lock is held, so what hangs on the anchor is alive.
            let chosen = unsafe {
                self.inner.waiters.remove(node);
                Parker::choose(&raw const (*node).parker)
            };
            woken += usize::from(chosen.is_some());
            if chosen.as_ref().is_some_and(Wake::is_pending) {
                drop(self);
                drop(chosen);
                self = queue.lock();
            }
        }
        in_line.disarm();
        woken
    }

    /// As [`choose_first`](Self::choose_first), for the first whose tag suits, wherever in the line it is.
    ///
    /// ```
    /// use std::thread;
    /// use strands_sched::{Op, WaitQueue};
    ///
    /// static WAIT: Op = Op("an example");
    /// let queue: WaitQueue<(), &str> = WaitQueue::new(());
    /// thread::scope(|scope| {
    ///     scope.spawn(|| queue.wait(&WAIT, None, "reader", |()| None::<()>));
    ///     let choose = |wanted| queue.lock().choose_suiting(|&tag| tag == wanted, |_| {});
    ///     assert!(choose("writer").is_none());
    ///     while choose("reader").is_none() {
    ///         thread::yield_now(); // It is not in line yet.
    ///     }
    /// });
    /// ```
    pub fn choose_suiting(
        &mut self,
        suits: impl Fn(&W) -> bool,
        exchange: impl Fn(&W),
    ) -> Option<Wake> {
        let mut node = self.inner.waiters.first;
        while !node.is_null() {
            // SAFETY: nodes in the list are alive while the lock is held, and `next` is another's.
            unsafe {
                let next = (*node).links.next.get();
                if suits(&(*node).tag)
                    && let Some(wake) = self.choose(node, &exchange)
                {
                    return Some(wake);
                }
                node = next;
            }
        }
        None
    }

    /// Wakes the first waiter whose tag suits; false if there is none.
    ///
    /// ```
    /// use std::thread;
    /// use strands_sched::{Op, WaitQueue};
    ///
    /// static WAIT: Op = Op("an example");
    /// let queue: WaitQueue<(), &str> = WaitQueue::new(());
    /// thread::scope(|scope| {
    ///     scope.spawn(|| queue.wait(&WAIT, None, "reader", |()| None::<()>));
    ///     assert!(!queue.lock().wake_first(|&tag| tag == "writer"));
    ///     while !queue.lock().wake_first(|&tag| tag == "reader") {
    ///         thread::yield_now(); // It is not in line yet.
    ///     }
    /// });
    /// ```
    pub fn wake_first(&mut self, suits: impl Fn(&W) -> bool) -> bool {
        self.choose_suiting(suits, |_| {}).is_some()
    }

    /// Wakes every waiter whose tag suits; says how many.
    ///
    /// ```
    /// use std::thread;
    /// use strands_sched::{Op, WaitQueue};
    ///
    /// static WAIT: Op = Op("an example");
    /// let queue: WaitQueue<(), u32> = WaitQueue::new(());
    /// thread::scope(|scope| {
    ///     for tag in [1, 2, 3] {
    ///         let queue = &queue;
    ///         scope.spawn(move || queue.wait(&WAIT, None, tag, |()| None::<()>));
    ///     }
    ///     let mut woken = 0;
    ///     while woken < 3 {
    ///         woken += queue.lock().wake_all(|&tag| tag > 0);
    ///         thread::yield_now();
    ///     }
    /// });
    /// ```
    pub fn wake_all(&mut self, suits: impl Fn(&W) -> bool) -> usize {
        let mut woken = 0;
        while self.wake_first(&suits) {
            woken += 1;
        }
        woken
    }
}

/// Who is in line; see [`Locked::look_for`].
///
/// ```
/// let seen = strands_sched::Seen { own: true, other: false };
/// assert!(seen.own && !seen.other);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// An arm of the same select.
    pub own: bool,
    /// Somebody else.
    pub other: bool,
}

impl<W> Links<W> {
    fn new() -> Links<W> {
        Links { previous: Cell::new(ptr::null_mut()), next: Cell::new(ptr::null_mut()) }
    }
}

impl<W> List<W> {
    /// The first behind `node` that suits and is an arm of the same select.
    ///
    /// # Safety
    ///
    /// `node` is in the list, whose lock is held.
    #[cold]
    unsafe fn arm_beside(
        &self,
        node: *mut Node<W>,
        suits: impl Fn(&W) -> bool,
    ) -> Option<*mut Node<W>> {
        // SAFETY: nodes in the list, and the frames that they are on, are alive while the lock is held.
        unsafe {
            let (choice, _) = (*node).parker.choice()?;
            // Nobody else looks through the whole line.
            if !choice.as_ref().may_share_a_line() {
                return None;
            }
            let mut other = (*node).links.next.get();
            while !other.is_null() {
                let beside = (*other).parker.choice().is_some_and(|(its, _)| its == choice);
                if beside && suits(&(*other).tag) {
                    return Some(other);
                }
                other = (*other).links.next.get();
            }
            None
        }
    }

    /// # Safety
    ///
    /// `node` is in no list, and stays valid until it is removed.
    #[inline]
    unsafe fn push(&mut self, node: *const Node<W>, place: Place) {
        let node = node.cast_mut();
        let (previous, next) = match place {
            Place::Last => (self.last, ptr::null_mut()),
            Place::First => (ptr::null_mut(), self.first),
        };
        // SAFETY: the caller's promise, and the list's nodes are alive under the lock.
        unsafe {
            (*node).links.previous.set(previous);
            (*node).links.next.set(next);
            (*node).linked.set(true);
            self.join(previous, next, node, node);
        }
    }

    /// Takes `node` out if it is in this list, or hangs on an anchor.
    ///
    /// # Safety
    ///
    /// `node` is alive, and in one of the two or in none.
    unsafe fn remove(&mut self, node: *const Node<W>) {
        // SAFETY: the caller's promise, and the neighbours are alive under the lock.
        unsafe {
            if !(*node).linked.replace(false) {
                return;
            }
            let (previous, next) = ((*node).links.previous.get(), (*node).links.next.get());
            self.join(previous, next, next, previous);
        }
    }

    /// Empties this list, which must not be empty; its nodes are a ring with the anchor now.
    ///
    /// # Safety
    ///
    /// The anchor stays where it is until all of them have been removed.
    unsafe fn hang_on(&mut self, anchor: &Links<W>) {
        // As nodes begin with their links, and links is all that is looked at in a neighbour.
        let end = ptr::from_ref(anchor).cast_mut().cast::<Node<W>>();
        anchor.next.set(mem::replace(&mut self.first, ptr::null_mut()));
        anchor.previous.set(mem::replace(&mut self.last, ptr::null_mut()));
        // SAFETY: the list's nodes are alive under the lock, and there is one.
        unsafe {
            (*anchor.next.get()).links.previous.set(end);
            (*anchor.previous.get()).links.next.set(end);
        }
    }

    /// Sets what follows `previous` and what is before `next`; where there is none, the list's ends.
    ///
    /// # Safety
    ///
    /// Each is null, an anchor or a node that is alive.
    #[inline]
    unsafe fn join(
        &mut self,
        previous: *mut Node<W>,
        next: *mut Node<W>,
        follows: *mut Node<W>,
        precedes: *mut Node<W>,
    ) {
        // SAFETY: the caller's promise. Only the links are touched, which an anchor has too.
        unsafe {
            match previous.is_null() {
                true => self.first = follows,
                false => (*previous.cast::<Links<W>>()).next.set(follows),
            }
            match next.is_null() {
                true => self.last = precedes,
                false => (*next.cast::<Links<W>>()).previous.set(precedes),
            }
        }
    }
}
