//! Channels: many senders, one receiver. As `std::sync::mpsc`, for fibers and plain threads alike.
//!
//! # The design
//!
//! One lock guards the queue of messages and the line of receivers; a second line, whose lock is taken inside the
//! first, holds the senders of a full channel. Invariants, while the first lock is held:
//!
//! 1. A receiver is in line only if no message is queued and no sender is in line.
//! 2. A sender is in line only if as many messages are queued as the bound allows.
//!
//! A message goes from hand to hand: a sender that finds a receiver in line moves the message to the receiver's frame, and
//! a receiver that makes room moves the message of the first sender in line into the queue (or, without a
//! queue, takes it: bound 0 is a rendezvous). So who was chosen has nothing to look for when it runs,
//! and no newcomer can take what it was woken for. Who gave up meanwhile is passed over in the same step.
//!
//! The receiver of an unbounded channel takes all queued messages at once, if there are several, by swapping its own empty
//! buffer for the queue; so a busy channel locks once for many messages and allocates nothing.
//!
//! Messages are dropped outside the locks, as their destructors may do anything. (The type is `!Sync`, but fibers of
//! one worker may share a receiver; so it is a line of receivers.)
//!
//! Turned down: a lock-free list of blocks. A wait needs the state and the line in one step, and two
//! uncontended lock operations cost no more than the counters and flags of such a list.
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

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use strands_sched::{Locked, Op, Outcome, Place, WaitQueue, Wake, cancel_unwind, charge};

use crate::atomic::{AcqRel, Arc, AtomicUsize, Relaxed};

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
    let channel = Channel::new(usize::MAX);
    (Sender { channel: channel.clone() }, Receiver::new(channel))
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
    let channel = Channel::new(bound);
    (SyncSender { channel: channel.clone() }, Receiver::new(channel))
}

/// Sends on a [`channel`]. Clones send on the same one.
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
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
}

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
pub struct SyncSender<T> {
    channel: Arc<Channel<T>>,
}

/// Receives from a [`channel`] or [`sync_channel`]. There is one.
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
    channel: Arc<Channel<T>>,
    /// Messages of an unbounded channel that were taken but not yet asked for; they are before
    /// those in the queue.
    taken: RefCell<VecDeque<T>>,
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
        charge();
        match self.channel.offer(message) {
            Ok(()) => Ok(()),
            Err(Refused::Gone(message)) => Err(SendError(message)),
            Err(Refused::Full(..)) => unreachable!("memory holds fewer messages than the bound"),
        }
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
        static SEND: Op = Op("SyncSender::send");
        charge();
        let (messages, message) = match self.channel.offer(message) {
            Ok(()) => return Ok(()),
            Err(Refused::Gone(message)) => return Err(SendError(message)),
            Err(Refused::Full(messages, message)) => (messages, message),
        };
        let slot = Cell::new(Some(message));
        // In line before the messages are unlocked, so whoever makes room finds us.
        let senders = self.channel.senders_in_line.lock();
        let outcome = senders.wait(Place::Last, &SEND, None, Slot(&slot), || drop(messages));
        match slot.into_inner() {
            None => Ok(()),
            Some(message) if outcome == Outcome::Woken => Err(SendError(message)),
            Some(_message) => cancel_unwind(),
        }
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
        charge();
        match self.channel.offer(message) {
            Ok(()) => Ok(()),
            Err(Refused::Gone(message)) => Err(TrySendError::Disconnected(message)),
            Err(Refused::Full(messages, message)) => {
                drop(messages);
                Err(TrySendError::Full(message))
            }
        }
    }
}

