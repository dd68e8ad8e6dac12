//! The right to a fiber's result.

use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;

use strands_sched::{Join, JoinOperation, LocalJoin, TaskRef};

use crate::thread::Thread;

/// What a fiber ended with: its value, or the payload that it panicked with.
///
/// ```
/// let result: strands::thread::Result<i32> = strands::spawn(|| panic!("boom")).join();
/// assert_eq!(result.unwrap_err().downcast_ref(), Some(&"boom"));
/// ```
pub use std::thread::Result;

/// The right to join a fiber, as `std::thread::JoinHandle`.
///
/// Dropping it detaches the fiber, which goes on: its value is dropped where it ends, or here if
/// it has ended. If that drop panics, the panic is that of whoever drops it.
///
/// ```
/// let handle = strands::spawn(|| (1..=10).sum::<u32>());
/// assert_eq!(handle.join().unwrap(), 55);
/// ```
pub struct JoinHandle<T> {
    join: Join<T>,
    thread: LazyThread,
    /// Invariant, as std's.
    value: PhantomData<fn(T) -> T>,
}

// No value lies in the handle.
impl<T> Unpin for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    pub(crate) fn new(join: Join<T>) -> JoinHandle<T> {
        JoinHandle { join, thread: LazyThread::default(), value: PhantomData }
    }

    /// The fiber.
    ///
    /// ```
    /// let handle = strands::spawn(|| {});
    /// println!("spawned {:?}", handle.thread().id());
    /// ```
    pub fn thread(&self) -> &Thread {
        self.thread.get(self.join.task())
    }

    /// Waits for the fiber to end, and returns its value.
    ///
    /// All that the fiber did happens before this returns.
    ///
    /// # Errors
    ///
    /// The payload that the fiber panicked with; of type [`Cancelled`](crate::cancel::Cancelled) if
    /// it was cancelled: see [`was_cancelled`](crate::cancel::was_cancelled).
    ///
    /// # Panics
    ///
    /// If a fiber joins itself, which would wait for ever. A fiber that is cancelled while it waits
    /// unwinds, and what it waited for is detached. Who is asked to unwind, and would learn here only that the other was
    /// cancelled, unwinds too.
    ///
    /// ```
    /// let handle = strands::spawn(|| -> i32 { std::panic::resume_unwind(Box::new(7)) });
    /// let payload = handle.join().unwrap_err();
    /// assert_eq!(payload.downcast_ref::<i32>(), Some(&7));
    /// ```
    pub fn join(self) -> Result<T> {
        self.join.join()
    }

    /// To [`join`](Self::join) as one of several operations that [`select!`](crate::select!) or a
    /// [`Select`](crate::select::Select) chooses from.
    ///
    /// If another one is chosen the handle is as it was. If this one is, the result has been taken: the handle can be
    /// dropped, not joined again.
    ///
    /// # Panics
    ///
    /// If a fiber joins itself, or the result was taken already.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let mut handle = strands::spawn(|| 42);
    /// let answer = strands::select! {
    ///     result = join(handle) => result.unwrap(),
    ///     _ = after(Duration::from_secs(60)) => panic!("it takes too long"),
    /// };
    /// assert_eq!(answer, 42);
    /// ```
    pub fn select_join(&mut self) -> JoinOperation<'_, T> {
        self.join.select_join()
    }

    /// Whether the fiber's closure has returned or panicked, so that [`join`](Self::join) does not
    /// wait. A loop that asks until it is so lets others run, as one that tries a lock does.
    ///
    /// ```
    /// let handle = strands::spawn(|| {});
    /// while !handle.is_finished() {
    ///     strands::yield_now();
    /// }
    /// handle.join().unwrap();
    /// ```
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }

    /// Asks the fiber to end, and returns at once: it unwinds from where it waits, or will next
    /// wait. See [Cancellation](crate::cancel).
    ///
    /// A fiber that has not started drops its closure instead of running it. One that has ended is
    /// not concerned. One that cancels itself goes on to its next wait.
    ///
    /// ```
    /// use strands::cancel::was_cancelled;
    ///
    /// let listener = strands::net::TcpListener::bind("127.0.0.1:0")?;
    /// let server = strands::spawn(move || listener.incoming().for_each(drop));
    /// server.cancel();
    /// assert!(was_cancelled(&server.join()));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn cancel(&self) {
        self.join.task().cancel();
    }

    /// [Cancels](Self::cancel) the fiber, and waits until it has ended: its destructors have run.
    ///
    /// # Errors
    ///
    /// As for [`join`](Self::join). It may also have come to its end in the meantime: then its
    /// value is returned.
    ///
    /// # Panics
    ///
    /// As for [`join`](Self::join); a fiber that does it to itself is not cancelled.
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands::cancel::was_cancelled;
    ///
    /// let sleeper = strands::spawn(|| strands::sleep(Duration::MAX));
    /// assert!(was_cancelled(&sleeper.cancel_and_join()));
    /// ```
    pub fn cancel_and_join(self) -> Result<T> {
        self.join.cancel_and_join()
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").finish_non_exhaustive()
    }
}

