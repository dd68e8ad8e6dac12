//! A channel in which every receiver gets every message.
//!
//! # Promises
//!
//! Each receiver gets the messages sent since it was made, in the order in which they were sent. Sending never waits:
//! the channel keeps the latest messages, up to its capacity, until all receivers have got them. A receiver that falls behind
//! further than that is told once how many it has lost ([`RecvError::Lagged`]), and goes on with the oldest message that is kept.
//!
//! # The design
//!
//! One lock, over the kept messages and the line of receivers that have got all. Messages are numbered; a receiver has the
//! number of its next one, and each kept message counts the receivers whose next one it is. So who takes a
//! message moves one count by one place, a message that is pushed out leaves its count to the one after it (those receivers lag), and the
//! first message goes when its count is zero: all have got it.
//!
//! Messages are in an `Arc` each, so that they are cloned, and dropped, outside the lock. The last receiver to get one gets
//! the original.
//!
//! # Fairness
//!
//! All receivers that wait are woken by each message, in the order in which they came. Those who send and receive without
//! waiting spend the common budget.
//!
//! Turned down: a slot lock for each message (tokio's: messages are cloned under it), and letting senders wait for the
//! slowest receiver (one that stands still stops all: use a [`bounded`](crate::channel::bounded) channel for each).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc as Message; // Nobody waits for one, so the models need not know.
use std::time::{Duration, Instant};

use strands_sched::{
    About, Arm, Op, Operation, Outcome, Place, WaitQueue, Waiter, cancel_unwind, charge,
};

use crate::atomic::{AcqRel, Arc, AtomicUsize, Relaxed};
use crate::deadline;

pub use std::sync::mpsc::SendError;

/// A channel that keeps up to `capacity` messages for slow receivers.
///
/// # Panics
///
/// If `capacity` is 0.
///
/// # Examples
///
/// ```
/// use strands_sync::broadcast;
///
/// let (sender, mut first) = broadcast::channel(16);
/// let mut second = sender.subscribe();
/// sender.send("to all").unwrap();
/// assert_eq!(first.recv(), Ok("to all"));
/// assert_eq!(second.recv(), Ok("to all"));
/// ```
#[must_use]
pub fn channel<T: Clone>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a broadcast channel that keeps no message tells nobody anything");
    let state =
        State { kept: VecDeque::new(), first: 0, caught_up: 1, receivers: 1, senders_gone: false };
    let shared = Arc::new(Shared {
        messages: WaitQueue::new(state),
        closed: WaitQueue::new(()),
        senders: AtomicUsize::new(1),
        capacity,
    });
    (Sender { shared: shared.clone() }, Receiver { shared, next: 0 })
}

/// Sends to all receivers. Clones send to the same ones.
///
/// # Examples
///
/// ```
/// use strands_sync::broadcast::{self, Sender};
///
/// let (sender, mut receiver) = broadcast::channel(2);
/// let second: Sender<u32> = sender.clone();
/// sender.send(1).unwrap();
/// second.send(2).unwrap();
/// assert_eq!((receiver.recv(), receiver.recv()), (Ok(1), Ok(2)));
/// ```
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// Receives every message that is sent after it was made.
///
/// # Examples
///
/// ```
/// use strands_sync::broadcast::{self, Receiver, RecvError};
///
/// let (sender, mut receiver): (_, Receiver<u32>) = broadcast::channel(2);
/// (0..5).for_each(|number| drop(sender.send(number)));
/// assert_eq!(receiver.recv(), Err(RecvError::Lagged(3)));
/// assert_eq!((receiver.recv(), receiver.recv()), (Ok(3), Ok(4)));
/// ```
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The number of the message that it gets next.
    next: u64,
}

struct Shared<T> {
    /// In line: receivers that have got all.
    messages: WaitQueue<State<T>>,
    /// In line: senders that wait until no receiver is left.
    closed: WaitQueue<()>,
    senders: AtomicUsize,
    capacity: usize,
}

struct State<T> {
    kept: VecDeque<Kept<T>>,
    /// The number of the first that is kept.
    first: u64,
    /// How many receivers have got all.
    caught_up: usize,
    receivers: usize,
    senders_gone: bool,
}

/// A message.
struct Kept<T> {
    message: Message<T>,
    /// How many receivers get this one next.
    next_for: usize,
}

impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

