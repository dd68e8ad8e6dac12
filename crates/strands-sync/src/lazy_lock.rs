//! A value that is made when it is first asked for.
//!
//! There is one closure, which is gone once it was called. So a fiber that runs it is shielded: a cancel is held
//! back until the value is there. Otherwise the first request that is given up would poison a static
//! for the whole process.

use std::cell::UnsafeCell;
use std::fmt;
use std::hint;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};

use strands_sched::uncancellable;

use crate::once::Once;

/// A value that is made when it is first asked for, as `std::sync::LazyLock`, for fibers and plain threads alike.
///
/// While one party makes the value, others that ask for it wait. A fiber that makes it is cancelled
/// only after.
///
/// # Examples
///
/// ```
/// use strands_sync::LazyLock;
///
/// static TABLE: LazyLock<Vec<u32>> = LazyLock::new(|| (0..5).map(|n| n * n).collect());
/// assert_eq!(TABLE[3], 9);
/// ```
pub struct LazyLock<T, F = fn() -> T> {
    once: Once,
    /// Changed by who is at it; shared from when `once` is done, as a `Value`.
    state: UnsafeCell<State<T, F>>,
}

enum State<T, F> {
    Closure(F),
    Value(T),
    /// The closure is running, or has panicked.
    Neither,
}

// SAFETY: `&T` is given out to many, and the value may be dropped by another than who has made it. No
// `&F` is given out.
unsafe impl<T: Sync + Send, F: Send> Sync for LazyLock<T, F> {}
impl<T: RefUnwindSafe + UnwindSafe, F: UnwindSafe> RefUnwindSafe for LazyLock<T, F> {}
impl<T: UnwindSafe, F: UnwindSafe> UnwindSafe for LazyLock<T, F> {}

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    /// To be made by `f`.
    ///
    /// # Examples
    ///
    /// ```
    /// let lazy = strands_sync::LazyLock::new(|| "hello".to_uppercase());
    /// assert_eq!(*lazy, "HELLO");
    /// ```
    #[cfg(not(loom))]
    #[inline]
    pub const fn new(f: F) -> LazyLock<T, F> {
        LazyLock { once: Once::new(), state: UnsafeCell::new(State::Closure(f)) }
    }

    /// To be made by `f`.
    #[cfg(loom)]
    pub fn new(f: F) -> LazyLock<T, F> {
        LazyLock { once: Once::new(), state: UnsafeCell::new(State::Closure(f)) }
    }

    /// The value; makes it if it is not there. Waits while somebody else does.
    ///
    /// # Panics
    ///
    /// If the closure panics or has panicked, or if called from within it.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::LazyLock;
    ///
    /// let lazy = LazyLock::new(|| 92);
    /// assert_eq!(LazyLock::force(&lazy), &92);
    /// assert_eq!(&*lazy, &92);
    /// ```
    #[inline]
    #[track_caller]
    pub fn force(this: &LazyLock<T, F>) -> &T {
        this.once.call_once_force(|_| {
            // SAFETY: while this closure runs nobody else looks at the state. What `get` gives is
            // not kept while `f` runs, which may look at what it finds here.
            let state = this.state.get();
            // SAFETY: as above.
            let value = make(unsafe { mem::replace(&mut *state, State::Neither) });
            // SAFETY: as above.
            unsafe { *state = State::Value(value) };
        });
        // SAFETY: it is done.
        unsafe { this.value() }
    }

    /// The value, to be changed; makes it if it is not there.
    ///
    /// # Panics
    ///
    /// As [`force`](Self::force).
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::LazyLock;
    ///
    /// let mut lazy = LazyLock::new(|| 92);
    /// *LazyLock::force_mut(&mut lazy) += 1;
    /// assert_eq!(*lazy, 93);
    /// ```
    #[inline]
    #[track_caller]
    pub fn force_mut(this: &mut LazyLock<T, F>) -> &mut T {
        if !matches!(this.state.get_mut(), State::Value(_)) {
            let value = make(mem::replace(this.state.get_mut(), State::Neither));
            *this.state.get_mut() = State::Value(value);
            this.once = Once::new_complete();
        }
        LazyLock::get_mut(this).expect("it is there by now")
    }
}

/// Makes the value, if the closure is there.
#[track_caller]
fn make<T, F: FnOnce() -> T>(state: State<T, F>) -> T {
    match state {
        State::Closure(f) => uncancellable(f),
        _ => panic!("LazyLock instance has previously been poisoned"),
    }
}

impl<T, F> LazyLock<T, F> {
    /// The value, if it is there. Never waits.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::LazyLock;
    ///
    /// let lazy = LazyLock::new(|| 92);
    /// assert_eq!(LazyLock::get(&lazy), None);
    /// LazyLock::force(&lazy);
    /// assert_eq!(LazyLock::get(&lazy), Some(&92));
    /// ```
    #[inline]
    pub fn get(this: &LazyLock<T, F>) -> Option<&T> {
        // SAFETY: it is done.
        if this.once.is_completed() { Some(unsafe { this.value() }) } else { None }
    }

    /// The value, if it is there, to be changed.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::LazyLock;
    ///
    /// let mut lazy = LazyLock::new(|| 92);
    /// assert_eq!(LazyLock::get_mut(&mut lazy), None);
    /// LazyLock::force(&lazy);
    /// *LazyLock::get_mut(&mut lazy).unwrap() = 44;
    /// assert_eq!(*lazy, 44);
    /// ```
    #[inline]
    pub fn get_mut(this: &mut LazyLock<T, F>) -> Option<&mut T> {
        match this.state.get_mut() {
            State::Value(value) => Some(value),
            _ => None,
        }
    }

    /// # Safety
    ///
    /// It is done.
    #[inline]
    unsafe fn value(&self) -> &T {
        // SAFETY: nobody writes the state while the value is shared.
        match unsafe { &*self.state.get() } {
            State::Value(value) => value,
            // SAFETY: `once` is done by who has put a `Value` there.
            _ => unsafe { hint::unreachable_unchecked() },
        }
    }
}

impl<T, F: FnOnce() -> T> Deref for LazyLock<T, F> {
    type Target = T;

    #[inline]
    #[track_caller]
    fn deref(&self) -> &T {
        LazyLock::force(self)
    }
}

impl<T, F: FnOnce() -> T> DerefMut for LazyLock<T, F> {
    #[inline]
    #[track_caller]
    fn deref_mut(&mut self) -> &mut T {
        LazyLock::force_mut(self)
    }
}

impl<T: Default> Default for LazyLock<T> {
    fn default() -> LazyLock<T> {
        LazyLock::new(T::default)
    }
}

impl<T: fmt::Debug, F> fmt::Debug for LazyLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_tuple("LazyLock");
        match LazyLock::get(self) {
            Some(value) => debug.field(value),
            None => debug.field(&format_args!("<uninit>")),
        };
        debug.finish()
    }
}
