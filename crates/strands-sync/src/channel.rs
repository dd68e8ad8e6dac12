//! Channels: many senders, many receivers, each message to one of them.
//!
//! # Which channel for what
//!
//! | each message is for | and | use |
//! |---|---|---|
//! | one of the receivers | senders wait while there is no room | [`bounded`] |
//! | one of the receivers | senders never wait; memory is the bound | [`unbounded`] |
//! | one of the receivers | the sender goes on when it has been taken | [`rendezvous`] |
//! | the one receiver | as std's | [`mpsc`](crate::mpsc) |
//! | the one receiver | there is only one: an answer | [`oneshot`](crate::oneshot) |
//! | every receiver | only the latest counts: a state | [`watch`](crate::watch) |
//! | every receiver | all count, and who is too slow is told what it missed | [`broadcast`](crate::broadcast) |
//!
//! # Promises
//!
//! Messages are received in the order in which they were sent. A channel is *closed* by [`Sender::close`],
//! by [`Receiver::close`], or when all handles of a side are gone. From then on nothing is sent: who waits to send gets its
//! message back. What was sent before is still received, unless all receivers are gone, and then receivers are
//! told that it is over. A timeout or a cancel leaves a message either sent or with its sender, never both nor neither.
//!
//! # Fairness
//!
//! First come, first served, on both sides: a message goes to the receiver that has waited longest, and room to the
//! sender that has waited longest, however fast others come by. Those who need not wait take no turns but
//! spend the common budget, so that fibers of one worker do.
//!
//! # The design
//!
//! One line for those who wait, and under its lock who they are. Invariants, while that lock is held:
//!
//! 1. A receiver is in line only while no message is there and no sender is in line.
//! 2. A sender is in line only while there is no room, and no receiver is in line.
//!
//! So it is one line, of senders or of receivers (but for a select that wants either: see `channel/select.rs`). A message goes from hand to hand: a sender that finds a receiver in line
//! moves it to the receiver's frame, and a receiver that makes room moves the message of the first sender in line into it.
//! Who was chosen has nothing to look for when it runs, and no newcomer can take what it was woken for. Who gave up
//! meanwhile is passed over in the same step. Waiting allocates nothing: the message lies on the waiter's frame.
//!
//! Without anybody in line, a bounded channel's lock is not needed: its `ring` has a fast path, which is frozen while
//! somebody waits. An unbounded channel (or one with a huge bound) has a queue under the lock, a
//! rendezvous nothing but the line.
//!
//! Messages are dropped, and fibers on other threads woken, outside the lock.
//!
//! Turned down: a lock-free list of blocks for unbounded channels (two uncontended lock operations cost no more than its
//! counters and its allocations), and waking without handing over (a newcomer takes the message, and the woken one waits
//! again: last come, first served).

mod core;
mod ring;
mod select;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use strands_sched::{Op, charge};

pub(crate) use self::core::Rest;
use self::core::{Channel, NotSent};
use crate::atomic::Arc;
use crate::deadline;

pub use self::select::{RecvOperation, SendOperation};
pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

/// A channel with room for `capacity` messages: sending waits while it is full.
///
/// With capacity 0 it is a [`rendezvous`]. Up to 65,536 the room is allocated at once.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = strands_sync::channel::bounded(1);
/// sender.send(1).unwrap();
/// assert!(sender.try_send(2).is_err());
/// assert_eq!(receiver.recv(), Ok(1));
/// ```
#[must_use]
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let channel = Channel::new(capacity);
    (Sender { channel: channel.clone() }, Receiver { channel })
}

/// A channel that holds any number of messages: sending never waits.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = strands_sync::channel::unbounded();
/// (0..1000).for_each(|number| sender.send(number).unwrap());
/// drop(sender);
/// assert_eq!(receiver.iter().count(), 1000);
/// ```
#[must_use]
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    bounded(usize::MAX)
}

/// A channel that holds no message: sending waits until a receiver takes the message.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = strands_sync::channel::rendezvous();
/// assert!(sender.try_send(1).is_err(), "nobody waits for it");
/// let sends = std::thread::spawn(move || sender.send(2));
/// assert_eq!(receiver.recv(), Ok(2));
/// assert_eq!(sends.join().unwrap(), Ok(()));
/// ```
#[must_use]
pub fn rendezvous<T>() -> (Sender<T>, Receiver<T>) {
    bounded(0)
}

