//! Channels: many senders, one receiver. As `std::sync::mpsc`, for fibers and plain threads alike.
//!
//! These are the channels of [`channel`](mod@crate::channel), under std's names: what is promised, how it is done and
//! what was turned down stands there. (Fibers of one worker may share a receiver, so there may be a line of them here too.)
//!
//! As there is one receiver it may have messages of its own: of an unbounded channel it takes all that are
//! queued at once, if there are several, by swapping its own empty buffer for the queue. So a busy channel
//! locks once for many messages and allocates nothing.
//!
//! # Examples
//!
//! ```
//! use strands_sync::mpsc;
//!
//! let (sender, receiver) = mpsc::channel();
//! for id in 0..3 {
//!     let sender = sender.clone();
//!     std::thread::spawn(move || sender.send(id).unwrap());
//! }
//! drop(sender);
//! assert_eq!(receiver.iter().sum::<i32>(), 3);
//! ```

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use strands_sched::Op;

use crate::channel::{self, Rest, iterators};
use crate::{Message, deadline};

pub use crate::channel::{RecvOperation, SendOperation};
pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

/// A channel that holds any number of messages: sending never waits.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = strands_sync::mpsc::channel();
/// std::thread::spawn(move || sender.send("hello").unwrap());
/// assert_eq!(receiver.recv().unwrap(), "hello");
/// ```
#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = channel::unbounded();
    (Sender(sender), Receiver::new(receiver))
}

/// A channel that holds up to `bound` messages: sending waits while it is full.
///
/// With bound 0 sending waits until a receiver takes the message.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = strands_sync::mpsc::sync_channel(1);
/// sender.send(1).unwrap();
/// std::thread::spawn(move || sender.send(2).unwrap()); // waits for the first to be received
/// assert_eq!(receiver.recv(), Ok(1));
/// assert_eq!(receiver.recv(), Ok(2));
/// ```
#[must_use]
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let (sender, receiver) = channel::bounded(bound);
    (SyncSender(sender), Receiver::new(receiver))
}

/// Sends on a [`channel()`]. Clones send on the same one.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = strands_sync::mpsc::channel();
/// let second = sender.clone();
/// std::thread::spawn(move || sender.send(1).unwrap());
/// std::thread::spawn(move || second.send(2).unwrap());
/// assert_eq!(receiver.recv().unwrap() + receiver.recv().unwrap(), 3);
/// ```
pub struct Sender<T>(channel::Sender<T>);

/// Sends on a [`sync_channel`]. Clones send on the same one.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = strands_sync::mpsc::sync_channel(2);
/// let second = sender.clone();
/// sender.send(1).unwrap();
/// second.send(2).unwrap();
/// assert!(sender.try_send(3).is_err());
/// assert_eq!(receiver.recv().unwrap(), 1);
/// ```
pub struct SyncSender<T>(channel::Sender<T>);

/// Receives from a [`channel()`] or [`sync_channel`]. There is one.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = strands_sync::mpsc::channel();
/// std::thread::spawn(move || sender.send(7).unwrap());
/// assert_eq!(receiver.recv(), Ok(7));
/// assert!(receiver.recv().is_err(), "the sender is gone");
/// ```
pub struct Receiver<T> {
    taken: Rest<T>,
    /// Dropped last, as its messages have come last.
    inner: channel::Receiver<T>,
}

// No message is ever pinned.
impl<T> Unpin for Receiver<T> {}
impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}
impl<T> UnwindSafe for SyncSender<T> {}
impl<T> RefUnwindSafe for SyncSender<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

impl<T> Sender<T> {
    /// Sends a message. Never waits.
    ///
    /// # Errors
    ///
    /// If the receiver is gone; the error has the message. `Ok` does not mean that the message will be received.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::mpsc::channel();
    /// sender.send(1).unwrap();
    /// drop(receiver);
    /// assert_eq!(sender.send(2).unwrap_err().0, 2);
    /// ```
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.0.send(message)
    }
}

