//! Channels: every message is received exactly once and in its sender's order, or dropped with the
//! channel.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use strands::sync::mpsc::{
    Receiver, RecvTimeoutError, SendError, Sender, SyncSender, TryRecvError, TrySendError,
    channel as unbounded, sync_channel,
};

use crate::activities::spawning::pause;
use crate::books::{self, Count, check, violation};
use crate::party::{Party, Started};

/// A message. It counts itself out.
pub struct Message {
    pub sender: usize,
    pub number: u64,
    /// Told by the other two, so a torn message is seen.
    body: Box<[u64]>,
    received: bool,
}

impl Message {
    pub fn new(sender: usize, number: u64) -> Message {
        books::count(Count::Minted);
        let body = (0..number % 7).map(|place| place ^ number ^ sender as u64).collect();
        Message { sender, number, body, received: false }
    }

    pub fn receive(mut self) {
        let (number, sender) = (self.number, self.sender as u64);
        let expected = (0..number % 7).map(|place| place ^ number ^ sender);
        check(self.body.iter().copied().eq(expected), || "a message was changed".into());
        self.received = true;
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        books::count(if self.received { Count::Received } else { Count::Lost });
    }
}

#[derive(Clone)]
enum Tx {
    Unbounded(Sender<Message>),
    Bounded(SyncSender<Message>),
}

impl Tx {
    fn send(&self, party: &mut Party, message: Message) -> Result<(), SendError<Message>> {
        match self {
            Tx::Unbounded(sender) => sender.send(message),
            Tx::Bounded(sender) if party.rng.u32(..4) == 0 => match sender.try_send(message) {
                Ok(()) => Ok(()),
                Err(TrySendError::Full(message)) => sender.send(message),
                Err(TrySendError::Disconnected(message)) => Err(SendError(message)),
            },
            Tx::Bounded(sender) => sender.send(message),
        }
    }
}

/// Some senders, one receiver, and one of either may leave early.
pub fn channel(party: &mut Party) {
    let senders = party.rng.usize(1..=6);
    let (tx, rx) = match party.rng.usize(..8) {
        0..4 => {
            let (sender, receiver) = unbounded();
            (Tx::Unbounded(sender), receiver)
        }
        few => {
            let (sender, receiver) = sync_channel([0, 0, 1, 7][few - 4]);
            (Tx::Bounded(sender), receiver)
        }
    };
    let sent = Arc::new(AtomicU64::new(0));
    let each = party.rng.u64(..150);
    let start_sender = |party: &mut Party, sender: usize| {
        let (tx, sent) = (tx.clone(), sent.clone());
        party.start(move |party| {
            for number in 0..each {
                if tx.send(party, Message::new(sender, number)).is_err() {
                    return;
                }
                sent.fetch_add(1, SeqCst);
                pause(party);
            }
        })
    };
    let mut others: Vec<Started<()>> =
        (0..senders).filter_map(|sender| start_sender(party, sender)).collect();
    drop(tx);
    if party.rng.bool() {
        others.extend(party.start(move |party| receive(party, &rx, senders, &sent)));
    } else {
        receive(party, &rx, senders, &sent);
        drop(rx);
    }
    for other in others {
        other.join();
    }
}

fn receive(party: &mut Party, rx: &Receiver<Message>, senders: usize, sent: &AtomicU64) {
    let leave_after = if party.rng.u32(..6) == 0 { party.rng.u64(..100) } else { u64::MAX };
    let mut next = vec![0; senders];
    let mut received = 0;
    while received < leave_after {
        let message = match party.rng.u32(..8) {
            0 => match rx.try_recv() {
                Ok(message) => message,
                Err(TryRecvError::Empty) => {
                    strands::yield_now();
                    continue;
                }
                Err(TryRecvError::Disconnected) => break,
            },
            1 => {
                let (start, timeout) =
                    (Instant::now(), Duration::from_micros(party.rng.u64(..900)));
                match rx.recv_timeout(timeout) {
                    Ok(message) => message,
                    Err(RecvTimeoutError::Timeout) => {
                        let took = start.elapsed();
                        check(took >= timeout, || format!("{timeout:?} were over after {took:?}"));
                        books::count(Count::Timers);
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            _ => match rx.recv() {
                Ok(message) => message,
                Err(_) => break,
            },
        };
        let (sender, number) = (message.sender, message.number);
        let expected = std::mem::replace(&mut next[sender], number + 1);
        if number != expected {
            violation(format_args!(
                "sender {sender}'s message {number} came in place of {expected}"
            ));
        }
        message.receive();
        received += 1;
        if party.rng.u32(..16) == 0 {
            pause(party);
        }
    }
    if received < leave_after {
        // All senders are gone; what they counted happened before they went.
        let sent = sent.load(SeqCst);
        check(sent == received, || format!("{sent} messages were sent, {received} received"));
    }
}

/// Two who wait for each other's answer.
pub fn ping_pong(party: &mut Party) {
    let rounds = party.rng.u64(1..200);
    let bound = party.rng.usize(..3);
    let (to_other, from_us) = sync_channel::<Message>(bound);
    let (to_us, from_other) = sync_channel::<Message>(bound);
    let other = party.start(move |_| {
        for message in from_us.iter() {
            let number = message.number;
            message.receive();
            if to_us.send(Message::new(1, number)).is_err() {
                return;
            }
        }
    });
    for round in 0..rounds {
        if to_other.send(Message::new(0, round)).is_err() {
            break;
        }
        let Ok(answer) = from_other.recv() else { break };
        check(answer.number == round, || format!("{} answered {round}", answer.number));
        answer.receive();
    }
    drop(to_other);
    other.map(Started::join);
}
