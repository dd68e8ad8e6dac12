//! Thread-locals of fibers.
//!
//! A key is two: the fiber's (strands-sched) and std's, which is asked where no fiber runs. So a
//! plain thread's values are std's own, with std's order of destruction among all thread-locals.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;

use strands_sched::{Access, FiberKey, Lent};

/// A value that each fiber, and each plain thread, has for itself, as `std::thread::LocalKey`.
///
/// [`thread_local!`](crate::thread_local) declares one.
///
/// # Whose value
///
/// The caller's: a fiber's own, wherever its code is called from, also inside of a bare coroutine
/// that the fiber resumes. A plain thread has its own, and it is std's: so do the closures of
/// [`unblock`](crate::unblock), which see the values of the pool's thread that they run on (or,
/// where no such thread can be started, the fiber's), and the hooks of a runtime, which see those
/// of the worker's OS thread.
///
/// # Initialization and destruction
///
/// As std has it on Linux. A value is made at first use; the initializer of a `const` key runs when
/// the program is compiled. When a fiber's closure has returned or unwound, its values are dropped
/// in the reverse order of their making, those too that a destructor makes, before
/// [`join`](crate::thread::JoinHandle::join) returns. Destructors run on the fiber's stack: they
/// may lock, send, sleep and spawn. A fiber that is cancelled drops its values too, and no cancel
/// is delivered to destructors: one that waits for ever holds up a shutdown. A destructor that
/// panics aborts the process, with `thread local panicked on drop`. The fiber of
/// [`#[strands::main]`](crate::main) drops its values before the process ends; `std::process::exit`
/// drops nobody's.
///
/// In contrast to std's, a scope ends after the destructors of its fibers, and
/// [`is_finished`](crate::thread::JoinHandle::is_finished) says `true` after them.
///
/// # Cost
///
/// A fiber pays one word for being able to have values. With its first it gets a table, of a word
/// for each key that any fiber has used up to the highest that it uses itself; and each value lies
/// in an allocation of its own, with 24 bytes of bookkeeping, from the system's allocator. So a
/// global allocator may use such keys, as std says of its own.
///
/// ```
/// use std::cell::Cell;
/// use strands::thread;
///
/// strands::thread_local!(static COUNT: Cell<u32> = const { Cell::new(1) });
///
/// COUNT.set(2);
/// let other = thread::spawn(|| COUNT.replace(3)).join().unwrap();
/// assert_eq!((other, COUNT.get()), (1, 2));
/// ```
pub struct LocalKey<T: 'static> {
    fiber: &'static FiberKey<T>,
    thread: &'static std::thread::LocalKey<T>,
    init: fn() -> T,
    /// Its initial value is a constant, so there is nothing that `set` could spare.
    is_const: bool,
}