/// Sends on a channel. Clones send on the same one.
///
/// # Examples
///
/// ```
/// use strands_sync::channel::{self, Sender};
///
/// let (sender, receiver) = channel::unbounded();
/// let second: Sender<u32> = sender.clone();
/// std::thread::spawn(move || sender.send(1).unwrap());
/// std::thread::spawn(move || second.send(2).unwrap());
/// assert_eq!(receiver.iter().sum::<u32>(), 3);
/// ```
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
}

/// Receives from a channel. Clones receive from the same one; each message goes to one of them.
///
/// # Examples
///
/// ```
/// use strands_sync::channel::{self, Receiver};
///
/// let (sender, receiver) = channel::bounded(8);
/// let second: Receiver<u32> = receiver.clone();
/// let sums = [receiver, second]
///     .map(|receiver| std::thread::spawn(move || receiver.iter().sum::<u32>()));
/// (1..=100).for_each(|number| sender.send(number).unwrap());
/// drop(sender);
/// assert_eq!(sums.map(|sum| sum.join().unwrap()).iter().sum::<u32>(), 5050);
/// ```
pub struct Receiver<T> {
    pub(crate) channel: Arc<Channel<T>>,
}

impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

impl<T> Sender<T> {
    /// Sends a message; waits while the channel is full, in a rendezvous until it is taken.
    ///
    /// A fiber that is cancelled while it waits unwinds, and the message is dropped.
    ///
    /// # Errors
    ///
    /// If the channel is closed; the error has the message. Unless it is a rendezvous, `Ok` does not mean that the
    /// message will be received.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::channel::bounded(1);
    /// sender.send(1).unwrap();
    /// drop(receiver);
    /// assert_eq!(sender.send(2).unwrap_err().0, 2);
    /// ```
    #[inline]
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        static SEND: Op = Op("channel::Sender::send");
        self.channel.send_until(&SEND, None, message).map_err(|error| match error {
            NotSent::Closed(message) | NotSent::Full(message) => SendError(message),
        })
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
    /// use strands_sync::channel::{TrySendError, bounded};
    ///
    /// let (sender, receiver) = bounded(1);
    /// sender.try_send(1).unwrap();
    /// assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
    /// receiver.close();
    /// assert_eq!(sender.try_send(3), Err(TrySendError::Disconnected(3)));
    /// ```
    #[inline]
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.channel.try_send(message).map_err(|error| match error {
            NotSent::Full(message) => TrySendError::Full(message),
            NotSent::Closed(message) => TrySendError::Disconnected(message),
        })
    }

    /// As [`send`](Self::send), for about `timeout`.
    ///
    /// A timeout that no `Instant` can tell is none. If there is room the message is sent also when the timeout is zero.
    ///
    /// # Errors
    ///
    /// `Timeout` or `Disconnected`, with the message.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands_sync::channel::{SendTimeoutError, rendezvous};
    ///
    /// let (sender, _receiver) = rendezvous();
    /// let error = sender.send_timeout(1, Duration::from_millis(1)).unwrap_err();
    /// assert_eq!(error, SendTimeoutError::Timeout(1));
    /// ```
    pub fn send_timeout(&self, message: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.send_deadline(message, deadline::after(timeout))
    }

    /// As [`send`](Self::send), until `deadline`: a point in time, or `None` for never.
    ///
    /// # Errors
    ///
    /// As for [`send_timeout`](Self::send_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Instant;
    ///
    /// let (sender, _receiver) = strands_sync::channel::bounded(1);
    /// assert!(sender.send_deadline(1, Instant::now()).is_ok());
    /// assert!(sender.send_deadline(2, Instant::now()).is_err());
    /// ```
    pub fn send_deadline(
        &self,
        message: T,
        deadline: impl Into<Option<Instant>>,
    ) -> Result<(), SendTimeoutError<T>> {
        static SEND: Op = Op("channel::Sender::send_timeout");
        self.channel.send_until(&SEND, deadline.into(), message).map_err(|error| match error {
            NotSent::Full(message) => SendTimeoutError::Timeout(message),
            NotSent::Closed(message) => SendTimeoutError::Disconnected(message),
        })
    }
}

