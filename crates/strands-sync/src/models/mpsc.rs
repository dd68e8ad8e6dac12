//! Channels: no message is lost, doubled or out of order, and nobody waits for ever.
//!
//! A message is a cell of loom's, so that one who gets it before it was written is found.

use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::thread;

use super::model;
use crate::mpsc::{
    Receiver, RecvError, RecvTimeoutError, SendError, TrySendError, channel, sync_channel,
};

struct Message(UnsafeCell<u32>);

impl Message {
    fn new(value: u32) -> Message {
        let message = Message(UnsafeCell::new(0));
        // SAFETY: it is ours.
        message.0.with_mut(|cell| unsafe { *cell = value });
        message
    }

    fn take(self) -> u32 {
        // SAFETY: it is ours; that it is, is what loom checks.
        self.0.with_mut(|cell| unsafe { std::mem::take(&mut *cell) })
    }
}

fn receive_all(receiver: Receiver<Message>) -> Vec<u32> {
    receiver.into_iter().map(Message::take).collect()
}

#[test]
fn channel_keeps_all_in_order() {
    model(3, || {
        let (sender, receiver) = channel();
        let other = sender.clone();
        let other = thread::spawn(move || other.send(Message::new(7)).is_ok());
        let one = thread::spawn(move || (1..3).all(|i| sender.send(Message::new(i)).is_ok()));
        let mut all = receive_all(receiver);
        assert!(one.join().unwrap() && other.join().unwrap());
        let seven = all.iter().position(|&i| i == 7).expect("a message was lost");
        all.remove(seven);
        assert_eq!(all, [1, 2]);
    });
}

#[test]
fn channel_that_loses_its_receiver() {
    model(3, || {
        let (sender, receiver) = channel();
        let other = thread::spawn(move || {
            let sent = [1, 2].map(|i| sender.send(Message::new(i)));
            for (i, result) in (1..).zip(sent) {
                if let Err(SendError(message)) = result {
                    assert_eq!(message.take(), i, "the message comes back");
                }
            }
        });
        assert_eq!(receiver.recv().map(Message::take).unwrap_or(1), 1);
        drop(receiver);
        other.join().unwrap();
    });
}

/// The message goes to the receiver whose time is up, or stays for its next call.
#[test]
fn channel_with_a_timeout() {
    model(3, || {
        let (sender, receiver) = channel();
        let other = thread::spawn(move || sender.send(Message::new(1)).is_ok());
        let first = receiver.recv_timeout(Duration::ZERO).map(Message::take);
        match first {
            Ok(1) => {}
            Err(RecvTimeoutError::Timeout) => assert_eq!(receiver.recv().map(Message::take), Ok(1)),
            other => panic!("{other:?}"),
        }
        assert_eq!(receiver.recv().map(Message::take), Err(RecvError));
        assert!(other.join().unwrap());
    });
}

#[test]
fn bounded_channel_makes_senders_wait() {
    // Fewer preemptions than elsewhere: a ring takes many steps, and has models of its own.
    model(1, || {
        let (sender, receiver) = sync_channel(1);
        let other = sender.clone();
        let other = thread::spawn(move || other.send(Message::new(7)).is_ok());
        let one = thread::spawn(move || (1..3).all(|i| sender.send(Message::new(i)).is_ok()));
        let mut all = receive_all(receiver);
        assert!(one.join().unwrap() && other.join().unwrap());
        let seven = all.iter().position(|&i| i == 7).expect("a message was lost");
        all.remove(seven);
        assert_eq!(all, [1, 2]);
    });
}

#[test]
fn rendezvous_goes_from_hand_to_hand() {
    model(3, || {
        let (sender, receiver) = sync_channel(0);
        let other = sender.clone();
        let other = thread::spawn(move || match other.try_send(Message::new(7)) {
            Ok(()) => true,
            Err(TrySendError::Full(message)) => message.take() != 7,
            Err(TrySendError::Disconnected(_)) => panic!("the receiver is there"),
        });
        let one = thread::spawn(move || sender.send(Message::new(1)).is_ok());
        let all = receive_all(receiver);
        assert!(one.join().unwrap());
        assert_eq!(all.contains(&7), other.join().unwrap(), "they disagree");
        assert!(all.contains(&1));
    });
}

/// A receiver whose time is up meets a sender that waits: both know whether the message was taken.
#[test]
fn rendezvous_with_a_timeout() {
    model(3, || {
        let (sender, receiver) = sync_channel(0);
        let other = thread::spawn(move || sender.send(Message::new(1)).is_ok());
        let got = receiver.recv_timeout(Duration::ZERO).map(Message::take);
        drop(receiver);
        assert_eq!(got.is_ok(), other.join().unwrap(), "they disagree");
    });
}

#[test]
fn rendezvous_that_loses_its_receiver() {
    model(3, || {
        let (sender, receiver) = sync_channel(0);
        let two = [1, 2].map(|i| {
            let sender = sender.clone();
            thread::spawn(move || sender.send(Message::new(i)).map_err(|error| error.0.take()))
        });
        drop(sender);
        let got = receiver.recv().map(Message::take).unwrap();
        drop(receiver);
        for (i, other) in (1..).zip(two) {
            let expected = if i == got { Ok(()) } else { Err(i) };
            assert_eq!(other.join().unwrap(), expected);
        }
    });
}
