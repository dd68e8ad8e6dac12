//! The objects, and who uses them.

use std::sync::Arc;

use strands_sched::yield_now;
use strands_sync::mpsc::{
    self, Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel,
};
use strands_sync::{Mutex, Notify, RwLock, Semaphore, channel, oneshot};

use crate::checker::Model;
use crate::common::Random;
use crate::models::{
    Answered, Counted, Counter, Granted, Kept, OneShot, Passed, Permits, Queue, Rendezvous, Side,
    Told,
};
use crate::record::{Party, check};
use Passed::{Disconnected, Empty, Full, Received, Sent};

/// Parties that do `each` operations.
fn parties<Op, F>(n: usize, each: usize, mut party: impl FnMut() -> F) -> Vec<Party<Op>>
where
    F: FnMut(&mut Random) -> Op + Send + 'static,
{
    let party = |_| {
        let (mut operate, mut left) = (party(), each);
        let party = move |random: &mut Random| {
            left = left.checked_sub(1)?;
            Some(operate(random))
        };
        Box::new(party) as Party<Op>
    };
    (0..n).map(party).collect()
}

/// Lets others run in the middle of something, now and then.
fn pause(random: &mut Random) {
    if random.below(4) == 0 {
        yield_now();
    }
}

#[test]
fn mutex() {
    check(&[Counter::default()], |_| {
        let counter = Arc::new(Mutex::new(0));
        parties(5, 12, || {
            let counter = counter.clone();
            move |random| {
                let guard = match random.below(3) {
                    0 => counter.try_lock().ok(),
                    _ => Some(counter.lock().unwrap()),
                };
                let Some(mut guard) = guard else { return Counted::Busy };
                let before = *guard;
                pause(random);
                if random.below(3) == 0 {
                    return Counted::Read(before);
                }
                *guard = before + 1;
                Counted::Add(before)
            }
        })
    });
}

#[test]
fn rwlock() {
    check(&[Counter::default()], |_| {
        let counter = Arc::new(RwLock::new(0));
        parties(5, 12, || {
            let counter = counter.clone();
            move |random| match random.below(5) {
                0 => counter.try_read().map_or(Counted::Busy, |guard| Counted::Read(*guard)),
                1 | 2 => {
                    let guard = counter.read().unwrap();
                    pause(random);
                    Counted::Read(*guard)
                }
                kind => {
                    let guard = match kind {
                        3 => counter.try_write().ok(),
                        _ => Some(counter.write().unwrap()),
                    };
                    let Some(mut guard) = guard else { return Counted::Busy };
                    let before = *guard;
                    pause(random);
                    *guard = before + 1;
                    Counted::Add(before)
                }
            }
        })
    });
}

/// Sends a message: [`Sent`] or [`Full`].
type Sender = Box<dyn FnMut(u32, &mut Random) -> Passed + Send>;
/// Receives a message; only if it is told that it may, with an end to its patience.
type Receive = Box<dyn FnMut(bool, &mut Random) -> Passed + Send>;

/// Senders of ten messages each, and receivers that go on until there are no senders.
fn senders_and_receivers(
    random: &mut Random,
    senders: Vec<Sender>,
    receivers: Vec<Receive>,
) -> Vec<Party<Passed>> {
    let senders = (1..).zip(senders).map(|(number, mut send)| {
        let mut messages = number * 100..number * 100 + 10;
        let party = move |random: &mut Random| Some(send(messages.next()?, random));
        Box::new(party) as Party<Passed>
    });
    let patience = 30 / receivers.len();
    let receivers = receivers.into_iter().map(|mut receive| {
        let (mut empty, mut over) = (0, false);
        let party = move |random: &mut Random| {
            let received = (!over).then(|| receive(empty < patience, random))?;
            empty += usize::from(matches!(received, Empty));
            over = matches!(received, Disconnected);
            Some(received)
        };
        Box::new(party) as Party<Passed>
    });
    let mut parties: Vec<_> = receivers.chain(senders).collect();
    let first = random.below(parties.len());
    parties.rotate_left(first);
    parties
}

