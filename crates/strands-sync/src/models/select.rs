//! Select over channels and semaphores: one operation is performed, and of the others nothing is lost.

use loom::sync::Arc;
use loom::thread;
use strands_sched::{Order, select};

use super::passed;
use crate::Semaphore;
use crate::channel::{self, Receiver, Sender, TryRecvError, bounded, rendezvous};

fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(f);
}

type Ends = (Sender<usize>, Receiver<usize>);

/// What it received, or what it has left to send.
type Done = Result<usize, Option<usize>>;

/// Receives from one, or sends to the other.
fn receive_or_send(receiver: &Receiver<usize>, sender: &Sender<usize>, message: usize) -> Done {
    let mut message = Some(message);
    let recv = receiver.select_recv();
    let chosen = {
        let send = sender.select_send(&mut message);
        let chosen = select(&[&recv, &send], Order::Biased, None).unwrap();
        assert_eq!(send.take(), (chosen == 1).then_some(Ok(())));
        chosen
    };
    match chosen {
        0 => {
            assert!(message.is_some(), "another arm won: the message stays");
            Ok(recv.take().unwrap().unwrap())
        }
        _ => Err(message),
    }
}

/// Of one who had 2 to send, and one who had 1.
fn assert_that_one_message_passed(here: Done, there: Done) {
    match (here, there) {
        (Ok(1), Err(None)) | (Err(None), Ok(2)) => {}
        outcomes => panic!("{outcomes:?}"),
    }
}

/// Each wants to receive what the other sends, or to send what the other receives. One message passes.
#[test]
fn two_selects_cross() {
    model(2, || {
        let channels: Arc<[Ends; 2]> = Arc::new([rendezvous(), rendezvous()]);
        let theirs = channels.clone();
        let other = thread::spawn(move || receive_or_send(&theirs[1].1, &theirs[0].0, 1));
        let here = receive_or_send(&channels[0].1, &channels[1].0, 2);
        assert_that_one_message_passed(here, other.join().unwrap());
        for (sender, receiver) in &*channels {
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
            assert!(sender.try_send(3).is_err());
        }
    });
}

/// Two that want to send or to receive, on one channel: they meet each other, and not themselves.
#[test]
fn two_selects_meet_on_a_rendezvous() {
    model(2, || {
        let ends: Arc<Ends> = Arc::new(rendezvous());
        let theirs = ends.clone();
        let other = thread::spawn(move || receive_or_send(&theirs.1, &theirs.0, 1));
        let here = receive_or_send(&ends.1, &ends.0, 2);
        assert_that_one_message_passed(here, other.join().unwrap());
    });
}

/// A select of both ends, which gives up, beside a plain sender that does too.
#[test]
fn a_select_of_both_ends_does_not_meet_itself() {
    model(2, || {
        let (sender, receiver) = rendezvous();
        let hasty = sender.clone();
        let hasty = thread::spawn(move || hasty.send_deadline(1, passed()).is_ok());
        let mut message = Some(2);
        let chosen = {
            let (recv, send) = (receiver.select_recv(), sender.select_send(&mut message));
            let chosen = select(&[&recv, &send], Order::Biased, Some(passed()));
            assert_eq!(recv.take(), chosen.map(|_| Ok(1)));
            chosen
        };
        assert_eq!(chosen, hasty.join().unwrap().then_some(0));
        assert_eq!(message, Some(2));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    });
}

