//! Parties in line: what locks, channels and sockets keep their waiters in.
//!
//! An intrusive list under a small lock. A waiter's node lies on its frame; it is touched by others only
//! under the lock, and it is out of the list before the waiter leaves. `T` is the owner's own state that the same
//! lock guards (a count, a flag), so that "is it still not possible?" and "then put me in line" are
//! one step: [`WaitQueue::wait`] is the whole contract of [`park`](crate::park) in one call.
//!
//! First come, first served. A waiter that was chosen while it gave up is passed over in the same
//! step, so a wake-up is never spent on somebody who does not take it.

use std::cell::Cell;
use std::ptr;
use std::time::Instant;

use crate::atomic::{Mutex, MutexGuard, lock};
use crate::no_unwind::AbortOnUnwind;
use crate::park::{Op, Outcome, Parker, Wake};

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

struct Node<W> {
    parker: Parker,
    tag: W,
    previous: Cell<*mut Node<W>>,
    next: Cell<*mut Node<W>>,
    linked: Cell<bool>,
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
    /// In a [forked child](crate::in_forked_child), if it has to wait.
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
    /// In a [forked child](crate::in_forked_child).
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
        let node = Node {
            parker: Parker::new(),
            tag,
            previous: Cell::new(ptr::null_mut()),
            next: Cell::new(ptr::null_mut()),
            linked: Cell::new(false),
        };
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
        loop {
            let node = self.inner.waiters.first;
            if node.is_null() {
                return None;
            }
            // SAFETY: nodes in the list are alive while the lock is held. A waiter that was chosen
            // may leave, so the node is not touched after that; one that gave up takes this lock
            // before it leaves. Out of the list, so no other waker has it.
            unsafe {
                self.inner.waiters.remove(node);
                exchange(&(*node).tag);
                if let Some(wake) = Parker::choose(&raw const (*node).parker) {
                    return Some(wake);
                }
                exchange(&(*node).tag);
            }
        }
    }

    /// Takes all waiters out of the line, and chooses them; how many, and those to be woken yet.
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
    ///         let (chosen, wakes) = queue.lock().choose_all();
    ///         drop(wakes); // The lock has been released.
    ///         all += chosen;
    ///         thread::yield_now();
    ///     }
    /// });
    /// ```
    pub fn choose_all(&mut self) -> (usize, Vec<Wake>) {
        let (mut chosen, mut remote) = (0, Vec::new());
        while let Some(wake) = self.choose_first(|_| {}) {
            chosen += 1;
            if wake.is_pending() {
                remote.push(wake);
            }
        }
        (chosen, remote)
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
        let mut node = self.inner.waiters.first;
        while !node.is_null() {
            // SAFETY: nodes in the list are alive while the lock is held; the parker's frame
            // stays until it is rung, and the node is out of the list by then.
            unsafe {
                let next = (*node).next.get();
                if suits(&(*node).tag) {
                    self.inner.waiters.remove(node);
                    if Parker::unpark(&raw const (*node).parker) {
                        return true;
                    }
                }
                node = next;
            }
        }
        false
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

impl<W> List<W> {
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
            (*node).previous.set(previous);
            (*node).next.set(next);
            (*node).linked.set(true);
            match previous.as_ref() {
                Some(previous) => previous.next.set(node),
                None => self.first = node,
            }
            match next.as_ref() {
                Some(next) => next.previous.set(node),
                None => self.last = node,
            }
        }
    }

    /// Takes `node` out if it is in.
    ///
    /// # Safety
    ///
    /// `node` is alive, and in this list or in none.
    unsafe fn remove(&mut self, node: *const Node<W>) {
        // SAFETY: the caller's promise, and the list's nodes are alive under the lock.
        unsafe {
            if !(*node).linked.replace(false) {
                return;
            }
            let (previous, next) = ((*node).previous.get(), (*node).next.get());
            match previous.as_ref() {
                Some(previous) => previous.next.set(next),
                None => self.first = next,
            }
            match next.as_ref() {
                Some(next) => next.previous.set(previous),
                None => self.last = previous,
            }
        }
    }
}