impl<T> Receiver<T> {
    /// Waits for a message, and takes it.
    ///
    /// A cancelled fiber unwinds from here, unless it has been given a message.
    ///
    /// # Errors
    ///
    /// If the channel is closed and all messages are taken.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::channel::bounded(1);
    /// std::thread::spawn(move || sender.send("hello").unwrap());
    /// assert_eq!(receiver.recv(), Ok("hello"));
    /// assert!(receiver.recv().is_err(), "the sender has gone");
    /// ```
    #[inline]
    pub fn recv(&self) -> Result<T, RecvError> {
        static RECV: Op = Op("channel::Receiver::recv");
        Ok(self.channel.recv_until(&RECV, None, None)?)
    }

    /// Takes a message if there is one, or if a sender waits with one.
    ///
    /// # Errors
    ///
    /// `Empty` if there is none, `Disconnected` if there will be none.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::channel::{TryRecvError, unbounded};
    ///
    /// let (sender, receiver) = unbounded();
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    /// sender.send(1).unwrap();
    /// drop(sender);
    /// assert_eq!(receiver.try_recv(), Ok(1));
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    /// ```
    #[inline]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        Ok(self.channel.try_recv(None)?)
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
    /// use strands_sync::channel::{RecvTimeoutError, unbounded};
    ///
    /// let (sender, receiver) = unbounded::<()>();
    /// let soon = Duration::from_millis(1);
    /// assert_eq!(receiver.recv_timeout(soon), Err(RecvTimeoutError::Timeout));
    /// drop(sender);
    /// assert_eq!(receiver.recv_timeout(soon), Err(RecvTimeoutError::Disconnected));
    /// ```
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_deadline(deadline::after(timeout))
    }

    /// As [`recv_timeout`](Self::recv_timeout), until `deadline`: a point in time, or `None` for never.
    ///
    /// # Errors
    ///
    /// As for [`recv_timeout`](Self::recv_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Instant;
    ///
    /// let (sender, receiver) = strands_sync::channel::unbounded();
    /// assert!(receiver.recv_deadline(Instant::now()).is_err());
    /// sender.send(1).unwrap();
    /// assert_eq!(receiver.recv_deadline(Instant::now()), Ok(1));
    /// ```
    pub fn recv_deadline(
        &self,
        deadline: impl Into<Option<Instant>>,
    ) -> Result<T, RecvTimeoutError> {
        static RECV: Op = Op("channel::Receiver::recv_timeout");
        Ok(self.channel.recv_until(&RECV, deadline.into(), None)?)
    }

    /// Takes messages until the channel is closed; waits for each.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::channel::rendezvous();
    /// std::thread::spawn(move || (0..3).for_each(|i| sender.send(i).unwrap()));
    /// assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2]);
    /// ```
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { receiver: self }
    }

    /// Takes messages as long as there are some; does not wait.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::channel::unbounded();
    /// sender.send(1).unwrap();
    /// sender.send(2).unwrap();
    /// assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1, 2]);
    /// ```
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { receiver: self }
    }

    /// Takes all messages that are there now, those of senders that wait included.
    ///
    /// It is one step: unlike with [`try_iter`](Self::try_iter), what is sent later is left alone.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::channel::unbounded();
    /// (0..3).for_each(|number| sender.send(number).unwrap());
    /// let drained = receiver.drain();
    /// sender.send(3).unwrap();
    /// assert!(drained.eq(0..3));
    /// assert_eq!(receiver.len(), 1);
    /// ```
    pub fn drain(&self) -> impl ExactSizeIterator<Item = T> + use<T> {
        self.channel.drain().into_iter()
    }
}

