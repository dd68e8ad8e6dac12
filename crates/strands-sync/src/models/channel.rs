//! Channels: each message to one receiver, however the waits around it end.
//!
//! The slots of the ring are loom's cells, so that a message that is read without the order it needs is found.

use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

use super::passed;
use crate::channel::{
    Receiver, RecvTimeoutError, SendTimeoutError, Sender, TryRecvError, TrySendError, bounded,
    rendezvous, unbounded,
};

/// The retries of the ring are branches too.
fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(f);
}

/// A message that must not be lost: loom reports one that is.
type Message = Arc<usize>;

fn message(number: usize) -> Message {
    Arc::new(number)
}

fn sends(sender: &Sender<Message>, numbers: &'static [usize]) -> JoinHandle<()> {
    let sender = sender.clone();
    thread::spawn(move || {
        numbers.iter().for_each(|&number| sender.send(message(number)).unwrap());
    })
}

fn sum(receiver: &Receiver<Message>, messages: usize) -> usize {
    receiver.iter().take(messages).map(|message| *message).sum()
}

/// The sender waits for room and the receiver for messages, in turn.
#[test]
fn a_ring_of_one_between_two() {
    model(3, || {
        let (sender, receiver) = bounded(1);
        let other = sends(&sender, &[1, 2]);
        assert_eq!(*receiver.recv().unwrap(), 1);
        assert_eq!(*receiver.recv().unwrap(), 2);
        other.join().unwrap();
        assert!(receiver.is_empty());
    });
}

#[test]
fn a_ring_of_two_and_two_senders() {
    model(2, || {
        let (sender, receiver) = bounded(2);
        let others = [sends(&sender, &[1]), sends(&sender, &[2])];
        assert_eq!(sum(&receiver, 2), 3);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert!(receiver.is_empty());
    });
}

#[test]
fn a_ring_of_one_and_two_receivers() {
    model(1, || {
        let (sender, receiver) = bounded(1);
        let others = [(); 2].map(|()| {
            let receiver = receiver.clone();
            thread::spawn(move || sum(&receiver, 1))
        });
        sender.send(message(1)).unwrap();
        sender.send(message(2)).unwrap();
        assert_eq!(others.map(|other| other.join().unwrap()).iter().sum::<usize>(), 3);
    });
}

/// Of a message, a receiver that gives up and a patient one: the patient one gets it, or the other did and sends it on.
fn past_one_that_gives_up(channel: fn() -> (Sender<Message>, Receiver<Message>)) {
    model(2, move || {
        let (sender, receiver) = channel();
        let second = receiver.clone();
        let patient = thread::spawn(move || sum(&second, 1));
        let other = sends(&sender, &[1]);
        if let Ok(message) = receiver.recv_deadline(passed()) {
            sender.send(message).unwrap();
        }
        assert_eq!(patient.join().unwrap(), 1);
        other.join().unwrap();
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    });
}

#[test]
fn a_message_goes_past_one_that_gives_up() {
    past_one_that_gives_up(|| bounded(1));
}

#[test]
fn an_unbounded_message_goes_past_one_that_gives_up() {
    past_one_that_gives_up(unbounded);
}

/// A sender that gives up has its message back, or it is received. After that nobody is in line.
#[test]
fn a_sender_gives_up_or_has_sent() {
    model(3, || {
        let (sender, receiver) = bounded(1);
        sender.send(message(1)).unwrap();
        let hasty = sender.clone();
        let hasty = thread::spawn(move || match hasty.send_deadline(message(2), passed()) {
            Ok(()) => 2,
            Err(SendTimeoutError::Timeout(message)) => *message - 2,
            Err(SendTimeoutError::Disconnected(_)) => unreachable!("there is a receiver"),
        });
        assert_eq!(*receiver.recv().unwrap(), 1);
        if hasty.join().unwrap() == 2 {
            assert_eq!(*receiver.recv().unwrap(), 2);
        }
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
        sender.try_send(message(8)).unwrap();
        assert_eq!(*receiver.try_recv().unwrap(), 8);
    });
}

#[test]
fn room_goes_past_one_that_gives_up() {
    model(1, || {
        let (sender, receiver) = bounded(1);
        sender.send(message(1)).unwrap();
        let patient = sends(&sender, &[2]);
        let hasty = thread::spawn(move || sender.send_deadline(message(4), passed()).is_ok());
        let received: usize = receiver.iter().map(|message| *message).sum();
        assert_eq!(received, if hasty.join().unwrap() { 7 } else { 3 });
        patient.join().unwrap();
    });
}

#[test]
fn a_rendezvous_takes_two() {
    model(3, || {
        let (sender, receiver) = rendezvous();
        let hasty = thread::spawn(move || {
            let first = sender.send_deadline(message(1), passed()).is_ok();
            (first, sender)
        });
        let received = receiver.recv_deadline(passed());
        let (sent, sender) = hasty.join().unwrap();
        match received {
            Ok(message) => assert!(sent && *message == 1),
            Err(error) => assert!(!sent && error == RecvTimeoutError::Timeout),
        }
        assert!(matches!(sender.try_send(message(2)), Err(TrySendError::Full(_))));
        assert!(receiver.try_recv().is_err());
    });
}

/// What was sent before the end is received; what was not comes back.
fn close_while_sending(channel: fn() -> (Sender<Message>, Receiver<Message>)) {
    model(3, move || {
        let (sender, receiver) = channel();
        let other = thread::spawn(move || {
            (1..=2).filter(|&number| sender.send(message(number)).is_ok()).count()
        });
        let mut received = usize::from(receiver.try_recv().is_ok());
        receiver.close();
        received += receiver.iter().count();
        assert_eq!(received, other.join().unwrap(), "what was sent is not what was received");
    });
}

#[test]
fn a_close_loses_nothing() {
    close_while_sending(|| bounded(1));
}

#[test]
fn a_close_of_a_ring_with_room_loses_nothing() {
    close_while_sending(|| bounded(2));
}

#[test]
fn a_close_of_a_rendezvous_loses_nothing() {
    close_while_sending(rendezvous);
}

#[test]
fn the_last_sender_wakes_all_receivers() {
    model(2, || {
        let (sender, receiver) = bounded(1);
        let second = receiver.clone();
        let receives = thread::spawn(move || second.iter().count());
        let other = thread::spawn(move || sender.send(message(1)).unwrap());
        assert_eq!(receiver.iter().count() + receives.join().unwrap(), 1);
        other.join().unwrap();
    });
}

/// The receiver goes: the message is dropped with the channel, or comes back to the sender.
#[test]
fn the_last_receiver_leaves_no_message() {
    model(3, || {
        let (sender, receiver) = bounded(1);
        let other = thread::spawn(move || {
            let kept = message(1);
            let first = sender.send(kept.clone());
            let second = sender.send(kept.clone());
            assert!(second.is_err(), "nobody makes room");
            drop((first, second));
            kept
        });
        drop(receiver);
        let kept = other.join().unwrap();
        let left = Arc::strong_count(&kept) - 1;
        assert_eq!(left, 0, "a message is left in a channel without receivers");
    });
}

#[test]
fn a_drain_takes_the_messages_of_senders_in_line() {
    model(3, || {
        let (sender, receiver) = bounded(1);
        let other = sends(&sender, &[1, 2]);
        let drained = receiver.drain();
        let drained: Vec<_> = drained.map(|message| *message).collect();
        let rest: Vec<_> =
            receiver.iter().take(2 - drained.len()).map(|message| *message).collect();
        assert_eq!([drained, rest].concat(), [1, 2]);
        other.join().unwrap();
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    });
}
