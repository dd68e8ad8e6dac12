//! Every message to every receiver.

use loom::thread;

use super::{model, passed};
use crate::broadcast::{RecvError, RecvTimeoutError, channel};

/// The sender stays, so nothing but the message wakes the receiver.
#[test]
fn a_message_wakes_who_waits() {
    model(3, || {
        let (sender, mut receiver) = channel(1);
        let receives = thread::spawn(move || receiver.recv());
        assert!(sender.send(1).is_ok());
        assert_eq!(receives.join().unwrap(), Ok(1));
    });
}

#[test]
fn all_get_all() {
    model(2, || {
        let (sender, receiver) = channel(2);
        let second = receiver.resubscribe();
        let receivers = [receiver, second].map(|mut receiver| {
            thread::spawn(move || {
                let early = receiver.recv_deadline(passed());
                assert!(matches!(early, Ok(1) | Err(RecvTimeoutError::Timeout)));
                if early.is_err() {
                    assert_eq!(receiver.recv(), Ok(1));
                }
                assert_eq!(receiver.recv(), Err(RecvError::Closed));
            })
        });
        assert_eq!(sender.send(1), Ok(2));
        drop(sender);
        receivers.into_iter().for_each(|receiver| receiver.join().unwrap());
    });
}

/// Got and lost are all that were sent.
#[test]
fn who_lags_knows_how_far() {
    model(3, || {
        let (sender, mut receiver) = channel(1);
        let sends = thread::spawn(move || {
            assert_eq!(sender.send(0), Ok(1));
            assert_eq!(sender.send(1), Ok(1));
        });
        let mut next = 0;
        loop {
            match receiver.recv() {
                Ok(message) => {
                    assert_eq!(message, next);
                    next += 1;
                }
                Err(RecvError::Lagged(lost)) => next += lost,
                Err(RecvError::Closed) => break,
            }
        }
        assert_eq!(next, 2);
        sends.join().unwrap();
    });
}

#[test]
fn the_last_receiver_wakes_who_waits_for_it() {
    model(3, || {
        let (sender, receiver) = channel(1);
        let leaves = thread::spawn(move || drop(receiver));
        let _ = sender.send(1);
        let _ = sender.closed_deadline(passed());
        sender.closed();
        assert!(sender.is_empty() && sender.send(2).is_err());
        leaves.join().unwrap();
    });
}