impl<T> Sender<T> {
    /// Sends a message to all receivers; returns how many there are. Never waits.
    ///
    /// # Errors
    ///
    /// If there is no receiver; the error has the message.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::broadcast::channel(1);
    /// let second = sender.subscribe();
    /// assert_eq!(sender.send(1), Ok(2));
    /// drop((receiver, second));
    /// assert_eq!(sender.send(2).unwrap_err().0, 2);
    /// ```
    pub fn send(&self, message: T) -> Result<usize, SendError<T>> {
        charge();
        let message = Message::new(message);
        let mut state = self.shared.messages.lock();
        if state.receivers == 0 {
            drop(state);
            let message = Message::into_inner(message).expect("nobody else has it");
            return Err(SendError(message));
        }
        let receivers = state.receivers;
        let next_for = mem::take(&mut state.caught_up);
        state.kept.push_back(Kept { message, next_for });
        let mut lost = None;
        if state.kept.len() > self.shared.capacity {
            lost = state.kept.pop_front();
            state.first += 1;
            state.kept[0].next_for += lost.as_ref().map_or(0, |lost| lost.next_for);
        }
        state.release_all();
        drop(lost);
        Ok(receivers)
    }

    /// A new receiver, for what is sent from here on.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _receiver) = strands_sync::broadcast::channel(2);
    /// sender.send(1).unwrap();
    /// let mut late = sender.subscribe();
    /// sender.send(2).unwrap();
    /// assert_eq!(late.recv(), Ok(2));
    /// ```
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver::new(&self.shared)
    }

    /// How many messages are kept, because some receiver has not got them.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut receiver) = strands_sync::broadcast::channel(2);
    /// sender.send(1).unwrap();
    /// assert_eq!(sender.len(), 1);
    /// receiver.recv().unwrap();
    /// assert_eq!(sender.len(), 0);
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        charge();
        self.shared.messages.lock().kept.len()
    }

    /// Whether all receivers have got all messages.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _receiver) = strands_sync::broadcast::channel(2);
    /// assert!(sender.is_empty());
    /// sender.send(1).unwrap();
    /// assert!(!sender.is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many receivers there are.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _receiver) = strands_sync::broadcast::channel::<()>(2);
    /// let second = sender.subscribe();
    /// assert_eq!(sender.receiver_count(), 2);
    /// # drop(second);
    /// ```
    #[must_use]
    pub fn receiver_count(&self) -> usize {
        charge();
        self.shared.messages.lock().receivers
    }

    /// How many senders there are.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _receiver) = strands_sync::broadcast::channel::<()>(2);
    /// let second = sender.clone();
    /// assert_eq!(second.sender_count(), 2);
    /// ```
    #[must_use]
    pub fn sender_count(&self) -> usize {
        charge();
        self.shared.senders.load(Relaxed)
    }

    /// Waits until there is no receiver.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::broadcast::channel::<()>(2);
    /// let leaves = std::thread::spawn(move || drop(receiver));
    /// sender.closed();
    /// # leaves.join().unwrap();
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
    /// let (sender, receiver) = strands_sync::broadcast::channel::<()>(2);
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
    /// let (sender, _receiver) = strands_sync::broadcast::channel::<()>(2);
    /// assert!(!sender.closed_deadline(std::time::Instant::now()));
    /// ```
    #[must_use = "it may not be closed"]
    pub fn closed_deadline(&self, deadline: impl Into<Option<Instant>>) -> bool {
        static CLOSED: Op = Op("broadcast::Sender::closed");
        charge();
        // The last receiver leaves first, and takes this line's lock then. Under it nothing may suspend, as
        // `receiver_count` may.
        let closed = |(): &mut ()| (self.shared.messages.lock().receivers == 0).then_some(());
        match self.shared.closed.wait(&CLOSED, deadline.into(), (), closed) {
            Ok(()) | Err(Outcome::Woken) => true,
            Err(Outcome::TimedOut) => false,
            Err(Outcome::Cancelled) => cancel_unwind(),
        }
    }

    /// Whether both send to the same receivers.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _receiver) = strands_sync::broadcast::channel::<()>(2);
    /// assert!(sender.same_channel(&sender.clone()));
    /// ```
    #[must_use]
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<T: Clone> Receiver<T> {
    /// Waits for the next message.
    ///
    /// A cancelled fiber unwinds from here, unless there is one. If the message's `clone` panics it counts as received.
    ///
    /// # Errors
    ///
    /// `Lagged` if messages were lost: the next call gets the oldest that is kept. `Closed` if all senders are gone and it has got all.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::broadcast::{self, RecvError};
    ///
    /// let (sender, mut receiver) = broadcast::channel(2);
    /// std::thread::spawn(move || sender.send(1));
    /// assert_eq!(receiver.recv(), Ok(1));
    /// assert_eq!(receiver.recv(), Err(RecvError::Closed));
    /// ```
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.recv_deadline(None).map_err(|error| match error {
            RecvTimeoutError::Lagged(lost) => RecvError::Lagged(lost),
            RecvTimeoutError::Closed | RecvTimeoutError::Timeout => RecvError::Closed,
        })
    }

    /// Takes the next message, if it has been sent.
    ///
    /// # Errors
    ///
    /// `Empty` if it has got all; else as for [`recv`](Self::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sync::broadcast::{self, TryRecvError};
    ///
    /// let (sender, mut receiver) = broadcast::channel(2);
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    /// sender.send(1).unwrap();
    /// assert_eq!(receiver.try_recv(), Ok(1));
    /// ```
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        charge();
        let taken = self.shared.messages.lock().take(&mut self.next);
        taken.map(Message::unwrap_or_clone)
    }

    /// As [`recv`](Self::recv), for about `timeout`.
    ///
    /// A timeout that no `Instant` can tell is none. A message that is there is taken also when the timeout is zero.
    ///
    /// # Errors
    ///
    /// `Timeout` if the time was up; else as for [`recv`](Self::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands_sync::broadcast::{self, RecvTimeoutError};
    ///
    /// let (_sender, mut receiver) = broadcast::channel::<()>(2);
    /// let soon = Duration::from_millis(1);
    /// assert_eq!(receiver.recv_timeout(soon), Err(RecvTimeoutError::Timeout));
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
    /// use std::time::Instant;
    ///
    /// let (sender, mut receiver) = strands_sync::broadcast::channel(2);
    /// assert!(receiver.recv_deadline(Instant::now()).is_err());
    /// sender.send(1).unwrap();
    /// assert_eq!(receiver.recv_deadline(Instant::now()), Ok(1));
    /// ```
    pub fn recv_deadline(
        &mut self,
        deadline: impl Into<Option<Instant>>,
    ) -> Result<T, RecvTimeoutError> {
        static RECV: Op = Op("broadcast::Receiver::recv");
        let deadline = deadline.into();
        charge();
        loop {
            let mut state = self.shared.messages.lock();
            match state.take(&mut self.next) {
                Ok(message) => {
                    drop(state);
                    return Ok(Message::unwrap_or_clone(message));
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Closed) => return Err(RecvTimeoutError::Closed),
                Err(TryRecvError::Lagged(lost)) => return Err(RecvTimeoutError::Lagged(lost)),
            }
            match state.wait(Place::Last, &RECV, deadline, (), || {}) {
                Outcome::Woken => {}
                Outcome::TimedOut => return Err(RecvTimeoutError::Timeout),
                Outcome::Cancelled => cancel_unwind(),
            }
        }
    }
}