/// What is the same on both sides.
macro_rules! both_sides {
    ($side:ident) => {
        impl<T> $side<T> {
            /// Closes the channel: from here on nothing is sent.
            ///
            /// Who waits to send gets its message back. Receivers take what is left, and are told that it is over then.
            /// False if it was closed already.
            ///
            /// # Examples
            ///
            /// ```
            /// let (sender, receiver) = strands_sync::channel::bounded(2);
            /// sender.send(1).unwrap();
            /// assert!(sender.close());
            /// assert!(sender.send(2).is_err());
            /// assert_eq!(receiver.recv(), Ok(1));
            /// assert!(receiver.recv().is_err());
            /// assert!(!receiver.close(), "it was closed already");
            /// ```
            pub fn close(&self) -> bool {
                self.channel.close()
            }

            /// Whether nothing can be sent any more: it was closed, or all handles of a side are gone.
            ///
            /// # Examples
            ///
            /// ```
            /// let (sender, receiver) = strands_sync::channel::bounded::<()>(1);
            /// assert!(!sender.is_closed() && !receiver.is_closed());
            /// drop(receiver);
            /// assert!(sender.is_closed());
            /// ```
            #[must_use]
            pub fn is_closed(&self) -> bool {
                charge();
                self.channel.is_closed()
            }

            /// How many messages have been sent and not taken. Those of senders that wait do not count.
            ///
            /// # Examples
            ///
            /// ```
            /// let (sender, receiver) = strands_sync::channel::bounded(2);
            /// sender.send(1).unwrap();
            /// assert_eq!((sender.len(), receiver.len()), (1, 1));
            /// ```
            #[must_use]
            pub fn len(&self) -> usize {
                charge();
                self.channel.len()
            }

            /// Whether [`len`](Self::len) is 0, as a rendezvous' always is.
            ///
            /// # Examples
            ///
            /// ```
            /// let (sender, receiver) = strands_sync::channel::bounded(2);
            /// assert!(sender.is_empty());
            /// sender.send(1).unwrap();
            /// assert!(!receiver.is_empty());
            /// ```
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Whether [`len`](Self::len) is the capacity, as a rendezvous' always is.
            ///
            /// # Examples
            ///
            /// ```
            /// let (sender, receiver) = strands_sync::channel::bounded(1);
            /// assert!(!sender.is_full());
            /// sender.send(1).unwrap();
            /// assert!(receiver.is_full());
            /// ```
            #[must_use]
            pub fn is_full(&self) -> bool {
                self.capacity().is_some_and(|capacity| self.len() >= capacity)
            }

            /// How many messages there is room for; `None` if there is no bound.
            ///
            /// # Examples
            ///
            /// ```
            /// let (sender, receiver) = strands_sync::channel::bounded::<()>(100);
            /// assert_eq!((sender.capacity(), receiver.capacity()), (Some(100), Some(100)));
            /// ```
            #[must_use]
            pub fn capacity(&self) -> Option<usize> {
                self.channel.capacity()
            }

            /// Whether both belong to the same channel.
            ///
            /// # Examples
            ///
            /// ```
            /// let (sender, receiver) = strands_sync::channel::unbounded::<()>();
            /// assert!(sender.same_channel(&sender.clone()));
            /// assert!(receiver.same_channel(&receiver.clone()));
            /// ```
            #[must_use]
            pub fn same_channel(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.channel, &other.channel)
            }

            /// How many [`Sender`]s there are.
            ///
            /// # Examples
            ///
            /// ```
            /// let (sender, receiver) = strands_sync::channel::unbounded::<()>();
            /// let second = sender.clone();
            /// assert_eq!((second.sender_count(), receiver.sender_count()), (2, 2));
            /// ```
            #[must_use]
            pub fn sender_count(&self) -> usize {
                charge();
                self.channel.senders.get()
            }

            /// How many [`Receiver`]s there are.
            ///
            /// # Examples
            ///
            /// ```
            /// let (sender, receiver) = strands_sync::channel::unbounded::<()>();
            /// let second = receiver.clone();
            /// assert_eq!((sender.receiver_count(), second.receiver_count()), (2, 2));
            /// ```
            #[must_use]
            pub fn receiver_count(&self) -> usize {
                charge();
                self.channel.receivers.get()
            }
        }

        impl<T> fmt::Debug for $side<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($side)).finish_non_exhaustive()
            }
        }
    };
}

both_sides!(Sender);
both_sides!(Receiver);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.channel.senders.add();
        Sender { channel: self.channel.clone() }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.channel.receivers.add();
        Receiver { channel: self.channel.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.channel.senders.remove() {
            self.channel.close();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if self.channel.receivers.remove() {
            self.channel.close();
            // First come, first dropped. If a destructor panics the others are dropped all the same.
            drop(self.channel.drain());
        }
    }
}

