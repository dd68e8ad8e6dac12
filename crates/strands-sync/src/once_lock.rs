//! A value that is set once.
//!
//! A [`Once`], and an `Option` that is `Some` when that is done. (std's has the value bare, which saves
//! a word for some types. This needs no destructor, which on stable Rust could not let references
//! in `T` end before the lock.)

use std::cell::UnsafeCell;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::once::Once;

/// A value that is set once, as `std::sync::OnceLock`, for fibers and plain threads alike.
///
/// # Examples
///
/// ```
/// use strands_sync::OnceLock;
///
/// static CONFIG: OnceLock<String> = OnceLock::new();
/// assert!(CONFIG.get().is_none());
/// assert_eq!(CONFIG.get_or_init(|| "read from a file".into()), "read from a file");
/// assert!(CONFIG.set("too late".into()).is_err());
/// ```
pub struct OnceLock<T> {
    once: Once,
    /// Written by who is at it; shared from when `once` is done.
    value: UnsafeCell<Option<T>>,
}

// SAFETY: `&T` is given out to many, and the value may be dropped by another than who has set it.
unsafe impl<T: Sync + Send> Sync for OnceLock<T> {}
impl<T: RefUnwindSafe + UnwindSafe> RefUnwindSafe for OnceLock<T> {}
impl<T: UnwindSafe> UnwindSafe for OnceLock<T> {}

impl<T> OnceLock<T> {
    /// Without a value.
    ///
    /// # Examples
    ///
    /// ```
    /// static NAME: strands_sync::OnceLock<&str> = strands_sync::OnceLock::new();
    /// assert_eq!(NAME.get(), None);
    /// ```
    #[cfg(not(loom))]
    #[inline]
    #[must_use]
    pub const fn new() -> OnceLock<T> {
        OnceLock { once: Once::new(), value: UnsafeCell::new(None) }
    }

    /// Without a value.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> OnceLock<T> {
        OnceLock { once: Once::new(), value: UnsafeCell::new(None) }
    }

    /// The value, if it has been set. Never waits.
    ///
    /// # Examples
    ///
    /// ```
    /// let cell = strands_sync::OnceLock::new();
    /// assert_eq!(cell.get(), None);
    /// cell.set(1).unwrap();
    /// assert_eq!(cell.get(), Some(&1));
    /// ```
    #[inline]
    pub fn get(&self) -> Option<&T> {
        // SAFETY: it is done.
        if self.once.is_completed() { Some(unsafe { self.value() }) } else { None }
    }

    /// The value, if it has been set.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut cell = strands_sync::OnceLock::from(1);
    /// *cell.get_mut().unwrap() = 2;
    /// assert_eq!(cell.into_inner(), Some(2));
    /// ```
    #[inline]
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut().as_mut()
    }

    /// Waits until the value is set.
    ///
    /// A cancelled fiber unwinds from here.
    ///
    /// # Panics
    ///
    /// If called from within the closure that makes the value.
    ///
    /// # Examples
    ///
    /// ```
    /// let cell = strands_sync::OnceLock::new();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| cell.set(7).unwrap());
    ///     assert_eq!(cell.wait(), &7);
    /// });
    /// ```
    #[inline]
    #[track_caller]
    pub fn wait(&self) -> &T {
        self.once.wait_force();
        // SAFETY: it is done.
        unsafe { self.value() }
    }

    /// Sets the value, if there is none; waits if somebody is about to.
    ///
    /// # Errors
    ///
    /// If there is a value: then this one comes back.
    ///
    /// # Examples
    ///
    /// ```
    /// let cell = strands_sync::OnceLock::new();
    /// assert_eq!(cell.set(1), Ok(()));
    /// assert_eq!(cell.set(2), Err(2));
    /// ```
    #[inline]
    #[track_caller]
    pub fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.get_or_init(|| value.take().expect("it is called once"));
        value.map_or(Ok(()), Err)
    }

    /// The value; if there is none, the one that `f` makes. Waits while somebody else makes one.
    ///
    /// If `f` panics there is no value yet, and the next call runs its own; so it is if a fiber is
    /// cancelled inside `f`.
    ///
    /// # Panics
    ///
    /// If called from within `f`.
    ///
    /// # Examples
    ///
    /// ```
    /// let cell = strands_sync::OnceLock::new();
    /// assert_eq!(cell.get_or_init(|| "made"), &"made");
    /// assert_eq!(cell.get_or_init(|| unreachable!()), &"made");
    /// ```
    #[inline]
    #[track_caller]
    pub fn get_or_init<F>(&self, f: F) -> &T
    where
        F: FnOnce() -> T,
    {
        if !self.once.is_done() {
            self.initialize(f);
        }
        // SAFETY: it is done, before or by now.
        unsafe { self.value() }
    }

    #[cold]
    #[track_caller]
    fn initialize(&self, f: impl FnOnce() -> T) {
        self.once.call_once_force(|_| {
            let value = f();
            // SAFETY: while the closure runs nobody else reads or writes the value.
            unsafe { *self.value.get() = Some(value) };
        });
    }

    /// The value, if there is one.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(strands_sync::OnceLock::from(3).into_inner(), Some(3));
    /// ```
    #[inline]
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Takes the value out, if there is one; it may be set again.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut cell = strands_sync::OnceLock::from(3);
    /// assert_eq!(cell.take(), Some(3));
    /// assert_eq!(cell.set(4), Ok(()));
    /// ```
    #[inline]
    pub fn take(&mut self) -> Option<T> {
        self.once = Once::new();
        self.value.get_mut().take()
    }

    /// # Safety
    ///
    /// It is done.
    #[inline]
    unsafe fn value(&self) -> &T {
        // SAFETY: the closure that was run to its end has set it, and nobody writes it while it is shared.
        unsafe { (*self.value.get()).as_ref().unwrap_unchecked() }
    }
}

impl<T> Default for OnceLock<T> {
    #[inline]
    fn default() -> OnceLock<T> {
        OnceLock::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_tuple("OnceLock");
        match self.get() {
            Some(value) => debug.field(value),
            None => debug.field(&format_args!("<uninit>")),
        };
        debug.finish()
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    fn clone(&self) -> OnceLock<T> {
        self.get().map_or_else(OnceLock::new, |value| OnceLock::from(value.clone()))
    }
}

impl<T> From<T> for OnceLock<T> {
    #[inline]
    fn from(value: T) -> OnceLock<T> {
        OnceLock { once: Once::new_complete(), value: UnsafeCell::new(Some(value)) }
    }
}

impl<T: PartialEq> PartialEq for OnceLock<T> {
    #[inline]
    fn eq(&self, other: &OnceLock<T>) -> bool {
        self.get() == other.get()
    }
}

impl<T: Eq> Eq for OnceLock<T> {}