impl<T> Receiver<T> {
    /// A new receiver, for what is sent from here on, whatever this one has not got yet.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut receiver) = strands_sync::broadcast::channel(2);
    /// sender.send(1).unwrap();
    /// let mut late = receiver.resubscribe();
    /// sender.send(2).unwrap();
    /// assert_eq!((receiver.recv(), late.recv()), (Ok(1), Ok(2)));
    /// ```
    #[must_use]
    pub fn resubscribe(&self) -> Receiver<T> {
        Receiver::new(&self.shared)
    }

    /// How many messages have been sent that it has not got: those that it has lost already included.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::broadcast::channel(2);
    /// (0..5).for_each(|number| drop(sender.send(number)));
    /// assert_eq!(receiver.len(), 5, "more than are kept: the next call says that it lags");
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        charge();
        let state = self.shared.messages.lock();
        usize::try_from(state.end() - self.next).unwrap_or(usize::MAX)
    }

    /// Whether it has got all messages.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::broadcast::channel(2);
    /// assert!(receiver.is_empty());
    /// sender.send(1).unwrap();
    /// assert!(!receiver.is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all senders are gone. There may be messages yet.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = strands_sync::broadcast::channel::<()>(2);
    /// assert!(!receiver.is_closed());
    /// drop(sender);
    /// assert!(receiver.is_closed());
    /// ```
    #[must_use]
    pub fn is_closed(&self) -> bool {
        charge();
        self.shared.messages.lock().senders_gone
    }

    /// Whether both get the same messages.
    ///
    /// # Examples
    ///
    /// ```
    /// let (_sender, receiver) = strands_sync::broadcast::channel::<()>(2);
    /// assert!(receiver.same_channel(&receiver.resubscribe()));
    /// ```
    #[must_use]
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<T> Receiver<T> {
    /// One that has got all that was sent up to now.
    fn new(shared: &Arc<Shared<T>>) -> Receiver<T> {
        let mut state = shared.messages.lock();
        // Cannot overflow: each receiver has an `Arc`, which sees to that.
        state.receivers += 1;
        state.caught_up += 1;
        let next = state.end();
        drop(state);
        Receiver { shared: shared.clone(), next }
    }
}