/// The right to join a fiber of the same worker, whose value need not be `Send`.
///
/// It stays on its worker, as its value does. Otherwise it is a [`JoinHandle`].
///
/// ```
/// use std::rc::Rc;
/// use std::cell::Cell;
///
/// let runtime = strands::Runtime::builder().workers(1).build()?;
/// let total = runtime.run(|| {
///     let count = Rc::new(Cell::new(1));
///     let shared = count.clone();
///     let handle = strands::spawn_local(move || {
///         shared.set(shared.get() + 1);
///         shared
///     });
///     handle.join().unwrap().get() + count.get()
/// });
/// assert_eq!(total, 4);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct LocalJoinHandle<T> {
    join: LocalJoin<T>,
    thread: LazyThread,
}

impl<T> LocalJoinHandle<T> {
    pub(super) fn new(join: LocalJoin<T>) -> LocalJoinHandle<T> {
        LocalJoinHandle { join, thread: LazyThread::default() }
    }

    /// The fiber.
    ///
    /// ```
    /// # let runtime = strands::Runtime::builder().workers(1).build()?;
    /// runtime.run(|| {
    ///     let handle = strands::spawn_local(strands::thread::park);
    ///     handle.thread().unpark();
    ///     handle.join().unwrap();
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn thread(&self) -> &Thread {
        self.thread.get(self.join.task())
    }

    /// As [`JoinHandle::join`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// As there.
    ///
    /// ```
    /// # let runtime = strands::Runtime::builder().workers(1).build()?;
    /// let sum = runtime.run(|| strands::spawn_local(|| 1 + 1).join().unwrap());
    /// assert_eq!(sum, 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn join(self) -> Result<T> {
        self.join.join()
    }

    /// As [`JoinHandle::select_join`].
    ///
    /// # Panics
    ///
    /// As there.
    ///
    /// ```
    /// # let runtime = strands::Runtime::builder().workers(1).build()?;
    /// let sum = runtime.run(|| {
    ///     let mut handle = strands::spawn_local(|| 1 + 1);
    ///     strands::select! { sum = join(handle) => sum.unwrap() }
    /// });
    /// assert_eq!(sum, 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn select_join(&mut self) -> JoinOperation<'_, T> {
        self.join.select_join()
    }

    /// As [`JoinHandle::is_finished`].
    ///
    /// ```
    /// # let runtime = strands::Runtime::builder().workers(1).build()?;
    /// runtime.run(|| {
    ///     let handle = strands::spawn_local(|| {});
    ///     assert!(!handle.is_finished(), "it shares our worker, and we have not waited yet");
    ///     handle.join().unwrap();
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }

    /// As [`JoinHandle::cancel`].
    ///
    /// ```
    /// # let runtime = strands::Runtime::builder().workers(1).build()?;
    /// runtime.run(|| {
    ///     let handle = strands::spawn_local(|| unreachable!("it does not start"));
    ///     handle.cancel();
    ///     assert!(strands::cancel::was_cancelled(&handle.join()));
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn cancel(&self) {
        self.join.task().cancel();
    }

    /// As [`JoinHandle::cancel_and_join`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// As there.
    ///
    /// ```
    /// # let runtime = strands::Runtime::builder().workers(1).build()?;
    /// runtime.run(|| {
    ///     let handle = strands::spawn_local(strands::thread::park);
    ///     strands::yield_now(); // It parks.
    ///     assert!(strands::cancel::was_cancelled(&handle.cancel_and_join()));
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn cancel_and_join(self) -> Result<T> {
        self.join.cancel_and_join()
    }
}

impl<T> fmt::Debug for LocalJoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalJoinHandle").finish_non_exhaustive()
    }
}

/// A [`Thread`] made when it is asked for, which is rare: a count less for each spawn.
#[derive(Default)]
pub(super) struct LazyThread(OnceLock<Thread>);

impl LazyThread {
    pub(super) fn get(&self, task: &TaskRef) -> &Thread {
        self.0.get_or_init(|| Thread::of(task))
    }
}
