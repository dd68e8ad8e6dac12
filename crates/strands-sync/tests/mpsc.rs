//! Channels: what std's do, by fibers and threads in any mix.

mod common;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{
    Kind, Local, PAIRS, at, everywhere, let_others_run, on_one_worker, runtime, start, stress,
};
use strands_sched::{Cancelled, Shared, spawn_on};
use strands_sync::mpsc::{
    Receiver, RecvError, RecvTimeoutError, SendError, Sender, SyncSender, TryRecvError,
    TrySendError, channel, sync_channel,
};

/// A sender of either sort.
enum AnySender<T> {
    Unbounded(Sender<T>),
    Bounded(SyncSender<T>),
}

impl<T> AnySender<T> {
    fn channel(bound: Option<usize>) -> (AnySender<T>, Receiver<T>) {
        match bound {
            None => {
                let (sender, receiver) = channel();
                (AnySender::Unbounded(sender), receiver)
            }
            Some(bound) => {
                let (sender, receiver) = sync_channel(bound);
                (AnySender::Bounded(sender), receiver)
            }
        }
    }

    fn send(&self, message: T) -> Result<(), SendError<T>> {
        match self {
            AnySender::Unbounded(sender) => sender.send(message),
            AnySender::Bounded(sender) => sender.send(message),
        }
    }
}

impl<T> Clone for AnySender<T> {
    fn clone(&self) -> Self {
        match self {
            AnySender::Unbounded(sender) => AnySender::Unbounded(sender.clone()),
            AnySender::Bounded(sender) => AnySender::Bounded(sender.clone()),
        }
    }
}

const BOUNDS: [Option<usize>; 4] = [None, Some(0), Some(1), Some(5)];

#[test]
fn does_what_stds_does() {
    everywhere(|| {
        let (sender, receiver) = channel();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        (0..10).for_each(|i| sender.send(i).unwrap());
        assert_eq!(receiver.recv(), Ok(0));
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Ok(2));
        assert!(receiver.try_iter().take(2).eq([3, 4]));
        assert!(receiver.iter().take(2).eq([5, 6]));
        drop(sender);
        assert!((&receiver).into_iter().take(1).eq([7]));
        assert!(receiver.try_iter().eq([8, 9]));
        assert_eq!(receiver.recv(), Err(RecvError));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(receiver.recv_timeout(Duration::MAX), Err(RecvTimeoutError::Disconnected));
        assert_eq!(receiver.into_iter().next(), None);

        let (sender, receiver) = sync_channel(2);
        sender.send(1).unwrap();
        sender.clone().try_send(2).unwrap();
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        assert_eq!(receiver.recv(), Ok(1));
        sender.try_send(3).unwrap();
        drop(sender);
        assert!(receiver.into_iter().eq([2, 3]));

        let (sender, receiver) = channel();
        drop(receiver);
        assert_eq!(sender.send(1), Err(SendError(1)));
        let (sender, receiver) = sync_channel(0);
        assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
        drop(receiver);
        assert_eq!(sender.send(1), Err(SendError(1)));
        assert_eq!(sender.try_send(1), Err(TrySendError::Disconnected(1)));

        let ((sender, receiver), (sync_sender, _receiver)) =
            (channel::<u8>(), sync_channel::<u8>(1));
        assert_eq!(
            format!(
                "{sender:?} {sync_sender:?} {receiver:?} {:?} {:?}",
                receiver.iter(),
                receiver.try_iter()
            ),
            "Sender { .. } SyncSender { .. } Receiver { .. } \
             Iter { rx: Receiver { .. } } TryIter { rx: Receiver { .. } }"
        );
        assert_eq!(format!("{:?}", receiver.into_iter()), "IntoIter { rx: Receiver { .. } }");
    });
}

#[test]
fn every_kind_sends_to_every_kind_in_order() {
    let messages = 2_000 * stress();
    for (sends, receives) in PAIRS {
        for bound in BOUNDS {
            let runtime = runtime(2);
            let (sender, receiver) = AnySender::channel(bound);
            let sends = start(runtime.shared(), sends, move || {
                (0..messages).for_each(|i| sender.send(Box::new(i)).unwrap());
            });
            let receives = start(runtime.shared(), receives, move || {
                assert!(receiver.iter().map(|message| *message).eq(0..messages));
            });
            sends().unwrap();
            receives().unwrap();
        }
    }
}