impl<T> State<T> {
    /// The number of the message that is sent next.
    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// The count that a receiver is in whose next message is this one.
    fn count(&mut self, next: u64) -> &mut usize {
        let index = usize::try_from(next.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.kept.get_mut(index).map_or(&mut self.caught_up, |kept| &mut kept.next_for)
    }

    /// Takes the next message of a receiver.
    fn take(&mut self, next: &mut u64) -> Result<Message<T>, TryRecvError> {
        if *next < self.first {
            let lost = self.first - *next;
            *next = self.first;
            return Err(TryRecvError::Lagged(lost));
        }
        if *next == self.end() {
            let senders_gone = self.senders_gone;
            return Err(if senders_gone { TryRecvError::Closed } else { TryRecvError::Empty });
        }
        *self.count(*next) -= 1;
        *self.count(*next + 1) += 1;
        let is_first = *next == self.first;
        *next += 1;
        if is_first && let Some(kept) = self.kept.pop_front_if(|first| first.next_for == 0) {
            self.first += 1;
            return Ok(kept.message);
        }
        let index = usize::try_from(*next - 1 - self.first).expect("it is the index of one");
        Ok(self.kept[index].message.clone())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        // Cannot overflow: each sender has an `Arc`, which sees to that.
        self.shared.senders.fetch_add(1, Relaxed);
        Sender { shared: self.shared.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, AcqRel) == 1 {
            let mut state = self.shared.messages.lock();
            state.senders_gone = true;
            state.release_all();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.messages.lock();
        *state.count(self.next) -= 1;
        state.receivers -= 1;
        let is_last = state.receivers == 0;
        // What only this one had not got. It is dropped after the lock has been released.
        let mut got_by_all = VecDeque::new();
        while let Some(kept) = state.kept.pop_front_if(|first| first.next_for == 0) {
            state.first += 1;
            got_by_all.push_back(kept);
        }
        drop(state);
        if is_last {
            self.shared.closed.lock().release_all();
        }
        drop(got_by_all);
    }
}

/// Why [`Receiver::recv`] did not receive.
///
/// # Examples
///
/// ```
/// use strands_sync::broadcast::{self, RecvError};
///
/// let (sender, mut receiver) = broadcast::channel(1);
/// (0..3).for_each(|number| drop(sender.send(number)));
/// drop(sender);
/// assert_eq!(receiver.recv(), Err(RecvError::Lagged(2)));
/// assert_eq!(receiver.recv(), Ok(2));
/// assert_eq!(receiver.recv(), Err(RecvError::Closed));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecvError {
    /// All senders are gone, and it has got all messages.
    Closed,
    /// So many messages were lost because it was too slow.
    Lagged(u64),
}

/// Why [`Receiver::try_recv`] did not receive.
///
/// # Examples
///
/// ```
/// use strands_sync::broadcast::{self, TryRecvError};
///
/// let (sender, mut receiver) = broadcast::channel::<()>(1);
/// assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
/// drop(sender);
/// assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryRecvError {
    /// It has got all messages that have been sent.
    Empty,
    /// All senders are gone, and it has got all messages.
    Closed,
    /// So many messages were lost because it was too slow.
    Lagged(u64),
}

/// Why [`Receiver::recv_timeout`] did not receive.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use strands_sync::broadcast::{self, RecvTimeoutError};
///
/// let (sender, mut receiver) = broadcast::channel::<()>(1);
/// assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
/// drop(sender);
/// assert_eq!(receiver.recv_timeout(Duration::MAX), Err(RecvTimeoutError::Closed));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecvTimeoutError {
    /// The time was up.
    Timeout,
    /// All senders are gone, and it has got all messages.
    Closed,
    /// So many messages were lost because it was too slow.
    Lagged(u64),
}