fn mpsc_receiver(receiver: Receiver<u32>) -> Vec<Receive> {
    let receive = move |may_give_up, random: &mut Random| match (may_give_up, random.below(3)) {
        (true, 0) => match receiver.try_recv() {
            Ok(message) => Received(message),
            Err(TryRecvError::Empty) => Empty,
            Err(TryRecvError::Disconnected) => Disconnected,
        },
        (true, 1) => match receiver.recv_timeout(random.timeout()) {
            Ok(message) => Received(message),
            Err(RecvTimeoutError::Timeout) => Empty,
            Err(RecvTimeoutError::Disconnected) => Disconnected,
        },
        _ => receiver.recv().map_or(Disconnected, Received),
    };
    vec![Box::new(receive)]
}

fn sync_senders(sender: &SyncSender<u32>) -> Vec<Sender> {
    (0..3)
        .map(|_| {
            let sender = sender.clone();
            Box::new(move |message, random: &mut Random| {
                if random.below(2) == 0 {
                    sender.send(message).unwrap();
                    return Sent(message);
                }
                match sender.try_send(message) {
                    Ok(()) => Sent(message),
                    Err(TrySendError::Full(_)) => Full,
                    Err(TrySendError::Disconnected(_)) => unreachable!("the receiver is there"),
                }
            }) as Sender
        })
        .collect()
}

#[test]
fn mpsc_channel() {
    check(&[Queue::new(usize::MAX)], |random| {
        let (sender, receiver) = mpsc::channel();
        let senders = (0..3)
            .map(|_| {
                let sender = sender.clone();
                Box::new(move |message, _: &mut Random| {
                    sender.send(message).unwrap();
                    Sent(message)
                }) as Sender
            })
            .collect();
        senders_and_receivers(random, senders, mpsc_receiver(receiver))
    });
}

#[test]
fn mpsc_sync_channel() {
    for bound in 1..=3 {
        check(&[Queue::new(bound)], |random| {
            let (sender, receiver) = sync_channel(bound);
            senders_and_receivers(random, sync_senders(&sender), mpsc_receiver(receiver))
        });
    }
}

#[test]
fn mpsc_rendezvous() {
    check(&[Side::Sender, Side::Receiver].map(Rendezvous::new), |random| {
        let (sender, receiver) = sync_channel(0);
        senders_and_receivers(random, sync_senders(&sender), mpsc_receiver(receiver))
    });
}

/// Parties that acquire up to `most` permits at a time, and release them.
fn acquirers(permits: usize, most: usize) -> Vec<Party<Granted>> {
    let semaphore = Arc::new(Semaphore::new(permits));
    (0..5)
        .map(|_| {
            let (semaphore, mut held, mut left) = (semaphore.clone(), None, 10);
            Box::new(move |random: &mut Random| {
                if let Some(permit) = held.take() {
                    let n = strands_sync::OwnedSemaphorePermit::num_permits(&permit);
                    drop(permit);
                    return Some(Granted::Released(n as u32));
                }
                left = usize::checked_sub(left, 1)?;
                let n = 1 + random.below(most) as u32;
                held = match random.below(3) {
                    0 => semaphore.try_acquire_many_owned(n).ok(),
                    1 => semaphore.acquire_many_owned_timeout(n, random.timeout()).ok(),
                    _ => semaphore.acquire_many_owned(n).ok(),
                };
                Some(if held.is_some() { Granted::Acquired(n) } else { Granted::Refused(n) })
            }) as Party<Granted>
        })
        .collect()
}

#[test]
fn semaphore() {
    for free in 1..=2 {
        let model = [Permits { free, line_is_known: true }];
        check(&model, |_| acquirers(free as usize, 1));
    }
    check(&[Permits { free: 3, line_is_known: false }], |_| acquirers(3, 3));
}

#[test]
fn notify() {
    check(&[Kept::default()], |_| {
        let notify = Arc::new(Notify::new());
        parties(5, 12, || {
            let notify = notify.clone();
            move |random| match random.below(2) {
                0 => {
                    notify.notify_one();
                    Told::Notified
                }
                _ if notify.notified_timeout(random.timeout()) => Told::Got,
                _ => Told::GotNone,
            }
        })
    });
}