#[test]
fn many_senders_one_receiver() {
    let messages = 500 * stress();
    for bound in BOUNDS {
        for receives in [Kind::Thread, Kind::Fiber(0)] {
            let runtime = runtime(2);
            let (sender, receiver) = AnySender::channel(bound);
            let senders: Vec<_> =
                [Kind::Thread, Kind::Fiber(0), Kind::Fiber(1), Kind::Thread, Kind::Fiber(1)]
                    .into_iter()
                    .enumerate()
                    .map(|(me, kind)| {
                        let sender = sender.clone();
                        start(runtime.shared(), kind, move || {
                            (0..messages).for_each(|i| sender.send((me, i)).unwrap());
                        })
                    })
                    .collect();
            drop(sender);
            let receiver = start(runtime.shared(), receives, move || {
                let mut next = [0; 5];
                for (sender, i) in receiver {
                    assert_eq!(next[sender], i, "each sender's messages come in its order");
                    next[sender] += 1;
                }
                next
            });
            senders.into_iter().for_each(|join| join().unwrap());
            assert_eq!(receiver().unwrap(), [messages; 5]);
        }
    }
}

#[test]
fn a_rendezvous_ends_when_the_message_is_taken() {
    on_one_worker(|| {
        let (sender, receiver) = sync_channel(0);
        let sent = Rc::new(Cell::new(0));
        let count = sent.clone();
        let sends = Local::until_it_waits(move |about_to_wait| {
            about_to_wait();
            for i in 1..=2 {
                sender.send(i).unwrap();
                count.set(i);
            }
            sender
        });
        let_others_run();
        assert_eq!(sent.get(), 0);
        assert_eq!(receiver.try_recv(), Ok(1), "a sender waits, so there is a message");
        let_others_run();
        assert_eq!(sent.get(), 1);
        assert_eq!(receiver.recv(), Ok(2));
        let sender = sends.join().unwrap();
        assert_eq!(sent.get(), 2);
        // The other way round: only who waits can be sent to at once.
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        let receives = Local::until_it_waits(move |about_to_wait| {
            about_to_wait();
            receiver.recv()
        });
        assert_eq!(sender.try_send(4), Ok(()));
        assert_eq!(sender.try_send(5), Err(TrySendError::Full(5)), "it has got its message");
        assert_eq!(receives.join().unwrap(), Ok(4));
        assert_eq!(sender.try_send(6), Err(TrySendError::Disconnected(6)));
    });
}

#[test]
fn a_full_channel_lets_senders_in_first_come_first_served() {
    for bound in [1, 3] {
        on_one_worker(|| {
            let (sender, receiver) = sync_channel(bound);
            (0..bound).for_each(|i| sender.try_send(i).unwrap());
            let waiting: Vec<_> = (bound..bound + 4)
                .map(|i| {
                    let sender = sender.clone();
                    Local::until_it_waits(move |about_to_wait| {
                        about_to_wait();
                        sender.send(i).unwrap();
                    })
                })
                .collect();
            let_others_run();
            assert!(waiting.iter().all(|fiber| !fiber.is_finished()));
            assert_eq!(receiver.recv(), Ok(0));
            assert_eq!(sender.try_send(99), Err(TrySendError::Full(99)), "the room is taken");
            let_others_run();
            assert_eq!(waiting.iter().filter(|fiber| fiber.is_finished()).count(), 1);
            assert!(receiver.try_iter().eq(1..bound + 4));
            waiting.into_iter().for_each(|fiber| fiber.join().unwrap());
        });
    }
}

#[test]
fn the_last_sender_wakes_the_receiver() {
    for (sends, receives) in PAIRS {
        for bound in BOUNDS {
            let runtime = runtime(2);
            let (sender, receiver) = AnySender::<()>::channel(bound);
            let second = sender.clone();
            let receives = start(runtime.shared(), receives, move || {
                (receiver.recv(), receiver.recv_timeout(Duration::MAX))
            });
            start(runtime.shared(), sends, move || drop(sender))().unwrap();
            start(runtime.shared(), sends, move || drop(second))().unwrap();
            let disconnected = (Err(RecvError), Err(RecvTimeoutError::Disconnected));
            assert_eq!(receives().unwrap(), disconnected);
        }
    }
}