fn closed(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("receiving on a closed channel")
}

fn lagged(lost: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "the receiver was too slow and has lost {lost} messages")
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::Closed => closed(f),
            RecvError::Lagged(lost) => lagged(*lost, f),
        }
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryRecvError::Empty => f.write_str("receiving on an empty channel"),
            TryRecvError::Closed => closed(f),
            TryRecvError::Lagged(lost) => lagged(*lost, f),
        }
    }
}

impl fmt::Display for RecvTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvTimeoutError::Timeout => f.write_str("timed out waiting on channel"),
            RecvTimeoutError::Closed => closed(f),
            RecvTimeoutError::Lagged(lost) => lagged(*lost, f),
        }
    }
}

impl std::error::Error for RecvError {}
impl std::error::Error for TryRecvError {}
impl std::error::Error for RecvTimeoutError {}

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
/// use strands_sync::broadcast::{RecvOperation, channel};
///
/// let (sender, mut receiver) = channel(4);
/// sender.send("news").unwrap();
/// let recv: RecvOperation<'_, &str> = receiver.select_recv();
/// select(&[&recv], Order::Fair, None);
/// assert_eq!(recv.take(), Some(Ok("news")));
/// ```
pub struct RecvOperation<'a, T> {
    receiver: RefCell<&'a mut Receiver<T>>,
    waiter: Waiter<()>,
}

impl<T: Clone> Receiver<T> {
    /// To receive, as one of several operations that a [`select`](strands_sched::select) chooses from. It is performed when
    /// there is a message, or some were lost, or there will be none.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sched::{Order, try_select};
    ///
    /// let (sender, mut receiver) = strands_sync::broadcast::channel::<u32>(4);
    /// assert_eq!(try_select(&[&receiver.select_recv()], Order::Fair), None);
    /// drop(sender);
    /// assert_eq!(try_select(&[&receiver.select_recv()], Order::Fair), Some(0));
    /// ```
    pub fn select_recv(&mut self) -> RecvOperation<'_, T> {
        RecvOperation { receiver: RefCell::new(self), waiter: Waiter::new() }
    }
}

impl<T: Clone> RecvOperation<'_, T> {
    /// What [`Receiver::recv`] returns; `None` if that would wait.
    ///
    /// # Examples
    ///
    /// ```
    /// let (_sender, mut receiver) = strands_sync::broadcast::channel::<u32>(4);
    /// assert_eq!(receiver.select_recv().take(), None);
    /// ```
    pub fn take(&self) -> Option<Result<T, RecvError>> {
        let receiver = &mut **self.receiver.borrow_mut();
        let taken = receiver.shared.messages.lock().take(&mut receiver.next);
        match taken {
            Ok(message) => Some(Ok(Message::unwrap_or_clone(message))),
            Err(TryRecvError::Closed) => Some(Err(RecvError::Closed)),
            Err(TryRecvError::Lagged(lost)) => Some(Err(RecvError::Lagged(lost))),
            Err(TryRecvError::Empty) => None,
        }
    }
}

impl<T> State<T> {
    /// Whether a receiver with this next message would have to wait for it.
    fn must_wait(&self, next: u64) -> bool {
        next == self.end() && !self.senders_gone
    }
}

// SAFETY: `withdraw` takes the waiter out of the only line it is put in.
unsafe impl<T> Operation for RecvOperation<'_, T> {
    fn attempt(&self) -> bool {
        self.waiter.assert_idle();
        let receiver = self.receiver.borrow();
        !receiver.shared.messages.lock().must_wait(receiver.next)
    }

    unsafe fn enrol(&self, arm: Arm<'_>) -> bool {
        let receiver = self.receiver.borrow();
        let mut messages = receiver.shared.messages.lock();
        // SAFETY: `select` borrows us until we are withdrawn.
        messages.must_wait(receiver.next) && unsafe { messages.enrol(&self.waiter, arm, ()) }
    }

    unsafe fn withdraw(&self) {
        self.receiver.borrow().shared.messages.withdraw(&self.waiter);
    }

    fn about(&self) -> About {
        About {
            operation: "broadcast::Receiver::recv",
            object: self.waiter.line(),
            descriptor: None,
        }
    }
}
