//! The sequential models.

use std::collections::VecDeque;

use crate::checker::Model;

/// A number under a lock: [`Counted`] operations.
pub type Counter = u64;

#[derive(Clone, Debug)]
pub enum Counted {
    Read(u64),
    /// Adds one; what it was before.
    Add(u64),
    /// Neither, as somebody else had the lock, who is not in the model.
    Busy,
}

impl Model for Counter {
    type Op = Counted;

    fn after(&self, op: &Counted) -> Option<Counter> {
        match *op {
            Counted::Read(seen) => (seen == *self).then_some(*self),
            Counted::Add(before) => (before == *self).then_some(*self + 1),
            Counted::Busy => Some(*self),
        }
    }
}

/// A queue of at most `bound` messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Queue {
    pub bound: usize,
    messages: VecDeque<u32>,
}

impl Queue {
    pub fn new(bound: usize) -> Queue {
        Queue { bound, messages: VecDeque::new() }
    }
}

/// What is done to a channel.
#[derive(Clone, Debug)]
pub enum Passed {
    Sent(u32),
    /// It was not sent, at once or in time: full.
    Full,
    Received(u32),
    /// None was received, at once or in time.
    Empty,
    /// None was received, and none will be.
    Disconnected,
}

impl Model for Queue {
    type Op = Passed;

    fn after(&self, op: &Passed) -> Option<Queue> {
        let mut next = self.clone();
        let can_be = match *op {
            Passed::Sent(message) => {
                next.messages.push_back(message);
                self.messages.len() < self.bound
            }
            Passed::Full => self.messages.len() == self.bound,
            Passed::Received(message) => next.messages.pop_front() == Some(message),
            Passed::Empty | Passed::Disconnected => self.messages.is_empty(),
        };
        can_be.then_some(next)
    }
}

/// A channel without a buffer. A message is sent while it is received: who is `first` of the two has
/// come before the other has gone, which is to be checked for both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rendezvous {
    first: Side,
    /// The message that the first side has dealt with and the other not.
    between: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Sender,
    Receiver,
}

impl Rendezvous {
    pub fn new(first: Side) -> Rendezvous {
        Rendezvous { first, between: None }
    }
}

impl Model for Rendezvous {
    type Op = Passed;

    fn after(&self, op: &Passed) -> Option<Rendezvous> {
        let (side, message) = match *op {
            Passed::Sent(message) => (Side::Sender, message),
            Passed::Received(message) => (Side::Receiver, message),
            // Nobody was on the other side; who is on this one is not in the model.
            Passed::Full | Passed::Empty | Passed::Disconnected => {
                return self.between.is_none().then(|| self.clone());
            }
        };
        let (before, after) =
            if side == self.first { (None, Some(message)) } else { (Some(message), None) };
        (self.between == before).then(|| Rendezvous { between: after, ..self.clone() })
    }
}

/// A number of permits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Permits {
    pub free: u32,
    /// Whether a request may fail although there are enough: a larger one was first in line.
    pub line_is_known: bool,
}

#[derive(Clone, Debug)]
pub enum Granted {
    Acquired(u32),
    Refused(u32),
    Released(u32),
}

impl Model for Permits {
    type Op = Granted;

    fn after(&self, op: &Granted) -> Option<Permits> {
        let free = match *op {
            Granted::Acquired(n) => self.free.checked_sub(n)?,
            Granted::Released(n) => self.free + n,
            Granted::Refused(n) if self.line_is_known && self.free >= n => return None,
            Granted::Refused(_) => self.free,
        };
        Some(Permits { free, ..self.clone() })
    }
}

/// A notification that is kept: a semaphore of one permit, which may be given again in vain.
pub type Kept = bool;

#[derive(Clone, Debug)]
pub enum Told {
    Notified,
    Got,
    GotNone,
}

impl Model for Kept {
    type Op = Told;

    fn after(&self, op: &Told) -> Option<Kept> {
        match op {
            Told::Notified => Some(true),
            Told::Got => self.then_some(false),
            Told::GotNone => (!self).then_some(false),
        }
    }
}

/// A channel for one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OneShot {
    message: Option<u32>,
    sender_is_done: bool,
    is_closed: bool,
}

#[derive(Clone, Debug)]
pub enum Answered {
    Sent(u32),
    /// It came back, as the receiver had closed.
    NotSent,
    SenderGone,
    Received(u32),
    Nothing,
    /// Nothing will come.
    Over,
    Closed,
}

impl Model for OneShot {
    type Op = Answered;

    fn after(&self, op: &Answered) -> Option<OneShot> {
        let is_over = self.sender_is_done || self.is_closed;
        let (can_be, next) = match *op {
            Answered::Sent(message) => {
                let next = OneShot { message: Some(message), sender_is_done: true, ..*self };
                (!is_over, next)
            }
            Answered::NotSent => {
                (self.is_closed && !self.sender_is_done, OneShot { sender_is_done: true, ..*self })
            }
            Answered::SenderGone => {
                (!self.sender_is_done, OneShot { sender_is_done: true, ..*self })
            }
            Answered::Received(message) => {
                (self.message == Some(message), OneShot { message: None, ..*self })
            }
            Answered::Nothing => (self.message.is_none() && !is_over, *self),
            Answered::Over => (self.message.is_none() && is_over, *self),
            Answered::Closed => (true, OneShot { is_closed: true, ..*self }),
        };
        can_be.then_some(next)
    }
}