#[test]
fn the_receiver_gives_waiting_senders_their_messages_back() {
    for (sends, receives) in PAIRS {
        for bound in [0, 1, 2] {
            let runtime = runtime(2);
            let (sender, receiver) = sync_channel(bound);
            (0..bound).for_each(|i| sender.try_send(Box::new(i)).unwrap());
            let waiting: Vec<_> = (0..3)
                .map(|i| {
                    let sender = sender.clone();
                    start(runtime.shared(), sends, move || sender.send(Box::new(100 + i)))
                })
                .collect();
            start(runtime.shared(), receives, move || drop(receiver))().unwrap();
            for (i, join) in waiting.into_iter().enumerate() {
                assert_eq!(join().unwrap(), Err(SendError(Box::new(100 + i))));
            }
        }
    }
}

/// Counts how often it is dropped, and may do something meanwhile.
struct Message<F: FnMut() = fn()> {
    dropped: Arc<AtomicUsize>,
    then: F,
}

impl<F: FnMut()> Drop for Message<F> {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
        (self.then)();
    }
}

fn message(dropped: &Arc<AtomicUsize>) -> Message {
    Message { dropped: dropped.clone(), then: || () }
}

#[test]
fn the_receiver_drops_what_it_did_not_receive() {
    everywhere(|| {
        for received in [0, 1, 5] {
            let dropped = Arc::new(AtomicUsize::new(0));
            let (sender, receiver) = channel();
            (0..10).for_each(|_| sender.send(message(&dropped)).unwrap());
            receiver.iter().take(received).for_each(drop);
            // Some more behind those that it has taken already.
            (0..10).for_each(|_| sender.send(message(&dropped)).unwrap());
            assert_eq!(dropped.load(SeqCst), received);
            drop(receiver);
            assert_eq!(dropped.load(SeqCst), 20);
            assert!(sender.send(message(&dropped)).is_err());
            assert_eq!(dropped.load(SeqCst), 21);
        }
    });
}

#[test]
fn a_destructor_may_use_the_channel_it_was_sent_on() {
    everywhere(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let (sender, receiver) = channel::<Box<dyn Send>>();
        for _ in 0..3 {
            let (theirs, count) = (sender.clone(), dropped.clone());
            let then = move || {
                assert!(theirs.clone().send(Box::new(())).is_err(), "the receiver is gone");
                count.fetch_add(100, SeqCst);
            };
            sender.send(Box::new(Message { dropped: dropped.clone(), then })).unwrap();
        }
        drop(sender);
        drop(receiver);
        assert_eq!(dropped.load(SeqCst), 303);
    });
}

#[test]
fn a_destructor_that_panics_drops_the_rest_all_the_same() {
    everywhere(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let (sender, receiver) = channel();
        for i in 0..10 {
            let then = move || {
                if i == 3 {
                    resume_unwind(Box::new(()));
                }
            };
            sender.send(Message { dropped: dropped.clone(), then }).unwrap();
        }
        assert!(catch_unwind(AssertUnwindSafe(|| drop(receiver))).is_err());
        assert_eq!(dropped.load(SeqCst), 10);
    });
}

#[test]
fn times_out() {
    everywhere(|| {
        let (sender, receiver) = channel();
        for timeout in [Duration::ZERO, Duration::from_micros(1), Duration::from_micros(100)] {
            let start = Instant::now();
            assert_eq!(receiver.recv_timeout(timeout), Err(RecvTimeoutError::Timeout));
            assert!(start.elapsed() >= timeout);
            sender.send(1).unwrap();
            assert_eq!(receiver.recv_timeout(timeout), Ok(1));
        }
        sender.send(2).unwrap();
        assert_eq!(receiver.recv_timeout(Duration::MAX), Ok(2));
    });
    for (sends, receives) in PAIRS {
        let runtime = runtime(2);
        let (sender, receiver) = channel();
        let receives =
            start(runtime.shared(), receives, move || receiver.recv_timeout(Duration::MAX));
        start(runtime.shared(), sends, move || sender.send(1).unwrap())().unwrap();
        assert_eq!(receives().unwrap(), Ok(1));
    }
}

