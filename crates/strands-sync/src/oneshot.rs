//! A channel for one message: an answer.
//!
//! # The protocol
//!
//! One word of flags, a cell for the message, and a line for those who wait. The sender writes the message and sets
//! `SENT`, unless the receiver has set `RECEIVER_GONE`; then it takes the message back. So what was written is
//! the receiver's from the moment that `SENT` is set, and the sender's until then: one of them takes it out.
//!
//! Who waits sets `WAITERS` and gets in line in one step under the line's lock, unless it sees that there is no need. Who
//! is done and sees the flag takes that lock and wakes all. At most the receiver and those who wait
//! for its end are in line, so there is nothing to be fair about: each is woken by the one event it waits for.
//!
//! The channel is one allocation, and waiting is none.
//!
//! Turned down: a [channel](crate::channel) with room for one (three times the memory, and a lock to wait).

use std::cell::RefCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use strands_sched::{
    About, Arm, Op, Operation, Outcome, Place, WaitQueue, Waiter, cancel_unwind, charge,
};

use crate::atomic::{AcqRel, Acquire, Arc, AtomicU32, UnsafeCell};
use crate::deadline;

pub use std::sync::mpsc::{RecvError, RecvTimeoutError, TryRecvError};

/// A channel for one message.
///
/// # Examples
///
/// ```
/// use strands_sync::oneshot;
///
/// let (sender, receiver) = oneshot::channel();
/// std::thread::spawn(move || sender.send(42));
/// assert_eq!(receiver.recv(), Ok(42));
/// ```
#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        flags: AtomicU32::new(0),
        message: UnsafeCell::new(MaybeUninit::uninit()),
        line: WaitQueue::new(()),
    });
    let sender = Sender { shared: shared.clone(), is_done: false };
    (sender, Receiver { shared, is_done: false })
}

/// Sends the message. There is one.
///
/// # Examples
///
/// ```
/// use strands_sync::oneshot::{self, Sender};
///
/// /// A request carries where the answer goes.
/// struct Square(u32, Sender<u32>);
///
/// let (requests, server) = strands_sync::channel::unbounded();
/// std::thread::spawn(move || {
///     for Square(number, answer) in server {
///         let _ = answer.send(number * number); // The client may have gone.
///     }
/// });
/// let (sender, receiver) = oneshot::channel();
/// requests.send(Square(7, sender)).unwrap();
/// assert_eq!(receiver.recv(), Ok(49));
/// ```
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    /// It has sent.
    is_done: bool,
}

/// Receives the message. There is one.
///
/// # Examples
///
/// ```
/// use strands_sync::oneshot::{self, Receiver};
///
/// let (sender, receiver): (_, Receiver<u32>) = oneshot::channel();
/// drop(sender);
/// assert!(receiver.recv().is_err(), "there will be no message");
/// ```
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// It has taken the message.
    is_done: bool,
}

struct Shared<T> {
    flags: AtomicU32,
    message: UnsafeCell<MaybeUninit<T>>,
    line: WaitQueue<()>,
}

// SAFETY: one party at a time uses the cell, the sender until `SENT` is set and then the receiver. They may be on
// different threads, for which `T: Send` is enough.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: it may be dropped anywhere, as it has no message then.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

/// The message is written.
const SENT: u32 = 1;
/// It will not be.
const SENDER_GONE: u32 = 2;
/// Nobody will take what is not sent yet.
const RECEIVER_GONE: u32 = 4;
/// Somebody may be in line.
const WAITERS: u32 = 8;

impl<T> Sender<T> {
    /// Sends the message. Never waits.
    ///
    /// # Errors
    ///
    /// The message, if the receiver is gone or has [closed](Receiver::close). `Ok` does not mean that it will be received.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::oneshot::channel();
    /// drop(receiver);
    /// assert_eq!(sender.send("back"), Err("back"));
    /// ```
    pub fn send(mut self, message: T) -> Result<(), T> {
        charge();
        let shared = &self.shared;
        // SAFETY: there is one sender, and the receiver does not look before `SENT` is set.
        shared.message.with_mut(|cell| unsafe { (*cell).write(message) });
        let unless_gone = |flags| (flags & RECEIVER_GONE == 0).then_some(flags | SENT);
        match shared.flags.fetch_update(AcqRel, Acquire, unless_gone) {
            Ok(before) => {
                self.is_done = true;
                shared.wake(before);
                Ok(())
            }
            // SAFETY: we have written it, and have not set `SENT`.
            Err(_) => Err(unsafe { shared.take() }),
        }
    }

    /// Whether a message would come back: the receiver is gone or has closed.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut receiver) = strands_sync::oneshot::channel::<()>();
    /// assert!(!sender.is_closed());
    /// receiver.close();
    /// assert!(sender.is_closed());
    /// ```
    #[must_use]
    pub fn is_closed(&self) -> bool {
        charge();
        self.shared.flags.load(Acquire) & RECEIVER_GONE != 0
    }