impl<T> Receiver<T> {
    fn new(channel: Arc<Channel<T>>) -> Receiver<T> {
        Receiver { channel, taken: RefCell::default() }
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
        self.recv_until(&RECV, None).map_err(|_| RecvError)
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
        charge();
        match self.take() {
            Ok(message) => Ok(message),
            Err(messages) if messages.senders_gone => Err(TryRecvError::Disconnected),
            Err(_) => Err(TryRecvError::Empty),
        }
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
        self.recv_until(&RECV, Instant::now().checked_add(timeout))
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

    fn recv_until(
        &self,
        op: &'static Op,
        deadline: Option<Instant>,
    ) -> Result<T, RecvTimeoutError> {
        charge();
        let messages = match self.take() {
            Ok(message) => return Ok(message),
            Err(messages) if messages.senders_gone => return Err(RecvTimeoutError::Disconnected),
            Err(messages) => messages,
        };
        let slot = Cell::new(None);
        let outcome = messages.wait(Place::Last, op, deadline, Slot(&slot), || {});
        match (outcome, slot.into_inner()) {
            (_, Some(message)) => Ok(message),
            (Outcome::Woken, None) => Err(RecvTimeoutError::Disconnected),
            (Outcome::TimedOut, None) => Err(RecvTimeoutError::Timeout),
            (Outcome::Cancelled, None) => cancel_unwind(),
        }
    }

    /// Takes a message. If there is none, the caller gets the lock, to get in line.
    #[inline]
    fn take(&self) -> Result<T, Messages<'_, T>> {
        if let Some(message) = self.taken.borrow_mut().pop_front() {
            return Ok(message);
        }
        let messages = self.channel.messages.lock();
        match messages.bound {
            usize::MAX => self.take_unbounded(messages),
            _ => self.take_bounded(messages),
        }
    }

    #[inline]
    fn take_unbounded<'a>(&'a self, mut messages: Messages<'a, T>) -> Result<T, Messages<'a, T>> {
        if messages.queue.is_empty() {
            return Err(messages);
        }
        let mut taken = self.taken.borrow_mut();
        if messages.queue.len() == 1 && taken.capacity() <= MANY {
            return Ok(messages.queue.pop_front().expect("there is one"));
        }
        mem::swap(&mut *taken, &mut messages.queue);
        // Our buffer is the queue now. If a burst has left it far too large, its memory goes back.
        let excess =
            messages.queue.capacity() > MANY && messages.queue.capacity() / 8 > taken.len();
        let spare = if excess { mem::take(&mut messages.queue) } else { VecDeque::new() };
        drop(messages);
        drop(spare);
        Ok(taken.pop_front().expect("it was not empty"))
    }

    fn take_bounded<'a>(&'a self, mut messages: Messages<'a, T>) -> Result<T, Messages<'a, T>> {
        let full = messages.queue.len() == messages.bound;
        let mut message = messages.queue.pop_front();
        let mut chosen = None;
        if full {
            let hand = Cell::new(None);
            chosen = self.channel.senders_in_line.lock().choose_first(Slot::exchange(&hand));
            match message {
                None => message = hand.into_inner(),
                Some(_) => messages.queue.extend(hand.into_inner()),
            }
        }
        let Some(message) = message else { return Err(messages) };
        drop(messages);
        drop(chosen);
        Ok(message)
    }
}

/// An empty buffer of up to this many messages is kept, however few they are at a time.
const MANY: usize = 1024;

struct Channel<T> {
    /// What was sent and not taken; in line: receivers.
    messages: WaitQueue<State<T>, Slot<T>>,
    /// In line: senders with a message each.
    senders_in_line: WaitQueue<(), Slot<T>>,
    /// How many there are.
    senders: AtomicUsize,
}

type Messages<'a, T> = Locked<'a, State<T>, Slot<T>>;

struct State<T> {
    queue: VecDeque<T>,
    bound: usize,
    receiver_gone: bool,
    senders_gone: bool,
}

/// Where a message passes through: on the frame of who is in line.
struct Slot<T>(*const Cell<Option<T>>);

// SAFETY: it is used under the lock of its line until its owner has been chosen or has left the line,
// and by its owner after; so the message moves from one thread to the other.
unsafe impl<T: Send> Send for Slot<T> {}

impl<T> Slot<T> {
    /// For [`Locked::choose_first`]: exchanges what is in the slot for what is in `hand`.
    #[inline]
    fn exchange(hand: &Cell<Option<T>>) -> impl Fn(&Slot<T>) {
        // SAFETY: whose slot it is, is in line or gives up; it waits for the lock that we
        // hold before it leaves its frame.
        |slot| unsafe { (*slot.0).swap(hand) }
    }
}

/// Why a message was not sent.
enum Refused<'a, T> {
    /// The receiver is gone.
    Gone(T),
    /// There is no room. The sender may get in line.
    Full(Messages<'a, T>, T),
}

