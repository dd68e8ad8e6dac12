//! Handles to what runs: fibers and plain threads.

use std::fmt;
use std::num::NonZero;
use std::panic::{RefUnwindSafe, UnwindSafe};

use strands_sched::TaskRef;

/// A handle to a fiber or to a plain thread, as `std::thread::Thread`.
///
/// [`current`] gives the caller's, a join handle that of what was spawned. Cloning is cheap.
///
/// ```
/// use strands::thread;
///
/// let parked = thread::spawn(thread::park);
/// let thread = parked.thread().clone();
/// thread.unpark();
/// parked.join().unwrap();
/// ```
#[derive(Clone)]
pub struct Thread {
    task: TaskRef,
}

impl Thread {
    pub(super) fn of(task: &TaskRef) -> Thread {
        Thread::new(task.clone())
    }

    pub(crate) fn new(task: TaskRef) -> Thread {
        Thread { task }
    }

    /// Makes the token of [`park`](crate::thread::park) available, and wakes the fiber or thread if
    /// it is parked.
    ///
    /// The token does not count: two calls before a `park` end one `park`.
    ///
    /// ```
    /// use strands::thread;
    ///
    /// thread::current().unpark();
    /// thread::park(); // Returns at once.
    /// ```
    #[inline]
    pub fn unpark(&self) {
        strands_sched::unpark_token(&self.task);
    }

    /// Its id, which no other fiber or thread has or had in this process.
    ///
    /// ```
    /// use strands::thread;
    ///
    /// let other = thread::spawn(|| thread::current().id()).join().unwrap();
    /// assert_ne!(thread::current().id(), other);
    /// ```
    pub fn id(&self) -> ThreadId {
        ThreadId(NonZero::new(self.task.id()).expect("ids start at 1"))
    }

    /// The name that it was given by its [`Builder`](crate::thread::Builder); of a plain thread,
    /// its OS thread's name.
    ///
    /// ```
    /// use strands::thread::{self, Builder};
    ///
    /// let worker = Builder::new().name("lexer".into()).spawn(|| {
    ///     assert_eq!(thread::current().name(), Some("lexer"));
    /// })?;
    /// assert_eq!(worker.thread().name(), Some("lexer"));
    /// worker.join().unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn name(&self) -> Option<&str> {
        self.task.name()
    }
}

// As std's: what a panic leaves behind here is a token at most.
impl UnwindSafe for Thread {}
impl RefUnwindSafe for Thread {}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// Identifies a fiber or a plain thread for as long as the process lives, as
/// `std::thread::ThreadId`.
///
/// It is not the `std::thread::ThreadId` of the OS thread beneath.
///
/// ```
/// use strands::thread;
///
/// assert_eq!(thread::current().id(), thread::current().id());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ThreadId(NonZero<u64>);

/// The calling fiber, or the calling plain thread.
///
/// ```
/// use strands::thread;
///
/// let handle = thread::spawn(|| thread::current().id());
/// let id = handle.thread().id();
/// assert_eq!(handle.join().unwrap(), id);
/// ```
pub fn current() -> Thread {
    strands_sched::with_current_task(|task| Thread { task: TaskRef::to(task) })
}