impl<T> SyncSender<T> {
    /// Sends a message; waits while the channel is full, with bound 0 until it is received.
    ///
    /// A fiber that is cancelled while it waits unwinds, and the message is dropped.
    ///
    /// # Errors
    ///
    /// If the receiver is gone; the error has the message. With a bound above 0 `Ok` does not
    /// mean that the message will be received.
    ///
    /// # Examples
    ///
    /// ```
    /// let (rendezvous, receiver) = strands_sync::mpsc::sync_channel(0);
    /// std::thread::spawn(move || rendezvous.send(53).unwrap());
    /// assert_eq!(receiver.recv(), Ok(53));
    /// ```
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.0.send(message)
    }

    /// Sends a message if that can be done now: there is room, or a receiver waits.
    ///
    /// # Errors
    ///
    /// `Full` or `Disconnected`, with the message.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::mpsc::{TrySendError, sync_channel};
    ///
    /// let (sender, receiver) = sync_channel(1);
    /// sender.try_send(1).unwrap();
    /// assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
    /// drop(receiver);
    /// assert_eq!(sender.try_send(3), Err(TrySendError::Disconnected(3)));
    /// ```
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.0.try_send(message)
    }

    /// To send, as one of several operations that a [`select`](strands_sched::select) chooses from. As
    /// [`channel::Sender::select_send`].
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sched::{Order, try_select};
    ///
    /// let (sender, _receiver) = strands_sync::mpsc::sync_channel::<&str>(0);
    /// let mut message = Some("hello");
    /// assert_eq!(try_select(&[&sender.select_send(&mut message)], Order::Fair), None);
    /// assert_eq!(message, Some("hello"), "nobody receives");
    /// ```
    pub fn select_send<'a>(&'a self, message: impl Message<'a, T>) -> SendOperation<'a, T> {
        self.0.select_send(message)
    }
}

impl<T> Receiver<T> {
    fn new(inner: channel::Receiver<T>) -> Receiver<T> {
        Receiver { taken: Rest::default(), inner }
    }

    /// To receive, as one of several operations that a [`select`](strands_sched::select) chooses from. As
    /// [`channel::Receiver::select_recv`].
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sched::{Order, select};
    ///
    /// let (sender, receiver) = strands_sync::mpsc::sync_channel(0);
    /// let recv = receiver.select_recv();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| sender.send(1).unwrap());
    ///     select(&[&recv], Order::Fair, None);
    /// });
    /// assert_eq!(recv.take(), Some(Ok(1)));
    /// ```
    pub fn select_recv(&self) -> RecvOperation<'_, T> {
        self.inner.select_recv_with(Some(&self.taken))
    }

    /// Waits for a message, and takes it.
    ///
    /// A cancelled fiber unwinds from here, unless it has been given a message.
    ///
    /// # Errors
    ///
    /// If all senders are gone, and all their messages taken.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::mpsc::{RecvError, channel};
    ///
    /// let (sender, receiver) = channel();
    /// std::thread::spawn(move || sender.send("hello").unwrap());
    /// assert_eq!(receiver.recv(), Ok("hello"));
    /// assert_eq!(receiver.recv(), Err(RecvError), "the sender has gone");
    /// ```
    pub fn recv(&self) -> Result<T, RecvError> {
        static RECV: Op = Op("Receiver::recv");
        Ok(self.inner.channel.recv_until(&RECV, None, Some(&self.taken))?)
    }

    /// Takes a message, if there is one.
    ///
    /// # Errors
    ///
    /// `Empty` if there is none, `Disconnected` if there will be none.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::mpsc::{TryRecvError, channel};
    ///
    /// let (sender, receiver) = channel();
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    /// sender.send(1).unwrap();
    /// drop(sender);
    /// assert_eq!(receiver.try_recv(), Ok(1));
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    /// ```
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        Ok(self.inner.channel.try_recv(Some(&self.taken))?)
    }

    /// Waits for a message for about `timeout`, and takes it.
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
    /// use strands_sync::mpsc::{RecvTimeoutError, channel};
    ///
    /// let (sender, receiver) = channel::<()>();
    /// let soon = Duration::from_millis(1);
    /// assert_eq!(receiver.recv_timeout(soon), Err(RecvTimeoutError::Timeout));
    /// drop(sender);
    /// assert_eq!(receiver.recv_timeout(soon), Err(RecvTimeoutError::Disconnected));
    /// ```
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        static RECV: Op = Op("Receiver::recv_timeout");
        let deadline = deadline::after(timeout);
        Ok(self.inner.channel.recv_until(&RECV, deadline, Some(&self.taken))?)
    }

    /// Takes messages until all senders are gone; waits for each.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::mpsc::channel();
    /// std::thread::spawn(move || (0..3).for_each(|i| sender.send(i).unwrap()));
    /// assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2]);
    /// ```
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { rx: self }
    }

    /// Takes messages as long as there are some; does not wait.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::mpsc::channel();
    /// sender.send(1).unwrap();
    /// sender.send(2).unwrap();
    /// assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1, 2]);
    /// ```
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { rx: self }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender(self.0.clone())
    }
}

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> SyncSender<T> {
        SyncSender(self.0.clone())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // Before the first message is dropped, whose destructor may send.
        self.inner.close();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for SyncSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncSender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

iterators!(mpsc::channel, rx);
