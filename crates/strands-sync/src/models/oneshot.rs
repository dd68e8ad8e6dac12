//! One message, which is received, dropped or given back, once.

use loom::sync::Arc;
use loom::thread;

use super::{model, passed};
use crate::oneshot::{RecvTimeoutError, TryRecvError, channel};

#[test]
fn the_message_wakes_the_receiver() {
    model(4, || {
        let (sender, receiver) = channel();
        let sends = thread::spawn(move || sender.send(1).unwrap());
        assert_eq!(receiver.recv(), Ok(1));
        sends.join().unwrap();
    });
}

#[test]
fn the_end_of_the_sender_wakes_the_receiver() {
    model(4, || {
        let (sender, receiver) = channel::<()>();
        let leaves = thread::spawn(move || drop(sender));
        assert!(receiver.recv().is_err());
        leaves.join().unwrap();
    });
}

#[test]
fn the_end_of_the_receiver_wakes_the_sender() {
    model(4, || {
        let (sender, receiver) = channel();
        let waits = thread::spawn(move || {
            sender.closed();
            assert_eq!(sender.send(1), Err(1));
        });
        drop(receiver);
        waits.join().unwrap();
    });
}

#[test]
fn a_receiver_that_gives_up_loses_nothing() {
    model(4, || {
        let (sender, mut receiver) = channel();
        let sends = thread::spawn(move || sender.send(1));
        match receiver.recv_deadline(passed()) {
            Ok(message) => assert_eq!(message, 1),
            Err(error) => {
                assert_eq!(error, RecvTimeoutError::Timeout);
                assert_eq!(receiver.recv(), Ok(1));
            }
        }
        assert_eq!(sends.join().unwrap(), Ok(()));
    });
}

/// Loom reports a message that nobody drops, or that is read without the order it needs.
#[test]
fn the_message_is_one_side_s() {
    model(4, || {
        let (sender, mut receiver) = channel();
        let sends = thread::spawn(move || sender.send(Arc::new(1)).is_ok());
        receiver.close();
        let received = receiver.try_recv();
        let closed = matches!(received, Err(TryRecvError::Disconnected));
        assert!(received.is_ok() || closed);
        assert_eq!(sends.join().unwrap(), received.is_ok());
    });
}

#[test]
fn a_message_that_is_not_received_is_dropped() {
    model(4, || {
        let (sender, receiver) = channel();
        let kept = Arc::new(1);
        let message = kept.clone();
        let sends = thread::spawn(move || drop(sender.send(message)));
        drop(receiver);
        sends.join().unwrap();
        assert_eq!(Arc::strong_count(&kept), 1);
    });
}
