//! Sending and receiving as one of several operations.
//!
//! A select that waits is in the line like anybody else, once for each of its operations. What is special is that it
//! may want to send and to receive: then both kinds are in a rendezvous' line, [`Side::Both`], and it must not
//! meet itself.

use std::cell::Cell;

use strands_sched::{About, Arm, Operation, Waiter};

use super::core::{Channel, NotReceived, NotSent, Rest, Side, Slot};
use super::{Receiver, RecvError, SendError, Sender};
use crate::select::{Message, Place};

/// To receive, as one of several operations. See [`Receiver::select_recv`].
///
/// # Examples
///
/// ```
/// use strands_sched::{Order, select};
/// use strands_sync::channel::{RecvOperation, unbounded};
///
/// let channels = [(); 3].map(|()| unbounded());
/// channels[1].0.send("hello").unwrap();
/// let operations: [RecvOperation<'_, &str>; 3] = [0, 1, 2].map(|i| channels[i].1.select_recv());
/// let [a, b, c] = &operations;
/// let chosen = select(&[a, b, c], Order::Fair, None);
/// assert_eq!(chosen, Some(1));
/// assert_eq!(operations[1].take(), Some(Ok("hello")));
/// ```
pub struct RecvOperation<'a, T> {
    channel: &'a Channel<T>,
    rest: Option<&'a Rest<T>>,
    message: Cell<Option<T>>,
    /// It was performed, and the outcome not taken.
    done: Cell<bool>,
    waiter: Waiter<Slot<T>>,
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
    /// let (sender, receiver) = strands_sync::channel::bounded(1);
    /// let recv = receiver.select_recv();
    /// assert_eq!(try_select(&[&recv], Order::Fair), None);
    /// sender.send(1).unwrap();
    /// assert_eq!(try_select(&[&recv], Order::Fair), Some(0));
    /// assert_eq!(recv.take(), Some(Ok(1)));
    /// ```
    pub fn select_recv(&self) -> RecvOperation<'_, T> {
        self.select_recv_with(None)
    }

    pub(crate) fn select_recv_with<'a>(
        &'a self,
        rest: Option<&'a Rest<T>>,
    ) -> RecvOperation<'a, T> {
        RecvOperation {
            channel: &self.channel,
            rest,
            message: Cell::new(None),
            done: Cell::new(false),
            waiter: Waiter::new(),
        }
    }
}

impl<T> RecvOperation<'_, T> {
    /// The outcome, if it was performed: a message, or that there will be none. After that it can be performed again.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sched::{Order, select};
    ///
    /// let (sender, receiver) = strands_sync::channel::unbounded::<u32>();
    /// let recv = receiver.select_recv();
    /// assert_eq!(recv.take(), None);
    /// drop(sender);
    /// select(&[&recv], Order::Fair, None);
    /// assert!(recv.take().unwrap().is_err());
    /// ```
    pub fn take(&self) -> Option<Result<T, RecvError>> {
        self.waiter.assert_idle();
        self.done.replace(false).then(|| self.message.take().ok_or(RecvError))
    }
}

// SAFETY: `withdraw` takes the waiter out of the only line it is put in.
unsafe impl<T> Operation for RecvOperation<'_, T> {
    fn attempt(&self) -> bool {
        self.waiter.assert_idle();
        if self.done.get() {
            return true;
        }
        match self.channel.poll_recv(self.rest) {
            Ok(message) => self.message.set(Some(message)),
            Err(NotReceived::Closed) => {}
            Err(NotReceived::Empty) => return false,
        }
        self.done.set(true);
        true
    }

    unsafe fn enrol(&self, arm: Arm<'_>) -> bool {
        let slot = Slot { cell: &self.message, side: Side::Receivers };
        let has_more = self.rest.is_some_and(|rest| !rest.borrow().is_empty());
        // SAFETY: `select` borrows us, and so the cell, until we are withdrawn.
        !has_more && unsafe { self.channel.enrol(&self.waiter, arm, slot) }
    }

    unsafe fn withdraw(&self) {
        self.channel.withdraw(&self.waiter);
    }

    unsafe fn complete(&self) -> bool {
        self.done.set(true);
        true
    }

    fn about(&self) -> About {
        About { operation: "channel::Receiver::recv", object: self.waiter.line(), descriptor: None }
    }
}