/// The iterators of a receiver: here and in [`mpsc`](crate::mpsc). The channel is for their examples, the field is what `Debug` shows.
macro_rules! iterators {
    ($module:ident :: $channel:ident, $receiver:ident) => {
        /// See [`Receiver::iter`].
        ///
        /// # Examples
        ///
        /// ```
        #[doc = concat!("use strands_sync::", stringify!($module), "::{self, Iter};")]
        ///
        #[doc = concat!("let (sender, receiver) = ", stringify!($module::$channel), "();")]
        /// std::thread::spawn(move || (1..=3).for_each(|number| sender.send(number).unwrap()));
        /// let numbers: Iter<'_, u32> = receiver.iter();
        /// assert_eq!(numbers.sum::<u32>(), 6);
        /// ```
        #[derive(Debug)]
        pub struct Iter<'a, T: 'a> {
            $receiver: &'a Receiver<T>,
        }

        /// See [`Receiver::try_iter`].
        ///
        /// # Examples
        ///
        /// ```
        #[doc = concat!("use strands_sync::", stringify!($module), "::{self, TryIter};")]
        ///
        #[doc = concat!("let (sender, receiver) = ", stringify!($module::$channel), "();")]
        /// sender.send(1).unwrap();
        /// sender.send(2).unwrap();
        /// let waiting: TryIter<'_, u32> = receiver.try_iter();
        /// assert_eq!(waiting.collect::<Vec<_>>(), [1, 2]);
        /// ```
        #[derive(Debug)]
        pub struct TryIter<'a, T: 'a> {
            $receiver: &'a Receiver<T>,
        }

        /// Takes messages until nothing can be sent any more; waits for each. Owns the receiver.
        ///
        /// # Examples
        ///
        /// ```
        #[doc = concat!("let (sender, receiver) = strands_sync::", stringify!($module::$channel), "();")]
        /// sender.send(1).unwrap();
        /// drop(sender);
        /// for message in receiver {
        ///     assert_eq!(message, 1);
        /// }
        /// ```
        #[derive(Debug)]
        pub struct IntoIter<T> {
            $receiver: Receiver<T>,
        }

        impl<T> Iterator for Iter<'_, T> {
            type Item = T;

            fn next(&mut self) -> Option<T> {
                self.$receiver.recv().ok()
            }
        }

        impl<T> Iterator for TryIter<'_, T> {
            type Item = T;

            fn next(&mut self) -> Option<T> {
                self.$receiver.try_recv().ok()
            }
        }

        impl<T> Iterator for IntoIter<T> {
            type Item = T;

            fn next(&mut self) -> Option<T> {
                self.$receiver.recv().ok()
            }
        }

        impl<'a, T> IntoIterator for &'a Receiver<T> {
            type Item = T;
            type IntoIter = Iter<'a, T>;

            fn into_iter(self) -> Iter<'a, T> {
                self.iter()
            }
        }

        impl<T> IntoIterator for Receiver<T> {
            type Item = T;
            type IntoIter = IntoIter<T>;

            fn into_iter(self) -> IntoIter<T> {
                IntoIter { $receiver: self }
            }
        }
    };
}
pub(crate) use iterators;

iterators!(channel::unbounded, receiver);

/// Why [`Sender::send_timeout`] did not send; with the message.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use strands_sync::channel::{SendTimeoutError, bounded};
///
/// let (sender, receiver) = bounded(1);
/// drop(receiver);
/// let error = sender.send_timeout("back", Duration::from_secs(1)).unwrap_err();
/// assert_eq!(error, SendTimeoutError::Disconnected("back"));
/// assert_eq!(error.into_inner(), "back");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendTimeoutError<T> {
    /// There was no room in time.
    Timeout(T),
    /// The channel is closed.
    Disconnected(T),
}

impl<T> SendTimeoutError<T> {
    /// The message.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = strands_sync::channel::SendTimeoutError::Timeout(1);
    /// assert_eq!(error.into_inner(), 1);
    /// ```
    pub fn into_inner(self) -> T {
        match self {
            SendTimeoutError::Timeout(message) | SendTimeoutError::Disconnected(message) => message,
        }
    }
}

impl<T> fmt::Debug for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendTimeoutError::Timeout(_) => "Timeout(..)",
            SendTimeoutError::Disconnected(_) => "Disconnected(..)",
        })
    }
}

impl<T> fmt::Display for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendTimeoutError::Timeout(_) => "timed out waiting on send operation",
            SendTimeoutError::Disconnected(_) => "sending on a closed channel",
        })
    }
}

impl<T> std::error::Error for SendTimeoutError<T> {}

impl<T> From<SendError<T>> for SendTimeoutError<T> {
    fn from(error: SendError<T>) -> SendTimeoutError<T> {
        SendTimeoutError::Disconnected(error.0)
    }
}
