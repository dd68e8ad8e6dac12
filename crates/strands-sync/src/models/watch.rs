//! A change is seen, by those who wait and by those who are about to.

use loom::thread;

use super::{model, passed};
use crate::watch::{RecvTimeoutError, channel};

#[test]
fn a_change_wakes_who_waits() {
    model(3, || {
        let (sender, mut receiver) = channel(0);
        let other = thread::spawn(move || {
            sender.send(1).unwrap();
            sender
        });
        receiver.changed().unwrap();
        assert_eq!(*receiver.borrow(), 1);
        let _sender = other.join().unwrap();
        assert_eq!(receiver.changed_deadline(passed()), Err(RecvTimeoutError::Timeout));
    });
}

#[test]
fn the_last_change_is_not_missed() {
    model(2, || {
        let (sender, mut receiver) = channel(0);
        let second = sender.clone();
        let others = [sender, second]
            .map(|sender| thread::spawn(move || sender.send_modify(|value| *value += 1)));
        assert_eq!(*receiver.wait_for(|&value| value == 2).unwrap(), 2);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// The value that is borrowed is that of the version which counts as seen.
#[test]
fn what_was_seen_is_what_was_borrowed() {
    model(3, || {
        let (sender, mut receiver) = channel(0);
        let other = thread::spawn(move || {
            sender.send(1).unwrap();
            sender
        });
        let seen = *receiver.borrow_and_update();
        let _sender = other.join().unwrap();
        assert_eq!(receiver.has_changed(), Ok(seen == 0));
        assert_eq!(receiver.changed_deadline(passed()).is_ok(), seen == 0);
    });
}

#[test]
fn the_last_sender_wakes_all_receivers() {
    model(3, || {
        let (sender, mut receiver) = channel(0);
        let mut second = receiver.clone();
        let waits = thread::spawn(move || {
            let _ = second.changed_deadline(passed());
            while second.changed().is_ok() {}
            *second.borrow()
        });
        let leaves = thread::spawn(move || sender.send(1).unwrap());
        assert!(receiver.changed().is_ok());
        assert!(receiver.changed().is_err());
        assert_eq!(waits.join().unwrap(), 1);
        leaves.join().unwrap();
    });
}

#[test]
fn the_last_receiver_wakes_who_waits_for_it() {
    model(3, || {
        let (sender, receiver) = channel(0);
        let second = receiver.clone();
        let leaves = thread::spawn(move || drop(second));
        let waits = thread::spawn(move || {
            let _ = sender.closed_deadline(passed());
            sender.closed();
            assert!(sender.send(1).is_err());
        });
        drop(receiver);
        leaves.join().unwrap();
        waits.join().unwrap();
    });
}