/// To send, as one of several operations. See [`Sender::select_send`].
///
/// # Examples
///
/// ```
/// use strands_sched::{Order, select};
/// use strands_sync::channel::{SendOperation, bounded};
///
/// let (sender, receiver) = bounded(1);
/// let send: SendOperation<'_, i32> = sender.select_send(1);
/// assert_eq!(select(&[&send], Order::Fair, None), Some(0));
/// assert_eq!(send.take(), Some(Ok(())));
/// assert_eq!(receiver.recv(), Ok(1));
/// ```
pub struct SendOperation<'a, T> {
    channel: &'a Channel<T>,
    message: Place<'a, T>,
    done: Cell<bool>,
    waiter: Waiter<Slot<T>>,
}

impl<T> Sender<T> {
    /// To send, as one of several operations that a [`select`](strands_sched::select) chooses from. It is performed when
    /// the message can be sent, or never will be.
    ///
    /// `message` is a `T`, which stays with the operation until it is sent; or a `&mut Option<T>`, which is emptied when it
    /// is. With an empty one the operation is never performed.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sched::{Order, try_select};
    ///
    /// let (sender, receiver) = strands_sync::channel::bounded(1);
    /// let mut message = Some("hello");
    /// sender.send("there is room for one").unwrap();
    /// assert_eq!(try_select(&[&sender.select_send(&mut message)], Order::Fair), None);
    /// assert_eq!(message, Some("hello"), "it was not sent");
    /// receiver.recv().unwrap();
    /// assert_eq!(try_select(&[&sender.select_send(&mut message)], Order::Fair), Some(0));
    /// assert_eq!(message, None);
    /// ```
    pub fn select_send<'a>(&'a self, message: impl Message<'a, T>) -> SendOperation<'a, T> {
        SendOperation {
            channel: &self.channel,
            message: message.place(),
            done: Cell::new(false),
            waiter: Waiter::new(),
        }
    }
}

impl<T> SendOperation<'_, T> {
    /// The outcome, if it was performed: sent, or the message, as it never will be.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sched::{Order, select};
    ///
    /// let (sender, receiver) = strands_sync::channel::bounded(1);
    /// drop(receiver);
    /// let send = sender.select_send(7);
    /// assert_eq!(send.take(), None);
    /// select(&[&send], Order::Fair, None);
    /// assert_eq!(send.take().unwrap().unwrap_err().0, 7);
    /// ```
    pub fn take(&self) -> Option<Result<(), SendError<T>>> {
        self.waiter.assert_idle();
        let unsent = || self.message.cell().take();
        self.done.replace(false).then(|| unsent().map_or(Ok(()), |message| Err(SendError(message))))
    }

    /// Exchanges the message; `None` for none, with which it is never performed. For the next of several rounds.
    ///
    /// # Examples
    ///
    /// ```
    /// use strands_sched::{Order, try_select};
    ///
    /// let (sender, receiver) = strands_sync::channel::unbounded();
    /// let send = sender.select_send(0);
    /// for number in 1..=3 {
    ///     send.replace(Some(number));
    ///     try_select(&[&send], Order::Fair);
    ///     send.take();
    /// }
    /// assert!(receiver.try_iter().eq(1..=3));
    /// ```
    pub fn replace(&self, message: Option<T>) -> Option<T> {
        self.waiter.assert_idle();
        self.message.cell().replace(message)
    }
}

// SAFETY: `withdraw` takes the waiter out of the only line it is put in.
unsafe impl<T> Operation for SendOperation<'_, T> {
    fn attempt(&self) -> bool {
        self.waiter.assert_idle();
        if self.done.get() {
            return true;
        }
        let cell = self.message.cell();
        let Some(message) = cell.take() else { return false };
        let performed = match self.channel.poll_send(message) {
            Ok(()) => true,
            Err(NotSent::Closed(message)) => {
                cell.set(Some(message));
                true
            }
            Err(NotSent::Full(message)) => {
                cell.set(Some(message));
                false
            }
        };
        self.done.set(performed);
        performed
    }

    unsafe fn enrol(&self, arm: Arm<'_>) -> bool {
        // Twice in one select: it is in line already, and the cell is of those who have the line's lock.
        if self.waiter.is_enrolled() {
            return true;
        }
        let cell = self.message.cell();
        let message = cell.take();
        let is_empty = message.is_none();
        cell.set(message);
        let slot = Slot { cell, side: Side::Senders };
        // SAFETY: `select` borrows us, and so the cell, until we are withdrawn.
        is_empty || unsafe { self.channel.enrol(&self.waiter, arm, slot) }
    }

    unsafe fn withdraw(&self) {
        self.channel.withdraw(&self.waiter);
    }

    unsafe fn complete(&self) -> bool {
        self.done.set(true);
        true
    }

    fn about(&self) -> About {
        About { operation: "channel::Sender::send", object: self.waiter.line(), descriptor: None }
    }
}