    /// Waits until the receiver is gone or has closed: nobody is interested any more.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::oneshot::channel::<()>();
    /// let gives_up = std::thread::spawn(move || drop(receiver));
    /// sender.closed();
    /// # gives_up.join().unwrap();
    /// ```
    pub fn closed(&self) {
        let closed = self.closed_deadline(None);
        debug_assert!(closed, "there was no deadline");
    }

    /// As [`closed`](Self::closed), for about `timeout`; whether it is so.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (sender, receiver) = strands_sync::oneshot::channel::<()>();
    /// assert!(!sender.closed_timeout(Duration::from_millis(1)));
    /// drop(receiver);
    /// assert!(sender.closed_timeout(Duration::ZERO));
    /// ```
    #[must_use = "it may not be closed"]
    pub fn closed_timeout(&self, timeout: Duration) -> bool {
        self.closed_deadline(deadline::after(timeout))
    }

    /// As [`closed`](Self::closed), until `deadline` (`None` for never); whether it is so.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _receiver) = strands_sync::oneshot::channel::<()>();
    /// assert!(!sender.closed_deadline(std::time::Instant::now()));
    /// ```
    #[must_use = "it may not be closed"]
    pub fn closed_deadline(&self, deadline: impl Into<Option<Instant>>) -> bool {
        static CLOSED: Op = Op("oneshot::Sender::closed");
        self.is_closed() || self.shared.wait(RECEIVER_GONE, &CLOSED, deadline.into())
    }
}

impl<T> Receiver<T> {
    /// Waits for the message.
    ///
    /// A cancelled fiber unwinds from here, unless the message is there.
    ///
    /// # Errors
    ///
    /// If there will be none: the sender is gone, or the message has been taken already.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::oneshot::channel();
    /// sender.send(1).unwrap();
    /// assert_eq!(receiver.recv(), Ok(1));
    /// ```
    pub fn recv(mut self) -> Result<T, RecvError> {
        self.recv_deadline(None).map_err(|_| RecvError)
    }

    /// Takes the message, if it is there.
    ///
    /// # Errors
    ///
    /// `Empty` if it is not there yet, `Disconnected` if it will never be.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::oneshot::{self, TryRecvError};
    ///
    /// let (sender, mut receiver) = oneshot::channel();
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    /// sender.send(1).unwrap();
    /// assert_eq!(receiver.try_recv(), Ok(1));
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    /// ```
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        charge();
        self.take()
    }

    fn take(&mut self) -> Result<T, TryRecvError> {
        let flags = self.shared.flags.load(Acquire);
        if flags & SENT != 0 && !self.is_done {
            self.is_done = true;
            // SAFETY: `SENT` is set, so it is there and ours, and we have not taken it before.
            return Ok(unsafe { self.shared.take() });
        }
        let over = flags & (SENT | SENDER_GONE | RECEIVER_GONE) != 0;
        Err(if over { TryRecvError::Disconnected } else { TryRecvError::Empty })
    }

    /// As [`recv`](Self::recv), for about `timeout`.
    ///
    /// A timeout that no `Instant` can tell is none. A message that is there is taken also when the timeout is zero.
    ///
    /// # Errors
    ///
    /// `Timeout` if the time was up, `Disconnected` as for [`recv`](Self::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (sender, mut receiver) = strands_sync::oneshot::channel();
    /// assert!(receiver.recv_timeout(Duration::from_millis(1)).is_err());
    /// sender.send(1).unwrap();
    /// assert_eq!(receiver.recv_timeout(Duration::from_millis(1)), Ok(1));
    /// ```
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_deadline(deadline::after(timeout))
    }

    /// As [`recv`](Self::recv), until `deadline`: a point in time, or `None` for never.
    ///
    /// # Errors
    ///
    /// As for [`recv_timeout`](Self::recv_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::oneshot::{self, RecvTimeoutError};
    ///
    /// let (_sender, mut receiver) = oneshot::channel::<()>();
    /// let now = std::time::Instant::now();
    /// assert_eq!(receiver.recv_deadline(now), Err(RecvTimeoutError::Timeout));
    /// ```
    pub fn recv_deadline(
        &mut self,
        deadline: impl Into<Option<Instant>>,
    ) -> Result<T, RecvTimeoutError> {
        static RECV: Op = Op("oneshot::Receiver::recv");
        match self.try_recv() {
            Err(TryRecvError::Empty) => {}
            result => return result.map_err(|_| RecvTimeoutError::Disconnected),
        }
        if !self.shared.wait(SENT | SENDER_GONE, &RECV, deadline.into()) {
            return Err(RecvTimeoutError::Timeout);
        }
        self.take().map_err(|_| RecvTimeoutError::Disconnected)
    }

    /// Nothing is sent from here on. A message that was sent before can still be received.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut receiver) = strands_sync::oneshot::channel();
    /// sender.send(1).unwrap();
    /// receiver.close();
    /// assert_eq!(receiver.try_recv(), Ok(1));
    /// ```
    pub fn close(&mut self) {
        self.shared.announce(RECEIVER_GONE);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if !self.is_done {
            self.shared.announce(SENDER_GONE);
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        self.close();
        drop(self.take()); // What was sent and not received.
    }
}