/// Declares values that each fiber, and each plain thread, has for itself, as `std::thread_local!`.
///
/// The syntax is std's: any number of declarations, with attributes and visibilities, and a `const`
/// block where the initial value is a constant. See [`LocalKey`](crate::thread::LocalKey).
///
/// ```
/// use std::cell::{Cell, RefCell};
///
/// strands::thread_local! {
///     /// How deep we are.
///     pub static DEPTH: Cell<u32> = const { Cell::new(0) };
///
///     static NAMES: RefCell<Vec<String>> = RefCell::new(vec!["root".to_string()]);
/// }
///
/// DEPTH.set(1);
/// NAMES.with_borrow_mut(|names| names.push("leaf".into()));
/// let fresh = strands::spawn(|| (DEPTH.get(), NAMES.take())).join().unwrap();
/// assert_eq!(fresh, (0, vec!["root".to_string()]));
/// assert_eq!((DEPTH.get(), NAMES.take().len()), (1, 2));
/// ```
#[macro_export]
macro_rules! thread_local {
    () => {};

    ($(#[$attr:meta])* $vis:vis static $name:ident: $t:ty = const $init:block $(; $($rest:tt)*)?) => {
        $(#[$attr])*
        $vis const $name: $crate::thread::LocalKey<$t> = {
            const fn __strands_init() -> $t {
                const $init
            }
            static __STRANDS_FIBER: $crate::__rt::FiberKey<$t> = $crate::__rt::FiberKey::new();
            $crate::__rt::std_thread_local! {
                static __STRANDS_THREAD: $t = const { __strands_init() };
            }
            $crate::__rt::const_key(&__STRANDS_FIBER, &__STRANDS_THREAD, __strands_init)
        };
        $($crate::thread_local! { $($rest)* })?
    };

    ($(#[$attr:meta])* $vis:vis static $name:ident: $t:ty = $init:expr $(; $($rest:tt)*)?) => {
        $(#[$attr])*
        $vis const $name: $crate::thread::LocalKey<$t> = {
            fn __strands_init() -> $t {
                $init
            }
            static __STRANDS_FIBER: $crate::__rt::FiberKey<$t> = $crate::__rt::FiberKey::new();
            $crate::__rt::std_thread_local! {
                static __STRANDS_THREAD: $t = __strands_init();
            }
            $crate::__rt::lazy_key(&__STRANDS_FIBER, &__STRANDS_THREAD, __strands_init)
        };
        $($crate::thread_local! { $($rest)* })?
    };
}

/// For [`thread_local!`](crate::thread_local) only.
#[doc(hidden)]
pub const fn lazy_key<T: 'static>(
    fiber: &'static FiberKey<T>,
    thread: &'static std::thread::LocalKey<T>,
    init: fn() -> T,
) -> LocalKey<T> {
    LocalKey { fiber, thread, init, is_const: false }
}

/// For [`thread_local!`](crate::thread_local) only.
#[doc(hidden)]
pub const fn const_key<T: 'static>(
    fiber: &'static FiberKey<T>,
    thread: &'static std::thread::LocalKey<T>,
    init: fn() -> T,
) -> LocalKey<T> {
    LocalKey { fiber, thread, init, is_const: true }
}

impl<T: 'static> LocalKey<T> {
    /// Calls `f` with the caller's value, which is made first if it has not been.
    ///
    /// The fiber may wait inside of `f`.
    ///
    /// # Panics
    ///
    /// `cannot access a Thread Local Storage value during or after destruction: AccessError`, if
    /// the value is being destroyed or was. With the initializer's panic.
    ///
    /// ```
    /// strands::thread_local!(static GREETING: String = String::from("hello"));
    ///
    /// assert_eq!(GREETING.with(|text| format!("{text}, fiber")), "hello, fiber");
    /// ```
    #[inline]
    pub fn with<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&T) -> R,
    {
        match self.try_with(f) {
            Ok(result) => result,
            Err(error) => panic_access_error(error),
        }
    }

    /// As [`with`](Self::with), but says so if there is no value any more.
    ///
    /// # Errors
    ///
    /// If the value is being destroyed, or was.
    ///
    /// # Panics
    ///
    /// With the initializer's panic.
    ///
    /// ```
    /// struct Last;
    /// impl Drop for Last {
    ///     fn drop(&mut self) {
    ///         assert!(KEY.try_with(|_| ()).is_err(), "it is being destroyed");
    ///     }
    /// }
    /// strands::thread_local!(static KEY: Last = const { Last });
    ///
    /// strands::spawn(|| assert!(KEY.try_with(|_| ()).is_ok())).join().unwrap();
    /// ```
    #[inline]
    pub fn try_with<F, R>(&'static self, f: F) -> Result<R, AccessError>
    where
        F: FnOnce(&T) -> R,
    {
        match self.fiber.get(self.init) {
            Access::Value(value) => Ok(f(&value)),
            Access::Thread => self.thread.try_with(f).map_err(|_| AccessError),
            Access::Destroyed => Err(AccessError),
        }
    }

    /// The running fiber's value, made of `value` if it has not been made; and else `value` again.
    /// Only `value` if no fiber runs.
    fn get_or_put(&'static self, value: T) -> (Option<T>, Option<Lent<T>>) {
        let mut value = Some(value);
        let access = match self.is_const {
            true => self.fiber.get(self.init),
            false => self.fiber.get(|| value.take().expect("an initializer runs once")),
        };
        match access {
            Access::Value(lent) => (value, Some(lent)),
            Access::Thread => (value, None),
            Access::Destroyed => panic_access_error(AccessError),
        }
    }
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Sets the caller's value. If it has not been made, the initializer does not run.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with), if there is no value any more.
    ///
    /// ```
    /// use std::cell::Cell;
    ///
    /// strands::thread_local!(static ID: Cell<u32> = panic!("no id was set"));
    ///
    /// ID.set(7);
    /// assert_eq!(ID.get(), 7);
    /// ```
    pub fn set(&'static self, value: T) {
        match self.get_or_put(Cell::new(value)) {
            (Some(value), Some(cell)) => cell.set(value.into_inner()),
            (Some(value), None) => self.thread.set(value.into_inner()),
            (None, _) => {}
        }
    }

    /// A copy of the caller's value.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    ///
    /// ```
    /// use std::cell::Cell;
    ///
    /// strands::thread_local!(static X: Cell<i32> = const { Cell::new(1) });
    /// assert_eq!(X.get(), 1);
    /// ```
    #[inline]
    pub fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.with(Cell::get)
    }

    /// Takes the caller's value and leaves the default one.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    ///
    /// ```
    /// use std::cell::Cell;
    ///
    /// strands::thread_local!(static X: Cell<Option<i32>> = const { Cell::new(Some(1)) });
    /// assert_eq!((X.take(), X.take()), (Some(1), None));
    /// ```
    #[inline]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(Cell::take)
    }

    /// Sets the caller's value, and returns the old one.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    ///
    /// ```
    /// use std::cell::Cell;
    ///
    /// strands::thread_local!(static X: Cell<i32> = const { Cell::new(1) });
    /// assert_eq!((X.replace(2), X.replace(3)), (1, 2));
    /// ```
    #[inline]
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> LocalKey<RefCell<T>> {
    /// Calls `f` with the caller's value.
    ///
    /// # Panics
    ///
    /// If it is mutably borrowed; as [`with`](Self::with).
    ///
    /// ```
    /// use std::cell::RefCell;
    ///
    /// strands::thread_local!(static X: RefCell<Vec<i32>> = RefCell::new(vec![1]));
    /// assert_eq!(X.with_borrow(Vec::len), 1);
    /// ```
    #[inline]
    pub fn with_borrow<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&T) -> R,
    {
        self.with(|cell| f(&cell.borrow()))
    }

    /// Calls `f` with the caller's value, to change it.
    ///
    /// # Panics
    ///
    /// If it is borrowed; as [`with`](Self::with).
    ///
    /// ```
    /// use std::cell::RefCell;
    ///
    /// strands::thread_local!(static X: RefCell<Vec<i32>> = RefCell::new(vec![1]));
    /// X.with_borrow_mut(|numbers| numbers.push(2));
    /// assert_eq!(X.take(), [1, 2]);
    /// ```
    #[inline]
    pub fn with_borrow_mut<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&mut T) -> R,
    {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }

    /// Sets the caller's value. If it has not been made, the initializer does not run.
    ///
    /// # Panics
    ///
    /// If it is borrowed; as [`with`](Self::with), if there is no value any more.
    ///
    /// ```
    /// use std::cell::RefCell;
    ///
    /// strands::thread_local!(static X: RefCell<Vec<i32>> = panic!("nothing was set"));
    /// X.set(vec![1, 2, 3]);
    /// assert_eq!(X.take(), [1, 2, 3]);
    /// ```
    pub fn set(&'static self, value: T) {
        match self.get_or_put(RefCell::new(value)) {
            (Some(value), Some(cell)) => *cell.borrow_mut() = value.into_inner(),
            (Some(value), None) => self.thread.set(value.into_inner()),
            (None, _) => {}
        }
    }

    /// Takes the caller's value and leaves the default one.
    ///
    /// # Panics
    ///
    /// If it is borrowed; as [`with`](Self::with).
    ///
    /// ```
    /// use std::cell::RefCell;
    ///
    /// strands::thread_local!(static X: RefCell<Vec<i32>> = RefCell::new(vec![1]));
    /// assert_eq!(X.take(), [1]);
    /// assert!(X.with_borrow(Vec::is_empty));
    /// ```
    #[inline]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(RefCell::take)
    }

    /// Sets the caller's value, and returns the old one.
    ///
    /// # Panics
    ///
    /// If it is borrowed; as [`with`](Self::with).
    ///
    /// ```
    /// use std::cell::RefCell;
    ///
    /// strands::thread_local!(static X: RefCell<String> = RefCell::new("old".into()));
    /// assert_eq!(X.replace("new".into()), "old");
    /// ```
    #[inline]
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

/// There is no value any more, as `std::thread::AccessError`: what [`LocalKey::try_with`] returns.
///
/// ```
/// use strands::thread::{AccessError, LocalKey};
///
/// fn read(key: &'static LocalKey<u32>) -> Result<u32, AccessError> {
///     key.try_with(|value| *value)
/// }
/// strands::thread_local!(static KEY: u32 = 1);
/// assert_eq!(read(&KEY), Ok(1), "what has no destructor is there to the end");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessError;

impl fmt::Debug for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessError").finish()
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt("already destroyed", f)
    }
}

impl Error for AccessError {}

#[cold]
#[inline(never)]
fn panic_access_error(error: AccessError) -> ! {
    panic!("cannot access a Thread Local Storage value during or after destruction: {error:?}")
}