impl<T> Channel<T> {
    fn new(bound: usize) -> Arc<Channel<T>> {
        let queue = VecDeque::new();
        let state = State { queue, bound, receiver_gone: false, senders_gone: false };
        Arc::new(Channel {
            messages: WaitQueue::new(state),
            senders_in_line: WaitQueue::new(()),
            senders: AtomicUsize::new(1),
        })
    }

    /// Gives a message to the receiver that waits, or queues it.
    #[inline]
    fn offer(&self, message: T) -> Result<(), Refused<'_, T>> {
        let mut messages = self.messages.lock();
        if messages.receiver_gone {
            drop(messages);
            return Err(Refused::Gone(message));
        }
        if messages.is_empty() {
            return Channel::enqueue(messages, message);
        }
        let hand = Cell::new(Some(message));
        let chosen: Option<Wake> = messages.choose_first(Slot::exchange(&hand));
        match hand.into_inner() {
            None => {
                drop(messages);
                drop(chosen);
                Ok(())
            }
            Some(message) => Channel::enqueue(messages, message),
        }
    }

    #[inline]
    fn enqueue(mut messages: Messages<'_, T>, message: T) -> Result<(), Refused<'_, T>> {
        if messages.queue.len() >= messages.bound {
            return Err(Refused::Full(messages, message));
        }
        messages.queue.push_back(message);
        Ok(())
    }

    /// The channel, for one sender more.
    fn add_sender(channel: &Arc<Self>) -> Arc<Self> {
        let senders = channel.senders.fetch_add(1, Relaxed);
        if senders > isize::MAX as usize {
            std::process::abort(); // As `Arc` does: they were forgotten by the billion.
        }
        channel.clone()
    }

    fn remove_sender(&self) {
        if self.senders.fetch_sub(1, AcqRel) != 1 {
            return;
        }
        let mut messages = self.messages.lock();
        messages.senders_gone = true;
        messages.release_all();
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender { channel: Channel::add_sender(&self.channel) }
    }
}

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> SyncSender<T> {
        SyncSender { channel: Channel::add_sender(&self.channel) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.channel.remove_sender();
    }
}

impl<T> Drop for SyncSender<T> {
    fn drop(&mut self) {
        self.channel.remove_sender();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut messages = self.channel.messages.lock();
        messages.receiver_gone = true;
        let queue = mem::take(&mut messages.queue);
        drop(messages);
        // Nobody gets in line from here on; those who are find their message still in the slot.
        self.channel.senders_in_line.lock().release_all();
        // First come, first dropped. If a destructor panics the queue is dropped all the same.
        drop(mem::take(self.taken.get_mut()));
        drop(queue);
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

/// See [`Receiver::iter`].
///
/// # Examples
///
/// ```
/// use strands_sync::mpsc::{Iter, channel};
///
/// let (sender, receiver) = channel();
/// std::thread::spawn(move || (1..=3).for_each(|number| sender.send(number).unwrap()));
/// let numbers: Iter<'_, u32> = receiver.iter();
/// assert_eq!(numbers.sum::<u32>(), 6);
/// ```
#[derive(Debug)]
pub struct Iter<'a, T: 'a> {
    rx: &'a Receiver<T>,
}

/// See [`Receiver::try_iter`].
///
/// # Examples
///
/// ```
/// use strands_sync::mpsc::{TryIter, channel};
///
/// let (sender, receiver) = channel();
/// sender.send(1).unwrap();
/// sender.send(2).unwrap();
/// let waiting: TryIter<'_, u32> = receiver.try_iter();
/// assert_eq!(waiting.collect::<Vec<_>>(), [1, 2]);
/// ```
#[derive(Debug)]
pub struct TryIter<'a, T: 'a> {
    rx: &'a Receiver<T>,
}

/// Takes messages until all senders are gone; waits for each. Owns the receiver.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = strands_sync::mpsc::channel();
/// sender.send(1).unwrap();
/// drop(sender);
/// for message in receiver {
///     assert_eq!(message, 1);
/// }
/// ```
#[derive(Debug)]
pub struct IntoIter<T> {
    rx: Receiver<T>,
}

impl<T> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.rx.recv().ok()
    }
}

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.rx.try_recv().ok()
    }
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.rx.recv().ok()
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
        IntoIter { rx: self }
    }
}