fn channel_senders(sender: &channel::Sender<u32>) -> Vec<Sender> {
    use channel::SendTimeoutError;
    (0..3)
        .map(|_| {
            let sender = sender.clone();
            Box::new(move |message, random: &mut Random| match random.below(3) {
                0 => match sender.try_send(message) {
                    Ok(()) => Sent(message),
                    Err(TrySendError::Full(_)) => Full,
                    Err(TrySendError::Disconnected(_)) => unreachable!("receivers are there"),
                },
                1 => match sender.send_timeout(message, random.timeout()) {
                    Ok(()) => Sent(message),
                    Err(SendTimeoutError::Timeout(_)) => Full,
                    Err(SendTimeoutError::Disconnected(_)) => unreachable!("receivers are there"),
                },
                _ => {
                    sender.send(message).unwrap();
                    Sent(message)
                }
            }) as Sender
        })
        .collect()
}

fn channel_receivers(receiver: &channel::Receiver<u32>) -> Vec<Receive> {
    (0..2)
        .map(|_| {
            let receiver = receiver.clone();
            let receive =
                move |may_give_up, random: &mut Random| match (may_give_up, random.below(3)) {
                    (true, 0) => match receiver.try_recv() {
                        Ok(message) => Received(message),
                        Err(TryRecvError::Empty) => Empty,
                        Err(TryRecvError::Disconnected) => Disconnected,
                    },
                    (true, 1) => match receiver.recv_timeout(random.timeout()) {
                        Ok(message) => Received(message),
                        Err(RecvTimeoutError::Timeout) => Empty,
                        Err(RecvTimeoutError::Disconnected) => Disconnected,
                    },
                    _ => receiver.recv().map_or(Disconnected, Received),
                };
            Box::new(receive) as Receive
        })
        .collect()
}

fn channel_is_linearizable<M: Model<Op = Passed>>(
    models: &[M],
    make: fn() -> (channel::Sender<u32>, channel::Receiver<u32>),
) {
    check(models, |random| {
        let (sender, receiver) = make();
        let receivers = channel_receivers(&receiver);
        senders_and_receivers(random, channel_senders(&sender), receivers)
    });
}

#[test]
fn bounded_channel() {
    channel_is_linearizable(&[Queue::new(1)], || channel::bounded(1));
    channel_is_linearizable(&[Queue::new(2)], || channel::bounded(2));
    channel_is_linearizable(&[Queue::new(3)], || channel::bounded(3));
}

#[test]
fn unbounded_channel() {
    channel_is_linearizable(&[Queue::new(usize::MAX)], channel::unbounded);
}

#[test]
fn rendezvous_channel() {
    let models = [Side::Sender, Side::Receiver].map(Rendezvous::new);
    channel_is_linearizable(&models, channel::rendezvous);
}

#[test]
fn oneshot_channel() {
    check(&[OneShot::default()], |random| {
        let (sender, receiver) = oneshot::channel();
        let (mut sender, mut receiver) = (Some(sender), Some(receiver));
        let sending = move |random: &mut Random| {
            let sender = sender.take()?;
            (0..random.below(20)).for_each(|_| pause(random));
            Some(match random.below(4) {
                0 => {
                    drop(sender);
                    Answered::SenderGone
                }
                _ => match sender.send(7) {
                    Ok(()) => Answered::Sent(7),
                    Err(_) => Answered::NotSent,
                },
            })
        };
        let mut left = 12usize;
        let receiving = move |random: &mut Random| {
            left = left.saturating_sub(1);
            if left == 0 {
                drop(receiver.take()?); // Is to close it.
                return Some(Answered::Closed);
            }
            let receiver = receiver.as_mut()?;
            Some(match random.below(12) {
                0 => {
                    receiver.close();
                    Answered::Closed
                }
                1..=5 => match receiver.try_recv() {
                    Ok(message) => Answered::Received(message),
                    Err(TryRecvError::Empty) => Answered::Nothing,
                    Err(TryRecvError::Disconnected) => Answered::Over,
                },
                _ => match receiver.recv_timeout(random.timeout()) {
                    Ok(message) => Answered::Received(message),
                    Err(RecvTimeoutError::Timeout) => Answered::Nothing,
                    Err(RecvTimeoutError::Disconnected) => Answered::Over,
                },
            })
        };
        let mut parties: Vec<Party<Answered>> = vec![Box::new(sending), Box::new(receiving)];
        // By all kinds of party.
        (0..random.below(3)).for_each(|_| parties.insert(0, Box::new(|_| None)));
        parties
    });
}