#[test]
fn receiving_races_the_timeout_and_nothing_is_lost_or_doubled() {
    let messages = 1_000 * stress();
    for (sends, receives) in PAIRS {
        for bound in BOUNDS {
            let runtime = runtime(2);
            let (sender, receiver) = AnySender::channel(bound);
            let sends = start(runtime.shared(), sends, move || {
                for i in 0..messages {
                    sender.send(Box::new(i)).unwrap();
                    if i % 16 == 0 {
                        strands_sched::yield_now();
                    }
                }
            });
            let receives = start(runtime.shared(), receives, move || {
                let mut received = Vec::new();
                let mut round = 0;
                loop {
                    round += 1;
                    match receiver.recv_timeout(Duration::from_micros(round % 4 * 5)) {
                        Ok(message) => received.push(*message),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return received,
                    }
                }
            });
            sends().unwrap();
            assert!(receives().unwrap().into_iter().eq(0..messages));
        }
    }
}

/// Cancels fibers that receive while a thread sends, or the other way round. Every message is
/// received or dropped, once.
fn cancel_races(cancelled_sends: bool, bound: Option<usize>) {
    let dropped = Arc::new(AtomicUsize::new(0));
    let (sent, received) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (sender, receiver) = AnySender::channel(bound);
    let doomed = runtime(1);
    let sends = {
        let (dropped, sent) = (dropped.clone(), sent.clone());
        move || {
            loop {
                let next = message(&dropped);
                sent.fetch_add(1, SeqCst);
                if sender.send(next).is_err() {
                    return;
                }
            }
        }
    };
    let receives = {
        let received = received.clone();
        move || {
            for message in receiver {
                received.fetch_add(1, SeqCst);
                drop(message);
            }
        }
    };
    fn run(
        doomed: &Shared,
        a: impl FnOnce() + Send + 'static,
        b: impl FnOnce() + Send + 'static,
    ) -> (strands_sched::Join<()>, std::thread::JoinHandle<()>) {
        (spawn_on(doomed, at(0), a).unwrap(), std::thread::spawn(b))
    }
    let (fiber, thread) = match cancelled_sends {
        true => run(doomed.shared(), sends, receives),
        false => run(doomed.shared(), receives, sends),
    };
    while received.load(SeqCst) < 20 {
        std::thread::yield_now();
    }
    doomed.shutdown(None).unwrap();
    assert!(fiber.join().unwrap_err().is::<Cancelled>());
    thread.join().unwrap();
    assert_eq!(dropped.load(SeqCst), sent.load(SeqCst));
    assert!(received.load(SeqCst) <= sent.load(SeqCst));
}

#[test]
fn a_cancel_races_recv_and_nothing_is_lost_or_doubled() {
    for _ in 0..5 * stress() {
        BOUNDS.into_iter().for_each(|bound| cancel_races(false, bound));
    }
}

#[test]
fn a_cancel_races_send_and_nothing_is_lost_or_doubled() {
    for _ in 0..5 * stress() {
        BOUNDS.into_iter().for_each(|bound| cancel_races(true, bound));
    }
}

#[test]
fn a_cancelled_receiver_takes_nothing() {
    // The message that a fiber has not got is still there for who comes after.
    let (sender, receiver) = channel();
    let receiver = Arc::new(std::sync::Mutex::new(receiver));
    let theirs = receiver.clone();
    let doomed = runtime(1);
    let fiber = spawn_on(doomed.shared(), at(0), move || {
        let receiver = theirs.lock().unwrap();
        catch_unwind(AssertUnwindSafe(|| receiver.recv())).is_err()
    })
    .unwrap();
    doomed.run(at(0), let_others_run).unwrap();
    doomed.shutdown(None).unwrap();
    assert!(fiber.join().unwrap(), "cancelled in recv");
    sender.send(1).unwrap();
    assert_eq!(receiver.lock().unwrap().try_recv(), Ok(1));
}