impl<T> Shared<T> {
    /// Takes the message.
    ///
    /// # Safety
    ///
    /// It is there and the caller's; after that it is not there.
    unsafe fn take(&self) -> T {
        // SAFETY: the caller's promise.
        self.message.with_mut(|cell| unsafe { (*cell).assume_init_read() })
    }

    fn announce(&self, flag: u32) {
        self.wake(self.flags.fetch_or(flag, AcqRel));
    }

    /// Wakes who waits for the flag that was set when the others were `before`.
    #[inline]
    fn wake(&self, before: u32) {
        if before & WAITERS != 0 {
            self.line.lock().release_all();
        }
    }

    /// Waits until one of these flags is set; whether it is so.
    #[cold]
    fn wait(&self, any_of: u32, op: &'static Op, deadline: Option<Instant>) -> bool {
        let line = self.line.lock();
        if self.flags.fetch_or(WAITERS, AcqRel) & any_of != 0 {
            return true;
        }
        match line.wait(Place::Last, op, deadline, (), || {}) {
            Outcome::Woken => true,
            Outcome::TimedOut => false,
            Outcome::Cancelled => cancel_unwind(),
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

/// To receive, as one of several operations. See [`Receiver::select_recv`].
///
/// # Examples
///
/// ```
/// use strands_sched::{Order, select};
/// use strands_sync::oneshot::{RecvOperation, channel};
///
/// let (sender, mut receiver) = channel();
/// sender.send(42).unwrap();
/// let recv: RecvOperation<'_, u32> = receiver.select_recv();
/// select(&[&recv], Order::Fair, None);
/// assert_eq!(recv.take(), Some(Ok(42)));
/// ```
pub struct RecvOperation<'a, T> {
    receiver: RefCell<&'a mut Receiver<T>>,
    waiter: Waiter<()>,
}

impl<T> Receiver<T> {
    /// To receive, as one of several operations that a [`select`](strands_sched::select) chooses from. It is performed
    /// when there is a message, or when there will be none.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sched::{Order, try_select};
    ///
    /// let (sender, mut receiver) = strands_sync::oneshot::channel::<u32>();
    /// assert_eq!(try_select(&[&receiver.select_recv()], Order::Fair), None);
    /// drop(sender);
    /// assert_eq!(try_select(&[&receiver.select_recv()], Order::Fair), Some(0));
    /// ```
    pub fn select_recv(&mut self) -> RecvOperation<'_, T> {
        RecvOperation { receiver: RefCell::new(self), waiter: Waiter::new() }
    }
}

impl<T> RecvOperation<'_, T> {
    /// The message, or that there will be none; `None` if that is not known yet.
    ///
    /// # Examples
    ///
    /// ```
    /// let (_sender, mut receiver) = strands_sync::oneshot::channel::<u32>();
    /// assert_eq!(receiver.select_recv().take(), None);
    /// ```
    pub fn take(&self) -> Option<Result<T, RecvError>> {
        match self.receiver.borrow_mut().take() {
            Ok(message) => Some(Ok(message)),
            Err(TryRecvError::Disconnected) => Some(Err(RecvError)),
            Err(TryRecvError::Empty) => None,
        }
    }
}

// SAFETY: `withdraw` takes the waiter out of the only line it is put in.
unsafe impl<T> Operation for RecvOperation<'_, T> {
    fn attempt(&self) -> bool {
        self.waiter.assert_idle();
        let flags = self.receiver.borrow().shared.flags.load(Acquire);
        flags & (SENT | SENDER_GONE | RECEIVER_GONE) != 0
    }

    unsafe fn enrol(&self, arm: Arm<'_>) -> bool {
        let shared = &self.receiver.borrow().shared;
        let mut line = shared.line.lock();
        let flags = shared.flags.fetch_or(WAITERS, AcqRel);
        let is_over = flags & (SENT | SENDER_GONE) != 0;
        // SAFETY: `select` borrows us until we are withdrawn.
        !is_over && unsafe { line.enrol(&self.waiter, arm, ()) }
    }

    unsafe fn withdraw(&self) {
        self.receiver.borrow().shared.line.withdraw(&self.waiter);
    }

    fn about(&self) -> About {
        About { operation: "oneshot::Receiver::recv", object: self.waiter.line(), descriptor: None }
    }
}