/// Two messages, a select over both channels and a patient receiver of one: all is received once.
fn past_a_select(channel: fn() -> Ends) {
    model(2, move || {
        let channels: Arc<[Ends; 2]> = Arc::new([channel(), bounded(1)]);
        let theirs = channels.clone();
        let patient = thread::spawn(move || theirs[0].1.recv().unwrap());
        let theirs = channels.clone();
        let sends = thread::spawn(move || {
            theirs[1].0.send(2).unwrap();
            theirs[0].0.send(1).unwrap();
        });
        let received = {
            let receives = [channels[0].1.select_recv(), channels[1].1.select_recv()];
            let chosen = select(&[&receives[0], &receives[1]], Order::Biased, None).unwrap();
            assert!(receives[1 - chosen].take().is_none());
            receives[chosen].take().unwrap().unwrap()
        };
        if received == 1 {
            channels[0].0.send(1).unwrap();
            assert_eq!(channels[1].1.recv(), Ok(2));
        }
        assert_eq!(patient.join().unwrap(), 1);
        sends.join().unwrap();
        channels.iter().for_each(|ends| assert_eq!(ends.1.try_recv(), Err(TryRecvError::Empty)));
    });
}

#[test]
fn a_message_goes_past_a_select() {
    past_a_select(|| bounded(1));
}

#[test]
fn a_message_of_a_rendezvous_goes_past_a_select() {
    past_a_select(rendezvous);
}

/// A select that gives up has its message back, or it is received.
#[test]
fn a_select_sends_or_gives_up() {
    model(3, || {
        let (sender, receiver) = rendezvous();
        let other = thread::spawn(move || receiver.recv_deadline(passed()));
        let send = sender.select_send(1);
        let chosen = select(&[&send], Order::Fair, Some(passed()));
        match other.join().unwrap() {
            Ok(message) => assert_eq!((message, chosen), (1, Some(0))),
            Err(_) if chosen.is_some() => assert!(send.take().unwrap().is_err(), "closed"),
            Err(_) => assert_eq!(send.replace(None), Some(1)),
        }
    });
}

/// A permit is granted to a select that has something else already: the next in line gets it.
#[test]
fn a_permit_goes_past_a_select() {
    model(2, || {
        let semaphore = Arc::new(Semaphore::new(0));
        let (sender, receiver) = channel::bounded(1);
        let theirs = semaphore.clone();
        let patient = thread::spawn(move || drop(theirs.acquire().unwrap()));
        let theirs = semaphore.clone();
        let other = thread::spawn(move || {
            sender.send(()).unwrap();
            theirs.add_permits(1);
        });
        {
            let (acquire, recv) = (semaphore.select_acquire_many(1), receiver.select_recv());
            select(&[&acquire, &recv], Order::Biased, None).unwrap();
        }
        patient.join().unwrap();
        other.join().unwrap();
        assert_eq!(semaphore.available_permits(), 1);
    });
}

/// The select lacks what the second in line does not need.
#[test]
fn a_select_that_leaves_the_line_lets_the_next_have_what_there_is() {
    model(2, || {
        let semaphore = Arc::new(Semaphore::new(1));
        let (sender, receiver) = channel::bounded(1);
        let theirs = semaphore.clone();
        let patient = thread::spawn(move || drop(theirs.acquire().unwrap()));
        let other = thread::spawn(move || sender.send(()).unwrap());
        let (acquire, recv) = (semaphore.select_acquire_many(2), receiver.select_recv());
        let chosen = select(&[&acquire, &recv], Order::Biased, None).unwrap();
        assert_eq!(chosen, 1);
        patient.join().unwrap();
        other.join().unwrap();
        assert_eq!(semaphore.available_permits(), 1);
    });
}

/// Two requests of one select: the large one, which stands before it, does not hold up the small one.
#[test]
fn a_select_does_not_hold_up_itself() {
    model(3, || {
        let semaphore = Arc::new(Semaphore::new(0));
        let theirs = semaphore.clone();
        let gives = thread::spawn(move || theirs.add_permits(1));
        let (two, one) = (semaphore.select_acquire_many(2), semaphore.select_acquire_many(1));
        assert_eq!(select(&[&two, &one], Order::Biased, None), Some(1));
        gives.join().unwrap();
        drop(one.take());
        assert_eq!(semaphore.available_permits(), 1);
        drop(semaphore.try_acquire().expect("somebody is left in line"));
    });
}