#[test]
fn a_loop_of_waits_without_time_can_be_cancelled() {
    for _ in 0..3 * stress() {
        // Such a wait is in line while it spends the budget: a cancel must not unwind it from there.
        // With many of them, all but one are suspended by their budgets when the cancel comes.
        let doomed = runtime(1);
        let rounds = Arc::new(AtomicUsize::new(0));
        let (senders, fibers): (Vec<_>, Vec<_>) = (0..32)
            .map(|me| {
                let (sender, receiver) = channel::<()>();
                let rounds = rounds.clone();
                let fiber = spawn_on(doomed.shared(), at(0), move || {
                    // A budget ends now before the wait, now within: differently for each.
                    for round in 0.. {
                        assert!(receiver.recv_timeout(Duration::ZERO).is_err());
                        rounds.fetch_add(1, SeqCst);
                        if round % (me + 2) == 0 {
                            assert!(receiver.try_recv().is_err());
                        }
                    }
                });
                (sender, fiber.unwrap())
            })
            .unzip();
        while rounds.load(SeqCst) < 32 * 200 {
            std::thread::yield_now();
        }
        doomed.shutdown(None).unwrap();
        for fiber in fibers {
            assert!(fiber.join().unwrap_err().is::<Cancelled>());
        }
        // Nobody is in line: this would write to a frame that is gone.
        assert!(senders.iter().all(|sender| sender.send(()).is_err()));
    }
}

#[test]
fn fibers_of_one_worker_may_share_a_receiver() {
    on_one_worker(|| {
        let (sender, receiver) = channel();
        let receiver = Rc::new(receiver);
        let received = Rc::new(RefCell::new(Vec::new()));
        let fibers: Vec<_> = (0..3)
            .map(|_| {
                let (receiver, received) = (receiver.clone(), received.clone());
                Local::until_it_waits(move |about_to_wait| {
                    about_to_wait();
                    for message in receiver.iter() {
                        received.borrow_mut().push(message);
                    }
                })
            })
            .collect();
        for i in 0..100 {
            sender.send(i).unwrap();
            if i % 7 == 0 {
                let_others_run();
            }
        }
        drop(sender);
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
        let mut received = received.borrow().clone();
        received.sort_unstable();
        assert!(received.into_iter().eq(0..100));
    });
}

#[test]
fn a_loop_of_sends_lets_others_run() {
    on_one_worker(|| {
        let (sender, receiver) = channel();
        let stop = Rc::new(Cell::new(false));
        let stopped = stop.clone();
        let sends = Local::until_it_waits(move |about_to_wait| {
            about_to_wait();
            let mut sent = 0;
            while !stopped.get() {
                sender.send(()).unwrap();
                sent += 1;
            }
            sent
        });
        // We run though it never waits.
        stop.set(true);
        assert!(sends.join().unwrap() > 0);
        // And others run though we only poll.
        let others_ran = Rc::new(Cell::new(false));
        let ran = others_ran.clone();
        let other = Local::until_it_waits(move |about_to_wait| {
            about_to_wait();
            let_others_run();
            ran.set(true);
        });
        while !others_ran.get() {
            let _ = receiver.try_recv();
        }
        other.join().unwrap();
    });
}

#[test]
fn senders_come_and_go_while_it_receives() {
    let rounds = 200 * stress();
    let runtime = runtime(2);
    for bound in BOUNDS {
        let (sender, receiver) = AnySender::channel(bound);
        let started: Vec<_> = [Kind::Thread, Kind::Fiber(0), Kind::Fiber(1)]
            .into_iter()
            .map(|kind| {
                let sender = sender.clone();
                start(runtime.shared(), kind, move || {
                    for _ in 0..rounds {
                        let clone = sender.clone();
                        drop(sender.clone());
                        clone.send(1).unwrap();
                    }
                })
            })
            .collect();
        drop(sender);
        assert_eq!(receiver.iter().sum::<usize>(), 3 * rounds);
        started.into_iter().for_each(|join| join().unwrap());
    }
}
